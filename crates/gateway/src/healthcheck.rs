//! `healthcheck`: queries the running gateway, for probes that run a command.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use crate::fail;

/// For the connection and for each read: probes have only a few seconds.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Succeeds if the admin address responds to this path with 200.
pub(crate) fn run(admin: SocketAddr, path: &str) -> ExitCode {
    // An unspecified address is reached on loopback. `[::]` means 0.0.0.0 on a kernel without IPv6.
    let hosts = match admin.ip().is_unspecified() {
        true => vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()],
        false => vec![admin.ip()],
    };
    let mut why = String::new();
    for host in hosts {
        let address = SocketAddr::new(host, admin.port());
        why = match ask(address, path) {
            Ok(status) if status == "200" => return ExitCode::SUCCESS,
            Ok(status) => format!("http://{address}{path} responded with {status}"),
            Err(error) => format!("http://{address}{path}: {error}"),
        };
    }
    fail(1, why)
}

/// Returns the status code.
fn ask(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    // The status line is shorter.
    stream.take(1024).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    Ok(answer.split(' ').nth(1).unwrap_or_default().to_owned())
}
