//! The JSON object of a token answer, read with suspicion.

use std::collections::BTreeMap;
use std::fmt;

use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// A JSON object whose values are still source text.
///
/// A `serde_json::Value` would keep the last of doubled keys in silence, and two
/// readers of one answer must not see two tokens.
pub(super) struct Object<'a> {
    fields: BTreeMap<String, &'a RawValue>,
    doubled: bool,
}

/// A value that should have been a JSON string.
#[derive(Debug)]
pub(super) struct NotText;

impl<'a> Object<'a> {
    /// The object in an answer, or why there is none.
    pub(super) fn parse(headers: &HeaderMap, body: &'a [u8]) -> Result<Self, &'static str> {
        let encodings = headers
            .get_all(CONTENT_ENCODING)
            .iter()
            .map(|value| value.as_bytes());
        let mut encodings = encodings.map(<[u8]>::trim_ascii);
        if encodings.any(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity")) {
            return Err("it is compressed, which was not asked for; is a proxy in between?");
        }
        let body = body
            .strip_prefix(b"\xEF\xBB\xBF")
            .unwrap_or(body)
            .trim_ascii();
        match body.first() {
            None => return Err("it is empty; is the token URL right?"),
            Some(b'<') => return Err("it is HTML or XML; is the token URL right?"),
            Some(_) => {}
        }
        let mut source = serde_json::Deserializer::from_slice(body);
        let object = source.deserialize_map(ObjectVisitor);
        // The parser's own error quotes what it did not expect: it goes no further.
        let object = object.and_then(|object| source.end().map(|()| object));
        let object = object.map_err(|error| match error.is_data() {
            true => "it is not a JSON object",
            false => "it is not JSON; is the token URL right?",
        })?;
        if object.doubled {
            Err("it has a key twice")
        } else {
            Ok(object)
        }
    }

    /// A null says as much as an absent key.
    pub(super) fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.fields
            .get(key)
            .copied()
            .filter(|raw| raw.get() != "null")
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<Zeroizing<String>>, NotText> {
        self.get(key).map(text).transpose()
    }
}

pub(super) fn text(raw: &RawValue) -> Result<Zeroizing<String>, NotText> {
    serde_json::from_str(raw.get())
        .map(Zeroizing::new)
        .map_err(|_| NotText)
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut object = Object {
            fields: BTreeMap::new(),
            doubled: false,
        };
        while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
            object.doubled |= object.fields.insert(key, value).is_some();
        }
        Ok(object)
    }
}
