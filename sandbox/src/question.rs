//! May a service do this? Answered from its compiled [`Plan`], with the rule that says so.
//!
//! Each layer is asked: what is mounted there, Landlock, the seccomp program itself (run in an interpreter), the
//! capability sets. The mounts are those of the plan's steps and not what a policy calls them, so that the answer is
//! about what will be done. What the plan does not decide is not answered: file modes and owners apply besides, with
//! the plan's uid. Random policies and a probe inside the sandbox hold the answers to the truth (tests/differential).

#![allow(clippy::wildcard_enum_match_arm, reason = "a few kinds of steps are looked for among all")]

mod network;

use std::{collections::VecDeque, fmt, net::IpAddr, path::Path};

use landlock::AccessFs;
pub use network::{Port, Transport};

use crate::{
    compile::{FileKind, Host, RealHost, mounts::is_beneath, seccomp},
    diagnostic::{Place, nearest},
    plan::{Op, Phase, Plan, Slot, Step},
    policy::{DeviceKind, Policy},
    syscalls::{self, groups},
};

/// One act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Open a file for reading, or list a directory.
    Read(String),
    /// Open a file for writing, or make one.
    Write(String),
    /// Execute a file.
    Execute(String),
    /// bind(2) a socket to this port, and to no address in particular.
    Bind(Port),
    /// connect(2) a socket to this port, here or there.
    Connect(Port),
    /// Make this system call, by number.
    Call(u32),
    /// Use this capability.
    Capability(caps::Capability),
}

/// The words that ask, in the order in which they are told.
pub const ACTS: [&str; 7] = ["read", "write", "exec", "bind", "connect", "call", "cap"];

impl Question {
    /// From words: `read /etc/passwd`, `bind 80`, `call ptrace`, `cap CAP_KILL`.
    ///
    /// # Errors
    /// What is wrong with them, with the nearest right spelling.
    pub fn parse(act: &str, object: &str) -> Result<Self, String> {
        Ok(match act {
            "read" => Self::Read(path(object)?),
            "write" => Self::Write(path(object)?),
            "exec" => Self::Execute(path(object)?),
            "bind" => Self::Bind(Port::bound(object)?),
            "connect" => Self::Connect(Port::parse(object)?),
            "call" => Self::Call(call(object)?),
            "cap" => Self::Capability(capability(object)?),
            other => {
                return Err(format!(
                    "nothing can be asked about `{other}`{}; one can ask about {}",
                    did_you_mean(other, ACTS),
                    ACTS.join(", ")
                ));
            }
        })
    }
}

fn did_you_mean<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> String {
    nearest(word, candidates).map_or_else(String::new, |nearest| format!(": did you mean `{nearest}`?"))
}

fn path(text: &str) -> Result<String, String> {
    let normal = text.trim_end_matches('/');
    if !text.starts_with('/') {
        return Err(format!("`{text}` is no path of the sandbox: one starts with `/`"));
    }
    if text.split('/').any(|part| part == "." || part == "..") || text.contains("//") || text.contains('\0') {
        return Err(format!("`{text}` cannot be asked about: write it without `.`, `..` and `//`"));
    }
    Ok(if normal.is_empty() { "/".to_owned() } else { normal.to_owned() })
}

fn call(text: &str) -> Result<u32, String> {
    if let Some(number) = syscalls::number(text).or_else(|| text.parse().ok()) {
        return Ok(number);
    }
    if text.starts_with('@') {
        return Err(format!("`{text}` is a group: `motherctl policy groups {text}` lists its calls"));
    }
    Err(format!("no syscall is named `{text}` on x86_64{}", did_you_mean(text, syscalls::names())))
}

fn capability(text: &str) -> Result<caps::Capability, String> {
    let upper = text.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    let all: Vec<(String, caps::Capability)> =
        caps::all().into_iter().map(|capability| (capability.to_string(), capability)).collect();
    let found = all.iter().find(|(name, _)| *name == full).map(|(_, capability)| *capability);
    found.ok_or_else(|| {
        let near = did_you_mean(&full, all.iter().map(|(name, _)| name.as_str()));
        format!("no capability is named `{text}`{near}")
    })
}

/// Yes or no, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether the plan allows it.
    pub allowed: bool,
    /// The rules that decide, most telling first.
    pub because: Vec<Reason>,
    /// What is not the plan's to decide, or good to know.
    pub notes: Vec<String>,
}

/// A rule that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// What it says.
    pub text: String,
    /// Where it stands: `nginx.toml:31:5`.
    pub at: Option<String>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", if self.allowed { "yes" } else { "no" })?;
        for reason in &self.because {
            match &reason.at {
                Some(at) => writeln!(f, "  {}\n    {at}", reason.text)?,
                None => writeln!(f, "  {}", reason.text)?,
            }
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

/// Whether the plan, which was compiled from the policy, allows an act on this machine. All layers must; a denial names
/// each that does not.
#[must_use]
pub fn can(policy: &Policy, plan: &Plan, question: &Question) -> Answer {
    can_on(policy, plan, question, &RealHost::new(Path::new("/")))
}

/// The same, on a host that a test describes.
#[must_use]
pub fn can_on(policy: &Policy, plan: &Plan, question: &Question, host: &dyn Host) -> Answer {
    let asked = Asked { policy, plan, tree: Tree::of(plan, host), host };
    let mut notes = Vec::new();
    let opinions = match question {
        Question::Read(path) => {
            asked.path(path, &[opening(libc::O_RDONLY), ("read", [0; 6])], Need::Read, &mut notes)
        }
        Question::Write(path) => {
            let calls = [opening(libc::O_WRONLY | libc::O_CREAT), ("write", [0; 6])];
            asked.path(path, &calls, Need::Write, &mut notes)
        }
        Question::Execute(path) => asked.path(path, &[("execve", [0; 6])], Need::Execute, &mut notes),
        Question::Bind(port) => asked.bind(port, &mut notes),
        Question::Connect(port) => asked.connect(port, &mut notes),
        Question::Call(number) => {
            notes.push("the kernel asks for its own rights besides, capabilities among them".to_owned());
            vec![asked.call(*number, None)]
        }
        Question::Capability(capability) => vec![asked.capability(*capability)],
    };
    let allowed = opinions.iter().all(|opinion| opinion.allowed);
    let deciding = opinions.into_iter().filter(|opinion| opinion.allowed == allowed);
    let mut because: Vec<Reason> = deciding
        .map(|opinion| Reason { text: opinion.why, at: opinion.at.map(|at| plan.sources.locate(&at)) })
        .collect();
    because.dedup();
    // What would have to be considered besides matters where the plan says yes.
    Answer { allowed, because, notes: if allowed { notes } else { Vec::new() } }
}

/// open(2) with these flags and an ordinary mode, as libraries call it.
fn opening(flags: i32) -> (&'static str, [u64; 6]) {
    ("openat", [0, 0, u64::from(flags.cast_unsigned()), 0o644, 0, 0])
}

/// Calls that a filter can judge only as a whole, with ENOSYS.
const MEMORY_FLAGS: [&str; 3] = ["clone3", "openat2", "sched_setattr"];

/// One layer's opinion.
struct Opinion {
    allowed: bool,
    why: String,
    at: Option<Place>,
}

impl Opinion {
    fn new(allowed: bool, why: impl Into<String>, at: Option<&Place>) -> Self {
        Self { allowed, why: why.into(), at: at.cloned() }
    }
}

/// Everything that an answer is made of.
struct Asked<'a> {
    policy: &'a Policy,
    plan: &'a Plan,
    tree: Tree<'a>,
    host: &'a dyn Host,
}

impl Asked<'_> {
    fn path(
        &self,
        path: &str,
        calls: &[(&str, [u64; 6])],
        need: Need,
        notes: &mut Vec<String>,
    ) -> Vec<Opinion> {
        let resolved = self.tree.resolve(path);
        let node = self.tree.node(&resolved, self.host);
        let mut opinions = vec![self.mounted(&resolved, &node, need)];
        opinions.extend(self.landlock_path(&resolved, &node, need));
        opinions.extend(self.device(&resolved, need));
        opinions.extend(self.calls(calls));
        if resolved != path {
            notes.push(format!("{path} leads to {resolved}"));
        }
        if node == Node::Unknown {
            notes.push("whether it is there is known when the service runs".to_owned());
        }
        notes.push(format!("file modes and owners count besides: it runs as uid {}", self.plan.inside_uid));
        opinions
    }

    /// Those that decide nothing by themselves are not told: every denial is.
    fn calls(&self, calls: &[(&str, [u64; 6])]) -> Vec<Opinion> {
        let numbers =
            calls.iter().filter_map(|(name, arguments)| Some((syscalls::number(name)?, *arguments)));
        let opinions: Vec<Opinion> =
            numbers.map(|(number, arguments)| self.call(number, Some(arguments))).collect();
        if opinions.iter().all(|opinion| opinion.allowed) {
            return opinions.into_iter().take(1).collect();
        }
        opinions
    }

    fn mounted(&self, path: &str, node: &Node, need: Need) -> Opinion {
        let Some(mount) = self.tree.covering(path) else {
            return Opinion::new(true, "the host's tree, as it is", None);
        };
        let name = &mount.target;
        let no = |why: String| Opinion::new(false, why, mount.at);
        if mount.is_hidden() {
            return no(format!("{name} is hidden"));
        }
        match (node, need) {
            (Node::Missing { .. }, Need::Read | Need::Execute) => {
                let why = match &mount.source {
                    Source::Host(from) if from == "/" => format!("{path} is not on this host"),
                    Source::Host(from) => format!("{path} is not in {from} of this host"),
                    Source::Fresh { .. } => format!("{path} is not in {name}, which is made for the service"),
                };
                return Opinion::new(false, why, None);
            }
            (Node::Missing { parent: false }, Need::Write) => {
                let why = format!("{path} cannot be made: the folder that it would be in is missing");
                return Opinion::new(false, why, None);
            }
            (Node::Missing { .. }, Need::Write) if self.plan.uid != 0 && self.is_way(parent_of(path)) => {
                let way = parent_of(path);
                return no(format!("{way} is made as the way to a mount, and only root can write in it"));
            }
            (Node::Directory, Need::Write) => return no(format!("{path} is a folder")),
            (Node::Directory, Need::Execute) => return no(format!("{path} is a folder")),
            _ => {}
        }
        if need == Need::Write && mount.has(libc::MOUNT_ATTR_RDONLY) && *node != Node::Device {
            return no(format!("{name} is read-only"));
        }
        if need == Need::Execute && mount.has(libc::MOUNT_ATTR_NOEXEC) {
            return no(format!("{name} is mounted noexec: nothing in it can be executed"));
        }
        if *node == Node::Device && mount.has(libc::MOUNT_ATTR_NODEV) {
            return no(format!("{name} is mounted nodev: devices in it cannot be opened"));
        }
        let what = match need {
            Need::Write if *node == Node::Device => {
                format!("{path} is a device: a read-only mount does not matter")
            }
            Need::Write => format!("{name} is mounted writable"),
            Need::Read => format!("{name} is visible"),
            Need::Execute => format!("{name} is visible, and not mounted noexec"),
        };
        Opinion::new(true, what, mount.at)
    }

    /// Whether a folder is one that a step makes in a file system of the launch's own, so that something can be mounted
    /// beneath: it is root's, with mode 0755.
    fn is_way(&self, path: &str) -> bool {
        let made = |op: &Op| matches!(op, Op::MakeDirectory(made) if made.to_str() == Ok(path));
        let own = self.tree.covering(path).is_some_and(|mount| mount.target != path && mount.is_fresh());
        own && self.plan.steps.iter().any(|step| made(&step.op))
    }

    /// Each right must be given by some rule on the way to the root; rules belong to inodes, so that the same folder
    /// seen under two names has the same rules.
    fn landlock_path(&self, path: &str, node: &Node, need: Need) -> Vec<Opinion> {
        if self.plan.landlock.is_none() {
            return Vec::new();
        }
        let ways: Vec<String> =
            ancestors(path).into_iter().map(|path| self.tree.identity(path, self.host)).collect();
        let opinions: Vec<Opinion> = need
            .rights(node)
            .iter()
            .map(|(right, word)| {
                let wanted = landlock::BitFlags::from(*right).bits();
                let rule = self.landlock_rules().find(|(step, rights)| {
                    rights & wanted != 0
                        && ways.contains(&self.tree.identity(&self.tree.resolve(&step.object), self.host))
                });
                match rule {
                    Some((step, _)) => {
                        // A path that several lists name is one rule, with the place of the first; and the right
                        // to read is part of the rights to write and to execute.
                        let lists = [*word, "write", "execute"];
                        let named = lists.into_iter().find_map(|list| {
                            let elements = self.policy.elements("landlock", list);
                            elements.iter().find(|(id, _)| *id == step.object).map(|(_, at)| (list, at))
                        });
                        let (list, at) =
                            named.map_or((*word, step.at.as_ref()), |(list, at)| (list, Some(at)));
                        Opinion::new(true, format!("landlock.{list} has {}", step.object), at)
                    }
                    None => self.no_landlock_rule(path, word, need),
                }
            })
            .collect();
        if opinions.iter().all(|opinion| opinion.allowed) {
            return opinions.into_iter().take(1).collect();
        }
        opinions
    }

    fn no_landlock_rule(&self, path: &str, word: &str, need: Need) -> Opinion {
        let restrict = self.plan.steps.iter().find(|step| matches!(step.op, Op::LandlockRestrict));
        let at = restrict.and_then(|step| step.at.as_ref());
        let besides =
            if need == Need::Execute && word == "read" { ", which executing takes as well" } else { "" };
        Opinion::new(false, format!("nothing in landlock.{word} covers {path}{besides}"), at)
    }

    /// Every rule on a path that will be there, with the rights that it gives to what is there.
    fn landlock_rules(&self) -> impl Iterator<Item = (&Step, u64)> {
        self.plan.steps.iter().filter_map(|step| {
            let Op::LandlockPath { directory, file, .. } = &step.op else { return None };
            let rights = match self.tree.node(&self.tree.resolve(&step.object), self.host) {
                Node::Missing { .. } => return None,
                Node::Directory => *directory,
                Node::File | Node::Device => *file,
                Node::Unknown => directory | file,
            };
            Some((step, rights))
        })
    }

    fn bind(&self, asked: &Port, notes: &mut Vec<String>) -> Vec<Opinion> {
        let mut opinions = self.port(asked, "bind");
        let port = asked.number;
        // net.ipv4.ip_unprivileged_port_start, of each network namespace.
        const UNPRIVILEGED: u16 = 1024;
        let needed = caps::Capability::CAP_NET_BIND_SERVICE;
        if (1..UNPRIVILEGED).contains(&port) {
            let mut opinion = self.capability(needed);
            if self.plan.user_namespace.is_some() && !self.own_network() {
                let why = "one of a user namespace of its own does not count in the host's network";
                opinion = Opinion::new(false, why, None);
            }
            opinions.push(Opinion {
                why: format!("ports below {UNPRIVILEGED} take {needed}: {}", opinion.why),
                ..opinion
            });
        }
        notes.extend(self.reach("it is bound to"));
        opinions
    }

    fn connect(&self, asked: &Port, notes: &mut Vec<String>) -> Vec<Opinion> {
        let mut opinions = self.port(asked, "connect");
        let step = self.plan.steps.iter().find(|step| matches!(step.op, Op::LoopbackUp));
        if self.own_network() && step.is_none() {
            opinions.insert(0, Opinion::new(false, "namespaces.net = \"none\": no interface is up", None));
        }
        notes.extend(self.address_note(asked));
        notes.extend(self.reach("it reaches"));
        opinions
    }

    fn own_network(&self) -> bool {
        let owned = self.plan.user_namespace.as_ref().map_or(0, |user| user.owned);
        (self.plan.namespaces | owned) & u64::from(libc::CLONE_NEWNET.cast_unsigned()) != 0
    }

    fn reach(&self, what: &str) -> Option<String> {
        self.own_network().then(|| format!("{what} a network of its own: nobody else is on it"))
    }

    fn port(&self, asked: &Port, call: &str) -> Vec<Opinion> {
        let port = asked.number;
        let mut opinions = Vec::new();
        opinions.extend(self.port_program(asked, call));
        opinions.extend(self.address_program(asked));
        if let (Some(landlock), Transport::Tcp) = (&self.plan.landlock, asked.transport) {
            let (rules, key) = match call {
                "bind" => (&landlock.bind_tcp, "bind_tcp"),
                _ => (&landlock.connect_tcp, "connect_tcp"),
            };
            let elements = self.policy.elements("landlock", key);
            let at = elements.iter().find(|(id, _)| *id == port.to_string()).map(|(_, at)| at);
            opinions.push(match rules {
                None => Opinion::new(true, format!("landlock.{key} does not restrict ports"), None),
                Some(ports) if ports.contains(&port) => {
                    Opinion::new(true, format!("landlock.{key} has {port}"), at)
                }
                Some(ports) => {
                    let listed: Vec<String> = ports.iter().map(u16::to_string).collect();
                    let has = match listed.as_slice() {
                        [] => "no port".to_owned(),
                        listed => format!("only {}", listed.join(", ")),
                    };
                    Opinion::new(
                        false,
                        format!("landlock.{key} has {has}"),
                        elements.first().map(|(_, at)| at),
                    )
                }
            });
        }
        opinions.push(self.socket(asked));
        opinions.extend(self.calls(&[(call, [0; 6])]));
        opinions
    }

    /// A socket for it; of either family, where no address says which.
    fn socket(&self, asked: &Port) -> Opinion {
        let socket = u32::try_from(libc::SYS_socket).unwrap_or(u32::MAX);
        let families: &[(i32, &str)] = match asked.address {
            None => &[(libc::AF_INET, "AF_INET"), (libc::AF_INET6, "AF_INET6")],
            Some(IpAddr::V4(_)) => &[(libc::AF_INET, "AF_INET")],
            Some(IpAddr::V6(_)) => &[(libc::AF_INET6, "AF_INET6")],
        };
        let names: Vec<&str> = families.iter().map(|(_, name)| *name).collect();
        let families = families.iter().map(|(family, _)| u64::from(family.cast_unsigned()));
        let kind = match asked.transport {
            Transport::Tcp => libc::SOCK_STREAM,
            Transport::Udp => libc::SOCK_DGRAM,
        };
        let kinds = [kind, kind | libc::SOCK_CLOEXEC];
        let ways = families
            .flat_map(|family| kinds.map(|kind| [family, u64::from(kind.cast_unsigned()), 0, 0, 0, 0]));
        let opinions: Vec<Opinion> = ways.map(|arguments| self.call(socket, Some(arguments))).collect();
        let best = opinions.iter().position(|opinion| opinion.allowed).unwrap_or(0);
        let mut opinion = opinions.into_iter().nth(best).expect("a family and two kinds");
        if !opinion.allowed {
            opinion.why = format!("{} for {}", opinion.why, names.join(" and "));
        }
        opinion
    }

    fn call(&self, number: u32, arguments: Option<[u64; 6]>) -> Opinion {
        let name = syscalls::name(number).map_or_else(|| format!("call {number}"), str::to_owned);
        let program = self.plan.steps.iter().find_map(|step| match &step.op {
            Op::Seccomp { program, .. } => Some((step, program)),
            _ => None,
        });
        let Some((step, program)) = program else {
            return Opinion::new(true, format!("{name}: there is no seccomp filter"), None);
        };
        let verdict = match arguments {
            None => seccomp::verdict(program, number),
            Some(arguments) => seccomp::verdict_with(program, number, arguments),
        };
        let denied = !matches!(verdict, None | Some(seccomp::ALLOW | seccomp::LOG));
        let (rule, at) = self.call_rule(number, &name, denied);
        match verdict {
            None => {
                let rules: Vec<&(String, Place)> = self.argument_rules(&name).collect();
                let at = rules.first().map(|(_, at)| at).or(at);
                let on =
                    if rules.is_empty() { "; other keys rule on them" } else { "; seccomp.rule says which" };
                Opinion::new(true, format!("seccomp: {name} is allowed with some arguments{on}"), at)
            }
            Some(seccomp::ALLOW) => Opinion::new(true, format!("seccomp: {name} is allowed{rule}"), at),
            Some(seccomp::LOG) => {
                Opinion::new(true, format!("seccomp: {name} is allowed and logged{rule}"), at)
            }
            Some(denial) => {
                let action = seccomp::action(denial);
                let conditional = arguments.is_some() && seccomp::verdict(program, number).is_none();
                let (rule, at) = match self.argument_rules(&name).next() {
                    Some((_, at)) if conditional => (" by seccomp.rule".to_owned(), Some(at)),
                    _ => (rule, at),
                };
                Opinion::new(false, format!("seccomp: {name} gets {action}{rule}"), at.or(step.at.as_ref()))
            }
        }
    }

    /// Which element of which list speaks of the call.
    fn call_rule(&self, number: u32, name: &str, denied: bool) -> (String, Option<&Place>) {
        let has = |(id, _): &&(String, Place)| {
            id == name || groups::members(id).is_some_and(|members| members.contains(&number))
        };
        // A call that is named speaks louder than its group.
        let find = |key| {
            let elements = self.policy.elements("seccomp", key);
            elements.iter().find(|(id, _)| id == name).or_else(|| elements.iter().find(has))
        };
        if syscalls::name(number).is_none() {
            return (": MotherD's table does not know it".to_owned(), None);
        }
        if let Some((id, at)) = find("deny") {
            return (format!(": seccomp.deny has {id}"), Some(at));
        }
        match find("allow") {
            Some((_, at)) if denied && MEMORY_FLAGS.contains(&name) => {
                let why =
                    ": what it asks for lies in memory, where no filter sees it; libraries do without it";
                (why.to_owned(), Some(at))
            }
            Some((id, at)) => (format!(": seccomp.allow has {id}"), Some(at)),
            None => (": it is not in seccomp.allow".to_owned(), None),
        }
    }

    fn argument_rules(&self, name: &str) -> impl Iterator<Item = &(String, Place)> {
        let elements = self.policy.elements("seccomp", "rule");
        elements.iter().filter(move |(id, _)| id.split(':').next() == Some(name))
    }

    fn capability(&self, capability: caps::Capability) -> Opinion {
        const NOROOT: u32 = 1; // SECBIT_NOROOT (linux/securebits.h)
        let index = capability.index();
        let mut steps = self.plan.steps.iter();
        let dropped = steps.any(|step| matches!(step.op, Op::DropBounding(number) if number == index));
        let mut steps = self.plan.steps.iter();
        let raised = steps.any(|step| matches!(step.op, Op::RaiseAmbient(number) if number == index));
        let mut steps = self.plan.steps.iter();
        let noroot = steps.any(|step| matches!(step.op, Op::Securebits(bits) if bits & NOROOT != 0));
        let kept = self.policy.elements("capabilities", "keep");
        let at = kept.iter().find(|(id, _)| *id == capability.to_string()).map(|(_, at)| at);
        let uid = self.plan.inside_uid;
        if dropped {
            return Opinion::new(false, format!("capabilities.keep does not have {capability}"), None);
        }
        if raised {
            return Opinion::new(true, format!("{capability} is kept and ambient"), at);
        }
        if uid == 0 && !noroot {
            return Opinion::new(true, format!("{capability} is kept, and uid 0 has it"), at);
        }
        Opinion::new(
            false,
            format!(
                "{capability} is kept but not in capabilities.ambient, so that uid {uid} loses it at execve"
            ),
            at,
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Read,
    Write,
    Execute,
}

impl Need {
    /// The Landlock rights that it takes, and the list of the policy that each comes from.
    fn rights(self, node: &Node) -> &'static [(AccessFs, &'static str)] {
        match (self, node) {
            (Self::Read, Node::Directory) => &[(AccessFs::ReadDir, "read")],
            (Self::Read, _) => &[(AccessFs::ReadFile, "read")],
            (Self::Write, Node::Missing { .. }) => {
                &[(AccessFs::MakeReg, "write"), (AccessFs::WriteFile, "write")]
            }
            (Self::Write, _) => &[(AccessFs::WriteFile, "write")],
            // execve(2) opens the file for reading (do_open_execat in fs/exec.c).
            (Self::Execute, _) => &[(AccessFs::Execute, "execute"), (AccessFs::ReadFile, "read")],
        }
    }
}

/// What is at a path of the sandbox, as far as that is known before it is built.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Directory,
    File,
    Device,
    /// Nothing; `parent`: the folder that it would be in is there.
    Missing {
        parent: bool,
    },
    /// The kernel fills it.
    Unknown,
}

/// What is mounted where, from a plan's steps.
pub(crate) struct Tree<'a> {
    pub(crate) mounts: Vec<Mount<'a>>,
    host: &'a dyn Host,
}

/// One mount.
pub(crate) struct Mount<'a> {
    pub(crate) target: String,
    pub(crate) source: Source<'a>,
    attributes: u64,
    at: Option<&'a Place>,
}

pub(crate) enum Source<'a> {
    /// This path of the host.
    Host(String),
    /// Made for the launch; with what is made in it, by name.
    Fresh { kind: &'a str, mode: Option<u32>, nodes: Vec<(&'a str, Made<'a>)> },
}

/// What a step makes in a new file system.
pub(crate) enum Made<'a> {
    /// With its number.
    Device(u64),
    Directory,
    File,
    Link(&'a str),
}

impl Mount<'_> {
    pub(crate) fn has(&self, attribute: u64) -> bool {
        self.attributes & attribute != 0
    }

    fn is_fresh(&self) -> bool {
        matches!(self.source, Source::Fresh { .. })
    }

    /// An empty folder that nobody may enter, or a device that cannot be opened in place of a file.
    pub(crate) fn is_hidden(&self) -> bool {
        match &self.source {
            Source::Fresh { kind, mode, .. } => *kind == "tmpfs" && *mode == Some(0),
            Source::Host(from) => from == "/dev/null" && self.has(libc::MOUNT_ATTR_NODEV),
        }
    }
}

impl<'a> Tree<'a> {
    /// Mounts in the order in which they are attached; the root comes first.
    pub(crate) fn of(plan: &'a Plan, host: &'a dyn Host) -> Self {
        let mut mounts = Vec::new();
        for step in plan.steps.iter() {
            let (slot, target) = match &step.op {
                Op::PivotRoot { tree, .. } => (*tree, "/"),
                Op::Mount { kind, target, attributes, options, .. } => {
                    let options = options.to_str().unwrap_or_default();
                    let mode = options.split(',').find_map(|option| option.strip_prefix("mode="));
                    let mode = mode.and_then(|mode| u32::from_str_radix(mode, 8).ok());
                    let kind = kind.to_str().unwrap_or_default();
                    let source = Source::Fresh { kind, mode, nodes: Vec::new() };
                    let target = target.to_str().unwrap_or_default().to_owned();
                    mounts.push(Mount { target, source, attributes: *attributes, at: step.at.as_ref() });
                    continue;
                }
                Op::Attach { from, target, through_links: _ } => (*from, target.to_str().unwrap_or_default()),
                _ => continue,
            };
            let (source, attributes) = of_slot(plan, slot);
            // The root's read-only attribute has a place of its own in the policy.
            let sealed = plan.steps.iter().find(|step| {
                matches!(&step.op, Op::SetAttributes { of, set, .. } if *of == slot && set & libc::MOUNT_ATTR_RDONLY != 0)
            });
            let at = sealed.filter(|_| target == "/").and_then(|step| step.at.as_ref()).or(step.at.as_ref());
            mounts.push(Mount { target: target.to_owned(), source, attributes, at });
        }
        Self { mounts, host }
    }

    /// The mount that decides over `path`: the most specific one, of several the last.
    pub(crate) fn covering(&self, path: &str) -> Option<&Mount<'a>> {
        let above = self.mounts.iter().filter(|mount| is_beneath(path, &mount.target));
        above.max_by_key(|mount| mount.target.trim_end_matches('/').len())
    }

    /// The path on the host, if what is there comes from the host.
    fn on_host(&self, path: &str) -> Option<String> {
        match self.covering(path) {
            None => Some(path.to_owned()),
            Some(Mount { source: Source::Host(from), target, .. }) => Some(join(from, rest(path, target))),
            Some(Mount { source: Source::Fresh { .. }, .. }) => None,
        }
    }

    fn made(&self, path: &str) -> Option<&Made<'a>> {
        let mount = self.covering(path)?;
        let Source::Fresh { nodes, .. } = &mount.source else { return None };
        let name = rest(path, &mount.target).trim_start_matches('/');
        nodes.iter().find(|(known, _)| *known == name).map(|(_, made)| made)
    }

    /// The path with its symbolic links followed, as the service will follow them. What is missing stays as it is.
    pub(crate) fn resolve(&self, path: &str) -> String {
        let link = |path: &str| match self.made(path) {
            Some(Made::Link(target)) => Some((*target).to_owned()),
            Some(Made::Device(_) | Made::Directory | Made::File) => None,
            None => self.on_host(path).and_then(|on_host| self.host.link(&on_host)),
        };
        follow(path, link)
    }

    fn node(&self, path: &str, host: &dyn Host) -> Node {
        if self.mounts.iter().any(|mount| mount.target != path && is_beneath(&mount.target, path)) {
            return Node::Directory; // Something is mounted beneath.
        }
        match self.made(path) {
            Some(Made::Directory) => return Node::Directory,
            Some(Made::File) => return Node::File,
            Some(Made::Device(_) | Made::Link(_)) => return Node::Device,
            None => {}
        }
        let parent = || {
            let above =
                path.rsplit_once('/').map_or("/", |(above, _)| if above.is_empty() { "/" } else { above });
            above == path || self.node(above, host) == Node::Directory
        };
        if let Some(on_host) = self.on_host(path) {
            return match host.kind(&on_host) {
                Ok(FileKind::Directory) => Node::Directory,
                Ok(FileKind::Other) => Node::File,
                Err(_) => Node::Missing { parent: parent() },
            };
        }
        match self.covering(path) {
            Some(mount) if mount.target == path => Node::Directory,
            Some(Mount { source: Source::Fresh { kind: "tmpfs" | "ramfs", .. }, .. }) => {
                Node::Missing { parent: parent() }
            }
            _ => Node::Unknown,
        }
    }

    /// The device that a node is, if it is one.
    fn device(&self, path: &str, host: &dyn Host) -> Option<(DeviceKind, u32, u32)> {
        match self.made(path) {
            Some(Made::Device(number)) => network::numbers(*number),
            Some(Made::Directory | Made::File | Made::Link(_)) => None,
            None => host.device(&self.on_host(path)?).ok()?,
        }
    }

    /// What tells an inode from others: where it is on the host, or in which new mount.
    fn identity(&self, path: &str, host: &dyn Host) -> String {
        match self.on_host(path) {
            Some(on_host) => format!("host {}", follow(&on_host, |path| host.link(path))),
            None => format!("new {path}"),
        }
    }
}

/// What a slot holds when it is attached, and the attributes that it then has.
fn of_slot(plan: &Plan, slot: Slot) -> (Source<'_>, u64) {
    let mut source = Source::Fresh { kind: "", mode: None, nodes: Vec::new() };
    let mut attributes = 0;
    for step in plan.steps.iter() {
        match &step.op {
            // Later than that it is a path of the sandbox's own tree.
            Op::CloneTree { path, into } if *into == slot && step.phase == Phase::Collect => {
                source = Source::Host(path.to_string_lossy().into_owned());
            }
            Op::NewFilesystem { kind, options, attributes: own, into, .. } if *into == slot => {
                let mode = options.iter().find(|(key, _)| key.as_c_str() == c"mode");
                let mode = mode.and_then(|(_, mode)| u32::from_str_radix(mode.to_str().ok()?, 8).ok());
                source = Source::Fresh { kind: kind.to_str().unwrap_or_default(), mode, nodes: Vec::new() };
                attributes |= own;
            }
            Op::SetAttributes { of, set, .. } if *of == slot => attributes |= set,
            _ => {}
        }
    }
    if let Source::Fresh { nodes, .. } = &mut source {
        for step in plan.steps.iter() {
            let made = match &step.op {
                Op::Mknod { at, name, device, .. } if *at == slot => (name, Made::Device(*device)),
                Op::Mkdir { at, name, .. } if *at == slot => (name, Made::Directory),
                Op::WriteCredential { at, name, .. } if *at == slot => (name, Made::File),
                Op::Symlink { at, name, target } if *at == slot => {
                    (name, Made::Link(target.to_str().unwrap_or_default()))
                }
                _ => continue,
            };
            nodes.push((made.0.to_str().unwrap_or_default(), made.1));
        }
    }
    (source, attributes)
}

/// Follows links as path_resolution(7) has it; after forty the path is what it was.
fn follow(path: &str, link: impl Fn(&str) -> Option<String>) -> String {
    const LINKS: usize = 40;
    let mut left: VecDeque<String> = components(path).collect();
    let mut done: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(component) = left.pop_front() {
        if component == ".." {
            done.pop();
            continue;
        }
        done.push(component);
        let here = format!("/{}", done.join("/"));
        let Some(target) = link(&here) else { continue };
        links += 1;
        if links > LINKS {
            return path.to_owned();
        }
        done.pop();
        if target.starts_with('/') {
            done.clear();
        }
        for component in components(&target).collect::<Vec<_>>().into_iter().rev() {
            left.push_front(component);
        }
    }
    format!("/{}", done.join("/"))
}

fn components(path: &str) -> impl Iterator<Item = String> + '_ {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned)
}

/// The folder that a path is in.
fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("/", |(above, _)| if above.is_empty() { "/" } else { above })
}

/// The path, its folder, and so on to the root.
fn ancestors(path: &str) -> Vec<&str> {
    let mut all = vec![path];
    all.extend(path.match_indices('/').rev().map(|(index, _)| if index == 0 { "/" } else { &path[..index] }));
    all.dedup();
    all
}

fn rest<'p>(path: &'p str, mount: &str) -> &'p str {
    if mount == "/" { path } else { path.strip_prefix(mount).unwrap_or("") }
}

fn join(prefix: &str, rest: &str) -> String {
    match (prefix.trim_end_matches('/'), rest.trim_start_matches('/')) {
        ("", "") => "/".to_owned(),
        (prefix, "") => prefix.to_owned(),
        (prefix, rest) => format!("{prefix}/{rest}"),
    }
}
