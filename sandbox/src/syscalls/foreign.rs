//! The calls of the two other architectures that an x86_64 kernel may have: i386, by its gate (`int 0x80`) and in 32-bit
//! programs, and x32, by a bit in the number.
//!
//! Policies name the calls of x86_64. Each call of these is one of those in other words, and is let through where that one
//! is; what its filter may look at is the same only where its arguments stand at the same places with the same width.

use super::number;

/// A call of another architecture, and what it is on x86_64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign {
    /// Its number there.
    pub number: u32,
    /// Its name there.
    pub name: &'static str,
    /// The number on x86_64 of what it does.
    pub native: u32,
    /// Its arguments stand where they do on x86_64, so that conditions on them mean the same.
    pub same_arguments: bool,
}

/// Number and name of those that are called the same and take the same (arch/x86/entry/syscalls/syscall_32.tbl, to Linux
/// 6.18 and the one call of 6.19).
#[rustfmt::skip]
const SAME: &[(u32, &str)] = &[
    (0, "restart_syscall"), (1, "exit"), (2, "fork"), (3, "read"), (4, "write"), (5, "open"), (6, "close"),
    (8, "creat"), (9, "link"), (10, "unlink"), (11, "execve"), (12, "chdir"), (13, "time"), (14, "mknod"),
    (15, "chmod"), (19, "lseek"), (20, "getpid"), (21, "mount"), (26, "ptrace"), (27, "alarm"),
    (29, "pause"), (30, "utime"), (33, "access"), (36, "sync"), (37, "kill"), (38, "rename"),
    (39, "mkdir"), (40, "rmdir"), (41, "dup"), (42, "pipe"), (43, "times"), (45, "brk"), (51, "acct"),
    (52, "umount2"), (54, "ioctl"), (55, "fcntl"), (57, "setpgid"), (60, "umask"), (61, "chroot"),
    (62, "ustat"), (63, "dup2"), (64, "getppid"), (65, "getpgrp"), (66, "setsid"), (74, "sethostname"),
    (75, "setrlimit"), (76, "getrlimit"), (77, "getrusage"), (78, "gettimeofday"), (79, "settimeofday"),
    (83, "symlink"), (85, "readlink"), (86, "uselib"), (87, "swapon"), (88, "reboot"), (91, "munmap"),
    (92, "truncate"), (93, "ftruncate"), (94, "fchmod"), (96, "getpriority"), (97, "setpriority"),
    (99, "statfs"), (100, "fstatfs"), (101, "ioperm"), (103, "syslog"), (104, "setitimer"),
    (105, "getitimer"), (106, "stat"), (107, "lstat"), (108, "fstat"), (110, "iopl"), (111, "vhangup"),
    (114, "wait4"), (115, "swapoff"), (116, "sysinfo"), (118, "fsync"), (120, "clone"),
    (121, "setdomainname"), (122, "uname"), (123, "modify_ldt"), (124, "adjtimex"), (125, "mprotect"),
    (127, "create_module"), (128, "init_module"), (129, "delete_module"), (130, "get_kernel_syms"),
    (131, "quotactl"), (132, "getpgid"), (133, "fchdir"), (135, "sysfs"), (136, "personality"),
    (137, "afs_syscall"), (141, "getdents"), (143, "flock"), (144, "msync"), (145, "readv"),
    (146, "writev"), (147, "getsid"), (148, "fdatasync"), (149, "_sysctl"), (150, "mlock"),
    (151, "munlock"), (152, "mlockall"), (153, "munlockall"), (154, "sched_setparam"),
    (155, "sched_getparam"), (156, "sched_setscheduler"), (157, "sched_getscheduler"),
    (158, "sched_yield"), (159, "sched_get_priority_max"), (160, "sched_get_priority_min"),
    (161, "sched_rr_get_interval"), (162, "nanosleep"), (163, "mremap"), (167, "query_module"),
    (168, "poll"), (169, "nfsservctl"), (172, "prctl"), (173, "rt_sigreturn"), (174, "rt_sigaction"),
    (175, "rt_sigprocmask"), (176, "rt_sigpending"), (177, "rt_sigtimedwait"), (178, "rt_sigqueueinfo"),
    (179, "rt_sigsuspend"), (183, "getcwd"), (184, "capget"), (185, "capset"), (186, "sigaltstack"),
    (187, "sendfile"), (188, "getpmsg"), (189, "putpmsg"), (190, "vfork"), (217, "pivot_root"),
    (218, "mincore"), (219, "madvise"), (220, "getdents64"), (224, "gettid"), (226, "setxattr"),
    (227, "lsetxattr"), (228, "fsetxattr"), (229, "getxattr"), (230, "lgetxattr"), (231, "fgetxattr"),
    (232, "listxattr"), (233, "llistxattr"), (234, "flistxattr"), (235, "removexattr"),
    (236, "lremovexattr"), (237, "fremovexattr"), (238, "tkill"), (240, "futex"),
    (241, "sched_setaffinity"), (242, "sched_getaffinity"), (243, "set_thread_area"),
    (244, "get_thread_area"), (245, "io_setup"), (246, "io_destroy"), (247, "io_getevents"),
    (248, "io_submit"), (249, "io_cancel"), (252, "exit_group"), (254, "epoll_create"), (255, "epoll_ctl"),
    (256, "epoll_wait"), (257, "remap_file_pages"), (258, "set_tid_address"), (259, "timer_create"),
    (260, "timer_settime"), (261, "timer_gettime"), (262, "timer_getoverrun"), (263, "timer_delete"),
    (264, "clock_settime"), (265, "clock_gettime"), (266, "clock_getres"), (267, "clock_nanosleep"),
    (270, "tgkill"), (271, "utimes"), (273, "vserver"), (274, "mbind"), (275, "get_mempolicy"),
    (276, "set_mempolicy"), (277, "mq_open"), (278, "mq_unlink"), (279, "mq_timedsend"),
    (280, "mq_timedreceive"), (281, "mq_notify"), (282, "mq_getsetattr"), (283, "kexec_load"),
    (284, "waitid"), (286, "add_key"), (287, "request_key"), (288, "keyctl"), (289, "ioprio_set"),
    (290, "ioprio_get"), (291, "inotify_init"), (292, "inotify_add_watch"), (293, "inotify_rm_watch"),
    (294, "migrate_pages"), (295, "openat"), (296, "mkdirat"), (297, "mknodat"), (298, "fchownat"),
    (299, "futimesat"), (301, "unlinkat"), (302, "renameat"), (303, "linkat"), (304, "symlinkat"),
    (305, "readlinkat"), (306, "fchmodat"), (307, "faccessat"), (308, "pselect6"), (309, "ppoll"),
    (310, "unshare"), (311, "set_robust_list"), (312, "get_robust_list"), (313, "splice"), (315, "tee"),
    (316, "vmsplice"), (317, "move_pages"), (318, "getcpu"), (319, "epoll_pwait"), (320, "utimensat"),
    (321, "signalfd"), (322, "timerfd_create"), (323, "eventfd"), (325, "timerfd_settime"),
    (326, "timerfd_gettime"), (327, "signalfd4"), (328, "eventfd2"), (329, "epoll_create1"), (330, "dup3"),
    (331, "pipe2"), (332, "inotify_init1"), (333, "preadv"), (334, "pwritev"), (335, "rt_tgsigqueueinfo"),
    (336, "perf_event_open"), (337, "recvmmsg"), (338, "fanotify_init"), (340, "prlimit64"),
    (341, "name_to_handle_at"), (342, "open_by_handle_at"), (343, "clock_adjtime"), (344, "syncfs"),
    (345, "sendmmsg"), (346, "setns"), (347, "process_vm_readv"), (348, "process_vm_writev"),
    (349, "kcmp"), (350, "finit_module"), (351, "sched_setattr"), (352, "sched_getattr"),
    (353, "renameat2"), (354, "seccomp"), (355, "getrandom"), (356, "memfd_create"), (357, "bpf"),
    (358, "execveat"), (359, "socket"), (360, "socketpair"), (361, "bind"), (362, "connect"),
    (363, "listen"), (364, "accept4"), (365, "getsockopt"), (366, "setsockopt"), (367, "getsockname"),
    (368, "getpeername"), (369, "sendto"), (370, "sendmsg"), (371, "recvfrom"), (372, "recvmsg"),
    (373, "shutdown"), (374, "userfaultfd"), (375, "membarrier"), (376, "mlock2"),
    (377, "copy_file_range"), (378, "preadv2"), (379, "pwritev2"), (380, "pkey_mprotect"),
    (381, "pkey_alloc"), (382, "pkey_free"), (383, "statx"), (384, "arch_prctl"), (385, "io_pgetevents"),
    (386, "rseq"), (393, "semget"), (394, "semctl"), (395, "shmget"), (396, "shmctl"), (397, "shmat"),
    (398, "shmdt"), (399, "msgget"), (400, "msgsnd"), (401, "msgrcv"), (402, "msgctl"),
    (424, "pidfd_send_signal"), (425, "io_uring_setup"), (426, "io_uring_enter"),
    (427, "io_uring_register"), (428, "open_tree"), (429, "move_mount"), (430, "fsopen"),
    (431, "fsconfig"), (432, "fsmount"), (433, "fspick"), (434, "pidfd_open"), (435, "clone3"),
    (436, "close_range"), (437, "openat2"), (438, "pidfd_getfd"), (439, "faccessat2"),
    (440, "process_madvise"), (441, "epoll_pwait2"), (442, "mount_setattr"), (443, "quotactl_fd"),
    (444, "landlock_create_ruleset"), (445, "landlock_add_rule"), (446, "landlock_restrict_self"),
    (447, "memfd_secret"), (448, "process_mrelease"), (449, "futex_waitv"),
    (450, "set_mempolicy_home_node"), (451, "cachestat"), (452, "fchmodat2"), (453, "map_shadow_stack"),
    (454, "futex_wake"), (455, "futex_wait"), (456, "futex_requeue"), (457, "statmount"),
    (458, "listmount"), (459, "lsm_get_self_attr"), (460, "lsm_set_self_attr"), (461, "lsm_list_modules"),
    (462, "mseal"), (463, "setxattrat"), (464, "getxattrat"), (465, "listxattrat"), (466, "removexattrat"),
    (467, "open_tree_attr"), (468, "file_getattr"), (469, "file_setattr"), (470, "listns"),
];

/// Number, name, and what it is: these take the same under another name, most of them with wider values in memory.
#[rustfmt::skip]
const RENAMED: &[(u32, &str, &str)] = &[
    (18, "oldstat", "stat"), (28, "oldfstat", "fstat"), (84, "oldlstat", "lstat"),
    (109, "olduname", "uname"), (142, "_newselect", "select"), (191, "ugetrlimit", "getrlimit"),
    (192, "mmap2", "mmap"), (195, "stat64", "stat"), (196, "lstat64", "lstat"), (197, "fstat64", "fstat"),
    (198, "lchown32", "lchown"), (199, "getuid32", "getuid"), (200, "getgid32", "getgid"),
    (201, "geteuid32", "geteuid"), (202, "getegid32", "getegid"), (203, "setreuid32", "setreuid"),
    (204, "setregid32", "setregid"), (205, "getgroups32", "getgroups"), (206, "setgroups32", "setgroups"),
    (207, "fchown32", "fchown"), (208, "setresuid32", "setresuid"), (209, "getresuid32", "getresuid"),
    (210, "setresgid32", "setresgid"), (211, "getresgid32", "getresgid"), (212, "chown32", "chown"),
    (213, "setuid32", "setuid"), (214, "setgid32", "setgid"), (215, "setfsuid32", "setfsuid"),
    (216, "setfsgid32", "setfsgid"), (221, "fcntl64", "fcntl"), (239, "sendfile64", "sendfile"),
    (300, "fstatat64", "newfstatat"), (403, "clock_gettime64", "clock_gettime"),
    (404, "clock_settime64", "clock_settime"), (405, "clock_adjtime64", "clock_adjtime"),
    (406, "clock_getres_time64", "clock_getres"), (407, "clock_nanosleep_time64", "clock_nanosleep"),
    (408, "timer_gettime64", "timer_gettime"), (409, "timer_settime64", "timer_settime"),
    (410, "timerfd_gettime64", "timerfd_gettime"), (411, "timerfd_settime64", "timerfd_settime"),
    (412, "utimensat_time64", "utimensat"), (413, "pselect6_time64", "pselect6"),
    (414, "ppoll_time64", "ppoll"), (416, "io_pgetevents_time64", "io_pgetevents"),
    (417, "recvmmsg_time64", "recvmmsg"), (418, "mq_timedsend_time64", "mq_timedsend"),
    (419, "mq_timedreceive_time64", "mq_timedreceive"), (420, "semtimedop_time64", "semtimedop"),
    (421, "rt_sigtimedwait_time64", "rt_sigtimedwait"), (422, "futex_time64", "futex"),
    (423, "sched_rr_get_interval_time64", "sched_rr_get_interval"),
];

/// The same of those that take something else: 64 bits in two registers, which moves what comes after; 16 bits of an id,
/// which cuts it; fewer or other arguments; or all of them in memory.
#[rustfmt::skip]
const OTHERWISE: &[(u32, &str, &str)] = &[
    (7, "waitpid", "wait4"), (16, "lchown", "lchown"), (22, "umount", "umount2"), (23, "setuid", "setuid"),
    (24, "getuid", "getuid"), (25, "stime", "settimeofday"), (34, "nice", "setpriority"),
    (46, "setgid", "setgid"), (47, "getgid", "getgid"), (48, "signal", "rt_sigaction"),
    (49, "geteuid", "geteuid"), (50, "getegid", "getegid"), (59, "oldolduname", "uname"),
    (67, "sigaction", "rt_sigaction"), (68, "sgetmask", "rt_sigprocmask"),
    (69, "ssetmask", "rt_sigprocmask"), (70, "setreuid", "setreuid"), (71, "setregid", "setregid"),
    (72, "sigsuspend", "rt_sigsuspend"), (73, "sigpending", "rt_sigpending"),
    (80, "getgroups", "getgroups"), (81, "setgroups", "setgroups"), (82, "select", "select"),
    (89, "readdir", "getdents"), (90, "mmap", "mmap"), (95, "fchown", "fchown"),
    (113, "vm86old", "modify_ldt"), (119, "sigreturn", "rt_sigreturn"),
    (126, "sigprocmask", "rt_sigprocmask"), (138, "setfsuid", "setfsuid"), (139, "setfsgid", "setfsgid"),
    (140, "_llseek", "lseek"), (164, "setresuid", "setresuid"), (165, "getresuid", "getresuid"),
    (166, "vm86", "modify_ldt"), (170, "setresgid", "setresgid"), (171, "getresgid", "getresgid"),
    (180, "pread64", "pread64"), (181, "pwrite64", "pwrite64"), (182, "chown", "chown"),
    (193, "truncate64", "truncate"), (194, "ftruncate64", "ftruncate"), (225, "readahead", "readahead"),
    (250, "fadvise64", "fadvise64"), (253, "lookup_dcookie", "lookup_dcookie"),
    (268, "statfs64", "statfs"), (269, "fstatfs64", "fstatfs"), (272, "fadvise64_64", "fadvise64"),
    (314, "sync_file_range", "sync_file_range"), (324, "fallocate", "fallocate"),
    (339, "fanotify_mark", "fanotify_mark"),
];

/// A call that is many: which one says its first argument, and the arguments of that may lie in memory.
#[derive(Debug, Clone, Copy)]
pub struct Multiplexer {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: &'static str,
    /// The bits of the first argument that say which.
    pub mask: u32,
    /// The first argument, and the name of the call on x86_64.
    pub calls: &'static [(u32, &'static str)],
}

/// `socketcall` (linux/net.h), whose arguments lie in memory, and `ipc` (linux/ipc.h), whose first argument has a version
/// above.
#[rustfmt::skip]
pub const MULTIPLEXERS: [Multiplexer; 2] = [
    Multiplexer { number: 102, name: "socketcall", mask: u32::MAX, calls: &[
        (1, "socket"), (2, "bind"), (3, "connect"), (4, "listen"), (5, "accept"), (6, "getsockname"),
        (7, "getpeername"), (8, "socketpair"), (9, "sendto"), (10, "recvfrom"), (11, "sendto"), (12, "recvfrom"),
        (13, "shutdown"), (14, "setsockopt"), (15, "getsockopt"), (16, "sendmsg"), (17, "recvmsg"),
        (18, "accept4"), (19, "recvmmsg"), (20, "sendmmsg"),
    ] },
    Multiplexer { number: 117, name: "ipc", mask: 0xffff, calls: &[
        (1, "semop"), (2, "semget"), (3, "semctl"), (4, "semtimedop"), (11, "msgsnd"), (12, "msgrcv"),
        (13, "msgget"), (14, "msgctl"), (21, "shmat"), (22, "shmdt"), (23, "shmget"), (24, "shmctl"),
    ] },
];

/// The calls of i386, in the order of their numbers, but for the [`MULTIPLEXERS`].
#[must_use]
pub fn i386() -> Vec<Foreign> {
    let foreign = |call: u32, name, native, same_arguments| {
        let native = number(native).expect("a test looks every one of them up");
        Foreign { number: call, name, native, same_arguments }
    };
    let mut calls: Vec<Foreign> = SAME.iter().map(|(call, name)| foreign(*call, *name, name, true)).collect();
    calls.extend(RENAMED.iter().map(|(call, name, native)| foreign(*call, *name, native, true)));
    calls.extend(OTHERWISE.iter().map(|(call, name, native)| foreign(*call, *name, native, false)));
    calls.sort_by_key(|call| call.number);
    calls
}

/// The calls that x32 has numbers of its own for, since they take structures of other sizes.
#[rustfmt::skip]
const X32_OWN: &[(u32, &str)] = &[
    (512, "rt_sigaction"), (513, "rt_sigreturn"), (514, "ioctl"), (515, "readv"), (516, "writev"),
    (517, "recvfrom"), (518, "sendmsg"), (519, "recvmsg"), (520, "execve"), (521, "ptrace"),
    (522, "rt_sigpending"), (523, "rt_sigtimedwait"), (524, "rt_sigqueueinfo"), (525, "sigaltstack"),
    (526, "timer_create"), (527, "mq_notify"), (528, "kexec_load"), (529, "waitid"),
    (530, "set_robust_list"), (531, "get_robust_list"), (532, "vmsplice"), (533, "move_pages"),
    (534, "preadv"), (535, "pwritev"), (536, "rt_tgsigqueueinfo"), (537, "recvmmsg"), (538, "sendmmsg"),
    (539, "process_vm_readv"), (540, "process_vm_writev"), (541, "setsockopt"), (542, "getsockopt"),
    (543, "io_setup"), (544, "io_submit"), (545, "execveat"), (546, "preadv2"), (547, "pwritev2"),
];

/// What it does not have under the number of x86_64.
#[rustfmt::skip]
const X32_LACKS: &[&str] = &[
    "rt_sigaction", "rt_sigreturn", "ioctl", "readv", "writev", "recvfrom", "sendmsg", "recvmsg",
    "setsockopt", "getsockopt", "execve", "ptrace", "rt_sigpending", "rt_sigtimedwait", "rt_sigqueueinfo",
    "sigaltstack", "uselib", "_sysctl", "create_module", "get_kernel_syms", "query_module", "nfsservctl",
    "set_thread_area", "io_setup", "io_submit", "get_thread_area", "epoll_ctl_old", "epoll_wait_old",
    "timer_create", "vserver", "mq_notify", "kexec_load", "waitid", "set_robust_list", "get_robust_list",
    "vmsplice", "move_pages", "preadv", "pwritev", "rt_tgsigqueueinfo", "recvmmsg", "sendmmsg",
    "process_vm_readv", "process_vm_writev", "execveat", "preadv2", "pwritev2", "uretprobe", "uprobe",
];

/// The calls of x32 in the order of their numbers, without the bit: all have their arguments in the same registers.
#[must_use]
pub fn x32() -> Vec<Foreign> {
    let shared = super::TABLE.iter().filter(|(_, name)| !X32_LACKS.contains(name));
    let shared = shared.map(|(call, name)| (*call, *name, *call));
    let own = X32_OWN.iter().map(|(call, name)| (*call, *name, number(name).expect("a test looks it up")));
    let mut calls: Vec<Foreign> = shared
        .chain(own)
        .map(|(number, name, native)| Foreign { number, name, native, same_arguments: true })
        .collect();
    calls.sort_by_key(|call| call.number);
    calls
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The numbers that a header of this machine defines, which is older than the tables.
    fn header(name: &str, prefix: &str) -> Option<BTreeMap<String, u32>> {
        let folders = ["/usr/include/x86_64-linux-gnu/asm", "/usr/include/asm"];
        let text =
            folders.iter().find_map(|folder| std::fs::read_to_string(format!("{folder}/{name}")).ok())?;
        let define = |line: &str| {
            let (name, value) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
            let value = value.strip_prefix(prefix)?.trim_end_matches(')');
            Some((name.to_owned(), value.trim().parse().ok()?))
        };
        Some(text.lines().filter_map(define).collect())
    }

    #[test]
    fn every_call_is_one_of_x86_64_and_no_number_is_there_twice() {
        for (calls, least) in [(i386(), 430), (x32(), 350)] {
            assert!(calls.len() > least && calls.windows(2).all(|pair| pair[0].number < pair[1].number));
        }
        for Multiplexer { number, calls, .. } in MULTIPLEXERS {
            assert!(i386().iter().all(|call| call.number != number));
            assert!(calls.iter().all(|(_, name)| super::number(name).is_some()));
            assert!(calls.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
        assert!(X32_LACKS.iter().all(|name| number(name).is_some()));
    }

    /// What i386 never implemented is not in the table, and so is unknown to every filter.
    const NEVER: [&str; 11] =
        ["break", "bdflush", "ftime", "gtty", "idle", "lock", "mpx", "prof", "profil", "stty", "ulimit"];

    #[test]
    fn the_installed_header_of_i386_says_the_same() {
        let Some(header) = header("unistd_32.h", "") else {
            println!("no unistd_32.h on this machine");
            return;
        };
        let calls = i386();
        let mut ours: BTreeMap<&str, u32> = calls.iter().map(|call| (call.name, call.number)).collect();
        ours.extend(MULTIPLEXERS.iter().map(|call| (call.name, call.number)));
        for (name, number) in &header {
            let expected = (!NEVER.contains(&name.as_str())).then_some(number);
            assert_eq!(ours.get(name.as_str()), expected, "{name}");
        }
        // What is newer than the header has one number on all architectures.
        for (name, call) in ours.iter().filter(|(name, _)| !header.contains_key(**name)) {
            assert!(*call > 424 && number(name) == Some(*call), "{name} is {call}");
        }
    }

    #[test]
    fn the_installed_header_of_x32_says_the_same() {
        let Some(header) = header("unistd_x32.h", "(__X32_SYSCALL_BIT + ") else {
            println!("no unistd_x32.h on this machine");
            return;
        };
        let calls = x32();
        let ours: BTreeMap<&str, u32> = calls.iter().map(|call| (call.name, call.number)).collect();
        for (name, number) in &header {
            assert_eq!(ours.get(name.as_str()), Some(number), "{name}");
        }
        for (name, call) in ours.iter().filter(|(name, _)| !header.contains_key(**name)) {
            assert!(*call > 424, "{name} is {call}");
        }
    }

    #[test]
    fn what_takes_something_else_is_not_told_to_take_the_same() {
        let same = |name: &str| {
            let found = i386().into_iter().find(|call| call.name == name);
            found.unwrap_or_else(|| panic!("i386 has no {name}")).same_arguments
        };
        for name in ["fadvise64", "sync_file_range", "fanotify_mark", "setuid", "setresuid", "mmap", "select"]
        {
            assert!(!same(name), "{name}");
        }
        for name in ["mmap2", "socket", "clone", "ioctl", "openat", "setuid32", "personality", "shmat"] {
            assert!(same(name), "{name}");
        }
    }
}
