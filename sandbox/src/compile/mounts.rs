//! `[filesystem]`: one table of what is mounted where, sorted so that parents come before children; the most specific
//! path wins, and two entries for one path are an error.
//!
//! Every tree that comes from the host is copied detached (open_tree(2), OPEN_TREE_CLONE), gets its attributes
//! recursively (mount_setattr(2), AT_RECURSIVE) while it is still detached, and only then is attached: there is no
//! moment in which a submount is writable that should not be.

use std::ffi::CString;

use crate::{
    compile::{Builder, FileKind, c_string, control_sockets, missing_path},
    diagnostic::{Diagnostic, Located, Place},
    plan::{Op, Phase, Slot},
    policy::{
        Bind, CREDENTIALS_DIRECTORY, Confinement, DevView, Devices, Filesystem, IdMap, OptionalPath, Overlay,
        ProcView, Root, Share, SysView, Tmpfs, WritablePath,
    },
};

const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
const NOSYMFOLLOW: u64 = libc::MOUNT_ATTR_NOSYMFOLLOW;

/// The nodes of a minimal /dev (Documentation/admin-guide/devices.txt).
pub(crate) const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// Its links.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// Files of a full /proc that no service needs and that tell or do too much; masked where they are.
const PROC_MASKED: [&str; 8] = [
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
];
/// Folders of a full /proc that become read-only.
const PROC_READ_ONLY: [&str; 4] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"];

/// What one path becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// A tmpfs of the policy's.
    Tmpfs(Tmpfs),
    /// /proc
    Proc(ProcView),
    /// /dev, with room for so many files besides its own
    Dev(u64),
    /// /sys, read-only
    Sys,
    /// An empty, unreadable node in place of this.
    Hidden(FileKind),
    /// The service's credentials.
    Credentials(Vec<String>),
    /// Folders of the host's under a tmpfs.
    Overlay(Overlay),
    /// A tree of the host's.
    Tree { from: String, kind: FileKind, attributes: u64, idmap: Option<Located<IdMap>> },
}

#[derive(Debug)]
struct Entry {
    path: String,
    kind: Kind,
    at: Place,
}

/// What a path of the sandbox shows, for rules that name paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Something made for this launch: it cannot be looked at beforehand.
    Fresh,
    /// This path of the host.
    Host(String),
    /// Nothing.
    Nothing,
}

/// The sandbox's tree, as far as it is known before it is built.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// Before a path that no entry covers; `None` for an empty root.
    root: Option<String>,
    /// Sorted by path.
    mounts: Vec<Mounted>,
    /// Whether the root itself is.
    writable: bool,
}

/// One mount of a view.
#[derive(Debug, Clone)]
struct Mounted {
    path: String,
    /// On the host; `None` for a fresh mount.
    source: Option<String>,
    writable: bool,
}

impl From<&Entry> for Mounted {
    fn from(entry: &Entry) -> Self {
        let writable = match &entry.kind {
            Kind::Tmpfs(_) | Kind::Overlay(_) => true,
            Kind::Tree { attributes, .. } => attributes & RDONLY == 0,
            Kind::Proc(_) | Kind::Dev(_) | Kind::Sys | Kind::Hidden(_) | Kind::Credentials(_) => false,
        };
        Self { path: entry.path.clone(), source: entry.kind.source(), writable }
    }
}

impl View {
    /// The host's tree as it is.
    pub(crate) fn host() -> Self {
        Self { root: Some("/".to_owned()), mounts: Vec::new(), writable: true }
    }

    /// What stands at `path`.
    pub(crate) fn look(&self, path: &str) -> Seen {
        match (self.covering(path), &self.root) {
            (Some(Mounted { source: None, .. }), _) => Seen::Fresh,
            (Some(Mounted { path: mount, source: Some(from), .. }), _) => {
                Seen::Host(join(from, path.strip_prefix(mount.as_str()).unwrap_or("")))
            }
            (None, Some(root)) => Seen::Host(join(root, path)),
            (None, None) => Seen::Nothing,
        }
    }

    /// Whether anything at `path`, or beneath it, could be written as far as mounts decide.
    pub(crate) fn may_be_written(&self, path: &str) -> bool {
        let beneath = self.mounts.iter().any(|mounted| mounted.writable && is_beneath(&mounted.path, path));
        beneath || self.covering(path).map_or(self.writable, |mounted| mounted.writable)
    }

    fn covering(&self, path: &str) -> Option<&Mounted> {
        self.mounts.iter().rev().find(|mounted| is_beneath(path, &mounted.path))
    }
}

/// `path` is `ancestor` or lies under it.
pub(crate) fn is_beneath(path: &str, ancestor: &str) -> bool {
    ancestor == "/"
        || path.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn join(prefix: &str, rest: &str) -> String {
    match (prefix.trim_end_matches('/'), rest.trim_start_matches('/')) {
        ("", "") => "/".to_owned(),
        (prefix, "") => prefix.to_owned(),
        (prefix, rest) => format!("{prefix}/{rest}"),
    }
}

/// The steps of the section.
pub(crate) fn compile(rules: &Confinement, ids: (u32, u32), builder: &mut Builder<'_>) -> View {
    let filesystem = &rules.filesystem;
    if rules.namespaces.mount.value == Share::Host {
        without_namespace(rules, builder);
        return View::host();
    }
    let root = match &filesystem.root.value {
        Root::Host => Some("/".to_owned()),
        Root::Empty => None,
        Root::Directory(path) => Some(path.clone()),
    };
    // The host's own links are its administrator's; those of a tree that was given may be anybody's (runc's
    // CVE-2026-41579).
    builder.through_links = filesystem.root.value == Root::Host;
    let mut entries = entries(rules, root.as_deref(), builder);
    entries.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
    refuse_conflicts(&entries, builder);
    let writable = !filesystem.read_only.iter().any(|path| path.value == "/");
    let view = View { root, mounts: entries.iter().map(Mounted::from).collect(), writable };
    builder.sharing(true);
    new_root(rules, &view, &shed(&entries), builder);
    for (index, entry) in entries.iter().enumerate() {
        let above = |other: &&Entry| is_beneath(&entry.path, &other.path);
        builder.sharing(entries[..index].iter().filter(above).all(is_shared));
        mount_point(entry, &entries[..index], &view, builder);
        detach(entry, &entries[..index], builder);
        if !is_shared(entry) {
            builder.sharing(false);
        }
        entry_steps(entry, ids, rules.namespaces.cgroup.value, builder);
    }
    builder.sharing(false);
    view
}

/// The paths at which something of the host's may be mounted that is about to be covered. Beneath an entry there is
/// what that entry shows, and nothing else if it is new.
fn shed(entries: &[Entry]) -> Vec<CString> {
    let outermost = entries.iter().filter(|entry| {
        !entries.iter().any(|other| other.path != entry.path && is_beneath(&entry.path, &other.path))
    });
    outermost.map(|entry| c_string(&entry.path)).collect()
}

/// Whether all launches can have the same: the host's own trees, and what nobody can write to. What is made for one
/// process's namespaces (proc, sysfs, devpts) or written to is not.
fn is_shared(entry: &Entry) -> bool {
    match &entry.kind {
        // The six nodes; what is mounted inside is not shared, see `dev`.
        Kind::Dev(_) | Kind::Hidden(_) => true,
        Kind::Tree { idmap, .. } => idmap.is_none(),
        Kind::Tmpfs(_) | Kind::Proc(_) | Kind::Sys | Kind::Credentials(_) | Kind::Overlay(_) => false,
    }
}

impl Kind {
    fn source(&self) -> Option<String> {
        match self {
            Self::Tree { from, .. } => Some(from.clone()),
            Self::Tmpfs(_)
            | Self::Proc(_)
            | Self::Dev(_)
            | Self::Sys
            | Self::Hidden(_)
            | Self::Credentials(_)
            | Self::Overlay(_) => None,
        }
    }
}

/// Without a mount namespace nothing of the section can be done, so nothing of it may be asked.
fn without_namespace(rules: &Confinement, builder: &mut Builder<'_>) {
    let filesystem = &rules.filesystem;
    let Filesystem { root, read_only, hidden, tmpfs, proc, dev, sys, read_write, bind, overlay } = filesystem;
    let asked = [
        (root.value != Root::Host, &root.at, "root"),
        (proc.value != ProcView::Full, &proc.at, "proc"),
        (dev.value != DevView::Host, &dev.at, "dev"),
        (sys.value != SysView::Host, &sys.at, "sys"),
    ];
    let mut places: Vec<(&Place, &str)> =
        asked.into_iter().filter(|(asked, ..)| *asked).map(|(_, at, key)| (at, key)).collect();
    places.extend(read_only.iter().map(|path| (&path.at, "read_only")));
    places.extend(hidden.iter().map(|path| (&path.at, "hidden")));
    places.extend(tmpfs.iter().map(|path| (&path.at, "tmpfs")));
    places.extend(read_write.iter().map(|path| (&path.at, "read_write")));
    places.extend(bind.iter().map(|path| (&path.at, "bind")));
    places.extend(overlay.iter().map(|path| (&path.at, "overlay")));
    for (at, key) in places {
        builder.error(
            Diagnostic::error(
                "needs-mount-namespace",
                at.clone(),
                format!("filesystem.{key} cannot be enforced in the host's mount namespace"),
            )
            .help(
                "write mount = \"private\" in [namespaces], or in [filesystem] empty lists, \
                 root = \"host\", proc = \"full\", dev = \"host\", sys = \"host\"",
            ),
        );
    }
}

/// Everything the section mounts, unsorted.
fn entries(rules: &Confinement, root: Option<&str>, builder: &mut Builder<'_>) -> Vec<Entry> {
    let filesystem = &rules.filesystem;
    let nodes = if filesystem.dev.value == DevView::Minimal { nodes(rules, builder) } else { Vec::new() };
    let mut entries = Vec::new();
    let mut push = |path: &str, kind: Kind, at: &Place| {
        entries.push(Entry { path: path.to_owned(), kind, at: at.clone() });
    };
    if filesystem.proc.value == ProcView::None {
        push("/proc", Kind::Hidden(FileKind::Directory), &filesystem.proc.at);
    } else {
        push("/proc", Kind::Proc(filesystem.proc.value), &filesystem.proc.at);
    }
    match filesystem.dev.value {
        DevView::Minimal => {
            push("/dev", Kind::Dev(nodes.len() as u64), &filesystem.dev.at);
        }
        DevView::None => push("/dev", Kind::Hidden(FileKind::Directory), &filesystem.dev.at),
        DevView::Host => {
            let attributes = NOSUID;
            let kind =
                Kind::Tree { from: "/dev".to_owned(), kind: FileKind::Directory, attributes, idmap: None };
            push("/dev", kind, &filesystem.dev.at);
        }
    }
    match filesystem.sys.value {
        SysView::ReadOnly => push("/sys", Kind::Sys, &filesystem.sys.at),
        SysView::None => push("/sys", Kind::Hidden(FileKind::Directory), &filesystem.sys.at),
        SysView::Host => {
            let attributes = NOSUID | NODEV;
            let kind =
                Kind::Tree { from: "/sys".to_owned(), kind: FileKind::Directory, attributes, idmap: None };
            push("/sys", kind, &filesystem.sys.at);
        }
    }
    for tmpfs in &filesystem.tmpfs {
        // What one may write and then execute is what memory_deny_write_execute is against.
        let noexec = tmpfs.value.noexec.unwrap_or(rules.process.memory_deny_write_execute.value);
        let kind = Kind::Tmpfs(Tmpfs { noexec: Some(noexec), ..tmpfs.value.clone() });
        push(&tmpfs.value.path, kind, &tmpfs.at);
    }
    for overlay in &filesystem.overlay {
        for layer in &overlay.value.lower {
            refuse_unless_folder(layer, builder);
        }
        let noexec = overlay.value.noexec.unwrap_or(rules.process.memory_deny_write_execute.value);
        let wanted = Overlay { noexec: Some(noexec), ..overlay.value.clone() };
        push(&overlay.value.path, Kind::Overlay(wanted), &overlay.at);
    }
    if let Some(first) = rules.credentials.first() {
        let names = rules.credentials.iter().map(|credential| credential.value.name.clone()).collect();
        push(CREDENTIALS_DIRECTORY, Kind::Credentials(names), &first.at);
    }
    entries.extend(nodes);
    match root {
        Some(root) => trees(rules, root, &mut entries, builder),
        None => trees_into_empty_root(rules, &mut entries, builder),
    }
    hide(filesystem, root, &mut entries, builder);
    entries
}

/// The nodes of `cgroup.devices` that a private /dev does not have: they are bound from the host, each alone. One that is
/// missing is told where its number is looked for.
fn nodes(rules: &Confinement, builder: &Builder<'_>) -> Vec<Entry> {
    let listed = rules.cgroup.devices.iter().flat_map(|list| &list.value);
    let bound = |path: &str| rules.filesystem.bind.iter().any(|bind| bind.value.to.value == path);
    listed
        .filter_map(|rule| {
            let Devices::Node(path) = &rule.value.devices else { return None };
            let name = path.strip_prefix("/dev/")?;
            let own = NODES.iter().map(|(name, ..)| *name).chain(LINKS.iter().map(|(name, _)| *name));
            let made = own.chain(["pts", "shm"]).any(|own| is_beneath(name, own));
            let is_node = builder.host.kind(path).is_ok_and(|kind| kind == FileKind::Other);
            let kind = Kind::Tree {
                from: path.clone(),
                kind: FileKind::Other,
                attributes: NOSUID | NOEXEC,
                idmap: None,
            };
            (is_node && !made && !bound(path)).then(|| Entry {
                path: path.clone(),
                kind,
                at: rule.at.clone(),
            })
        })
        .collect()
}

/// Hides what would be seen: of the host's tree, of another tree that is bound there, or of an overlay. A path that
/// leads to nothing is hidden already.
fn hide(filesystem: &Filesystem, root: Option<&str>, entries: &mut Vec<Entry>, builder: &mut Builder<'_>) {
    let mut hidden = Vec::new();
    for path in &filesystem.hidden {
        let above =
            entries.iter().filter(|entry| entry.path != path.value && is_beneath(&path.value, &entry.path));
        let covering = above.max_by_key(|entry| entry.path.len());
        let beneath = |from: &str, at: &str| join(from, path.value.strip_prefix(at).unwrap_or(""));
        let on_host: Vec<String> = match covering {
            Some(Entry { kind: Kind::Tree { from, .. }, path: at, .. }) => vec![beneath(from, at)],
            Some(Entry { kind: Kind::Overlay(overlay), path: at, .. }) => {
                overlay.lower.iter().map(|layer| beneath(&layer.value, at)).collect()
            }
            // A file of proc, dev or sysfs: refused below, since nothing can be mounted there.
            Some(_) => vec![path.value.clone()],
            None => root.map(|root| join(root, &path.value)).into_iter().collect(),
        };
        if let Some(kind) = on_host.iter().find_map(|path| builder.host.kind(path).ok()) {
            hidden.push(Entry { path: path.value.clone(), kind: Kind::Hidden(kind), at: path.at.clone() });
        }
    }
    entries.extend(hidden);
}

fn refuse_unless_folder(path: &Located<String>, builder: &mut Builder<'_>) {
    match builder.host.kind(&path.value) {
        Ok(FileKind::Directory) => {}
        Ok(FileKind::Other) => {
            let message = format!("{} is no folder", path.value);
            builder.error(Diagnostic::error("missing-path", path.at.clone(), message));
        }
        Err(error) => {
            let message = format!("{}: {error}", path.value);
            builder.error(Diagnostic::error("missing-path", path.at.clone(), message));
        }
    }
}

fn trees(rules: &Confinement, root: &str, entries: &mut Vec<Entry>, builder: &mut Builder<'_>) {
    let filesystem = &rules.filesystem;
    for path in filesystem.read_only.iter().filter(|path| path.value != "/") {
        let wanted = path.clone().map(|path| OptionalPath { path, optional: false });
        let from = join(root, &path.value);
        entries.extend(tree(&wanted, &path.value, from, RDONLY | NOSUID | NODEV, builder));
    }
    for path in &filesystem.read_write {
        let from = join(root, &path.value.path);
        entries.extend(writable_tree(path, from, rules, builder));
    }
    binds(rules, entries, builder);
}

fn binds(rules: &Confinement, entries: &mut Vec<Entry>, builder: &mut Builder<'_>) {
    for path in &builder.subject.sockets {
        let kind = Kind::Tree {
            from: path.clone(),
            kind: FileKind::Other,
            attributes: RDONLY | NOSUID | NODEV,
            idmap: None,
        };
        entries.push(Entry { path: path.clone(), kind, at: rules.filesystem.root.at.clone() });
    }
    for bind in &rules.filesystem.bind {
        let from = &bind.value.from;
        let wanted = from.clone().map(|path| OptionalPath { path, optional: bind.value.optional });
        let attributes = bind_attributes(&bind.value, rules);
        if !bind.value.control_socket {
            control_sockets::refuse(&from.value, &from.at, builder);
        }
        let mut entry = tree(&wanted, &bind.value.to.value, from.value.clone(), attributes, builder);
        if let Some(Entry { kind: Kind::Tree { idmap, .. }, .. }) = &mut entry {
            idmap.clone_from(&bind.value.idmap);
        }
        entries.extend(entry);
    }
}

/// Attributes are added to those of the host's mounts and never taken away: a policy cannot make executable what the
/// administrator mounted noexec.
fn bind_attributes(bind: &Bind, rules: &Confinement) -> u64 {
    let write_xor_execute = rules.process.memory_deny_write_execute.value;
    let Bind {
        from: _,
        to: _,
        optional: _,
        control_socket: _,
        idmap: _,
        read_only,
        nosuid,
        nodev,
        noexec,
        nosymfollow,
    } = bind;
    let noexec = &noexec.unwrap_or(write_xor_execute && !read_only);
    [(read_only, RDONLY), (nosuid, NOSUID), (nodev, NODEV), (noexec, NOEXEC), (nosymfollow, NOSYMFOLLOW)]
        .into_iter()
        .filter_map(|(asked, attribute)| asked.then_some(attribute))
        .sum()
}

/// What one may write and then map is what memory_deny_write_execute is against, on a disk as in memory.
fn writable_tree(
    path: &Located<WritablePath>,
    from: String,
    rules: &Confinement,
    builder: &mut Builder<'_>,
) -> Option<Entry> {
    let WritablePath { path: to, optional, noexec } = &path.value;
    control_sockets::refuse(to, &path.at, builder);
    let wanted = Located::new(OptionalPath { path: to.clone(), optional: *optional }, path.at.clone());
    let noexec = noexec.unwrap_or(rules.process.memory_deny_write_execute.value);
    let attributes = NOSUID | NODEV | if noexec { NOEXEC } else { 0 };
    tree(&wanted, to, from, attributes, builder)
}

/// With an empty root there is nothing to hide or to make read-only; paths opened up come from the host as they are.
fn trees_into_empty_root(rules: &Confinement, entries: &mut Vec<Entry>, builder: &mut Builder<'_>) {
    let filesystem = &rules.filesystem;
    for path in &filesystem.read_write {
        entries.extend(writable_tree(path, path.value.path.clone(), rules, builder));
    }
    for path in filesystem.read_only.iter().filter(|path| path.value != "/") {
        let wanted = path.clone().map(|path| OptionalPath { path, optional: false });
        entries.extend(tree(&wanted, &path.value, path.value.clone(), RDONLY | NOSUID | NODEV, builder));
    }
    binds(rules, entries, builder);
}

/// A tree of the host's at `to`; `None` where it is missing, which is an error unless it is optional.
fn tree(
    wanted: &Located<OptionalPath>,
    to: &str,
    from: String,
    attributes: u64,
    builder: &mut Builder<'_>,
) -> Option<Entry> {
    match builder.host.kind(&from) {
        Ok(kind) => {
            let kind = Kind::Tree { from, kind, attributes, idmap: None };
            Some(Entry { path: to.to_owned(), kind, at: wanted.at.clone() })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && wanted.value.optional => None,
        Err(error) => {
            builder.error(missing_path(wanted, &error));
            None
        }
    }
}

/// One path, one meaning; and nothing beneath what is hidden, since it could not be reached.
fn refuse_conflicts(entries: &[Entry], builder: &mut Builder<'_>) {
    for pair in entries.windows(2) {
        let [first, second] = pair else { continue };
        if first.path == second.path {
            builder.error(
                Diagnostic::error(
                    "conflicting-paths",
                    second.at.clone(),
                    format!("{} is mounted twice", second.path),
                )
                .help("name each path once, in the one list that says what it shall be"),
            );
        }
    }
    for entry in entries {
        let hidden = entries.iter().find(|other| {
            matches!(other.kind, Kind::Hidden(_))
                && other.path != entry.path
                && is_beneath(&entry.path, &other.path)
        });
        if let Some(hidden) = hidden {
            builder.error(
                Diagnostic::error(
                    "beneath-hidden",
                    entry.at.clone(),
                    format!("{} lies beneath {}, which is hidden", entry.path, hidden.path),
                )
                .help(format!("hide what must not be seen of {} by name instead", hidden.path)),
            );
        }
    }
}

fn new_root(rules: &Confinement, view: &View, shed: &[CString], builder: &mut Builder<'_>) {
    let filesystem = &rules.filesystem;
    let at = Some(filesystem.root.at.clone());
    builder.step(Phase::Collect, Op::PrivateMounts, "", Some(rules.namespaces.mount.at.clone()));
    // For who builds a template; a launch has it from its beginning.
    builder.step(Phase::Collect, Op::Umask(0), "while files are made", None);
    let slot = builder.slot(at.as_ref());
    let read_only = filesystem.read_only.iter().find(|path| path.value == "/");
    let sealed = if read_only.is_some() { RDONLY } else { 0 };
    let attributes = sealed | NOSUID | NODEV;
    match &view.root {
        Some(root) => {
            let op = Op::CloneTree { path: c_string(root), into: slot };
            builder.step(Phase::Collect, op, root, at.clone());
            let op = Op::SetAttributes { of: slot, set: attributes, recursive: true };
            let blame = read_only.map_or_else(|| at.clone(), |path| Some(path.at.clone()));
            builder.step(Phase::Root, op, root, blame);
        }
        None => {
            let options = tmpfs_options(1 << 20, 1024, 0o755, Whose::Root);
            let op = filesystem_op(c"tmpfs", options, NOSUID | NODEV, slot);
            builder.step(Phase::Collect, op, "empty root", at.clone());
            // Mount points are made in it first, so it is sealed last.
            let op = Op::SetAttributes { of: slot, set: attributes, recursive: false };
            builder.step(Phase::Seal, op, "empty root", at.clone());
        }
    }
    // An empty root has nothing mounted in it.
    let shed = if view.root.is_some() { shed.into() } else { [].into() };
    builder.step(Phase::Root, Op::PivotRoot { tree: slot, shed }, "", at);
}

/// Makes the place where an entry is attached, where it lies in a mount of our own; elsewhere it has to be there.
fn mount_point(entry: &Entry, before: &[Entry], view: &View, builder: &mut Builder<'_>) {
    let parent = before.iter().rev().find(|other| is_beneath(&entry.path, &other.path));
    let floor = match (parent, &view.root) {
        (Some(Entry { path, kind: Kind::Tmpfs(_) | Kind::Overlay(_) | Kind::Dev(_), .. }), _) => {
            path.as_str()
        }
        (None, None) => "",
        (Some(Entry { kind: Kind::Tree { from, .. }, path, .. }), _) => {
            let inside = join(from, entry.path.strip_prefix(path.as_str()).unwrap_or(""));
            return must_exist(entry, &inside, builder);
        }
        (None, Some(root)) => return must_exist(entry, &join(root, &entry.path), builder),
        // Told already, as lying beneath what is hidden.
        (Some(Entry { kind: Kind::Hidden(_), .. }), _) => return,
        (Some(_), _) => {
            builder.error(Diagnostic::error(
                "no-mount-point",
                entry.at.clone(),
                format!("nothing can be mounted at {}: what lies above it is made by the kernel", entry.path),
            ));
            return;
        }
    };
    let is_directory = match &entry.kind {
        Kind::Tree { kind, .. } | Kind::Hidden(kind) => *kind == FileKind::Directory,
        Kind::Tmpfs(_)
        | Kind::Proc(_)
        | Kind::Dev(_)
        | Kind::Sys
        | Kind::Credentials(_)
        | Kind::Overlay(_) => true,
    };
    let rest = entry.path.strip_prefix(floor).unwrap_or("");
    let mut path = floor.to_owned();
    let components: Vec<&str> = rest.split('/').filter(|component| !component.is_empty()).collect();
    for (index, component) in components.iter().enumerate() {
        path = format!("{path}/{component}");
        let last = index + 1 == components.len();
        let op = if last && !is_directory {
            Op::MakeFile(c_string(&path))
        } else {
            Op::MakeDirectory(c_string(&path))
        };
        builder.step(builder.mounting, op, &path, Some(entry.at.clone()));
    }
}

fn must_exist(entry: &Entry, on_host: &str, builder: &mut Builder<'_>) {
    if let Err(error) = builder.host.kind(on_host) {
        builder.error(
            Diagnostic::error("no-mount-point", entry.at.clone(), format!("{}: {error}", entry.path))
                .help(format!("make {on_host} on the host, or mount a tmpfs above it")),
        );
    }
}

/// What a new file system is made with.
#[derive(Debug, Default)]
struct Options {
    /// Keys and values; an empty value is a flag.
    each: Vec<(CString, CString)>,
    /// Its root is the service's own.
    owned: bool,
}

impl From<Vec<(CString, CString)>> for Options {
    fn from(each: Vec<(CString, CString)>) -> Self {
        Self { each, owned: false }
    }
}

/// Whose the root of a tmpfs is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Root,
    Service,
}

fn filesystem_op(kind: &std::ffi::CStr, options: Options, attributes: u64, into: Slot) -> Op {
    let Options { each: mut options, owned } = options;
    // Listings show the source; without one they say "none".
    options.push((c_string("source"), kind.to_owned()));
    Op::NewFilesystem { kind: kind.to_owned(), options, owned, attributes, into }
}

fn option(key: &str, value: &str) -> (CString, CString) {
    (c_string(key), c_string(value))
}

fn tmpfs_options(size: u64, inodes: u64, mode: u32, whose: Whose) -> Options {
    let mut each = vec![
        option("size", &size.to_string()),
        option("nr_inodes", &inodes.to_string()),
        option("mode", &format!("{mode:o}")),
    ];
    if whose == Whose::Root {
        each.extend([option("uid", "0"), option("gid", "0")]);
    }
    Options { each, owned: whose == Whose::Service }
}

fn entry_steps(entry: &Entry, ids: (u32, u32), cgroup: Share, builder: &mut Builder<'_>) {
    match &entry.kind {
        Kind::Tmpfs(tmpfs) => {
            // Owned by the service, or a mode of 0755 would shut it out of its own /run.
            let options = tmpfs_options(tmpfs.size_bytes, tmpfs.inodes, tmpfs.mode, Whose::Service);
            let noexec = if tmpfs.noexec.unwrap_or(false) { NOEXEC } else { 0 };
            new_mount(entry, &entry.path, c"tmpfs", options, NOSUID | NODEV | noexec, builder);
        }
        Kind::Proc(view) => proc(entry, *view, builder),
        Kind::Dev(more) => dev(entry, *more, builder),
        Kind::Sys => sys(entry, cgroup, builder),
        Kind::Credentials(names) => credentials(entry, names, ids, builder),
        Kind::Overlay(wanted) => overlay(entry, wanted, ids, builder),
        Kind::Hidden(FileKind::Directory) => {
            let options = tmpfs_options(4096, 2, 0, Whose::Root);
            // One empty folder that nobody can write to is as good as another.
            let shared = builder.is_sharing();
            let like = builder.hidden.clone().filter(|(_, first)| *first || !shared).map(|(path, _)| path);
            let attributes = RDONLY | NOSUID | NODEV | NOEXEC;
            mount_like(entry, &entry.path, c"tmpfs", options, attributes, like, builder);
            builder.hidden.get_or_insert((c_string(&entry.path), shared));
        }
        Kind::Hidden(FileKind::Other) => mask_file(entry, &entry.path, builder),
        Kind::Tree { from, attributes, idmap, kind: _ } => {
            let at = Some(entry.at.clone());
            let slot = builder.slot(at.as_ref());
            let op = Op::CloneTree { path: c_string(from), into: slot };
            builder.step(Phase::Collect, op, from, at.clone());
            let op = Op::SetAttributes { of: slot, set: *attributes, recursive: true };
            builder.step(Phase::Root, op, from, at);
            if let Some(map) = idmap {
                let op = Op::IdMap { of: slot, map: builder.id_map(map) };
                builder.step(Phase::Root, op, from, Some(map.at.clone()));
            }
            attach(entry, &entry.path, slot, builder);
        }
    }
}

/// A ramfs, whose pages are never swapped out (tmpfs has `noswap` from Linux 6.4 on alone). What bounds it is what the
/// parent reads.
fn credentials(entry: &Entry, names: &[String], (uid, gid): (u32, u32), builder: &mut Builder<'_>) {
    let slot = builder.slot(Some(&entry.at));
    let at = || Some(entry.at.clone());
    let attributes = NOSUID | NODEV | NOEXEC | NOSYMFOLLOW;
    let op = filesystem_op(c"ramfs", vec![option("mode", "0500")].into(), attributes, slot);
    builder.step(builder.mounting, op, CREDENTIALS_DIRECTORY, at());
    for (index, name) in names.iter().enumerate() {
        let op = Op::WriteCredential { at: slot, index, name: c_string(name), uid, gid };
        builder.step(builder.mounting, op, name, at());
    }
    let op = Op::Chown { at: slot, name: c_string("."), uid, gid };
    builder.step(builder.mounting, op, CREDENTIALS_DIRECTORY, at());
    let op = Op::SetAttributes { of: slot, set: RDONLY, recursive: false };
    builder.step(builder.mounting, op, CREDENTIALS_DIRECTORY, at());
    attach(entry, CREDENTIALS_DIRECTORY, slot, builder);
}

/// The layers go into folders of a tmpfs that is the working directory meanwhile, so that their names are short (an
/// option has 256 bytes before Linux 6.5), need no escaping, and tell nothing of the host in mountinfo. The same tmpfs
/// takes what is written.
fn overlay(entry: &Entry, wanted: &Overlay, (uid, gid): (u32, u32), builder: &mut Builder<'_>) {
    let at = || Some(entry.at.clone());
    let stage = builder.slot(Some(&entry.at));
    // Three more than the policy asks for: the root, the upper and the work folder; and one for each layer.
    let inodes = wanted.inodes + 3 + u64::try_from(wanted.lower.len()).unwrap_or(0);
    let options = tmpfs_options(wanted.size_bytes, inodes, 0o755, Whose::Root);
    let op = filesystem_op(c"tmpfs", options, NOSUID | NODEV, stage);
    builder.step(Phase::Overlay, op, &entry.path, at());
    let mut folder = |name: &str, mode: u32| {
        let op = Op::Mkdir { at: stage, name: c_string(name), mode };
        builder.step(Phase::Overlay, op, &entry.path, at());
    };
    folder("upper", wanted.mode);
    folder("work", 0o700);
    let names: Vec<String> = (0..wanted.lower.len()).map(|number| format!("l{number}")).collect();
    for name in &names {
        folder(name, 0o700);
    }
    let op = Op::Chown { at: stage, name: c_string("upper"), uid, gid };
    builder.step(Phase::Overlay, op, &entry.path, at());
    builder.step(Phase::Overlay, Op::Stage(stage), &entry.path, at());
    for (layer, name) in wanted.lower.iter().zip(&names) {
        let slot = builder.slot(Some(&layer.at));
        let op = Op::CloneTree { path: c_string(&layer.value), into: slot };
        builder.step(Phase::Collect, op, &layer.value, Some(layer.at.clone()));
        let op = Op::AttachStaged { from: slot, name: c_string(name) };
        builder.step(Phase::Overlay, op, &layer.value, Some(layer.at.clone()));
    }
    let options =
        vec![option("lowerdir", &names.join(":")), option("upperdir", "upper"), option("workdir", "work")];
    let slot = builder.slot(Some(&entry.at));
    let attributes = NOSUID | NODEV | if wanted.noexec.unwrap_or(false) { NOEXEC } else { 0 };
    builder.step(
        Phase::Overlay,
        filesystem_op(c"overlay", options.into(), attributes, slot),
        &entry.path,
        at(),
    );
    builder.step(Phase::Overlay, Op::Unstage, &entry.path, at());
    attach(entry, &entry.path, slot, builder);
}

/// A tree of the host's that is shown may have mounts where this entry goes; elsewhere there is none (see [`shed`]).
fn detach(entry: &Entry, before: &[Entry], builder: &mut Builder<'_>) {
    let above = before.iter().rev().find(|other| is_beneath(&entry.path, &other.path));
    if above.is_some_and(|above| matches!(above.kind, Kind::Tree { .. })) {
        let op = Op::Detach(c_string(&entry.path));
        builder.step(builder.mounting, op, &entry.path, Some(entry.at.clone()));
    }
}

fn attach(entry: &Entry, path: &str, slot: Slot, builder: &mut Builder<'_>) {
    let op = Op::Attach { from: slot, target: c_string(path), through_links: builder.through_links };
    builder.step(builder.mounting, op, path, Some(entry.at.clone()));
}

/// A file system that is empty, or filled by the kernel: one call makes and attaches it. That enters the folder, which an
/// ordinary user may not where it is root's alone; for such a user it is made first, and attached by a descriptor.
fn new_mount(
    entry: &Entry,
    path: &str,
    kind: &std::ffi::CStr,
    options: Options,
    attributes: u64,
    builder: &mut Builder<'_>,
) {
    mount_like(entry, path, kind, options, attributes, None, builder);
}

/// The same, where such a one may be mounted already.
fn mount_like(
    entry: &Entry,
    path: &str,
    kind: &std::ffi::CStr,
    options: Options,
    attributes: u64,
    like: Option<CString>,
    builder: &mut Builder<'_>,
) {
    if builder.kernel.ordinary_user.is_some() {
        let slot = builder.slot(Some(&entry.at));
        let op = filesystem_op(kind, options, attributes, slot);
        builder.step(builder.mounting, op, path, Some(entry.at.clone()));
        return attach(entry, path, slot, builder);
    }
    let text = |option: &CString| option.to_string_lossy().into_owned();
    let Options { each, owned } = options;
    let written: Vec<String> = each
        .iter()
        .map(
            |(key, value)| {
                if value.is_empty() { text(key) } else { format!("{}={}", text(key), text(value)) }
            },
        )
        .collect();
    let flags = [
        (RDONLY, libc::MS_RDONLY),
        (NOSUID, libc::MS_NOSUID),
        (NODEV, libc::MS_NODEV),
        (NOEXEC, libc::MS_NOEXEC),
    ]
    .into_iter()
    .filter_map(|(attribute, flag)| (attributes & attribute != 0).then_some(flag))
    .fold(0, |flags, flag| flags | flag);
    let options = c_string(&written.join(","));
    let (kind, target, through_links) = (kind.to_owned(), c_string(path), builder.through_links);
    let op = Op::Mount { kind, target, through_links, attributes, flags, options, owned, like };
    builder.step(builder.mounting, op, path, Some(entry.at.clone()));
}

/// A device node on a mount that forbids devices: opening it is EACCES for everybody, root included. The source is the
/// host's own /dev/null, copied before the service's root is entered.
fn mask_file(entry: &Entry, path: &str, builder: &mut Builder<'_>) {
    let at = Some(entry.at.clone());
    let slot = builder.slot(at.as_ref());
    builder.step(
        Phase::Collect,
        Op::CloneTree { path: c"/dev/null".to_owned(), into: slot },
        path,
        at.clone(),
    );
    builder.step(Phase::Collect, Op::CheckNull(slot), "/dev/null", at.clone());
    let attributes = RDONLY | NOSUID | NODEV | NOEXEC;
    builder.step(Phase::Root, Op::SetAttributes { of: slot, set: attributes, recursive: false }, path, at);
    attach(entry, path, slot, builder);
}

fn proc(entry: &Entry, view: ProcView, builder: &mut Builder<'_>) {
    let options = match view {
        ProcView::SelfOnly => vec![option("hidepid", "ptraceable"), option("subset", "pid")],
        ProcView::Full | ProcView::None => Vec::new(),
    };
    new_mount(entry, "/proc", c"proc", options.into(), NOSUID | NODEV | NOEXEC, builder);
    if view != ProcView::Full {
        return;
    }
    // What the host's /proc has, the new one has: both are this kernel's.
    for path in PROC_MASKED {
        if builder.host.kind(path).is_ok() {
            mask_file(entry, path, builder);
        }
    }
    for path in PROC_READ_ONLY {
        if builder.host.kind(path).is_ok() {
            let at = Some(entry.at.clone());
            let slot = builder.slot(at.as_ref());
            builder.step(
                builder.mounting,
                Op::CloneTree { path: c_string(path), into: slot },
                path,
                at.clone(),
            );
            let attributes = RDONLY | NOSUID | NODEV | NOEXEC;
            let op = Op::SetAttributes { of: slot, set: attributes, recursive: true };
            builder.step(builder.mounting, op, path, at);
            attach(entry, path, slot, builder);
        }
    }
}

fn dev(entry: &Entry, more: u64, builder: &mut Builder<'_>) {
    // A node can lie in folders of its own: `/dev/bus/usb/001/001` takes four.
    let inodes = 64 + more * 4;
    let at = Some(entry.at.clone());
    let slot = builder.slot(at.as_ref());
    let op =
        filesystem_op(c"tmpfs", tmpfs_options(64 << 10, inodes, 0o755, Whose::Root), NOSUID | NOEXEC, slot);
    builder.step(builder.mounting, op, "/dev", at.clone());
    // Only root of the host makes device nodes; for an ordinary user the host's own are bound.
    let bound = builder.kernel.ordinary_user.is_some();
    for (name, major, minor) in NODES.iter().filter(|_| !bound) {
        let device = libc::makedev(*major, *minor);
        let op = Op::Mknod { at: slot, name: c_string(name), mode: libc::S_IFCHR | 0o666, device };
        builder.step(builder.mounting, op, format!("/dev/{name}"), at.clone());
    }
    for (name, target) in LINKS {
        let op = Op::Symlink { at: slot, name: c_string(name), target: c_string(target) };
        builder.step(builder.mounting, op, format!("/dev/{name}"), at.clone());
    }
    for name in ["pts", "shm"] {
        let op = Op::Mkdir { at: slot, name: c_string(name), mode: 0o755 };
        builder.step(builder.mounting, op, format!("/dev/{name}"), at.clone());
    }
    attach(entry, "/dev", slot, builder);
    for (name, ..) in NODES.iter().filter(|_| bound) {
        let path = format!("/dev/{name}");
        builder.step(builder.mounting, Op::MakeFile(c_string(&path)), &path, at.clone());
        let node = builder.slot(at.as_ref());
        let op = Op::CloneTree { path: c_string(&path), into: node };
        builder.step(Phase::Collect, op, &path, at.clone());
        let op = Op::SetAttributes { of: node, set: NOSUID | NOEXEC, recursive: false };
        builder.step(Phase::Root, op, &path, at.clone());
        attach(entry, &path, node, builder);
    }
    let shared = builder.sharing(false);
    let options = vec![option("newinstance", ""), option("ptmxmode", "0666"), option("mode", "0620")];
    new_mount(entry, "/dev/pts", c"devpts", options.into(), NOSUID | NOEXEC, builder);
    let options = tmpfs_options(64 << 20, 16 << 10, 0o1777, Whose::Service);
    new_mount(entry, "/dev/shm", c"tmpfs", options, NOSUID | NODEV | NOEXEC, builder);
    builder.sharing(shared);
    let op = Op::SetAttributes { of: slot, set: RDONLY, recursive: false };
    builder.step(Phase::Seal, op, "/dev", at);
}

fn sys(entry: &Entry, cgroup: Share, builder: &mut Builder<'_>) {
    let attributes = RDONLY | NOSUID | NODEV | NOEXEC;
    builder.mounting = Phase::NetworkMount;
    new_mount(entry, "/sys", c"sysfs", Options::default(), attributes, builder);
    // In a cgroup namespace of its own the service sees its own cgroup as the root; in the host's it sees none.
    if cgroup == Share::Private && builder.kernel.cgroup_root.is_some() {
        new_mount(entry, "/sys/fs/cgroup", c"cgroup2", Options::default(), attributes, builder);
    }
    builder.mounting = Phase::Mount;
}
