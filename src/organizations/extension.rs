//! The organization of one request, said by the program.

use std::fmt;
use std::sync::Arc;

use super::not_a_slug;
use super::slug::Slug;
use crate::error::Error;

/// Request extension: the organization that this request is about, whatever its
/// path says.
///
/// A `reqwest::Request` has the extensions of the `http::Request` that it is
/// made of.
///
/// A redirect layer above drops the extension: tower-http's `FollowRedirect` does
/// so on every redirect in 0.6, and on redirects to another origin in 0.7. The
/// path of the redirected request then selects the organization.
///
/// ```
/// use officernd_auth::organizations::OrganizationSlug;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let request = http::Request::get("https://app.officernd.com/api/v2/users/me")
///     .extension(OrganizationSlug::new("acme")?)
///     .body("")?;
/// # #[cfg(feature = "reqwest")]
/// let request = reqwest::Request::try_from(request)?;
/// # drop(request);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OrganizationSlug {
    slug: Arc<str>,
}

impl OrganizationSlug {
    /// Checks that the text is a slug.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Organization`](crate::ErrorKind::Organization) for a text
    /// that is not 1 to 63 letters, digits, `-` and `_`.
    pub fn new(slug: impl AsRef<str>) -> Result<Self, Error> {
        let slug = Slug::new(slug.as_ref()).ok_or_else(not_a_slug)?;
        Ok(Self {
            slug: slug.as_str().into(),
        })
    }

    /// The slug.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.slug
    }
}

impl fmt::Debug for OrganizationSlug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OrganizationSlug").field(&self.slug).finish()
    }
}
