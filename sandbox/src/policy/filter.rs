//! What `[seccomp]`, and the `restrict_` keys of `[process]`, say beyond names of calls: kinds of namespaces, sockets,
//! operations of ioctl(2) and prctl(2), and what a denied call gets.

use std::collections::BTreeSet;

use super::{
    Denial,
    listed::{Keyed, Listed},
    names::CONSTANTS,
    reader::{Item, Notes, did_you_mean},
    values,
    written::quoted,
};
use crate::diagnostic::{Diagnostic, Located, Place};

/// A kind of namespace (namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NamespaceKind {
    /// CLONE_NEWCGROUP
    Cgroup,
    /// CLONE_NEWIPC
    Ipc,
    /// CLONE_NEWNS
    Mount,
    /// CLONE_NEWNET
    Net,
    /// CLONE_NEWPID
    Pid,
    /// CLONE_NEWTIME
    Time,
    /// CLONE_NEWUSER
    User,
    /// CLONE_NEWUTS
    Uts,
}

const KINDS: &[(&str, NamespaceKind)] = &[
    ("cgroup", NamespaceKind::Cgroup),
    ("ipc", NamespaceKind::Ipc),
    ("mount", NamespaceKind::Mount),
    ("net", NamespaceKind::Net),
    ("pid", NamespaceKind::Pid),
    ("time", NamespaceKind::Time),
    ("user", NamespaceKind::User),
    ("uts", NamespaceKind::Uts),
];

impl NamespaceKind {
    /// Every kind.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        KINDS.iter().map(|(_, kind)| *kind)
    }

    /// Its flag for unshare(2) and setns(2).
    pub(crate) fn flag(self) -> u32 {
        let flag = match self {
            Self::Cgroup => libc::CLONE_NEWCGROUP,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Mount => libc::CLONE_NEWNS,
            Self::Net => libc::CLONE_NEWNET,
            Self::Pid => libc::CLONE_NEWPID,
            Self::Time => libc::CLONE_NEWTIME,
            Self::User => libc::CLONE_NEWUSER,
            Self::Uts => libc::CLONE_NEWUTS,
        };
        flag.cast_unsigned()
    }
}

impl Listed for NamespaceKind {
    fn id(&self) -> String {
        KINDS.iter().find(|(_, kind)| kind == self).map_or_else(String::new, |(word, _)| (*word).to_owned())
    }
}

pub(super) fn namespace_kind(item: &Item<'_>, notes: &mut Notes) -> Option<Located<NamespaceKind>> {
    values::word(item, "unknown-value", KINDS, notes)
}

/// A way to call the kernel, with numbers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Architecture {
    /// x86_64.
    Native,
    /// 32-bit programs, and `int 0x80` in any.
    I386,
    /// 64-bit calls with 32-bit addresses: X32_SYSCALL_BIT in the number.
    X32,
}

const ARCHITECTURES: &[(&str, Architecture)] =
    &[("native", Architecture::Native), ("i386", Architecture::I386), ("x32", Architecture::X32)];

impl Listed for Architecture {
    fn id(&self) -> String {
        let word = ARCHITECTURES.iter().find(|(_, known)| known == self);
        word.map_or_else(String::new, |(word, _)| (*word).to_owned())
    }

    fn default_list(_key: &'static str) -> Vec<Self> {
        vec![Self::Native]
    }
}

pub(super) fn architecture(item: &Item<'_>, notes: &mut Notes) -> Option<Located<Architecture>> {
    values::word(item, "unknown-architecture", ARCHITECTURES, notes)
}

/// The list, which has to have the native one: the service is executed by its execve(2).
pub(super) fn architectures(
    list: Vec<Located<Architecture>>,
    at: &Place,
    notes: &mut Notes,
) -> BTreeSet<Architecture> {
    let all: BTreeSet<Architecture> = list.iter().map(|one| one.value).collect();
    // A word that could not be read has been told of.
    if !all.contains(&Architecture::Native) && notes.is_empty() {
        let message = "without \"native\" the filter would end the service before it is executed";
        let help = "write [\"native\"], and the others beside it";
        notes.push(Diagnostic::error("native-needed", at.clone(), message).help(help));
    }
    all
}

/// One kind of socket that may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketRule {
    /// As it is written, for removing it: `AF_INET SOCK_STREAM`.
    pub(crate) name: String,
    /// AF_*
    pub family: u32,
    /// SOCK_*, compared without SOCK_CLOEXEC and SOCK_NONBLOCK; `None` is any.
    pub kind: Option<u32>,
    /// The protocol; `None` is any.
    pub protocol: Option<u32>,
}

#[cfg(test)]
impl SocketRule {
    /// A row that names nothing, for tests to fill in.
    pub(crate) fn any() -> Self {
        Self { name: String::new(), family: 0, kind: None, protocol: None }
    }
}

impl Listed for SocketRule {
    fn id(&self) -> String {
        self.name.clone()
    }
}

/// The keys of an entry of `seccomp.socket`.
pub(super) const SOCKET_KEYS: &[&str] = &["family", "type", "protocol"];

/// What socket(2) takes beside the type.
pub(crate) const SOCKET_FLAGS: u32 = (libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).cast_unsigned();

/// `{ family = "AF_INET", type = "SOCK_STREAM", protocol = "IPPROTO_TCP" }`.
pub(super) fn socket(item: &Item<'_>, notes: &mut Notes) -> Option<Located<SocketRule>> {
    let table = item.table(SOCKET_KEYS, notes)?;
    let family =
        table.require("family", notes).and_then(|item| constant(&item, &["AF_"], "address family", notes));
    let kind = match table.get("type") {
        Some(item) => Some(constant(&item, &["SOCK_"], "type of socket", notes).filter(|kind| {
            if kind.value.1 & SOCKET_FLAGS != 0 {
                let message = format!("`{}` is no type of socket", kind.value.0);
                let label = "SOCK_CLOEXEC and SOCK_NONBLOCK are allowed with every type";
                notes.push(Diagnostic::error("unknown-constant", kind.at.clone(), message).label(label));
            }
            kind.value.1 & SOCKET_FLAGS == 0
        })?),
        None => None,
    };
    let protocol = match table.get("protocol") {
        Some(item) => Some(constant(&item, &["IPPROTO_", "NETLINK_"], "protocol", notes)?),
        None => None,
    };
    let family = family?;
    let words = [Some(&family), kind.as_ref(), protocol.as_ref()];
    let name = words.into_iter().flatten().map(|word| word.value.0.as_str()).collect::<Vec<_>>().join(" ");
    let rule = SocketRule {
        name,
        family: family.value.1,
        kind: kind.map(|kind| kind.value.1),
        protocol: protocol.map(|protocol| protocol.value.1),
    };
    Some(Located::new(rule, item.at()))
}

/// An operation of ioctl(2) or prctl(2): as it is written, and its number.
pub(super) type Operation = (String, u32);

impl Listed for Operation {
    fn id(&self) -> String {
        self.0.clone()
    }
}

pub(super) fn ioctl(item: &Item<'_>, notes: &mut Notes) -> Option<Located<Operation>> {
    constant(item, &["TC", "TIOC", "FIO"], "request of ioctl(2)", notes)
}

pub(super) fn prctl(item: &Item<'_>, notes: &mut Notes) -> Option<Located<Operation>> {
    constant(item, &["PR_"], "operation of prctl(2)", notes)
}

/// A number, or the name of a constant that starts with one of `prefixes`.
fn constant(item: &Item<'_>, prefixes: &[&str], what: &str, notes: &mut Notes) -> Option<Located<Operation>> {
    let named = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let word = match item.value().as_str() {
        Some(word) if word.starts_with(|c: char| c.is_ascii_digit()) => word.to_owned(),
        Some(_) => {
            let text = item.text(notes)?;
            let known = CONSTANTS.iter().find(|(name, _)| named(name) && *name == text.value);
            if known.is_none() {
                let names = CONSTANTS.iter().map(|(name, _)| *name).filter(|name| named(name));
                let message = format!("no {what} is named `{}`", text.value);
                let label = did_you_mean(&text.value, names);
                let help = "a number will do as well, decimal or with 0x";
                notes.push(Diagnostic::error("unknown-constant", text.at, message).label(label).help(help));
            }
            return known.map(|(name, value)| Located::new(((*name).to_owned(), *value), item.at()));
        }
        None => item.number().map(|number| number.to_string()).unwrap_or_default(),
    };
    Some(values::argument_value(item, notes)?.map(|value| (word, value)))
}

/// What calls get when they are denied, where it is not the default.
#[derive(Debug, Clone)]
pub struct Action {
    /// The call or the group, as it is written.
    pub name: String,
    /// Its calls.
    pub calls: Vec<u32>,
    /// What they get.
    pub denial: Denial,
}

impl Action {
    /// Whether it is about one call, which is stronger than what a group has it.
    #[must_use]
    pub fn names_one_call(&self) -> bool {
        !self.name.starts_with('@')
    }
}

/// `ptrace = "kill-process"`, or `ptrace = false`, which takes the inherited action away.
#[derive(Debug)]
pub(super) enum RawAction {
    /// This one.
    Set(Action),
    /// None.
    Remove(String),
}

impl Keyed for RawAction {
    fn key(&self) -> String {
        match self {
            Self::Set(action) => action.name.clone(),
            Self::Remove(name) => name.clone(),
        }
    }

    fn removes(&self) -> bool {
        matches!(self, Self::Remove(_))
    }

    fn entry(&self) -> (String, String) {
        match self {
            Self::Set(Action { name, denial, .. }) => (name.clone(), quoted(&values::denial_word(*denial))),
            Self::Remove(name) => (name.clone(), "false".to_owned()),
        }
    }
}

/// One entry of `[seccomp.action]`.
pub(super) fn action(
    name: Located<String>,
    item: &Item<'_>,
    notes: &mut Notes,
) -> Option<Located<RawAction>> {
    let at = name.at.clone();
    if item.value().as_bool() == Some(false) {
        return Some(Located::new(RawAction::Remove(name.value), at));
    }
    let calls = values::named_calls(name, notes);
    let denial = values::denial(item, notes)?.value;
    let (name, calls) = calls?.value;
    Some(Located::new(RawAction::Set(Action { name, calls, denial }), at))
}
