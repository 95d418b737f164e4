//! What a 401 or 403 asks for: `WWW-Authenticate` (RFC 9110 §11.6.1).
//!
//! A comma separates challenges, the parameters of one challenge, and sentences
//! inside a quoted string; so the header is parsed, not searched.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

use crate::syntax::is_b64;

/// Whether the server says that the token is good and its scopes are not: no
/// new token cures that (RFC 6750 §3.1).
#[must_use]
pub(crate) fn insufficient_scope(headers: &HeaderMap) -> bool {
    has_error(headers, b"insufficient_scope")
}

/// Whether the server says that the token itself is not good.
#[must_use]
pub(crate) fn invalid_token(headers: &HeaderMap) -> bool {
    has_error(headers, b"invalid_token")
}

fn has_error(headers: &HeaderMap, error: &[u8]) -> bool {
    let values = headers.get_all(WWW_AUTHENTICATE).iter();
    values
        .flat_map(|value| Params::new(value.as_bytes()))
        .any(|param| {
            param.scheme.eq_ignore_ascii_case(b"bearer")
                && param.name.eq_ignore_ascii_case(b"error")
                && param.value.is(error)
        })
}

/// Every auth-param of one header value, each with its challenge's scheme.
/// Ends at the first thing that is not in the grammar: what follows may belong
/// to anything.
#[derive(Debug)]
struct Params<'a> {
    rest: &'a [u8],
    /// The challenge that parameters belong to; none after a token68, which
    /// stands in the place of parameters.
    scheme: Option<&'a [u8]>,
}

#[derive(Debug, PartialEq, Eq)]
struct Param<'a> {
    scheme: &'a [u8],
    name: &'a [u8],
    value: Value<'a>,
}

#[derive(Debug, PartialEq, Eq)]
enum Value<'a> {
    Token(&'a [u8]),
    /// What stands between the quotes, escapes and all.
    Quoted(&'a [u8]),
}

impl<'a> Iterator for Params<'a> {
    type Item = Param<'a>;

    fn next(&mut self) -> Option<Param<'a>> {
        let param = self.step();
        if param.is_none() {
            self.rest = &[];
        }
        param
    }
}

impl<'a> Params<'a> {
    const fn new(value: &'a [u8]) -> Self {
        Self {
            rest: value,
            scheme: None,
        }
    }

    fn step(&mut self) -> Option<Param<'a>> {
        loop {
            // Lists may have empty elements (RFC 9110 §5.6.1.2).
            self.take(|byte| byte == b',' || is_space(byte));
            let name = self.take_token()?;
            let space = self.take(is_space);
            if self.eat(b'=') {
                return self.value_of(name);
            }
            self.scheme = Some(name);
            if self.at_delimiter() {
                continue;
            }
            // A scheme is followed by a space, then token68 or parameters.
            if space.is_empty() {
                return None;
            }
            if self.eat_token68() {
                self.scheme = None;
                continue;
            }
            let name = self.take_token()?;
            self.take(is_space);
            return if self.eat(b'=') {
                self.value_of(name)
            } else {
                None
            };
        }
    }

    /// The rest of an auth-param after its `=`.
    fn value_of(&mut self, name: &'a [u8]) -> Option<Param<'a>> {
        let scheme = self.scheme?;
        self.take(is_space);
        let value = if self.eat(b'"') {
            Value::Quoted(self.take_quoted()?)
        } else {
            Value::Token(self.take_token()?)
        };
        self.take(is_space);
        self.at_delimiter().then_some(Param {
            scheme,
            name,
            value,
        })
    }

    /// After the opening quote: up to the closing one, which is eaten.
    fn take_quoted(&mut self) -> Option<&'a [u8]> {
        let mut escaped = false;
        let text = self.take(|byte| {
            let inside = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            inside
        });
        self.eat(b'"').then_some(text)
    }

    /// `abc==` is a token68 only when the list goes on after it: `abc=d` is a parameter.
    fn eat_token68(&mut self) -> bool {
        let start = self.rest;
        let text = self.take(is_b64);
        self.take(|byte| byte == b'=');
        self.take(is_space);
        if !text.is_empty() && self.at_delimiter() {
            return true;
        }
        self.rest = start;
        false
    }

    fn take_token(&mut self) -> Option<&'a [u8]> {
        let token = self.take(is_token);
        (!token.is_empty()).then_some(token)
    }

    fn take(&mut self, mut want: impl FnMut(u8) -> bool) -> &'a [u8] {
        let end = self
            .rest
            .iter()
            .position(|&byte| !want(byte))
            .unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }

    fn eat(&mut self, byte: u8) -> bool {
        match self.rest.strip_prefix(&[byte]) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    const fn at_delimiter(&self) -> bool {
        matches!(self.rest.first(), None | Some(b','))
    }
}

impl Value<'_> {
    /// Compares without building the unescaped text.
    fn is(&self, wanted: &[u8]) -> bool {
        match self {
            Self::Token(text) => *text == wanted,
            Self::Quoted(raw) => {
                let mut escaped = false;
                let text = raw.iter().copied().filter(|&byte| {
                    escaped = !escaped && byte == b'\\';
                    !escaped
                });
                text.eq(wanted.iter().copied())
            }
        }
    }
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// RFC 9110 §5.6.2 `tchar`.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn verdict(values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::try_from(*value).unwrap());
        }
        insufficient_scope(&headers)
    }

    #[test]
    fn only_a_bearer_challenge_with_that_error_counts() {
        let yes: &[&[&str]] = &[
            &[r#"Bearer error="insufficient_scope""#],
            &[r#"Bearer error=insufficient_scope"#],
            &[r#"bEARER ERROR = "insufficient_scope""#],
            &["Bearer\terror\t=\t\"insufficient_scope\"\t"],
            &[r#"Bearer error="insufficient\_scope""#],
            &[r#"Bearer realm="x", error="insufficient_scope", scope="a b""#],
            &[r#"Bearer realm="a \"b\", c\\", error="insufficient_scope""#],
            &[r#"Negotiate abc==, Bearer error="insufficient_scope""#],
            &[r#"Negotiate, Bearer error="insufficient_scope""#],
            &[r#"Basic realm="y", Bearer realm="x",error="insufficient_scope""#],
            &[r#",, ,Bearer ,, error="insufficient_scope",,"#],
            &[r#"Basic realm="y""#, r#"Bearer error="insufficient_scope""#],
            &["=garbage=", r#"Bearer error="insufficient_scope""#],
            &[r#"Bearer error="invalid_token", Bearer error="insufficient_scope""#],
            // What stood before the garbage was said.
            &[r#"Bearer error="insufficient_scope", @"#],
        ];
        for values in yes {
            assert!(verdict(values), "{values:?}");
        }
        let no: &[&[&str]] = &[
            &[],
            &[""],
            &["Bearer"],
            &[r#"Bearer realm="x", error="invalid_token", Basic realm="y""#],
            &[r#"Basic realm="a, Bearer error=\"insufficient_scope\"""#],
            &[r#"Basic realm="a, Bearer error=insufficient_scope""#],
            &[r#"Basic error="insufficient_scope""#],
            &[r#"Bearer realm="x", Basic error="insufficient_scope""#],
            &[r#"Bearer error_description="insufficient_scope""#],
            &[r#"Bearer error="insufficient_scope and more""#],
            &[r#"Bearer error="insufficient_scope"#],
            &[r#"Bearer error="insufficient_scope\""#],
            &[r#"Bearer error="insufficient_scope"x"#],
            &[r#"Bearer error="insufficient_scope" x"#],
            &[r#"Bearer error=="insufficient_scope""#],
            &["Bearer insufficient_scope"],
            &[r#"Bearer abc==, error="insufficient_scope""#],
            &[r#"error="insufficient_scope""#],
            &[r#"Bearerror="insufficient_scope""#],
            &[r#"Bearer"x", Bearer error="insufficient_scope""#],
            &[r#"Basic Bearer error="insufficient_scope""#],
            // Parameters do not carry over into the next header line.
            &["Bearer", r#"error="insufficient_scope""#],
        ];
        for values in no {
            assert!(!verdict(values), "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn well_formed_challenges_are_read_back(
            list in prop::collection::vec(
                ("[A-Z][a-z]{0,5}", prop::option::of("[a-z0-9]{1,6}={0,2}"),
                 prop::collection::vec(("[a-z]{1,5}", "[ -~]{0,8}"), 0..3)),
                0..4,
            ),
        ) {
            let mut wanted = Vec::new();
            let mut parts = Vec::new();
            for (scheme, token68, params) in &list {
                let mut tail = Vec::new();
                if let Some(token68) = token68 {
                    tail.push(token68.clone());
                } else {
                    for (name, value) in params {
                        let value = value.replace('\\', r"\\").replace('"', "\\\"");
                        tail.push(format!("{name}=\"{value}\""));
                        wanted.push((scheme.clone(), name.clone(), value));
                    }
                }
                parts.push(format!("{scheme} {}", tail.join(", ")));
            }
            let text = parts.join(", ");
            let read: Vec<_> = Params::new(text.as_bytes()).collect();
            prop_assert_eq!(read.len(), wanted.len(), "{}", text);
            for (read, (scheme, name, value)) in read.iter().zip(&wanted) {
                prop_assert_eq!(read, &Param {
                    scheme: scheme.as_bytes(),
                    name: name.as_bytes(),
                    value: Value::Quoted(value.as_bytes()),
                });
            }
        }

        #[test]
        fn any_bytes_come_to_an_end(raw: Vec<u8>, dense in "[ab=, \"\\\\]{0,60}") {
            for bytes in [&raw[..], dense.as_bytes()] {
                prop_assert!(Params::new(bytes).count() <= bytes.len());
            }
        }

        #[test]
        fn quoted_text_never_counts(text in "(Bearer|error|=|insufficient_scope|[ ,]){0,8}") {
            let value = format!(r#"Basic realm="{text}""#);
            prop_assert!(!verdict(&[&value]));
        }
    }
}
