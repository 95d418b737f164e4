//! What the layer reads and writes of a response.

use std::sync::Arc;

use http::{Extensions, HeaderMap, StatusCode};

use crate::cache::TokenId;

/// Response extension: the server answered 401 to the token that the layer had
/// put on the request. A 401 of another server, to which a client below the
/// layer followed a redirect, is not marked.
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
#[diagnostic::on_unimplemented(
    message = "officernd-auth cannot read the status of a `{Self}`",
    label = "responds with an unsupported type, or of another version of its crate",
    note = "supported: `http::Response<B>` of http 1, and `reqwest::Response` of reqwest 0.13 with the feature `reqwest`"
)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseOrigin(Option<(String, String)>);

impl ResponseOrigin {
    /// Whether the token was sent to this server, as far as is known.
    pub(super) fn got(&self, token: &TokenId) -> bool {
        match &self.0 {
            Some((scheme, authority)) => token.may_be_of(scheme, authority),
            None => true,
        }
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

    fn origin(&self) -> ResponseOrigin {
        ResponseOrigin(None)
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
        // What reqwest says of a response that was made without a URL, as in tests.
        match self.url().host_str() {
            Some("no.url.provided.local") => ResponseOrigin(None),
            _ => {
                let (scheme, authority) = (self.url().scheme(), self.url().authority());
                ResponseOrigin(Some((scheme.to_owned(), authority.to_owned())))
            }
        }
    }
}
