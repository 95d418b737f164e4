//! Listening sockets: TCP, and Unix sockets that only their owner can use.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

use crate::config::Listen;

/// More connections than a kernel keeps waiting.
const MAX_BACKLOG: usize = 8192;

pub(crate) type Stream = Either<TcpStream, UnixStream>;

pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl Listener {
    pub(crate) async fn bind(listen: &Listen) -> Result<Self, String> {
        match listen {
            Listen::Tcp(address) => Self::tcp(*address).await,
            Listen::Unix(path) => bind_unix(path)
                .map(|(listener, file)| Self::Unix(listener, file))
                .map_err(|error| format!("cannot listen on {}: {error}", path.display())),
        }
    }

    pub(crate) async fn tcp(address: SocketAddr) -> Result<Self, String> {
        let bound = TcpListener::bind(address).await;
        bound
            .map(Self::Tcp)
            .map_err(|error| format!("cannot listen on {address}: {error}"))
    }

    /// As a URL, or as curl's `--unix-socket` takes it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Tcp(listener) => listener
                .local_addr()
                .map(|address| format!("http://{address}"))
                .unwrap_or_default(),
            Self::Unix(_, file) => format!("unix:{}", file.path.display()),
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok(Either::Left(stream))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok(Either::Right(stream))
            }
        }
    }

    /// Stops listening. Returns the connections that the kernel has accepted
    /// already: their clients may have sent a request.
    pub(crate) fn close(self) -> Vec<Stream> {
        match self {
            Self::Tcp(listener) => listener.into_std().map_or(Vec::new(), |listener| {
                let waiting = listener.incoming().take(MAX_BACKLOG);
                let waiting = waiting.map_while(Result::ok).filter_map(|stream| {
                    stream.set_nonblocking(true).ok()?;
                    TcpStream::from_std(stream).ok().map(Either::Left)
                });
                waiting.collect()
            }),
            Self::Unix(listener, file) => {
                // No client finds the socket from here on.
                drop(file);
                listener.into_std().map_or(Vec::new(), |listener| {
                    let waiting = listener.incoming().take(MAX_BACKLOG);
                    let waiting = waiting.map_while(Result::ok).filter_map(|stream| {
                        stream.set_nonblocking(true).ok()?;
                        UnixStream::from_std(stream).ok().map(Either::Right)
                    });
                    waiting.collect()
                })
            }
        }
    }
}

/// Prepares an accepted connection. `timeout` ends it when its peer's kernel
/// acknowledges nothing for that long: a host that vanished says no goodbye.
pub(crate) fn prepare(stream: &Stream, timeout: Duration) {
    let Either::Left(stream) = stream else {
        return;
    };
    // A connection serves without either option, only slower or longer.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(timeout));
    #[cfg(not(target_os = "linux"))]
    let _ = timeout;
}

/// The socket's name in the file system; removed when dropped, unless another
/// process has taken its place.
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

/// Binds inside a directory that only this user can enter, sets mode 0600, and
/// moves the socket to its place: at no moment can another user connect, and no
/// process-wide umask changes.
fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let problem = "there is something else than a socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, problem));
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            let problem = "another process listens there";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, problem));
        }
        // Nothing, or what a process left that was killed.
        _ => {}
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    let private = parent.join(format!(".{}", std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&private)?;
    let bound = bind_in(&private, path);
    let removed = fs::remove_dir_all(&private);
    let bound = bound?;
    removed?;
    Ok(bound)
}

fn bind_in(private: &Path, path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let socket = private.join("s");
    let listener = UnixListener::bind(&socket)?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
    fs::rename(&socket, path)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(path)?,
    };
    Ok((listener, file))
}
