//! What is wrong with a service file is told in exactly these words.
//!
//! `diagnostics/NAME.toml` is a service file with mistakes, `NAME.txt` what is printed about it. With `BLESS=1` the texts
//! are written anew, to be read in the diff.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use motherd::service::load_dirs;

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The cases, by name.
fn cases() -> Vec<(String, PathBuf)> {
    let listed = fs::read_dir(here().join("tests/diagnostics")).expect("the cases are there");
    let paths = listed.map(|entry| entry.expect("they can be listed").path());
    let tomls = paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    let name = |path: &Path| path.file_stem().and_then(|stem| stem.to_str()).expect("our names").to_owned();
    let mut cases: Vec<_> = tomls.map(|path| (name(&path), path)).collect();
    cases.sort();
    cases
}

#[test]
fn the_diagnostics_of_service_files_are_these() {
    let cases = cases();
    assert!(cases.len() >= 40, "only {} cases were found", cases.len());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("services-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("the target folder is ours");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
    for (name, path) in &cases {
        let copy = folder.join(format!("{name}.toml"));
        fs::copy(path, &copy).expect("the folder is ours");
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o644)).expect("it is ours");
    }
    let catalog = load_dirs(std::slice::from_ref(&folder));
    fs::remove_dir_all(&folder).expect("the folder is ours");
    let bless = std::env::var_os("BLESS").is_some();
    let (mut told, mut wrong) = (BTreeSet::new(), Vec::new());
    for (name, path) in &cases {
        let Some(report) = catalog.broken.get(name) else {
            wrong.push(format!("{name}: loads without a diagnostic"));
            continue;
        };
        told.extend(report.diagnostics.iter().map(|diagnostic| diagnostic.code));
        let printed = report.to_string().replace(&format!("{}/", folder.display()), "");
        let expected_path = path.with_extension("txt");
        if bless {
            fs::write(&expected_path, &printed).expect("the checkout is ours");
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if printed != expected {
            wrong.push(format!("{name}: expected\n{expected}\nprinted\n{printed}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let written = codes();
    let written: BTreeSet<&str> = written.iter().map(String::as_str).collect();
    let lacking: Vec<_> = written.difference(&told).collect();
    assert!(lacking.is_empty(), "codes of service files without a case in tests/diagnostics: {lacking:?}");
}

/// Every code that the source of service files gives to a diagnostic: the first text of each call that makes one.
fn codes() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(here().join("src/service")).expect("the source is there") {
        let text = fs::read_to_string(entry.expect("it can be listed").path()).expect("it can be read");
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        for call in ["refuse(", "Diagnostic::error(", "self.problem("] {
            for (at, _) in text.match_indices(call) {
                let rest = text[at + call.len()..].trim_start();
                if let Some((code, _)) = rest.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
                    found.insert(code.to_owned());
                }
            }
        }
    }
    assert!(found.len() >= 15, "{found:?}");
    found
}
