//! Listening sockets: TCP, and Unix sockets for their owner only.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

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
            Listen::Tcp(address) => {
                let mut bound = TcpListener::bind(address).await;
                // `[::]` includes IPv4, but fails on a kernel without IPv6.
                if bound.is_err() && address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
                    bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await;
                }
                let bound = bound.map(Self::Tcp);
                bound.map_err(|error| format!("cannot listen on {address}: {error}"))
            }
            Listen::Unix(path) => {
                let bound = bind_unix(path).await;
                let bound = bound.map(|(listener, file)| Self::Unix(listener, file));
                bound.map_err(|error| format!("cannot listen on {}: {error}", path.display()))
            }
        }
    }

    /// Returns the URL, or `unix:` and the path.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => format!("http://{address}"),
                Err(error) => error.to_string(),
            },
            Self::Unix(_, file) => format!("unix:{}", file.path.display()),
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Without it, connections are only slower.
                let _ = stream.set_nodelay(true);
                Ok(Either::Left(stream))
            }
            Self::Unix(listener, _) => Ok(Either::Right(listener.accept().await?.0)),
        }
    }
}

/// A socket's file. Removed when dropped, unless another process has replaced it.
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // If this fails, the next start replaces the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Binds while it holds a lock on the directory. Without it, two gateways that replace a dead socket
/// would remove each other's: a socket that does not listen yet looks dead.
async fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let _lock = lock(path.parent().unwrap_or(Path::new("/"))).await?;
    if let Ok(metadata) = fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(io::Error::other("the file exists and is not a socket"));
        }
        // Not std's `connect`, which blocks while the listener's queue is full.
        match UnixStream::connect(path).await {
            // Left behind by a process that was killed.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path)?;
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => return Err(io::Error::other("another process is listening on it")),
        }
    }
    let socket = UnixSocket::new_stream()?;
    let owner = || Permissions::from_mode(0o600);
    // Linux gives the file the mode of the socket, so no other user can ever connect. Other systems
    // refuse this; there the mode is set right after.
    let _ = File::from(socket.as_fd().try_clone_to_owned()?).set_permissions(owner());
    socket.bind(path)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(path)?,
    };
    fs::set_permissions(path, owner())?;
    Ok((socket.listen(1024)?, file))
}

/// Locks a directory until the returned file is dropped.
async fn lock(directory: &Path) -> io::Result<File> {
    let file = File::open(directory)?;
    // Others hold the lock for milliseconds; this waits for 5 s.
    for _ in 0..500 {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::other("another process has locked its directory"))
}
