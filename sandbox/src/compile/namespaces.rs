//! `[namespaces]`: which are new, and what is set in them.

use crate::{
    compile::{Builder, c_string, users::Ids},
    diagnostic::{Diagnostic, Located},
    kernel::Version,
    plan::{Joined, Op, Phase, UserNamespacePlan},
    policy::{Confinement, Namespaces, Net, Share, UserNamespace},
};

/// The first kernel in which execve enters the time namespace of a process that shared its parent's memory (commit
/// 2b5f9dad32ed). Before it such a process is in it from the start, and offsets can be set before that alone.
const OFFSETS_SINCE: Version = Version(6, 2);

/// Which namespaces are new, and who makes them.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// CLONE_NEW* of clone3(2): owned by the host's user namespace.
    pub(crate) new: u64,
    /// The service's user namespace and what it owns: made by the parent, joined by the child.
    pub(crate) owner: Option<UserNamespacePlan>,
    /// The service whose network it joins.
    pub(crate) network_of: Option<Located<String>>,
}

/// The steps of the section.
pub(crate) fn compile(rules: &Confinement, ids: &Ids, builder: &mut Builder<'_>) -> Wanted {
    let wanted = &rules.namespaces;
    names(wanted, builder);
    time_offsets(wanted, builder);
    let flag =
        |share: Share, flag: i32| if share == Share::Private { flag.cast_unsigned().into() } else { 0 };
    if wanted.cgroup.value == Share::Private {
        let at = wanted.cgroup.at.clone();
        let op = Op::Unshare(libc::CLONE_NEWCGROUP);
        builder.step(Phase::CgroupNamespace, op, "cgroup namespace", Some(at));
    }
    let mut network_of = None;
    let net = match &wanted.net.value {
        Net::Private => {
            builder.step(Phase::Network, Op::LoopbackUp, "lo", Some(wanted.net.at.clone()));
            libc::CLONE_NEWNET
        }
        Net::None => libc::CLONE_NEWNET,
        Net::Host => 0,
        Net::Service(service) => {
            // Into it before the service gives up what it takes to enter: the capabilities over whoever owns it.
            let object = format!("the network of {service}");
            builder.step(Phase::OwnNamespaces, Op::JoinNetwork, object, Some(wanted.net.at.clone()));
            network_of = Some(Located::new(service.clone(), wanted.net.at.clone()));
            0
        }
    };
    // What a capability of the service may be used on belongs to its user namespace. The mounts do not, or the service
    // could take them away; nor do pid, cgroup and time, for which no capability is needed.
    let own = flag(wanted.ipc.value, libc::CLONE_NEWIPC)
        | flag(wanted.uts.value, libc::CLONE_NEWUTS)
        | u64::from(net.cast_unsigned());
    let hosts = flag(wanted.mount.value, libc::CLONE_NEWNS)
        | flag(wanted.pid.value, libc::CLONE_NEWPID)
        | flag(wanted.time.value, libc::CLONE_NEWTIME);
    let Ids::Own(map) = ids else { return Wanted { new: hosts | own, owner: None, network_of } };
    for joined in Joined::ALL {
        let flag = u64::from(joined.flag().cast_unsigned());
        let phase = match joined {
            Joined::User => Phase::UserNamespace,
            Joined::Net | Joined::Ipc | Joined::Uts if own & flag != 0 => Phase::OwnNamespaces,
            Joined::Net | Joined::Ipc | Joined::Uts => continue,
        };
        builder.step(phase, Op::Join(joined), joined.name(), Some(map.at.clone()));
    }
    let automatic =
        (wanted.user.value == UserNamespace::Auto).then(|| map.value.uid.first().copied()).flatten();
    let owner = Some(UserNamespacePlan { automatic, ..UserNamespacePlan::new(map, own) });
    Wanted { new: hosts, owner, network_of }
}

fn names(wanted: &Namespaces, builder: &mut Builder<'_>) {
    if let Some(name) = &wanted.hostname {
        let op = Op::HostName(c_string(&name.value));
        builder.step(Phase::Network, op, &name.value, Some(name.at.clone()));
    }
    if let Some(name) = &wanted.domainname {
        let op = Op::DomainName(c_string(&name.value));
        builder.step(Phase::Network, op, &name.value, Some(name.at.clone()));
    }
}

/// One write for both clocks. It comes while the host's /proc is still there: the offsets are those of
/// `time_ns_for_children`, which the child enters by execve.
fn time_offsets(wanted: &Namespaces, builder: &mut Builder<'_>) {
    let offsets = [("monotonic", &wanted.time_offset_monotonic), ("boottime", &wanted.time_offset_boottime)];
    let written: Vec<_> =
        offsets.into_iter().filter_map(|(clock, offset)| Some((clock, offset.as_ref()?))).collect();
    let Some((_, first)) = written.first() else { return };
    if builder.kernel.version() < OFFSETS_SINCE {
        let message = format!("time offsets need Linux 6.2, this is {}", builder.kernel.release);
        builder.error(
            Diagnostic::error("no-time-offset", first.at.clone(), message)
                .help("run a newer kernel, or take the offsets out"),
        );
        return;
    }
    let line = |clock: &str, nanoseconds: i64| {
        // The kernel takes nanoseconds from 0 to 999,999,999 alone, so a past offset has rounded-down seconds.
        let (seconds, rest) = (nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000));
        format!("{clock} {seconds} {rest}\n")
    };
    let text: String = written.iter().map(|(clock, offset)| line(clock, offset.value)).collect();
    let object = text.trim_end().replace('\n', ", ");
    builder.step(Phase::Process, Op::TimeOffsets(text.into_bytes().into()), object, Some(first.at.clone()));
}
