//! `devices`: what may be opened and made (BPF_PROG_TYPE_CGROUP_DEVICE).

use crate::{
    compile::{Builder, mounts::NODES},
    diagnostic::{Diagnostic, Located},
    policy::{DevView, DeviceAccess, DeviceKind, DeviceRule, Devices},
};

/// Devices by number, and what may be done with them; `None` is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) kind: Option<DeviceKind>,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) access: DeviceAccess,
}

pub(super) const ALL: DeviceAccess = DeviceAccess { read: true, write: true, mknod: true };
/// Making nodes takes more than seeing those of the host.
const OPEN: DeviceAccess = DeviceAccess { read: true, write: true, mknod: false };

/// BPF_DEVCG_DEV_* (linux/bpf.h)
pub(crate) const fn kind_number(kind: DeviceKind) -> u32 {
    match kind {
        DeviceKind::Block => 1,
        DeviceKind::Char => 2,
    }
}

/// BPF_DEVCG_ACC_* (linux/bpf.h)
pub(crate) fn access_bits(access: DeviceAccess) -> u32 {
    u32::from(access.mknod) | u32::from(access.read) << 1 | u32::from(access.write) << 2
}

/// What `filesystem.dev` gives, and what the list adds.
pub(super) fn allowed(
    list: &Located<Vec<Located<DeviceRule>>>,
    dev: DevView,
    builder: &mut Builder<'_>,
) -> Vec<Grant> {
    let char =
        |major, minor, access| Grant { kind: Some(DeviceKind::Char), major: Some(major), minor, access };
    let mut grants = match dev {
        // The nodes of the private /dev are made by the launch itself, in this cgroup. Its pts is a new instance: ptmx is
        // 5:2, and what it opens is of the majors 136 to 143 (Documentation/admin-guide/devices.txt).
        DevView::Minimal => {
            let nodes = NODES.iter().map(|(_, major, minor)| char(*major, Some(*minor), ALL));
            let terminals = (136..=143).map(|major| char(major, None, ALL));
            nodes.chain([char(5, Some(2), ALL)]).chain(terminals).collect()
        }
        DevView::Host => vec![Grant { kind: None, major: None, minor: None, access: OPEN }],
        DevView::None => Vec::new(),
    };
    for rule in &list.value {
        grants.extend(resolved(rule, builder));
    }
    grants
}

/// A rule in numbers of this machine; a device that is not there is an error unless it is optional.
fn resolved(rule: &Located<DeviceRule>, builder: &mut Builder<'_>) -> Vec<Grant> {
    let DeviceRule { devices, access, optional } = &rule.value;
    let grant = |kind, major, minor| Grant { kind: Some(kind), major, minor, access: *access };
    let why = match devices {
        Devices::Numbers(kind, major, minor) => return vec![grant(*kind, *major, *minor)],
        Devices::Node(path) => match builder.host.device(path) {
            Ok(Some((kind, major, minor))) => return vec![grant(kind, Some(major), Some(minor))],
            Ok(None) => format!("{path} is no device"),
            Err(error) if *optional && error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => format!("{path}: {error}"),
        },
        Devices::Driver(kind, name) => match builder.host.majors(*kind, name) {
            Ok(majors) if majors.is_empty() && *optional => return Vec::new(),
            Ok(majors) if majors.is_empty() => {
                format!("no driver of {} devices is named {name} in /proc/devices", kind.word())
            }
            Ok(majors) => return majors.into_iter().map(|major| grant(*kind, Some(major), None)).collect(),
            Err(error) => format!("/proc/devices: {error}"),
        },
    };
    builder.error(
        Diagnostic::error("no-device", rule.at.clone(), why)
            .help("load its driver first, or write optional = true beside it if it may be missing"),
    );
    Vec::new()
}
