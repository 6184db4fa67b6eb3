//! Every code that a diagnostic may have that tells what this machine lacks, and what it means. `docs/policy.md` lists
//! the same, beside those of [`crate::policy::codes`], of which a few are told here too.

use crate::policy;

/// Code and meaning, in alphabetic order.
#[rustfmt::skip]
pub const CODES: &[(&str, &str)] = &[
    ("action-opens", "an action would let through what another key closes"),
    ("beneath-hidden", "a path lies beneath one that is hidden"),
    ("control-socket", "a path is, or has in it, the socket of something that governs this host"),
    ("execve-needed", "the filter would not let the service itself be executed"),
    ("filter-too-long", "the filter has more instructions than the kernel takes"),
    ("io-uring-unseen", "io_uring would pass by what another key forbids"),
    ("loader-path", "a variable would have the loader look where the service may write"),
    ("missing-path", "a path is not on this host"),
    ("needs-no-new-privs", "`no_new_privs = false` without the capability that a filter takes then"),
    ("needs-root", "an ordinary user cannot do what a key asks for"),
    ("no-cgroup-bpf", "no program can be attached to cgroups here"),
    ("no-controller", "a cgroup controller, or a file of it, is not available here"),
    ("no-device", "a device is not on this host"),
    ("no-huge-pages", "this kernel has no huge pages of a size"),
    ("no-landlock", "this kernel's Landlock does not know a right"),
    ("no-landlock-rule", "none of the optional paths of [landlock] is on this host"),
    ("no-memory-node", "a memory node is not there"),
    ("no-mitigation", "this processor or kernel cannot disable speculation for one process"),
    ("no-mount-point", "there is nothing to mount a path on"),
    ("no-pressure", "this kernel does not account pressure, or lets nobody wait for it here"),
    ("no-processor", "a processor is not online"),
    ("no-time-offset", "this kernel cannot set the clocks of a time namespace"),
    ("no-user-namespace", "this kernel makes no user namespaces"),
    ("pressure-window", "this kernel takes other windows of pressure"),
    ("too-many-mounts", "more than 256 mounts"),
    ("unknown-account", "a user or a group is not on this host"),
    ("unmapped-id", "an id is not mapped in the service's user namespace"),
];

/// Whether a code is in this list or in the other.
pub(super) fn known(code: &str) -> bool {
    CODES.iter().chain(policy::codes::CODES).any(|(known, _)| *known == code)
}
