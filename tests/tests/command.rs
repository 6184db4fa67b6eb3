//! `initldr -- COMMAND`, which is to do what tini and dumb-init say they do, and better where they do it badly.

use std::process::Command;
use std::sync::Once;

use anyhow::{Result, ensure};
use e2e::reapers::QUESTIONS;
use e2e::witness::Reaper;

/// initldr as cargo builds it beside these tests.
fn reaper(group: bool) -> Reaper {
    static BUILD: Once = Once::new();
    let path = std::path::PathBuf::from(env!("CARGO_BIN_EXE_witness")).with_file_name("initldr");
    BUILD.call_once(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "initldr", "--bin", "initldr"]);
        if path.parent().is_some_and(|folder| folder.ends_with("release")) {
            cargo.arg("--release");
        }
        let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
        assert!(status.success(), "cargo build --package initldr");
    });
    Reaper::initldr(&path, group)
}

fn asked(as_pid_1: bool, group: bool) -> Result<()> {
    if as_pid_1 && !nix::unistd::geteuid().is_root() {
        return e2e::scratch::skip("command::as_pid_1", "it needs root, for a pid namespace");
    }
    let reaper = reaper(group);
    let mut wrong = Vec::new();
    for question in QUESTIONS.iter().filter(|question| question.group.is_none_or(|asked| asked == group)) {
        match (question.ask)(&reaper, as_pid_1) {
            Ok(found) if found == question.expected => {}
            Ok(found) => wrong.push(format!("{}: {found}, not {}", question.says, question.expected)),
            Err(error) => wrong.push(format!("{}: {error:#}", question.says)),
        }
    }
    ensure!(wrong.is_empty(), "{}:\n{}", reaper.name, wrong.join("\n"));
    Ok(())
}

#[test]
fn as_an_ordinary_process_it_does_what_reapers_do() -> Result<()> {
    asked(false, false)
}

#[test]
fn as_pid_1_it_does_what_reapers_do() -> Result<()> {
    asked(true, false)
}

#[test]
fn with_group_it_does_what_reapers_do() -> Result<()> {
    asked(false, true)
}

#[test]
fn as_pid_1_with_group_it_does_what_reapers_do() -> Result<()> {
    asked(true, true)
}
