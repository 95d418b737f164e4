//! The token request (RFC 6749 section 4.4.2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Request, Uri};
use zeroize::Zeroizing;

use crate::credentials::AppCredentials;
use crate::error::{Error, ErrorKind};

/// What stays the same from one token request to the next.
#[derive(Debug)]
pub(super) struct RequestTemplate {
    pub(super) token_url: Uri,
    /// With one space between two scopes.
    pub(super) scope: Option<String>,
    pub(super) form_params: Vec<(String, String)>,
    /// Send id and secret as HTTP Basic instead of in the form.
    pub(super) basic_auth: bool,
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
        let in_form = !self.basic_auth;
        let client_id = in_form.then_some(("client_id", id));
        let client_secret = in_form.then_some(("client_secret", secret));
        let grant = [("grant_type", "client_credentials")];
        let scope = self.scope.as_deref().map(|scope| ("scope", scope));
        let more = self.form_params.iter();
        // In the order of OfficeRnD's documentation.
        let fields = client_id
            .into_iter()
            .chain(client_secret)
            .chain(grant)
            .chain(scope)
            .chain(more.map(|(name, value)| (name.as_str(), value.as_str())));
        let mut request = Request::post(self.token_url.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .header(ACCEPT_ENCODING, "identity")
            .header(
                USER_AGENT,
                concat!("officernd-auth/", env!("CARGO_PKG_VERSION")),
            );
        if self.basic_auth {
            request = request.header(AUTHORIZATION, basic(id, secret)?);
        }
        request
            .body(form_body(fields))
            .map_err(|_| Error::new(ErrorKind::Denied, "the token request cannot be built"))
    }

    /// The secret in each form in which the request, or a `Debug` of it, would
    /// show it.
    pub(super) fn secret_forms(&self, credentials: &AppCredentials) -> Vec<Zeroizing<String>> {
        let secret = credentials.client_secret.expose();
        let mut forms = vec![
            Zeroizing::new(secret.to_owned()),
            Zeroizing::new(secret.escape_debug().to_string()),
            form_encoded(secret),
            percent_encoded(secret),
        ];
        if self.basic_auth {
            forms.push(basic_pair(&credentials.client_id, secret));
        }
        forms
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

fn basic(id: &str, secret: &str) -> Result<HeaderValue, Error> {
    let pair = basic_pair(id, secret);
    let value = Zeroizing::new(["Basic ", &pair].concat());
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(value)).map_err(|_| {
        Error::new(
            ErrorKind::Denied,
            "the credentials cannot be sent in a header",
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// RFC 6749 section 2.3.1: id and secret are percent-encoded before they are
/// joined.
fn basic_pair(id: &str, secret: &str) -> Zeroizing<String> {
    let pair = Zeroizing::new([&*percent_encoded(id), ":", &percent_encoded(secret)].concat());
    Zeroizing::new(STANDARD.encode(&*pair))
}

/// As in a form, but a space is `%20`: servers that decode percent signs only
/// would read `+` as a plus.
fn percent_encoded(text: &str) -> Zeroizing<String> {
    Zeroizing::new(form_encoded(text).replace('+', "%20"))
}

fn form_encoded(text: &str) -> Zeroizing<String> {
    let mut encoded = Zeroizing::new(String::with_capacity(3 * text.len()));
    encoded.extend(form_urlencoded::byte_serialize(text.as_bytes()));
    encoded
}
