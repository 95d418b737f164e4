//! The API on a Unix socket.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use officernd_simulator::Simulator;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::child::{Gateway, LOCATIONS, gateway, output, within};
use crate::folder::Folder;

fn command(simulator: &Simulator, socket: &Path) -> Command {
    let mut command = gateway();
    Gateway::command(&mut command, simulator, simulator.url());
    command.env("GATEWAY_LISTEN", format!("unix:{}", socket.display()));
    command
}

fn start(simulator: &Simulator, socket: &Path) -> Gateway {
    Gateway::spawn(command(simulator, socket))
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

/// Two containers of a pod have the process id 1 each: no name may depend on it.
#[tokio::test]
async fn two_gateways_have_their_sockets_in_one_directory() {
    let simulator = Simulator::start().await.unwrap();
    let folder = Folder::new("two");
    let sockets = [folder.join("a.sock"), folder.join("b.sock")];
    let commands = sockets.each_ref().map(|socket| command(&simulator, socket));
    let starting = commands.map(|command| tokio::task::spawn_blocking(|| Gateway::spawn(command)));
    let mut gateways = Vec::new();
    for gateway in starting {
        gateways.push(within(gateway).await.unwrap());
    }
    for socket in &sockets {
        assert!(ask(socket).await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_in_use_is_left_alone_and_a_dead_one_is_replaced_by_one() {
    let simulator = Simulator::start().await.unwrap();
    let folder = Folder::new("replace");
    let socket = folder.join("api.sock");
    let first = start(&simulator, &socket);
    let (code, said) = output(command(&simulator, &socket)).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("another process listens there"), "{said}");
    assert!(ask(&socket).await.starts_with("HTTP/1.1 200"));
    // Killed: its socket stays behind, and several gateways find it at once.
    drop(first);
    assert!(socket.exists());
    let mut rivals: Vec<_> = (0..4)
        .map(|_| {
            command(&simulator, &socket)
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut over = 0;
    within(async {
        while over < 3 {
            over = rivals
                .iter_mut()
                .filter_map(|rival| rival.try_wait().unwrap())
                .count();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    within(async {
        while tokio::net::UnixStream::connect(&socket).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(ask(&socket).await.starts_with("HTTP/1.1 200"));
    assert_eq!(over, 3);
    for rival in &mut rivals {
        let _ = rival.kill();
        rival.wait().unwrap();
    }
}
