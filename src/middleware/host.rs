//! The `Host` header against the URI.

use http::HeaderMap;
use http::header::HOST;

use crate::error::{Error, ErrorKind};

/// Among so many headers, a look at each name is cheaper than a hash.
const FEW: usize = 8;

/// A server, or a proxy on the way, may route by the `Host` header: one that differs from the
/// URI's authority could carry the token to another host.
///
/// Clients add the header below the layer: nearly no request has one here. Those that have name
/// the URI's authority, byte for byte.
#[inline(always)]
pub(super) fn check(headers: &HeaderMap, authority: Option<&str>) -> Result<(), Error> {
    let few = headers.len() <= FEW;
    // A constant is compared as a number; by reference it would be as an enum.
    if few && !headers.keys().any(|name| *name == HOST) {
        return Ok(());
    }
    let Some(authority) = authority else {
        // The inner service knows where the request goes.
        return Ok(());
    };
    let mut hosts = headers.get_all(HOST).iter();
    match hosts.all(|host| host.as_bytes() == authority.as_bytes()) {
        true => Ok(()),
        false => Err(refused()),
    }
}

#[cold]
fn refused() -> Error {
    Error::new(
        ErrorKind::ForeignOrigin,
        "no token goes out with a Host header that differs from the URI's authority; remove the \
         header",
    )
}
