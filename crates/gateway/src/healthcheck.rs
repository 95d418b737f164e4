//! `healthcheck`: asks the running gateway, for probes that run a command.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use crate::fail;

/// For the connection, and for each read: a probe has few seconds.
const TIMEOUT: Duration = Duration::from_secs(2);

/// An answer's status line is shorter.
const MAX_ANSWER_BYTES: u64 = 1024;

/// Succeeds if the admin address answers 200 to this path.
pub(crate) fn run(admin: SocketAddr, path: &str) -> ExitCode {
    // An address that stands for all of a host's is reached on loopback; without IPv6, `[::]`
    // stands for 0.0.0.0.
    let hosts = match admin.ip().is_unspecified() {
        true => vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()],
        false => vec![admin.ip()],
    };
    let mut why = String::new();
    for host in hosts {
        let address = SocketAddr::new(host, admin.port());
        why = match ask(address, path) {
            Ok(status) if status == "200" => return ExitCode::SUCCESS,
            Ok(status) => format!("http://{address}{path} answered {status}"),
            Err(error) => format!("http://{address}{path}: {error}"),
        };
    }
    fail(1, why)
}

/// Returns the status of the answer.
fn ask(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    Ok(answer.split(' ').nth(1).unwrap_or_default().to_owned())
}
