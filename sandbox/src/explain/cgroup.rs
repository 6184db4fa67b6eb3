//! What the programs on the cgroup allow, in words: devices, addresses, ports.

use crate::{
    diagnostic::Located,
    plan::Plan,
    policy::{
        CgroupLimits, Confinement, DevView, DeviceRule, Devices, Network, Policy, PortRule, Protocol, Rules,
    },
    sys::bpf::Hook,
};

/// What is granted where no program looks at devices.
pub(super) const ANY_DEVICE: &str = "whatever it has a node of";

fn enforces(plan: &Plan, hook: Hook) -> bool {
    plan.programs().any(|program| program.hook == hook)
}

/// `/dev/kvm (rw)`
fn device(rule: &Located<DeviceRule>) -> String {
    let access = rule.value.access;
    let letters: String = [(access.read, 'r'), (access.write, 'w'), (access.mknod, 'm')]
        .into_iter()
        .filter_map(|(granted, letter)| granted.then_some(letter))
        .collect();
    let number = |number: &Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    match &rule.value.devices {
        Devices::Node(path) => format!("{path} ({letters})"),
        Devices::Numbers(kind, major, minor) => {
            format!("{} {}:{} ({letters})", kind.word(), number(major), number(minor))
        }
        Devices::Driver(kind, name) => format!("{} devices of {name} ({letters})", kind.word()),
    }
}

pub(super) fn devices(rules: &Confinement, plan: &Plan) -> Vec<String> {
    let Some(list) = rules.cgroup.devices.as_ref().filter(|_| enforces(plan, Hook::Device)) else {
        return Vec::new();
    };
    let given = match rules.filesystem.dev.value {
        DevView::Minimal => "those of a minimal /dev, and no others, whatever node leads there",
        DevView::Host => "those that the host's /dev has; nodes of others cannot be made",
        DevView::None => "none",
    };
    let mut lines = vec![given.to_owned()];
    if !list.value.is_empty() {
        let added: Vec<String> = list.value.iter().map(device).collect();
        lines.push(format!("and: {}", added.join(", ")));
    }
    lines
}

fn networks(list: &[Located<Network>]) -> String {
    let names: Vec<String> = list.iter().map(|network| network.value.name().to_owned()).collect();
    names.join(", ")
}

fn port(rule: &Located<PortRule>) -> String {
    let PortRule { protocol, first, last } = rule.value;
    let ports = match (first, last) {
        (0, u16::MAX) => "any".to_owned(),
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    match protocol {
        Protocol::Tcp => format!("TCP {ports}"),
        Protocol::Udp => format!("UDP {ports}"),
        Protocol::Any => format!("{ports} of any protocol"),
    }
}

fn ports(list: &[Located<PortRule>]) -> String {
    let names: Vec<String> = list.iter().map(port).collect();
    if names.is_empty() { "no port".to_owned() } else { names.join(", ") }
}

pub(super) fn network(limits: &CgroupLimits, plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    if enforces(plan, Hook::Egress) {
        let denied = networks(&limits.ip_deny);
        lines.push(match (&limits.ip_allow, denied.as_str()) {
            (Some(list), _) if list.value.is_empty() => "packets to and from nobody".to_owned(),
            (Some(list), "") => format!("packets to and from {} alone", networks(&list.value)),
            (Some(list), _) => {
                let allowed = networks(&list.value);
                format!("packets to and from {allowed} alone; not {denied}, where that is narrower")
            }
            (None, _) => format!("no packets to or from {denied}"),
        });
    }
    for (hook, list, what) in [
        (Hook::Bind4, &limits.socket_bind, "sockets bind to"),
        (Hook::Connect4, &limits.socket_connect, "sockets connect and send to"),
    ] {
        if let Some(list) = list.as_ref().filter(|_| enforces(plan, hook)) {
            lines.push(format!("{what} {}", ports(&list.value)));
        }
    }
    lines
}

/// What is granted, a line each that another policy's can be compared with.
pub(super) fn grants(policy: &Policy, plan: &Plan) -> Vec<(&'static str, String)> {
    let limits = match policy.rules() {
        Rules::Confined(rules) => Some(&rules.cgroup),
        Rules::Unconfined(_) => None,
    };
    let mut grants = Vec::new();
    match limits.and_then(|limits| limits.devices.as_ref()).filter(|_| enforces(plan, Hook::Device)) {
        None => grants.push(("device", ANY_DEVICE.to_owned())),
        Some(list) => grants.extend(list.value.iter().map(|rule| ("device", device(rule)))),
    }
    match limits.filter(|_| enforces(plan, Hook::Egress)) {
        None => grants.push(("packets to and from", "anybody".to_owned())),
        Some(limits) => match &limits.ip_allow {
            Some(list) => grants.extend(
                list.value.iter().map(|network| ("packets to and from", network.value.name().to_owned())),
            ),
            None => {
                let others = format!("anybody but {}", networks(&limits.ip_deny));
                grants.push(("packets to and from", others));
            }
        },
    }
    for (hook, effect) in [(Hook::Bind4, "bind any socket"), (Hook::Connect4, "connect any socket")] {
        let list = limits.and_then(|limits| match hook {
            Hook::Bind4 => limits.socket_bind.as_ref(),
            _ => limits.socket_connect.as_ref(),
        });
        match list.filter(|_| enforces(plan, hook)) {
            None => grants.push((effect, "any port".to_owned())),
            Some(list) => grants.extend(list.value.iter().map(|rule| (effect, port(rule)))),
        }
    }
    grants
}
