//! Launches and counts what is left of them: `cargo run --release -p e2e --bin soak_launch -- [LAUNCHES]`, as root.

use std::{process::ExitCode, time::Instant};

use anyhow::{Context, Result};
use e2e::{arena, leaks};

fn main() -> Result<ExitCode> {
    let launches = match std::env::args().nth(1) {
        Some(launches) => launches.parse().context("LAUNCHES is a number")?,
        None => 100_000,
    };
    arena::enter()?;
    let begun = Instant::now();
    let lines = leaks::run(launches)?;
    println!("{launches} launches in {:.0} s", begun.elapsed().as_secs_f64());
    println!("{:20} {:>10} {:>10} {:>10}", "", "before", "after", "allowed");
    for line in &lines {
        let verdict = if line.grew() { "GREW" } else { "" };
        println!("{:20} {:>10} {:>10} {:>10} {verdict}", line.what, line.before, line.after, line.allowed);
    }
    Ok(if lines.iter().any(leaks::Line::grew) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
