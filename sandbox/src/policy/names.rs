//! The kernel's names that policies use, and their values: capabilities, errnos, resource limits, and the constants
//! that arguments of system calls are written with.
//!
//! The values are libc's own, so a wrong one does not compile.

/// A name and its value.
pub(super) type Named = (&'static str, u32);

/// Builds a table from the names of constants of libc.
macro_rules! from_libc {
    ($($name:ident)*) => {
        &[$((stringify!($name), as_u32(libc::$name as i64))),*]
    };
}

/// The 32 bits of a constant, whichever of C's types libc gives it.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "each is an int or an unsigned int in C"
)]
const fn as_u32(constant: i64) -> u32 {
    assert!(constant >= i32::MIN as i64 && constant <= u32::MAX as i64);
    constant as u32
}

/// errno(3); `errno:NAME` in a policy.
#[rustfmt::skip]
pub(super) const ERRNOS: &[Named] = from_libc![
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK
    EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE
    EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP EWOULDBLOCK ENOMSG
    EIDRM ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG EUNATCH ENOCSI EL2HLT EBADE EBADR EXFULL ENOANO EBADRQC
    EBADSLT EDEADLOCK EBFONT ENOSTR ENODATA ETIME ENOSR ENONET ENOPKG EREMOTE ENOLINK EADV ESRMNT ECOMM
    EPROTO EMULTIHOP EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ EBADFD EREMCHG ELIBACC ELIBBAD ELIBSCN ELIBMAX
    ELIBEXEC EILSEQ ERESTART ESTRPIPE EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT
    EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL
    ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN
    ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EUCLEAN
    ENOTNAM ENAVAIL EISNAM EREMOTEIO EDQUOT ENOMEDIUM EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED
    EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL EHWPOISON
];

/// What `[[seccomp.rule]]` may write instead of a number: families, types and protocols of sockets, flags of clone(2),
/// operations of prctl(2), fcntl(2) and of terminals, protection and kind of mappings.
#[rustfmt::skip]
pub(super) const CONSTANTS: &[Named] = from_libc![
    AF_UNSPEC AF_UNIX AF_LOCAL AF_INET AF_AX25 AF_IPX AF_APPLETALK AF_NETROM AF_BRIDGE AF_ATMPVC AF_X25
    AF_INET6 AF_ROSE AF_DECnet AF_NETBEUI AF_SECURITY AF_KEY AF_NETLINK AF_ROUTE AF_PACKET AF_ASH
    AF_ECONET AF_ATMSVC AF_RDS AF_SNA AF_IRDA AF_PPPOX AF_WANPIPE AF_LLC AF_IB AF_MPLS AF_CAN AF_TIPC
    AF_BLUETOOTH AF_IUCV AF_RXRPC AF_ISDN AF_PHONET AF_IEEE802154 AF_CAIF AF_ALG AF_NFC AF_VSOCK AF_XDP
    SOCK_STREAM SOCK_DGRAM SOCK_RAW SOCK_RDM SOCK_SEQPACKET SOCK_DCCP SOCK_CLOEXEC
    SOCK_NONBLOCK IPPROTO_IP IPPROTO_ICMP IPPROTO_IGMP IPPROTO_TCP IPPROTO_UDP IPPROTO_DCCP IPPROTO_IPV6
    IPPROTO_ICMPV6 IPPROTO_SCTP IPPROTO_UDPLITE IPPROTO_RAW IPPROTO_MPTCP NETLINK_ROUTE NETLINK_USERSOCK
    NETLINK_FIREWALL NETLINK_SOCK_DIAG NETLINK_INET_DIAG NETLINK_NFLOG NETLINK_XFRM NETLINK_SELINUX
    NETLINK_ISCSI NETLINK_AUDIT NETLINK_FIB_LOOKUP NETLINK_CONNECTOR NETLINK_NETFILTER NETLINK_IP6_FW
    NETLINK_DNRTMSG NETLINK_KOBJECT_UEVENT NETLINK_GENERIC NETLINK_SCSITRANSPORT NETLINK_ECRYPTFS
    NETLINK_RDMA NETLINK_CRYPTO CLONE_CHILD_CLEARTID CLONE_CHILD_SETTID CLONE_DETACHED CLONE_FILES
    CLONE_FS CLONE_IO CLONE_NEWCGROUP CLONE_NEWIPC CLONE_NEWNET CLONE_NEWNS CLONE_NEWPID CLONE_NEWTIME
    CLONE_NEWUSER CLONE_NEWUTS CLONE_PARENT CLONE_PARENT_SETTID CLONE_PIDFD CLONE_PTRACE CLONE_SETTLS
    CLONE_SIGHAND CLONE_SYSVSEM CLONE_THREAD CLONE_UNTRACED CLONE_VFORK CLONE_VM SIGCHLD
    PR_SET_PDEATHSIG PR_GET_PDEATHSIG PR_GET_DUMPABLE PR_SET_DUMPABLE PR_GET_KEEPCAPS PR_SET_KEEPCAPS
    PR_GET_TIMING PR_SET_TIMING PR_SET_NAME PR_GET_NAME PR_GET_SECCOMP PR_SET_SECCOMP PR_CAPBSET_READ
    PR_CAPBSET_DROP PR_GET_TSC PR_SET_TSC PR_GET_SECUREBITS PR_SET_SECUREBITS PR_SET_TIMERSLACK
    PR_GET_TIMERSLACK PR_TASK_PERF_EVENTS_DISABLE PR_TASK_PERF_EVENTS_ENABLE PR_MCE_KILL PR_SET_MM
    PR_SET_PTRACER PR_SET_CHILD_SUBREAPER PR_GET_CHILD_SUBREAPER PR_SET_NO_NEW_PRIVS PR_GET_NO_NEW_PRIVS
    PR_GET_TID_ADDRESS PR_SET_THP_DISABLE PR_GET_THP_DISABLE PR_CAP_AMBIENT PR_GET_SPECULATION_CTRL
    PR_SET_SPECULATION_CTRL 
    PR_SCHED_CORE PR_SET_VMA PROT_NONE PROT_READ PROT_WRITE PROT_EXEC PROT_GROWSDOWN PROT_GROWSUP
    MAP_SHARED MAP_PRIVATE MAP_SHARED_VALIDATE MAP_ANONYMOUS MAP_FIXED MAP_FIXED_NOREPLACE MAP_GROWSDOWN
    MAP_HUGETLB MAP_LOCKED MAP_NONBLOCK MAP_NORESERVE MAP_POPULATE MAP_STACK MAP_SYNC MAP_32BIT F_DUPFD
    F_DUPFD_CLOEXEC F_GETFD F_SETFD F_GETFL F_SETFL F_GETLK F_SETLK F_SETLKW F_OFD_GETLK F_OFD_SETLK
    F_OFD_SETLKW F_GETOWN F_SETOWN F_GETLEASE F_SETLEASE F_NOTIFY F_GETPIPE_SZ F_SETPIPE_SZ F_ADD_SEALS
    F_GET_SEALS TCGETS TCGETS2 TCSETS TCSETS2 TCSETSW TCSETSW2 TCSETSF TCSETSF2 TCGETA TCSETA TCSETAW
    TCSETAF TCSBRK TCSBRKP TCXONC TCFLSH TCGETX TCSETX TCSETXF TCSETXW TIOCCBRK TIOCCONS TIOCEXCL
    TIOCGDEV TIOCGETD TIOCGEXCL TIOCGICOUNT TIOCGLCKTRMIOS TIOCGPGRP TIOCGPKT TIOCGPTLCK TIOCGPTN
    TIOCGPTPEER TIOCGRS485 TIOCGSERIAL TIOCGSID TIOCGSOFTCAR TIOCGWINSZ TIOCINQ TIOCLINUX TIOCMBIC
    TIOCMBIS TIOCMGET TIOCMIWAIT TIOCMSET TIOCNOTTY TIOCNXCL TIOCOUTQ TIOCPKT TIOCSBRK TIOCSCTTY
    TIOCSERCONFIG TIOCSERGETLSR TIOCSERGETMULTI TIOCSERGSTRUCT TIOCSERGWILD TIOCSERSETMULTI TIOCSERSWILD
    TIOCSETD TIOCSIG TIOCSLCKTRMIOS TIOCSPGRP TIOCSPTLCK TIOCSRS485 TIOCSSERIAL TIOCSSOFTCAR TIOCSTI
    TIOCSWINSZ TIOCVHANGUP FIOASYNC FIOCLEX FIONBIO FIONCLEX FIONREAD FIOQSIZE
];

/// A resource that getrlimit(2) knows.
#[derive(Debug)]
pub(super) struct ResourceName {
    pub(super) name: &'static str,
    pub(super) number: u32,
    /// It counts bytes, so `K M G T` make sense.
    pub(super) bytes: bool,
}

/// `[rlimits]`.
#[rustfmt::skip]
pub(super) const RESOURCES: &[ResourceName] = &[
    ResourceName { name: "cpu", number: libc::RLIMIT_CPU, bytes: false },
    ResourceName { name: "fsize", number: libc::RLIMIT_FSIZE, bytes: true },
    ResourceName { name: "data", number: libc::RLIMIT_DATA, bytes: true },
    ResourceName { name: "stack", number: libc::RLIMIT_STACK, bytes: true },
    ResourceName { name: "core", number: libc::RLIMIT_CORE, bytes: true },
    ResourceName { name: "rss", number: libc::RLIMIT_RSS, bytes: true },
    ResourceName { name: "nproc", number: libc::RLIMIT_NPROC, bytes: false },
    ResourceName { name: "nofile", number: libc::RLIMIT_NOFILE, bytes: false },
    ResourceName { name: "memlock", number: libc::RLIMIT_MEMLOCK, bytes: true },
    ResourceName { name: "as", number: libc::RLIMIT_AS, bytes: true },
    ResourceName { name: "locks", number: libc::RLIMIT_LOCKS, bytes: false },
    ResourceName { name: "sigpending", number: libc::RLIMIT_SIGPENDING, bytes: false },
    ResourceName { name: "msgqueue", number: libc::RLIMIT_MSGQUEUE, bytes: true },
    ResourceName { name: "nice", number: libc::RLIMIT_NICE, bytes: false },
    ResourceName { name: "rtprio", number: libc::RLIMIT_RTPRIO, bytes: false },
    ResourceName { name: "rttime", number: libc::RLIMIT_RTTIME, bytes: false },
];

/// Every capability by its name, in the order of the numbers.
pub(super) fn capabilities() -> Vec<(String, caps::Capability)> {
    let mut all: Vec<_> =
        caps::all().into_iter().map(|capability| (capability.to_string(), capability)).collect();
    all.sort_by_key(|(_, capability)| capability.index());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(table: &[Named], name: &str) -> Option<u32> {
        table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// Spot checks against the kernel's headers, which no macro of ours has touched.
    #[test]
    fn names_have_the_kernels_values() {
        assert_eq!(value(ERRNOS, "EPERM"), Some(1));
        assert_eq!(value(ERRNOS, "ENOSYS"), Some(38));
        assert_eq!(value(ERRNOS, "EHWPOISON"), Some(133));
        assert_eq!(value(CONSTANTS, "AF_INET6"), Some(10));
        assert_eq!(value(CONSTANTS, "SOCK_CLOEXEC"), Some(0o2_000_000));
        assert_eq!(value(CONSTANTS, "CLONE_NEWUSER"), Some(0x1000_0000));
        assert_eq!(value(CONSTANTS, "PR_SET_NO_NEW_PRIVS"), Some(38));
        assert_eq!(value(CONSTANTS, "TIOCSTI"), Some(0x5412));
        assert_eq!(value(CONSTANTS, "TCGETS2"), Some(0x802c_542a));
        assert!(ERRNOS.iter().all(|(_, value)| (1..4096).contains(value)), "what SECCOMP_RET_DATA can carry");
    }

    #[test]
    fn a_name_stands_once_in_its_table() {
        for table in [ERRNOS, CONSTANTS] {
            let names: std::collections::BTreeSet<_> = table.iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), table.len());
        }
    }

    #[test]
    fn capabilities_are_listed_from_the_first_to_the_last() {
        let all = capabilities();
        assert_eq!(all.first().map(|(name, _)| name.as_str()), Some("CAP_CHOWN"));
        assert_eq!(all.last().map(|(name, _)| name.as_str()), Some("CAP_CHECKPOINT_RESTORE"));
        assert_eq!(all.len(), 41);
    }
}
