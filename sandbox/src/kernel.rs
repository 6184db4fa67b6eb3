//! What this kernel and host offer, as a value: probed once, printed by `motherctl doctor`, and given to `compile`,
//! which asks nothing else. So every kernel can be described in a test without booting it.

use std::{collections::BTreeSet, path::PathBuf};

/// The Landlock ABI: 0 where the kernel has none (Documentation/userspace-api/landlock.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LandlockAbi(pub u32);

/// What a machine offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// The Landlock ABI.
    pub landlock: LandlockAbi,
    /// `/proc/sys/kernel/cap_last_cap`: the highest capability number.
    pub last_capability: u8,
    /// Where the cgroup2 file system is mounted, if it is.
    pub cgroup_root: Option<PathBuf>,
    /// The cgroup below which services get theirs (an absolute path under `cgroup_root`).
    pub cgroup_base: Option<PathBuf>,
    /// The controllers that can be enabled for services there: `cgroup.controllers` of `cgroup_base`.
    pub controllers: BTreeSet<String>,
}
