//! The token request (RFC 6749 section 4.4.2).

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{Request, Uri};
use zeroize::Zeroizing;

use crate::credentials::AppCredentials;
use crate::error::{Error, ErrorKind};
use crate::message::SkipAuth;

/// The part that all token requests share.
#[derive(Debug)]
pub(super) struct RequestTemplate {
    pub(super) token_url: Uri,
    /// With one space between two scopes.
    pub(super) scope: Option<String>,
    pub(super) form_params: Vec<(String, String)>,
}

impl RequestTemplate {
    /// The token URL in its one spelling: those who share it share a rate limit.
    pub(super) fn endpoint(&self) -> String {
        let url = &self.token_url;
        let scheme = url.scheme_str().unwrap_or_default();
        let host = url.host().unwrap_or_default().to_ascii_lowercase();
        let port = url
            .port_u16()
            .unwrap_or(if scheme == "https" { 443 } else { 80 });
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        format!("{scheme}://{host}:{port}{path}")
    }

    pub(super) fn request(&self, credentials: &AppCredentials) -> Result<Request<Bytes>, Error> {
        let (id, secret) = (&*credentials.client_id, credentials.client_secret.expose());
        let pair = [("client_id", id), ("client_secret", secret)];
        let grant = [("grant_type", "client_credentials")];
        let scope = self.scope.as_deref().map(|scope| ("scope", scope));
        let more = self.form_params.iter();
        // In the order of OfficeRnD's documentation.
        let fields = pair
            .into_iter()
            .chain(grant)
            .chain(scope)
            .chain(more.map(|(name, value)| (name.as_str(), value.as_str())));
        Request::post(self.token_url.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .header(ACCEPT_ENCODING, "identity")
            .header(
                USER_AGENT,
                concat!("officernd-auth/", env!("CARGO_PKG_VERSION")),
            )
            // A client that carries the layer would wait for the token that it is to fetch.
            .extension(SkipAuth)
            .body(form_body(fields))
            .map_err(|_| Error::new(ErrorKind::Denied, "the token request cannot be built"))
    }
}

/// An `application/x-www-form-urlencoded` body that is wiped with its last handle.
fn form_body<'a>(fields: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Bytes {
    // Room for the worst case: a buffer that grows leaves its old bytes behind.
    let room = fields
        .clone()
        .map(|(name, value)| 3 * (name.len() + value.len()) + 2)
        .sum();
    let mut form = form_urlencoded::Serializer::new(String::with_capacity(room));
    form.extend_pairs(fields);
    Bytes::from_owner(Zeroizing::new(form.finish().into_bytes()))
}
