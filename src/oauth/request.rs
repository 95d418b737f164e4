//! The token request (RFC 6749 section 4.4.2).

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{Request, Uri};
use zeroize::Zeroizing;

use crate::credentials::AppCredentials;
use crate::error::{Error, ErrorKind};
use crate::message::SkipAuth;

/// Returns the normalized token URL. Equal ones share a rate limit.
pub(super) fn endpoint(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or_default();
    let host = url.host().unwrap_or_default().to_ascii_lowercase();
    let default_port = if scheme == "https" { 443 } else { 80 };
    let port = url.port_u16().unwrap_or(default_port);
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    format!("{scheme}://{host}:{port}{path}")
}

/// Builds the request for a token with this scope.
pub(super) fn build(
    token_url: &Uri,
    app: &AppCredentials,
    scope: Option<&str>,
    form_params: &[(String, String)],
) -> Result<Request<Bytes>, Error> {
    let more = form_params.iter();
    // In the order of OfficeRnD's documentation.
    let fields = [
        ("client_id", &*app.client_id),
        ("client_secret", app.client_secret.expose()),
        ("grant_type", "client_credentials"),
    ]
    .into_iter()
    .chain(scope.map(|scope| ("scope", scope)))
    .chain(more.map(|(name, value)| (&**name, &**value)));
    Request::post(token_url.clone())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(ACCEPT, "application/json")
        .header(ACCEPT_ENCODING, "identity")
        .header(
            USER_AGENT,
            concat!("officernd-auth/", env!("CARGO_PKG_VERSION")),
        )
        // A client with the layer would wait for this very token.
        .extension(SkipAuth)
        .body(form_body(fields))
        .map_err(|_| Error::new(ErrorKind::Denied, "the token request cannot be built"))
}

/// Encodes an `application/x-www-form-urlencoded` body that is wiped with its last handle.
fn form_body<'a>(fields: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Bytes {
    // Allocated in full: a buffer that grows would leave bytes of the secret in freed memory.
    let lengths = fields
        .clone()
        .map(|(name, value)| 3 * (name.len() + value.len()) + 2);
    let mut form = form_urlencoded::Serializer::new(String::with_capacity(lengths.sum()));
    form.extend_pairs(fields);
    Bytes::from_owner(Zeroizing::new(form.finish().into_bytes()))
}
