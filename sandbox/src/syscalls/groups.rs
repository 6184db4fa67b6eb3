//! Groups of system calls, under the names that users know from systemd.
//!
//! The names are systemd's, the members are ours: each group is described by what its calls do, and a call is in it
//! because it does that. Where we leave out what systemd has, it is because the call reaches beyond the process, and
//! the group's line says so. A group is `@name`; groups may contain groups.
//!
//! What every group of ours keeps to:
//! - Reading is not setting. `clock_gettime` is in `@default`, `clock_settime` in `@clock`.
//! - Giving up a right is not a privilege. `capset` is in `@process`, since all it can do is take away or re-arrange.
//! - What asks for a capability in every useful form is in `@privileged`, which therefore contains `@chown` and
//!   `@setuid`: an unprivileged process gets EPERM from the kernel for them, so a filter's EPERM is no news to it.

use super::versions;

/// A group: its name, what its calls do, and its members; a member that starts with `@` is a group.
struct Group {
    name: &'static str,
    about: &'static str,
    members: &'static [&'static str],
}

/// The calls of a group, its groups resolved, in the order of their numbers; `None` for a group that does not exist.
/// The name is given with its `@`.
#[must_use]
pub fn members(name: &str) -> Option<Vec<u32>> {
    members_of_version(name, versions::VERSION)
}

/// The version since which a call has been in a group; `None` where it is not in it.
#[must_use]
pub fn since(name: &str, call: u32) -> Option<u32> {
    let has = |version: &u32| members_of_version(name, *version).is_some_and(|calls| calls.contains(&call));
    (1..=versions::VERSION).find(has)
}

/// The same as of a version.
#[must_use]
pub fn members_of_version(name: &str, version: u32) -> Option<Vec<u32>> {
    let index = GROUPS.iter().position(|group| group.name == name)?;
    let group = GROUPS.get(index)?;
    if group.name != KNOWN && versions::is_as_written(version) {
        return Some(WRITTEN.get(index)?.numbers());
    }
    let mut calls = Calls::NONE;
    collect(group, version, &mut calls)?;
    Some(calls.numbers())
}

/// Marks the calls of a group, and of the groups in it.
fn collect(group: &Group, version: u32, calls: &mut Calls) -> Option<()> {
    if group.name == KNOWN {
        known(version).for_each(|number| calls.mark(number));
        return Some(());
    }
    for member in versions::written(group.name, group.members, version) {
        if member.starts_with('@') {
            collect(find(member)?, version, calls)?;
        } else {
            calls.mark(super::number(member)?);
        }
    }
    Some(())
}

/// Calls, one bit for each number: in the order of the numbers, and none twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Calls([u64; WORDS]);

const WORDS: usize = super::highest() as usize / 64 + 1;

impl Calls {
    const NONE: Self = Self([0; WORDS]);

    const fn mark(&mut self, number: u32) {
        self.0[number as usize / 64] |= 1 << (number % 64);
    }

    const fn mark_all(&mut self, others: &Self) {
        let mut word = 0;
        while word < WORDS {
            self.0[word] |= others.0[word];
            word += 1;
        }
    }

    fn numbers(&self) -> Vec<u32> {
        let mut numbers = Vec::with_capacity(super::highest() as usize);
        for (base, word) in (0..).step_by(64).zip(self.0) {
            let mut rest = word;
            while rest != 0 {
                numbers.push(base + rest.trailing_zeros());
                rest &= rest - 1;
            }
        }
        numbers
    }
}

/// The calls of each group as it is written in [`GROUPS`], which the compiler resolves: whoever reads a policy asks for some
/// of the largest. [`KNOWN`] has none here.
static WRITTEN: [Calls; GROUPS.len()] = {
    let mut calls = [Calls::NONE; GROUPS.len()];
    let mut resolved = [false; GROUPS.len()];
    let mut index = 0;
    while index < GROUPS.len() {
        resolve(index, &mut calls, &mut resolved);
        index += 1;
    }
    calls
};

const fn resolve(index: usize, calls: &mut [Calls; GROUPS.len()], resolved: &mut [bool; GROUPS.len()]) {
    if resolved[index] {
        return;
    }
    let members = GROUPS[index].members;
    let mut at = 0;
    while at < members.len() {
        let name = members[at].as_bytes();
        if name[0] == b'@' {
            let mut group = 0;
            while !super::is_same(GROUPS[group].name.as_bytes(), name) {
                group += 1;
            }
            assert!(!super::is_same(name, KNOWN.as_bytes()), "what is known depends on the version");
            resolve(group, calls, resolved);
            let others = calls[group];
            calls[index].mark_all(&others);
        } else {
            calls[index].mark(super::number_of(name));
        }
        at += 1;
    }
    resolved[index] = true;
}

/// The group of every call.
const KNOWN: &str = "@known";

fn known(version: u32) -> impl Iterator<Item = u32> {
    super::numbers().filter(move |number| *number <= versions::highest_known(version))
}

/// Every group's name and what its calls do, in alphabetic order.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    GROUPS.iter().map(|group| (group.name, group.about))
}

fn find(name: &str) -> Option<&'static Group> {
    GROUPS.iter().find(|group| group.name == name)
}

#[rustfmt::skip]
const GROUPS: &[Group] = &[
    Group {
        name: "@aio",
        about: "asynchronous input and output: the old interface and io_uring, whose operations no seccomp filter sees",
        members: &[
            "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_setup", "io_submit",
            "io_uring_enter", "io_uring_register", "io_uring_setup",
        ],
    },
    Group {
        name: "@basic-io",
        about: "move bytes between descriptors that are already open, copy and close descriptors",
        members: &[
            "close", "close_range", "copy_file_range", "dup", "dup2", "dup3", "lseek", "pread64", "preadv",
            "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readv", "sendfile", "splice", "tee", "vmsplice",
            "write", "writev",
        ],
    },
    Group {
        name: "@chown",
        about: "give files to another owner",
        members: &["chown", "fchown", "fchownat", "lchown"],
    },
    Group {
        name: "@clock",
        about: "set or slew the system's clocks; reading them is in @default",
        members: &["adjtimex", "clock_adjtime", "clock_settime", "settimeofday"],
    },
    Group {
        name: "@cpu-emulation",
        about: "set up segments for old instruction modes",
        members: &["modify_ldt"],
    },
    Group {
        name: "@debug",
        about: "look into other processes or the machine: trace, read their memory and descriptors, count events",
        members: &[
            "kcmp", "listns", "lookup_dcookie", "perf_event_open", "pidfd_getfd", "process_madvise",
            "process_vm_readv", "process_vm_writev", "ptrace",
        ],
    },
    Group {
        name: "@default",
        about: "what every process needs to run, allocate, have threads, learn who and when it is, and end",
        members: &[
            "arch_prctl", "brk", "clock_getres", "clock_gettime", "clock_nanosleep", "execve", "exit", "exit_group",
            "futex", "futex_requeue", "futex_wait", "futex_waitv", "futex_wake", "get_robust_list", "getcpu",
            "getegid", "geteuid", "getgid", "getgroups", "getpgid", "getpgrp", "getpid", "getppid", "getrandom",
            "getresgid", "getresuid", "getrlimit", "getsid", "gettid", "gettimeofday", "getuid", "madvise",
            "map_shadow_stack", "membarrier", "mincore", "mmap", "mprotect", "mremap", "mseal", "munmap",
            "nanosleep", "pause", "restart_syscall", "rseq", "rt_sigreturn", "sched_getaffinity", "sched_yield",
            "set_robust_list", "set_tid_address", "sysinfo", "time", "uname",
            // The kernel itself puts these two into a process that someone with the right to do so is probing;
            // outside a probe they fail. A filter that denies them kills whatever is being probed.
            "uprobe", "uretprobe",
        ],
    },
    Group {
        name: "@file-system",
        about: "open, make, name, read about and change files and folders",
        members: &[
            "access", "cachestat", "chdir", "chmod", "creat", "faccessat", "faccessat2", "fadvise64", "fallocate",
            "fchdir", "fchmod", "fchmodat", "fchmodat2", "fcntl", "fgetxattr", "file_getattr", "file_setattr",
            "flistxattr", "flock", "fremovexattr", "fsetxattr", "fstat", "fstatfs", "ftruncate", "futimesat",
            "getcwd", "getdents", "getdents64", "getxattr", "getxattrat", "inotify_add_watch", "inotify_init",
            "inotify_init1", "inotify_rm_watch", "lgetxattr", "link", "linkat", "listmount", "listxattr",
            "listxattrat", "llistxattr", "lremovexattr", "lsetxattr", "lstat", "mkdir", "mkdirat", "mknod",
            "mknodat", "newfstatat", "open", "openat", "openat2", "readahead", "readlink", "readlinkat",
            "removexattr", "removexattrat", "rename", "renameat", "renameat2", "rmdir", "setxattr", "setxattrat",
            "stat", "statfs", "statmount", "statx", "symlink", "symlinkat", "truncate", "umask", "unlink",
            "unlinkat", "utime", "utimensat", "utimes",
        ],
    },
    Group {
        name: "@io-event",
        about: "wait for events on descriptors",
        members: &[
            "epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd",
            "eventfd2", "poll", "ppoll", "pselect6", "select",
        ],
    },
    Group {
        name: "@ipc",
        about: "pipes, message queues, semaphores, shared memory; @debug has what reads another's memory",
        members: &[
            "memfd_create", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink",
            "msgctl", "msgget", "msgrcv", "msgsnd", "pipe", "pipe2", "semctl", "semget", "semop", "semtimedop",
            "shmat", "shmctl", "shmdt", "shmget",
        ],
    },
    Group {
        name: "@keyring",
        about: "the kernel's key store; not in @system-service, whose programs hardly ever need it",
        members: &["add_key", "keyctl", "request_key"],
    },
    Group {
        name: KNOWN,
        about: "every call that the table knows",
        members: &[], // made from the table
    },
    Group {
        name: "@memlock",
        about: "keep memory from being swapped out",
        members: &["memfd_secret", "mlock", "mlock2", "mlockall", "munlock", "munlockall"],
    },
    Group {
        name: "@module",
        about: "load and unload kernel modules",
        members: &["create_module", "delete_module", "finit_module", "get_kernel_syms", "init_module", "query_module"],
    },
    Group {
        name: "@mount",
        about: "change what is mounted where, or the root",
        members: &[
            "chroot", "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount", "open_tree",
            "open_tree_attr", "pivot_root", "umount2",
        ],
    },
    Group {
        name: "@network-io",
        about: "sockets of every family; [[seccomp.rule]] on `socket` says which",
        members: &[
            "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recvfrom",
            "recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown", "socket",
            "socketpair",
        ],
    },
    Group {
        name: "@obsolete",
        about: "removed, never implemented on x86_64, or superseded long ago",
        members: &[
            "_sysctl", "afs_syscall", "create_module", "epoll_ctl_old", "epoll_wait_old", "get_kernel_syms",
            "get_thread_area", "getpmsg", "lookup_dcookie", "nfsservctl", "putpmsg", "query_module",
            "remap_file_pages", "security", "set_thread_area", "sysfs", "tuxcall", "uselib", "ustat", "vserver",
        ],
    },
    Group {
        name: "@pkey",
        about: "memory protection keys",
        members: &["pkey_alloc", "pkey_free", "pkey_mprotect"],
    },
    Group {
        name: "@privileged",
        about: "what needs a capability in every useful form, and doors out of the sandbox",
        members: &[
            "@chown", "@clock", "@module", "@mount", "@raw-io", "@reboot", "@setuid", "@swap",
            "acct", "bpf", "fanotify_init", "fanotify_mark", "migrate_pages", "move_pages",
            // A handle is of use to open_by_handle_at alone, which leads out of a mount namespace.
            "name_to_handle_at", "open_by_handle_at",
            "quotactl", "quotactl_fd", "setdomainname", "sethostname", "setns", "syslog",
            // A new user namespace gives every capability over whatever comes with it.
            "unshare",
            // Privileged where vm.unprivileged_userfaultfd is 0, the kernel's default.
            "userfaultfd",
            "vhangup",
        ],
    },
    Group {
        name: "@process",
        about: "make, signal, wait for and describe processes and their groups",
        members: &[
            "capget", "capset", "clone", "clone3", "execve", "execveat", "fork", "getpriority", "getrusage",
            "ioprio_get", "kill", "lsm_get_self_attr", "lsm_list_modules", "personality", "pidfd_open",
            "pidfd_send_signal", "prctl", "process_mrelease", "rt_sigqueueinfo", "rt_tgsigqueueinfo",
            "sched_get_priority_max", "sched_get_priority_min", "sched_getattr", "sched_getparam",
            "sched_getscheduler", "sched_rr_get_interval", "setpgid", "setsid", "tgkill", "times", "tkill", "vfork",
            "wait4", "waitid",
        ],
    },
    Group {
        name: "@raw-io",
        about: "reach the machine's input and output ports",
        members: &["ioperm", "iopl"],
    },
    Group {
        name: "@reboot",
        about: "end or replace the running kernel",
        members: &["kexec_file_load", "kexec_load", "reboot"],
    },
    Group {
        name: "@resources",
        about: "priorities, processors, limits and where memory lies",
        members: &[
            "get_mempolicy", "ioprio_set", "mbind", "migrate_pages", "move_pages", "prlimit64", "sched_setaffinity",
            "sched_setattr", "sched_setparam", "sched_setscheduler", "set_mempolicy", "set_mempolicy_home_node",
            "setpriority", "setrlimit",
        ],
    },
    Group {
        name: "@sandbox",
        about: "confine oneself further",
        members: &[
            "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "lsm_set_self_attr", "seccomp",
        ],
    },
    Group {
        name: "@setuid",
        about: "become another user or group",
        members: &[
            "setfsgid", "setfsuid", "setgid", "setgroups", "setregid", "setresgid", "setresuid", "setreuid",
            "setuid",
        ],
    },
    Group {
        name: "@signal",
        about: "handle, mask and await signals; sending them is in @process",
        members: &[
            "pause", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigreturn", "rt_sigsuspend",
            "rt_sigtimedwait", "sigaltstack", "signalfd", "signalfd4",
        ],
    },
    Group {
        name: "@swap",
        about: "add and remove swap areas",
        members: &["swapoff", "swapon"],
    },
    Group {
        name: "@sync",
        about: "write files and memory out to the disk",
        members: &["fdatasync", "fsync", "msync", "sync", "sync_file_range", "syncfs"],
    },
    Group {
        name: "@system-service",
        about: "a reasonable start for a service: without @keyring, @pkey and NUMA placement, unlike systemd's",
        members: &[
            "@aio", "@basic-io", "@chown", "@default", "@file-system", "@io-event", "@ipc", "@memlock",
            "@network-io", "@process", "@sandbox", "@setuid", "@signal", "@sync", "@timer",
            // Of @resources what a process does to itself; where memory lies (mbind and its kind) is left out.
            "get_mempolicy", "ioprio_set", "prlimit64", "sched_setaffinity", "sched_setattr", "sched_setparam",
            "sched_setscheduler", "setpriority", "setrlimit",
            // Requests to drivers. Landlock and the small /dev say which drivers there are to ask.
            "ioctl",
        ],
    },
    Group {
        name: "@timer",
        about: "alarms and timers",
        members: &[
            "alarm", "getitimer", "setitimer", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime",
            "timer_settime", "timerfd_create", "timerfd_gettime", "timerfd_settime", "times",
        ],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn set(name: &str) -> BTreeSet<&'static str> {
        members(name).expect("the group exists").into_iter().filter_map(crate::syscalls::name).collect()
    }

    /// What `base/default` allows.
    fn base_default() -> BTreeSet<&'static str> {
        let mut allowed = set("@system-service");
        for group in [
            "@clock",
            "@cpu-emulation",
            "@debug",
            "@module",
            "@mount",
            "@obsolete",
            "@privileged",
            "@raw-io",
            "@reboot",
            "@swap",
        ] {
            allowed = &allowed - &set(group);
        }
        allowed.remove("io_uring_setup");
        allowed
    }

    #[test]
    fn groups_are_resolved_by_the_compiler_as_they_are_by_name() {
        for (group, written) in GROUPS.iter().zip(&WRITTEN).filter(|(group, _)| group.name != KNOWN) {
            let mut calls = Calls::NONE;
            collect(group, 1, &mut calls).expect("every member is known");
            assert_eq!(calls, *written, "{}", group.name);
            assert!(calls.numbers().into_iter().all(|number| crate::syscalls::name(number).is_some()));
        }
    }

    #[test]
    fn every_member_resolves_and_groups_are_sorted() {
        for group in GROUPS {
            assert!(members(group.name).is_some_and(|calls| !calls.is_empty()), "{}", group.name);
            assert!(!group.about.is_empty());
        }
        assert!(GROUPS.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert_eq!(members("@system"), None);
    }

    #[test]
    fn every_call_has_a_place_beside_known() {
        let placed: BTreeSet<_> =
            GROUPS.iter().filter(|group| group.name != "@known").flat_map(|group| set(group.name)).collect();
        let missing: Vec<_> = crate::syscalls::names().filter(|name| !placed.contains(name)).collect();
        assert_eq!(missing, Vec::<&str>::new());
        assert_eq!(set("@known").len(), crate::syscalls::names().count());
    }

    #[test]
    fn the_default_policy_lets_a_libc_start_and_threads_run() {
        let allowed = base_default();
        for call in [
            "execve",
            "execveat",
            "brk",
            "mmap",
            "mprotect",
            "munmap",
            "arch_prctl",
            "set_tid_address",
            "set_robust_list",
            "rseq",
            "prlimit64",
            "getrandom",
            "openat",
            "newfstatat",
            "fstat",
            "pread64",
            "read",
            "close",
            "access",
            "ioctl",
            "write",
            "exit_group",
            "clone",
            "futex",
            "madvise",
            "sigaltstack",
            "rt_sigaction",
            "rt_sigprocmask",
            "sched_getaffinity",
            "membarrier",
            "clock_gettime",
            "clock_getres",
            "clock_nanosleep",
            "gettimeofday",
            "uname",
            "sysinfo",
            "getcwd",
            "prctl",
        ] {
            assert!(allowed.contains(call), "{call}");
        }
    }

    #[test]
    fn the_default_policy_lets_servers_serve() {
        let allowed = base_default();
        for call in [
            "socket",
            "bind",
            "listen",
            "accept4",
            "connect",
            "setsockopt",
            "getsockname",
            "sendmsg",
            "recvmsg",
            "epoll_create1",
            "epoll_ctl",
            "epoll_wait",
            "epoll_pwait2",
            "eventfd2",
            "sendfile",
            "writev",
            "io_setup",
            "io_submit",
            "io_getevents",
            "setpriority",
            "sched_setaffinity",
            "sched_setscheduler",
            "ioprio_set",
            "setrlimit",
            "socketpair",
            "pipe2",
            "wait4",
            "kill",
            "setsid",
            "umask",
            "mlockall",
            "fsync",
            "fdatasync",
            "timerfd_create",
            "signalfd4",
            "inotify_add_watch",
            "renameat2",
            "unlinkat",
            "fallocate",
            "memfd_create",
            "shmget",
            "seccomp",
            "landlock_restrict_self",
            "setitimer",
        ] {
            assert!(allowed.contains(call), "{call}");
        }
    }

    #[test]
    fn the_default_policy_denies_what_attacks_are_made_of() {
        let allowed = base_default();
        for call in [
            "acct",
            "add_key",
            "adjtimex",
            "bpf",
            "chown",
            "chroot",
            "clock_settime",
            "delete_module",
            "fanotify_init",
            "finit_module",
            "fsconfig",
            "fsmount",
            "fsopen",
            "init_module",
            "io_uring_setup",
            "ioperm",
            "iopl",
            "kcmp",
            "kexec_file_load",
            "kexec_load",
            "keyctl",
            "lookup_dcookie",
            "mbind",
            "modify_ldt",
            "mount",
            "mount_setattr",
            "move_mount",
            "move_pages",
            "name_to_handle_at",
            "nfsservctl",
            "open_by_handle_at",
            "open_tree",
            "open_tree_attr",
            "perf_event_open",
            "pidfd_getfd",
            "pivot_root",
            "process_vm_readv",
            "process_vm_writev",
            "ptrace",
            "quotactl",
            "quotactl_fd",
            "reboot",
            "request_key",
            "set_mempolicy",
            "setdomainname",
            "setgroups",
            "sethostname",
            "setns",
            "setresuid",
            "settimeofday",
            "setuid",
            "swapoff",
            "swapon",
            "sysfs",
            "syslog",
            "umount2",
            "unshare",
            "uselib",
            "userfaultfd",
            "vhangup",
        ] {
            assert!(!allowed.contains(call), "{call}");
        }
    }
}
