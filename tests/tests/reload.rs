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

/// Files that were changed and not reloaded are read by the next motherd: what runs goes on, and what it needs now is started.
#[test]
fn files_that_the_next_motherd_finds_changed_stop_nothing() -> Result<()> {
    let Some(mut scratch) = Scratch::new("files_that_the_next_motherd_finds")? else { return Ok(()) };
    for name in ["web", "db", "spare", "tool"] {
        scratch.service(name, SLEEPER)?;
    }
    scratch.service("system", "[dependencies]\nwants = [\"web\", \"db\", \"spare\", \"tool\"]\n")?;
    scratch.start()?;
    let pids = |scratch: &Scratch| ["web", "spare", "tool"].map(|name| scratch.running(name).ok());
    let before = pids(&scratch);
    ensure!(before.iter().all(Option::is_some), "{before:?}");
    // There is a record that it is down.
    ensure!(scratch.motherctl(&["stop", "db"])?.status == 0);

    scratch.service("web", &format!("{SLEEPER}[dependencies]\nneeds = [\"db\"]\n"))?;
    scratch.service("system", "[dependencies]\nwants = [\"web\", \"tool\"]\n")?;
    scratch.service("tool", &format!("{SLEEPER}[dependencies]\nconflicts = [\"spare\"]\n"))?;
    scratch.kill_motherd()?;
    scratch.running("db")?;
    ensure!(pids(&scratch) == before, "{before:?}, {:?}", pids(&scratch));
    // The same files again.
    let db = scratch.running("db")?;
    scratch.kill_motherd()?;
    ensure!(scratch.running("db")? == db && pids(&scratch) == before);
    ensure!(scratch.motherctl(&["stop", "--force", "db"])?.status == 0);
    ensure!(scratch.motherctl(&["status", "web"])?.status == 3, "control: it does need it now");
    scratch.stop()?;
    Ok(())
}
