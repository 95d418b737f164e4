//! Listening sockets: TCP, and Unix sockets that only their owner can use.

use std::fs::{self, File, Permissions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs4::{FileExt, TryLockError};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio_util::either::Either;

use crate::config::Listen;

pub(crate) type Stream = Either<TcpStream, UnixStream>;

pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl Listener {
    pub(crate) async fn bind(listen: &Listen) -> Result<Self, String> {
        match listen {
            Listen::Tcp(address) => Self::tcp(*address).await,
            Listen::Unix(path) => match bind_unix(path).await {
                Ok((listener, file)) => Ok(Self::Unix(listener, file)),
                Err(error) => Err(format!("cannot listen on {}: {error}", path.display())),
            },
        }
    }

    pub(crate) async fn tcp(address: SocketAddr) -> Result<Self, String> {
        let mut bound = TcpListener::bind(address).await;
        // A kernel without IPv6 has no `[::]`, which stands for both.
        if bound.is_err() && address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await;
        }
        let bound = bound.map_err(|error| format!("cannot listen on {address}: {error}"));
        Ok(Self::Tcp(bound?))
    }

    /// As a URL, or as curl's `--unix-socket` takes it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => format!("http://{address}"),
                Err(_) => String::new(),
            },
            Self::Unix(_, file) => format!("unix:{}", file.path.display()),
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // It serves without, only slower.
                let _ = stream.set_nodelay(true);
                Ok(Either::Left(stream))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok(Either::Right(stream))
            }
        }
    }
}

/// The socket's name in the file system; removed when dropped, unless another process has taken its
/// place.
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // The next start replaces what cannot be removed.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Binds under a lock on the directory: two gateways that replace one dead socket would remove each
/// other's, and a socket that does not listen yet looks dead.
async fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let _lock = lock(path.parent().unwrap_or(Path::new("/"))).await?;
    if let Ok(metadata) = fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(io::Error::other("there is something else than a socket"));
        }
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(io::Error::other("another process listens there")),
            // What a process left that was killed.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path)?;
            }
            Err(error) => return Err(error),
        }
    }
    let socket = UnixSocket::new_stream()?;
    let owner = || Permissions::from_mode(0o600);
    // Linux gives the file the mode of the socket: at no moment can another user connect. Other
    // systems refuse, and set it right after.
    let _ = File::from(socket.as_fd().try_clone_to_owned()?).set_permissions(owner());
    socket.bind(path)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(path)?,
    };
    fs::set_permissions(path, owner())?;
    Ok((socket.listen(1024)?, file))
}

/// Locks a directory. It is free again when the file is dropped.
async fn lock(directory: &Path) -> io::Result<File> {
    let file = File::open(directory)?;
    // The others hold it for milliseconds.
    for _ in 0..500 {
        match FileExt::try_lock(&file) {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::other(
        "another process holds a lock on its directory",
    ))
}
