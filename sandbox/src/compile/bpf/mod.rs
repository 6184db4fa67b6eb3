//! The parts of `[cgroup]` that programs on the cgroup enforce: devices, addresses, ports. From the policy to
//! instructions of BPF (Documentation/bpf/standardization/instruction-set.rst), as values.
//!
//! The programs have no maps and no loops: what they compare with is in their instructions, so that a test runs in an
//! interpreter exactly what the kernel will run, and nothing has to be kept but the attachment itself.

pub(crate) mod addresses;
pub(crate) mod ask;
mod assembler;
mod devices;
mod interpreter;
mod numbers;
mod ports;

use crate::{
    compile::Builder,
    diagnostic::{Diagnostic, Place},
    plan::CgroupProgram,
    policy::{CgroupLimits, Confinement},
    sys::bpf::Hook,
};

/// What `cgroup.optional` calls these.
pub(crate) const OPTIONAL: &str = "bpf";

/// The programs of a policy, in the order of [`Hook::ALL`]; `None` where none can be attached on this machine.
pub(crate) fn compile(rules: &Confinement, builder: &mut Builder<'_>) -> Option<Vec<CgroupProgram>> {
    let cgroup = &rules.cgroup;
    let supported = builder.kernel.cgroup_bpf == Some(true);
    for (key, at) in keys(cgroup) {
        refuse_or_leave_out(supported, key, at, cgroup, builder);
    }
    // What is not there is an error whatever this kernel can do with it.
    let grants =
        cgroup.devices.as_ref().map(|list| devices::allowed(list, rules.filesystem.dev.value, builder));
    if !supported {
        return None;
    }
    let mut programs = Vec::new();
    let mut push = |hooks: &[Hook], code: Vec<_>, key: &'static str, at: &Place| {
        let code: std::sync::Arc<[_]> = code.into();
        programs.extend(hooks.iter().map(|hook| CgroupProgram::new(*hook, code.clone(), key, at.clone())));
    };
    if let (Some(list), Some(grants)) = (&cgroup.devices, grants) {
        push(&[Hook::Device], numbers::program(&grants), "devices", &list.at);
    }
    if let Some((key, at)) = address_key(cgroup) {
        let table = addresses::Table::of(cgroup);
        push(&[Hook::Ingress], table.program(addresses::Direction::In), key, at);
        push(&[Hook::Egress], table.program(addresses::Direction::Out), key, at);
    }
    if let Some(list) = &cgroup.socket_bind {
        push(&[Hook::Bind4, Hook::Bind6], ports::program(&list.value), "socket_bind", &list.at);
    }
    if let Some(list) = &cgroup.socket_connect {
        let hooks = [Hook::Connect4, Hook::Connect6, Hook::Send4, Hook::Send6];
        push(&hooks, ports::program(&list.value), "socket_connect", &list.at);
    }
    Some(programs)
}

/// The keys that ask for a program, and where they stand.
fn keys(cgroup: &CgroupLimits) -> Vec<(&'static str, &Place)> {
    let devices = cgroup.devices.as_ref().map(|list| ("devices", &list.at));
    let bind = cgroup.socket_bind.as_ref().map(|list| ("socket_bind", &list.at));
    let connect = cgroup.socket_connect.as_ref().map(|list| ("socket_connect", &list.at));
    [devices, address_key(cgroup), bind, connect].into_iter().flatten().collect()
}

/// The key that asks for a look at addresses: an empty `ip_deny` denies nothing.
fn address_key(cgroup: &CgroupLimits) -> Option<(&'static str, &Place)> {
    let allow = cgroup.ip_allow.as_ref().map(|list| ("ip_allow", &list.at));
    allow.or_else(|| cgroup.ip_deny.first().map(|network| ("ip_deny", &network.at)))
}

fn refuse_or_leave_out(
    supported: bool,
    key: &str,
    at: &Place,
    cgroup: &CgroupLimits,
    builder: &mut Builder<'_>,
) {
    if supported {
        return;
    }
    let why = match (&builder.kernel.cgroup_root, builder.kernel.cgroup_bpf) {
        _ if builder.kernel.ordinary_user.is_some() => "an ordinary user cannot attach programs to cgroups",
        (None, _) => "no cgroup2 tree is mounted that a program could be attached to",
        (Some(_), Some(_)) => "this kernel attaches no programs to cgroups",
        (Some(_), None) => "this process may not attach programs to cgroups",
    };
    if cgroup.optional.contains(OPTIONAL) {
        builder.left_out(format!("cgroup {key}"), why);
        return;
    }
    builder.error(
        Diagnostic::error("no-cgroup-bpf", at.clone(), why)
            .label(format!("{key} cannot be enforced here"))
            .help(format!("run as root on a kernel with CONFIG_CGROUP_BPF, or write optional = [\"{OPTIONAL}\"] in [cgroup] to go without")),
    );
}

#[cfg(test)]
mod tests;
