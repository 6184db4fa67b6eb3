//! Reads the elements of `[filesystem]`: what is mounted, and how.

use super::{
    Bind, Credential, Overlay, Tmpfs, WritablePath, namespaces,
    reader::{Item, Notes},
    values::{OPTIONAL_PATH_KEYS, flag, mode, path, size},
};
use crate::diagnostic::{Diagnostic, Located};

/// `{ path = "/tmp", size = "64M", mode = "1777" }`.
pub(super) fn tmpfs(item: &Item<'_>, notes: &mut Notes) -> Option<Located<Tmpfs>> {
    let table = item.table(TMPFS_KEYS, notes)?;
    let path = table.require("path", notes).and_then(|item| path(&item, notes));
    let size = table.require("size", notes).and_then(|item| size(&item, notes));
    let mode = folder_mode(table.get("mode"), notes);
    let inodes = inodes(table.get("inodes"), notes);
    let noexec = match table.get("noexec") {
        Some(item) => item.boolean(notes).map(|value| Some(value.value)),
        None => Some(None),
    };
    let (path, size_bytes, mode, inodes, noexec) = (path?, size?.value, mode?, inodes?, noexec?);
    if path.value == "/" {
        let message = "a tmpfs on `/` would hide everything else";
        let help = "for an empty root write `root = \"empty\"`";
        notes.push(Diagnostic::error("conflicting-paths", path.at, message).help(help));
        return None;
    }
    let inodes = inodes.unwrap_or_else(|| (size_bytes / 4096).max(1));
    Some(Located::new(Tmpfs { path: path.value, size_bytes, mode, inodes, noexec }, item.at()))
}

/// The keys of a tmpfs.
pub(super) const TMPFS_KEYS: &[&str] = &["path", "size", "mode", "inodes", "noexec"];

fn folder_mode(item: Option<Item<'_>>, notes: &mut Notes) -> Option<u32> {
    match item {
        Some(item) => mode(&item, 0o7777, notes).map(|mode| mode.value),
        None => Some(0o755),
    }
}

fn inodes(item: Option<Item<'_>>, notes: &mut Notes) -> Option<Option<u64>> {
    match item {
        Some(item) => item.integer(1_u64, u64::from(u32::MAX), notes).map(|inodes| Some(inodes.value)),
        None => Some(None),
    }
}

/// A switch whose default is another key's: `Some(None)` where it is not written.
fn maybe(item: Option<Item<'_>>, notes: &mut Notes) -> Option<Option<bool>> {
    match item {
        Some(item) => item.boolean(notes).map(|flag| Some(flag.value)),
        None => Some(None),
    }
}

/// `{ from = "/srv/a", to = "/data", read_only = true, optional = false }`.
pub(super) fn bind(item: &Item<'_>, notes: &mut Notes) -> Option<Located<Bind>> {
    let table = item.table(BIND_KEYS, notes)?;
    let from = table.require("from", notes).and_then(|item| path(&item, notes));
    let to = table.require("to", notes).and_then(|item| path(&item, notes));
    let mut yes_or_no = |key, default| flag(table.get(key), default, notes);
    let read_only = yes_or_no("read_only", true);
    let optional = yes_or_no("optional", false);
    let (nosuid, nodev) = (yes_or_no("nosuid", true), yes_or_no("nodev", true));
    let nosymfollow = yes_or_no("nosymfollow", false);
    let control_socket = yes_or_no("control_socket", false);
    let noexec = maybe(table.get("noexec"), notes);
    let idmap = match table.get("idmap") {
        Some(item) => namespaces::id_map(&item, notes).map(Some),
        None => Some(None),
    };
    let (from, to) = (from?, to?);
    if to.value == "/" {
        let message = "a bind to `/` would hide everything else";
        let help = "for another root write `root = \"/path/of/it\"`";
        notes.push(Diagnostic::error("conflicting-paths", to.at, message).help(help));
        return None;
    }
    let bind = Bind {
        from,
        to,
        read_only: read_only?,
        optional: optional?,
        nosuid: nosuid?,
        nodev: nodev?,
        noexec: noexec?,
        nosymfollow: nosymfollow?,
        control_socket: control_socket?,
        idmap: idmap?,
    };
    Some(Located::new(bind, item.at()))
}

/// The keys of a bind.
pub(super) const BIND_KEYS: &[&str] = &[
    "from",
    "to",
    "read_only",
    "optional",
    "nosuid",
    "nodev",
    "noexec",
    "nosymfollow",
    "control_socket",
    "idmap",
];

/// `{ lower = ["/srv/base"], path = "/app", size = "64M" }`.
pub(super) fn overlay(item: &Item<'_>, notes: &mut Notes) -> Option<Located<Overlay>> {
    let table = item.table(OVERLAY_KEYS, notes)?;
    let to = table.require("path", notes).and_then(|item| path(&item, notes));
    let lower = table.require("lower", notes).and_then(|item| layers(&item, notes));
    let size = table.require("size", notes).and_then(|item| size(&item, notes));
    let mode = folder_mode(table.get("mode"), notes);
    let inodes = inodes(table.get("inodes"), notes);
    let noexec = maybe(table.get("noexec"), notes);
    let (to, size_bytes, inodes) = (to?, size?.value, inodes?);
    if to.value == "/" {
        let message = "an overlay on `/` would hide everything else";
        notes.push(Diagnostic::error("conflicting-paths", to.at, message));
        return None;
    }
    let inodes = inodes.unwrap_or_else(|| (size_bytes / 4096).max(1));
    let (path, mode, noexec) = (to.value, mode?, noexec?);
    Some(Located::new(Overlay { path, lower: lower?, size_bytes, inodes, mode, noexec }, item.at()))
}

/// The keys of an overlay.
pub(super) const OVERLAY_KEYS: &[&str] = &["path", "lower", "size", "mode", "inodes", "noexec"];

/// As many as fit into one option of fsconfig(2), which has 256 bytes on a kernel before 6.5.
const MOST_LAYERS: usize = 32;

fn layers(item: &Item<'_>, notes: &mut Notes) -> Option<Vec<Located<String>>> {
    let elements = item.elements(notes)?;
    if elements.is_empty() || elements.len() > MOST_LAYERS {
        let message = format!("`{}` has from 1 to {MOST_LAYERS} folders", item.key);
        notes.push(Diagnostic::error("out-of-range", item.at(), message));
        return None;
    }
    let layers: Vec<_> = elements.iter().filter_map(|element| path(element, notes)).collect();
    (layers.len() == elements.len()).then_some(layers)
}

/// `[credentials]`: names of the author's choice, and where their files are.
pub(super) fn credentials(item: &Item<'_>, notes: &mut Notes) -> Option<Vec<Located<Credential>>> {
    let mut credentials = Vec::new();
    for (name, item) in item.open_table(notes)?.entries() {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let text = name.value.as_str();
        if text.is_empty() || text.len() > 255 || text.starts_with('.') || !text.bytes().all(fits) {
            let message = format!("{text:?} cannot be the name of a credential");
            let label = "letters, digits, . _ and -, not beginning with a dot";
            notes.push(Diagnostic::error("invalid-credential", name.at, message).label(label));
            continue;
        }
        if !item.value().is_table() {
            // Not even a text: whoever may read policies could read it.
            item.wrong_type::<()>("{ file = \"/path\" }: what stands in a policy is no secret", notes);
            continue;
        }
        let Some(table) = item.table(CREDENTIAL_KEYS, notes) else { continue };
        let file = table.require("file", notes).and_then(|item| path(&item, notes));
        let optional = flag(table.get("optional"), false, notes);
        if let (Some(file), Some(optional)) = (file, optional) {
            credentials.push(Located::new(Credential { name: name.value, file, optional }, name.at));
        }
    }
    Some(credentials)
}

/// The keys of a credential.
pub(super) const CREDENTIAL_KEYS: &[&str] = &["file", "optional"];

/// `"/path"` or `{ path = "/path", optional = true, noexec = true }`.
pub(super) fn writable_path(item: &Item<'_>, notes: &mut Notes) -> Option<Located<WritablePath>> {
    if item.value().is_str() {
        let path = path(item, notes)?;
        return Some(path.map(|path| WritablePath { path, optional: false, noexec: None }));
    }
    if !item.value().is_table() {
        return item.wrong_type("a path in quotes, or { path = \"/...\", optional = true }", notes);
    }
    let table = item.table(WRITABLE_PATH_KEYS, notes)?;
    let optional = flag(table.get("optional"), false, notes);
    let noexec = maybe(table.get("noexec"), notes);
    let path = path(&table.require("path", notes)?, notes)?.value;
    Some(Located::new(WritablePath { path, optional: optional?, noexec: noexec? }, item.at()))
}

/// The keys of a path that is writable.
pub(super) const WRITABLE_PATH_KEYS: &[&str] = &[OPTIONAL_PATH_KEYS[0], OPTIONAL_PATH_KEYS[1], "noexec"];
