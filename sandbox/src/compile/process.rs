//! `[process]` and `[rlimits]`: identity, limits, priorities. Capabilities have a file of their own.

use crate::{
    compile::{
        Builder,
        automatic::auto_id,
        c_string, scheduling,
        users::{Half, Ids},
    },
    diagnostic::{Diagnostic, Located},
    plan::{Op, Phase},
    policy::{Account, Confinement, Share},
};

/// The `PATH` of a policy that sets none.
pub(crate) const DEFAULT_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Who a service is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    /// Its user, as it sees it.
    pub(crate) uid: u32,
    /// Its group, as it sees it.
    pub(crate) gid: u32,
    /// Its user, as the host sees it.
    pub(crate) host_uid: u32,
    /// Its group, as the host sees it.
    pub(crate) host_gid: u32,
}

/// The steps of the section; answers who the service is.
pub(crate) fn compile(rules: &Confinement, ids: &Ids, builder: &mut Builder<'_>) -> Identity {
    let process = &rules.process;
    limits(rules, builder);
    let at = |place: &crate::diagnostic::Place| Some(place.clone());
    let umask = &process.umask;
    builder.step(Phase::Umask, Op::Umask(umask.value), format!("{:04o}", umask.value), at(&umask.at));
    let nice = &process.nice;
    match builder.kernel.ordinary_user {
        // What any process may begin with; less than that is asked for on purpose, and refused by the kernel.
        Some(user) if (0..user.lowest_nice).contains(&i32::from(nice.value)) => {
            builder
                .left_out("nice", format!("an ordinary user who is at {} cannot go below", user.lowest_nice));
        }
        _ => builder.step(Phase::Process, Op::Nice(nice.value), nice.value.to_string(), at(&nice.at)),
    }
    scheduling::compile(process, builder);
    let score = &process.oom_score_adj;
    let text = score.value.to_string();
    let bytes = text.clone().into_bytes().into_boxed_slice();
    builder.step(Phase::Process, Op::OomScoreAdj(bytes), text, at(&score.at));
    let directory = &process.working_directory;
    let path = directory.value.clone();
    builder.step(Phase::WorkingDirectory, Op::Chdir(c_string(&path)), path, at(&directory.at));
    if process.keyring.value == Share::Private {
        builder.step(Phase::Keyring, Op::NewKeyring, "", at(&process.keyring.at));
    }
    if process.no_new_privs.value {
        builder.step(Phase::NoNewPrivs, Op::NoNewPrivs, "", at(&process.no_new_privs.at));
    } else if !rules.capabilities.keep.iter().any(|kept| kept.value == caps::Capability::CAP_SYS_ADMIN) {
        builder.error(
            Diagnostic::error(
                "needs-no-new-privs",
                process.no_new_privs.at.clone(),
                "without no_new_privs the kernel takes a seccomp filter from CAP_SYS_ADMIN alone",
            )
            .help("leave it true, or keep CAP_SYS_ADMIN"),
        );
    }
    identity(rules, ids, builder)
}

/// The soft limit on open files that programs expect: a higher one breaks those that use select(2) or close every
/// number up to it. A launcher that needs more raises its own, and a service must not inherit that.
pub(crate) fn open_files(builder: &mut Builder<'_>) {
    let hard = builder.kernel.open_files;
    let op = Op::Rlimit { resource: libc::RLIMIT_NOFILE, soft: hard.min(1024), hard };
    builder.step(Phase::OpenFiles, op, "nofile", None);
}

fn limits(rules: &Confinement, builder: &mut Builder<'_>) {
    if !rules.rlimits.iter().any(|limit| limit.value.resource == libc::RLIMIT_NOFILE) {
        open_files(builder);
    }
    for limit in &rules.rlimits {
        // Without core dumps the limit on them is ours to set, below.
        if limit.value.resource == libc::RLIMIT_CORE && !rules.process.core_dumps.value {
            continue;
        }
        let [soft, hard] =
            [limit.value.soft, limit.value.hard].map(|value| value.unwrap_or(libc::RLIM_INFINITY));
        let phase =
            if limit.value.resource == libc::RLIMIT_NOFILE { Phase::OpenFiles } else { Phase::Process };
        let op = Op::Rlimit { resource: limit.value.resource, soft, hard };
        builder.step(phase, op, format!("{soft}:{hard}"), Some(limit.at.clone()));
    }
    if !rules.process.core_dumps.value {
        // One byte, not zero: with a pipe in core_pattern the kernel ignores a limit of 0 and honours 1
        // (fs/coredump.c), and a limit below a page writes no file either (core(5)).
        let op = Op::Rlimit { resource: libc::RLIMIT_CORE, soft: 1, hard: 1 };
        builder.step(Phase::Process, op, "no core dumps", Some(rules.process.core_dumps.at.clone()));
    }
}

fn identity(rules: &Confinement, ids: &Ids, builder: &mut Builder<'_>) -> Identity {
    let process = &rules.process;
    let (own, own_group) =
        (own(ids, Half::Users, &process.user, builder), own(ids, Half::Groups, &process.group, builder));
    let (uid, primary) = match &process.user.value {
        Account::Auto => (own, Some(own_group)),
        Account::Id(uid) => (*uid, builder.host.primary_group(*uid).unwrap_or(None)),
        Account::Name(name) => match builder.host.user(name) {
            Ok(Some((uid, gid))) => (uid, Some(gid)),
            answer => {
                unknown(builder, "user", "/etc/passwd", &process.user, name, answer.err());
                (own, None)
            }
        },
    };
    let gid = group(&process.group, own_group, primary, builder);
    let mut groups = Vec::new();
    for account in &process.supplementary_groups {
        let gid = group(account, own_group, primary, builder);
        // An ordinary user was told already that none can be joined.
        if builder.kernel.ordinary_user.is_none() {
            ids.outside(Half::Groups, gid, &account.at, builder);
        }
        groups.push(gid);
    }
    let host_uid = ids.outside(Half::Users, uid, &process.user.at, builder);
    let host_gid = ids.outside(Half::Groups, gid, &process.group.at, builder);
    let at = Some(process.supplementary_groups.first().map_or(&process.group.at, |first| &first.at).clone());
    let listed = groups.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    // An ordinary user's groups stay, since setgroups(2) could also take away one that a file's mode denies.
    if builder.kernel.ordinary_user.is_none() {
        builder.step(Phase::Identity, Op::SetGroups(groups.into_boxed_slice()), listed, at);
    }
    builder.step(Phase::Identity, Op::SetGid, "", Some(process.group.at.clone()));
    Identity { uid, gid, host_uid, host_gid }
}

/// What `auto` is: by the service's name, or in a user namespace of its own the same for all, since its range differs.
fn own(ids: &Ids, half: Half, account: &Located<Account>, builder: &mut Builder<'_>) -> u32 {
    if matches!(ids, Ids::Host) {
        return auto_id(&builder.subject.name);
    }
    let automatic = ids.automatic(half);
    if automatic.is_none() && account.value == Account::Auto {
        let message = "`auto` needs an id that is mapped and not 0";
        let help = "add a line to the map, or write user = \"root\" and group = \"root\"";
        builder.error(Diagnostic::error("unmapped-id", account.at.clone(), message).help(help));
    }
    automatic.unwrap_or(0)
}

fn group(wanted: &Located<Account>, own: u32, primary: Option<u32>, builder: &mut Builder<'_>) -> u32 {
    match &wanted.value {
        // The user's own group where passwd(5) names one; with an automatic user that is the automatic group.
        Account::Auto => primary.unwrap_or(own),
        Account::Id(gid) => *gid,
        Account::Name(name) => match builder.host.group(name) {
            Ok(Some(gid)) => gid,
            answer => {
                unknown(builder, "group", "/etc/group", wanted, name, answer.err());
                own
            }
        },
    }
}

fn unknown(
    builder: &mut Builder<'_>,
    what: &str,
    file: &str,
    account: &Located<Account>,
    name: &str,
    error: Option<std::io::Error>,
) {
    let why = error.map_or_else(|| format!("not in {file}"), |error| format!("{file}: {error}"));
    builder.error(
        Diagnostic::error(
            "unknown-account",
            account.at.clone(),
            format!("no {what} is named `{name}` on this host"),
        )
        .label(why)
        .help(format!("make the {what}, give a number, or use \"auto\" for one of the service's own")),
    );
}
