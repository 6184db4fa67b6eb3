//! Datagrams of a notify socket with everything that the kernel attaches to them: who sent them (SCM_CREDENTIALS,
//! SCM_PIDFD) and descriptors (SCM_RIGHTS). By hand, because nix knows no SCM_PIDFD and answers a cut control message with
//! an error, which would leave the descriptors that did arrive open for ever.

use std::{
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

use nix::errno::Errno;

use super::given::Given;

/// SO_PASSPIDFD (asm-generic/socket.h, Linux 6.5).
const SO_PASSPIDFD: i32 = 76;
/// SCM_PIDFD (linux/socket.h, Linux 6.5).
const SCM_PIDFD: i32 = 0x04;
/// PIDFD_GET_INFO: _IOWR(0xFF, 11, struct pidfd_info) with the first version's 64 bytes (linux/pidfd.h, Linux 6.13).
const PIDFD_GET_INFO: libc::c_ulong = 0xC040_FF0B;
/// PIDFD_INFO_CGROUPID
const INFO_CGROUPID: u64 = 1 << 2;
/// PIDFD_INFO_EXIT (Linux 6.15): the cgroup of a process that has been reaped is answered with it.
const INFO_EXIT: u64 = 1 << 3;

/// `struct pidfd_info` of version 0 (linux/pidfd.h).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    words: [u32; 12],
}
const _: () = assert!(size_of::<PidfdInfo>() == 64);

/// Room for SCM_MAX_FD descriptors, the credentials and the pidfd: nothing of what one sender can attach is ever cut.
/// 16 bytes of header each, (253 + 1) * 4 + 12 bytes of data, padding.
const CONTROL_BYTES: usize = 2048;

/// A control buffer, aligned as `cmsghdr` wants it.
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// A datagram.
#[derive(Debug)]
pub(crate) struct Datagram {
    /// How much of the buffer it filled.
    pub(crate) bytes: usize,
    /// It was longer than the buffer.
    pub(crate) cut: bool,
    /// The pid of who sent it, in this process's pid namespace; `None` where it has none there.
    pub(crate) pid: Option<u32>,
    /// The sender itself, where the kernel hands that out.
    pub(crate) pidfd: Option<OwnedFd>,
    /// What came with it. Closed when dropped.
    pub(crate) descriptors: Vec<Given>,
}

/// Asks for a pidfd of each sender. `false`: this kernel does not know it.
pub(crate) fn pass_pidfd(socket: BorrowedFd<'_>) -> Result<bool, Errno> {
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or_default();
    // SAFETY: the value is an int of this frame, of the size that is given; the kernel only reads it.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PASSPIDFD, ptr::from_ref(&on).cast(), size)
    };
    match Errno::result(set) {
        Ok(_) => Ok(true),
        Err(Errno::ENOPROTOOPT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// The next datagram, without waiting: EAGAIN where there is none. It stays in the socket (MSG_PEEK), and what comes with it
/// comes as often as it is looked at, until [`take`].
pub(crate) fn look(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Datagram, Errno> {
    read(socket, buffer, libc::MSG_PEEK)
}

/// What there is to be read, of a stream too, and the descriptors that came with it.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Datagram, Errno> {
    read(socket, buffer, 0)
}

fn read(socket: BorrowedFd<'_>, buffer: &mut [u8], flags: i32) -> Result<Datagram, Errno> {
    let mut control = Control([0; CONTROL_BYTES]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a `msghdr` is integers and pointers, for all of which zero is a value.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = ptr::from_mut(&mut part);
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_BYTES;
    let flags = flags | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header points at one iovec over a buffer that is borrowed mutably, and at a control buffer of this
    // frame; both with their own sizes.
    let read = unsafe { libc::recvmsg(socket.as_raw_fd(), ptr::from_mut(&mut header), flags) };
    let bytes = usize::try_from(Errno::result(read)?).unwrap_or_default();
    let cut = header.msg_flags & libc::MSG_TRUNC != 0;
    let mut datagram = Datagram { bytes, cut, pid: None, pidfd: None, descriptors: Vec::new() };
    // SAFETY: recvmsg filled the header in, and its control buffer lives on.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(ptr::from_ref(&header)) };
    while !next.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR answer null or an aligned header inside the control buffer.
        let message = unsafe { ptr::read(next) };
        // SAFETY: `next` is such a header; its data follows within the buffer, `cmsg_len` bytes with the header.
        let data = unsafe { libc::CMSG_DATA(next) };
        // SAFETY: a computation with integers.
        let before = usize::try_from(unsafe { libc::CMSG_LEN(0) }).unwrap_or_default();
        let data_len = message.cmsg_len.saturating_sub(before);
        // SAFETY: the kernel wrote `cmsg_len` bytes of this message into the control buffer, `data_len` of them data.
        let data = unsafe { std::slice::from_raw_parts(data, data_len) };
        if message.cmsg_level == libc::SOL_SOCKET {
            datagram.attach(message.cmsg_type, data);
        }
        // SAFETY: the header and the current message are those of above, unchanged.
        next = unsafe { libc::CMSG_NXTHDR(ptr::from_ref(&header), next) };
    }
    Ok(datagram)
}

/// Takes the next datagram out of the socket, without waiting and without what is in it.
pub(crate) fn take(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    nix::sys::socket::recv(socket.as_raw_fd(), &mut [], nix::sys::socket::MsgFlags::MSG_DONTWAIT).map(drop)
}

impl Datagram {
    fn attach(&mut self, kind: i32, data: &[u8]) {
        let mut words =
            data.chunks_exact(4).map(|word| word.try_into().map(i32::from_ne_bytes).unwrap_or(-1));
        match kind {
            // `struct ucred` begins with the pid; 0 is one that this pid namespace does not have.
            libc::SCM_CREDENTIALS => {
                self.pid = words.next().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
            }
            SCM_PIDFD => self.pidfd = words.next().and_then(adopt),
            libc::SCM_RIGHTS => self.descriptors.extend(words.filter_map(adopt).map(Given::from)),
            _ => {}
        }
    }
}

/// A descriptor that a control message brought. The kernel writes an error number instead of a pidfd that it cannot make.
fn adopt(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: `Datagram::attach` passes each number of SCM_RIGHTS and SCM_PIDFD once, straight from recvmsg, which has just
    // made these descriptors for this process; nobody else knows of them. Negative ones are none.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// kcmp(2): whether two descriptors of this process are of one open file.
pub(crate) fn is_same_file(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    const KCMP_FILE: i32 = 0;
    let pid = nix::unistd::getpid().as_raw();
    // SAFETY: integers alone.
    let order =
        unsafe { libc::syscall(libc::SYS_kcmp, pid, pid, KCMP_FILE, one.as_raw_fd(), other.as_raw_fd()) };
    order == 0
}

/// The id of the cgroup that a process is in, or was in when it ended. `None`: this kernel does not say, or not any more.
pub(crate) fn pidfd_cgroup(pidfd: BorrowedFd<'_>) -> Option<u64> {
    let mut info = PidfdInfo { mask: INFO_CGROUPID | INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request says 64 bytes, and points at a structure of that size that is borrowed mutably.
    let answer = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, ptr::from_mut(&mut info)) };
    (answer == 0 && info.mask & INFO_CGROUPID != 0 && info.cgroup_id != 0).then_some(info.cgroup_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{
        AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, setsockopt, socketpair, sockopt,
    };
    use std::{io::IoSlice, os::fd::AsFd};

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (one, other) = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags).unwrap();
        setsockopt(&other, sockopt::PassCred, &true).unwrap();
        (one, other)
    }

    fn taken(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Datagram, Errno> {
        let seen = look(socket, buffer)?;
        take(socket).map(|()| seen)
    }

    fn open_descriptors() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    #[test]
    fn a_datagram_says_who_sent_it_and_its_descriptors_are_owned() {
        let (sender, receiver) = pair();
        let known = pass_pidfd(receiver.as_fd()).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let fds = vec![file.as_raw_fd(); 253];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(sender.as_raw_fd(), &[IoSlice::new(b"READY=1")], &rights, MsgFlags::empty(), None)
            .unwrap();
        let mut buffer = [0; 64];
        let datagram = taken(receiver.as_fd(), &mut buffer).unwrap();
        assert_eq!((datagram.bytes, datagram.cut), (7, false));
        assert_eq!(datagram.pid, Some(std::process::id()));
        assert_eq!(datagram.descriptors.len(), 253, "as many as one message can carry");
        assert_eq!(datagram.pidfd.is_some(), known);
        if let Some(pidfd) = &datagram.pidfd {
            // By the oracle of the file system: the id of a cgroup is the inode of its directory.
            let text = std::fs::read_to_string("/proc/self/cgroup").unwrap();
            let path = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
            let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
            use std::os::unix::fs::MetadataExt;
            let ids: Vec<u64> = roots
                .iter()
                .filter_map(|root| Some(std::fs::metadata(format!("{root}{path}")).ok()?.ino()))
                .collect();
            if let Some(id) = pidfd_cgroup(pidfd.as_fd()) {
                assert!(ids.contains(&id), "{id} is none of {ids:?}");
            }
        }
        assert_eq!(taken(receiver.as_fd(), &mut buffer).unwrap_err(), Errno::EAGAIN);
    }

    #[test]
    fn what_is_not_wanted_is_closed() {
        let (sender, receiver) = pair();
        let file = std::fs::File::open("/dev/null").unwrap();
        let fds = [file.as_raw_fd(); 100];
        // Other tests of this process open and close meanwhile, but not by the thousand.
        let before = open_descriptors();
        for _ in 0..100 {
            let rights = [ControlMessage::ScmRights(&fds)];
            sendmsg::<()>(sender.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None)
                .unwrap();
            drop(taken(receiver.as_fd(), &mut [0; 8]).unwrap());
        }
        assert!(open_descriptors() < before + 1000);
    }

    #[test]
    fn a_datagram_is_there_until_it_is_taken() {
        let (sender, receiver) = pair();
        let file = std::fs::File::open("/dev/null").unwrap();
        let (fds, mut buffer) = ([file.as_raw_fd()], [0; 8]);
        for text in [b"one", b"two"] {
            let rights = [ControlMessage::ScmRights(&fds)];
            sendmsg::<()>(sender.as_raw_fd(), &[IoSlice::new(text)], &rights, MsgFlags::empty(), None)
                .unwrap();
        }
        for text in [b"one", b"two"] {
            for _ in 0..2 {
                let seen = look(receiver.as_fd(), &mut buffer).unwrap();
                assert_eq!((&buffer[..seen.bytes], seen.descriptors.len()), (&text[..], 1));
            }
            take(receiver.as_fd()).unwrap();
        }
        assert_eq!(take(receiver.as_fd()), Err(Errno::EAGAIN));
    }

    #[test]
    fn a_datagram_that_is_too_long_is_told() {
        let (sender, receiver) = pair();
        sendmsg::<()>(sender.as_raw_fd(), &[IoSlice::new(&[b'x'; 100])], &[], MsgFlags::empty(), None)
            .unwrap();
        assert!(taken(receiver.as_fd(), &mut [0; 64]).unwrap().cut);
    }
}
