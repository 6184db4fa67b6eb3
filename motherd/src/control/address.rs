//! A UNIX socket by its path: listening on it without a moment in which the mode is wrong, connecting to it, and
//! paths longer than `sun_path` (108 bytes, unix(7)), which a `--root` deep in a tree makes.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::chown,
        unix::{ffi::OsStrExt, fs::OpenOptionsExt, fs::PermissionsExt, net::UnixStream},
    },
    path::{Path, PathBuf},
};

use nix::sys::{
    socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect as connect_to,
        listen as listen_on, socket,
    },
    stat::{Mode, fchmod},
};

/// sizeof(sun_path), less the NUL.
const PATH_MAX_BYTES: usize = 107;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 32;

/// Makes a listening stream socket at `path`, with exactly these permission bits and, if one is given, this group, in the
/// place of what was there: at every moment one of the two takes connections.
///
/// # Errors
/// socket(2), bind(2), chown(2), chmod(2), listen(2), rename(2)
pub fn listen(path: &Path, mode: u32, group: Option<u32>) -> io::Result<OwnedFd> {
    let mut temporary = path.to_owned().into_os_string();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let fd = bound(&temporary, SockType::Stream, mode, None, group, Some(BACKLOG))?;
    fs::rename(&temporary, path)?;
    Ok(fd)
}

/// A socket of any kind and owner at `path`, in the place of what was there; without a backlog it does not listen.
///
/// It is bound to `path` itself and to no name of ours: a service compares what getsockname(2) says with what it was
/// configured for (sd_is_socket_unix(3), and nginx).
///
/// # Errors
/// socket(2), bind(2), chown(2), chmod(2), listen(2)
pub(crate) fn bound(
    path: &Path,
    kind: SockType,
    mode: u32,
    owner: Option<u32>,
    group: Option<u32>,
    backlog: Option<i32>,
) -> io::Result<OwnedFd> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let fd = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
    // bind(2) makes the node with the mode of the socket (unix(7)): nobody gets in before owner and mode are right.
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let short = Short::of(path)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(&short.path)?)?;
    if owner.is_some() || group.is_some() {
        chown(path, owner, group)?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    if let Some(backlog) = backlog {
        listen_on(&fd, Backlog::new(backlog)?)?;
    }
    Ok(fd)
}

/// Connects to the socket at `path`.
///
/// # Errors
/// connect(2)
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(Short::of(path)?.path)
}

/// The same without waiting, for whoever only wants to know whether somebody takes connections there.
///
/// # Errors
/// connect(2): EAGAIN where the queue is full, EPROTOTYPE where it is no stream socket, ECONNREFUSED where nobody listens
pub(crate) fn connect_now(path: &Path) -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let short = Short::of(path)?;
    Ok(connect_to(fd.as_raw_fd(), &UnixAddr::new(&short.path)?)?)
}

/// A path that fits into an address, and the folder that it goes through.
struct Short {
    path: PathBuf,
    _folder: Option<File>,
}

impl Short {
    fn of(path: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(Self { path: path.to_owned(), _folder: None });
        };
        if path.as_os_str().as_bytes().len() <= PATH_MAX_BYTES {
            return Ok(Self { path: path.to_owned(), _folder: None });
        }
        let folder = File::options().read(true).custom_flags(nix::libc::O_PATH).open(folder)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
        Ok(Self { path, _folder: Some(folder) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        os::unix::{fs::MetadataExt, net::UnixListener},
    };

    /// A folder that ends with the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("motherd-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("it was made by the test");
        }
    }

    fn reachable(path: &Path) {
        let listener = UnixListener::from(listen(path, 0o600, None).unwrap());
        connect(path).unwrap().write_all(b"x").unwrap();
        listener.accept().unwrap();
    }

    #[test]
    fn a_socket_takes_the_place_of_a_stale_one_and_has_its_mode() {
        let scratch = Scratch::new("stale");
        let path = scratch.0.join("motherd.sock");
        drop(listen(&path, 0o666, None).unwrap());
        reachable(&path);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let own_group = nix::unistd::getegid().as_raw();
        drop(listen(&path, 0o660, Some(own_group)).unwrap());
        let status = fs::metadata(&path).unwrap();
        assert_eq!((status.permissions().mode() & 0o7777, status.gid()), (0o660, own_group));
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1, "the temporary name is gone");
    }

    #[test]
    fn a_path_longer_than_an_address_works() {
        let scratch = Scratch::new("long");
        let folder = scratch.0.join("x".repeat(120));
        fs::create_dir(&folder).unwrap();
        reachable(&folder.join("motherd.sock"));
    }
}
