//! `motherctl reload-config` on this host: a generation is taken whole or not at all, and what runs goes on.

use std::fs;

use anyhow::{Result, ensure};
use e2e::scratch::Scratch;

const SLEEPER: &str = "exec = [\"/usr/bin/sleep\", \"infinity\"]\npolicy = \"unconfined\"\n";

#[test]
fn another_generation_is_taken_whole_and_what_runs_goes_on() -> Result<()> {
    let Some(mut scratch) = Scratch::new("another_generation_is_taken_whole")? else { return Ok(()) };
    scratch.service("web", SLEEPER)?;
    let gone = scratch.service("gone", SLEEPER)?;
    scratch.service("system", "[dependencies]\nwants = [\"web\", \"gone\"]\n")?;
    scratch.start()?;
    let (web, former) = (scratch.running("web")?, scratch.running("gone")?);

    scratch.service("web", &format!("{SLEEPER}[dependencies]\nneeds = [\"db\"]\n"))?;
    scratch.service("db", SLEEPER)?;
    let broken = scratch.service("broken", "exec = [\"nowhere\"]\n")?;
    fs::remove_file(gone)?;
    let refused = scratch.motherctl(&["reload-config"])?;
    ensure!(refused.status == 1 && refused.out.contains("error[bad-exec]"), "{refused:?}");
    ensure!(refused.out.contains("nothing was changed"), "{refused:?}");
    ensure!(scratch.motherctl(&["status", "db"])?.status == 4, "the old generation holds");

    fs::remove_file(broken)?;
    let dry = scratch.motherctl(&["reload-config", "--dry-run"])?;
    ensure!(dry.status == 0 && dry.out.contains("nothing was changed: this is what would be"), "{dry:?}");
    ensure!(scratch.motherctl(&["status", "db"])?.status == 4, "a dry run changes nothing");
    let done = scratch.motherctl(&["reload-config"])?;
    ensure!(done.status == 0 && done.out.ends_with("done\n"), "{done:?}");
    for line in ["added    db", "changed  web", "removed  gone"] {
        ensure!(done.out.contains(line), "{line} in {done:?}");
    }
    scratch.running("db")?;
    ensure!(scratch.running("web")? == web && scratch.running("gone")? == former, "both run on");

    scratch.motherctl(&["restart", "web"])?;
    ensure!(scratch.running("web")? != web, "now under its new file");
    ensure!(scratch.motherctl(&["stop", "db"])?.status == 1, "web needs it, and nobody is forced");
    ensure!(scratch.motherctl(&["stop", "--force", "db"])?.status == 0);
    ensure!(scratch.motherctl(&["status", "web"])?.status == 3, "it was stopped first");
    scratch.stop()?;
    Ok(())
}
