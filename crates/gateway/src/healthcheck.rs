//! `healthcheck`: asks the running gateway, for probes that run a command.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// For the connection, and for each read: a probe has few seconds.
const TIMEOUT: Duration = Duration::from_secs(2);

/// An answer's status line is shorter.
const MAX_ANSWER_BYTES: u64 = 1024;

/// Succeeds if the admin address answers 200 to this path.
pub(crate) fn run(admin: SocketAddr, path: &str) -> Result<(), String> {
    let address = reachable(admin);
    let failed = |error: std::io::Error| format!("http://{address}{path}: {error}");
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(failed)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
    let request = format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    let read = stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer);
    read.map_err(failed)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).unwrap_or_default();
    match status {
        "200" => Ok(()),
        _ => Err(format!("http://{address}{path} answered {status}")),
    }
}

/// An address that stands for all of a host's is reached on loopback.
fn reachable(admin: SocketAddr) -> SocketAddr {
    let ip = match admin.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, admin.port())
}
