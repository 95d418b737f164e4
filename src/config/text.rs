//! How values are written. No message here shows the value: it may be a secret
//! in the wrong place.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

use crate::secret::Secret;
use crate::syntax;

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a duration is text with a unit, such as \"250ms\", \"10s\" or \"1h 30m\""
)]
enum DurationText {
    Text(String),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "this must be text; put digits in quotes")]
enum Text {
    Text(String),
    None(()),
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a list of texts, or one text separated by spaces or commas, is wanted"
)]
enum TextOrList {
    Text(String),
    List(Vec<String>),
    None(()),
}

pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let DurationText::Text(text) = DurationText::deserialize(from)?;
    humantime::parse_duration(&text).map_err(|_| {
        D::Error::custom("a duration has a unit, such as \"250ms\", \"10s\" or \"1h 30m\"")
    })
}

pub(super) fn optional<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(match Text::deserialize(from)? {
        Text::Text(text) => Some(text),
        Text::None(()) => None,
    })
}

pub(super) fn list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(match TextOrList::deserialize(from)? {
        TextOrList::Text(text) => syntax::words(&text).map(str::to_owned).collect(),
        TextOrList::List(texts) => texts,
        TextOrList::None(()) => Vec::new(),
    })
}

/// Not an untagged enum, which would buffer the secret in memory that is not
/// wiped.
pub(super) fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    from.deserialize_any(SecretVisitor)
}

struct SecretVisitor;

/// serde's own messages would show numbers.
fn not_text<T, E: Error>() -> Result<T, E> {
    Err(E::custom("this must be text; put digits in quotes"))
}

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Option<Secret>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text; put digits in quotes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.into()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
        Ok(Some(text.into()))
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        secret(from)
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        not_text()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        not_text()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        not_text()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        not_text()
    }
}
