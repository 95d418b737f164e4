//! The `Host` header against the URI.

use http::HeaderMap;
use http::header::{HOST, HeaderName};

use super::RequestTarget;
use crate::error::{Error, ErrorKind};
use crate::origin::is_same_host;

/// A name by reference is neither made nor dropped for each request.
static NAME: HeaderName = HOST;

/// A server, or a proxy on the way, may route by the `Host` header: one that
/// names another host than the URI would carry the token there.
///
/// Nearly every `Host` header is the URI's authority, byte for byte.
#[inline(always)]
pub(super) fn check(headers: &HeaderMap, target: &RequestTarget<'_>) -> Result<(), Error> {
    let Some(host) = headers.get(&NAME) else {
        return Ok(());
    };
    let is_authority = target.authority.is_some_and(|authority| host == authority);
    // Equal lengths: no header has more than one value.
    match is_authority && headers.len() == headers.keys_len() {
        true => Ok(()),
        false => check_values(headers, target),
    }
}

#[cold]
#[inline(never)]
fn check_values(headers: &HeaderMap, target: &RequestTarget<'_>) -> Result<(), Error> {
    let (Some(scheme), Some(authority)) = (target.scheme, target.authority) else {
        // The inner service knows where the request goes.
        return Ok(());
    };
    let is_same = |host: &str| is_same_host(scheme, host, authority);
    let mut hosts = headers.get_all(&NAME).iter();
    if hosts.all(|host| host.to_str().is_ok_and(is_same)) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::ForeignOrigin,
        "no token goes out with a Host header that names another host than the URI; remove the \
         header",
    ))
}
