//! The `Host` header against the URI.

use http::HeaderMap;
use http::header::HOST;

use crate::error::{Error, ErrorKind};
use crate::origin::is_same_host;

/// Among so many headers, a look at each name is cheaper than a hash.
const FEW: usize = 8;

/// A server, or a proxy on the way, may route by the `Host` header: one that
/// names another host than the URI would carry the token there.
///
/// Clients add the header below the layer: nearly no request has one here. Of
/// those that have, nearly every one names the URI's authority, byte for byte.
#[inline(always)]
pub(super) fn check(
    headers: &HeaderMap,
    scheme: Option<&str>,
    authority: Option<&str>,
) -> Result<(), Error> {
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
        false => check_values(headers, scheme, authority),
    }
}

#[cold]
#[inline(never)]
fn check_values(
    headers: &HeaderMap,
    scheme: Option<&str>,
    authority: Option<&str>,
) -> Result<(), Error> {
    let (Some(scheme), Some(authority)) = (scheme, authority) else {
        // The inner service knows where the request goes.
        return Ok(());
    };
    let is_same = |host: &str| is_same_host(scheme, host, authority);
    let mut hosts = headers.get_all(HOST).iter();
    if hosts.all(|host| host.to_str().is_ok_and(is_same)) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::ForeignOrigin,
        "no token goes out with a Host header that names another host than the URI; remove the \
         header",
    ))
}
