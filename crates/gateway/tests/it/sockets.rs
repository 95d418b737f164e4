//! The API on a Unix socket.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use officernd_simulator::Simulator;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::child::{Gateway, LOCATIONS, gateway, within};
use crate::folder::Folder;

fn start(simulator: &Simulator, socket: &Path) -> Gateway {
    let listen = format!("unix:{}", socket.display());
    let more = [("GATEWAY_LISTEN", listen.as_str())];
    Gateway::start(simulator, simulator.url(), &more)
}

async fn ask(socket: &Path) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let request =
        format!("GET {LOCATIONS} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn a_unix_socket_is_its_owners_and_goes_with_the_gateway() {
    let simulator = Simulator::start().await.unwrap();
    let folder = Folder::new("owner");
    let socket = folder.join("api.sock");
    let mut gateway = start(&simulator, &socket);
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(ask(&socket).await.starts_with("HTTP/1.1 200"));
    // Nothing else stays in the folder.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    gateway.terminate();
    assert!(gateway.ended().await.success());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_socket_in_use_is_left_alone_and_a_dead_one_is_replaced() {
    let simulator = Simulator::start().await.unwrap();
    let folder = Folder::new("replace");
    let socket = folder.join("api.sock");
    let first = start(&simulator, &socket);
    let mut second = gateway();
    Gateway::command(&mut second, &simulator, simulator.url());
    second.env("GATEWAY_LISTEN", format!("unix:{}", socket.display()));
    let output = second.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("another process listens there"), "{said}");
    assert!(ask(&socket).await.starts_with("HTTP/1.1 200"));
    // Killed: its socket stays behind.
    drop(first);
    assert!(socket.exists());
    let _third = start(&simulator, &socket);
    assert!(ask(&socket).await.starts_with("HTTP/1.1 200"));
}
