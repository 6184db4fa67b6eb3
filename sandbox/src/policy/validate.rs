//! From a merged [`RawPolicy`] to a [`Policy`]: fills in the defaults and checks what values mean together.

use std::collections::BTreeSet;

use super::{
    Account, Action, ArgumentRule, CREDENTIALS_VARIABLE, Capabilities, CgroupLimits, Confinement, Credential,
    Denial, DevView, Filesystem, IndexRange, Landlock, Limit, NamespaceKind, Namespaces, Net, NumaPolicy,
    Ports, ProcView, Process, Rlimit, Root, Rules, Scheduler, Seccomp, Share, SocketRule, SysView,
    UserNamespace,
    addresses::{NETWORKS, PORTS, check_both_lists, check_length},
    devices::DEVICES,
    filter::{self, RawAction},
    listed::Listed,
    pressure,
    raw::{
        AnyOr, Calls, List, Named, RawCapabilities, RawCgroup, RawFilesystem, RawLandlock, RawNamespaces,
        RawPolicy, RawProcess, RawSeccomp, empty_set,
    },
    reader::Notes,
    scheduling::show_duration,
};
use crate::{
    diagnostic::{Diagnostic, FileId, Located, Place},
    syscalls::{self, groups, versions},
};

/// The rules that a merged policy stands for. What is wrong is noted; then the result is not to be used.
pub(super) fn validate(raw: RawPolicy, file: FileId, notes: &mut Notes) -> Rules {
    if let Some(unconfined) = raw.unconfined.as_ref().filter(|unconfined| unconfined.value) {
        refuse_rules_beside_unconfined(&raw, unconfined, file, notes);
        return Rules::Unconfined(unconfined.at.clone());
    }
    let sections = raw.sections;
    let written =
        |name| sections.iter().find(|section| section.value == name).map(|section| section.at.clone());
    // Values that nobody wrote are said to stand at their section, or at the start of the file.
    let at = |name| written(name).unwrap_or(Place { file, span: 0..0 });
    let namespaces = namespaces(raw.namespaces, &at("namespaces"));
    check_names_and_offsets(&namespaces, notes);
    let filesystem = filesystem(raw.filesystem, namespaces.mount.value, &at("filesystem"));
    if namespaces.mount.value == Share::Host {
        refuse_without_namespace(&filesystem, &namespaces.mount, notes);
    }
    check_paths(&filesystem, notes);
    let process = process(raw.process, &at("process"), notes);
    check_privileges(&process, notes);
    let rlimits = raw.rlimits.map(|limits| limits.0).unwrap_or_default();
    check_core(&rlimits, process.core_dumps.value, notes);
    let credentials = raw.credentials.map(|credentials| credentials.0).unwrap_or_default();
    check_credentials(&credentials, &process, &namespaces, notes);
    let capabilities = capabilities(raw.capabilities, &at("capabilities"));
    check_ambient(&capabilities, notes);
    let seccomp = seccomp(raw.seccomp, &at("seccomp"), notes);
    Rules::Confined(Box::new(Confinement {
        namespaces,
        filesystem,
        process,
        capabilities,
        landlock: landlock(raw.landlock, &at("landlock")),
        seccomp,
        cgroup: cgroup(raw.cgroup, &at("cgroup"), notes),
        credentials,
        rlimits,
    }))
}

/// `unconfined = true` means a cgroup and nothing else, so a rule beside it is a misunderstanding: of whoever wrote
/// the rule, or of whoever extended a policy that has some.
fn refuse_rules_beside_unconfined(
    raw: &RawPolicy,
    unconfined: &Located<bool>,
    file: FileId,
    notes: &mut Notes,
) {
    let help = "remove `unconfined = true`, override it with false, or remove the rules";
    let (inherited, own): (Vec<_>, Vec<_>) =
        raw.sections.iter().partition(|section| unconfined.at.file == file && section.at.file != file);
    for section in own {
        let message = format!("[{}] would not apply: the policy is unconfined", section.value);
        notes.push(Diagnostic::error("unconfined-with-rules", section.at.clone(), message).help(help));
    }
    if !inherited.is_empty() {
        let message = "the rules that this policy extends would not apply";
        notes.push(Diagnostic::error("unconfined-with-rules", unconfined.at.clone(), message).help(help));
    }
}

fn or<T>(written: Option<Located<T>>, default: T, at: &Place) -> Located<T> {
    written.unwrap_or_else(|| Located::new(default, at.clone()))
}

fn namespaces(raw: RawNamespaces, at: &Place) -> Namespaces {
    let RawNamespaces {
        mount,
        pid,
        ipc,
        uts,
        cgroup,
        net,
        user,
        time,
        hostname,
        domainname,
        time_offset_monotonic,
        time_offset_boottime,
        places: _,
    } = raw;
    Namespaces {
        mount: or(mount, Share::Private, at),
        pid: or(pid, Share::Private, at),
        ipc: or(ipc, Share::Private, at),
        uts: or(uts, Share::Private, at),
        cgroup: or(cgroup, Share::Private, at),
        net: or(net, Net::Private, at),
        user: or(user, UserNamespace::Host, at),
        time: or(time, Share::Host, at),
        hostname,
        domainname,
        time_offset_monotonic,
        time_offset_boottime,
    }
}

/// A name and an offset belong to a namespace: set in the host's, they would be the host's.
fn check_names_and_offsets(namespaces: &Namespaces, notes: &mut Notes) {
    let mut check = |at: Option<&Place>, key: &str, share: Share, namespace: &str| {
        if let (Some(at), Share::Host) = (at, share) {
            let message = format!("`{key}` needs a {namespace} namespace of the service's own");
            let help = format!("write {namespace} = \"private\", or take `{key}` out");
            notes.push(Diagnostic::error("needs-namespace", at.clone(), message).help(help));
        }
    };
    let Namespaces { hostname, domainname, time_offset_monotonic, time_offset_boottime, uts, time, .. } =
        namespaces;
    check(hostname.as_ref().map(|name| &name.at), "hostname", uts.value, "uts");
    check(domainname.as_ref().map(|name| &name.at), "domainname", uts.value, "uts");
    let (monotonic, boottime) = (time_offset_monotonic.as_ref(), time_offset_boottime.as_ref());
    check(monotonic.map(|offset| &offset.at), "time_offset_monotonic", time.value, "time");
    check(boottime.map(|offset| &offset.at), "time_offset_boottime", time.value, "time");
}

/// What nobody wrote is the strict value; with `mount = "host"` it is the host's tree as it is.
fn filesystem(raw: RawFilesystem, mount: Share, at: &Place) -> Filesystem {
    let RawFilesystem {
        root,
        read_only,
        hidden,
        tmpfs,
        proc,
        dev,
        sys,
        read_write,
        bind,
        overlay,
        places: _,
    } = raw;
    let (proc_view, dev_view, sys_view) = match mount {
        Share::Private => (ProcView::SelfOnly, DevView::Minimal, SysView::ReadOnly),
        Share::Host => (ProcView::Full, DevView::Host, SysView::Host),
    };
    let restricting = |list: Option<List<String>>, key| match (mount, list) {
        (Share::Host, None) => Vec::new(),
        (_, list) => List::resolve(list, key, at),
    };
    Filesystem {
        root: or(root, Root::Host, at),
        read_only: restricting(read_only, "read_only"),
        hidden: restricting(hidden, "hidden"),
        tmpfs: List::resolve(tmpfs, "tmpfs", at),
        proc: or(proc, proc_view, at),
        dev: or(dev, dev_view, at),
        sys: or(sys, sys_view, at),
        read_write: List::resolve(read_write, "read_write", at),
        bind: List::resolve(bind, "bind", at),
        overlay: List::resolve(overlay, "overlay", at),
    }
}

/// Told once, at `mount`, which somebody wrote: what it contradicts is mostly inherited.
fn refuse_without_namespace(filesystem: &Filesystem, mount: &Located<Share>, notes: &mut Notes) {
    let Filesystem { root, read_only, hidden, tmpfs, proc, dev, sys, read_write, bind, overlay } = filesystem;
    let asked: Vec<&str> = [
        ("root", root.value != Root::Host),
        ("read_only", !read_only.is_empty()),
        ("hidden", !hidden.is_empty()),
        ("tmpfs", !tmpfs.is_empty()),
        ("proc", proc.value != ProcView::Full),
        ("dev", dev.value != DevView::Host),
        ("sys", sys.value != SysView::Host),
        ("read_write", !read_write.is_empty()),
        ("bind", !bind.is_empty()),
        ("overlay", !overlay.is_empty()),
    ]
    .into_iter()
    .filter_map(|(key, asked)| asked.then_some(key))
    .collect();
    if !asked.is_empty() {
        let message = format!("in the host's mount namespace [filesystem] cannot have {}", asked.join(", "));
        let help = "write mount = \"private\"; or in [filesystem] empty lists, root = \"host\", proc = \"full\", \
                    dev = \"host\" and sys = \"host\"";
        notes.push(Diagnostic::error("needs-mount-namespace", mount.at.clone(), message).help(help));
    }
}

/// A path has one role. What lies beneath another path may have another role: the most specific path wins.
fn check_paths(filesystem: &Filesystem, notes: &mut Notes) {
    let mut roles: Vec<(&str, &str, &Place)> = Vec::new();
    let plain = |paths: &'_ [Located<String>]| {
        paths.iter().map(|p| (p.value.clone(), p.at.clone())).collect::<Vec<_>>()
    };
    let hidden = plain(&filesystem.hidden);
    let read_only = plain(&filesystem.read_only);
    roles.extend(hidden.iter().map(|(path, at)| ("hidden", path.as_str(), at)));
    roles.extend(read_only.iter().map(|(path, at)| ("read_only", path.as_str(), at)));
    roles.extend(filesystem.tmpfs.iter().map(|tmpfs| ("tmpfs", tmpfs.value.path.as_str(), &tmpfs.at)));
    roles.extend(filesystem.read_write.iter().map(|path| ("read_write", path.value.path.as_str(), &path.at)));
    roles
        .extend(filesystem.bind.iter().map(|bind| ("bind", bind.value.to.value.as_str(), &bind.value.to.at)));
    roles.extend(
        filesystem.overlay.iter().map(|overlay| ("overlay", overlay.value.path.as_str(), &overlay.at)),
    );
    for (index, (role, path, at)) in roles.iter().enumerate() {
        let Some((other, ..)) = roles[..index].iter().find(|(_, earlier, _)| earlier == path) else {
            continue;
        };
        let message = format!("`{path}` is in `filesystem.{other}` and in `filesystem.{role}`");
        let help = format!("take it out of one; an inherited one by `{other} = {{ remove = [\"{path}\"] }}`");
        notes.push(Diagnostic::error("conflicting-paths", (*at).clone(), message).help(help));
    }
}

fn process(raw: RawProcess, at: &Place, notes: &mut Notes) -> Process {
    // Merging left no variable without a value.
    let mut environment: Vec<Located<(String, String)>> = raw
        .environment
        .map(|variables| variables.0)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|variable| {
            let (name, value) = variable.value;
            Some(Located::new((name, value?), variable.at))
        })
        .collect();
    environment.sort_by(|a, b| a.value.0.cmp(&b.value.0));
    let scheduler = or(raw.scheduler, Scheduler::Other, at);
    let scheduler_priority = scheduler_priority(&scheduler, raw.scheduler_priority, notes);
    let cpu_affinity = raw.cpu_affinity.map(|list| List::resolve(Some(list), "cpu_affinity", at));
    // Emptied by `remove`: an empty list was told by the reader, and one of which no element could be read is no set yet.
    if cpu_affinity.as_ref().is_some_and(Vec::is_empty) && notes.is_empty() {
        notes.push(empty_set(at.clone(), "process.cpu_affinity"));
    }
    let numa_nodes = List::resolve(raw.numa_nodes, "numa_nodes", at);
    check_nodes(raw.numa_policy.as_ref(), &numa_nodes, notes);
    if let Some(slack) = raw.timer_slack.as_ref().filter(|_| scheduler.value.is_realtime()) {
        let message = "`process.timer_slack` has no effect: timers of a realtime scheduler have none";
        notes.push(Diagnostic::error("no-effect", slack.at.clone(), message));
    }
    let io_priority = io_priority(raw.io_class, raw.io_priority, notes);
    Process {
        user: or(raw.user, Account::Auto, at),
        group: or(raw.group, Account::Auto, at),
        supplementary_groups: List::resolve(raw.supplementary_groups, "supplementary_groups", at),
        no_new_privs: or(raw.no_new_privs, true, at),
        umask: or(raw.umask, 0o077, at),
        working_directory: or(raw.working_directory, "/".to_owned(), at),
        environment,
        oom_score_adj: or(raw.oom_score_adj, 0, at),
        nice: or(raw.nice, 0, at),
        memory_deny_write_execute: or(raw.memory_deny_write_execute, true, at),
        lock_personality: or(raw.lock_personality, true, at),
        core_dumps: or(raw.core_dumps, false, at),
        keyring: or(raw.keyring, Share::Private, at),
        scheduler,
        scheduler_priority,
        cpu_affinity,
        numa_policy: raw.numa_policy,
        numa_nodes,
        io_priority,
        timer_slack: raw.timer_slack,
        disable_speculation: List::resolve(raw.disable_speculation, "disable_speculation", at),
        securebits: List::resolve(raw.securebits, "securebits", at),
        restrict_realtime: or(raw.restrict_realtime, true, at),
        restrict_suid: or(raw.restrict_suid, true, at),
        may_make_namespaces: namespace_kinds(raw.restrict_namespaces, at),
    }
}

fn namespace_kinds(raw: Option<AnyOr<NamespaceKind>>, at: &Place) -> Located<BTreeSet<NamespaceKind>> {
    match raw {
        None => Located::new(BTreeSet::new(), at.clone()),
        Some(AnyOr::Any(at)) => Located::new(NamespaceKind::all().collect(), at),
        Some(AnyOr::List(list)) => {
            let kinds = List::resolve(Some(list), "restrict_namespaces", at);
            let at = kinds.first().map_or(at, |kind| &kind.at).clone();
            Located::new(kinds.iter().map(|kind| kind.value).collect(), at)
        }
    }
}

/// A realtime scheduler has a priority from 1 on, the others have none: 0.
fn scheduler_priority(
    scheduler: &Located<Scheduler>,
    priority: Option<Located<u8>>,
    notes: &mut Notes,
) -> u8 {
    let written = priority.as_ref().map_or(0, |priority| priority.value);
    match (scheduler.value.is_realtime(), priority) {
        (true, Some(priority)) if priority.value == 0 => {
            let message = "a realtime scheduler has a priority from 1 to 99";
            notes.push(Diagnostic::error("out-of-range", priority.at, message));
        }
        (true, None) => {
            let message = "a realtime scheduler needs `scheduler_priority`";
            let help = "from 1 to 99; above 50 it runs before the kernel's interrupt threads";
            notes.push(Diagnostic::error("missing-key", scheduler.at.clone(), message).help(help));
        }
        (false, Some(priority)) if priority.value != 0 => {
            let message =
                "`process.scheduler_priority` has no effect: only \"fifo\" and \"rr\" have priorities";
            let help = "write 0, or another `scheduler`; `nice` is for this one";
            notes.push(Diagnostic::error("no-effect", priority.at, message).help(help));
        }
        (true | false, _) => {}
    }
    written
}

fn check_nodes(
    policy: Option<&Located<NumaPolicy>>,
    nodes: &[Located<super::IndexRange>],
    notes: &mut Notes,
) {
    match (policy, nodes) {
        (Some(policy), []) if policy.value.names_nodes() => {
            let message = "this `numa_policy` needs `numa_nodes`";
            notes.push(Diagnostic::error("missing-key", policy.at.clone(), message));
        }
        (policy, [first, ..]) if policy.is_none_or(|policy| !policy.value.names_nodes()) => {
            let message = "`process.numa_nodes` has no effect without a `numa_policy` that names nodes";
            let help = "write numa_policy = \"bind\", \"preferred\" or \"interleave\"; or numa_nodes = []";
            notes.push(Diagnostic::error("no-effect", first.at.clone(), message).help(help));
        }
        (_, _) => {}
    }
}

/// The class, and the level in it: 4 where none is written, 0 for the class that has no levels.
fn io_priority(
    class: Option<Located<super::IoClass>>,
    level: Option<Located<u8>>,
    notes: &mut Notes,
) -> Option<Located<(super::IoClass, u8)>> {
    match (class, level) {
        (None, None) => None,
        (Some(class), level) => {
            let idle = class.value == super::IoClass::Idle;
            if let Some(level) = level.as_ref().filter(|level| idle && level.value != 0) {
                let message = "`process.io_priority` has no effect: the class \"idle\" has no levels";
                notes.push(Diagnostic::error("no-effect", level.at.clone(), message).help("write 0"));
            }
            let level = level.map_or(if idle { 0 } else { 4 }, |level| level.value);
            Some(class.map(|class| (class, level)))
        }
        (None, Some(level)) => {
            let message = "`process.io_priority` needs `io_class`";
            let help = "write io_class = \"best-effort\" or \"realtime\"";
            notes.push(Diagnostic::error("missing-key", level.at, message).help(help));
            None
        }
    }
}

/// `core_dumps = false` sets the limit by itself, to what stops a dump in every case.
fn check_core(limits: &[Located<Rlimit>], core_dumps: bool, notes: &mut Notes) {
    let core = limits.iter().find(|limit| limit.value.resource == libc::RLIMIT_CORE);
    if let Some(core) =
        core.filter(|core| !core_dumps && (core.value.soft, core.value.hard) != (Some(0), Some(0)))
    {
        let message = "`rlimits.core` has no effect: `process.core_dumps` is false";
        let help = "write core_dumps = true, or core = 0";
        notes.push(Diagnostic::error("no-effect", core.at.clone(), message).help(help));
    }
}

/// The folder of the credentials is a mount, and its path is in the environment.
fn check_credentials(
    credentials: &[Located<Credential>],
    process: &Process,
    namespaces: &Namespaces,
    notes: &mut Notes,
) {
    let Some(first) = credentials.first() else { return };
    if namespaces.mount.value == Share::Host {
        let message = "credentials need a mount namespace of the service's own";
        let help = "write mount = \"private\": in the host's tree others would see them";
        notes.push(Diagnostic::error("needs-mount-namespace", first.at.clone(), message).help(help));
    }
    if let Some(variable) =
        process.environment.iter().find(|variable| variable.value.0 == CREDENTIALS_VARIABLE)
    {
        let message = format!("`{CREDENTIALS_VARIABLE}` is set by [credentials]");
        notes.push(
            Diagnostic::error("invalid-environment", variable.at.clone(), message).label("leave it out"),
        );
    }
}

/// A filter without no_new_privs takes CAP_SYS_ADMIN to install (seccomp(2)), which only root still has by then.
fn check_privileges(process: &Process, notes: &mut Notes) {
    let root = match &process.user.value {
        Account::Name(name) => name == "root",
        Account::Id(id) => *id == 0,
        Account::Auto => false,
    };
    if !process.no_new_privs.value && !root {
        let message = "`no_new_privs = false` is possible for root alone";
        let help = "write user = \"root\", or no_new_privs = true";
        notes.push(
            Diagnostic::error("privileges-need-root", process.no_new_privs.at.clone(), message).help(help),
        );
    }
}

fn capabilities(raw: RawCapabilities, at: &Place) -> Capabilities {
    Capabilities {
        keep: List::resolve(raw.keep, "keep", at),
        ambient: List::resolve(raw.ambient, "ambient", at),
    }
}

fn check_ambient(capabilities: &Capabilities, notes: &mut Notes) {
    for capability in &capabilities.ambient {
        if !capabilities.keep.iter().any(|kept| kept.value == capability.value) {
            let message = format!("`{}` is in `ambient` and not in `keep`", capability.value);
            let help = "what is ambient is permitted as well (capabilities(7)): add it to `keep`";
            notes.push(Diagnostic::error("ambient-not-kept", capability.at.clone(), message).help(help));
        }
    }
}

fn landlock(raw: RawLandlock, at: &Place) -> Landlock {
    Landlock {
        read: List::resolve(raw.read, "read", at),
        execute: List::resolve(raw.execute, "execute", at),
        write: List::resolve(raw.write, "write", at),
        bind_tcp: ports(raw.bind_tcp, at),
        connect_tcp: ports(raw.connect_tcp, at),
        scope: List::resolve(raw.scope, "scope", at),
        optional: List::resolve(raw.optional, "optional", at)
            .into_iter()
            .map(|feature| feature.value)
            .collect(),
        at: at.clone(),
    }
}

fn ports(raw: Option<AnyOr<u16>>, at: &Place) -> Ports {
    match raw {
        Some(AnyOr::Any(place)) => Ports::Any(place),
        Some(AnyOr::List(list)) => Ports::Only(List::resolve(Some(list), "ports", at)),
        None => Ports::Only(Vec::new()),
    }
}

/// A group as it was in a version; a call is itself in every version.
fn of_version((name, calls): Calls, version: u32) -> Calls {
    // As of this one it was read.
    if version == versions::VERSION {
        return (name, calls);
    }
    let calls = groups::members_of_version(&name, version).unwrap_or(calls);
    (name, calls)
}

fn seccomp(raw: RawSeccomp, at: &Place, notes: &mut Notes) -> Seccomp {
    let version = raw.groups.map_or(versions::VERSION, |version| version.value);
    let mut allowed: BTreeSet<u32> = List::resolve(raw.allow, "allow", at)
        .into_iter()
        .flat_map(|calls| of_version(calls.value, version).1)
        .collect();
    for calls in List::resolve(raw.deny, "deny", at) {
        for call in of_version(calls.value, version).1 {
            allowed.remove(&call);
        }
    }
    let mut rules = List::resolve(raw.rule, "rule", at);
    for (name, argument, list) in [("ioctl", 1, raw.ioctl), ("prctl", 0, raw.prctl)] {
        let Some(list) = list else { continue };
        let operations = List::resolve(Some(list), name, at);
        let place = operations.first().map_or(at, |first| &first.at).clone();
        // No operation at all is a condition that no call meets, whether or not the call is allowed.
        if operations.is_empty() {
            syscalls::number(name).map(|number| allowed.remove(&number));
            continue;
        }
        let Some(number) = syscalls::number(name) else { continue };
        rules.push(Located::new(
            ArgumentRule {
                call: Located::new(number, place.clone()),
                argument: Located::new(argument, place.clone()),
                values: operations.into_iter().map(|operation| operation.map(|(_, value)| value)).collect(),
            },
            place,
        ));
    }
    for rule in &rules {
        let call = &rule.value.call;
        if !allowed.contains(&call.value) {
            let name = syscalls::name(call.value).unwrap_or_default();
            let message =
                format!("`{name}` is not allowed at all, so a rule cannot allow it for some values");
            let help = "add it to `allow`, or take it out of `deny`; or remove the rule";
            notes.push(Diagnostic::error("rule-on-denied-call", call.at.clone(), message).help(help));
        }
    }
    let place = raw.places.get("architectures").unwrap_or(at).clone();
    let architectures =
        filter::architectures(List::resolve(raw.architectures, "architectures", at), &place, notes);
    let sockets = raw.socket.map(|list| List::resolve(Some(list), "socket", at));
    check_sockets(sockets.as_deref().unwrap_or_default(), &allowed, &rules, notes);
    let io_uring = or(raw.io_uring, false, at);
    let setup = syscalls::number("io_uring_setup");
    if io_uring.value && setup.is_none_or(|setup| !allowed.contains(&setup)) {
        let message = "`io_uring = true` has no effect: `io_uring_setup` is not allowed";
        let help = "add \"@aio\" to `allow`, and take it and `io_uring_setup` out of `deny`";
        notes.push(Diagnostic::error("no-effect", io_uring.at.clone(), message).help(help));
    }
    Seccomp {
        default: or(raw.default, Denial::Errno(EPERM), at),
        allowed,
        rules,
        sockets,
        io_uring,
        groups: version,
        actions: actions(raw.action, version, notes),
        architectures,
        log: raw.log.is_none_or(|log| log.value),
    }
}

/// A socket that could not be made all the same is a misunderstanding.
fn check_sockets(
    sockets: &[Located<SocketRule>],
    allowed: &BTreeSet<u32>,
    rules: &[Located<ArgumentRule>],
    notes: &mut Notes,
) {
    let Some(socket) = syscalls::number("socket") else { return };
    if let Some(first) = sockets.first().filter(|_| !allowed.contains(&socket)) {
        let message = "`socket` is not allowed at all, so no entry can allow it";
        let help = "add it to `allow`, or take it out of `deny`; or write socket = []";
        notes.push(Diagnostic::error("rule-on-denied-call", first.at.clone(), message).help(help));
    }
    let on_family =
        |rule: &&Located<ArgumentRule>| rule.value.call.value == socket && rule.value.argument.value == 0;
    for entry in sockets {
        let barred = rules
            .iter()
            .filter(on_family)
            .any(|rule| rule.value.values.iter().all(|value| value.value != entry.value.family));
        if barred {
            let message = "this entry has no effect: a rule on argument 0 of `socket` bars the family";
            let help = "take the rule away: rule = { remove = [\"socket\"] }";
            notes.push(Diagnostic::error("no-effect", entry.at.clone(), message).help(help));
        }
    }
}

/// One action for each call: of two groups that disagree neither is right.
fn actions(raw: Option<Named<RawAction>>, version: u32, notes: &mut Notes) -> Vec<Located<Action>> {
    let mut actions: Vec<Located<Action>> = Vec::new();
    for entry in raw.map(|actions| actions.0).unwrap_or_default() {
        // Merging left no entry that removes.
        let RawAction::Set(Action { name, calls, denial }) = entry.value else { continue };
        let (name, calls) = of_version((name, calls), version);
        let action = Action { name, calls, denial };
        let mine = |call: &u32| action.calls.contains(call);
        let other = actions.iter().find(|other| {
            !action.names_one_call()
                && !other.value.names_one_call()
                && other.value.denial != action.denial
                && other.value.calls.iter().any(mine)
        });
        if let Some(other) = other {
            let shared = other.value.calls.iter().find(|call| mine(call));
            let shared = shared.and_then(|call| syscalls::name(*call)).unwrap_or_default();
            let message = format!("`{}` and `{}` both have `{shared}`", other.value.name, action.name);
            let help = "give both one action, or name the calls one by one";
            notes.push(Diagnostic::error("conflicting-actions", entry.at.clone(), message).help(help));
        }
        actions.push(Located::new(action, entry.at));
    }
    actions
}

/// What a denied call gets where no file says anything.
const EPERM: u16 = 1;

fn cgroup(raw: RawCgroup, at: &Place, notes: &mut Notes) -> CgroupLimits {
    let mut set = |list: Option<List<IndexRange>>, key: &'static str| {
        let ranges = list.map(|list| List::resolve(Some(list), key, at))?;
        if ranges.is_empty() && notes.is_empty() {
            notes.push(empty_set(at.clone(), &format!("cgroup.{key}")));
        }
        Some(ranges)
    };
    let cpuset_cpus = set(raw.cpuset_cpus, "cpuset_cpus");
    let cpuset_mems = set(raw.cpuset_mems, "cpuset_mems");
    check_burst(raw.cpu_burst.as_ref(), raw.cpu_max.as_ref(), notes);
    let place = |key: &'static str| raw.places.get(key).unwrap_or(at).clone();
    let devices = only(raw.devices, "devices", &place, DEVICES, notes);
    let socket_bind = only(raw.socket_bind, "socket_bind", &place, PORTS, notes);
    let socket_connect = only(raw.socket_connect, "socket_connect", &place, PORTS, notes);
    let ip_allow = only(raw.ip_allow.map(AnyOr::List), "ip_allow", &place, NETWORKS, notes);
    let ip_deny = List::resolve(raw.ip_deny, "ip_deny", at);
    check_length("ip_deny", &ip_deny, NETWORKS, notes);
    let pressure = List::resolve(raw.pressure, "pressure", at);
    check_length("pressure", &pressure, pressure::MOST, notes);
    check_both_lists(ip_allow.as_ref().map(|list| list.value.as_slice()), &ip_deny, notes);
    CgroupLimits {
        memory_high: raw.memory_high,
        memory_max: raw.memory_max,
        swap_max: raw.swap_max,
        pids_max: raw.pids_max,
        cpu_weight: raw.cpu_weight,
        cpu_max: raw.cpu_max,
        io_weight: raw.io_weight,
        oom_group: raw.oom_group,
        memory_min: raw.memory_min,
        memory_low: raw.memory_low,
        swap_high: raw.swap_high,
        memory_zswap_max: raw.memory_zswap_max,
        memory_zswap_writeback: raw.memory_zswap_writeback,
        cpu_idle: raw.cpu_idle,
        cpu_burst: raw.cpu_burst,
        cpuset_cpus,
        cpuset_mems,
        io_max: List::resolve(raw.io_max, "io_max", at),
        io_latency: List::resolve(raw.io_latency, "io_latency", at),
        hugetlb: raw.hugetlb.map(|limits| limits.0).unwrap_or_default(),
        rdma: List::resolve(raw.rdma, "rdma", at),
        misc: raw.misc.map(|limits| limits.0).unwrap_or_default(),
        pressure,
        devices,
        ip_allow,
        ip_deny,
        socket_bind,
        socket_connect,
        optional: List::resolve(raw.optional, "optional", at)
            .into_iter()
            .map(|name| name.value.to_owned())
            .collect(),
    }
}

/// The list, if there is one, at the place of its key: an empty one has no other.
fn only<T: Listed>(
    raw: Option<AnyOr<T>>,
    key: &'static str,
    place: &impl Fn(&'static str) -> Place,
    most: usize,
    notes: &mut Notes,
) -> Option<Located<Vec<Located<T>>>> {
    let AnyOr::List(list) = raw? else { return None };
    let at = place(key);
    let list = List::resolve(Some(list), key, &at);
    check_length(key, &list, most, notes);
    Some(Located::new(list, at))
}

/// What is saved up for a burst is saved from a quota, and cannot be more than it (cgroup-v2.rst, `cpu.max.burst`).
fn check_burst(burst: Option<&Located<u64>>, quota: Option<&Located<Limit>>, notes: &mut Notes) {
    // None at all goes with every quota, and takes an inherited one away.
    let Some(burst) = burst.filter(|burst| burst.value > 0) else { return };
    let Some(Limit::Value(microseconds)) = quota.map(|quota| quota.value) else {
        let message = "`cgroup.cpu_burst` has no effect without a `cpu_max` that has an end";
        notes.push(Diagnostic::error("no-effect", burst.at.clone(), message));
        return;
    };
    if burst.value > microseconds.saturating_mul(1_000) {
        let message = "`cgroup.cpu_burst` is above what `cpu_max` grants in a period of 100ms";
        let label = format!("at most {}", show_duration(microseconds.saturating_mul(1_000)));
        notes.push(Diagnostic::error("out-of-range", burst.at.clone(), message).label(label));
    }
}
