//! Reads the organization out of a request.

use std::sync::Arc;

use crate::{Error, ErrorKind};

/// Request extension: selects the organization of this request, whatever its path says.
///
/// For `http::Request`, and for `reqwest_middleware`'s `with_extension`. `reqwest::Request` gives
/// no access to its extensions: the path of its URL decides.
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OrganizationSlug(Arc<str>);

impl OrganizationSlug {
    /// Checks that the string is a slug.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Organization`] unless it is 1 to 63 letters, digits, `-` and `_`.
    pub fn new(slug: impl AsRef<str>) -> Result<Self, Error> {
        let slug = slug.as_ref();
        match is_slug(slug) {
            true => Ok(Self(slug.into())),
            false => Err(rejected(
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

/// The length of the longest slug.
const MAX_LEN: usize = 63;

fn is_slug(text: &str) -> bool {
    (1..=MAX_LEN).contains(&text.len()) && text.bytes().all(in_slug)
}

fn in_slug(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// Returns the `{slug}` of `/api/v1|v2/organizations/{slug}/...`; `None` for a path that is about
/// no organization.
///
/// Strict, since this decides whose token goes out and the server, which decides whose data comes
/// back, may read a path in its own way: a path that two readers could take for different
/// organizations is refused.
pub(super) fn of_path(path: &str) -> Result<Option<&str>, Error> {
    let ambiguous = || {
        Err(rejected(
            "the path's organization is ambiguous: it is not a slug of letters, digits, '-' and \
             '_', or the path has dot segments, empty segments, backslashes or needless encodings",
        ))
    };
    let documented = path
        .strip_prefix("/api/v2/organizations/")
        .or_else(|| path.strip_prefix("/api/v1/organizations/"));
    if let Some(rest) = documented {
        // Each byte is looked at once: this is on the path of every request.
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
    // What follows the word may be parameters, which some servers drop.
    let word = "organizations";
    let names_one = |segment: &str| {
        let start = segment.get(..word.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    match path.split('/').any(names_one) {
        true => Err(rejected(
            "the path names an organization in another way than \
             /api/v1|v2/organizations/{slug}/...",
        )),
        false => Ok(None),
    }
}

#[cold]
pub(super) fn rejected(problem: &str) -> Error {
    Error::new(ErrorKind::Organization, problem)
}

/// Returns whether a server may read another path out of this one.
fn is_ambiguous(path: &str) -> bool {
    let is_absolute = path.is_empty() || path.starts_with('/');
    // A single pass over the bytes decides for nearly every path.
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
    // No honest client encodes these; a server may decode them, more than once.
    let is_hidden = |byte: u8| byte.is_ascii_alphanumeric() || b"/\\%.-_~".contains(&byte);
    let encodes = |rest: &str| {
        let code = rest.get(..2).filter(|code| !code.starts_with('+'));
        let byte = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        byte.is_none_or(is_hidden)
    };
    // `..;x` is a parent folder to some servers.
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
            assert!(matches!(of_path(path), Ok(None)), "{path}");
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
        fn a_slug_that_is_read_is_the_one_that_every_reader_reads(
            path in "(/|/api/v[12]/organizations/)?(/|\\.|%2[eEfF]|%5c|;|[a-zA-Z]{1,3}|%61|organizations/|api/v2/){0,12}"
        ) {
            if let Ok(Some(slug)) = of_path(&path) {
                // As browsers and `reqwest` read it, dots resolved.
                let url = url::Url::parse(&format!("https://app.officernd.com{path}")).unwrap();
                let segments: Vec<&str> = url.path_segments().unwrap().collect();
                prop_assert_eq!(segments[2], "organizations");
                prop_assert_eq!(segments[3], slug);
            }
        }

        #[test]
        fn any_path_gets_an_answer(path in ".{0,60}") {
            let _ = of_path(&path);
        }
    }
}
