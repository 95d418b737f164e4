//! The API on a Unix socket.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use officernd_simulator::Simulator;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixSocket, UnixStream};

use crate::child::{Gateway, LOCATIONS, gateway, output, until, within};
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

/// Two containers of a pod both have process id 1, so no file name may depend on it.
#[tokio::test]
async fn unix_sockets_in_one_directory_are_their_owners_and_are_removed_at_the_end() {
    let simulator = Simulator::start().await.unwrap();
    let folder = Folder::new("owner");
    let sockets = [folder.join("a.sock"), folder.join("b.sock")];
    let commands = sockets.each_ref().map(|socket| command(&simulator, socket));
    let starting = commands.map(|command| tokio::task::spawn_blocking(|| Gateway::spawn(command)));
    let mut gateways = Vec::new();
    for gateway in starting {
        gateways.push(within(gateway).await.unwrap());
    }
    for socket in &sockets {
        let mode = fs::metadata(socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(ask(socket).await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        2,
        "no more files"
    );
    for gateway in &mut gateways {
        gateway.terminate();
        assert!(gateway.ended().await.success());
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_in_use_is_left_alone_and_a_dead_one_is_replaced_by_one() {
    // Gateways that find the socket in use may already have requested a token.
    let builder = Simulator::builder().rate_limit(100, Duration::from_secs(60));
    let simulator = builder.start().await.unwrap();
    let folder = Folder::new("replace");
    let socket = folder.join("api.sock");
    let first = start(&simulator, &socket);
    let (code, said) = output(command(&simulator, &socket)).await;
    assert_eq!(code, Some(1));
    assert!(
        said.contains("another process is listening on it"),
        "{said}"
    );
    assert!(ask(&socket).await.starts_with("HTTP/1.1 200"));
    // Killed: its socket stays behind, and several gateways find it at once.
    drop(first);
    assert!(socket.exists());
    let spawn = |_| {
        command(&simulator, &socket)
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut rivals: Vec<_> = (0..4).map(spawn).collect();
    until(|| {
        let ended = rivals
            .iter_mut()
            .filter_map(|rival| rival.try_wait().unwrap());
        ended.count() == 3
    })
    .await;
    until(|| std::os::unix::net::UnixStream::connect(&socket).is_ok()).await;
    assert!(ask(&socket).await.starts_with("HTTP/1.1 200"));
    for rival in &mut rivals {
        let _ = rival.kill();
        rival.wait().unwrap();
    }
}

#[tokio::test]
async fn a_socket_whose_owner_hangs_is_in_use() {
    let simulator = Simulator::start().await.unwrap();
    let folder = Folder::new("hangs");
    let socket = folder.join("api.sock");
    let owner = UnixSocket::new_stream().unwrap();
    owner.bind(&socket).unwrap();
    let _owner = owner.listen(1).unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) = UnixStream::connect(&socket).await {
        queue.push(stream);
    }
    let (code, said) = output(command(&simulator, &socket)).await;
    assert_eq!(code, Some(1));
    assert!(
        said.contains("another process is listening on it"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_during_the_start_leaves_no_socket() {
    let simulator = Simulator::start().await.unwrap();
    let folder = Folder::new("signal");
    let socket = folder.join("api.sock");
    let lock = fs::File::open(folder.path()).unwrap();
    lock.lock().unwrap();
    let mut child = command(&simulator, &socket).spawn().unwrap();
    // The gateway waits for the lock.
    within(simulator.token_requests_reach(1)).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(sent.unwrap().success());
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(lock);
    let mut status = None;
    until(|| {
        status = child.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert_eq!(status.unwrap().code(), Some(0));
    assert!(!socket.exists());
}
