//! Reads the `error` of a `Bearer` challenge in `WWW-Authenticate` (RFC 6750
//! section 3, RFC 9110 section 11.6.1).
//!
//! A comma separates challenges, the parameters of one challenge, and parts of
//! a quoted sentence; so the header is parsed, not searched.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

use crate::syntax::valid_b64token;

const SPACE: [char; 2] = [' ', '\t'];

/// A parameter of a challenge: scheme, name, value.
type Param<'a> = (&'a str, &'a str, String);

/// Whether the server says that the token is good and its scopes are not: no
/// new token helps (RFC 6750 section 3.1).
pub(super) fn insufficient_scope(headers: &HeaderMap) -> bool {
    has_error(headers, "insufficient_scope")
}

/// Whether the server says that the token itself is not good.
pub(super) fn invalid_token(headers: &HeaderMap) -> bool {
    has_error(headers, "invalid_token")
}

fn has_error(headers: &HeaderMap, error: &str) -> bool {
    let is_error = |(scheme, name, value): &Param<'_>| {
        let is_bearer = scheme.eq_ignore_ascii_case("bearer");
        is_bearer && name.eq_ignore_ascii_case("error") && value == error
    };
    headers.get_all(WWW_AUTHENTICATE).iter().any(|value| {
        let value = String::from_utf8_lossy(value.as_bytes());
        params(&value).iter().any(is_error)
    })
}

/// The parameters of all challenges in one header value. Ends at the first
/// element that is not in the grammar: what follows may belong to anything.
fn params(header: &str) -> Vec<Param<'_>> {
    let mut scheme = "";
    let elements = elements(header).filter(|element| !element.is_empty());
    let params = elements.map_while(|element| element_param(element, &mut scheme));
    params.flatten().collect()
}

/// The list elements of a header value, split at commas outside of quotes.
fn elements(header: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let elements = header.split(move |c| {
        let is_escaped = std::mem::replace(&mut escaped, false);
        match c {
            '"' if !is_escaped => quoted = !quoted,
            '\\' if quoted => escaped = !is_escaped,
            _ => {}
        }
        c == ',' && !quoted
    });
    elements.map(|element| element.trim_matches(SPACE))
}

/// `None` for an element that is not in the grammar. `scheme` is empty where no
/// parameter may follow.
fn element_param<'a>(element: &'a str, scheme: &mut &'a str) -> Option<Option<Param<'a>>> {
    if let Some((name, value)) = param(element) {
        return (!scheme.is_empty()).then_some(Some((*scheme, name, value)));
    }
    let (first, rest) = split_token(element);
    *scheme = first;
    if rest.is_empty() {
        return Some(None);
    }
    let rest = rest.strip_prefix(SPACE)?.trim_start_matches(SPACE);
    if valid_b64token(rest.as_bytes()) {
        // A token68 stands in the place of parameters.
        *scheme = "";
        return Some(None);
    }
    let (name, value) = param(rest)?;
    Some(Some((first, name, value)))
}

/// `name = value`
fn param(text: &str) -> Option<(&str, String)> {
    let (name, rest) = split_token(text);
    let value = rest.trim_start_matches(SPACE).strip_prefix('=')?;
    let value = value.trim_start_matches(SPACE);
    let value = match (value.strip_prefix('"'), split_token(value)) {
        (Some(quoted), _) => unescape(quoted.strip_suffix('"')?)?,
        (None, (token, "")) if !token.is_empty() => token.to_owned(),
        _ => return None,
    };
    (!name.is_empty()).then_some((name, value))
}

/// `None` if there is a quote in the text.
fn unescape(quoted: &str) -> Option<String> {
    let mut chars = quoted.chars();
    let next = || match chars.next()? {
        '\\' => Some(chars.next()),
        c => Some(Some(c).filter(|&c| c != '"')),
    };
    std::iter::from_fn(next).collect()
}

/// The token (RFC 9110 section 5.6.2) that a text starts with, and the rest.
fn split_token(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    text.split_at(end)
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
            // An error before the garbage counts.
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
            &[r#"Bearer realm=x, y=, error="insufficient_scope""#],
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

    #[test]
    fn each_error_is_told_from_the_other() {
        for (error, scope, token) in [
            ("insufficient_scope", true, false),
            ("invalid_token", false, true),
            ("invalid_request", false, false),
        ] {
            let value = HeaderValue::try_from(format!("Bearer error={error}")).unwrap();
            let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, value)]);
            assert_eq!(insufficient_scope(&headers), scope, "{error}");
            assert_eq!(invalid_token(&headers), token, "{error}");
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
                        let escaped = value.replace('\\', r"\\").replace('"', "\\\"");
                        tail.push(format!("{name}=\"{escaped}\""));
                        wanted.push((scheme.clone(), name.clone(), value.clone()));
                    }
                }
                parts.push(format!("{scheme} {}", tail.join(", ")));
            }
            let text = parts.join(", ");
            let read = params(&text).into_iter();
            let read: Vec<_> = read
                .map(|(scheme, name, value)| (scheme.to_owned(), name.to_owned(), value))
                .collect();
            prop_assert_eq!(read, wanted, "{}", text);
        }

        #[test]
        fn any_text_comes_to_an_end(raw: String, dense in "[ab=, \"\\\\]{0,60}") {
            for text in [&raw, &dense] {
                prop_assert!(params(text).len() <= text.len());
            }
        }

        #[test]
        fn quoted_text_never_counts(text in "(Bearer|error|=|insufficient_scope|[ ,]){0,8}") {
            let value = format!(r#"Basic realm="{text}""#);
            prop_assert!(!verdict(&[&value]));
        }
    }
}
