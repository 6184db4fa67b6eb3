//! What each argument of each system call is, so that a rule on one can be refused where it would prove nothing.
//!
//! A filter sees the six argument registers and nothing behind them. A rule on a pointer compares an address, and a
//! rule on 32 bits of a 64-bit value lets everything through that differs in the other half. Both look like
//! protection; so both are errors.

/// What an argument is to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An int or an unsigned int: the kernel looks at the low 32 bits.
    Word,
    /// A long of which the kernel looks at the low 32 bits, or refuses what has others.
    LowWord,
    /// A long, an offset or a size: all 64 bits count.
    Wide,
    /// An address.
    Pointer,
}

/// What the arguments of a call are, in their order; `None` for a call without an entry.
pub(super) fn of(call: &str) -> Option<Vec<Kind>> {
    let (_, letters) = SIGNATURES.iter().find(|(name, _)| *name == call)?;
    letters
        .chars()
        .map(|letter| match letter {
            'i' => Some(Kind::Word),
            'w' => Some(Kind::LowWord),
            'l' => Some(Kind::Wide),
            'p' => Some(Kind::Pointer),
            _ => None,
        })
        .collect()
}

/// A letter for each argument: `i`nt, lo`w` half of a long, `l`ong, `p`ointer. An argument that is an integer or an
/// address, depending on another one (fcntl, ioctl, prctl), is a long here: no rule can be made of it.
#[rustfmt::skip]
const SIGNATURES: &[(&str, &str)] = &[
    ("read", "ipl"), ("write", "ipl"), ("open", "pii"), ("close", "i"), ("stat", "pp"), ("fstat", "ip"),
    ("lstat", "pp"), ("poll", "pil"), ("lseek", "ili"), ("mmap", "llwwil"), ("mprotect", "llw"),
    ("munmap", "ll"), ("brk", "l"), ("rt_sigaction", "ippl"), ("rt_sigprocmask", "ippl"),
    ("rt_sigreturn", ""), ("ioctl", "iil"), ("pread64", "ipll"), ("pwrite64", "ipll"), ("readv", "ipl"),
    ("writev", "ipl"), ("access", "pi"), ("pipe", "p"), ("select", "ipppp"), ("sched_yield", ""),
    ("mremap", "lllwl"), ("msync", "lli"), ("mincore", "llp"), ("madvise", "lli"), ("shmget", "ili"),
    ("shmat", "ipi"), ("shmctl", "iip"), ("dup", "i"), ("dup2", "ii"), ("pause", ""), ("nanosleep", "pp"),
    ("getitimer", "ip"), ("alarm", "i"), ("setitimer", "ipp"), ("getpid", ""), ("sendfile", "iipl"),
    ("socket", "iii"), ("connect", "ipi"), ("accept", "ipp"), ("sendto", "iplipi"), ("recvfrom", "iplipp"),
    ("sendmsg", "ipi"), ("recvmsg", "ipi"), ("shutdown", "ii"), ("bind", "ipi"), ("listen", "ii"),
    ("getsockname", "ipp"), ("getpeername", "ipp"), ("socketpair", "iiip"), ("setsockopt", "iiipi"),
    ("getsockopt", "iiipp"), ("clone", "wpppl"), ("fork", ""), ("vfork", ""), ("execve", "ppp"),
    ("exit", "i"), ("wait4", "ipip"), ("kill", "ii"), ("uname", "p"), ("semget", "iii"), ("semop", "ipi"),
    ("semctl", "iiil"), ("shmdt", "p"), ("msgget", "ii"), ("msgsnd", "ipli"), ("msgrcv", "iplli"),
    ("msgctl", "iip"), ("fcntl", "iil"), ("flock", "ii"), ("fsync", "i"), ("fdatasync", "i"),
    ("truncate", "pl"), ("ftruncate", "il"), ("getdents", "ipi"), ("getcwd", "pl"), ("chdir", "p"),
    ("fchdir", "i"), ("rename", "pp"), ("mkdir", "pi"), ("rmdir", "p"), ("creat", "pi"), ("link", "pp"),
    ("unlink", "p"), ("symlink", "pp"), ("readlink", "ppi"), ("chmod", "pi"), ("fchmod", "ii"),
    ("chown", "pii"), ("fchown", "iii"), ("lchown", "pii"), ("umask", "i"), ("gettimeofday", "pp"),
    ("getrlimit", "ip"), ("getrusage", "ip"), ("sysinfo", "p"), ("times", "p"), ("ptrace", "llll"),
    ("getuid", ""), ("syslog", "ipi"), ("getgid", ""), ("setuid", "i"), ("setgid", "i"), ("geteuid", ""),
    ("getegid", ""), ("setpgid", "ii"), ("getppid", ""), ("getpgrp", ""), ("setsid", ""),
    ("setreuid", "ii"), ("setregid", "ii"), ("getgroups", "ip"), ("setgroups", "ip"), ("setresuid", "iii"),
    ("getresuid", "ppp"), ("setresgid", "iii"), ("getresgid", "ppp"), ("getpgid", "i"), ("setfsuid", "i"),
    ("setfsgid", "i"), ("getsid", "i"), ("capget", "pp"), ("capset", "pp"), ("rt_sigpending", "pl"),
    ("rt_sigtimedwait", "pppl"), ("rt_sigqueueinfo", "iip"), ("rt_sigsuspend", "pl"), ("sigaltstack", "pp"),
    ("utime", "pp"), ("mknod", "pii"), ("uselib", "p"), ("personality", "i"), ("ustat", "ip"),
    ("statfs", "pp"), ("fstatfs", "ip"), ("sysfs", "ill"), ("getpriority", "ii"), ("setpriority", "iii"),
    ("sched_setparam", "ip"), ("sched_getparam", "ip"), ("sched_setscheduler", "iip"),
    ("sched_getscheduler", "i"), ("sched_get_priority_max", "i"), ("sched_get_priority_min", "i"),
    ("sched_rr_get_interval", "ip"), ("mlock", "ll"), ("munlock", "ll"), ("mlockall", "i"),
    ("munlockall", ""), ("vhangup", ""), ("modify_ldt", "ipl"), ("pivot_root", "pp"), ("_sysctl", "p"),
    ("prctl", "illll"), ("arch_prctl", "il"), ("adjtimex", "p"), ("setrlimit", "ip"), ("chroot", "p"),
    ("sync", ""), ("acct", "p"), ("settimeofday", "pp"), ("mount", "pppwp"), ("umount2", "pi"),
    ("swapon", "pi"), ("swapoff", "p"), ("reboot", "iiip"), ("sethostname", "pi"), ("setdomainname", "pi"),
    ("iopl", "i"), ("ioperm", "lli"), ("create_module", "pl"), ("init_module", "plp"),
    ("delete_module", "pi"), ("get_kernel_syms", "p"), ("query_module", "pipll"), ("quotactl", "ipip"),
    ("nfsservctl", "ipp"), ("getpmsg", "lllll"), ("putpmsg", "lllll"), ("afs_syscall", "lllll"),
    ("tuxcall", "lll"), ("security", "lll"), ("gettid", ""), ("readahead", "ill"), ("setxattr", "pppli"),
    ("lsetxattr", "pppli"), ("fsetxattr", "ippli"), ("getxattr", "pppl"), ("lgetxattr", "pppl"),
    ("fgetxattr", "ippl"), ("listxattr", "ppl"), ("llistxattr", "ppl"), ("flistxattr", "ipl"),
    ("removexattr", "pp"), ("lremovexattr", "pp"), ("fremovexattr", "ip"), ("tkill", "ii"), ("time", "p"),
    ("futex", "piippi"), ("sched_setaffinity", "iip"), ("sched_getaffinity", "iip"),
    ("set_thread_area", "p"), ("io_setup", "ip"), ("io_destroy", "l"), ("io_getevents", "lllpp"),
    ("io_submit", "llp"), ("io_cancel", "lpp"), ("get_thread_area", "p"), ("lookup_dcookie", "lpl"),
    ("epoll_create", "i"), ("epoll_ctl_old", "llll"), ("epoll_wait_old", "llll"),
    ("remap_file_pages", "lllll"), ("getdents64", "ipi"), ("set_tid_address", "p"), ("restart_syscall", ""),
    ("semtimedop", "ipip"), ("fadvise64", "illi"), ("timer_create", "ipp"), ("timer_settime", "iipp"),
    ("timer_gettime", "ip"), ("timer_getoverrun", "i"), ("timer_delete", "i"), ("clock_settime", "ip"),
    ("clock_gettime", "ip"), ("clock_getres", "ip"), ("clock_nanosleep", "iipp"), ("exit_group", "i"),
    ("epoll_wait", "ipii"), ("epoll_ctl", "iiip"), ("tgkill", "iii"), ("utimes", "pp"),
    ("vserver", "lllll"), ("mbind", "lllpli"), ("set_mempolicy", "ipl"), ("get_mempolicy", "pplll"),
    ("mq_open", "piip"), ("mq_unlink", "p"), ("mq_timedsend", "iplip"), ("mq_timedreceive", "iplpp"),
    ("mq_notify", "ip"), ("mq_getsetattr", "ipp"), ("kexec_load", "llpl"), ("waitid", "iipip"),
    ("add_key", "pppli"), ("request_key", "pppi"), ("keyctl", "illll"), ("ioprio_set", "iii"),
    ("ioprio_get", "ii"), ("inotify_init", ""), ("inotify_add_watch", "ipi"), ("inotify_rm_watch", "ii"),
    ("migrate_pages", "ilpp"), ("openat", "ipii"), ("mkdirat", "ipi"), ("mknodat", "ipii"),
    ("fchownat", "ipiii"), ("futimesat", "ipp"), ("newfstatat", "ippi"), ("unlinkat", "ipi"),
    ("renameat", "ipip"), ("linkat", "ipipi"), ("symlinkat", "pip"), ("readlinkat", "ippi"),
    ("fchmodat", "ipi"), ("faccessat", "ipi"), ("pselect6", "ippppp"), ("ppoll", "pippl"), ("unshare", "w"),
    ("set_robust_list", "pl"), ("get_robust_list", "ipp"), ("splice", "ipipli"), ("tee", "iili"),
    ("sync_file_range", "illi"), ("vmsplice", "ipli"), ("move_pages", "ilpppi"), ("utimensat", "ippi"),
    ("epoll_pwait", "ipiipl"), ("signalfd", "ipl"), ("timerfd_create", "ii"), ("eventfd", "i"),
    ("fallocate", "iill"), ("timerfd_settime", "iipp"), ("timerfd_gettime", "ip"), ("accept4", "ippi"),
    ("signalfd4", "ipli"), ("eventfd2", "ii"), ("epoll_create1", "i"), ("dup3", "iii"), ("pipe2", "pi"),
    ("inotify_init1", "i"), ("preadv", "iplll"), ("pwritev", "iplll"), ("rt_tgsigqueueinfo", "iiip"),
    ("perf_event_open", "piiiw"), ("recvmmsg", "ipiip"), ("fanotify_init", "ii"),
    ("fanotify_mark", "iilip"), ("prlimit64", "iipp"), ("name_to_handle_at", "ipppi"),
    ("open_by_handle_at", "ipi"), ("clock_adjtime", "ip"), ("syncfs", "i"), ("sendmmsg", "ipii"),
    ("setns", "ii"), ("getcpu", "ppp"), ("process_vm_readv", "iplplw"), ("process_vm_writev", "iplplw"),
    ("kcmp", "iiill"), ("finit_module", "ipi"), ("sched_setattr", "ipi"), ("sched_getattr", "ipii"),
    ("renameat2", "ipipi"), ("seccomp", "iip"), ("getrandom", "pli"), ("memfd_create", "pi"),
    ("kexec_file_load", "iilpw"), ("bpf", "ipi"), ("execveat", "ipppi"), ("userfaultfd", "i"),
    ("membarrier", "iii"), ("mlock2", "lli"), ("copy_file_range", "ipipli"), ("preadv2", "ipllli"),
    ("pwritev2", "ipllli"), ("pkey_mprotect", "llwi"), ("pkey_alloc", "ll"), ("pkey_free", "i"),
    ("statx", "ipiip"), ("io_pgetevents", "lllppp"), ("rseq", "piii"), ("uretprobe", ""), ("uprobe", ""),
    ("pidfd_send_signal", "iipi"), ("io_uring_setup", "ip"), ("io_uring_enter", "iiiipl"),
    ("io_uring_register", "iipi"), ("open_tree", "ipi"), ("move_mount", "ipipi"), ("fsopen", "pi"),
    ("fsconfig", "iippi"), ("fsmount", "iii"), ("fspick", "ipi"), ("pidfd_open", "ii"), ("clone3", "pl"),
    ("close_range", "iii"), ("openat2", "ippl"), ("pidfd_getfd", "iii"), ("faccessat2", "ipii"),
    ("process_madvise", "iplii"), ("epoll_pwait2", "ipippl"), ("mount_setattr", "ipipl"),
    ("quotactl_fd", "iiip"), ("landlock_create_ruleset", "pli"), ("landlock_add_rule", "iipi"),
    ("landlock_restrict_self", "ii"), ("memfd_secret", "i"), ("process_mrelease", "ii"),
    ("futex_waitv", "piipi"), ("set_mempolicy_home_node", "llll"), ("cachestat", "ippi"),
    ("fchmodat2", "ipii"), ("map_shadow_stack", "lli"), ("futex_wake", "plii"), ("futex_wait", "pllipi"),
    ("futex_requeue", "piii"), ("statmount", "ppli"), ("listmount", "ppli"), ("lsm_get_self_attr", "ippi"),
    ("lsm_set_self_attr", "ipii"), ("lsm_list_modules", "ppi"), ("mseal", "lll"), ("setxattrat", "ipippl"),
    ("getxattrat", "ipippl"), ("listxattrat", "ipipl"), ("removexattrat", "ipip"),
    ("open_tree_attr", "ipipl"), ("file_getattr", "ippli"), ("file_setattr", "ippli"), ("listns", "ppli"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_of_the_table_has_a_signature() {
        for call in crate::syscalls::names() {
            assert!(of(call).is_some_and(|kinds| kinds.len() <= 6), "{call}");
        }
        assert_eq!(SIGNATURES.len(), crate::syscalls::names().count());
    }

    #[test]
    fn what_people_filter_on_can_be_filtered_on() {
        for (call, argument) in [
            ("socket", 0),
            ("socket", 1),
            ("socket", 2),
            ("ioctl", 1),
            ("prctl", 0),
            ("fcntl", 1),
            ("mprotect", 2),
            ("mmap", 2),
            ("clone", 0),
            ("unshare", 0),
            ("personality", 0),
            ("kill", 1),
            ("madvise", 2),
        ] {
            let kind = of(call).expect("the call has a signature")[argument];
            assert!(matches!(kind, Kind::Word | Kind::LowWord), "{call} {argument}");
        }
    }

    #[test]
    fn addresses_are_known_as_such() {
        for (call, argument) in
            [("open", 0), ("openat", 1), ("openat2", 2), ("connect", 1), ("execve", 0), ("clone3", 0)]
        {
            assert_eq!(
                of(call).expect("the call has a signature")[argument],
                Kind::Pointer,
                "{call} {argument}"
            );
        }
    }
}
