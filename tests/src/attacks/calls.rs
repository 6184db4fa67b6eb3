//! Attacks by system calls: around the filter, and through it.

use std::os::fd::AsFd;

use anyhow::{Result, ensure};
use nix::errno::Errno::{self, EACCES, EIO, ENOSYS, EPERM};
use nix::pty::openpty;

use super::lab::Lab;
use super::{Verdict, attacks};
use crate::probe::Outcome;

attacks! {
    tiocsti_by_64_bit_request_cve_2019_10063 [11]
        "a session of its own without a terminal; requests are compared as 32 bits";
    x32_numbers_of_denied_calls [12]
        "numbers from the x32 bit on are unknown to the filter";
    i386_gate [13]
        "the filter's first instruction kills another architecture";
    clone3_flags_unseen_by_the_filter [14]
        "clone3 is ENOSYS while a kind of namespace is barred, so that libraries fall back on clone";
    unknown_calls_are_not_denied_but_missing [15]
        "ENOSYS above the table and in its gaps";
    io_uring_around_the_filter [16]
        "io_uring is off unless named; Landlock sees what it opens";
    high_half_of_an_int_argument [18]
        "arguments are compared as the 32 bits that the kernel takes";
    calls_that_only_attackers_make [21]
        "the filter's list of what is allowed";
    user_namespace_as_a_way_to_new_code [22]
        "clone, unshare and setns by their flags";
    clock_set_with_cap_sys_time [50]
        "the filter, whatever capabilities are kept";
}

const NONE: &[Errno] = &[EPERM];

fn tiocsti_by_64_bit_request_cve_2019_10063(lab: &Lab) -> Result<Verdict> {
    let terminal = openpty(None, None)?;
    let attempt = |sections: &str, width: u32| -> Result<Outcome> {
        let words = ["type-ahead", &width.to_string()].map(str::to_owned);
        let words = [words[0].as_str(), words[1].as_str()];
        lab.start_in(sections, &words, None, Some(terminal.slave.as_fd()))?.end()?.outcome()
    };
    for width in [32, 64] {
        // Newer kernels say EIO to whoever lacks CAP_SYS_ADMIN, older ones EPERM to whose terminal it is not.
        let plain = attempt("", width)?;
        ensure!([EPERM, EIO].map(Outcome::Denied).contains(&plain), "{width} bits: {plain}");
        // With the capability the terminal is open; then the filter has to say no.
        let admin = "[process]\nuser = \"root\"\n[capabilities]\nkeep = [\"CAP_SYS_ADMIN\"]\nambient = [\"CAP_SYS_ADMIN\"]\n";
        let listed = format!("{admin}[seccomp]\nioctl = [\"TCGETS\", \"TIOCGWINSZ\"]\n");
        let listed = attempt(&listed, width)?;
        ensure!(listed == Outcome::Denied(EPERM), "{width} bits, filtered: {listed}");
        let control = attempt(admin, width)?;
        ensure!(
            control == Outcome::Allowed,
            "control: with CAP_SYS_ADMIN and no list, {width} bits: {control}"
        );
    }
    Ok(Verdict::Resisted)
}

fn x32_numbers_of_denied_calls(lab: &Lab) -> Result<Verdict> {
    for name in ["mount", "bpf", "ptrace", "add_key", "kexec_load", "getpid"] {
        let number = i64::from(sandbox::syscalls::number(name).unwrap_or(0)) | 0x4000_0000;
        let confined = lab.outcome("", &format!("number {number}"))?;
        ensure!(confined == Outcome::Denied(ENOSYS), "{name} as an x32 call: {confined}");
    }
    // Kernels without CONFIG_X86_X32_ABI say the same; whether it is the filter that spoke shows where it speaks
    // otherwise. Its program is proved over every number in sandbox/src/compile/seccomp.rs.
    let control = lab.outcome("", "number 39")?;
    ensure!(control == Outcome::Allowed, "control: getpid by its own number: {control}");
    Ok(Verdict::Resisted)
}

fn i386_gate(lab: &Lab) -> Result<Verdict> {
    if lab.control("call-i386 getpid")? != Outcome::Allowed {
        return Ok(Verdict::NotHere("this kernel has no i386 gate".to_owned()));
    }
    let confined = lab.outcome("", "call-i386 getpid")?;
    ensure!(confined == Outcome::Killed(libc::SIGSYS), "{confined}");
    Ok(Verdict::Resisted)
}

fn clone3_flags_unseen_by_the_filter(lab: &Lab) -> Result<Verdict> {
    let kinds =
        [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWPID, libc::CLONE_NEWNET, libc::CLONE_NEWUTS];
    for kind in kinds {
        let (old, new) = (format!("clone {kind}"), format!("clone3 {kind}"));
        lab.resists("", &[(&new, &[ENOSYS]), (&old, NONE)])?;
    }
    for everyday in ["thread", "clone 0", "execute /bin/true"] {
        let answer = lab.outcome("", everyday)?;
        ensure!(answer == Outcome::Allowed, "control: {everyday}: {answer}");
    }
    Ok(Verdict::Resisted)
}

fn unknown_calls_are_not_denied_but_missing(lab: &Lab) -> Result<Verdict> {
    for sections in ["", "[seccomp]\ndefault = \"kill-process\"\n"] {
        for number in [sandbox::syscalls::highest() + 1, 400, 999, 100_000, 0x3fff_ffff] {
            let answer = lab.outcome(sections, &format!("number {number}"))?;
            ensure!(answer == Outcome::Denied(ENOSYS), "{number} under {sections:?}: {answer}");
        }
    }
    let denied = lab.outcome("", "call add_key")?;
    ensure!(denied == Outcome::Denied(EPERM), "control: a call that is known and denied: {denied}");
    let killed = lab.outcome("[seccomp]\ndefault = \"kill-process\"\n", "call add_key")?;
    ensure!(killed == Outcome::Killed(libc::SIGSYS), "control: the same under kill-process: {killed}");
    Ok(Verdict::Resisted)
}

fn io_uring_around_the_filter(lab: &Lab) -> Result<Verdict> {
    let secret = lab.file("secret", "text")?;
    let act = format!("open-by-io_uring {secret}");
    let control = lab.control(&act)?;
    if [ENOSYS, EPERM].map(Outcome::Denied).contains(&control) {
        return Ok(Verdict::NotHere("this kernel has no io_uring".to_owned()));
    }
    ensure!(control == Outcome::Allowed, "control: {control}");
    let denied = lab.outcome("", &act)?;
    ensure!(denied == Outcome::Denied(ENOSYS), "by default: {denied}");
    let open = "[process]\nuser = \"root\"\nrestrict_suid = false\n[seccomp]\nio_uring = true\n\
        allow = { add = [\"@aio\"] }\ndeny = { remove = [\"io_uring_setup\"] }\nrule = { remove = [\"socket\"] }\n";
    let unseen = lab.outcome(open, &act)?;
    ensure!(unseen == Outcome::Denied(EACCES), "Landlock, where io_uring is granted: {unseen}");
    let granted = lab.outcome(&format!("{open}[landlock]\nread = {{ add = [\"{secret}\"] }}\n"), &act)?;
    ensure!(granted == Outcome::Allowed, "control: where Landlock grants it: {granted}");
    // What only the filter forbids is refused beside it.
    let sockets = open.replace("rule = { remove = [\"socket\"] }\n", "");
    let refused = lab.plan(&sockets).map(drop).map_err(|error| format!("{error:#}"));
    ensure!(refused.as_ref().is_err_and(|told| told.contains("io-uring-unseen")), "{refused:?}");
    Ok(Verdict::Resisted)
}

fn high_half_of_an_int_argument(lab: &Lab) -> Result<Verdict> {
    let (netlink, unix) = (libc::AF_NETLINK, libc::AF_UNIX);
    lab.resists("", &[(&format!("socket-wide {netlink}"), NONE)])?;
    let allowed = lab.outcome("", &format!("socket-wide {unix}"))?;
    ensure!(allowed == Outcome::Allowed, "control: what is allowed is so with a high half too: {allowed}");
    Ok(Verdict::Resisted)
}

/// Calls without which every service does, and which are steps of known attacks.
pub(super) const HOSTILE: [&str; 62] = [
    "acct",
    "add_key",
    "adjtimex",
    "bpf",
    "chroot",
    "clock_adjtime",
    "clock_settime",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "init_module",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mbind",
    "migrate_pages",
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
    "process_madvise",
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
];

fn calls_that_only_attackers_make(lab: &Lab) -> Result<Verdict> {
    // As root, so that no refusal is one of the kernel's for want of being root.
    let acts: Vec<String> = HOSTILE.iter().map(|name| format!("call {name}")).collect();
    let confined = lab.each("[process]\nuser = \"root\"\n", acts.iter().map(String::as_str))?;
    let free = lab.each_unconfined(acts.iter().map(String::as_str))?;
    let mut reached = 0;
    for ((name, confined), free) in HOSTILE.iter().zip(confined).zip(free) {
        ensure!(confined == Outcome::Denied(EPERM), "{name}: {confined}");
        match free {
            Outcome::Allowed => reached += 1,
            // Calls that came later than this kernel, or went earlier, or that it was built without.
            Outcome::Denied(ENOSYS | EPERM) => {}
            other @ (Outcome::Denied(_) | Outcome::Killed(_)) => {
                anyhow::bail!("control: {name}, unconfined: {other}")
            }
        }
    }
    ensure!(reached >= 48, "control: only {reached} of {} reach this kernel", HOSTILE.len());
    Ok(Verdict::Resisted)
}

fn user_namespace_as_a_way_to_new_code(lab: &Lab) -> Result<Verdict> {
    let clone = format!("clone {}", libc::CLONE_NEWUSER);
    let acts: &[(&str, &[Errno])] =
        &[(&clone, NONE), ("unshare net", NONE), ("unshare mount", NONE), ("unshare user", NONE)];
    lab.resists("", acts)?;
    // A service in a user namespace of its own makes none beneath it either.
    lab.resists("[namespaces]\nuser = \"auto\"\n", acts)?;
    // With all capabilities it is still the filter that answers.
    lab.resists("[process]\nuser = \"root\"\n[capabilities]\nkeep = [\"CAP_SYS_ADMIN\"]\nambient = [\"CAP_SYS_ADMIN\"]\n", acts)
}

fn clock_set_with_cap_sys_time(lab: &Lab) -> Result<Verdict> {
    let sections = "[process]\nuser = \"root\"\n[capabilities]\nkeep = [\"CAP_SYS_TIME\"]\nambient = [\"CAP_SYS_TIME\"]\n";
    let verdict = lab.resists(
        sections,
        &[
            ("set-clock", NONE),
            ("call clock_settime", NONE),
            ("call settimeofday", NONE),
            ("call clock_adjtime", NONE),
        ],
    )?;
    let granted = format!(
        "{sections}[seccomp]\nallow = {{ add = [\"@clock\"] }}\ndeny = {{ remove = [\"@clock\", \"@privileged\"] }}\n"
    );
    let granted = lab.outcome(&granted, "set-clock")?;
    ensure!(granted == Outcome::Allowed, "control: where the policy grants it: {granted}");
    Ok(verdict)
}
