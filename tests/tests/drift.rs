//! A policy that is changed after the start, on this host: what runs stays confined by what it said, and `status` tells.

use anyhow::{Context, Result, ensure};
use e2e::scratch::Scratch;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const BELOW: &str = "extends = [\"base/default\"]\n";
const POLICY: &str = "extends = [\"below\"]\n[process]\nnice = 3\n";

fn in_force(scratch: &Scratch) -> Result<(String, bool)> {
    let status = scratch.status("web")?;
    let told = &status["policy_in_force"];
    let digest = told["digest"].as_str().with_context(|| format!("{status:#}"))?;
    ensure!(digest.len() == 16 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digest}");
    Ok((digest.to_owned(), told["drift"].as_bool().context("drift")?))
}

fn landlock(scratch: &Scratch) -> Result<Value> {
    Ok(scratch.status("web")?["isolation"]["landlock"].clone())
}

#[test]
fn a_policy_that_was_changed_after_the_start_is_told_until_the_service_is_started_by_it() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_policy_that_was_changed")? else { return Ok(()) };
    scratch.policy("below", BELOW)?;
    scratch.policy("web", POLICY)?;
    scratch.service("web", "exec = [\"/bin/sleep\", \"1000\"]\npolicy = \"web\"\n")?;
    scratch.start()?;
    let first = scratch.running_by_request("web")?;
    let (digest, drift) = in_force(&scratch)?;
    ensure!(!drift, "nothing was changed yet");
    let applied = landlock(&scratch)?;
    ensure!(!applied.is_null(), "what was applied is known: {:#}", scratch.status("web")?);
    let page = || Ok::<_, anyhow::Error>(scratch.motherctl(&["status", "web"])?.out);
    ensure!(!page()?.contains("its files were changed since"), "{}", page()?);

    // In what it extends, by as many bytes as before.
    scratch.policy("below", "extends = [\"base/default\" ]")?;
    ensure!(in_force(&scratch)? == (digest.clone(), true), "{:?}", in_force(&scratch)?);
    ensure!(page()?.contains("its files were changed since"), "{}", page()?);
    ensure!(landlock(&scratch)? == applied, "this motherd launched it, so it knows");

    // The next motherd knows it from the record, and no longer what was applied by a text that is gone.
    let killed = scratch.motherd()?;
    kill(Pid::from_raw(killed), Signal::SIGKILL)?;
    scratch.eventually("there is another motherd", |scratch| {
        let another = scratch.motherd().is_ok_and(|pid| pid != killed);
        Ok((another && scratch.motherctl(&["list"])?.status == 0).then_some(()))
    })?;
    ensure!(scratch.running("web")? == first, "it runs on");
    ensure!(in_force(&scratch)? == (digest.clone(), true), "{:?}", in_force(&scratch)?);
    ensure!(landlock(&scratch)?.is_null(), "{}", landlock(&scratch)?);
    // What can no longer be read is another text as well.
    scratch.policy("below", "extends = [")?;
    ensure!(in_force(&scratch)?.1, "it cannot be read");
    // With the old text back it is known again.
    scratch.policy("below", BELOW)?;
    ensure!(in_force(&scratch)? == (digest.clone(), false));
    ensure!(landlock(&scratch)? == applied, "{} {applied}", landlock(&scratch)?);

    scratch.policy("web", "extends = [\"below\"]\n[process]\nnice = 4\n")?;
    ensure!(in_force(&scratch)?.1);
    let ran = scratch.motherctl(&["restart", "web"])?;
    ensure!(ran.status == 0, "{ran:?}");
    let (now, drift) = in_force(&scratch)?;
    ensure!(now != digest && !drift, "{now} {digest} {drift}");
    Ok(())
}
