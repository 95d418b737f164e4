//! The characters that the OAuth RFCs allow.

/// Checks a token for RFC 6750 section 2.1 `b64token`.
#[must_use]
pub(crate) fn valid_b64token(token: &[u8]) -> bool {
    let padding = token.iter().rev().take_while(|&&byte| byte == b'=').count();
    let (text, _) = token.split_at(token.len() - padding);
    let is_b64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    !text.is_empty() && text.iter().all(is_b64)
}

/// Checks a list of scopes for RFC 6749 section 3.3: tokens of printable ASCII without `"` and `\`,
/// separated by single spaces.
#[must_use]
pub(crate) fn valid_scope(scope: &str) -> bool {
    scope.split(' ').all(|token| {
        !token.is_empty()
            && token
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
    })
}

/// Splits a list that is separated by whitespace or commas.
pub(crate) fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b64token_is_text_then_padding() {
        for good in ["a", "aZ09-._~+/", "abc=", "abc==", "abc====="] {
            assert!(valid_b64token(good.as_bytes()), "{good}");
        }
        for bad in [
            "", "=", "==", "a=b", "a b", " a", "a\n", "a,b", "a:b", "ä", "a\0",
        ] {
            assert!(!valid_b64token(bad.as_bytes()), "{bad:?}");
        }
    }

    #[test]
    fn scope_is_tokens_with_single_spaces() {
        for good in [
            "a",
            "a b",
            "flex.community.members.read officernd.api.write",
            "!#[]~",
        ] {
            assert!(valid_scope(good), "{good}");
        }
        for bad in [
            "", " ", " a", "a ", "a  b", "a\tb", "a\"", "a\\b", "ü", "a\x7f", "a\nb",
        ] {
            assert!(!valid_scope(bad), "{bad:?}");
        }
    }
}
