//! A TCP server that answers a token request with whatever bytes a test likes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// What the server does once it has read the request.
#[derive(Debug, Clone)]
pub(crate) enum Script {
    /// Writes this and closes.
    Answer(Vec<u8>),
    /// Writes this before it reads, as a server that speaks another protocol.
    Greet(Vec<u8>),
    /// Writes this and keeps the connection open.
    AnswerAndHang(Vec<u8>),
    /// Writes this, then a byte now and then, for ever.
    Drip(Vec<u8>),
    /// Writes this, then as much as the other side takes.
    Endless(Vec<u8>),
    /// Resets the connection.
    Reset,
    /// Closes its sending side and keeps the rest open.
    HalfClose,
}

pub(crate) struct Raw {
    pub(crate) url: String,
    /// Bytes that the other side took.
    pub(crate) written: Arc<AtomicU64>,
    pub(crate) connections: Arc<AtomicUsize>,
    /// The requests, in order.
    seen: Arc<Mutex<Vec<String>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Raw {
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/oauth/token", listener.local_addr().unwrap());
        let (written, connections) = (Arc::<AtomicU64>::default(), Arc::<AtomicUsize>::default());
        let (bytes, count) = (written.clone(), connections.clone());
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let keep = seen.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, script.clone(), bytes.clone(), keep.clone()));
            }
        });
        Self {
            url,
            written,
            connections,
            seen,
            server,
        }
    }

    /// The origin of the URL.
    pub(crate) fn origin(&self) -> String {
        self.url.trim_end_matches("/oauth/token").to_owned()
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    script: Script,
    written: Arc<AtomicU64>,
    seen: Arc<Mutex<Vec<String>>>,
) {
    if let Script::Greet(bytes) = &script {
        let _ = stream.write_all(bytes).await;
    }
    let request = read_request(&mut stream).await;
    let request = String::from_utf8_lossy(&request).into_owned();
    seen.lock().unwrap().push(request);
    match script {
        Script::Answer(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Script::Greet(_) => until_closed(&mut stream).await,
        Script::AnswerAndHang(bytes) => {
            let _ = stream.write_all(&bytes).await;
            until_closed(&mut stream).await;
        }
        Script::Drip(bytes) => {
            let _ = stream.write_all(&bytes).await;
            while stream.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        Script::Endless(bytes) => {
            let _ = stream.write_all(&bytes).await;
            while stream.write_all(&[b' '; 4096]).await.is_ok() {
                written.fetch_add(4096, Ordering::SeqCst);
            }
        }
        Script::Reset => {
            // A close that drops data not yet sent is a reset.
            let socket = socket2::SockRef::from(&stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
        Script::HalfClose => {
            let _ = stream.shutdown().await;
            until_closed(&mut stream).await;
        }
    }
}

async fn until_closed(stream: &mut TcpStream) {
    let mut rest = [0; 64];
    while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
}

/// Reads the head and as much body as it announces; gives both back.
pub(crate) async fn read_request(stream: &mut TcpStream) -> Vec<u8> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).await.unwrap_or(0);
        request.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        let length = text.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok());
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.len());
        if read == 0 || body.is_some_and(|body| body >= length.unwrap_or(0)) {
            return request;
        }
    }
}

/// An address that refuses connections: bound, so that nobody else gets the port, and not listening.
pub(crate) fn closed_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A TLS server with a certificate of its own for `localhost`. Returns its port, the certificate and how many
/// requests it has read; it answers each with these bytes.
pub(crate) async fn tls_server(
    answer: Vec<u8>,
) -> (
    u16,
    rustls_pki_types::CertificateDer<'static>,
    Arc<AtomicUsize>,
) {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(issued.signing_key.serialize_der().into());
    let certificate = issued.cert.der().clone();
    let config = tokio_rustls::rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::<AtomicUsize>::default();
    let count = requests.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // The handshake ends on the other side.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut request = [0; 4096];
            if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    (port, certificate, requests)
}
