//! What a shell and man(1) are given: `motherctl man` read by man(1) without a warning, `motherctl completions` by bash.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use e2e::programs::Programs;
use e2e::say;
use e2e::scratch::{Scratch, skip};
use serde_json::Value;

fn motherctl(words: &[&str]) -> Result<Output> {
    Command::new(&Programs::built()?.motherctl).args(words).output().context("cannot run motherctl")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether this machine has a program.
fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// man(1) of a file, with every warning that there is, on a terminal that has the least characters; by groff alone where
/// there is no man.
fn read(page: &Path) -> Result<Option<Output>> {
    let mut command = if has("man") && has("groff") {
        let mut command = Command::new("man");
        command.args(["--warnings=w", "--local-file"]);
        command
    } else if has("groff") {
        let mut command = Command::new("groff");
        command.args(["-man", "-ww", "-Tascii"]);
        command
    } else {
        return Ok(None);
    };
    let output = command.arg(page).env("MANWIDTH", "80").env("LC_ALL", "C").env_remove("MANPAGER").output();
    Ok(Some(output.with_context(|| format!("cannot read {}", page.display()))?))
}

/// The files that docs/services.md shows how to check, beside those that every system has: not a word against them, and
/// one against each that is not there.
#[test]
fn the_examples_are_checked_without_a_warning() -> Result<()> {
    let Some(scratch) = Scratch::new("the_examples")? else { return Ok(()) };
    let copy = |from: &str, to: &str| -> Result<()> {
        fs::create_dir_all(scratch.path(to))?;
        for entry in fs::read_dir(e2e::workspace().join(from))? {
            let entry = entry?;
            fs::copy(entry.path(), scratch.path(to).join(entry.file_name()))?;
        }
        Ok(())
    };
    copy("motherd/services/system", "usr/lib/motherd/services")?;
    copy("docs/examples/services", "etc/motherd/services")?;
    copy("docs/examples/policies", "etc/motherd/policies")?;
    let root = scratch.path("").display().to_string();
    let ran = motherctl(&["--root", &root, "check"])?;
    ensure!(ran.status.code() == Some(0), "{ran:?}");
    ensure!(text(&ran.stdout).ends_with(": 0 errors, 0 warnings\n") && ran.stderr.is_empty(), "{ran:?}");
    fs::remove_file(scratch.path("etc/motherd/services/network.toml"))?;
    let ran = motherctl(&["--root", &root, "check"])?;
    ensure!(ran.status.code() == Some(1), "control: {ran:?}");
    ensure!(text(&ran.stderr).contains("`web` needs `network`, and there is no such service"), "{ran:?}");
    Ok(())
}

#[test]
fn the_manual_pages_are_read_without_a_warning() -> Result<()> {
    let folder = e2e::target_dir().join("tmp").join(format!("motherd-man-{}", std::process::id()));
    let path = folder.to_str().context("a path in UTF-8")?.to_owned();
    // Into nothing, and once more over what is there.
    let ran = motherctl(&["man", &path])?;
    ensure!(ran.status.success() && text(&ran.stdout).contains(" pages: man -M "), "{ran:?}");
    let ran = motherctl(&["--json", "man", &path])?;
    let reply: Value = serde_json::from_slice(&ran.stdout).with_context(|| format!("{ran:?}"))?;
    let pages: Vec<PathBuf> = reply["pages"]
        .as_array()
        .context("pages")?
        .iter()
        .filter_map(Value::as_str)
        .map(PathBuf::from)
        .collect();
    ensure!(pages.len() > 40, "each command has one: {pages:?}");

    for page in &pages {
        let Some(read) = read(page)? else {
            return skip("manual::the_manual_pages_are_read", "neither man nor groff is here");
        };
        ensure!(
            read.status.success() && read.stderr.is_empty(),
            "{}: {}",
            page.display(),
            text(&read.stderr)
        );
        // As on paper: bold is a letter over itself.
        let shown = text(&read.stdout).replace("\u{1b}[1m", "").replace("\u{1b}[0m", "");
        let shown: String = shown.split('\u{8}').collect();
        for heading in ["NAME", "SEE ALSO"] {
            ensure!(shown.contains(heading), "{} without {heading}:\n{shown}", page.display());
        }
        ensure!(!shown.contains("](") && !shown.contains("\\f"), "{}:\n{shown}", page.display());
    }
    say(&format!("{} manual pages without a warning", pages.len()));

    // What cannot be written is said, with its place.
    let file = folder.join("file");
    fs::write(&file, "")?;
    let ran = motherctl(&["man", file.to_str().context("a path in UTF-8")?])?;
    ensure!(ran.status.code() == Some(1), "{ran:?}");
    ensure!(text(&ran.stderr).contains("/file/man") && text(&ran.stderr).contains("ENOTDIR"), "{ran:?}");
    fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Presses the key at the end of a line: what bash would offer then.
const PRESS: &str = r#"
motherctl() { "$MOTHERCTL" --root "$ROOT" "$@"; }
source "$1"
COMP_LINE=$2
COMP_POINT=${#COMP_LINE}
# Into words as readline has them: an @ is one of its own.
read -r -a COMP_WORDS <<<"${COMP_LINE//@/ @ }"
[[ $COMP_LINE == *[[:space:]@] ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
function=$(complete -p motherctl)
function=${function##*-F }
COMPREPLY=()
${function%% *} motherctl "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"#;

#[test]
fn bash_completes_commands_options_and_the_names_of_services() -> Result<()> {
    if !has("bash") {
        return skip("manual::bash_completes", "bash is not here");
    }
    let Some(mut scratch) = Scratch::new("manual::bash_completes")? else { return Ok(()) };
    for name in ["web", "worker-a", "worker-b"] {
        scratch.service(name, "exec = [\"/bin/sleep\", \"infinity\"]\npolicy = \"unconfined\"\n")?;
    }
    scratch.service("queue@", "exec = [\"/bin/sleep\", \"infinity\"]\npolicy = \"unconfined\"\n")?;
    let script = scratch.path("completions.bash");
    let ran = scratch.motherctl(&["completions", "bash"])?;
    ensure!(ran.status == 0 && ran.errors.is_empty(), "{ran:?}");
    fs::write(&script, &ran.out)?;
    let root = scratch.path("");
    let press = |line: &str| -> Result<Vec<String>> {
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", PRESS, "bash"]).arg(&script).arg(line);
        bash.env("MOTHERCTL", &Programs::built()?.motherctl).env("ROOT", &root);
        let output = bash.output().context("cannot run bash")?;
        ensure!(output.stderr.is_empty(), "{line}: {}", text(&output.stderr));
        Ok(text(&output.stdout).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
    };
    ensure!(press("motherctl sta")? == ["status", "start"], "{:?}", press("motherctl sta")?);
    ensure!(press("motherctl policy ex")? == ["explain"]);
    ensure!(press("motherctl stop --fo")? == ["--force"]);
    ensure!(press("motherctl completions ")?.iter().any(|shell| shell == "zsh"));
    let nobody = press("motherctl stop w")?;
    ensure!(nobody.is_empty(), "there is no motherd, and nothing is said of that: {nobody:?}");

    scratch.start()?;
    scratch.answers()?;
    ensure!(
        press("motherctl stop w")? == ["web", "worker-a", "worker-b"],
        "{:?}",
        press("motherctl stop w")?
    );
    ensure!(press("motherctl logs web worker-")? == ["worker-a", "worker-b"]);
    let ran = scratch.motherctl(&["start", "queue@blue"])?;
    ensure!(ran.status == 0, "{ran:?}");
    ensure!(
        press("motherctl why queue@")? == ["blue"],
        "the word after the @: {:?}",
        press("motherctl why queue@")?
    );
    ensure!(press("motherctl list w")?.is_empty(), "it takes no name");
    ensure!(press("motherctl policy show w")?.is_empty(), "a policy is no service");
    let empty = press("motherctl status ")?;
    ensure!(
        empty.iter().all(|word| !word.starts_with(['[', '<'])),
        "nothing that stands for a value: {empty:?}"
    );
    ensure!(scratch.stop()?.success());
    Ok(())
}

#[test]
fn another_shell_is_refused_and_those_that_there_are_named() -> Result<()> {
    for shell in ["bash", "fish", "zsh"] {
        let ran = motherctl(&["completions", shell])?;
        ensure!(ran.status.success() && text(&ran.stdout).contains("motherctl"), "{shell}: {ran:?}");
    }
    let ran = motherctl(&["completions", "csh"])?;
    ensure!(ran.status.code() == Some(2) && text(&ran.stderr).contains("bash, fish, zsh"), "{ran:?}");
    Ok(())
}
