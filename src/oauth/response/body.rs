//! The JSON object of a token answer.

use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// The fields of an answer, still as source text: a number may be larger than
/// any type, and a string may be a secret. `null` is as good as absent.
///
/// serde refuses a field that is there twice. Two readers of one answer must
/// not see two tokens.
#[derive(Deserialize)]
pub(super) struct Body<'a> {
    #[serde(borrow)]
    pub(super) access_token: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) token_type: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) expires_in: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) scope: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
}

/// A value is not of the type that it should have.
#[derive(Debug)]
pub(super) struct WrongType;

impl<'a> Body<'a> {
    /// The object in an answer, or why there is none.
    pub(super) fn parse(headers: &HeaderMap, body: &'a [u8]) -> Result<Self, &'static str> {
        let encodings = headers.get_all(CONTENT_ENCODING).iter();
        let mut encodings = encodings.map(|value| value.as_bytes().trim_ascii());
        if encodings.any(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity")) {
            return Err("it is compressed, which was not asked for; is a proxy in between?");
        }
        let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
        let body = body.trim_ascii();
        // The parser's own errors quote what they did not expect: none is shown.
        match body.first() {
            None => Err("it is empty; is the token URL right?"),
            Some(b'<') => Err("it is HTML or XML; is the token URL right?"),
            Some(b'{') => serde_json::from_slice(body).map_err(|error| match error.is_data() {
                // Every field takes any value.
                true => "it has a key twice",
                false => NOT_JSON,
            }),
            // The derived reader would take an array for an object.
            Some(_) => Err(match serde_json::from_slice::<&RawValue>(body) {
                Ok(_) => "it is not a JSON object",
                Err(_) => NOT_JSON,
            }),
        }
    }
}

const NOT_JSON: &str = "it is not JSON; is the token URL right?";

pub(super) fn text(raw: Option<&RawValue>) -> Result<Option<Zeroizing<String>>, WrongType> {
    let text = raw.map(|raw| serde_json::from_str(raw.get()).map(Zeroizing::new));
    text.transpose().map_err(|_| WrongType)
}

/// A number, or a string of one. Numbers stay text until here: JSON parsers
/// refuse `1e400`.
pub(super) fn number(raw: Option<&RawValue>) -> Result<Option<f64>, WrongType> {
    let Some(source) = raw else { return Ok(None) };
    let text = match text(raw) {
        Ok(Some(text)) => text,
        _ => Zeroizing::new(source.get().to_owned()),
    };
    let text = text.trim();
    // `f64::from_str` would take "inf" and "nan" too.
    let numeric = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    let number = text.parse().ok().filter(|_| text.bytes().all(numeric));
    number.map(Some).ok_or(WrongType)
}
