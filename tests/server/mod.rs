//! A simulator that answers over TLS for the names of the real service, and test programs that reach nothing else.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use officernd_simulator::Simulator;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

const NAMES: [&str; 3] = ["app.officernd.com", "identity.officernd.com", "localhost"];

/// Set in a child process, whose test is the program.
pub(crate) const CHILD: &str = "TEST_RUNS_THE_PROGRAM";

pub(crate) struct Server {
    pub(crate) officernd: Simulator,
    port: u16,
    certificate: PathBuf,
}

impl Server {
    /// Starts a simulator with the organization `acme`, behind a port that takes TLS both directly and by `CONNECT`.
    pub(crate) async fn start() -> Self {
        let officernd = Simulator::builder()
            .org_slug("acme")
            .grant_scopes(["flex.space.locations.read"])
            .start()
            .await
            .unwrap();
        let issued = rcgen::generate_simple_self_signed(NAMES.map(str::to_owned)).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::Pkcs8(issued.signing_key.serialize_der().into());
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![issued.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let simulator = officernd.addr();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let stream = tunnel(stream).await?;
                    let mut stream = acceptor.accept(stream).await?;
                    let mut simulator = TcpStream::connect(simulator).await?;
                    copy_bidirectional(&mut stream, &mut simulator).await
                });
            }
        });
        let file = format!("officernd-{}-{port}.pem", std::process::id());
        let certificate = std::env::temp_dir().join(file);
        std::fs::write(&certificate, issued.cert.pem()).unwrap();
        Self {
            officernd,
            port,
            certificate,
        }
    }

    /// This test again, as a program with README's variables.
    pub(crate) fn child(&self, test: &str) -> Command {
        let port = self.port;
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", test, "--nocapture"])
            .env_clear()
            .env(CHILD, "1")
            .env("OFFICERND_CLIENT_ID", self.officernd.client_id())
            .env("OFFICERND_CLIENT_SECRET", self.officernd.client_secret())
            .env("OFFICERND_SCOPES", "flex.space.locations.read")
            .env("OFFICERND_API_URL", format!("https://localhost:{port}"))
            // reqwest reads these two, and what loads the root certificates reads the third.
            .env("HTTPS_PROXY", format!("http://127.0.0.1:{port}"))
            .env("NO_PROXY", "127.0.0.1,localhost")
            .env("SSL_CERT_FILE", &self.certificate)
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.certificate);
    }
}

/// Answers `CONNECT`, if the client begins with it. The certificate, not the proxy, bounds which hosts it reaches.
async fn tunnel(mut stream: TcpStream) -> std::io::Result<TcpStream> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first == *b"C" {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
            head.push(stream.read_u8().await?);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    }
    Ok(stream)
}
