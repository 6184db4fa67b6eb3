//! `differential [COUNT] [SEED]` compares what `policy can` says of random policies with what a probe experiences: see
//! [`e2e::differential`]. As root; `cargo build -p e2e --bins` builds the probe beside it.

use std::process::ExitCode;

use anyhow::{Context, Result};

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let count = arguments.next().map_or(Ok(1000), |count| count.parse()).context("COUNT is a number")?;
    let seed = arguments.next().map_or(Ok(1), |seed| seed.parse()).context("SEED is a number")?;
    let own = std::env::current_exe()?;
    let figures = e2e::differential::run(&own.with_file_name("probe"), seed, count)?;
    for wrong in figures.wrong.iter().take(20) {
        println!("{wrong}\n");
    }
    println!(
        "seed {seed}: {} policies ({} drawn ones refused), {} questions, {} of them yes, {} disagreements",
        figures.policies,
        figures.refused,
        figures.questions,
        figures.allowed,
        figures.wrong.len()
    );
    for (act, (asked, yes)) in &figures.acts {
        println!("  {act:8} {asked:6} questions, {yes:6} yes");
    }
    Ok(ExitCode::from(u8::from(!figures.wrong.is_empty())))
}
