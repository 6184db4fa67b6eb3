//! [`RawPolicy`]: exactly the keys of one file, each with its place and each value checked by itself.
//!
//! What a file leaves out is `None`. [`RawPolicy::over`] puts a file on top of what it extends: table by table, key by
//! key, the later one wins; a list replaces, `{ add, remove }` changes. What values mean together is `validate`'s.
//!
//! The keys of a section are written once, in [`section!`], from which the fields, the reading, the merging and the
//! list of known keys are made. So a key cannot be read and not merged, or be known and not read.

use std::collections::BTreeMap;

use super::{
    Account, ArgumentRule, Bind, Credential, Denial, DevView, DeviceRule, LandlockFeature, Limit, Net,
    Network, OptionalPath, Overlay, PortRule, ProcView, Rlimit, Root, Scope, Share, SysView, Tmpfs,
    UserNamespace, WritablePath, addresses,
    arguments::{self, Kind},
    devices, filesystem,
    filter::{self, Architecture, NamespaceKind, Operation, RawAction, SocketRule},
    listed::{Keyed, Listed},
    names::RESOURCES,
    namespaces,
    pressure::{self, PressureTrigger},
    reader::{Item, Notes, Table, unknown},
    resources::{self, IoLatency, IoMax, NamedLimit, RdmaMax},
    scheduling::{
        self, CPUS, DisabledSpeculation, IndexRange, IoClass, NODES, NumaPolicy, Scheduler, Securebit,
    },
    values,
    written::{self, Written, WrittenKey, WrittenTable},
};
use crate::{
    diagnostic::{Diagnostic, FileId, Located, Place, nearest},
    syscalls::{self, versions},
};

/// How the value of a key goes on top of an inherited one.
trait Merge: Sized {
    /// `below` is `None` where nothing was inherited. `key` is the last part of the key, for defaults and messages.
    fn over(self, below: Option<Self>, key: &'static str, notes: &mut Notes) -> Self;

    /// Where it is written, for `policy show`.
    fn written(&self) -> Written;
}

/// A single value: the later one wins.
impl<T> Merge for Located<T> {
    fn over(self, _below: Option<Self>, _key: &'static str, _notes: &mut Notes) -> Self {
        self
    }

    fn written(&self) -> Written {
        Written::One(self.at.clone())
    }
}

/// Makes a section: a struct, its keys, its reading and its merging.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($key:ident: $type:ty = $read:expr),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub(super) struct $name {
            $(pub(super) $key: Option<$type>,)*
            /// Where each key's value begins that is written: an empty list has no other place.
            pub(super) places: BTreeMap<&'static str, Place>,
        }

        impl $name {
            /// The keys that the section may have.
            pub(super) const KEYS: &'static [&'static str] = &[$(stringify!($key)),*];

            fn read(item: &Item<'_>, notes: &mut Notes) -> Self {
                let Some(table) = item.table(Self::KEYS, notes) else { return Self::default() };
                let at = |key| Some((key, table.place(key)?));
                Self {
                    $($key: table.get(stringify!($key)).and_then(|item| $read(&item, notes)),)*
                    places: [$(at(stringify!($key))),*].into_iter().flatten().collect(),
                }
            }

            fn over(self, below: Self, notes: &mut Notes) -> Self {
                Self {
                    $($key: match self.$key {
                        Some(value) => Some(Merge::over(value, below.$key, stringify!($key), notes)),
                        None => below.$key,
                    },)*
                    places: below.places.into_iter().chain(self.places).collect(),
                }
            }

            fn written(&self) -> Vec<WrittenKey> {
                let key = |key, value| WrittenKey { key, at: self.places.get(key).cloned(), value };
                vec![$(key(stringify!($key), self.$key.as_ref().map(Merge::written))),*]
            }
        }
    };
}

section! {
    /// `[namespaces]`
    RawNamespaces {
        mount: Located<Share> = share,
        pid: Located<Share> = share,
        ipc: Located<Share> = share,
        uts: Located<Share> = share,
        cgroup: Located<Share> = share,
        net: Located<Net> = namespaces::net,
        user: Located<UserNamespace> = namespaces::user,
        time: Located<Share> = share,
        hostname: Located<String> = namespaces::host_name,
        domainname: Located<String> = namespaces::host_name,
        time_offset_monotonic: Located<i64> = namespaces::offset,
        time_offset_boottime: Located<i64> = namespaces::offset,
    }
}

section! {
    /// `[filesystem]`
    RawFilesystem {
        root: Located<Root> = values::root,
        read_only: List<String> = |item: &_, notes: &mut _| list(item, notes, values::path),
        hidden: List<String> = |item: &_, notes: &mut _| list(item, notes, hidden_path),
        tmpfs: List<Tmpfs> = |item: &_, notes: &mut _| list(item, notes, filesystem::tmpfs),
        proc: Located<ProcView> = proc_view,
        dev: Located<DevView> = dev_view,
        sys: Located<SysView> = sys_view,
        read_write: List<WritablePath> = |item: &_, notes: &mut _| list(item, notes, filesystem::writable_path),
        bind: List<Bind> = |item: &_, notes: &mut _| list(item, notes, filesystem::bind),
        overlay: List<Overlay> = |item: &_, notes: &mut _| list(item, notes, filesystem::overlay),
    }
}

section! {
    /// `[process]`
    RawProcess {
        user: Located<Account> = values::account,
        group: Located<Account> = values::account,
        supplementary_groups: List<Account> = |item: &_, notes: &mut _| list(item, notes, values::named_account),
        no_new_privs: Located<bool> = Item::boolean,
        umask: Located<u32> = |item: &_, notes: &mut _| values::mode(item, 0o777, notes),
        working_directory: Located<String> = working_directory,
        environment: Named<Variable> = environment,
        oom_score_adj: Located<i16> = |item: &Item<'_>, notes: &mut _| item.integer(-1000, 1000, notes),
        nice: Located<i8> = |item: &Item<'_>, notes: &mut _| item.integer(-20, 19, notes),
        memory_deny_write_execute: Located<bool> = Item::boolean,
        lock_personality: Located<bool> = Item::boolean,
        core_dumps: Located<bool> = Item::boolean,
        keyring: Located<Share> = share,
        scheduler: Located<Scheduler> = scheduling::scheduler,
        scheduler_priority: Located<u8> = |item: &Item<'_>, notes: &mut _| item.integer(0, 99, notes),
        cpu_affinity: List<IndexRange> = |item: &_, notes: &mut _| some_indices(item, CPUS, notes),
        numa_policy: Located<NumaPolicy> = scheduling::numa_policy,
        numa_nodes: List<IndexRange> = |item: &_, notes: &mut _| indices(item, NODES, notes),
        io_class: Located<IoClass> = scheduling::io_class,
        io_priority: Located<u8> = |item: &Item<'_>, notes: &mut _| item.integer(0, 7, notes),
        timer_slack: Located<u64> = |item: &_, notes: &mut _| scheduling::duration(item, 1, 1_000_000_000, notes),
        disable_speculation: List<DisabledSpeculation> =
            |item: &_, notes: &mut _| list(item, notes, scheduling::disabled_speculation),
        securebits: List<Securebit> = |item: &_, notes: &mut _| list(item, notes, scheduling::securebit),
        restrict_realtime: Located<bool> = Item::boolean,
        restrict_suid: Located<bool> = Item::boolean,
        restrict_namespaces: AnyOr<NamespaceKind> = namespace_kinds,
    }
}

section! {
    /// `[capabilities]`
    RawCapabilities {
        keep: List<caps::Capability> = |item: &_, notes: &mut _| list(item, notes, values::capability),
        ambient: List<caps::Capability> = |item: &_, notes: &mut _| list(item, notes, values::capability),
    }
}

section! {
    /// `[landlock]`
    RawLandlock {
        read: List<OptionalPath> = |item: &_, notes: &mut _| list(item, notes, values::optional_path),
        execute: List<OptionalPath> = |item: &_, notes: &mut _| list(item, notes, values::optional_path),
        write: List<OptionalPath> = |item: &_, notes: &mut _| list(item, notes, values::optional_path),
        bind_tcp: AnyOr<u16> = ports,
        connect_tcp: AnyOr<u16> = ports,
        scope: List<Scope> = |item: &_, notes: &mut _| list(item, notes, scope),
        optional: List<LandlockFeature> = |item: &_, notes: &mut _| list(item, notes, landlock_feature),
    }
}

section! {
    /// `[seccomp]`
    RawSeccomp {
        default: Located<Denial> = values::denial,
        allow: List<Calls> = |item: &_, notes: &mut _| list(item, notes, values::calls),
        deny: List<Calls> = |item: &_, notes: &mut _| list(item, notes, values::calls),
        architectures: List<Architecture> = |item: &_, notes: &mut _| list(item, notes, filter::architecture),
        log: Located<bool> = Item::boolean,
        rule: List<ArgumentRule> = |item: &_, notes: &mut _| list(item, notes, rule),
        socket: List<SocketRule> = |item: &_, notes: &mut _| list(item, notes, filter::socket),
        ioctl: List<Operation> = |item: &_, notes: &mut _| list(item, notes, filter::ioctl),
        prctl: List<Operation> = |item: &_, notes: &mut _| list(item, notes, filter::prctl),
        io_uring: Located<bool> = Item::boolean,
        groups: Located<u32> = |item: &Item<'_>, notes: &mut _| item.integer(1, versions::VERSION, notes),
        action: Named<RawAction> = |item: &_, notes: &mut _| named(item, notes, filter::action),
    }
}

section! {
    /// `[cgroup]`
    RawCgroup {
        memory_high: Located<Limit> = values::limit,
        memory_max: Located<Limit> = values::limit,
        swap_max: Located<Limit> = values::limit,
        pids_max: Located<Limit> = values::count,
        cpu_weight: Located<u32> = |item: &Item<'_>, notes: &mut _| item.integer(1, 10_000, notes),
        cpu_max: Located<Limit> = values::cpu_share,
        io_weight: Located<u32> = |item: &Item<'_>, notes: &mut _| item.integer(1, 10_000, notes),
        oom_group: Located<bool> = Item::boolean,
        memory_min: Located<Limit> = values::limit,
        memory_low: Located<Limit> = values::limit,
        swap_high: Located<Limit> = values::limit,
        memory_zswap_max: Located<Limit> = values::limit,
        memory_zswap_writeback: Located<bool> = Item::boolean,
        cpu_idle: Located<bool> = Item::boolean,
        cpu_burst: Located<u64> = |item: &_, notes: &mut _| resources::microseconds(item, 0, 1_000_000_000_000, notes),
        cpuset_cpus: List<IndexRange> = |item: &_, notes: &mut _| some_indices(item, CPUS, notes),
        cpuset_mems: List<IndexRange> = |item: &_, notes: &mut _| some_indices(item, NODES, notes),
        io_max: List<IoMax> = |item: &_, notes: &mut _| list(item, notes, resources::io_max),
        io_latency: List<IoLatency> = |item: &_, notes: &mut _| list(item, notes, resources::io_latency),
        hugetlb: Named<NamedLimit> = |item: &_, notes: &mut _| named(item, notes, resources::huge_pages),
        rdma: List<RdmaMax> = |item: &_, notes: &mut _| list(item, notes, resources::rdma),
        misc: Named<NamedLimit> = |item: &_, notes: &mut _| named(item, notes, resources::misc),
        pressure: List<PressureTrigger> = |item: &_, notes: &mut _| list(item, notes, pressure::trigger),
        ip_allow: List<Network> = |item: &_, notes: &mut _| list(item, notes, addresses::network),
        ip_deny: List<Network> = |item: &_, notes: &mut _| list(item, notes, addresses::network),
        socket_bind: AnyOr<PortRule> =
            |item: &_, notes: &mut _| any_or(item, notes, "[\"tcp:80\"]", addresses::port_rule),
        socket_connect: AnyOr<PortRule> =
            |item: &_, notes: &mut _| any_or(item, notes, "[\"udp:53\"]", addresses::port_rule),
        optional: List<&'static str> = |item: &_, notes: &mut _| list(item, notes, controller),
        devices: AnyOr<DeviceRule> =
            |item: &_, notes: &mut _| any_or(item, notes, "[\"/dev/kvm\"]", devices::device),
    }
}

/// One file, or several that were merged.
#[derive(Debug, Default)]
pub(super) struct RawPolicy {
    pub(super) description: Option<Located<String>>,
    pub(super) extends: Vec<Located<String>>,
    pub(super) unconfined: Option<Located<bool>>,
    pub(super) namespaces: RawNamespaces,
    pub(super) filesystem: RawFilesystem,
    pub(super) process: RawProcess,
    pub(super) capabilities: RawCapabilities,
    pub(super) landlock: RawLandlock,
    pub(super) seccomp: RawSeccomp,
    pub(super) cgroup: RawCgroup,
    pub(super) credentials: Option<Named<Credential>>,
    pub(super) rlimits: Option<Named<Rlimit>>,
    /// The sections that are written, by name, the nearest file's places first.
    pub(super) sections: Vec<Located<&'static str>>,
}

impl RawPolicy {
    /// The keys of a policy; those that are no section are the first three.
    pub(super) const KEYS: &'static [&'static str] = &[
        "description",
        "extends",
        "unconfined",
        "namespaces",
        "filesystem",
        "process",
        "capabilities",
        "landlock",
        "seccomp",
        "cgroup",
        "credentials",
        "rlimits",
    ];

    /// Reads what a file says.
    pub(super) fn read(file: FileId, tree: &toml::Spanned<toml::de::DeTable<'_>>, notes: &mut Notes) -> Self {
        let table = Table::root(file, tree, Self::KEYS, notes);
        let mut raw = Self {
            description: table.get("description").and_then(|item| item.text(notes)),
            extends: table
                .get("extends")
                .and_then(|item| plain_list(&item, notes, |item, notes| item.text(notes)))
                .unwrap_or_default(),
            unconfined: table.get("unconfined").and_then(|item| item.boolean(notes)),
            ..Self::default()
        };
        let mut section = |key| {
            let item = table.get(key)?;
            raw.sections.push(Located::new(key, item.at()));
            Some(item)
        };
        let namespaces = section("namespaces");
        let filesystem = section("filesystem");
        let process = section("process");
        let capabilities = section("capabilities");
        let landlock = section("landlock");
        let seccomp = section("seccomp");
        let cgroup = section("cgroup");
        let credentials = section("credentials");
        let rlimits = section("rlimits");
        raw.namespaces = namespaces.map(|item| RawNamespaces::read(&item, notes)).unwrap_or_default();
        raw.filesystem = filesystem.map(|item| RawFilesystem::read(&item, notes)).unwrap_or_default();
        raw.process = process.map(|item| RawProcess::read(&item, notes)).unwrap_or_default();
        raw.capabilities = capabilities.map(|item| RawCapabilities::read(&item, notes)).unwrap_or_default();
        raw.landlock = landlock.map(|item| RawLandlock::read(&item, notes)).unwrap_or_default();
        raw.seccomp = seccomp.map(|item| RawSeccomp::read(&item, notes)).unwrap_or_default();
        raw.cgroup = cgroup.map(|item| RawCgroup::read(&item, notes)).unwrap_or_default();
        raw.credentials = credentials.and_then(|item| filesystem::credentials(&item, notes)).map(Named);
        raw.rlimits = rlimits.and_then(|item| read_rlimits(&item, notes));
        raw
    }

    /// This file on top of what it extends.
    pub(super) fn over(self, below: Self, notes: &mut Notes) -> Self {
        Self {
            description: self.description.or(below.description),
            extends: Vec::new(),
            unconfined: self.unconfined.or(below.unconfined),
            namespaces: self.namespaces.over(below.namespaces, notes),
            filesystem: self.filesystem.over(below.filesystem, notes),
            process: self.process.over(below.process, notes),
            capabilities: self.capabilities.over(below.capabilities, notes),
            landlock: self.landlock.over(below.landlock, notes),
            seccomp: self.seccomp.over(below.seccomp, notes),
            cgroup: self.cgroup.over(below.cgroup, notes),
            credentials: match self.credentials {
                Some(credentials) => Some(credentials.over(below.credentials, "credentials", notes)),
                None => below.credentials,
            },
            rlimits: match self.rlimits {
                Some(limits) => Some(limits.over(below.rlimits, "rlimits", notes)),
                None => below.rlimits,
            },
            sections: self.sections.into_iter().chain(below.sections).collect(),
        }
    }

    /// Where every key is written; the file's own first, under no name.
    pub(super) fn written(&self) -> Vec<WrittenTable> {
        let key = |key, value| WrittenKey { key, at: None, value };
        let own = vec![
            key("description", self.description.as_ref().map(Merge::written)),
            key("unconfined", self.unconfined.as_ref().map(Merge::written)),
        ];
        vec![
            ("", own),
            ("namespaces", self.namespaces.written()),
            ("filesystem", self.filesystem.written()),
            ("process", self.process.written()),
            ("capabilities", self.capabilities.written()),
            ("landlock", self.landlock.written()),
            ("seccomp", self.seccomp.written()),
            ("cgroup", self.cgroup.written()),
            ("credentials", vec![key("credentials", self.credentials.as_ref().map(Merge::written))]),
            ("rlimits", vec![key("rlimits", self.rlimits.as_ref().map(Merge::written))]),
        ]
    }
}

/// Every table that a policy may have, by its path, and the keys it may have.
pub(super) fn keys() -> Vec<(&'static str, &'static [&'static str])> {
    vec![
        ("", RawPolicy::KEYS),
        ("namespaces", RawNamespaces::KEYS),
        ("namespaces.user", namespaces::ID_MAP_KEYS),
        ("filesystem", RawFilesystem::KEYS),
        ("filesystem.tmpfs", filesystem::TMPFS_KEYS),
        ("filesystem.bind", filesystem::BIND_KEYS),
        ("filesystem.overlay", filesystem::OVERLAY_KEYS),
        ("credentials.NAME", filesystem::CREDENTIAL_KEYS),
        ("filesystem.read_write", filesystem::WRITABLE_PATH_KEYS),
        ("process", RawProcess::KEYS),
        ("process.disable_speculation", scheduling::SPECULATION_KEYS),
        ("capabilities", RawCapabilities::KEYS),
        ("landlock", RawLandlock::KEYS),
        ("landlock.read", values::OPTIONAL_PATH_KEYS),
        ("seccomp", RawSeccomp::KEYS),
        ("seccomp.rule", RULE_KEYS),
        ("seccomp.socket", filter::SOCKET_KEYS),
        ("cgroup", RawCgroup::KEYS),
        ("cgroup.io_max", resources::IO_MAX_KEYS),
        ("cgroup.io_latency", resources::IO_LATENCY_KEYS),
        ("cgroup.rdma", resources::RDMA_KEYS),
        ("cgroup.pressure", pressure::PRESSURE_KEYS),
        ("cgroup.devices", devices::DEVICE_KEYS),
    ]
}

/// A list, or a change to one.
#[derive(Debug)]
pub(super) enum List<T> {
    /// `[...]`
    Replace(Vec<Located<T>>),
    /// `{ add = [...], remove = [...] }`
    Change { add: Vec<Located<T>>, remove: Vec<Located<String>> },
}

/// The keys of a change to a list.
pub(super) const CHANGE_KEYS: &[&str] = &["add", "remove"];

impl<T: Listed> List<T> {
    /// The list, after every file was merged; `at` is where values that nobody wrote are said to stand.
    pub(super) fn resolve(list: Option<Self>, key: &'static str, at: &Place) -> Vec<Located<T>> {
        match list {
            Some(Self::Replace(values)) => values,
            // `over` with nothing below turns a change into a list, and every file goes through `over`.
            Some(Self::Change { add, .. }) => add,
            None => T::default_list(key).into_iter().map(|value| Located::new(value, at.clone())).collect(),
        }
    }

    fn change(
        mut list: Vec<Located<T>>,
        add: Vec<Located<T>>,
        remove: &[Located<String>],
        notes: &mut Notes,
    ) -> Self {
        for name in remove {
            if let Some(index) = list.iter().position(|value| value.value.id() == name.value) {
                list.remove(index);
            } else {
                let ids: Vec<String> = list.iter().map(|value| value.value.id()).collect();
                notes.push(nothing_to_remove(name, &ids));
            }
        }
        for value in add {
            match list.iter().position(|known| known.value.id() == value.value.id()) {
                Some(index) => list[index] = value,
                None => list.push(value),
            }
        }
        Self::Replace(list)
    }
}

fn nothing_to_remove(name: &Located<String>, ids: &[String]) -> Diagnostic {
    let label = nearest(&name.value, ids.iter().map(String::as_str))
        .map_or_else(String::new, |nearest| format!("did you mean `{nearest}`?"));
    let listed = if ids.is_empty() { "nothing".to_owned() } else { ids.join(", ") };
    Diagnostic::error(
        "nothing-to-remove",
        name.at.clone(),
        format!("`{}` is not among what is inherited", name.value),
    )
    .label(label)
    .help(format!("inherited: {listed}"))
}

impl<T: Listed> Merge for List<T> {
    fn over(self, below: Option<Self>, key: &'static str, notes: &mut Notes) -> Self {
        match self {
            Self::Replace(_) => self,
            Self::Change { add, remove } => {
                let at = add.first().map(|value| &value.at).or(remove.first().map(|name| &name.at));
                // A change of nothing, on top of nothing.
                let Some(at) = at.cloned() else { return below.unwrap_or(Self::Replace(Vec::new())) };
                Self::change(Self::resolve(below, key, &at), add, &remove, notes)
            }
        }
    }

    fn written(&self) -> Written {
        let (Self::Replace(values) | Self::Change { add: values, .. }) = self;
        Written::List(values.iter().map(|value| (value.value.id(), value.at.clone())).collect())
    }
}

impl Listed for String {
    fn id(&self) -> String {
        self.clone()
    }

    fn default_list(key: &'static str) -> Vec<Self> {
        let paths: &[&str] = match key {
            "read_only" => &["/"],
            "hidden" => &["/root", "/home", "/boot"],
            _ => &[],
        };
        paths.iter().map(|path| (*path).to_owned()).collect()
    }
}

impl Listed for OptionalPath {
    fn id(&self) -> String {
        self.path.clone()
    }
}

impl Listed for WritablePath {
    fn id(&self) -> String {
        self.path.clone()
    }
}

impl Listed for Tmpfs {
    fn id(&self) -> String {
        self.path.clone()
    }
}

impl Listed for Overlay {
    fn id(&self) -> String {
        self.path.clone()
    }
}

impl Listed for Bind {
    fn id(&self) -> String {
        self.to.value.clone()
    }
}

impl Listed for Account {
    fn id(&self) -> String {
        match self {
            Self::Auto => "auto".to_owned(),
            Self::Name(name) => name.clone(),
            Self::Id(number) => number.to_string(),
        }
    }
}

impl Listed for caps::Capability {
    fn id(&self) -> String {
        self.to_string()
    }
}

impl Listed for u16 {
    fn id(&self) -> String {
        self.to_string()
    }
}

impl Listed for &'static str {
    fn id(&self) -> String {
        (*self).to_owned()
    }
}

const SCOPES: &[(&str, Scope)] =
    &[("abstract-unix-socket", Scope::AbstractUnixSocket), ("signal", Scope::Signal)];

impl Listed for Scope {
    fn id(&self) -> String {
        word_of(SCOPES, *self)
    }

    fn default_list(_key: &'static str) -> Vec<Self> {
        SCOPES.iter().map(|(_, scope)| *scope).collect()
    }
}

const LANDLOCK_FEATURES: &[(&str, LandlockFeature)] = &[
    ("net", LandlockFeature::Net),
    ("scope", LandlockFeature::Scope),
    ("filesystem", LandlockFeature::Filesystem),
];

impl Listed for LandlockFeature {
    fn id(&self) -> String {
        word_of(LANDLOCK_FEATURES, *self)
    }
}

fn word_of<T: PartialEq>(words: &[(&str, T)], value: T) -> String {
    words.iter().find(|(_, known)| *known == value).map_or_else(String::new, |(word, _)| (*word).to_owned())
}

/// A call or a group as it is written, and the numbers of its calls.
pub(super) type Calls = (String, Vec<u32>);

impl Listed for Calls {
    fn id(&self) -> String {
        self.0.clone()
    }
}

impl Listed for ArgumentRule {
    /// `socket`, or `socket:1` where it is not the first argument.
    fn id(&self) -> String {
        let call = syscalls::name(self.call.value).unwrap_or_default();
        match self.argument.value {
            0 => call.to_owned(),
            argument => format!("{call}:{argument}"),
        }
    }
}

/// No restriction (`"any"`), or a list of what may be.
#[derive(Debug)]
pub(super) enum AnyOr<T> {
    /// `"any"`
    Any(Place),
    /// `[80, 443]`, or a change.
    List(List<T>),
}

impl<T: Listed> Merge for AnyOr<T> {
    fn over(self, below: Option<Self>, key: &'static str, notes: &mut Notes) -> Self {
        match (self, below) {
            (Self::List(List::Change { add, remove }), Some(Self::Any(any))) => {
                let at = add.first().map(|value| &value.at).or(remove.first().map(|name| &name.at));
                if let Some(at) = at {
                    let message = format!("`{key}` is inherited without a limit: there is no list to change");
                    let help = "write the whole list";
                    notes.push(Diagnostic::error("nothing-to-change", at.clone(), message).help(help));
                }
                Self::Any(any)
            }
            (Self::List(list), Some(Self::List(below))) => Self::List(list.over(Some(below), key, notes)),
            (Self::List(list), Some(Self::Any(_)) | None) => Self::List(list.over(None, key, notes)),
            (any @ Self::Any(_), _) => any,
        }
    }

    fn written(&self) -> Written {
        match self {
            Self::Any(at) => Written::One(at.clone()),
            Self::List(list) => list.written(),
        }
    }
}

/// A table of names of the author's own choice, in the order of the file; merged name by name.
#[derive(Debug)]
pub(super) struct Named<T>(pub(super) Vec<Located<T>>);

/// A variable of the environment; without a value it takes the inherited one away.
pub(super) type Variable = (String, Option<String>);

impl Keyed for Variable {
    fn key(&self) -> String {
        self.0.clone()
    }

    fn removes(&self) -> bool {
        self.1.is_none()
    }

    fn entry(&self) -> (String, String) {
        (self.0.clone(), self.1.as_deref().map_or_else(|| "false".to_owned(), written::quoted))
    }
}

impl Keyed for Credential {
    fn key(&self) -> String {
        self.name.clone()
    }

    fn entry(&self) -> (String, String) {
        let optional = if self.optional { ", optional = true" } else { "" };
        (self.name.clone(), format!("{{ file = {}{optional} }}", written::quoted(&self.file.value)))
    }
}

impl Keyed for Rlimit {
    fn key(&self) -> String {
        self.resource.to_string()
    }

    fn entry(&self) -> (String, String) {
        let known = RESOURCES.iter().find(|resource| resource.number == self.resource);
        let name = known.map_or_else(|| self.resource.to_string(), |resource| resource.name.to_owned());
        let limit = |limit: Option<u64>| limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
        (name, written::quoted(&format!("{}:{}", limit(self.soft), limit(self.hard))))
    }
}

impl<T: Keyed> Merge for Named<T> {
    fn over(self, below: Option<Self>, _key: &'static str, notes: &mut Notes) -> Self {
        let mut merged = below.map(|below| below.0).unwrap_or_default();
        for entry in self.0 {
            let known = merged.iter().position(|known| known.value.key() == entry.value.key());
            match known {
                Some(index) if entry.value.removes() => drop(merged.remove(index)),
                None if entry.value.removes() => {
                    let ids: Vec<String> = merged.iter().map(|known| known.value.key()).collect();
                    notes.push(nothing_to_remove(&Located::new(entry.value.key(), entry.at), &ids));
                }
                Some(index) => merged[index] = entry,
                None => merged.push(entry),
            }
        }
        Self(merged)
    }

    fn written(&self) -> Written {
        let entry = |entry: &Located<T>| {
            let (name, text) = entry.value.entry();
            (name, text, entry.at.clone())
        };
        Written::Named(self.0.iter().map(entry).collect())
    }
}

/// A list, or `{ add, remove }`.
fn list<T: Listed>(
    item: &Item<'_>,
    notes: &mut Notes,
    read: impl Fn(&Item<'_>, &mut Notes) -> Option<Located<T>>,
) -> Option<List<T>> {
    if item.value().is_table() {
        let table = item.table(CHANGE_KEYS, notes)?;
        let add = table.get("add").map(|item| plain_list(&item, notes, read));
        let remove = table.get("remove").map(|item| plain_list(&item, notes, name_to_remove));
        return Some(List::Change {
            add: add.unwrap_or(Some(Vec::new()))?,
            remove: remove.unwrap_or(Some(Vec::new()))?,
        });
    }
    if !item.value().is_array() {
        return item.wrong_type("a list in [ ], or { add = [...], remove = [...] }", notes);
    }
    let values = plain_list(item, notes, read)?;
    let ids: Vec<_> = values.iter().map(|value| value.value.id()).collect();
    for (index, (value, id)) in values.iter().zip(&ids).enumerate() {
        if ids[..index].contains(id) {
            let message = format!("`{id}` stands in `{}` twice", item.key);
            notes.push(Diagnostic::error("duplicate-value", value.at.clone(), message));
        }
    }
    Some(List::Replace(values))
}

/// The elements that could be read; what is wrong with the others is noted, so their absence is never acted on.
fn plain_list<T>(
    item: &Item<'_>,
    notes: &mut Notes,
    read: impl Fn(&Item<'_>, &mut Notes) -> Option<Located<T>>,
) -> Option<Vec<Located<T>>> {
    Some(item.elements(notes)?.iter().filter_map(|element| read(element, notes)).collect())
}

/// What `remove` lists: a path, a name or a port.
fn name_to_remove(item: &Item<'_>, notes: &mut Notes) -> Option<Located<String>> {
    match item.number() {
        Some(number) => Some(Located::new(number.to_string(), item.at())),
        None if item.value().is_str() => item.text(notes),
        None => item.wrong_type("the path, the name or the port in quotes", notes),
    }
}

/// Processors or memory nodes, at least one.
fn some_indices(item: &Item<'_>, end: u32, notes: &mut Notes) -> Option<List<IndexRange>> {
    if item.value().as_array().is_some_and(|array| array.is_empty()) {
        notes.push(empty_set(item.at(), &item.key));
        return None;
    }
    indices(item, end, notes)
}

pub(super) fn empty_set(at: Place, key: &str) -> Diagnostic {
    let what = if key.ends_with("cpuset_mems") { "memory node" } else { "processor" };
    let message = format!("`{key}` leaves no {what}");
    Diagnostic::error("empty-set", at, message).help("name at least one")
}

/// Processors or memory nodes, numbered below `end`.
fn indices(item: &Item<'_>, end: u32, notes: &mut Notes) -> Option<List<IndexRange>> {
    list(item, notes, |item, notes| scheduling::index_range(item, end, notes))
}

const SHARES: &[(&str, Share)] = &[("private", Share::Private), ("host", Share::Host)];

fn share(item: &Item<'_>, notes: &mut Notes) -> Option<Located<Share>> {
    values::word(item, "unknown-value", SHARES, notes)
}

fn proc_view(item: &Item<'_>, notes: &mut Notes) -> Option<Located<ProcView>> {
    let words = [("self", ProcView::SelfOnly), ("full", ProcView::Full), ("none", ProcView::None)];
    values::word(item, "unknown-value", &words, notes)
}

fn dev_view(item: &Item<'_>, notes: &mut Notes) -> Option<Located<DevView>> {
    let words = [("minimal", DevView::Minimal), ("host", DevView::Host), ("none", DevView::None)];
    values::word(item, "unknown-value", &words, notes)
}

fn sys_view(item: &Item<'_>, notes: &mut Notes) -> Option<Located<SysView>> {
    let words = [("read-only", SysView::ReadOnly), ("none", SysView::None), ("host", SysView::Host)];
    values::word(item, "unknown-value", &words, notes)
}

fn hidden_path(item: &Item<'_>, notes: &mut Notes) -> Option<Located<String>> {
    let path = values::path(item, notes)?;
    if path.value == "/" {
        let message = "hiding `/` would leave nothing to execute";
        notes.push(Diagnostic::error("conflicting-paths", path.at, message).help("see `root = \"empty\"`"));
        return None;
    }
    Some(path)
}

/// A path, and none through `/proc`: `/proc/self/fd/7` as a working directory is what CVE-2024-21626 was made of.
fn working_directory(item: &Item<'_>, notes: &mut Notes) -> Option<Located<String>> {
    let path = values::path(item, notes)?;
    if path.value == "/proc" || path.value.starts_with("/proc/") {
        let message = "a working directory in /proc could be a directory of the host that is still open";
        notes.push(Diagnostic::error("unsafe-path", path.at, message));
        return None;
    }
    Some(path)
}

fn environment(item: &Item<'_>, notes: &mut Notes) -> Option<Named<Variable>> {
    let mut variables = Vec::new();
    for (name, item) in item.open_table(notes)?.entries() {
        if name.value.is_empty() || name.value.contains('=') || name.value.chars().any(char::is_control) {
            let message = format!("{:?} cannot be the name of a variable", name.value);
            let label = "neither empty nor with = or a control character";
            notes.push(Diagnostic::error("invalid-environment", name.at, message).label(label));
            continue;
        }
        // A value may have newlines and tabs, but a NUL would end it.
        match item.value().as_str() {
            Some(value) if value.contains('\0') => {
                let message = format!("the value of `{}` contains a NUL, which would end it", name.value);
                notes.push(Diagnostic::error("invalid-environment", item.at(), message));
            }
            Some(value) => variables.push(Located::new((name.value, Some(value.to_owned())), name.at)),
            None if item.value().as_bool() == Some(false) => {
                variables.push(Located::new((name.value, None), name.at));
            }
            None => {
                item.wrong_type::<()>("a text in quotes, or false to remove an inherited variable", notes);
            }
        }
    }
    Some(Named(variables))
}

fn scope(item: &Item<'_>, notes: &mut Notes) -> Option<Located<Scope>> {
    values::word(item, "unknown-scope", SCOPES, notes)
}

fn landlock_feature(item: &Item<'_>, notes: &mut Notes) -> Option<Located<LandlockFeature>> {
    values::word(item, "unknown-right", LANDLOCK_FEATURES, notes)
}

fn ports(item: &Item<'_>, notes: &mut Notes) -> Option<AnyOr<u16>> {
    any_or(item, notes, "[80, 443]", values::port)
}

/// `"any"`, or a list such as `example`.
fn any_or<T: Listed>(
    item: &Item<'_>,
    notes: &mut Notes,
    example: &str,
    read: impl Fn(&Item<'_>, &mut Notes) -> Option<Located<T>>,
) -> Option<AnyOr<T>> {
    if item.value().is_str() {
        let text = item.text(notes)?;
        if text.value == "any" {
            return Some(AnyOr::Any(text.at));
        }
        let message = format!("`{}` is no value of `{}`", text.value, item.key);
        notes.push(unknown("unknown-value", text.at, message, &text.value, &["any", example]));
        return None;
    }
    list(item, notes, read).map(AnyOr::List)
}

/// `true`: none may be made. `false`: any. Or the list of those that may.
fn namespace_kinds(item: &Item<'_>, notes: &mut Notes) -> Option<AnyOr<NamespaceKind>> {
    match item.value().as_bool() {
        Some(true) => Some(AnyOr::List(List::Replace(Vec::new()))),
        Some(false) => Some(AnyOr::Any(item.at())),
        None if item.value().is_table() || item.value().is_array() => {
            list(item, notes, filter::namespace_kind).map(AnyOr::List)
        }
        None => item.wrong_type("true, false, or the list of the kinds that may be made: [\"user\"]", notes),
    }
}

/// A table of names of the author's choice; entries that could not be read are noted.
fn named<T>(
    item: &Item<'_>,
    notes: &mut Notes,
    read: impl Fn(Located<String>, &Item<'_>, &mut Notes) -> Option<Located<T>>,
) -> Option<Named<T>> {
    let entries = item.open_table(notes)?.entries();
    Some(Named(entries.into_iter().filter_map(|(name, item)| read(name, &item, notes)).collect()))
}

fn controller(item: &Item<'_>, notes: &mut Notes) -> Option<Located<&'static str>> {
    let words = ["cpu", "memory", "pids", "io", "cpuset", "hugetlb", "rdma", "misc", "bpf", "pressure"]
        .map(|name| (name, name));
    values::word(item, "unknown-controller", &words, notes)
}

/// The keys of `[[seccomp.rule]]`.
pub(super) const RULE_KEYS: &[&str] = &["call", "arg", "in"];

fn rule(item: &Item<'_>, notes: &mut Notes) -> Option<Located<ArgumentRule>> {
    let table = item.table(RULE_KEYS, notes)?;
    let call = table.require("call", notes).and_then(|item| values::call(&item, notes));
    let argument = table.require("arg", notes).and_then(|item| item.integer(0_u8, 5, notes));
    let values = table.require("in", notes).and_then(|item| {
        let values = plain_list(&item, notes, values::argument_value)?;
        if item.value().as_array().is_some_and(|array| array.is_empty()) {
            let message = "a rule without values would never allow its call";
            notes.push(
                Diagnostic::error("empty-rule", item.at(), message)
                    .help("take the call out of `allow` instead"),
            );
            return None;
        }
        Some(values)
    });
    let (call, argument) = (call?, argument?);
    comparable(&call, &argument, notes)?;
    Some(Located::new(ArgumentRule { call, argument, values: values? }, item.at()))
}

/// Notes if comparing the argument would prove nothing.
fn comparable(call: &Located<u32>, argument: &Located<u8>, notes: &mut Notes) -> Option<()> {
    let name = syscalls::name(call.value)?;
    let kinds = arguments::of(name)?;
    let (code, message) = match kinds.get(usize::from(argument.value)) {
        Some(Kind::Word | Kind::LowWord) => return Some(()),
        Some(Kind::Pointer) => {
            ("pointer-argument", format!("argument {} of `{name}` is an address", argument.value))
        }
        Some(Kind::Wide) => (
            "wide-argument",
            format!("argument {} of `{name}` has 64 bits, a rule compares 32", argument.value),
        ),
        None => ("no-such-argument", format!("`{name}` has {} arguments, counted from 0", kinds.len())),
    };
    let good: Vec<String> = kinds
        .iter()
        .enumerate()
        .filter(|(_, kind)| matches!(kind, Kind::Word | Kind::LowWord))
        .map(|(index, _)| index.to_string())
        .collect();
    let help = if good.is_empty() {
        format!("no argument of `{name}` can be compared")
    } else {
        format!("arguments of `{name}` that can be compared: {}", good.join(", "))
    };
    notes.push(Diagnostic::error(code, argument.at.clone(), message).help(help));
    None
}

fn read_rlimits(item: &Item<'_>, notes: &mut Notes) -> Option<Named<Rlimit>> {
    let names: Vec<&str> = RESOURCES.iter().map(|resource| resource.name).collect();
    let mut limits = Vec::new();
    for (name, item) in item.open_table(notes)?.entries() {
        let Some(resource) = RESOURCES.iter().find(|resource| resource.name == name.value) else {
            let message = format!("no resource limit is named `{}`", name.value);
            notes.push(unknown("unknown-rlimit", name.at, message, &name.value, &names));
            continue;
        };
        let Some((soft, hard)) = soft_and_hard(&item, resource.bytes, notes) else { continue };
        if hard.is_some_and(|hard| soft.is_none_or(|soft| soft > hard)) {
            let message = format!("the soft limit of `{}` is above its hard limit", name.value);
            notes.push(Diagnostic::error("soft-above-hard", item.at(), message).label("soft:hard"));
            continue;
        }
        limits.push(Located::new(Rlimit { resource: resource.number, soft, hard }, item.at()));
    }
    Some(Named(limits))
}

/// `1024`, `"1024:4096"`, `"max"`: `None` inside is no limit.
fn soft_and_hard(item: &Item<'_>, bytes: bool, notes: &mut Notes) -> Option<(Option<u64>, Option<u64>)> {
    if let Some(number) = item.number() {
        let limit = item.within(number, 0, i64::MAX.unsigned_abs(), notes)?.value;
        return Some((Some(limit), Some(limit)));
    }
    if !item.value().is_str() {
        return item.wrong_type("a number, or \"soft:hard\"", notes);
    }
    let text = item.text(notes)?;
    let one = |text: &str| match text {
        "max" => Some(None),
        text => values::parse_count(text, bytes).map(Some),
    };
    let both = match text.value.split_once(':') {
        Some((soft, hard)) => one(soft).zip(one(hard)),
        None => one(&text.value).map(|limit| (limit, limit)),
    };
    if both.is_none() {
        let message = format!("`{}` is no limit", text.value);
        let label = if bytes {
            "digits with K, M, G or T, \"max\", or soft:hard"
        } else {
            "digits, \"max\", or soft:hard"
        };
        notes.push(Diagnostic::error("invalid-limit", text.at, message).label(label));
    }
    both
}
