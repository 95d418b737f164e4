//! The `Host` header against the URI.

use http::HeaderMap;
use http::header::HOST;

use super::RequestTarget;
use crate::error::{Error, ErrorKind};
use crate::origin::is_same_host;

/// A server, or a proxy on the way, may route by the `Host` header: one that
/// names another host than the URI would carry the token there.
#[inline]
pub(super) fn check(headers: &HeaderMap, target: &RequestTarget<'_>) -> Result<(), Error> {
    match headers.contains_key(HOST) {
        true => check_values(headers, target),
        false => Ok(()),
    }
}

#[cold]
fn check_values(headers: &HeaderMap, target: &RequestTarget<'_>) -> Result<(), Error> {
    let (Some(scheme), Some(authority)) = (target.scheme, target.authority) else {
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
