//! How values are written. No message here shows the value: it may be a secret
//! in the wrong place.

use std::fmt;
use std::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use crate::secret::Secret;
use crate::syntax;

pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    const WANTED: &str = "a duration is text with a unit, such as \"250ms\", \"10s\" or \"1h 30m\"";

    let Text::One(text) = AnyText.deserialize(from)? else {
        return Err(D::Error::custom(WANTED));
    };
    humantime::parse_duration(&text).map_err(|_| D::Error::custom(WANTED))
}

pub(super) fn optional<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    match AnyText.deserialize(from)? {
        Text::One(text) => Ok(Some(text)),
        Text::None => Ok(None),
        Text::Many(_) | Text::Other => {
            Err(D::Error::custom("this must be text; put digits in quotes"))
        }
    }
}

pub(super) fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    Ok(optional(from)?.map(Secret::from))
}

pub(super) fn list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    match AnyText.deserialize(from)? {
        Text::One(text) => Ok(syntax::words(&text).map(str::to_owned).collect()),
        Text::Many(texts) => Ok(texts),
        Text::None => Ok(Vec::new()),
        Text::Other => Err(D::Error::custom(
            "a list of texts, or one text separated by spaces or commas, is wanted",
        )),
    }
}

/// What stands in the place of a text. serde's own complaint would show it.
enum Text {
    None,
    One(String),
    Many(Vec<String>),
    Other,
}

#[derive(Clone, Copy)]
struct AnyText;

impl<'de> DeserializeSeed<'de> for AnyText {
    type Value = Text;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Text, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyText {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text::One(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Text, E> {
        Ok(Text::One(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Text, A::Error> {
        let mut texts = Some(Vec::new());
        while let Some(item) = items.next_element_seed(self)? {
            match (item, &mut texts) {
                (Text::One(text), Some(texts)) => texts.push(text),
                _ => texts = None,
            }
        }
        Ok(texts.map_or(Text::Other, Text::Many))
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Text, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_none<E: Error>(self) -> Result<Text, E> {
        Ok(Text::None)
    }

    fn visit_unit<E: Error>(self) -> Result<Text, E> {
        Ok(Text::None)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Text, E> {
        Ok(Text::Other)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Text, E> {
        Ok(Text::Other)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Text, E> {
        Ok(Text::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Text, E> {
        Ok(Text::Other)
    }
}
