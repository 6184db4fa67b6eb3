//! What `policy can` says is what happens: a few random policies each time, a thousand with the `differential` program.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use e2e::differential::run;
use e2e::say;
use e2e::scratch::skip;

#[test]
fn what_the_plan_answers_is_what_a_probe_experiences() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return skip("what_the_plan_answers_is_what_a_probe_experiences", "it needs root");
    }
    let seed = u64::from(std::process::id()) << 20;
    let figures = run(Path::new(env!("CARGO_BIN_EXE_probe")), seed, 25)?;
    say(&format!("seed {seed}: {} policies, {} questions", figures.policies, figures.questions));
    for (act, (asked, yes)) in &figures.acts {
        ensure!(*yes > 0 && yes < asked, "{act}: {yes} of {asked} answers are yes: that proves nothing");
    }
    if figures.wrong.is_empty() { Ok(()) } else { bail!("seed {seed}:\n{}", figures.wrong.join("\n\n")) }
}
