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
        Self::launch(free_port(), scratch(), args, false)
    }

    /// With a certificate of its own making, for `localhost`, and only TLS.
    pub(crate) fn with_tls(args: &[&str]) -> (Self, String) {
        let dir = scratch();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let pem = made.cert.pem();
        std::fs::write(dir.join("cert.pem"), &pem).unwrap();
        std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let mut all: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let cert = dir.join("cert.pem").to_str().unwrap().to_owned();
        let key = dir.join("key.pem").to_str().unwrap().to_owned();
        for (name, value) in [
            ("--tls-cert-file", &*cert),
            ("--tls-key-file", &*key),
            ("--tls-ca-cert-file", &*cert),
            ("--tls-auth-clients", "no"),
        ] {
            all.extend([name.to_owned(), value.to_owned()]);
        }
        (Self::launch(free_port(), dir, all, true), pem)
    }

    fn launch(port: u16, dir: PathBuf, args: Vec<String>, tls: bool) -> Self {
        let process = spawn(port, &dir, &args, tls);
        let server = Self {
            process,
            port,
            dir,
            args,
            tls,
        };
        server.wait();
        server
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
        self.wait();
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

    fn wait(&self) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        for _ in 0..200 {
            if TcpStream::connect(address).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("redis-server does not listen; is its port taken?");
    }
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
    let spawned = Command::new("redis-server")
        .args(ports)
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(dir)
        .args(args)
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

pub(crate) fn free_port() -> u16 {
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
