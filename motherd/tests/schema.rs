//! The JSON schemas of policies and service files, for editors: `docs/schema/*.json`, generated from the readers.
//!
//! Nothing about a key is written here. Which keys a table has, which types each takes and which words it knows is asked
//! of the very code that reads the files, by giving it values and looking at what it says is wrong; what a key is for is
//! its row in the reference. So a new key is in the schema as soon as it can be read. With `BLESS=1` the files are
//! written anew.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use motherd::service::load_dirs;
use sandbox::{
    diagnostic::Diagnostic,
    policy::{Store, keys, load_text},
};
use serde_json::{Map, Value, json};

/// What is wrong with a text.
type Reader<'r> = &'r dyn Fn(&str) -> Vec<Diagnostic>;

fn of_policies(text: &str) -> Vec<Diagnostic> {
    let outcome = load_text(Path::new("schema.toml"), text, &Store::new(Vec::new()));
    outcome.map_or_else(|report| report.diagnostics, |_| Vec::new())
}

/// Service files are read from a folder alone.
fn of_services(text: &str) -> Vec<Diagnostic> {
    // Tests run side by side.
    let name = format!("schema-{}-{:?}", std::process::id(), std::thread::current().id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("the target folder is ours");
    let file = folder.join("probe.toml");
    fs::write(&file, text).expect("the folder is ours");
    for (path, mode) in [(&folder, 0o755), (&file, 0o644)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    }
    let mut catalog = load_dirs(std::slice::from_ref(&folder));
    fs::remove_dir_all(&folder).expect("the folder is ours");
    assert!(catalog.problems.is_empty(), "{:?}", catalog.problems);
    catalog.broken.remove("probe").map(|report| report.diagnostics).unwrap_or_default()
}

/// A key in a table, and a reader to ask.
struct Key<'r> {
    read: Reader<'r>,
    /// What stands before: the header of the table.
    header: String,
    name: &'r str,
}

impl Key<'_> {
    /// What is said of `part` when the key has `value`, which contains it.
    fn told(&self, value: &str, part: &str) -> Vec<Diagnostic> {
        let before = format!("{}{} = ", self.header, self.name);
        let start = before.len() + value.find(part).expect("the part is in the value");
        let span = start..start + part.len();
        let diagnostics = (self.read)(&format!("{before}{value}\n"));
        diagnostics.into_iter().filter(|one| one.at.as_ref().is_some_and(|at| at.span == span)).collect()
    }

    fn takes(&self, value: &str, part: &str) -> bool {
        !self.told(value, part).iter().any(|one| one.code == "wrong-type")
    }

    /// The types that are taken where `#` stands in `pattern`: the value itself, or an element of it.
    fn types(&self, pattern: &str) -> Vec<Value> {
        let takes = |part: &str| self.takes(&pattern.replace('#', part), part);
        let mut types = Vec::new();
        if takes("true") {
            types.push(json!({ "type": "boolean" }));
        }
        if takes("7.5") {
            types.push(json!({ "type": "number" }));
        } else if takes("7") {
            types.push(json!({ "type": "integer" }));
        }
        if takes("\"?\"") {
            types.extend(self.words(pattern));
        }
        types
    }

    /// The words that a text can be, as far as the reader lists them.
    fn words(&self, pattern: &str) -> Vec<Value> {
        let part = "\"?\"";
        let told = self.told(&pattern.replace('#', part), part);
        let help = told.iter().find_map(|one| one.help.as_deref()?.strip_prefix("allowed here: "));
        let Some(help) = help else { return vec![json!({ "type": "string" })] };
        // `/path`, `errno:EPERM` and `[80, 443]` stand for many: whether all is listed is whether there is one.
        let listed: Vec<&str> = help.split(", ").collect();
        let plain =
            |word: &&&str| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_@".contains(&byte));
        let words: Vec<&&str> = listed.iter().filter(plain).collect();
        if words.len() == listed.len() {
            return vec![json!({ "enum": words })];
        }
        vec![json!({ "enum": words }), json!({ "type": "string" })]
    }

    /// The schema of the key; `elements` is that of the tables that may stand in its list, or be its value.
    fn schema(&self, elements: Option<&Value>) -> Value {
        let start = self.header.len();
        let span = start..start + self.name.len();
        let told = (self.read)(&format!("{}{} = true\n", self.header, self.name));
        let here = |one: &&Diagnostic| one.at.as_ref().is_some_and(|at| at.span == span);
        if let Some(later) = told.iter().filter(here).find(|one| one.code == "not-yet") {
            return json!({ "not": {}, "description": later.message });
        }
        let mut types = self.types("#");
        if self.takes("[]", "[]") {
            let mut items = self.types("[#]");
            items.extend(elements.cloned());
            if self.takes("[[\"/x\"]]", "[\"/x\"]")
                && self.takes("[[\"/x\"]]", "\"/x\"")
                && !self.takes("[[7]]", "7")
            {
                items.push(json!({ "type": "array", "items": { "type": "string" } }));
            }
            let list = json!({ "type": "array", "items": any_of(items) });
            if self
                .told("{ zzz = 1 }", "zzz")
                .iter()
                .any(|one| one.help.as_deref().is_some_and(|h| h.contains("add, remove")))
            {
                let names = json!({ "type": "array", "items": { "type": ["string", "integer"] } });
                types.push(json!({
                    "type": "object",
                    "properties": { "add": list, "remove": names },
                    "additionalProperties": false,
                }));
            }
            types.push(list);
        } else if let Some(table) = elements {
            types.push(table.clone());
        } else if self.takes("{}", "{}") {
            types.push(json!({ "type": "object" }));
        }
        any_of(types)
    }
}

fn any_of(mut types: Vec<Value>) -> Value {
    if types.len() == 1 { types.remove(0) } else { json!({ "anyOf": types }) }
}

fn object(properties: Map<String, Value>, required: &[String]) -> Value {
    let mut object = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

/// The keys that a table lacks when it is empty.
fn required(read: Reader<'_>, header: &str) -> Vec<String> {
    let lacking = read(header).into_iter().filter(|one| one.code == "missing-key");
    lacking.filter_map(|one| Some(one.message.rsplit('`').nth(1)?.to_owned())).collect()
}

/// The rows of the tables of a reference: under which heading, which key, and the other cells.
fn rows(reference: &str) -> BTreeMap<(String, String), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(reference);
    let text = fs::read_to_string(path).expect("the reference is there");
    let (mut heading, mut joined) = (String::new(), "; ");
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            heading = title.trim_matches(['[', ']']).to_owned();
        } else if let Some(title) = line.strip_prefix("`[") {
            heading = title.split(']').next().unwrap_or_default().to_owned();
        }
        if line.starts_with("| key |") {
            joined = if line.ends_with("| default |") { "; default: " } else { "; " };
        }
        let Some((keys, cells)) = line.strip_prefix("| ").and_then(|row| row.split_once(" | ")) else {
            continue;
        };
        for key in keys.split(", ").filter_map(|key| key.strip_prefix('`')?.strip_suffix('`')) {
            let cells: Vec<&str> = cells.trim_end_matches('|').split(" | ").map(str::trim).collect();
            rows.insert((heading.clone(), key.to_owned()), cells.join(joined).replace('`', ""));
        }
    }
    rows
}

fn described(mut schema: Value, text: Option<&String>) -> Value {
    if let Some(text) = text {
        schema["description"] =
            json!(text.replace("\\|", "|").trim().trim_end_matches("default:").trim_end_matches([' ', ';']));
    }
    schema
}

fn whole(title: &str, schema: Value) -> Value {
    let mut whole = json!({ "$schema": "http://json-schema.org/draft-07/schema#", "title": title });
    for (key, value) in schema.as_object().expect("a file is a table") {
        whole[key] = value.clone();
    }
    whole
}

fn policies() -> Value {
    let tables: BTreeMap<&str, &[&str]> = keys().into_iter().collect();
    let rows = rows("policy.md");
    let row = |table: &str, key: &str| {
        rows.get(&(if table.is_empty() { "The file".to_owned() } else { table.to_owned() }, key.to_owned()))
    };
    let table_of = |table: &str, header: &str| {
        let mut properties = Map::new();
        for name in tables[table] {
            let key = Key { read: &of_policies, header: header.to_owned(), name };
            let nested = format!("{table}.{name}");
            let elements = tables.get(nested.as_str()).map(|keys| {
                let lists = key.takes("[]", "[]");
                let header = if lists { format!("[[{nested}]]\n") } else { format!("[{nested}]\n") };
                let mut properties = Map::new();
                for name in *keys {
                    let key = Key { read: &of_policies, header: header.clone(), name };
                    properties.insert((*name).to_owned(), described(key.schema(None), row(&nested, name)));
                }
                object(properties, &required(&of_policies, &header))
            });
            properties.insert((*name).to_owned(), described(key.schema(elements.as_ref()), row(table, name)));
        }
        object(properties, &[])
    };
    let mut file = table_of("", "");
    for section in tables[""] {
        if tables.contains_key(section) {
            file["properties"][section] = table_of(section, &format!("[{section}]\n"));
        }
    }
    let unknown = of_policies("[rlimits]\nzzz = 1\n");
    let names = unknown.iter().find_map(|one| one.help.as_deref()?.strip_prefix("allowed here: "));
    let limits = names.expect("the names of limits are told").split(", ").map(|name| {
        let key = Key { read: &of_policies, header: "[rlimits]\n".to_owned(), name };
        (name.to_owned(), key.schema(None))
    });
    file["properties"]["rlimits"] = object(limits.collect(), &[]);
    whole("MotherD policy", file)
}

fn services() -> Value {
    let rows = rows("services.md");
    let known = |header: &str| -> Vec<String> {
        let told = of_services(&format!("{header}zzz = 1\n"));
        let help =
            told.iter().find_map(|one| one.help.as_deref()?.strip_prefix("it has ").map(str::to_owned));
        help.map(|help| help.split(", ").map(str::to_owned).collect()).unwrap_or_default()
    };
    let row = |key: &str| rows.iter().find(|((_, known), _)| known == key).map(|(_, text)| text);
    let mut properties = Map::new();
    for name in known("") {
        // A section, or one of many.
        let many = format!("[[{name}]]\n");
        let is_many = !known(&many).is_empty() && known(&many) != known("");
        let header = if is_many { many } else { format!("[{name}]\n") };
        let keys = known(&header);
        if keys.is_empty() || keys == known("") {
            let key = Key { read: &of_services, header: String::new(), name: &name };
            properties.insert(name.clone(), described(key.schema(None), row(&name)));
            continue;
        }
        let mut section = Map::new();
        for name_in in keys {
            let key = Key { read: &of_services, header: header.clone(), name: &name_in };
            section.insert(name_in.clone(), described(key.schema(None), row(&format!("{name}.{name_in}"))));
        }
        let section = object(section, &[]);
        let section = if is_many { json!({ "type": "array", "items": section }) } else { section };
        properties.insert(name.clone(), section);
    }
    whole("MotherD service", object(properties, &[]))
}

#[test]
fn the_committed_schemas_are_what_the_readers_take() {
    let mut stale = Vec::new();
    for (name, schema) in [("policy", policies()), ("service", services())] {
        let path =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/schema/{name}.schema.json"));
        let text = format!("{schema:#}\n");
        if std::env::var_os("BLESS").is_some() {
            fs::create_dir_all(path.parent().expect("it has a folder")).expect("docs is ours");
            fs::write(&path, &text).expect("docs is ours");
        }
        if fs::read_to_string(&path).unwrap_or_default() != text {
            stale.push(path.display().to_string());
        }
    }
    assert!(
        stale.is_empty(),
        "not what the code reads; BLESS=1 cargo test -p motherd --test schema writes it: {stale:?}"
    );
}

#[test]
fn the_schemas_know_types_words_and_tables() {
    let policy = policies();
    let at =
        |pointer: &str| policy.pointer(pointer).cloned().unwrap_or_else(|| panic!("{pointer} in {policy:#}"));
    let section = "/properties/namespaces/properties/net";
    assert_eq!(at(&format!("{section}/anyOf/0/enum")), json!(["private", "none", "host"]));
    assert_eq!(at(&format!("{section}/anyOf/1/type")), "string"); // "service:NAME"
    assert_eq!(at("/properties/process/properties/no_new_privs/type"), "boolean");
    assert_eq!(at("/properties/unconfined/type"), "boolean");
    assert_eq!(at("/additionalProperties"), json!(false));
    let tmpfs = at("/properties/filesystem/properties/tmpfs").to_string();
    assert!(tmpfs.contains("\"required\":[\"path\",\"size\"]") && tmpfs.contains("\"inodes\""), "{tmpfs}");
    let service = services();
    assert_eq!(service.pointer("/properties/exec/type"), Some(&json!("array")), "{service:#}");
    assert!(service.pointer("/properties/restart/properties/factor").is_some(), "{service:#}");
    for (many, key) in [("socket", "listen"), ("timer", "calendar"), ("health", "kind")] {
        let pointer = format!("/properties/{many}/items/properties/{key}/type");
        assert_eq!(service.pointer(&pointer), Some(&json!("string")), "{pointer}: {service:#}");
    }
}
