//! What initldr keeps: as `motherctl fdstore` lists it, within its bounds, and over deaths, upgrades and successions.

use anyhow::{Context, Result, ensure};
use e2e::{programs::SoakPrograms, scratch::Scratch};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// Of all slots: a quarter.
const ALL_MAX: usize = 1024;
/// Of one service: as many as one message can carry.
const ONE_MAX: usize = 253;

fn slots(scratch: &Scratch, words: &[&str]) -> Result<Vec<Value>> {
    let ran = scratch.motherctl(&[&["--json", "fdstore"], words].concat())?;
    let reply: Value = serde_json::from_str(&ran.out).with_context(|| format!("{ran:?}"))?;
    ensure!(ran.status == 0 && reply["version"] == 1 && reply["capacity"] == 4096, "{reply}");
    Ok(reply["slots"].as_array().context("no slots")?.clone())
}

fn pushed(slots: &[Value]) -> usize {
    slots.iter().filter(|slot| slot["kind"] == "pushed").count()
}

#[test]
fn no_flood_of_descriptors_takes_the_slots_of_others() -> Result<()> {
    let Some(mut scratch) = Scratch::new("no_flood_of_descriptors")? else { return Ok(()) };
    let programs = SoakPrograms::built()?;
    let folder = scratch.path("soak");
    std::fs::create_dir_all(&folder)?;
    let service = |name: &str, count: usize| {
        let text = format!(
            "exec = [\"{}\", \"push\", \"{}\", \"{name}\", \"{count}\"]\npolicy = \"unconfined\"\n\
             [start]\ntype = \"notify\"\n[notify]\nfd_store_max = {ONE_MAX}\n",
            programs.service.display(),
            folder.display(),
        );
        scratch.service(name, &text)
    };
    for number in 0..5 {
        service(&format!("greedy-{number}"), 300)?;
    }
    service("modest", 1)?;
    service("late", 0)?;
    scratch.start()?;
    for number in 0..4 {
        scratch.running_by_request(&format!("greedy-{number}"))?;
    }
    // It said so before it was ready, so all of it was heard.
    ensure!(pushed(&slots(&scratch, &["greedy-2"])?) == ONE_MAX, "one has its share and no more");
    scratch.running_by_request("modest")?;
    ensure!(pushed(&slots(&scratch, &["modest"])?) == 1, "the others have no part in that");
    scratch.running_by_request("greedy-4")?;
    ensure!(pushed(&slots(&scratch, &[])?) == ALL_MAX, "all of them have theirs");
    ensure!(pushed(&slots(&scratch, &["greedy-4"])?) == ALL_MAX - 4 * ONE_MAX - 1);
    let log = scratch.log()?;
    ensure!(
        log.contains("greedy-2: it has 253 descriptors kept (`notify.fd_store_max`): `gift` is closed"),
        "{log}"
    );
    ensure!(log.contains("greedy-4: services have 1024 descriptors kept already: `gift` is closed"), "{log}");

    // What a service needs to run has its room.
    let pid = scratch.running_by_request("late")?;
    let late = slots(&scratch, &["late"])?;
    let of = |kind: &str| late.iter().find(|slot| slot["kind"] == kind).cloned().unwrap_or_default();
    ensure!(
        of("process")["about"] == format!("process {pid}") && of("process")["file"] == "pidfd",
        "{late:?}"
    );
    ensure!(of("log")["file"] == "pipe" && of("notify")["file"] == "socket", "{late:?}");
    ensure!(
        of("notify")["about"].as_str().is_some_and(|about| about.starts_with("unix datagram /")),
        "{late:?}"
    );
    // The number is that of the descriptor in initldr.
    let link = format!("/proc/{}/fd/{}", scratch.init()?, of("log")["number"]);
    ensure!(std::fs::read_link(&link)?.to_string_lossy().starts_with("pipe:"), "{link}");

    // All of it outlives motherd, an upgrade and a succession.
    let before = slots(&scratch, &[])?;
    for words in [&["upgrade"][..], &["upgrade", "--initldr"], &["upgrade"]] {
        let ran = scratch.motherctl(words)?;
        ensure!(ran.status == 0, "{words:?}: {ran:?}");
        let after = slots(&scratch, &[])?;
        let names = |slots: &[Value]| slots.iter().map(|slot| slot["slot"].to_string()).collect::<Vec<_>>();
        ensure!(
            names(&after) == names(&before),
            "{words:?}: {} slots, and were {}",
            after.len(),
            before.len()
        );
    }
    // What is stopped has nothing kept.
    ensure!(scratch.motherctl(&["stop", "greedy-0", "late"])?.status == 0);
    ensure!(slots(&scratch, &["greedy-0"])?.is_empty() && slots(&scratch, &["late"])?.is_empty());
    let text = scratch.motherctl(&["fdstore", "modest"])?;
    ensure!(text.out.starts_with("SERVICE  KIND") && text.out.contains("modest   pushed   gift"), "{text:?}");
    ensure!(scratch.motherctl(&["fdstore", "nobody"])?.status == 4);
    Ok(())
}

/// The last close of a socket with SO_LINGER waits for its peer: neither motherd's nor initldr's does, whoever gave it.
#[test]
fn a_socket_that_lingers_holds_nobody_up() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_socket_that_lingers")? else { return Ok(()) };
    let programs = SoakPrograms::built()?;
    let service = |mode: &str, kept: usize| {
        let text = format!(
            "exec = [\"{}\", \"{mode}\", \"{}\", \"{mode}\"]\npolicy = \"unconfined\"\n\
             [start]\ntype = \"notify\"\n[notify]\nfd_store_max = {kept}\n[restart]\nwhen = \"always\"\n",
            programs.service.display(),
            scratch.path("").display(),
        );
        scratch.service(mode, &text)
    };
    service("linger", 2)?;
    service("idle", 0)?;
    scratch.start()?;
    scratch.answers()?;
    let motherd = scratch.motherd()?;
    for _ in 0..3 {
        scratch.running_by_request("linger")?;
        ensure!(
            slots(&scratch, &["linger"])?.iter().all(|slot| slot["kind"] != "pushed"),
            "both were let go"
        );
        // initldr reaps, and motherd starts.
        let before = scratch.running_by_request("idle")?;
        kill(Pid::from_raw(i32::try_from(before)?), Signal::SIGKILL)?;
        scratch.eventually("another idle", |scratch| {
            Ok(scratch.running("idle").ok().filter(|pid| *pid != before))
        })?;
        ensure!(scratch.motherctl(&["stop", "linger"])?.status == 0);
    }
    ensure!(scratch.motherd()? == motherd, "motherd was launched anew: {}", scratch.log()?);
    Ok(())
}

/// A service whose log pipe initldr does not hold would notice the end of motherd: where initldr has no descriptor left,
/// nothing more is started, and it is said why.
#[test]
fn what_initldr_has_no_room_for_is_not_started() -> Result<()> {
    let Some(mut scratch) = Scratch::new("what_initldr_has_no_room_for")? else { return Ok(()) };
    let ticking =
        "exec = [\"/bin/sh\", \"-c\", \"while echo tick; do sleep 0.05; done\"]\npolicy = \"unconfined\"\n";
    scratch.service("steady", ticking)?;
    for number in 0..20 {
        scratch.service(&format!("late-{number}"), ticking)?;
    }
    scratch.start()?;
    let steady = scratch.running_by_request("steady")?;
    let init = scratch.init()?;
    let limit = |soft: usize| -> Result<()> {
        let words = ["--pid", &init.to_string(), &format!("--nofile={soft}:")];
        ensure!(std::process::Command::new("prlimit").args(words).status()?.success(), "prlimit {words:?}");
        Ok(())
    };
    let numbers = std::fs::read_dir(format!("/proc/{init}/fd"))?;
    let numbers = numbers.map(|entry| Ok(entry?.file_name().to_string_lossy().parse::<usize>()?));
    let last = numbers.collect::<Result<Vec<_>>>()?.into_iter().max().context("it has descriptors")?;
    // But for the eight numbers that a launch of motherd may need.
    limit(last + 8 + 3)?;
    let (mut started, mut refused) = (Vec::new(), None);
    for name in (0..20).map(|number| format!("late-{number}")) {
        let ran = scratch.motherctl(&["start", &name])?;
        if ran.status != 0 {
            refused = Some((name, ran));
            break;
        }
        started.push(name);
    }
    let (refused, ran) = refused.with_context(|| format!("all of them started: {started:?}"))?;
    ensure!(!started.is_empty(), "control: there was room for one");
    ensure!(ran.errors.contains("initldr has no file descriptor left"), "{ran:?}");
    let cgroup = scratch.cgroup().join(format!("system.slice/{refused}.service"));
    ensure!(!cgroup.exists(), "{} was made for what was not started", cgroup.display());
    ensure!(slots(&scratch, &[&refused])?.is_empty(), "something of it is kept");
    // Who was being started when the last one was taken is told of.
    let events = scratch.motherctl(&["events"])?.out;
    ensure!(events.contains("initldr does not keep "), "{events}");

    // What runs does so over the end of motherd, and with more room it is as ever.
    scratch.kill_motherd()?;
    ensure!(scratch.running("steady")? == steady, "it noticed");
    limit(last + 200)?;
    ensure!(scratch.motherctl(&["stop", &refused])?.status == 0);
    scratch.eventually("there is room again", |scratch| {
        Ok((scratch.motherctl(&["start", &refused])?.status == 0).then_some(()))
    })?;
    ensure!(slots(&scratch, &[&refused])?.len() == 2, "its process and its pipe are kept");
    Ok(())
}
