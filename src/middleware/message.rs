//! What the layer reads and writes of a request and a response.

use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap, StatusCode};

use self::private::{Answer, Outgoing};
use crate::cache::Ticket;

/// Request extension: this one request goes out as it is, without the token
/// and without a look at its origin.
///
/// For `http::Request`. (reqwest keeps a request's extensions to itself: there,
/// [`if_not_present`](crate::Builder::if_not_present).)
///
/// ```
/// use officernd_auth::SkipAuth;
///
/// let mut request = http::Request::get("https://app.officernd.com/").body(()).unwrap();
/// request.extensions_mut().insert(SkipAuth);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkipAuth;

/// Response extension: the server answered 401 to the token that the layer had
/// put on the request.
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
    pub(super) token: Ticket,
}

impl TokenRejected {
    /// Which of the cache's tokens was rejected, counted from 1 (modulo 2²⁴).
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.token.generation()
    }
}

/// A request that the layer can put a token on: `http::Request<B>` with any
/// body, and `reqwest::Request` (feature `reqwest`). Sealed.
///
/// ```
/// fn takes(_: &impl officernd_auth::middleware::AuthRequest) {}
/// takes(&http::Request::new("any body"));
/// ```
pub trait AuthRequest: Outgoing {}

/// A response whose status the layer can read: `http::Response<B>` with any
/// body, and `reqwest::Response` (feature `reqwest`). Sealed.
///
/// ```
/// fn takes(_: &impl officernd_auth::middleware::AuthResponse) {}
/// takes(&http::Response::new("any body"));
/// ```
pub trait AuthResponse: Answer {}

impl<T: Outgoing> AuthRequest for T {}
impl<T: Answer> AuthResponse for T {}

impl<B> Outgoing for http::Request<B> {
    fn skips(&self) -> bool {
        self.extensions().get::<SkipAuth>().is_some()
    }

    fn target(&self) -> (Option<&str>, Option<&str>) {
        let uri = self.uri();
        (uri.scheme_str(), uri.authority().map(|host| host.as_str()))
    }

    fn path(&self) -> &str {
        self.uri().path()
    }

    fn has_authorization(&self) -> bool {
        self.headers().contains_key(AUTHORIZATION)
    }

    fn headers(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }
}

impl<B> Answer for http::Response<B> {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn extensions(&mut self) -> &mut Extensions {
        self.extensions_mut()
    }
}

#[cfg(feature = "reqwest")]
impl Outgoing for reqwest::Request {
    fn skips(&self) -> bool {
        false
    }

    fn target(&self) -> (Option<&str>, Option<&str>) {
        let url = self.url();
        (Some(url.scheme()), Some(url.authority()))
    }

    fn path(&self) -> &str {
        self.url().path()
    }

    fn has_authorization(&self) -> bool {
        self.headers().contains_key(AUTHORIZATION)
    }

    fn headers(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }
}

#[cfg(feature = "reqwest")]
impl Answer for reqwest::Response {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn extensions(&mut self) -> &mut Extensions {
        self.extensions_mut()
    }
}

pub(super) mod private {
    use super::{Extensions, HeaderMap, StatusCode};

    #[expect(unnameable_types, reason = "sealed")]
    pub trait Outgoing {
        fn skips(&self) -> bool;
        /// Scheme and authority.
        fn target(&self) -> (Option<&str>, Option<&str>);
        fn path(&self) -> &str;
        fn has_authorization(&self) -> bool;
        fn headers(&mut self) -> &mut HeaderMap;
    }

    #[expect(unnameable_types, reason = "sealed")]
    pub trait Answer {
        fn status(&self) -> StatusCode;
        fn headers(&self) -> &HeaderMap;
        fn extensions(&mut self) -> &mut Extensions;
    }
}
