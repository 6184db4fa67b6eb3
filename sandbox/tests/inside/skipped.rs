//! A test that cannot run here says so by its name, past the capture of what a passing test prints, and is counted:
//! `cargo verify` shows the lines of this file under `target/`, as those of the other packages' tests.

use std::{
    env,
    fs::File,
    io::{Write, stderr},
    panic::Location,
    path::Path,
    thread,
};

/// Whether a test can be run at all; one that cannot is skipped.
#[track_caller]
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("it needs root");
    }
    root
}

/// Says and records that the test that calls is skipped, and why.
#[track_caller]
pub(crate) fn skip(why: &str) {
    let place = Location::caller().to_string();
    let thread = thread::current();
    // With one thread tests run on the main one, whose name says nothing.
    let name = thread.name().filter(|name| *name != "main").unwrap_or(&place);
    let line = format!("SKIPPED {name}: {why}\n");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = workspace.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
    let recorded = File::options().create(true).append(true).open(target.join("e2e-skipped"));
    let recorded = recorded.and_then(|mut file| file.write_all(line.as_bytes()));
    // Nobody is left to be told where standard error is closed.
    drop(stderr().lock().write_all(line.as_bytes()));
    if let Err(error) = recorded {
        drop(
            stderr().lock().write_all(format!("not recorded in {}: {error}\n", target.display()).as_bytes()),
        );
    }
}
