//! `[landlock]`: the ruleset that the parent makes, and the path rules that the child adds.
//!
//! A Landlock rule belongs to an inode, and half of the inodes that a service sees (its own /tmp, /proc, /dev) do not
//! exist before its mounts do. So the parent makes the ruleset, with the rights it handles and its port rules, by the
//! landlock crate under a hard requirement; the child adds the path rules once the mounts stand.

use std::os::fd::OwnedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError,
};

use crate::{
    compile::{
        Builder, c_string, missing_path,
        mounts::{Seen, View},
    },
    diagnostic::{Diagnostic, Located},
    plan::{LandlockPlan, Op, Phase},
    policy::{self, LandlockFeature, OptionalPath, Ports},
};

/// The newest ABI whose rights this version gives a meaning to.
const NEWEST: u32 = 7;
/// `bind_tcp` and `connect_tcp`.
const NET_SINCE: u32 = 4;
/// `scope`.
const SCOPE_SINCE: u32 = 6;

/// The plan of the ruleset, or `None` where the kernel has no Landlock and the policy calls all of it optional.
pub(crate) fn compile(
    wanted: &policy::Landlock,
    view: &View,
    builder: &mut Builder<'_>,
) -> Option<LandlockPlan> {
    let number = builder.kernel.landlock.0.min(NEWEST);
    if number == 0 {
        lacking(wanted, LandlockFeature::Filesystem, "this kernel has no Landlock", builder);
        return None;
    }
    let abi = abi(number);
    path_rules(wanted, abi, view, builder);
    let (bind_tcp, connect_tcp) = ports(wanted, number, builder);
    let scope = scope(wanted, number, builder);
    builder.step(Phase::Landlock, Op::LandlockRestrict, "", Some(wanted.at.clone()));
    Some(LandlockPlan { abi, bind_tcp, connect_tcp, scope })
}

fn abi(number: u32) -> ABI {
    ABI::from(i32::try_from(number).unwrap_or(0))
}

/// An error, or a line in what was left out.
fn lacking(wanted: &policy::Landlock, feature: LandlockFeature, why: &str, builder: &mut Builder<'_>) {
    let name = match feature {
        LandlockFeature::Net => "net",
        LandlockFeature::Scope => "scope",
        LandlockFeature::Filesystem => "filesystem",
    };
    if wanted.optional.contains(&feature) {
        builder.left_out(format!("landlock {name}"), why);
    } else {
        builder.error(
            Diagnostic::error("no-landlock", wanted.at.clone(), format!("landlock {name}: {why}")).help(
                format!("run a newer kernel, or write optional = [\"{name}\"] in [landlock] to go without"),
            ),
        );
    }
}

fn ports(
    wanted: &policy::Landlock,
    number: u32,
    builder: &mut Builder<'_>,
) -> (Option<Vec<u16>>, Option<Vec<u16>>) {
    let only = |ports: &Ports| match ports {
        Ports::Any(_) => None,
        Ports::Only(ports) => Some(ports.iter().map(|port| port.value).collect()),
    };
    let rules = (only(&wanted.bind_tcp), only(&wanted.connect_tcp));
    if rules == (None, None) || number >= NET_SINCE {
        return rules;
    }
    let why = format!("TCP rules need Landlock ABI {NET_SINCE}, this kernel has {number}");
    lacking(wanted, LandlockFeature::Net, &why, builder);
    (None, None)
}

fn scope(wanted: &policy::Landlock, number: u32, builder: &mut Builder<'_>) -> BitFlags<landlock::Scope> {
    if wanted.scope.is_empty() {
        return BitFlags::EMPTY;
    }
    if number < SCOPE_SINCE {
        let why = format!("scopes need Landlock ABI {SCOPE_SINCE}, this kernel has {number}");
        lacking(wanted, LandlockFeature::Scope, &why, builder);
        return BitFlags::EMPTY;
    }
    wanted.scope.iter().fold(BitFlags::EMPTY, |scopes, scope| {
        scopes
            | match scope.value {
                policy::Scope::AbstractUnixSocket => landlock::Scope::AbstractUnixSocket,
                policy::Scope::Signal => landlock::Scope::Signal,
            }
    })
}

/// One step a path, with the rights of every list that names it.
fn path_rules(wanted: &policy::Landlock, abi: ABI, view: &View, builder: &mut Builder<'_>) {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    // The kernel opens a program for reading too, and answers EACCES to execve without that right.
    let execute = AccessFs::Execute | AccessFs::ReadFile;
    // A cache that cannot be read back is of no use, and one's own temporary files are not either.
    let write = AccessFs::from_write(abi) | read;
    let lists = [(&wanted.read, read), (&wanted.execute, execute), (&wanted.write, write)];
    let mut rules: Vec<(&Located<OptionalPath>, BitFlags<AccessFs>)> = Vec::new();
    for (paths, access) in lists {
        for path in paths {
            match rules.iter_mut().find(|(known, _)| known.value == path.value) {
                Some((_, rights)) => *rights |= access,
                None => rules.push((path, access)),
            }
        }
    }
    let (named, mut made) = (rules.len(), 0);
    for (path, access) in rules {
        let name = &path.value.path;
        let found = match view.look(name) {
            Seen::Fresh => Ok(()),
            Seen::Host(on_host) => builder.host.kind(&on_host).map(drop),
            Seen::Nothing => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
        };
        match found {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && path.value.optional => continue,
            Err(error) => {
                builder.error(missing_path(path, &error));
                continue;
            }
        }
        let op = Op::LandlockPath {
            path: c_string(name),
            directory: access.bits(),
            file: (access & AccessFs::from_file(abi)).bits(),
            optional: path.value.optional,
        };
        builder.step(Phase::LandlockRules, op, name, Some(path.at.clone()));
        made += 1;
    }
    // Lists that came to nothing are a mistake, unlike lists that are empty.
    if made == 0 && named > 0 && builder.diagnostics.is_empty() {
        let message = "no path of [landlock] is on this host, so nothing could be read or executed";
        let help = "name a path that is there, or take `optional` from one that has to be";
        builder.error(Diagnostic::error("no-landlock-rule", wanted.at.clone(), message).help(help));
    }
}

/// Makes a ruleset: rights handled, ports allowed, no path yet. Every launch makes its own, because the child adds to it.
///
/// # Errors
/// What the landlock crate says; nothing is left out silently (CompatLevel::HardRequirement).
pub(crate) fn ruleset(plan: &LandlockPlan) -> Result<OwnedFd, RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(plan.abi))?;
    if plan.bind_tcp.is_some() {
        ruleset = ruleset.handle_access(AccessNet::BindTcp)?;
    }
    if plan.connect_tcp.is_some() {
        ruleset = ruleset.handle_access(AccessNet::ConnectTcp)?;
    }
    if !plan.scope.is_empty() {
        ruleset = ruleset.scope(plan.scope)?;
    }
    let mut created = ruleset.create()?;
    for (ports, access) in [(&plan.bind_tcp, AccessNet::BindTcp), (&plan.connect_tcp, AccessNet::ConnectTcp)]
    {
        for port in ports.iter().flatten() {
            created = created.add_rule(NetPort::new(*port, access))?;
        }
    }
    Ok(Option::<OwnedFd>::from(created).expect("a hard requirement that is met yields a ruleset"))
}

#[cfg(test)]
mod abis;
