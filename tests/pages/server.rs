//! Two simulators behind TLS, production and staging, with a certificate made for this test. An HTTP proxy connects the
//! names of the real service to them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use officernd_simulator::Simulator;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const PRODUCTION: [&str; 2] = ["app.officernd.com", "identity.officernd.com"];
const STAGING: [&str; 2] = ["staging.officernd.com", "identity-staging.officernd.com"];

pub(crate) struct Server {
    officernd: Simulator,
    staging: Simulator,
    url: String,
    proxy: String,
    certificate: PathBuf,
}

impl Server {
    /// Production has the organization `acme`, staging `acme-staging`.
    pub(crate) async fn start() -> Self {
        let officernd = Simulator::builder().org_slug("acme").start().await.unwrap();
        let staging = Simulator::builder()
            .org_slug("acme-staging")
            .credentials("stagingClientId0", "stagingSecret")
            .start()
            .await
            .unwrap();
        let names = [&PRODUCTION[..], &STAGING[..], &["localhost"]].concat();
        let names: Vec<_> = names.into_iter().map(str::to_owned).collect();
        let issued = rcgen::generate_simple_self_signed(names).unwrap();
        let front = serve_tls(&issued, officernd.addr()).await;
        let staging_front = serve_tls(&issued, staging.addr()).await;
        let proxy = listen().await;
        let file = format!("pages-{}-{}.pem", std::process::id(), front.port());
        let server = Self {
            url: format!("https://localhost:{}", front.port()),
            proxy: format!("http://{}", proxy.local_addr().unwrap()),
            certificate: std::env::temp_dir().join(file),
            officernd,
            staging,
        };
        std::fs::write(&server.certificate, issued.cert.pem()).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = proxy.accept().await {
                tokio::spawn(tunnel(
                    stream,
                    [(PRODUCTION, front), (STAGING, staging_front)],
                ));
            }
        });
        server
    }

    pub(crate) fn officernd(&self) -> &Simulator {
        &self.officernd
    }

    pub(crate) fn staging(&self) -> &Simulator {
        &self.staging
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

/// Accepts TLS and passes the bytes on to the simulator.
async fn serve_tls(
    issued: &rcgen::CertifiedKey<rcgen::KeyPair>,
    simulator: SocketAddr,
) -> SocketAddr {
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(issued.signing_key.serialize_der().into());
    let config = tokio_rustls::rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let mut simulator = TcpStream::connect(simulator).await.unwrap();
                    let _ = copy_bidirectional(&mut stream, &mut simulator).await;
                }
            });
        }
    });
    address
}

/// An HTTP proxy that answers `CONNECT` to the hosts of these fronts.
async fn tunnel(mut stream: TcpStream, fronts: [([&str; 2], SocketAddr); 2]) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
        let Ok(byte) = stream.read_u8().await else {
            return;
        };
        head.push(byte);
    }
    let asked_for = |host: &&str| {
        let line = format!("CONNECT {host}:443 HTTP/1.1\r\n");
        head.starts_with(line.as_bytes())
    };
    let front = fronts.iter().find(|(hosts, _)| hosts.iter().any(asked_for));
    let Some((_, front)) = front else {
        let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
        return;
    };
    if stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.is_ok() {
        let mut front = TcpStream::connect(front).await.unwrap();
        let _ = copy_bidirectional(&mut stream, &mut front).await;
    }
}
