//! The requests and responses that the layer supports, and its extensions.

use std::sync::Arc;

use http::{Extensions, HeaderMap, StatusCode};

use self::sealed::Sealed;
use crate::cache::Token;

/// Request extension: sends this request unchanged, without the token and without a check of its
/// origin.
///
/// For `http::Request`. `reqwest::Request` hides its extensions: use
/// [`if_not_present`](crate::Builder::if_not_present) instead.
///
/// A redirect layer above drops the extension: tower-http's `FollowRedirect` does so on every
/// redirect in 0.6, and on redirects to a different origin in 0.7. The redirected request is then
/// handled like any other.
///
/// ```
/// use officernd_auth::SkipAuth;
///
/// let mut request = http::Request::get("https://app.officernd.com/").body(()).unwrap();
/// request.extensions_mut().insert(SkipAuth);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkipAuth;

/// Response extension: a server answered 401 to the layer's token.
///
/// If a client below the layer followed a redirect, that may be a different server.
///
/// ```
/// use officernd_auth::TokenRejected;
///
/// fn was_ours<B>(response: &http::Response<B>) -> bool {
///     response.extensions().get::<TokenRejected>().is_some()
/// }
/// # assert!(!was_ours(&http::Response::new(())));
/// ```
#[derive(Debug, Clone)]
pub struct TokenRejected {
    pub(crate) token: Arc<Token>,
}

impl TokenRejected {
    /// Returns the generation of the rejected token: its number in the cache, from 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.token.generation()
    }
}

/// A request that the layer can put a token on: `http::Request<B>` with any body, or
/// `reqwest::Request` (feature `reqwest`). Sealed.
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
pub trait AuthRequest: Sealed {
    /// Returns the URI's scheme.
    fn scheme(&self) -> Option<&str>;

    /// Returns the URI's authority, which may contain a password.
    fn authority(&self) -> Option<&str>;

    /// Returns the URI's path.
    fn path(&self) -> &str;

    /// Returns the headers.
    fn headers(&self) -> &HeaderMap;

    /// Returns the headers, mutably.
    fn headers_mut(&mut self) -> &mut HeaderMap;

    /// Returns the extensions, if the type gives access to them.
    fn extensions(&self) -> Option<&Extensions>;
}

/// A response whose status the layer can read: `http::Response<B>` with any body, or
/// `reqwest::Response` (feature `reqwest`). Sealed.
///
/// ```
/// fn takes(_: &impl officernd_auth::middleware::AuthResponse) {}
/// takes(&http::Response::new("any body"));
/// ```
#[diagnostic::on_unimplemented(
    message = "officernd-auth cannot read the status of a `{Self}`",
    label = "responds with an unsupported type, or of another version of its crate",
    note = "supported: `http::Response<B>` of http 1, and `reqwest::Response` of reqwest 0.13 with the feature `reqwest`"
)]
pub trait AuthResponse: Sealed {
    /// Returns the status.
    fn status(&self) -> StatusCode;

    /// Returns the headers.
    fn headers(&self) -> &HeaderMap;

    /// Returns the extensions, mutably.
    fn extensions_mut(&mut self) -> &mut Extensions;
}

/// Returns `true` for a request that is sent unchanged.
#[inline]
pub(crate) fn skips_auth<Req: AuthRequest>(request: &Req) -> bool {
    let extensions = request.extensions();
    extensions.is_some_and(|all| all.get::<SkipAuth>().is_some())
}

mod sealed {
    #[expect(unnameable_types, reason = "so that other crates cannot implement it")]
    pub trait Sealed {}

    impl<B> Sealed for http::Request<B> {}
    impl<B> Sealed for http::Response<B> {}
    #[cfg(feature = "reqwest")]
    impl Sealed for reqwest::Request {}
    #[cfg(feature = "reqwest")]
    impl Sealed for reqwest::Response {}
}

impl<B> AuthRequest for http::Request<B> {
    #[inline]
    fn scheme(&self) -> Option<&str> {
        self.uri().scheme_str()
    }

    #[inline]
    fn authority(&self) -> Option<&str> {
        let authority = self.uri().authority()?;
        Some(authority.as_str())
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
    fn scheme(&self) -> Option<&str> {
        Some(self.url().scheme())
    }

    fn authority(&self) -> Option<&str> {
        Some(self.url().authority())
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

impl<B> AuthResponse for http::Response<B> {
    #[inline]
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn extensions_mut(&mut self) -> &mut Extensions {
        self.extensions_mut()
    }
}

#[cfg(feature = "reqwest")]
impl AuthResponse for reqwest::Response {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn extensions_mut(&mut self) -> &mut Extensions {
        self.extensions_mut()
    }
}
