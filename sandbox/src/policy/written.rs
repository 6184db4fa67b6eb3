//! What each key of a resolved policy holds, as TOML, and where that was written: `motherctl policy show`.
//!
//! A merged policy keeps the places of its values alone; the text of a value is what stands at its place, so that it
//! need not be written again for every type that a key may have. What no file says is in [`DEFAULTS`].

use std::collections::BTreeMap;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Policy, Rules, Share};
use crate::diagnostic::{FileId, Place, Sources};

/// Where the value of a key is written.
#[derive(Debug, Clone)]
pub(crate) enum Written {
    /// A single value.
    One(Place),
    /// The elements of a list, each with the name that it is known by there.
    List(Vec<(String, Place)>),
    /// A table of names of the author's choice: the name, and the value as TOML.
    Named(Vec<(String, String, Place)>),
}

/// One key, and where its value begins if a file has it.
#[derive(Debug, Clone)]
pub(crate) struct WrittenKey {
    pub(crate) key: &'static str,
    pub(crate) at: Option<Place>,
    pub(crate) value: Option<Written>,
}

/// The keys of one table.
pub(crate) type WrittenTable = (&'static str, Vec<WrittenKey>);

/// One key of a resolved policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// `filesystem`; empty for the keys of the file itself.
    pub table: &'static str,
    /// `tmpfs`; in `[rlimits]` and `[credentials]` the name of one.
    pub key: String,
    /// What it holds.
    pub value: Value,
}

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// One value.
    One(Element),
    /// A list, and where the last file that writes or changes it does so.
    List(Vec<Element>, Option<Place>),
    /// A table of names and values.
    Table(Vec<(String, Element)>),
    /// Nothing is set; what that means depends on the key.
    Unset,
}

/// A value as it would be written, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// TOML.
    pub toml: String,
    /// `None`: no file says so, it is the default.
    pub at: Option<Place>,
}

/// What a key holds where no file says anything, by table and key; [`Unset`](Value::Unset) for what is not here. A test
/// loads them and compares what comes out with a policy that says nothing.
#[rustfmt::skip]
const DEFAULTS: &[(&str, &str, &str)] = &[
    ("", "description", "\"\""), ("", "unconfined", "false"),
    ("namespaces", "mount", "\"private\""), ("namespaces", "pid", "\"private\""),
    ("namespaces", "ipc", "\"private\""), ("namespaces", "uts", "\"private\""),
    ("namespaces", "cgroup", "\"private\""), ("namespaces", "net", "\"private\""),
    ("namespaces", "user", "\"host\""), ("namespaces", "time", "\"host\""),
    ("filesystem", "root", "\"host\""), ("filesystem", "read_only", "[\"/\"]"),
    ("filesystem", "hidden", "[\"/root\", \"/home\", \"/boot\"]"), ("filesystem", "tmpfs", "[]"),
    ("filesystem", "proc", "\"self\""), ("filesystem", "dev", "\"minimal\""),
    ("filesystem", "sys", "\"read-only\""), ("filesystem", "read_write", "[]"),
    ("filesystem", "bind", "[]"), ("filesystem", "overlay", "[]"),
    ("process", "user", "\"auto\""), ("process", "group", "\"auto\""),
    ("process", "supplementary_groups", "[]"), ("process", "no_new_privs", "true"),
    ("process", "umask", "\"0077\""), ("process", "working_directory", "\"/\""),
    ("process", "environment", "{}"), ("process", "oom_score_adj", "0"), ("process", "nice", "0"),
    ("process", "memory_deny_write_execute", "true"), ("process", "lock_personality", "true"),
    ("process", "core_dumps", "false"), ("process", "keyring", "\"private\""),
    ("process", "scheduler", "\"other\""), ("process", "scheduler_priority", "0"),
    ("process", "numa_nodes", "[]"), ("process", "disable_speculation", "[]"), ("process", "securebits", "[]"),
    ("process", "restrict_realtime", "true"), ("process", "restrict_suid", "true"),
    ("process", "restrict_namespaces", "true"),
    ("seccomp", "io_uring", "false"), ("seccomp", "action", "{}"),
    ("capabilities", "keep", "[]"), ("capabilities", "ambient", "[]"),
    ("landlock", "read", "[]"), ("landlock", "execute", "[]"), ("landlock", "write", "[]"),
    ("landlock", "bind_tcp", "[]"), ("landlock", "connect_tcp", "[]"),
    ("landlock", "scope", "[\"abstract-unix-socket\", \"signal\"]"), ("landlock", "optional", "[]"),
    ("seccomp", "default", "\"errno:EPERM\""), ("seccomp", "allow", "[]"), ("seccomp", "deny", "[]"),
    ("seccomp", "architectures", "[\"native\"]"), ("seccomp", "log", "true"), ("seccomp", "rule", "[]"),
    ("seccomp", "groups", "1"),
    ("cgroup", "optional", "[]"),
];

/// With `mount = "host"` the default is the host's tree as it is.
#[rustfmt::skip]
const HOST_FILESYSTEM: &[(&str, &str, &str)] = &[
    ("filesystem", "read_only", "[]"), ("filesystem", "hidden", "[]"), ("filesystem", "proc", "\"full\""),
    ("filesystem", "dev", "\"host\""), ("filesystem", "sys", "\"host\""),
];

impl Policy {
    /// Every key as resolved, in the order of the reference. Of an unconfined policy that is what it is called alone:
    /// no rule applies.
    #[must_use]
    pub fn show(&self) -> Vec<Shown> {
        let texts = Texts::of(&self.sources);
        let host_mounts = match &self.rules {
            Rules::Confined(rules) => rules.namespaces.mount.value == Share::Host,
            Rules::Unconfined(_) => false,
        };
        let tables = match &self.rules {
            Rules::Confined(_) => self.written.as_slice(),
            Rules::Unconfined(_) => self.written.get(..1).unwrap_or_default(),
        };
        let mut shown = Vec::new();
        for (table, keys) in tables {
            for WrittenKey { key, at, value: written } in keys {
                if matches!(*table, "rlimits" | "credentials") {
                    let Some(Written::Named(limits)) = written else { continue };
                    shown.extend(limits.iter().map(|(name, toml, at)| Shown {
                        table,
                        key: name.clone(),
                        value: Value::One(Element { toml: toml.clone(), at: Some(at.clone()) }),
                    }));
                    continue;
                }
                let value = match written {
                    Some(written) => texts.value(written, at.clone(), &default(table, key, host_mounts)),
                    None => default(table, key, host_mounts),
                };
                shown.push(Shown { table, key: (*key).to_owned(), value });
            }
        }
        shown
    }

    /// The element of a list that stands for `name`, and its place: what `seccomp.allow` says of `@default`.
    pub(crate) fn elements(&self, table: &str, key: &str) -> &[(String, Place)] {
        let table = self.written.iter().find(|(name, _)| *name == table);
        let written = table.and_then(|(_, keys)| keys.iter().find(|written| written.key == key));
        match written.and_then(|written| written.value.as_ref()) {
            Some(Written::List(elements)) => elements,
            Some(Written::One(_) | Written::Named(_)) | None => &[],
        }
    }
}

fn default(table: &str, key: &str, host_mounts: bool) -> Value {
    let host: &[_] = if host_mounts { HOST_FILESYSTEM } else { &[] };
    let known = host.iter().chain(DEFAULTS).find(|(known, name, _)| *known == table && *name == key);
    let Some((.., toml)) = known else { return Value::Unset };
    let text = format!("v = {toml}");
    let value = DeTable::parse(&text).expect("a test parses every default").into_inner();
    let element = |value: &DeValue<'_>| Element { toml: inline(value), at: None };
    match value.get("v").map(Spanned::get_ref) {
        Some(DeValue::Array(array)) => {
            Value::List(array.iter().map(|item| element(item.get_ref())).collect(), None)
        }
        Some(DeValue::Table(_)) => Value::Table(Vec::new()),
        Some(value) => Value::One(element(value)),
        None => Value::Unset,
    }
}

/// The TOML of every value of the files, by its place.
struct Texts(BTreeMap<(FileId, usize, usize), String>);

impl Texts {
    fn of(sources: &Sources) -> Self {
        let mut texts = Self(BTreeMap::new());
        for file in sources.files() {
            // What was loaded parses.
            let (document, _) = DeTable::parse_recoverable(sources.text(file));
            texts.table(file, document.get_ref());
        }
        texts
    }

    fn table(&mut self, file: FileId, table: &DeTable<'_>) {
        for value in table.values() {
            self.value_of(file, value);
        }
    }

    /// A value before what is in it: under one header, `[[seccomp.rule]]`, stand a table, its list and its section, and
    /// the innermost of them is what has a place of its own.
    fn value_of(&mut self, file: FileId, value: &Spanned<DeValue<'_>>) {
        let span = value.span();
        self.0.insert((file, span.start, span.end), inline(value.get_ref()));
        match value.get_ref() {
            DeValue::Table(table) => self.table(file, table),
            DeValue::Array(array) => array.iter().for_each(|value| self.value_of(file, value)),
            DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Float(_)
            | DeValue::Integer(_)
            | DeValue::String(_) => {}
        }
    }

    fn at(&self, place: &Place) -> Option<&str> {
        self.0.get(&(place.file, place.span.start, place.span.end)).map(String::as_str)
    }

    fn value(&self, written: &Written, key_at: Option<Place>, default: &Value) -> Value {
        match written {
            Written::One(at) => match self.at(at) {
                Some(toml) => Value::One(Element { toml: toml.to_owned(), at: Some(at.clone()) }),
                None => Value::Unset,
            },
            Written::List(elements) => {
                Value::List(elements.iter().map(|(id, at)| self.element(id, at, default)).collect(), key_at)
            }
            Written::Named(entries) => {
                let element =
                    |toml: &String, at: &Place| Element { toml: toml.clone(), at: Some(at.clone()) };
                Value::Table(
                    entries.iter().map(|(name, toml, at)| (name.clone(), element(toml, at))).collect(),
                )
            }
        }
    }

    /// Where a file changes a list that no file wrote, the default's elements are said to stand at the change: then
    /// another text is there.
    fn element(&self, id: &str, at: &Place, default: &Value) -> Element {
        let by_default = Element { toml: quoted(id), at: None };
        match self.at(at) {
            Some(toml) if toml == by_default.toml => Element { toml: toml.to_owned(), at: Some(at.clone()) },
            Some(_) if matches!(default, Value::List(elements, _) if elements.contains(&by_default)) => {
                by_default
            }
            Some(toml) => Element { toml: toml.to_owned(), at: Some(at.clone()) },
            None => by_default,
        }
    }
}

/// A value on one line.
fn inline(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(value) => value.to_string(),
        DeValue::Float(value) => value.as_str().to_owned(),
        DeValue::Integer(value) => {
            let prefix = match value.radix() {
                2 => "0b",
                8 => "0o",
                16 => "0x",
                _ => "",
            };
            format!("{prefix}{}", value.as_str())
        }
        DeValue::Array(values) => {
            let values: Vec<String> = values.iter().map(|value| inline(value.get_ref())).collect();
            format!("[{}]", values.join(", "))
        }
        DeValue::Table(table) if table.is_empty() => "{}".to_owned(),
        DeValue::Table(table) => {
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by_key(|(key, _)| key.span().start);
            let entries: Vec<String> = entries
                .into_iter()
                .map(|(key, value)| format!("{} = {}", key_text(key.get_ref()), inline(value.get_ref())))
                .collect();
            format!("{{ {} }}", entries.join(", "))
        }
    }
}

/// A key, in quotes where it has to be.
pub(crate) fn key_text(key: &str) -> String {
    let bare =
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if bare { key.to_owned() } else { quoted(key) }
}

/// A text as a TOML string on one line.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The policy as TOML that loads again, every value with the place it came from behind a `#`.
#[must_use]
pub fn text(policy: &Policy) -> String {
    let names = FileNames::of(policy.sources());
    let mut text = names.header(policy);
    let shown = policy.show();
    let mut table = "";
    for group in shown.chunk_by(|a, b| a.table == b.table) {
        if group[0].table != table {
            table = group[0].table;
            text.push_str(&format!("\n[{table}]\n"));
        }
        let lines: Vec<(String, Option<String>)> =
            group.iter().flat_map(|shown| shown.lines(&names, policy.sources())).collect();
        let widths =
            lines.iter().filter(|(_, origin)| origin.is_some()).map(|(line, _)| line.chars().count());
        // A long line stands out; the others' comments need not follow it.
        let width = widths.filter(|width| *width <= 64).max().unwrap_or(0);
        for (line, origin) in &lines {
            match origin {
                Some(origin) => text.push_str(&format!("{line:width$}  # {origin}\n")),
                None => text.push_str(&format!("{line}\n")),
            }
        }
    }
    text
}

impl Shown {
    /// The lines of the key, each with what is said about where it is from.
    fn lines(&self, names: &FileNames, sources: &Sources) -> Vec<(String, Option<String>)> {
        let key = key_text(&self.key);
        let origin = |element: &Element| Some(names.origin(element.at.as_ref(), sources));
        match &self.value {
            Value::Unset => vec![(format!("# {key} is not set"), None)],
            Value::One(element) => vec![(format!("{key} = {}", element.toml), origin(element))],
            Value::List(elements, at) => match elements.as_slice() {
                [] => vec![(format!("{key} = []"), Some(names.origin(at.as_ref(), sources)))],
                [element] => vec![(format!("{key} = [{}]", element.toml), origin(element))],
                elements => {
                    let one = |element: &Element| (format!("    {},", element.toml), origin(element));
                    let first = (format!("{key} = ["), None);
                    let last = ("]".to_owned(), None);
                    std::iter::once(first).chain(elements.iter().map(one)).chain([last]).collect()
                }
            },
            Value::Table(entries) if entries.is_empty() => {
                vec![(format!("{key} = {{}}"), Some("default".to_owned()))]
            }
            Value::Table(entries) => entries
                .iter()
                .map(|(name, element)| {
                    (format!("{key}.{} = {}", key_text(name), element.toml), origin(element))
                })
                .collect(),
        }
    }
}

/// The files of a policy without the folder that all of them are in.
struct FileNames {
    names: BTreeMap<FileId, String>,
    folder: String,
}

impl FileNames {
    fn of(sources: &Sources) -> Self {
        let paths: Vec<_> = sources.files().map(|file| (file, sources.path(file).to_owned())).collect();
        let parent = |path: &std::path::Path| path.parent().unwrap_or(path).to_owned();
        let mut folder = paths.first().map(|(_, path)| parent(path)).unwrap_or_default();
        while !paths.iter().all(|(_, path)| path.starts_with(&folder)) {
            folder = parent(&folder);
        }
        let name = |path: &std::path::Path| path.strip_prefix(&folder).unwrap_or(path).display().to_string();
        let names = paths.iter().map(|(file, path)| (*file, name(path))).collect();
        Self { names, folder: folder.display().to_string() }
    }

    fn origin(&self, at: Option<&Place>, sources: &Sources) -> String {
        match at {
            None => "default".to_owned(),
            Some(at) => {
                let name = self.names.get(&at.file).map_or("", String::as_str);
                format!("{name}:{}", sources.line_column(at).0)
            }
        }
    }

    fn header(&self, policy: &Policy) -> String {
        // A file is added before those that it extends, and applied after them.
        let names: Vec<&str> = self.names.values().map(String::as_str).collect();
        let from = match names.as_slice() {
            [own] => own.to_string(),
            [own, extended @ ..] => format!("{own} and what it extends: {}", extended.join(", ")),
            [] => String::new(),
        };
        let folder = if self.folder.is_empty() { String::new() } else { format!(", in {}", self.folder) };
        // A path with a newline would begin a line that is no comment.
        format!("# {} as resolved from {from}{folder}\n", policy.name())
            .replace(char::is_control, " ")
            .trim_end()
            .to_owned()
            + "\n"
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::policy::{Store, keys, load_text};

    fn load(text: &str) -> Policy {
        load_text(Path::new("t.toml"), text, &Store::new(Vec::new()))
            .unwrap_or_else(|report| panic!("{report}\n{text}"))
    }

    /// What a policy means, without the places in it.
    fn meaning(policy: &Policy) -> String {
        let text = format!("{:?}", policy.rules());
        let mut parts = text.split("Place { file: FileId(");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| text + part.split_once('}').map_or("", |(_, rest)| rest))
    }

    #[test]
    fn the_defaults_are_what_a_policy_that_says_nothing_means() {
        for (host, prefix) in [(&[][..], ""), (HOST_FILESYSTEM, "namespaces.mount = \"host\"\n")] {
            let silent = load(prefix);
            let mut spelt = String::new();
            for (table, keys) in keys().into_iter().filter(|(table, _)| !table.contains('.')) {
                if !table.is_empty() {
                    spelt.push_str(&format!("[{table}]\n"));
                }
                for key in keys {
                    let known = host.iter().chain(DEFAULTS).find(|(t, k, _)| *t == table && k == key);
                    let written = table == "namespaces" && *key == "mount" && !host.is_empty();
                    match known {
                        Some(_) if written => spelt.push_str("mount = \"host\"\n"),
                        Some((.., toml)) => spelt.push_str(&format!("{key} = {toml}\n")),
                        None => {}
                    }
                }
            }
            assert_eq!(meaning(&load(&spelt)), meaning(&silent), "{spelt}");
        }
    }

    #[test]
    fn every_key_has_a_default_or_is_known_to_have_none() {
        let none = [
            "extends",
            "hostname",
            "domainname",
            "time_offset_monotonic",
            "time_offset_boottime",
            "cpu_affinity",
            "numa_policy",
            "io_class",
            "io_priority",
            "timer_slack",
            "socket",
            "ioctl",
            "prctl",
        ];
        let mut missing = Vec::new();
        // A limit that nobody wrote stays as the kernel has it.
        let tables = keys().into_iter().filter(|(table, _)| !table.contains('.') && *table != "cgroup");
        for (table, keys) in tables {
            let sections: Vec<&str> = super::super::keys().into_iter().map(|(table, _)| table).collect();
            missing.extend(
                keys.iter()
                    .filter(|key| {
                        !none.contains(key)
                            && !sections.contains(key)
                            && !["rlimits", "credentials"].contains(key)
                    })
                    .filter(|key| !DEFAULTS.iter().any(|(t, k, _)| *t == table && k == *key))
                    .map(|key| format!("{table}.{key}")),
            );
        }
        assert!(
            missing.is_empty(),
            "write the defaults of these into DEFAULTS, above: {}",
            missing.join(", ")
        );
    }

    #[test]
    fn what_is_shown_of_lists_and_tables_loads_again() {
        let policy = load(
            "description = \"a \\\"b\\\"\"\n[filesystem]\nhidden = { add = [\"/x\"], remove = [\"/boot\"] }\n\
             [[filesystem.tmpfs]]\npath = \"/tmp\"\nsize = \"1M\"\n[process]\numask = '0022'\n\
             environment = { \"A.B\" = \"x\\ny\", C = \"\" }\n[landlock]\nconnect_tcp = \"any\"\nbind_tcp = [0x50]\n\
             read = [{ path = \"/usr\", optional = true }, \"/etc\"]\n[seccomp]\nallow = [\"@default\", \"socket\"]\n\
             [[seccomp.rule]]\ncall = \"socket\"\narg = 0\nin = [\"AF_UNIX\", 2]\n[[seccomp.rule]]\ncall = \"socket\"\n\
             arg = 1\nin = [1]\n[rlimits]\nnofile = 7\n",
        );
        let shown = text(&policy);
        assert_eq!(meaning(&load(&shown)), meaning(&policy), "{shown}");
        for line in [
            "    \"/root\", # default",
            "    \"/x\", # t.toml:3",
            "tmpfs = [{ path = \"/tmp\", size = \"1M\" }] # t.toml:4",
            "bind = [] # default",
            "environment.\"A.B\" = \"x\\ny\"",
            "bind_tcp = [0x50]",
            "connect_tcp = \"any\"",
            "    { call = \"socket\", arg = 1, in = [1] },",
            "nofile = \"7:7\"",
        ] {
            let squeezed: Vec<String> = shown
                .lines()
                .map(|line| {
                    line.split_once("  #").map_or(line.into(), |(a, b)| format!("{} #{b}", a.trim_end()))
                })
                .collect();
            assert!(squeezed.iter().any(|shown| shown.starts_with(line)), "{line} is not in\n{shown}");
        }
    }

    #[test]
    fn an_unconfined_policy_has_no_rules_to_show() {
        let shown = text(&load("unconfined = true\n"));
        assert_eq!(
            shown,
            "# t.toml as resolved from t.toml\ndescription = \"\"   # default\nunconfined = true  # t.toml:1\n"
        );
    }
}
