//! The rules of this house that no compiler checks. Each says what to do about it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use e2e::fetch::Kernel;
use e2e::{say, workspace};

/// Every file of the repository with this extension, as a path within it.
fn files(extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![workspace().to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !path.is_symlink() {
                if name != "target" && name != ".git" {
                    left.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path.strip_prefix(workspace())?.to_owned());
            }
        }
    }
    found.sort();
    ensure!(!found.is_empty(), "no {extension} files in {}", workspace().display());
    Ok(found)
}

fn text_of(path: &Path) -> Result<String> {
    fs::read_to_string(workspace().join(path)).with_context(|| format!("cannot read {}", path.display()))
}

/// Fails with all that is wrong at once.
fn none(wrong: Vec<String>, rule: &str) -> Result<()> {
    if wrong.is_empty() { Ok(()) } else { bail!("{rule}\n  {}", wrong.join("\n  ")) }
}

#[test]
fn every_source_file_says_what_it_is() -> Result<()> {
    let mut wrong = Vec::new();
    for path in files("rs")? {
        if !text_of(&path)?.starts_with("//!") {
            wrong.push(path.display().to_string());
        }
    }
    none(wrong, "begin these with a line of //! that says what the file is for:")
}

/// PID 1 begins without a runtime: what runs before its `main` can be written in no other way.
const FIRST_INSTRUCTIONS: &str = "initldr/src/entry.rs";

#[test]
fn unsafe_stands_under_sys_alone() -> Result<()> {
    let mut wrong = Vec::new();
    for path in files("rs")? {
        let under_sys =
            path.components().any(|part| matches!(part.as_os_str().to_str(), Some("sys" | "sys.rs")));
        for (line, text) in (1..).zip(text_of(&path)?.lines()) {
            if !under_sys && path != Path::new(FIRST_INSTRUCTIONS) && lifts_safety(text) {
                wrong.push(format!("{}:{line}: {}", path.display(), text.trim()));
            }
        }
    }
    none(wrong, "move these into the crate's sys module, behind a safe function:")
}

/// Whether a line has the keyword; a comment, a string or `unsafe_code` is none.
fn lifts_safety(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe("]
        .iter()
        .any(|form| code.contains(form))
        && !code.contains('"')
}

#[test]
fn the_keyword_is_told_from_talk_about_it() {
    assert!(lifts_safety("    let x = unsafe { y() };") && lifts_safety("unsafe fn f() {}"));
    assert!(!lifts_safety("// unsafe { is only talked about }") && !lifts_safety("#[allow(unsafe_code)]"));
}

#[test]
fn every_shipped_policy_gives_a_reason_for_each_grant() -> Result<()> {
    let mut wrong = Vec::new();
    for path in files("toml")?
        .into_iter()
        .filter(|path| path.starts_with("policies") && !path.starts_with("policies/base"))
    {
        for (line, text) in (1..).zip(text_of(&path)?.lines()) {
            if is_grant(text) && !text.contains('#') {
                wrong.push(format!("{}:{line}: {}", path.display(), text.trim()));
            }
        }
    }
    none(wrong, "say after each of these, behind a #, why the service needs it:")
}

/// A line that sets a value: not a section, a comment, an end of a list, a list's first line, or what names the policy.
fn is_grant(line: &str) -> bool {
    let line = line.trim();
    let opens = line.ends_with('[') || line.ends_with('{');
    let names =
        ["description", "extends", "unconfined", "group ", "group="].iter().any(|key| line.starts_with(key));
    !(line.is_empty() || line.starts_with(['#', '[', ']', '}']) || opens || names)
}

#[test]
fn a_grant_is_a_line_that_sets_something() {
    assert!(is_grant("pids_max = 3") && is_grant("    \"/srv\",") && is_grant("keep = [\"CAP_KILL\"]"));
    assert!(
        !is_grant("[cgroup]") && !is_grant("] }") && !is_grant("read = { add = [") && !is_grant("# text")
    );
}

#[test]
fn links_in_documents_lead_somewhere() -> Result<()> {
    let mut wrong = Vec::new();
    for path in files("md")? {
        let text = text_of(&path)?;
        let dir = path.parent().unwrap_or(Path::new(""));
        for target in links(&text) {
            let file = target.split('#').next().unwrap_or_default();
            let outside = target.contains("://") || target.starts_with("mailto:") || file.is_empty();
            if !outside && !workspace().join(dir).join(file).exists() {
                wrong.push(format!("{}: {target}", path.display()));
            }
        }
    }
    none(wrong, "these links lead nowhere:")
}

/// The targets of `[text](target)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|target| !target.contains(char::is_whitespace))
}

#[test]
fn links_are_read_from_markdown() {
    let text = "see [a](b.md#c) and [d](https://e.example/), not a [plain] (aside)";
    assert_eq!(links(text).collect::<Vec<_>>(), ["b.md#c", "https://e.example/"]);
}

#[test]
fn what_documents_have_cargo_run_exists() -> Result<()> {
    let mut wrong = Vec::new();
    let mut found = 0;
    for path in files("md")? {
        for target in targets(&text_of(&path)?) {
            found += 1;
            if !workspace().join(&target).exists() {
                wrong.push(format!("{}: {target}", path.display()));
            }
        }
    }
    ensure!(found > 20, "{found} commands of cargo are found in the documents");
    none(wrong, "these documents have cargo run what is not there:")
}

/// The files behind `--bin`, `--test` and `--bench` of the commands of cargo in a text that name a package.
fn targets(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for command in text.lines().flat_map(|line| line.split("cargo ").skip(1)) {
        // Up to what the program itself is given, the end of the code or a comment.
        let command = command.split(['`', '#']).next().unwrap_or_default();
        let words: Vec<&str> = command.split_whitespace().take_while(|word| *word != "--").collect();
        let after = |flag: &str| words.iter().skip_while(move |word| **word != flag).nth(1);
        let Some(package) = after("-p") else { continue };
        let folder = if *package == "e2e" { "tests" } else { package };
        for (flag, place) in [("--bin", "src/bin"), ("--test", "tests"), ("--bench", "benches")] {
            found.extend(after(flag).map(|name| format!("{folder}/{place}/{name}.rs")));
        }
    }
    found
}

#[test]
fn the_targets_of_cargo_are_read_from_a_text() {
    let text = "`cargo test -p e2e --test fire -- --test x` and\n  X=1 cargo run --release -p motherd --bin a  # --bin b";
    assert_eq!(targets(text), ["tests/tests/fire.rs", "motherd/src/bin/a.rs"]);
    assert!(targets("cargo verify, cargo build --release").is_empty());
}

#[test]
fn the_readme_shows_the_commands_that_exist() -> Result<()> {
    let readme = text_of(Path::new("README.md"))?;
    let aliases = text_of(Path::new(".cargo/config.toml"))?;
    for command in ["cargo boot", "cargo verify"] {
        ensure!(readme.contains(command), "README.md shows how to start: it lacks `{command}`");
        let alias = command.trim_start_matches("cargo ");
        ensure!(aliases.contains(&format!("{alias} = \"run ")), ".cargo/config.toml lacks the alias {alias}");
    }
    let hello = text_of(Path::new("policies/hello.toml"))?;
    ensure!(readme.contains(&hello), "README.md shows policies/hello.toml as it is");
    let ci = text_of(Path::new(".ci/run"))?;
    ensure!(ci.lines().last() == Some("cargo verify"), "CI ends with the README's own test command");
    for kernel in Kernel::ALL {
        ensure!(readme.contains(kernel.version()), "README.md says on which kernels this was seen to work");
    }
    Ok(())
}

#[test]
fn no_registry_or_mirror_is_written_into_the_repository() -> Result<()> {
    // Put together here, so that this file does not name them either.
    let hosts = [
        ["deb", "debian", "org"],
        ["ftp", "debian", "org"],
        ["index", "crates", "io"],
        ["static", "crates", "io"],
    ];
    let mut wrong = Vec::new();
    for extension in ["rs", "toml", "md"] {
        for path in files(extension)? {
            let text = text_of(&path)?;
            for host in hosts.map(|parts| parts.join(".")) {
                if text.contains(&host) {
                    wrong.push(format!("{}: {host}", path.display()));
                }
            }
        }
    }
    none(wrong, "read these from the machine's own configuration instead:")
}

#[test]
fn initldr_can_be_read_in_one_sitting() -> Result<()> {
    let (mut lines, mut succession, mut command, mut end, mut watchdog) = (0, 0, 0, 0, 0);
    for path in files("rs")?.into_iter().filter(|path| path.starts_with("initldr/src")) {
        let text = text_of(&path)?;
        // Unit tests stand at a file's end.
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let code = code.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
        *match path.file_name().and_then(|name| name.to_str()) {
            Some("succession.rs") => &mut succession,
            Some("command.rs") => &mut command,
            Some("release.rs" | "storage.rs") => &mut end,
            Some("watchdog.rs") => &mut watchdog,
            _ => &mut lines,
        } += code.count();
    }
    say(&format!(
        "initldr has {lines} lines of code, {succession} for its succession, {command} for its command mode, \
         {end} for its disks at the end, {watchdog} for a watchdog"
    ));
    ensure!(succession <= 100, "the succession of initldr has {succession} lines of code, 100 are allowed");
    ensure!(end <= 160, "initldr has {end} lines of code for its disks at the end, 160 are allowed");
    ensure!(watchdog <= 80, "initldr has {watchdog} lines of code for a watchdog, 80 are allowed");
    ensure!(
        lines <= 1700,
        "PID 1 has {lines} lines of code, 1700 are allowed: take something out, or move it to motherd"
    );
    ensure!(
        command <= 100,
        "the command mode of initldr has {command} lines of code, 100 are allowed: take something out"
    );
    Ok(())
}
