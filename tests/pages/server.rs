//! A simulator behind TLS, with a certificate made for this test and an HTTP proxy in front, through which the names of
//! the real service lead to it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use officernd_auth::testing::Simulator;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// The hosts that the proxy connects to, and that the certificate is for.
const HOSTS: [&str; 2] = ["app.officernd.com", "identity.officernd.com"];

pub(crate) struct Server {
    officernd: Simulator,
    url: String,
    proxy: String,
    certificate: PathBuf,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let officernd = Simulator::builder().org_slug("acme").start().await.unwrap();
        let names = HOSTS.into_iter().chain(["localhost"]).map(str::to_owned);
        let issued = rcgen::generate_simple_self_signed(names.collect::<Vec<_>>()).unwrap();
        let tls = listen().await;
        let proxy = listen().await;
        let port = tls.local_addr().unwrap().port();
        let certificate =
            std::env::temp_dir().join(format!("pages-{}-{port}.pem", std::process::id()));
        std::fs::write(&certificate, issued.cert.pem()).unwrap();
        let server = Self {
            url: format!("https://localhost:{port}"),
            proxy: format!("http://{}", proxy.local_addr().unwrap()),
            certificate,
            officernd,
        };
        let acceptor = acceptor(&issued);
        let simulator = server.officernd.addr();
        tokio::spawn(async move {
            while let Ok((stream, _)) = tls.accept().await {
                tokio::spawn(serve(stream, acceptor.clone(), simulator));
            }
        });
        let front = SocketAddr::from(([127, 0, 0, 1], port));
        tokio::spawn(async move {
            while let Ok((stream, _)) = proxy.accept().await {
                tokio::spawn(tunnel(stream, front));
            }
        });
        server
    }

    pub(crate) fn officernd(&self) -> &Simulator {
        &self.officernd
    }

    /// Where the API answers over TLS.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn proxy(&self) -> &str {
        &self.proxy
    }

    pub(crate) fn root_certificate(&self) -> &Path {
        &self.certificate
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.certificate);
    }
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

fn acceptor(issued: &rcgen::CertifiedKey<rcgen::KeyPair>) -> TlsAcceptor {
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(issued.signing_key.serialize_der().into());
    let config = tokio_rustls::rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Ends TLS and hands the bytes on to the simulator.
async fn serve(stream: TcpStream, acceptor: TlsAcceptor, simulator: SocketAddr) {
    let Ok(mut stream) = acceptor.accept(stream).await else {
        return;
    };
    let mut simulator = TcpStream::connect(simulator).await.unwrap();
    let _ = copy_bidirectional(&mut stream, &mut simulator).await;
}

/// An HTTP proxy that knows `CONNECT` to the hosts of the real service.
async fn tunnel(mut stream: TcpStream, front: SocketAddr) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
        let Ok(byte) = stream.read_u8().await else {
            return;
        };
        head.push(byte);
    }
    let known = HOSTS.iter().any(|host| {
        let line = format!("CONNECT {host}:443 HTTP/1.1\r\n");
        head.starts_with(line.as_bytes())
    });
    let answer: &[u8] = if known {
        b"HTTP/1.1 200 OK\r\n\r\n"
    } else {
        b"HTTP/1.1 502 Bad Gateway\r\n\r\n"
    };
    if stream.write_all(answer).await.is_ok() && known {
        let mut front = TcpStream::connect(front).await.unwrap();
        let _ = copy_bidirectional(&mut stream, &mut front).await;
    }
}
