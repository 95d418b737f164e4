//! A real `redis-server` on a free port, with its own directory.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A running server, killed when dropped.
#[derive(Debug)]
pub struct Server {
    program: String,
    process: Child,
    /// The port on loopback.
    pub port: u16,
    /// The directory of its data.
    pub dir: PathBuf,
    args: Vec<String>,
    tls: bool,
}

impl Server {
    /// Starts a server with the default settings.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a server with these arguments.
    pub fn with(args: &[&str]) -> Self {
        Self::run("redis-server", args)
    }

    /// Starts another program that understands the arguments of `redis-server`.
    pub fn run(program: &str, args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self::launch(program, scratch(), args, false)
    }

    /// Starts a server that accepts only TLS. Returns it with its self-signed certificate, for `localhost`.
    pub fn with_tls(args: &[&str]) -> (Self, String) {
        let dir = scratch();
        let mut args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let pem = made.cert.pem();
        std::fs::write(dir.join("cert.pem"), &pem).unwrap();
        std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        args.extend(Self::tls_args(&dir));
        (Self::launch("redis-server", dir, args, true), pem)
    }

    /// Returns the arguments for the certificate in this directory.
    fn tls_args(dir: &Path) -> Vec<String> {
        let file = |name: &str| dir.join(name).display().to_string();
        let (cert, key) = (file("cert.pem"), file("key.pem"));
        let files = ["--tls-cert-file", &cert, "--tls-key-file", &key];
        let clients = ["--tls-ca-cert-file", &cert, "--tls-auth-clients", "no"];
        files
            .into_iter()
            .chain(clients)
            .map(str::to_owned)
            .collect()
    }

    /// Starts a sentinel that monitors this server as `mymaster`, with the TLS settings of the server.
    pub fn sentinel(&self, settings: &str) -> Self {
        let dir = scratch();
        let config = dir.join("sentinel.conf");
        let settings = format!(
            "sentinel monitor mymaster 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds mymaster 1000\n\
             sentinel failover-timeout mymaster 5000\n{settings}\n",
            self.port
        );
        std::fs::write(&config, settings).unwrap();
        let mut args = vec![config.to_str().unwrap().to_owned(), "--sentinel".to_owned()];
        if self.tls {
            args.extend(Self::tls_args(&self.dir));
            args.extend(["--tls-replication".to_owned(), "yes".to_owned()]);
        }
        Self::launch("redis-server", dir, args, self.tls)
    }

    /// Starts a node of a cluster that has no other nodes.
    pub fn node(args: &[&str]) -> Self {
        Self::with(&[&["--cluster-enabled", "yes"], args].concat())
    }

    /// Starts the program on a free port, and on another one if that was taken meanwhile.
    fn launch(program: &str, dir: PathBuf, args: Vec<String>, tls: bool) -> Self {
        for _ in 0..5 {
            let port = free_port();
            let mut process = spawn(program, port, &dir, &args, tls);
            if listens(port, &mut process) {
                return Self {
                    program: program.to_owned(),
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

    /// Returns the URL, without TLS.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Stops the process without closing its connections.
    pub fn stop(&self) {
        self.signal("-STOP");
    }

    /// Continues after [`stop`](Self::stop).
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    /// Kills the process.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Restarts without its data.
    pub fn restart(&mut self) {
        self.kill();
        self.process = spawn(&self.program, self.port, &self.dir, &self.args, self.tls);
        assert!(listens(self.port, &mut self.process), "its port is taken");
    }

    /// Sends one command over a new connection. Returns the raw reply.
    pub fn ask(&self, words: &[&[u8]]) -> Vec<u8> {
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
        // A sentinel has no QUIT, but closes the connection when the client has.
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }

    /// Sends one command and returns the reply as text.
    pub fn ask_text(&self, words: &[&str]) -> String {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        String::from_utf8_lossy(&self.ask(&words)).into_owned()
    }

    /// Returns the names of all keys.
    pub fn keys(&self) -> Vec<String> {
        let answer = self.ask_text(&["KEYS", "*"]);
        let lines = answer.split("\r\n").map(str::to_owned);
        lines.filter(|line| line.contains('{')).collect()
    }

    /// Returns how many commands the stores have sent, without those of scripts and of the test.
    pub fn commands(&self) -> u64 {
        const NOT_COUNTED: &str = "time get set del pttl pexpire zadd zrem zscore zcount zrangebyscore \
            zremrangebyscore quit info keys save config|set client|kill config|resetstat";
        let stats = self.ask_text(&["INFO", "commandstats"]);
        let calls = stats.lines().filter_map(|line| {
            let (name, values) = line.strip_prefix("cmdstat_")?.split_once(':')?;
            let calls = values.strip_prefix("calls=")?.split(',').next()?;
            let calls: u64 = calls.parse().ok()?;
            (!NOT_COUNTED.split(' ').any(|other| other == name)).then_some(calls)
        });
        calls.sum()
    }

    fn signal(&self, signal: &str) {
        kill(signal, self.process.id());
    }
}

fn listens(port: u16, process: &mut Child) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut listens = false;
    eventually("it listens, or has exited", || {
        let exited = process.try_wait().unwrap().is_some();
        listens = !exited && TcpStream::connect(address).is_ok();
        listens || exited
    });
    listens
}

/// Waits until `done` returns `true`. Panics after 30 s.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
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

/// Sends a signal, such as `-KILL`, to a process.
pub fn kill(signal: &str, process: u32) {
    let process = process.to_string();
    let sent = Command::new("kill").args([signal, &process]).status();
    assert!(sent.unwrap().success());
}

fn spawn(program: &str, port: u16, dir: &Path, args: &[String], tls: bool) -> Child {
    let port = port.to_string();
    let ports = if tls {
        ["--port", "0", "--tls-port", &port]
    } else {
        ["--port", &port, "--tls-port", "0"]
    };
    // redis-server takes a configuration file only as its first argument.
    let spawned = Command::new(program)
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

/// Makes an empty directory.
pub fn scratch() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);

    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("officernd-auth-{}-{number}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}
