//! Reads the organization from a request.

use std::sync::Arc;

use crate::{Error, ErrorKind};

/// Request extension: selects the organization of this request, regardless of its path.
///
/// For `http::Request`, and for `reqwest_middleware`'s `with_extension`. `reqwest::Request` hides
/// its extensions: the path of its URL decides. A redirect layer above drops the extension, as
/// [`SkipAuth`](crate::SkipAuth) describes. The path of the redirected request then decides.
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OrganizationSlug(Arc<str>);

impl OrganizationSlug {
    /// Creates a slug of 1 to 63 ASCII letters, digits, `-` and `_`.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Organization`] for a different string.
    pub fn new(slug: impl AsRef<str>) -> Result<Self, Error> {
        let slug = slug.as_ref();
        match (1..=MAX_LEN).contains(&slug.len()) && slug.bytes().all(in_slug) {
            true => Ok(Self(slug.into())),
            false => Err(refusal(
                "not a slug; use 1 to 63 letters, digits, '-' and '_'",
            )),
        }
    }

    /// Returns the slug.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The length of the longest slug.
const MAX_LEN: usize = 63;

fn in_slug(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// Returns the `{slug}` of `/api/v1|v2/organizations/{slug}/...`, or `None` for a path without an
/// organization.
///
/// The slug decides whose token is sent, and the server's reading of the path decides whose data
/// is returned. So a path that could be read in two ways is refused.
pub(super) fn of_path(path: &str) -> Result<Option<&str>, Error> {
    let ambiguous = || {
        Err(refusal(
            "the path's organization is ambiguous; use a slug of letters, digits, '-' and '_', \
             and no dot segments, empty segments, backslashes or needless encodings",
        ))
    };
    let documented = path
        .strip_prefix("/api/v2/organizations/")
        .or_else(|| path.strip_prefix("/api/v1/organizations/"));
    if let Some(rest) = documented {
        // A single pass over the bytes: every request takes it.
        let end = rest.bytes().position(|byte| !in_slug(byte));
        let end = end.unwrap_or(rest.len());
        return match rest.split_at_checked(end) {
            Some((slug, rest)) if (1..=MAX_LEN).contains(&end) && !is_ambiguous(rest) => {
                Ok(Some(slug))
            }
            _ => ambiguous(),
        };
    }
    if is_ambiguous(path) {
        return ambiguous();
    }
    // Some servers ignore `;parameters` after the word.
    let word = "organizations";
    let names_one = |segment: &str| {
        let start = segment.get(..word.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    match path.split('/').any(names_one) {
        true => Err(refusal(
            "the path has an organization in an undocumented place; \
             use /api/v1|v2/organizations/{slug}/...",
        )),
        false => Ok(None),
    }
}

#[cold]
pub(super) fn refusal(problem: &str) -> Error {
    Error::new(ErrorKind::Organization, problem)
}

/// Returns `true` if a server may read this path in a different way.
fn is_ambiguous(path: &str) -> bool {
    let is_absolute = path.is_empty() || path.starts_with('/');
    // Nearly every path is decided by this single pass.
    let mut last = 0;
    let is_plain = path.bytes().all(|byte| {
        let is_empty_segment = byte == b'/' && last == b'/';
        last = byte;
        !is_empty_segment && !matches!(byte, b'%' | b'.' | b'\\')
    });
    !is_absolute || !is_plain && has_two_readings(path)
}

#[cold]
fn has_two_readings(path: &str) -> bool {
    // Clients need not encode these. A server may decode them, even twice.
    let is_hidden = |byte: u8| byte.is_ascii_alphanumeric() || b"/\\%.-_~".contains(&byte);
    let encodes = |rest: &str| {
        let code = rest.get(..2).filter(|code| !code.starts_with('+'));
        let byte = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        byte.is_none_or(is_hidden)
    };
    // Some servers read `..;x` as the parent folder.
    let is_dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    path.contains("//")
        || path.contains('\\')
        || path.split('%').skip(1).any(encodes)
        || path.split('/').any(is_dots)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slug(path: &str) -> Option<String> {
        of_path(path).ok()?.map(str::to_owned)
    }

    #[test]
    fn the_slug_is_read_from_the_documented_paths() {
        for path in [
            "/api/v2/organizations/acme/locations",
            "/api/v1/organizations/acme",
            "/api/v1/organizations/acme/",
            "/api/v2/organizations/acme/members/a%20b",
            "/api/v2/organizations/acme/organizations/other/x",
        ] {
            assert_eq!(slug(path).as_deref(), Some("acme"), "{path}");
        }
        let mixed = slug("/api/v2/organizations/Acme-2_x/y");
        assert_eq!(mixed.as_deref(), Some("Acme-2_x"));
    }

    #[test]
    fn other_paths_have_no_organization() {
        for path in ["/", "/api/v2/users/me", "/api/v2/organization/acme", ""] {
            assert!(matches!(of_path(path), Ok(None)), "{path}");
        }
    }

    #[test]
    fn an_ambiguous_path_is_refused() {
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
            "/api/v2/organizations/acme/a\\b",
            "/api/v2/organizations/acme/%7Ex",
            "/api/v2/organizations/acme/x%+1",
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
            assert!(of_path(path).is_err(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn the_slug_is_the_one_that_browsers_and_reqwest_read(
            path in "(/|/api/v[12]/organizations/)?(/|\\.|%2[eEfF]|%5c|;|[a-zA-Z]{1,3}|%61|organizations/|api/v2/){0,12}"
        ) {
            if let Ok(Some(slug)) = of_path(&path) {
                let url = url::Url::parse(&format!("https://app.officernd.com{path}")).unwrap();
                let segments: Vec<&str> = url.path_segments().unwrap().collect();
                prop_assert_eq!(segments[2], "organizations");
                prop_assert_eq!(segments[3], slug);
            }
        }

        #[test]
        fn no_path_panics(path in ".{0,60}") {
            let _ = of_path(&path);
        }
    }
}
