//! A real `redis-server` on a free port, in a directory of its own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub(crate) struct Server {
    process: Child,
    pub(crate) port: u16,
    pub(crate) dir: PathBuf,
    args: Vec<String>,
    tls: bool,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    pub(crate) fn with(args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self::launch(scratch(), args, false)
    }

    /// With a certificate of its own making, for `localhost`, and only TLS.
    pub(crate) fn with_tls(args: &[&str]) -> (Self, String) {
        let dir = scratch();
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self::launch_with_tls(dir, args)
    }

    fn launch_with_tls(dir: PathBuf, mut args: Vec<String>) -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let pem = made.cert.pem();
        std::fs::write(dir.join("cert.pem"), &pem).unwrap();
        std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let cert = dir.join("cert.pem").to_str().unwrap().to_owned();
        let key = dir.join("key.pem").to_str().unwrap().to_owned();
        for (name, value) in [
            ("--tls-cert-file", &*cert),
            ("--tls-key-file", &*key),
            ("--tls-ca-cert-file", &*cert),
            ("--tls-auth-clients", "no"),
        ] {
            args.extend([name.to_owned(), value.to_owned()]);
        }
        (Self::launch(dir, args, true), pem)
    }

    /// A sentinel that watches this server as `mymaster`.
    pub(crate) fn sentinel(&self) -> Self {
        let dir = scratch();
        let args = self.sentinel_args(&dir);
        Self::launch(dir, args, false)
    }

    pub(crate) fn sentinel_with_tls(&self) -> (Self, String) {
        let dir = scratch();
        let args = self.sentinel_args(&dir);
        Self::launch_with_tls(dir, args)
    }

    fn sentinel_args(&self, dir: &Path) -> Vec<String> {
        let config = dir.join("sentinel.conf");
        let monitor = format!("sentinel monitor mymaster 127.0.0.1 {} 1\n", self.port);
        std::fs::write(&config, monitor).unwrap();
        vec![config.to_str().unwrap().to_owned(), "--sentinel".to_owned()]
    }

    /// On a free port; on another if somebody was quicker to take it.
    fn launch(dir: PathBuf, args: Vec<String>, tls: bool) -> Self {
        for _ in 0..5 {
            let port = free_port();
            let mut process = spawn(port, &dir, &args, tls);
            if listens(port, &mut process) {
                return Self {
                    process,
                    port,
                    dir,
                    args,
                    tls,
                };
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        panic!("redis-server does not listen");
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn stop(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn go_on(&self) {
        self.signal("-CONT");
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Comes back without its data.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.process = spawn(self.port, &self.dir, &self.args, self.tls);
        assert!(listens(self.port, &mut self.process), "its port is taken");
    }

    /// One command over a connection of its own; what it answered, raw.
    pub(crate) fn ask(&self, words: &[&[u8]]) -> Vec<u8> {
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            command.extend(format!("${}\r\n", word.len()).into_bytes());
            command.extend_from_slice(word);
            command.extend_from_slice(b"\r\n");
        }
        let quit = b"*1\r\n$4\r\nQUIT\r\n";
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        let timeout = Some(Duration::from_secs(5));
        stream.set_read_timeout(timeout).unwrap();
        stream.write_all(&[&command, &quit[..]].concat()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }

    pub(crate) fn ask_text(&self, words: &[&str]) -> String {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        String::from_utf8_lossy(&self.ask(&words)).into_owned()
    }

    /// The names of all keys.
    pub(crate) fn keys(&self) -> Vec<String> {
        let answer = self.ask_text(&["KEYS", "*"]);
        let lines = answer.split("\r\n").map(str::to_owned);
        lines.filter(|line| line.contains('{')).collect()
    }

    fn signal(&self, signal: &str) {
        kill(signal, self.process.id());
    }
}

fn listens(port: u16, process: &mut Child) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut listens = false;
    eventually("it listens, or is gone", || {
        let gone = process.try_wait().unwrap().is_some();
        listens = !gone && TcpStream::connect(address).is_ok();
        listens || gone
    });
    listens
}

/// Looks every 50 ms, for as long as a slow machine may take.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..600 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("not within 30 s: {what}");
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub(crate) fn kill(signal: &str, process: u32) {
    let process = process.to_string();
    let sent = Command::new("kill").args([signal, &process]).status();
    assert!(sent.unwrap().success());
}

fn spawn(port: u16, dir: &Path, args: &[String], tls: bool) -> Child {
    let port = port.to_string();
    let ports = if tls {
        ["--port", "0", "--tls-port", &port]
    } else {
        ["--port", &port, "--tls-port", "0"]
    };
    // A file of settings, if there is one, comes first.
    let spawned = Command::new("redis-server")
        .args(args.first().filter(|arg| !arg.starts_with('-')))
        .args(ports)
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(dir)
        .args(args.iter().skip_while(|arg| !arg.starts_with('-')))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    spawned.unwrap_or_else(|error| {
        panic!(
            "these tests start a redis-server and there is none ({error}); \
             install it, as ./test does: apt-get install redis-server"
        )
    })
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// An empty directory, here alone.
pub(crate) fn scratch() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);

    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("officernd-auth-{}-{number}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}
