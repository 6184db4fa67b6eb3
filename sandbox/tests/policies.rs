//! Policies as people write them: those that ship and the contract's example load, and what is wrong with others is
//! told in exactly these words.
//!
//! `tests/diagnostics/NAME.toml` is a policy with mistakes, `NAME.txt` what is printed about it. With `BLESS=1` the
//! texts are written anew, to be read in the diff.

mod inside;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use sandbox::policy::{Rules, Store, codes::CODES, load_file, load_text};

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A folder of one test, with the modes that a loader insists on whatever the umask of the checkout was.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("the target folder is ours");
        set_mode(&path, 0o755);
        Self(path)
    }

    /// A copy of a tree of policies.
    fn with_tree(self, from: &Path) -> Self {
        copy_tree(from, &self.0);
        self
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("the folder is ours");
        set_mode(&path, 0o644);
        path
    }

    fn store(&self) -> Store {
        Store::new(vec![self.0.clone()])
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            println!("{} is left behind: {error}", self.0.display());
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the file is ours");
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("the tree is there") {
        let entry = entry.expect("the tree can be listed");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("the tree can be listed").is_dir() {
            fs::create_dir_all(&target).expect("the folder is ours");
            set_mode(&target, 0o755);
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("the folder is ours");
            set_mode(&target, 0o644);
        }
    }
}

/// The policies that ship.
fn shipped(name: &str) -> Folder {
    Folder::new(name).with_tree(&here().join("../policies"))
}

/// What is printed about a policy that cannot be loaded.
fn complaint(result: Result<sandbox::policy::Policy, sandbox::diagnostic::Report>) -> String {
    match result {
        Ok(_) => panic!("it was loaded"),
        Err(report) => report.to_string(),
    }
}

#[test]
fn the_diagnostics_are_these() {
    let folder = shipped("golden").with_tree(&here().join("tests/diagnostics/store"));
    let store = folder.store();
    let bless = std::env::var_os("BLESS").is_some();
    let mut cases: Vec<PathBuf> = fs::read_dir(here().join("tests/diagnostics"))
        .expect("the cases are there")
        .map(|entry| entry.expect("they can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    cases.sort();
    assert!(cases.len() >= 60, "only {} cases were found", cases.len());
    let (mut told, mut wrong) = (BTreeSet::new(), Vec::new());
    for case in cases {
        let name = case.file_name().expect("it is a file").to_str().expect("our names are UTF-8");
        let text = fs::read_to_string(&case).expect("the case can be read");
        let Err(report) = load_text(Path::new(name), &text, &store) else {
            wrong.push(format!("{name}: loads without a diagnostic"));
            continue;
        };
        told.extend(report.diagnostics.iter().map(|diagnostic| diagnostic.code));
        let printed = report.to_string().replace(&folder.0.display().to_string(), "POLICIES");
        let expected_path = case.with_extension("txt");
        if bless {
            fs::write(&expected_path, &printed).expect("the checkout is ours");
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if printed != expected {
            wrong.push(format!("{name}: expected\n{expected}\nprinted\n{printed}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What is about a file and not about its text has tests of its own below.
    let files = ["file-too-large", "not-utf8", "unreadable-file", "unsafe-file"];
    let covered: BTreeSet<&str> = told.into_iter().chain(files).collect();
    let all: BTreeSet<&str> = CODES.iter().map(|(code, _)| *code).collect();
    assert_eq!(covered, all);
}

#[test]
fn the_shipped_policies_load() {
    let folder = shipped("shipped");
    let store = folder.store();
    let names = store.names();
    for name in ["base/default", "unconfined"] {
        assert!(names.iter().any(|known| known == name), "{name} is not among {names:?}");
    }
    for name in &names {
        let policy = store.load(name).unwrap_or_else(|report| panic!("{name}:\n{report}"));
        assert_eq!(policy.name(), name);
        assert!(!policy.description().is_empty(), "{name} does not say what it is for");
    }
    assert!(matches!(store.load("unconfined").expect("it loads").rules(), Rules::Unconfined(_)));
}

#[test]
fn the_web_server_of_the_contract_is_base_default_and_its_own_changes() {
    let folder = shipped("web");
    folder.write(
        "web-server.toml",
        fs::read(here().join("../docs/examples/policies/web-server.toml")).expect("the example"),
    );
    let policy = folder.store().load("web-server").unwrap_or_else(|report| panic!("{report}"));
    let Rules::Confined(rules) = policy.rules() else { panic!("it is confined") };
    let paths = |list: &[sandbox::diagnostic::Located<sandbox::policy::OptionalPath>]| -> Vec<String> {
        list.iter().map(|path| path.value.path.clone()).collect()
    };
    // Added to what is inherited:
    let writable: Vec<_> = rules.filesystem.read_write.iter().map(|path| path.value.path.as_str()).collect();
    assert_eq!(writable, ["/var/log/web", "/var/cache/web"]);
    assert_eq!(paths(&rules.landlock.write), ["/tmp", "/run", "/dev/null", "/var/log/web", "/var/cache/web"]);
    assert_eq!(paths(&rules.landlock.read).last().map(String::as_str), Some("/srv/www"));
    // Replaced:
    assert_eq!(
        rules.cgroup.memory_max.as_ref().map(|limit| limit.value),
        Some(sandbox::policy::Limit::Value(256 << 20))
    );
    assert_eq!(
        rules.cgroup.cpu_max.as_ref().map(|limit| limit.value),
        Some(sandbox::policy::Limit::Value(150_000))
    );
    assert_eq!(rules.process.user.value, sandbox::policy::Account::Name("www-data".to_owned()));
    // Inherited, and said to stand where it was written:
    assert_eq!(
        rules.cgroup.memory_high.as_ref().map(|limit| limit.value),
        Some(sandbox::policy::Limit::Value(256 << 20))
    );
    let inherited = policy.sources().locate(&rules.process.umask.at);
    assert!(inherited.contains("base/default.toml:"), "{inherited}");
    let own = policy.sources().locate(&rules.process.user.at);
    assert!(own.contains("web-server.toml:9:8"), "{own}");
    assert_eq!(rules.seccomp.rules.len(), 1);
    assert_eq!(rules.rlimits.len(), 2);
}

#[test]
fn a_policy_that_says_nothing_allows_nothing() {
    let policy =
        load_text(Path::new("empty.toml"), "", &Store::new(Vec::new())).expect("an empty policy is one");
    let Rules::Confined(rules) = policy.rules() else { panic!("silence is not consent") };
    assert!(rules.seccomp.allowed.is_empty());
    assert!(rules.capabilities.keep.is_empty());
    assert!(
        rules.landlock.read.is_empty()
            && rules.landlock.write.is_empty()
            && rules.landlock.execute.is_empty()
    );
    assert_eq!(rules.landlock.scope.len(), 2, "a list that restricts is full by default");
    assert_eq!(rules.filesystem.read_only.len(), 1);
    assert_eq!(rules.filesystem.hidden.len(), 3);
    assert!(rules.process.no_new_privs.value);
    assert!(rules.process.environment.is_empty());
}

#[test]
fn without_a_mount_namespace_the_hosts_tree_is_left_as_it_is() {
    let check = |text: &str| {
        let folder = shipped("host");
        load_text(Path::new("host.toml"), text, &folder.store()).map(|policy| match policy.rules() {
            Rules::Confined(rules) => rules.filesystem.clone(),
            Rules::Unconfined(_) => panic!("it is confined"),
        })
    };
    let written = check(
        "extends = [\"base/default\"]\nnamespaces.mount = \"host\"\n[filesystem]\nread_only = []\nhidden = []\n\
         tmpfs = []\nproc = \"full\"\ndev = \"host\"\nsys = \"host\"\n",
    );
    let silent = check("[namespaces]\nmount = \"host\"\n");
    for filesystem in [written, silent] {
        let filesystem = filesystem.unwrap_or_else(|report| panic!("{report}"));
        assert!(
            filesystem.read_only.is_empty() && filesystem.hidden.is_empty() && filesystem.tmpfs.is_empty()
        );
    }
    assert!(check("extends = [\"base/default\"]\n[namespaces]\nmount = \"host\"\n").is_err());
}

#[test]
fn an_empty_list_means_none() {
    let text = "extends = [\"base/default\"]\n[filesystem]\nhidden = []\n[landlock]\nread = []\nscope = []\n\
                [seccomp]\nrule = []\n";
    let folder = shipped("none");
    let policy =
        load_text(Path::new("none.toml"), text, &folder.store()).unwrap_or_else(|report| panic!("{report}"));
    let Rules::Confined(rules) = policy.rules() else { panic!("it is confined") };
    assert!(rules.filesystem.hidden.is_empty() && rules.landlock.read.is_empty());
    assert!(rules.landlock.scope.is_empty() && rules.seccomp.rules.is_empty());
}

#[test]
fn an_ancestor_on_two_ways_is_applied_once_and_the_later_parent_wins() {
    let folder = Folder::new("diamond");
    folder.write("base.toml", "[process]\nnice = 1\numask = \"0022\"\n[landlock]\nread = [\"/usr\"]\n");
    folder.write(
        "left.toml",
        "extends = [\"base\"]\n[process]\nnice = 2\noom_score_adj = 2\n[landlock]\nread = { add = [\"/left\"] }\n",
    );
    folder.write(
        "right.toml",
        "extends = [\"base\"]\n[process]\noom_score_adj = 3\n\
         [landlock]\nread = { add = [\"/right\"], remove = [\"/usr\"] }\n",
    );
    let text = "extends = [\"left\", \"right\"]\n[process]\numask = \"0027\"\n";
    let policy =
        load_text(Path::new("d.toml"), text, &folder.store()).unwrap_or_else(|report| panic!("{report}"));
    let Rules::Confined(rules) = policy.rules() else { panic!("it is confined") };
    assert_eq!(rules.process.nice.value, 2, "base comes before left, and not again with right");
    assert_eq!(rules.process.oom_score_adj.value, 3, "right is later");
    assert_eq!(rules.process.umask.value, 0o027, "the file itself is last");
    let read: Vec<_> = rules.landlock.read.iter().map(|path| path.value.path.as_str()).collect();
    assert_eq!(read, ["/left", "/right"]);
}

#[test]
fn the_first_folder_that_has_a_name_wins() {
    let (first, second) = (Folder::new("first"), Folder::new("second"));
    first.write("a.toml", "description = \"first\"");
    second.write("a.toml", "description = \"second\"");
    second.write("b.toml", "description = \"second\"");
    let missing = first.0.join("missing");
    let store = Store::new(vec![missing, first.0.clone(), second.0.clone()]);
    assert_eq!(store.load("a").expect("it loads").description(), "first");
    assert_eq!(store.load("b").expect("it loads").description(), "second");
    assert_eq!(store.names(), ["a", "b"]);
    let unknown = complaint(store.load("c"));
    assert!(unknown.starts_with("error[unknown-policy]: no policy is named `c`"), "{unknown}");
}

#[test]
fn a_file_that_somebody_else_could_have_written_is_refused() {
    let folder = Folder::new("unsafe");
    let path = folder.write("a.toml", "");
    let store = folder.store();
    assert!(store.load("a").is_ok(), "the control: it loads while nobody else can write it");
    assert!(load_file(&path, &store).is_ok());
    for mode in [0o664, 0o646, 0o666] {
        set_mode(&path, mode);
        for result in [store.load("a"), load_file(&path, &store)] {
            let text = complaint(result);
            assert!(
                text.starts_with("error[unsafe-file]: ") && text.contains(&format!("mode {mode:04o}")),
                "{text}"
            );
        }
    }
    set_mode(&path, 0o644);
    set_mode(&folder.0, 0o777);
    let text = complaint(store.load("a"));
    assert!(text.starts_with("error[unsafe-file]: "), "a folder that others may write: {text}");
    set_mode(&folder.0, 0o755);
    // Only root may give a file away; for others the case cannot be made.
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(12345), None).expect("root may");
        let text = complaint(store.load("a"));
        assert!(text.contains("belongs to the user 12345"), "{text}");
    } else {
        inside::skip("the part about a file of another user: making one needs root");
    }
}

#[test]
fn what_is_no_plain_file_is_refused_without_waiting_for_it() {
    let folder = Folder::new("plain");
    let real = folder.write("real.toml", "");
    std::os::unix::fs::symlink(&real, folder.0.join("link.toml")).expect("the folder is ours");
    std::os::unix::fs::symlink(&folder.0, folder.0.join("around")).expect("the folder is ours");
    fs::create_dir(folder.0.join("folder.toml")).expect("the folder is ours");
    set_mode(&folder.0.join("folder.toml"), 0o755);
    nix::unistd::mkfifo(&folder.0.join("fifo.toml"), nix::sys::stat::Mode::S_IRUSR)
        .expect("the folder is ours");
    let store = folder.store();
    for name in ["link", "around/real", "folder", "fifo"] {
        let text = complaint(store.load(name));
        assert!(text.starts_with("error[unsafe-file]: "), "{name}: {text}");
    }
    let text = complaint(load_file(&folder.0.join("link.toml"), &store));
    assert!(text.starts_with("error[unsafe-file]: "), "{text}");
    let text = complaint(load_file(Path::new("/dev/zero"), &store));
    assert!(text.starts_with("error[unsafe-file]: "), "{text}");
}

#[test]
fn a_file_that_is_too_large_or_no_text_is_refused() {
    let folder = Folder::new("bytes");
    folder.write("largest.toml", format!("#{}", "x".repeat((1 << 20) - 1)));
    folder.write("large.toml", format!("#{}", "x".repeat(1 << 20)));
    folder.write("latin.toml", b"description = \"caf\xe9\"");
    let store = folder.store();
    assert!(store.load("largest").is_ok());
    assert!(complaint(store.load("large")).starts_with("error[file-too-large]: "));
    let text = complaint(store.load("latin"));
    assert!(text.starts_with("error[not-utf8]: ") && text.contains("byte 18"), "{text}");
    let text = complaint(load_file(&folder.0.join("missing.toml"), &store));
    assert!(text.starts_with("error[unreadable-file]: ") && text.contains("ENOENT"), "{text}");
}

#[test]
fn names_stay_beneath_the_folders() {
    let folder = Folder::new("names");
    let store = Store::new(vec![folder.0.join("inner")]);
    fs::create_dir(folder.0.join("inner")).expect("the folder is ours");
    set_mode(&folder.0.join("inner"), 0o755);
    folder.write("outside.toml", "");
    for name in ["../outside", "/etc/passwd", "", ".", "a/../../outside", "a//b", "a\0b", ".hidden", "x.toml"]
    {
        let text = complaint(store.load(name));
        assert!(text.starts_with("error[invalid-policy-name]: "), "{name:?}: {text}");
    }
}

/// The reference names every table, key, group, resource limit and code, so that it cannot fall behind.
#[test]
fn the_reference_has_everything() {
    let text = fs::read_to_string(here().join("../docs/policy.md")).expect("the reference is there");
    let mut missing = Vec::new();
    for (table, keys) in sandbox::policy::keys() {
        let place = match table {
            "" => "## The file\n".to_owned(),
            nested if nested.contains('.') => format!("[{nested}]`"),
            section => format!("\n## [{section}]\n"),
        };
        let Some((_, section)) = text.split_once(&place) else {
            missing.push(place);
            continue;
        };
        let section = section.split("\n## ").next().unwrap_or_default();
        missing.extend(
            keys.iter()
                .filter(|key| !section.contains(&format!("`{key}`")))
                .map(|key| format!("{table}.{key}")),
        );
    }
    let codes = || CODES.iter().chain(sandbox::compile::codes::CODES);
    let rows = sandbox::syscalls::groups::all().chain(codes().copied());
    let rows = rows.map(|(name, meaning)| format!("| `{name}` | {meaning} |"));
    missing.extend(rows.filter(|row| !text.contains(row)));
    assert!(missing.is_empty(), "docs/policy.md lacks:\n{}", missing.join("\n"));
    // And the other way round: what it lists as a code or a group exists.
    for line in text.lines().filter_map(|line| line.strip_prefix("| `@")) {
        let name = line.split('`').next().unwrap_or_default();
        assert!(sandbox::syscalls::groups::members(&format!("@{name}")).is_some(), "@{name} does not exist");
    }
    let listed = text.split_once("## Diagnostics").map(|(_, codes)| codes).unwrap_or_default();
    for line in listed.lines().filter_map(|line| line.strip_prefix("| `")) {
        let code = line.split('`').next().unwrap_or_default();
        assert!(codes().any(|(known, _)| *known == code), "{code} is no code of a policy");
    }
}

#[test]
fn deep_nesting_is_an_error_and_no_crash() {
    for text in [
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}1{}", "[".repeat(100_000), "]".repeat(100_000)),
        format!("a = {}", "{a=".repeat(100_000)),
        format!("{}a = 1", "a.".repeat(100_000)),
        format!("[{}a]", "a.".repeat(100_000)),
    ] {
        assert!(load_text(Path::new("deep.toml"), &text, &Store::new(Vec::new())).is_err());
    }
}
