//! A network around the gateway: an OfficeRnD over TLS, and a proxy on the way to it.

use std::sync::{Arc, Mutex};

use officernd_simulator::Simulator;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use crate::child::{gateway, serve};
use crate::folder::Folder;

/// The names of the service. They resolve nowhere: only a proxy reaches them.
pub(crate) const IDENTITY: &str = "https://identity.invalid/oauth/token";
pub(crate) const APP: &str = "https://app.invalid";

/// A simulator that serves the organization `acme` over TLS, and its certificate.
pub(crate) struct Network {
    pub(crate) officernd: Simulator,
    /// `https://localhost:PORT`.
    pub(crate) url: String,
    pub(crate) certificate: String,
    _folder: Folder,
}

impl Network {
    pub(crate) async fn start(name: &str) -> Self {
        let officernd = Simulator::builder()
            .org_slug("acme")
            .no_rate_limit()
            .start()
            .await
            .unwrap();
        let names = ["localhost", "identity.invalid", "app.invalid"].map(str::to_owned);
        let issued = rcgen::generate_simple_self_signed(names).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::Pkcs8(issued.signing_key.serialize_der().into());
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![issued.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let simulator = officernd.addr();
        let url = serve(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut simulator = TcpStream::connect(simulator).await.unwrap();
                let _ = copy_bidirectional(&mut stream, &mut simulator).await;
            }
        });
        let url = url.await.replace("http://127.0.0.1", "https://localhost");
        let folder = Folder::new(name);
        Self {
            certificate: folder.file("certificate.pem", &issued.cert.pem()),
            officernd,
            url,
            _folder: folder,
        }
    }

    pub(crate) fn token_url(&self) -> String {
        format!("{}/oauth/token", self.url)
    }

    /// A gateway that has the credentials and trusts the certificate.
    pub(crate) fn command(&self, token_url: &str, upstream: &str) -> std::process::Command {
        let mut command = gateway();
        command
            .envs(self.officernd.env())
            .env("OFFICERND_TOKEN_URL", token_url)
            .env("GATEWAY_UPSTREAM", upstream)
            .env("OFFICERND_ORG_SLUG", "acme")
            .env("SSL_CERT_FILE", &self.certificate)
            // A name server that is not there must not hold a test up.
            .env("RES_OPTIONS", "timeout:1 attempts:1");
        command
    }
}

/// A proxy that answers `CONNECT`, leads every host to one network, and notes whom it was asked for.
pub(crate) struct Proxy {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Answers with this status line, and leads on if it is a 200.
    pub(crate) async fn start(network: &Network, status: &'static str) -> Self {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let heads = Arc::clone(&asked);
        let to = network.url.trim_start_matches("https://").to_owned();
        let url = serve(move |mut stream| {
            let (heads, to) = (Arc::clone(&heads), to.clone());
            async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else {
                        return;
                    };
                    head.push(byte);
                }
                heads.lock().unwrap().push(String::from_utf8(head).unwrap());
                let answer = format!("HTTP/1.1 {status}\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
                if status.starts_with("200") {
                    let mut to = TcpStream::connect(to).await.unwrap();
                    let _ = copy_bidirectional(&mut stream, &mut to).await;
                }
            }
        });
        Self {
            url: url.await,
            asked,
        }
    }

    /// Its URL with a user and a password, in which `@` and `:` are escaped.
    pub(crate) fn with_password(&self) -> String {
        self.url.replace("http://", "http://me:p%40ss%3A@")
    }

    /// The heads of all requests so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn was_asked_for(&self, host: &str) -> bool {
        let line = format!("CONNECT {host}:443 HTTP/1.1\r\n");
        self.asked().iter().any(|head| head.starts_with(&line))
    }
}

/// An address that is bound, so that no other process gets it, and refuses connections.
pub(crate) fn refusing() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    (socket, address)
}

/// An API that answers each request as a script says, and closes the connection after half a head or
/// if it says `None`.
/// Returns its URL and the heads that it got.
pub(crate) async fn scripted(
    script: impl Fn(&str) -> Option<&'static str> + Send + Sync + 'static,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let (script, got) = (Arc::new(script), Arc::clone(&heads));
    let url = serve(move |mut stream| {
        let (script, got) = (Arc::clone(&script), Arc::clone(&got));
        async move {
            let mut buffer = vec![0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                let head = String::from_utf8_lossy(&buffer[..read]).into_owned();
                got.lock().unwrap().push(head.clone());
                let Some(answer) = script(&head) else {
                    return;
                };
                let _ = stream.write_all(answer.as_bytes()).await;
                if !answer.contains("\r\n\r\n") {
                    return;
                }
            }
        }
    });
    (url.await, heads)
}
