//! `cargo verify`: everything that has to hold before a change lands, in the order in which it fails fastest.

use std::process::{Command, ExitCode};
use std::time::Instant;

use e2e::scratch::SKIPPED;

/// Each check as the arguments of cargo. The tests come last: unit tests, this host, and both kernels in QEMU.
const CHECKS: [&[&str]; 4] = [
    &["fmt", "--all", "--check"],
    &["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"],
    &[
        "test",
        "--quiet",
        "--package=motherd",
        "--lib",
        // The core alone, 200,000 times: optimized, it takes a third of the time.
        "--config=profile.dev.package.motherd.opt-level=2",
        "--",
        "--nocapture",
        "no_schedule_breaks_a_promise",
    ],
    &["test", "--workspace", "--no-fail-fast"],
];

/// How many schedules the simulator of the service manager plays.
const SCHEDULES: &str = "200000";

fn main() -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut failed = Vec::new();
    let skipped = e2e::target_dir().join(SKIPPED);
    if let Err(error) = std::fs::write(&skipped, "") {
        eprintln!("cannot write {}: {error}", skipped.display());
        return ExitCode::FAILURE;
    }
    for check in CHECKS {
        let words = format!("cargo {}", check.join(" "));
        eprintln!("\n== {words}");
        let started = Instant::now();
        let mut command = Command::new(&cargo);
        command.args(check).current_dir(e2e::workspace());
        if check.contains(&"no_schedule_breaks_a_promise") {
            command.env("SIMULATE", SCHEDULES);
        }
        let status = command.status();
        let seconds = started.elapsed().as_secs();
        match status {
            Ok(status) if status.success() => eprintln!("== ok after {seconds} s: {words}"),
            Ok(status) => {
                eprintln!("== FAILED after {seconds} s ({status}): {words}");
                failed.push(words);
            }
            Err(error) => {
                eprintln!("== CANNOT RUN ({error}): {words}");
                failed.push(words);
            }
        }
    }
    // What libtest cannot say: a test that found out only while running that it cannot run here.
    let lines = std::fs::read_to_string(&skipped).unwrap_or_else(|error| format!("unknown: {error}\n"));
    if !lines.is_empty() {
        eprintln!("\nNOT RUN on this machine, {} tests:\n{lines}", lines.lines().count());
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("\nfailed: {}", failed.join("; "));
    ExitCode::FAILURE
}
