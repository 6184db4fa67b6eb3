//! Templates and their instances, groups of groups, and groups of oneshots as a boot has them, through motherd and
//! motherctl. On this very host, as ordinary processes.

use anyhow::{Result, ensure};
use e2e::scratch::Scratch;

const TEMPLATE: &str = r#"
description = "worker %i, 100%%"
exec = ["/bin/sh", "-c", "echo %i says $COLOUR 100%%; exec sleep 1000"]
[environment]
COLOUR = "dark-%i"
[dependencies]
needs = ["store@%i"]
wants = ["log"]
[stop]
signal = "SIGKILL"
"#;

fn states(scratch: &Scratch, services: &[&str], state: &str) -> Result<()> {
    for service in services {
        scratch.eventually(&format!("{service} is {state}"), |scratch| {
            // Until motherd answers there is no status.
            Ok(scratch.status(service).is_ok_and(|status| status["state"] == state).then_some(()))
        })?;
    }
    Ok(())
}

fn does(scratch: &Scratch, words: &[&str]) -> Result<()> {
    let ran = scratch.motherctl(words)?;
    ensure!(ran.status == 0, "{words:?}: {ran:?}\n{}", scratch.log()?);
    Ok(())
}

#[test]
fn an_instance_is_its_template_with_its_name_and_what_that_names() -> Result<()> {
    let Some(mut scratch) = Scratch::new("an_instance_is_its_template")? else { return Ok(()) };
    scratch.service("worker@", TEMPLATE)?;
    let sleeper = "exec = [\"/bin/sleep\", \"1000\"]\n[stop]\nsignal = \"SIGKILL\"\n";
    scratch.service("store@", sleeper)?;
    scratch.service("log", sleeper)?;
    scratch.service("system", "[dependencies]\nwants = [\"worker@from-a-file\"]\n")?;
    scratch.start()?;
    scratch.running("worker@from-a-file")?;
    // Who looks makes none.
    ensure!(scratch.motherctl(&["status", "worker@blue"])?.status == 3);
    ensure!(!scratch.motherctl(&["list"])?.out.contains("worker@blue"));
    does(&scratch, &["start", "worker@blue", "worker@1.2:x_y-z"])?;
    let blue = scratch.running("worker@blue")?;
    states(&scratch, &["store@blue", "store@1.2:x_y-z", "log"], "running")?;
    let status = scratch.status("worker@blue")?;
    ensure!(status["description"] == "worker blue, 100%", "{status:#}");
    scratch.eventually("it says who it is", |scratch| {
        let log = scratch.motherctl(&["logs", "worker@blue"])?.out;
        Ok(log.ends_with(" blue says dark-blue 100%\n").then_some(()))
    })?;
    ensure!(scratch.cgroup().join("system.slice/worker@blue.service").exists());
    scratch.kill_motherd()?;
    ensure!(
        scratch.running("worker@blue")? == blue,
        "the next motherd knows it by its record and its template"
    );
    // What it needs is kept for it, and goes with it; what another instance needs stays.
    ensure!(scratch.motherctl(&["stop", "store@blue"])?.status == 1);
    does(&scratch, &["stop", "worker@blue"])?;
    states(&scratch, &["store@blue"], "stopped")?;
    states(&scratch, &["worker@1.2:x_y-z", "store@1.2:x_y-z", "log"], "running")?;
    // Another text of the template is every instance's when it is started again.
    scratch.service("worker@", &TEMPLATE.replace("worker %i", "helper %i"))?;
    does(&scratch, &["reload-config"])?;
    ensure!(scratch.status("worker@1.2:x_y-z")?["description"] == "worker 1.2:x_y-z, 100%");
    does(&scratch, &["restart", "worker@1.2:x_y-z"])?;
    ensure!(scratch.status("worker@1.2:x_y-z")?["description"] == "helper 1.2:x_y-z, 100%");
    scratch.stop()?;
    Ok(())
}

#[test]
fn an_odd_instance_is_refused_with_the_reason() -> Result<()> {
    let Some(mut scratch) = Scratch::new("an_odd_instance_is_refused")? else { return Ok(()) };
    scratch.service("worker@", "exec = [\"/bin/sleep\", \"1000\"]\n")?;
    scratch
        .service("asks", "exec = [\"/bin/sleep\", \"1000\"]\n[dependencies]\nwants = [\"worker@a b\"]\n")?;
    scratch.start()?;
    scratch.answers()?;
    let long = "x".repeat(60);
    let letters = "a name is made of letters, digits and - _ . :";
    for (instance, why) in [
        ("", "a name has at least one character"),
        ("a/b", letters),
        ("a b", letters),
        ("a%", letters),
        ("ä", "a name begins with a letter or a digit"),
        ("../x", "a name begins with a letter or a digit"),
        ("-x", "a name begins with a letter or a digit"),
        ("a@b", letters),
        (long.as_str(), "a name has at most 56 characters"),
    ] {
        let name = format!("worker@{instance}");
        for verb in ["start", "status", "stop"] {
            let ran = scratch.motherctl(&[verb, &name])?;
            let expected = format!(
                "motherctl: invalid parameter: services: `{name}` is not the name of an instance: {why}\n"
            );
            ensure!(ran.status == 2 && ran.errors == expected, "{verb} {name}: {ran:?}");
        }
    }
    let log = scratch.log()?;
    ensure!(
        log.contains("`worker@a b` is not the name of a service") && log.contains("asks.toml:3:10"),
        "{log}"
    );
    let unknown = scratch.motherctl(&["start", "wroker@x"])?;
    ensure!(unknown.status == 4, "no template of that name: {unknown:?}");
    does(&scratch, &["start", "worker@x"])?;
    scratch.stop()?;
    Ok(())
}

#[test]
fn a_group_of_groups_is_up_when_all_is_and_takes_it_down_again() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_group_of_groups")? else { return Ok(()) };
    let sleeper = "exec = [\"/bin/sleep\", \"1000\"]\n[stop]\nsignal = \"SIGKILL\"\n";
    for name in ["web", "proxy", "db", "own"] {
        scratch.service(name, sleeper)?;
    }
    scratch.service("front", "[dependencies]\nneeds = [\"web\", \"proxy\"]\n")?;
    scratch.service("back", "[dependencies]\nneeds = [\"db\"]\n")?;
    scratch
        .service("site", "description = \"all of it\"\n[dependencies]\nneeds = [\"front\", \"back\"]\n")?;
    scratch.service("system", "[dependencies]\nwants = [\"site\"]\n")?;
    scratch.start()?;
    states(&scratch, &["web", "proxy", "db"], "running")?;
    states(&scratch, &["front", "back", "site"], "done")?;
    does(&scratch, &["start", "own"])?;
    scratch.kill_motherd()?;
    states(&scratch, &["front", "back", "site"], "done")?;
    // One of its members that goes takes the groups with it that need it, and no others.
    let refused = scratch.motherctl(&["stop", "db"])?;
    ensure!(refused.status == 1 && refused.errors.contains("needed by back"), "{refused:?}");
    does(&scratch, &["stop", "--force", "db"])?;
    states(&scratch, &["back", "site"], "stopped")?;
    does(&scratch, &["start", "site"])?;
    states(&scratch, &["web", "proxy", "db"], "running")?;
    // What was started for it alone stops with it; what somebody asked for stays.
    does(&scratch, &["start", "web"])?;
    does(&scratch, &["stop", "site"])?;
    states(&scratch, &["proxy", "db", "front", "back"], "stopped")?;
    states(&scratch, &["web", "own"], "running")?;
    scratch.stop()?;
    Ok(())
}

#[test]
fn a_group_of_oneshots_runs_each_in_its_order_once_and_says_what_failed() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_group_of_oneshots")? else { return Ok(()) };
    let order = scratch.path("order");
    scratch.policy("open", "unconfined = true\n")?;
    let oneshot = |name: &str, sections: &str| -> Result<()> {
        let text = format!(
            "policy = \"open\"\nexec = [\"/bin/sh\", \"-c\", \"sleep 0.1; echo {name} >> {}\"]\n[start]\ntype = \"oneshot\"\n{sections}",
            order.display()
        );
        scratch.service(name, &text).map(drop)
    };
    oneshot("mounts", "")?;
    oneshot("modules", "[dependencies]\nbefore = [\"mounts\"]\n")?;
    oneshot("sysctl", "[dependencies]\nafter = [\"modules\"]\n")?;
    oneshot("users", "[dependencies]\nneeds = [\"mounts\"]\n")?;
    let fails = "exec = [\"/bin/false\"]\n[start]\ntype = \"oneshot\"\n[restart]\nwhen = \"never\"\n";
    scratch.service("fails", fails)?;
    scratch.service(
        "basic",
        "[dependencies]\nneeds = [\"mounts\", \"modules\", \"sysctl\", \"users\"]\nwants = [\"fails\"]\n",
    )?;
    scratch.service("strict", "[dependencies]\nneeds = [\"basic\", \"fails\"]\n")?;
    scratch.service("late", "exec = [\"/bin/sleep\", \"1000\"]\n[dependencies]\nneeds = [\"basic\"]\n")?;
    scratch.service("system", "[dependencies]\nwants = [\"late\", \"strict\"]\n")?;
    scratch.start()?;
    scratch.answers()?;
    // In the midst of it: what is done is not done again.
    scratch.kill_motherd()?;
    scratch.running("late")?;
    states(&scratch, &["basic", "mounts", "modules", "sysctl", "users"], "done")?;
    states(&scratch, &["fails"], "failed")?;
    let said = std::fs::read_to_string(&order)?;
    let place = |name: &str| said.lines().position(|line| line == name);
    ensure!(said.lines().count() == 4, "each once: {said}");
    ensure!(place("modules") < place("mounts") && place("modules") < place("sysctl"), "{said}");
    ensure!(place("mounts") < place("users"), "{said}");
    let strict = scratch.status("strict")?;
    ensure!(strict["state"] == "waiting" && strict["sub_state"] == "blocked", "{strict:#}");
    let why = strict["cause"]["words"].as_str().unwrap_or_default().to_owned();
    ensure!(why.contains("it needs fails, which is failed"), "it says what it waits for: {why}");
    let failed = scratch.status("fails")?;
    ensure!(failed["cause"]["words"] == "exited with status 1", "{failed:#}");
    scratch.stop()?;
    Ok(())
}
