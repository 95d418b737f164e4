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
pub(crate) fn check(headers: &HeaderMap, authority: Option<&str>) -> Result<(), Error> {
    let few = headers.len() <= FEW;
    // A constant is compared as a number; by reference it would be as an enum.
    if few && !headers.keys().any(|name| *name == HOST) {
        return Ok(());
    }
    let Some(host) = headers.get(HOST) else {
        return Ok(());
    };
    let is_authority = authority.map(str::as_bytes) == Some(host.as_bytes());
    // Equal lengths: no header has more than one value.
    match is_authority && headers.len() == headers.keys_len() {
        true => Ok(()),
        false => check_all(headers, authority),
    }
}

#[cold]
#[inline(never)]
fn check_all(headers: &HeaderMap, authority: Option<&str>) -> Result<(), Error> {
    let Some(authority) = authority else {
        // The inner service knows where the request goes.
        return Ok(());
    };
    let mut hosts = headers.get_all(HOST).iter();
    if hosts.all(|host| host.as_bytes() == authority.as_bytes()) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::ForeignOrigin,
        "no token goes out with a Host header that differs from the URI's authority; remove the \
         header",
    ))
}
