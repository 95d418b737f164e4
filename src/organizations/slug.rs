//! Reads the organization out of a request.

use std::fmt;
use std::sync::Arc;

use crate::{Error, ErrorKind};

/// Request extension: selects the organization of this request, whatever its path says.
///
/// For `http::Request`, and for `reqwest_middleware`'s `with_extension`. `reqwest::Request` gives
/// no access to its extensions: there, the path decides.
///
/// A redirect layer above drops the extension: tower-http's `FollowRedirect` does so on every
/// redirect in 0.6, and on redirects to another origin in 0.7. The path of the redirected request
/// then selects the organization.
///
/// ```
/// use officernd_auth::organizations::OrganizationSlug;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let request = http::Request::get("https://app.officernd.com/api/v2/users/me")
///     .extension(OrganizationSlug::new("acme")?)
///     .body("")?;
/// # drop(request);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OrganizationSlug(Arc<str>);

impl OrganizationSlug {
    /// Checks that the text is a slug.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Organization`] for a text that is not 1 to 63 letters, digits, `-` and
    /// `_`.
    pub fn new(slug: impl AsRef<str>) -> Result<Self, Error> {
        match Slug::new(slug.as_ref()) {
            Some(slug) => Ok(Self(slug.as_str().into())),
            None => Err(rejected(
                "not a slug: letters, digits, '-' and '_', at most 63 of them",
            )),
        }
    }

    /// Returns the slug.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for OrganizationSlug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OrganizationSlug").field(&self.0).finish()
    }
}

/// The length of the longest slug.
const MAX_LEN: usize = 63;

/// The bytes that a slug may have: a table is faster than five comparisons.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const IN_SLUG: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        byte += 1;
    }
    table
};

/// A slug: letters, digits, `-` and `_`, at least one and at most 63 of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slug<'a>(&'a str);

impl<'a> Slug<'a> {
    /// `None` for a text that is not a slug.
    pub(super) fn new(slug: &'a str) -> Option<Self> {
        let (slug, rest) = Self::leading(slug)?;
        rest.is_empty().then_some(slug)
    }

    /// The slug that a text starts with, and what comes after it.
    #[inline]
    fn leading(text: &'a str) -> Option<(Self, &'a str)> {
        let in_slug = |byte: u8| IN_SLUG.get(usize::from(byte)) == Some(&true);
        let end = text.bytes().position(|byte| !in_slug(byte));
        let (slug, rest) = text.split_at_checked(end.unwrap_or(text.len()))?;
        (1..=MAX_LEN)
            .contains(&slug.len())
            .then_some((Self(slug), rest))
    }

    #[inline]
    pub(super) fn as_str(self) -> &'a str {
        self.0
    }

    /// The `{slug}` of `/api/v1|v2/organizations/{slug}/...`; `None` for a path
    /// that is about no organization.
    ///
    /// Strict, since this decides whose token goes out and the server, which
    /// decides whose data comes back, may read a path in its own way: what two
    /// readers could take for different organizations is refused.
    pub(super) fn of_path(path: &'a str) -> Result<Option<Self>, Error> {
        let documented = path
            .strip_prefix("/api/v2/organizations/")
            .or_else(|| path.strip_prefix("/api/v1/organizations/"));
        let slug = documented.and_then(Self::leading);
        if let Some((slug, _)) = slug.filter(|(_, rest)| is_plain(rest)) {
            return Ok(Some(slug));
        }
        if is_ambiguous(path) {
            return Err(rejected(
                "the path has dot segments, empty segments, back slashes or their encodings: \
                 its organization is ambiguous",
            ));
        }
        if documented.is_some() {
            return match slug.filter(|(_, rest)| rest.starts_with('/')) {
                Some((slug, _)) => Ok(Some(slug)),
                None => Err(rejected(
                    "the path's organization is not a slug of letters, digits, '-' and '_'",
                )),
            };
        }
        let mut segments = path.split('/');
        if segments.any(|segment| decoded_starts_with(segment, "organizations")) {
            return Err(rejected(
                "the path names an organization in another way than \
                 /api/v1|v2/organizations/{slug}/...",
            ));
        }
        Ok(None)
    }
}

#[cold]
pub(super) fn rejected(problem: &str) -> Error {
    Error::new(ErrorKind::Organization, problem)
}

/// Whether this is the end of a path without anything that a server may decode,
/// resolve or drop: nearly every path, at a glance.
#[inline]
fn is_plain(rest: &str) -> bool {
    let mut before = b'/';
    rest.is_empty()
        || rest.starts_with('/')
            && rest.bytes().skip(1).all(|byte| {
                let doubled = byte == b'/' && before == b'/';
                before = byte;
                !doubled && !matches!(byte, b'%' | b'.' | b'\\')
            })
}

/// Whether a server may read another path out of this one.
fn is_ambiguous(path: &str) -> bool {
    let mut segments = path.split('/');
    // Nothing stands before the first slash, and the last segment may be empty.
    let first = segments.next().unwrap_or_default();
    let mut segments = segments.peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        if (segment.is_empty() && !last) || is_dots(segment) || hides_a_slash(segment) {
            return true;
        }
    }
    !first.is_empty()
}

/// `.`, `..` and their encodings.
fn is_dots(segment: &str) -> bool {
    let mut rest = segment;
    let mut dots = 0;
    while let Some(next) = rest
        .strip_prefix('.')
        .or_else(|| rest.strip_prefix("%2e"))
        .or_else(|| rest.strip_prefix("%2E"))
    {
        rest = next;
        dots += 1;
    }
    // `..;x` is a parent folder to some servers.
    (1..=2).contains(&dots) && (rest.is_empty() || rest.starts_with(';'))
}

/// A back slash, an encoded slash of either kind, or an encoding of `%` that
/// would decode to one.
fn hides_a_slash(segment: &str) -> bool {
    let mut rest = segment.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'\\' {
            return true;
        }
        if byte == b'%' {
            let code = tail.get(..2).unwrap_or_default();
            let hides = [b"2f", b"5c", b"25"].iter();
            if code.len() < 2
                || hides
                    .into_iter()
                    .any(|hidden| code.eq_ignore_ascii_case(*hidden))
            {
                return true;
            }
        }
    }
    false
}

/// Whether a segment starts with this word to a server that decodes and ignores
/// case. What follows the word may be parameters, which some servers drop.
fn decoded_starts_with(segment: &str, word: &str) -> bool {
    let mut rest = segment.as_bytes();
    word.bytes().all(|letter| {
        let (byte, tail) = match rest {
            [b'%', high, low, tail @ ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high * 16 + low, tail),
                _ => return false,
            },
            [byte, tail @ ..] => (*byte, tail),
            [] => return false,
        };
        rest = tail;
        letter.eq_ignore_ascii_case(&byte)
    })
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slug(path: &str) -> Option<String> {
        let slug = Slug::of_path(path).ok()??;
        Some(slug.as_str().to_owned())
    }

    #[test]
    fn the_slug_is_read_out_of_the_documented_paths() {
        for path in [
            "/api/v2/organizations/acme/locations",
            "/api/v1/organizations/acme",
            "/api/v1/organizations/acme/",
            "/api/v2/organizations/acme/members/a%20b",
            "/api/v2/organizations/acme/organizations/other/x",
        ] {
            assert_eq!(slug(path).as_deref(), Some("acme"), "{path}");
        }
        assert_eq!(
            slug("/api/v2/organizations/Acme-2_x/y").as_deref(),
            Some("Acme-2_x")
        );
    }

    #[test]
    fn a_path_about_no_organization_has_none() {
        for path in [
            "/",
            "/api/v2/users/me",
            "/health",
            "/api/v2/organization/acme",
            "",
        ] {
            assert!(matches!(Slug::of_path(path), Ok(None)), "{path}");
        }
    }

    #[test]
    fn what_two_readers_could_take_for_two_organizations_is_rejected() {
        for path in [
            "/api/v2/organizations/",
            "/api/v2/organizations",
            "/api/v2/organizations//acme/x",
            "/api//v2/organizations/acme/x",
            "//api/v2/organizations/acme/x",
            "/api/v2/organizations/acme/../other/x",
            "/api/v2/organizations/acme/%2e%2E/other/x",
            "/api/v2/organizations/acme/.%2e/other/x",
            "/api/v2/organizations/acme/..;/other/x",
            "/api/v2/organizations/./acme/x",
            "/api/v2/organizations/acme%2f..%2fother/x",
            "/api/v2/organizations/acme/x%252f",
            "/api/v2/organizations/acme/a\\..\\b",
            "/api/v2/organizations/%61cme/x",
            "/api/v2/organizations/ac me/x",
            "/api/v2/organizations/acme;x/y",
            "/api/v2/Organizations/acme/x",
            "/API/v2/organizations/acme/x",
            "/api/v3/organizations/acme/x",
            "/api/v2/%6Frganizations/acme/x",
            "/api/v2/organizations;x/acme/y",
            "/api/v2/organizationsx/acme",
            "/api/v2/organizations-all/acme",
            "/api/v2/%4frganizations.json/acme",
            "/organizations%20/acme",
            "/api/v2/organizations/acme/x%",
            "api/v2/organizations/acme/x",
        ] {
            assert!(Slug::of_path(path).is_err(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_slug_that_is_read_is_the_one_that_every_reader_reads(
            path in "(/|/api/v[12]/organizations/)?(/|\\.|%2[eEfF]|%5c|;|[a-zA-Z]{1,3}|%61|organizations/|api/v2/){0,12}"
        ) {
            if let Ok(Some(slug)) = Slug::of_path(&path) {
                // As browsers and `reqwest` read it, dots resolved.
                let url = url::Url::parse(&format!("https://app.officernd.com{path}")).unwrap();
                let segments: Vec<&str> = url.path_segments().unwrap().collect();
                prop_assert_eq!(segments[2], "organizations");
                prop_assert_eq!(segments[3], slug.as_str());
            }
        }

        #[test]
        fn a_plain_path_is_never_ambiguous(rest in "/?(/|\\.|;|%|[a-z]|\\\\|é){0,8}") {
            let path = format!("/a{rest}");
            prop_assert!(!is_plain(&rest) || !is_ambiguous(&path));
        }

        #[test]
        fn any_path_gets_an_answer(path in ".{0,60}") {
            let _ = Slug::of_path(&path);
        }
    }
}
