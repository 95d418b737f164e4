//! What the layer reads and writes of a response.

use std::sync::Arc;

use http::{Extensions, HeaderMap, StatusCode};

use super::sealed::Sealed;
use crate::cache::Token;

/// Response extension: the server answered 401 to the token that the layer had
/// put on the request, or a server to which a client below the layer followed a
/// redirect.
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
    pub(super) token: Arc<Token>,
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
/// Sealed: this crate implements it.
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
    /// The status.
    fn status(&self) -> StatusCode;

    /// The headers, for `WWW-Authenticate`.
    fn headers(&self) -> &HeaderMap;

    /// The extensions, for [`TokenRejected`].
    fn extensions_mut(&mut self) -> &mut Extensions;
}

impl<B> Sealed for http::Response<B> {}

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
impl Sealed for reqwest::Response {}

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
