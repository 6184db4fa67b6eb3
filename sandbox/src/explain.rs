//! A policy in plain words, and the difference of two: `motherctl policy explain` and `policy diff`.
//!
//! Both speak of the compiled plan, so of what will be done on this machine, less what it lacks; the plan's steps and
//! its filter are asked, not the policy's wishes.

#![allow(clippy::wildcard_enum_match_arm, reason = "a few kinds of steps are looked for among all")]

mod cgroup;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use landlock::{AccessFs, BitFlags};

use crate::{
    compile::{Host, mounts::is_beneath, seccomp},
    plan::{CgroupSetting, Op, Plan},
    policy::{Account, Architecture, Confinement, Net, Policy, PressureAction, Rules, Share, Shown, Value},
    question::{Made, Mount, Question, Source, Tree, can_on},
    syscalls::{self, groups},
};

/// What is said about one side of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// `files`, `network`.
    pub title: &'static str,
    /// A fact each.
    pub lines: Vec<String>,
}

/// The topics as text; `paint` makes a title stand out, or leaves it.
#[must_use]
pub fn text(topics: &[Topic], paint: impl Fn(&str) -> String) -> String {
    let mut text = String::new();
    for (number, topic) in topics.iter().enumerate() {
        let gap = if number > 0 { "\n" } else { "" };
        // Writing to a String cannot fail.
        let wrote = writeln!(text, "{gap}{}", paint(topic.title))
            .and_then(|()| topic.lines.iter().try_for_each(|line| writeln!(text, "  {line}")));
        debug_assert!(wrote.is_ok());
    }
    text
}

/// What a policy lets a service do, in words. The plan is that policy's.
#[must_use]
pub fn explain(policy: &Policy, plan: &Plan, host: &dyn Host) -> Vec<Topic> {
    let Rules::Confined(rules) = policy.rules() else {
        let lines = vec![
            "Nothing is confined: the service has a cgroup of its own, and may do whatever root may."
                .to_owned(),
        ];
        return vec![Topic { title: "unconfined", lines }];
    };
    let tree = Tree::of(plan, host);
    let mut topics = vec![
        Topic { title: "identity", lines: identity(rules, plan) },
        Topic { title: "sees", lines: sees(&tree) },
        Topic { title: "files", lines: files(rules, policy, plan, host) },
        Topic { title: "devices", lines: cgroup::devices(rules, plan) },
        Topic { title: "network", lines: network(rules, plan) },
        Topic { title: "other processes", lines: others(rules, plan) },
        Topic { title: "system calls", lines: calls(policy, plan) },
        Topic { title: "memory", lines: memory(rules) },
        Topic { title: "limits", lines: limits(plan) },
    ];
    if !policy.description().is_empty() {
        let line = format!("{}: {}", policy.name(), policy.description());
        topics.insert(0, Topic { title: "policy", lines: vec![line] });
    }
    let left = plan.left_out().iter().map(ToString::to_string).collect::<Vec<_>>();
    if !left.is_empty() {
        topics.push(Topic { title: "not enforced on this machine, as the policy lets it be", lines: left });
    }
    topics.retain(|topic| !topic.lines.is_empty());
    topics
}

fn identity(rules: &Confinement, plan: &Plan) -> Vec<String> {
    let process = &rules.process;
    let user = match &process.user.value {
        Account::Auto => "one of its own, which nobody else has".to_owned(),
        Account::Name(name) => format!("user {name}"),
        Account::Id(_) => "by number".to_owned(),
    };
    let groups = plan.steps.iter().find_map(|step| match &step.op {
        Op::SetGroups(groups) => Some(groups.iter().map(u32::to_string).collect::<Vec<_>>()),
        _ => None,
    });
    let groups = groups.filter(|groups| !groups.is_empty()).map_or_else(
        || "no supplementary groups".to_owned(),
        |groups| format!("supplementary groups {}", groups.join(", ")),
    );
    let mut lines = vec![format!("uid {} ({user}), gid {}, {groups}", plan.uid, plan.gid)];
    if plan.user_namespace.is_some() {
        lines.push(format!("a user namespace of its own, in which it is uid {}", plan.inside_uid));
    }
    let (effective, kept) = capabilities(plan);
    let useless: Vec<String> = kept.difference(&effective).cloned().collect();
    lines.push(if effective.is_empty() {
        "no capabilities".to_owned()
    } else {
        format!("capabilities: {}", list(&effective))
    });
    if !useless.is_empty() {
        lines.push(format!("kept but lost at execve, since they are not ambient: {}", useless.join(", ")));
    }
    lines.push(if process.no_new_privs.value {
        "cannot gain privileges: set-user-ID programs and file capabilities give nothing".to_owned()
    } else {
        "CAN gain privileges from set-user-ID programs and file capabilities".to_owned()
    });
    let variables: Vec<&str> = plan.environment.iter().map(|(name, _)| name.as_str()).collect();
    lines.push(if variables.is_empty() {
        "an empty environment".to_owned()
    } else {
        format!("environment: {} and nothing else", variables.join(", "))
    });
    lines
}

/// What is effective in the service, and what is in its bounding set.
fn capabilities(plan: &Plan) -> (BTreeSet<String>, BTreeSet<String>) {
    let has = |wanted: &dyn Fn(&Op) -> bool| plan.steps.iter().any(|step| wanted(&step.op));
    let drops = has(&|op| matches!(op, Op::DropBounding(_)));
    let noroot = has(&|op| matches!(op, Op::Securebits(bits) if bits & 1 != 0));
    let mut effective = BTreeSet::new();
    let mut kept = BTreeSet::new();
    // A policy that keeps all drops none; every other drops some.
    let unconfined = !drops && !has(&|op| matches!(op, Op::Securebits(_)));
    for capability in caps::all() {
        let index = capability.index();
        if has(&|op| matches!(op, Op::DropBounding(number) if *number == index)) {
            continue;
        }
        let ambient = has(&|op| matches!(op, Op::RaiseAmbient(number) if *number == index));
        let known = unconfined
            || has(
                &|op| matches!(op, Op::SetCapabilities { permitted, .. } if permitted & (1 << index) != 0),
            );
        if known {
            kept.insert(capability.to_string());
        }
        if known && (ambient || (plan.inside_uid == 0 && !noroot)) {
            effective.insert(capability.to_string());
        }
    }
    (effective, kept)
}

fn sees(tree: &Tree<'_>) -> Vec<String> {
    let mut rows: Vec<(String, String)> = Vec::new();
    if tree.mounts.is_empty() {
        return vec!["the host's files, as they are mounted".to_owned()];
    }
    for (index, mount) in tree.mounts.iter().enumerate() {
        let again = tree.mounts[index + 1..].iter().any(|later| later.target == mount.target);
        // What stands in /dev and what is masked in /proc is told with them.
        let detail = ["/dev/", "/proc/", "/sys/"].iter().any(|prefix| mount.target.starts_with(prefix));
        if !again && !detail {
            rows.push((mount.target.clone(), seen(mount, tree)));
        }
    }
    rows.sort();
    let width = rows.iter().map(|(path, _)| path.chars().count()).max().unwrap_or(0);
    rows.into_iter().map(|(path, what)| format!("{path:width$}  {what}")).collect()
}

fn seen(mount: &Mount<'_>, tree: &Tree<'_>) -> String {
    if mount.is_hidden() {
        return "hidden".to_owned();
    }
    let read_only = mount.has(libc::MOUNT_ATTR_RDONLY);
    let what = match &mount.source {
        Source::Host(from) if from == "/" => "the host's files".to_owned(),
        Source::Host(from) if *from == mount.target => "the host's".to_owned(),
        Source::Host(from) => format!("the host's {from}"),
        Source::Fresh { kind: "proc", .. } => {
            let masked = tree.mounts.iter().filter(|other| other.target.starts_with("/proc/")).count();
            if masked == 0 {
                return "its own processes alone".to_owned();
            }
            return format!(
                "processes and the kernel's tables; {masked} dangerous entries are hidden or read-only"
            );
        }
        Source::Fresh { kind: "sysfs", .. } => "devices and drivers".to_owned(),
        Source::Fresh { nodes, .. } if mount.target == "/dev" => {
            let devices: Vec<&str> = nodes
                .iter()
                .filter(|(_, made)| matches!(made, Made::Device(_)))
                .map(|(name, _)| *name)
                .collect();
            return format!("{}; its own pts and shm", devices.join(" "));
        }
        Source::Fresh { kind: "ramfs", .. } => "its credentials".to_owned(),
        Source::Fresh { kind: "overlay", .. } => {
            "folders of the host; what is changed in them ends with the service".to_owned()
        }
        Source::Fresh { kind, .. } => {
            format!("its own{}, empty at the start", if *kind == "tmpfs" { "" } else { " file system" })
        }
    };
    let access = if read_only { "read-only" } else { "writable" };
    let noexec =
        if mount.has(libc::MOUNT_ATTR_NOEXEC) && !read_only { ", nothing in it can be executed" } else { "" };
    format!("{what}, {access}{noexec}")
}

/// What Landlock lets it touch, and what of that a mount or a missing path takes back.
fn files(rules: &Confinement, policy: &Policy, plan: &Plan, host: &dyn Host) -> Vec<String> {
    if plan.landlock.is_none() {
        return vec![
            "Landlock does not restrict files here: what is seen is ruled by modes and owners alone"
                .to_owned(),
        ];
    }
    let nothing = [
        "reads nothing: no file can be opened for reading",
        "writes nothing: no file can be changed, made or removed",
        "executes nothing: not even the service itself can start",
    ];
    let mut lines = Vec::new();
    for ((verb, right), nothing) in RIGHTS.into_iter().zip(nothing) {
        let paths = beneath(plan, right);
        lines.push(match paths.as_slice() {
            [] => nothing.to_owned(),
            paths => format!("{verb}s beneath {}", paths.join(" ")),
        });
    }
    // A path to write that stays read-only is a mistake that nothing else shows.
    for path in &rules.landlock.write {
        let inside = Question::Write(format!("{}/x", path.value.path.trim_end_matches('/')));
        let itself = Question::Write(path.value.path.clone());
        let answers = [can_on(policy, plan, &inside, host), can_on(policy, plan, &itself, host)];
        let reason = answers[0].because.iter().find(|reason| reason.text.ends_with("read-only"));
        if answers.iter().all(|answer| !answer.allowed)
            && let Some(reason) = reason
        {
            lines.push(format!("but not {}: {}", path.value.path, reason.text));
        }
    }
    lines
}

/// What a rule of Landlock can give, and in which words.
const RIGHTS: [(&str, AccessFs); 3] =
    [("read", AccessFs::ReadFile), ("write", AccessFs::WriteFile), ("execute", AccessFs::Execute)];

/// The paths whose rules give a right: to write, or to execute, includes to read.
fn beneath(plan: &Plan, right: AccessFs) -> Vec<&str> {
    let wanted = BitFlags::from(right).bits();
    let paths = plan.steps.iter().filter_map(|step| match &step.op {
        Op::LandlockPath { file, .. } if file & wanted != 0 => Some(step.object.as_str()),
        _ => None,
    });
    paths.collect()
}

fn network(rules: &Confinement, plan: &Plan) -> Vec<String> {
    let mut lines = vec![match &rules.namespaces.net.value {
        Net::Private => {
            "a network of its own with loopback alone: nothing outside can be reached, nor reaches it"
                .to_owned()
        }
        Net::None => "no network, not even loopback".to_owned(),
        Net::Host => "the host's network".to_owned(),
        Net::Service(name) => format!("the network of the service {name}, loopback and all that it has"),
    }];
    let families: Vec<&str> =
        FAMILIES.iter().filter(|(_, family)| socket_of(plan, *family)).map(|(name, _)| *name).collect();
    lines.push(match families.len() {
        0 => "no sockets of any family".to_owned(),
        all if all == FAMILIES.len() => "sockets of every family".to_owned(),
        _ => format!("sockets: {}", families.join(", ")),
    });
    lines.extend(cgroup::network(&rules.cgroup, plan));
    if let Some(landlock) = &plan.landlock {
        let ports = |ports: &Option<Vec<u16>>| match ports {
            None => "any port".to_owned(),
            Some(ports) if ports.is_empty() => "no port".to_owned(),
            Some(ports) => {
                let plural = if ports.len() == 1 { "" } else { "s" };
                format!("port{plural} {}", ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", "))
            }
        };
        lines.push(format!(
            "TCP: binds to {}; connects to {}",
            ports(&landlock.bind_tcp),
            ports(&landlock.connect_tcp)
        ));
    }
    lines
}

/// The families that services use, and those that exploits do.
const FAMILIES: [(&str, i32); 9] = [
    ("unix", libc::AF_UNIX),
    ("inet", libc::AF_INET),
    ("inet6", libc::AF_INET6),
    ("netlink", libc::AF_NETLINK),
    ("packet", libc::AF_PACKET),
    ("vsock", libc::AF_VSOCK),
    ("alg", libc::AF_ALG),
    ("bluetooth", libc::AF_BLUETOOTH),
    ("can", libc::AF_CAN),
];

fn socket_of(plan: &Plan, family: i32) -> bool {
    let kinds = [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_SEQPACKET];
    // A policy may name kinds and protocols; IPPROTO_MPTCP is the highest of them.
    let protocols = 0..=libc::IPPROTO_MPTCP;
    kinds.into_iter().flat_map(|kind| protocols.clone().map(move |protocol| (kind, protocol))).any(
        |(kind, protocol)| {
            let arguments =
                [family, kind, protocol, 0, 0, 0].map(|argument: i32| u64::from(argument.cast_unsigned()));
            let socket = u32::try_from(libc::SYS_socket).unwrap_or(u32::MAX);
            program(plan).is_none_or(|program| {
                matches!(
                    seccomp::verdict_with(program, socket, arguments),
                    Some(seccomp::ALLOW | seccomp::LOG)
                )
            })
        },
    )
}

fn program(plan: &Plan) -> Option<&[seccompiler::sock_filter]> {
    plan.steps.iter().find_map(|step| match &step.op {
        Op::Seccomp { program, .. } => Some(&**program),
        _ => None,
    })
}

fn others(rules: &Confinement, plan: &Plan) -> Vec<String> {
    let wanted = &rules.namespaces;
    let own = [
        ("processes", wanted.pid.value),
        ("System V and POSIX IPC", wanted.ipc.value),
        ("host name", wanted.uts.value),
        ("view of cgroups", wanted.cgroup.value),
        ("clock offsets", wanted.time.value),
    ];
    let of =
        |share: Share| own.iter().filter(|(_, s)| *s == share).map(|(name, _)| *name).collect::<Vec<_>>();
    let mut lines = Vec::new();
    if !of(Share::Private).is_empty() {
        lines.push(format!("its own: {}", of(Share::Private).join(", ")));
    }
    if !of(Share::Host).is_empty() {
        lines.push(format!("shared with the host: {}", of(Share::Host).join(", ")));
    }
    match plan.landlock_scopes().as_deref() {
        None | Some([]) => {}
        Some(scopes) => {
            let words: Vec<&str> = scopes
                .iter()
                .map(|scope| if *scope == "signal" { "signals" } else { "abstract Unix sockets" })
                .collect();
            lines.push(format!("{} end at the sandbox", words.join(" and ")));
        }
    }
    lines
}

/// Calls that people ask for by name, each with what it is to an attacker.
const NOTABLE: [(&str, &str); 16] = [
    ("ptrace", "trace other processes"),
    ("process_vm_readv", "read other processes' memory"),
    ("mount", "mount"),
    ("unshare", "make namespaces"),
    ("setns", "enter namespaces"),
    ("bpf", "load BPF programs"),
    ("io_uring_setup", "io_uring, which no filter sees"),
    ("perf_event_open", "watch performance events"),
    ("userfaultfd", "stall page faults"),
    ("keyctl", "the kernel's keys"),
    ("open_by_handle_at", "open files past their paths"),
    ("init_module", "load kernel modules"),
    ("kexec_load", "replace the kernel"),
    ("reboot", "restart the machine"),
    ("clock_settime", "set the clock"),
    ("chroot", "change its root"),
];

fn calls(policy: &Policy, plan: &Plan) -> Vec<String> {
    let Some(program) = program(plan) else {
        return vec!["no filter: every call reaches the kernel".to_owned()];
    };
    let verdicts: BTreeMap<&str, Verdict> = verdicts(program);
    let allowed = |name: &str| verdicts.get(name).is_none_or(|verdict| *verdict != Verdict::Denied);
    let count = verdicts.values().filter(|verdict| **verdict != Verdict::Denied).count();
    let mut lines = vec![format!("{count} of {} calls are allowed", verdicts.len())];
    let (mut whole, mut partly, mut none) = (Vec::new(), Vec::new(), Vec::new());
    for (group, _) in groups::all().filter(|(group, _)| !["@known", "@system-service"].contains(group)) {
        let members = groups::members(group).unwrap_or_default();
        let names: Vec<&str> = members.iter().filter_map(|number| syscalls::name(*number)).collect();
        let denied: Vec<&str> = names.iter().copied().filter(|name| !allowed(name)).collect();
        if denied.is_empty() {
            whole.push(group.to_owned());
        } else if denied.len() == names.len() {
            none.push(group.to_owned());
        } else if denied.len() <= 3 {
            partly.push(format!("{group} without {}", denied.join(", ")));
        } else {
            partly.push(format!("{} of {} in {group}", names.len() - denied.len(), names.len()));
        }
    }
    for (what, groups) in [("all of", whole), ("some of", partly), ("none of", none)] {
        if !groups.is_empty() {
            lines.push(format!("{what}: {}", groups.join("; ")));
        }
    }
    let conditional: Vec<&str> = verdicts
        .iter()
        .filter(|(_, verdict)| **verdict == Verdict::Conditional)
        .map(|(name, _)| *name)
        .collect();
    if !conditional.is_empty() {
        lines.push(format!("with some arguments alone: {}", conditional.join(", ")));
    }
    if let Rules::Confined(rules) = policy.rules() {
        lines.extend(other_architectures(&rules.seccomp.architectures, program));
    }
    for shown in policy.show().iter().filter(|shown| shown.table == "seccomp" && shown.key == "rule") {
        if let Value::List(rules, _) = &shown.value {
            lines.extend(rules.iter().map(|rule| format!("rule: {}", rule.toml)));
        }
    }
    let dangerous: Vec<String> = NOTABLE
        .iter()
        .filter(|(name, _)| allowed(name))
        .map(|(name, what)| format!("{name} ({what})"))
        .collect();
    if !dangerous.is_empty() {
        lines.push(format!("ALLOWED and notable: {}", dangerous.join(", ")));
    }
    let denied = verdict_of_denied(program);
    lines.push(format!("a denied call gets {denied}, an unknown one ENOSYS"));
    lines
}

/// What is beside x86_64, and what the filter cannot see there.
fn other_architectures(
    architectures: &BTreeSet<Architecture>,
    program: &[seccompiler::sock_filter],
) -> Vec<String> {
    let mut lines = Vec::new();
    if architectures.contains(&Architecture::X32) {
        lines.push("ALLOWED by x32 as well".to_owned());
    }
    if architectures.contains(&Architecture::I386) {
        lines.push("ALLOWED by i386 as well: 32-bit programs, and int 0x80 in others".to_owned());
        let socket = syscalls::number("socket").and_then(|number| seccomp::verdict(program, number));
        if socket.is_none() && !seccomp::makes_i386_sockets(program) {
            let why = "the filter could not see of which family";
            lines.push(format!("i386 makes sockets by the call `socket` alone, not by `socketcall`: {why}"));
        }
    }
    lines
}

/// What most denied calls get.
fn verdict_of_denied(program: &[seccompiler::sock_filter]) -> String {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for number in syscalls::names().filter_map(syscalls::number) {
        if let Some(verdict) = seccomp::verdict(program, number).filter(|verdict| *verdict != seccomp::ALLOW)
        {
            *counts.entry(verdict).or_default() += 1;
        }
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map_or_else(|| "nothing: none is denied".to_owned(), |(verdict, _)| seccomp::action(verdict))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allowed,
    Conditional,
    Denied,
}

fn verdicts(program: &[seccompiler::sock_filter]) -> BTreeMap<&'static str, Verdict> {
    let verdict = |number| match seccomp::verdict(program, number) {
        None => Verdict::Conditional,
        Some(seccomp::ALLOW | seccomp::LOG) => Verdict::Allowed,
        Some(_) => Verdict::Denied,
    };
    syscalls::names().filter_map(|name| Some((name, verdict(syscalls::number(name)?)))).collect()
}

fn memory(rules: &Confinement) -> Vec<String> {
    let process = &rules.process;
    let mut lines = Vec::new();
    lines.push(if process.memory_deny_write_execute.value {
        "no page is both writable and executable, none becomes executable later".to_owned()
    } else {
        "pages may be writable and executable, as just-in-time compilers need".to_owned()
    });
    if process.core_dumps.value {
        lines.push("core dumps are written".to_owned());
    } else {
        lines.push("no core dumps".to_owned());
    }
    if !process.lock_personality.value {
        lines.push("may change its personality(2), and so turn off address randomization".to_owned());
    }
    if process.keyring.value == Share::Host {
        lines.push("shares the session keyring of motherd".to_owned());
    }
    lines
}

fn limits(plan: &Plan) -> Vec<String> {
    let mut lines: Vec<String> =
        plan.cgroup.iter().map(|setting| format!("{} = {}", setting.file, figure(setting))).collect();
    lines.extend(plan.steps.iter().filter_map(|step| match &step.op {
        Op::Rlimit { resource, soft, hard } if *resource != libc::RLIMIT_CORE => {
            let name = crate::policy::rlimit_name(*resource);
            let figure = |limit: &u64| {
                if *limit == libc::RLIM_INFINITY { "unlimited".to_owned() } else { limit.to_string() }
            };
            Some(format!("{name} = {} (at most {})", figure(soft), figure(hard)))
        }
        _ => None,
    }));
    lines.extend(plan.triggers().iter().map(|trigger| {
        let then = match trigger.entry().action {
            PressureAction::Report => "it is reported",
            PressureAction::Restart => "it is stopped, and then what its service file says of restarts",
            PressureAction::Kill => "it is killed, and then what its service file says of restarts",
        };
        format!("waiting for {}: {then}", trigger.entry())
    }));
    lines
}

/// Bytes as people write them, where that is exact.
fn figure(setting: &CgroupSetting) -> String {
    let bytes =
        setting.value.parse::<u64>().ok().filter(|bytes| {
            *bytes > 0 && setting.controller == "memory" && setting.file != "memory.oom.group"
        });
    let Some(bytes) = bytes else { return setting.value.clone() };
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    let unit = units.into_iter().find(|(shift, _)| bytes.trailing_zeros() >= *shift);
    unit.map_or_else(|| setting.value.clone(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

/// How one policy differs from another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// What the second allows and the first does not.
    pub more: Vec<String>,
    /// What the first allows and the second does not.
    pub less: Vec<String>,
    /// Which keys differ.
    pub keys: Vec<KeyDifference>,
}

/// A key that is not the same; of lists and tables, what one has and the other lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDifference {
    /// `landlock.read`
    pub key: String,
    /// What the first has.
    pub a: Vec<String>,
    /// What the second has.
    pub b: Vec<String>,
}

impl Difference {
    /// Whether both do the same.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self == &Self::default()
    }

    /// As text.
    #[must_use]
    pub fn text(&self, a: &str, b: &str) -> String {
        if self.is_none() {
            return format!("{b} and {a} are the same\n");
        }
        let mut text = String::new();
        let mut part = |title: String, lines: Vec<String>| {
            if !lines.is_empty() {
                let gap = if text.is_empty() { "" } else { "\n" };
                text.push_str(&format!("{gap}{title}\n{}\n", lines.join("\n")));
            }
        };
        part(
            format!("{b} allows, and {a} does not:"),
            self.more.iter().map(|line| format!("  + {line}")).collect(),
        );
        part(
            format!("{a} allows, and {b} does not:"),
            self.less.iter().map(|line| format!("  - {line}")).collect(),
        );
        let key = |KeyDifference { key, a, b }: &KeyDifference| {
            let a = a.iter().map(|value| format!("\n    - {value}"));
            let b = b.iter().map(|value| format!("\n    + {value}"));
            format!("  {key}{}", a.chain(b).collect::<String>())
        };
        part(format!("keys that differ, {a} (-) and {b} (+):"), self.keys.iter().map(key).collect());
        text
    }
}

/// One of the two to be compared: a policy and its plan.
pub type Side<'a> = (&'a Policy, &'a Plan);

/// What `b` allows more or less than `a`, by effect and by key.
#[must_use]
pub fn diff(a: Side<'_>, b: Side<'_>, host: &dyn Host) -> Difference {
    let (grants_a, grants_b) = (grants(a, host), grants(b, host));
    let only = |of: &BTreeSet<String>, other: &BTreeSet<String>| {
        of.iter().filter(|grant| !is_granted(other, grant)).cloned().collect::<Vec<_>>()
    };
    let unconfined = [a, b].map(|(policy, _)| matches!(policy.rules(), Rules::Unconfined(_)));
    let mut keys = key_differences(&a.0.show(), &b.0.show());
    if unconfined != [false, false] {
        // The rules of the other one do not apply here, which is all there is to say.
        keys.retain(|key| key.key == "unconfined");
    }
    Difference {
        more: by_effect(only(&grants_b, &grants_a)),
        less: by_effect(only(&grants_a, &grants_b)),
        keys,
    }
}

/// Whether a grant is among these, or one that is wider.
fn is_granted(grants: &BTreeSet<String>, grant: &str) -> bool {
    let has = |wider: &str| grants.contains(wider);
    let (effect, name) = grant.split_once(": ").unwrap_or((grant, ""));
    has(grant)
        || match effect {
            "bind TCP" | "connect TCP" | "bind any socket" | "connect any socket" => {
                has(&format!("{effect}: any port"))
            }
            "device" => has(&format!("{effect}: {}", cgroup::ANY_DEVICE)),
            "packets to and from" => has(&format!("{effect}: anybody")),
            "system call, some arguments" => has(&format!("system call: {name}")),
            "read beneath" | "write beneath" | "execute beneath" => {
                let above = |other: &String| {
                    other
                        .split_once(": ")
                        .is_some_and(|(known, path)| known == effect && is_beneath(name, path))
                };
                has(UNRESTRICTED_FILES) || grants.iter().any(above)
            }
            "have a loopback interface" => has("use the host's network"),
            "share the host's namespace" => has("share every namespace of the host"),
            "writable mount" => has("see the host's mounts as they are"),
            _ => false,
        }
}

const UNRESTRICTED_FILES: &str = "files: not restricted by Landlock";

/// Names of one effect on one line: `call: bpf, mount`.
fn by_effect(grants: Vec<String>) -> Vec<String> {
    let mut effects: Vec<(String, Vec<String>)> = Vec::new();
    for grant in grants {
        let (effect, name) = grant.split_once(": ").unwrap_or((&grant, ""));
        match effects.iter_mut().find(|(known, _)| known == effect) {
            Some((_, names)) => names.push(name.to_owned()),
            None => effects.push((effect.to_owned(), vec![name.to_owned()])),
        }
    }
    effects
        .into_iter()
        .map(|(effect, names)| match names.as_slice() {
            [name] if name.is_empty() => effect,
            names => format!("{effect}: {}", names.join(", ")),
        })
        .collect()
}

/// Everything that a policy allows, a line each that another policy's can be compared with.
fn grants((policy, plan): Side<'_>, host: &dyn Host) -> BTreeSet<String> {
    let mut grants = BTreeSet::new();
    let mut grant = |effect: &str, name: &str| {
        grants.insert(if name.is_empty() { effect.to_owned() } else { format!("{effect}: {name}") });
    };
    for name in syscalls::names() {
        let verdict = program(plan).map_or(Verdict::Allowed, |program| verdicts_of(program, name));
        match verdict {
            Verdict::Allowed => grant("system call", name),
            Verdict::Conditional => grant("system call, some arguments", name),
            Verdict::Denied => {}
        }
    }
    for (name, family) in FAMILIES {
        if socket_of(plan, family) {
            grant("socket", name);
        }
    }
    for capability in capabilities(plan).0 {
        grant("capability", &capability);
    }
    match &plan.landlock {
        None => {
            grant("bind TCP", "any port");
            grant("connect TCP", "any port");
            grant(UNRESTRICTED_FILES, "");
        }
        Some(landlock) => {
            for (effect, ports) in [("bind TCP", &landlock.bind_tcp), ("connect TCP", &landlock.connect_tcp)]
            {
                match ports {
                    None => grant(effect, "any port"),
                    Some(ports) => ports.iter().for_each(|port| grant(effect, &port.to_string())),
                }
            }
        }
    }
    for (effect, name) in cgroup::grants(policy, plan) {
        grant(effect, &name);
    }
    if let Rules::Confined(rules) = policy.rules() {
        for (verb, right) in RIGHTS {
            beneath(plan, right).into_iter().for_each(|path| grant(&format!("{verb} beneath"), path));
        }
        let shared = &rules.namespaces;
        let kinds = [
            ("mount", shared.mount.value),
            ("pid", shared.pid.value),
            ("ipc", shared.ipc.value),
            ("uts", shared.uts.value),
            ("cgroup", shared.cgroup.value),
            ("time", shared.time.value),
        ];
        for (kind, _) in kinds.into_iter().filter(|(_, share)| *share == Share::Host) {
            grant("share the host's namespace", kind);
        }
        match &shared.net.value {
            Net::Host => grant("use the host's network", ""),
            Net::Service(name) => grant("use the network of the service", name),
            Net::Private => grant("have a loopback interface", ""),
            Net::None => {}
        }
        if !rules.process.memory_deny_write_execute.value {
            grant("have pages writable and executable", "");
        }
        if !rules.process.no_new_privs.value {
            grant("gain privileges at execve", "");
        }
    } else {
        grant("share every namespace of the host", "");
        grant("use the host's network", "");
        grant("have pages writable and executable", "");
        grant("gain privileges at execve", "");
    }
    let tree = Tree::of(plan, host);
    if tree.mounts.is_empty() {
        grant("see the host's mounts as they are", "");
    }
    for mount in &tree.mounts {
        let inside = ["/dev", "/proc", "/sys"].iter().any(|path| is_beneath(&mount.target, path));
        if !mount.has(libc::MOUNT_ATTR_RDONLY) && !mount.is_hidden() && !inside {
            grant("writable mount", &mount.target);
        }
    }
    if plan.uid == 0 {
        grant("be root on the host", "");
    }
    grants
}

fn verdicts_of(program: &[seccompiler::sock_filter], name: &str) -> Verdict {
    let number = syscalls::number(name).unwrap_or(u32::MAX);
    match seccomp::verdict(program, number) {
        None => Verdict::Conditional,
        Some(seccomp::ALLOW | seccomp::LOG) => Verdict::Allowed,
        Some(_) => Verdict::Denied,
    }
}

fn key_differences(a: &[Shown], b: &[Shown]) -> Vec<KeyDifference> {
    let named = |shown: &[Shown]| -> Vec<(String, Vec<String>)> {
        let name = |shown: &Shown| match shown.table {
            "" => shown.key.clone(),
            table => format!("{table}.{}", shown.key),
        };
        shown.iter().filter(|shown| shown.key != "description").map(|s| (name(s), values(&s.value))).collect()
    };
    let (a, b) = (named(a), named(b));
    let of = |of: &[(String, Vec<String>)], key: &str| {
        of.iter().find(|(known, _)| known == key).map(|(_, values)| values.clone()).unwrap_or_default()
    };
    let extra = b.iter().filter(|(key, _)| !a.iter().any(|(known, _)| known == key));
    let mut differences = Vec::new();
    for (key, _) in a.iter().chain(extra) {
        let (first, second) = (of(&a, key), of(&b, key));
        let without = |of: &[String], other: &[String]| -> Vec<String> {
            of.iter().filter(|value| !other.contains(value)).cloned().collect()
        };
        let (only_a, only_b) = (without(&first, &second), without(&second, &first));
        if !only_a.is_empty() || !only_b.is_empty() {
            differences.push(KeyDifference { key: key.clone(), a: only_a, b: only_b });
        }
    }
    differences
}

fn values(value: &Value) -> Vec<String> {
    match value {
        Value::One(element) => vec![element.toml.clone()],
        Value::List(elements, _) => elements.iter().map(|element| element.toml.clone()).collect(),
        Value::Table(entries) => {
            entries.iter().map(|(name, element)| format!("{name} = {}", element.toml)).collect()
        }
        Value::Unset => Vec::new(),
    }
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
