//! What the layer reads and writes of a request.

use std::fmt;

use http::{Extensions, HeaderMap};

/// Request extension: sends this request as it is, without the token and without
/// a check of its origin.
///
/// For `http::Request`. `reqwest::Request` gives no access to its extensions:
/// there, [`if_not_present`](crate::Builder::if_not_present).
///
/// A redirect layer above drops the extension: tower-http's `FollowRedirect` does
/// so on every redirect in 0.6, and on redirects to another origin in 0.7. The
/// redirected request is then authorized like any other: its origin is checked,
/// and the token replaces the caller's own `Authorization`, unless
/// [`if_not_present`](crate::Builder::if_not_present) is set.
///
/// ```
/// use officernd_auth::SkipAuth;
///
/// let mut request = http::Request::get("https://app.officernd.com/").body(()).unwrap();
/// request.extensions_mut().insert(SkipAuth);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkipAuth;

/// A request that the layer can put a token on: `http::Request<B>` with any
/// body, and `reqwest::Request` (feature `reqwest`).
///
/// Sealed: only this crate can make a [`RequestTarget`].
///
/// ```
/// fn takes(_: &impl officernd_auth::middleware::AuthRequest) {}
/// takes(&http::Request::new("any body"));
/// ```
#[diagnostic::on_unimplemented(
    message = "officernd-auth cannot put a token on a `{Self}`",
    label = "sends requests of an unsupported type, or of another version of its crate",
    note = "supported: `http::Request<B>` of http 1, and `reqwest::Request` of reqwest 0.13 with the feature `reqwest`",
    note = "for reqwest 0.12, see \"reqwest 0.12\" in the cookbook: docs.rs/officernd-auth/latest/officernd_auth/cookbook"
)]
pub trait AuthRequest {
    /// Where the request goes.
    fn target(&self) -> RequestTarget<'_>;

    /// The path of its URI.
    fn path(&self) -> &str;

    /// The request's headers.
    fn headers(&self) -> &HeaderMap;

    /// The request's headers, for the token.
    fn headers_mut(&mut self) -> &mut HeaderMap;

    /// The request's extensions, where its type shows them.
    fn extensions(&self) -> Option<&Extensions>;
}

/// Where an [`AuthRequest`] goes.
///
/// ```
/// use officernd_auth::middleware::AuthRequest;
///
/// let request = http::Request::get("https://app.officernd.com/api/v2").body(()).unwrap();
/// println!("{:?}", request.target());
/// ```
#[derive(Clone, Copy)]
pub struct RequestTarget<'a> {
    pub(super) scheme: Option<&'a str>,
    pub(super) authority: Option<&'a str>,
}

impl<B> AuthRequest for http::Request<B> {
    #[inline]
    fn target(&self) -> RequestTarget<'_> {
        let uri = self.uri();
        RequestTarget {
            scheme: uri.scheme_str(),
            authority: uri.authority().map(|authority| authority.as_str()),
        }
    }

    #[inline]
    fn path(&self) -> &str {
        self.uri().path()
    }

    #[inline]
    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    #[inline]
    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }

    #[inline]
    fn extensions(&self) -> Option<&Extensions> {
        Some(self.extensions())
    }
}

#[cfg(feature = "reqwest")]
impl AuthRequest for reqwest::Request {
    fn target(&self) -> RequestTarget<'_> {
        let url = self.url();
        RequestTarget {
            scheme: Some(url.scheme()),
            authority: Some(url.authority()),
        }
    }

    fn path(&self) -> &str {
        self.url().path()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }

    fn extensions(&self) -> Option<&Extensions> {
        None
    }
}

// By hand: the authority of a request that is refused may hold a password.
impl fmt::Debug for RequestTarget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestTarget")
            .field("scheme", &self.scheme)
            .finish_non_exhaustive()
    }
}
