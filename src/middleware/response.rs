//! What the layer reads and writes of a response.

use std::sync::Arc;

use http::{Extensions, HeaderMap, StatusCode};

use crate::cache::TokenId;

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
    pub(super) token: Arc<TokenId>,
}

impl TokenRejected {
    /// Which of the cache's tokens was rejected, counted from 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.token.generation()
    }
}

/// A response whose status the layer can read: `http::Response<B>` with any
/// body, and `reqwest::Response` (feature `reqwest`).
///
/// Sealed: only this crate can make a [`ResponseOrigin`].
///
/// ```
/// fn takes(_: &impl officernd_auth::middleware::AuthResponse) {}
/// takes(&http::Response::new("any body"));
/// ```
pub trait AuthResponse {
    /// The status.
    fn status(&self) -> StatusCode;

    /// The headers, for `WWW-Authenticate`.
    fn headers(&self) -> &HeaderMap;

    /// The extensions, for [`TokenRejected`].
    fn extensions_mut(&mut self) -> &mut Extensions;

    /// The server that the response is from, where the type of response knows it.
    fn origin(&self) -> ResponseOrigin;
}

/// The server that an [`AuthResponse`] is from.
///
/// ```
/// use officernd_auth::middleware::AuthResponse;
///
/// println!("{:?}", http::Response::new(()).origin());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseOrigin(());

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

    fn origin(&self) -> ResponseOrigin {
        ResponseOrigin(())
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

    fn origin(&self) -> ResponseOrigin {
        ResponseOrigin(())
    }
}
