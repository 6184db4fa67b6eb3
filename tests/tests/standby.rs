//! A process that waits to be the next one of its service: what a crash finds, and what nobody finds any more.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Result, ensure};
use e2e::scratch::Scratch;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The process that waits, once one other than this one does.
fn ready(scratch: &Scratch, service: &str, other_than: u64) -> Result<u64> {
    scratch.eventually(&format!("a standby of {service} waits"), |scratch| {
        let Ok(status) = scratch.status(service) else { return Ok(None) };
        let pid = status["standby"]["pid"].as_u64().filter(|pid| *pid != other_than);
        Ok(pid.filter(|_| status["standby"]["ready"] == true))
    })
}

fn main_is(scratch: &Scratch, service: &str, pid: u64) -> Result<()> {
    scratch.eventually(&format!("{service} runs as {pid}"), |scratch| {
        Ok((scratch.status(service)?["main_pid"].as_u64() == Some(pid)).then_some(()))
    })
}

fn end(pid: u64) -> Result<()> {
    Ok(kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?)
}

/// The cgroups below a service's, and whether anybody is in each.
fn runs(scratch: &Scratch, service: &str) -> Result<Vec<(String, usize)>> {
    let above = scratch.cgroup().join(format!("system.slice/{service}.service"));
    let mut found = Vec::new();
    if above.exists() {
        for entry in fs::read_dir(&above)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                let pids = fs::read_to_string(entry.path().join("cgroup.procs"))?.lines().count();
                found.push((entry.file_name().to_string_lossy().into_owned(), pids));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whether motherd holds a namespace.
fn is_held(scratch: &Scratch, namespace: &Path) -> Result<bool> {
    for entry in fs::read_dir(format!("/proc/{}/fd", scratch.motherd()?))? {
        // One that is closed meanwhile is not held.
        if fs::read_link(entry?.path()).is_ok_and(|link| link == namespace) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn logs(scratch: &Scratch, service: &str) -> Result<String> {
    Ok(scratch.motherctl(&["logs", service])?.out)
}

/// Says what it was given, and what it finds of a run before it.
const TELLS: &str = r#"exec = ["/bin/sh", "-c", '''
ls /tmp; echo was here >/tmp/left
echo run $$ listen $LISTEN_FDS $LISTEN_PID names $LISTEN_FDNAMES watchdog $WATCHDOG_PID
grep -E '^(Seccomp|NoNewPrivs|CapEff)' /proc/self/status | tr '\n' ' '; echo
readlink /proc/self/fd/3 | grep -q socket && echo has its socket
ls /proc/self/fd | tr '\n' ' '; echo
exec sleep 1000
''']
standby = true
[restart]
when = "always"
delay = "1ms"
[watchdog]
interval = "1h"
[[socket]]
name = "main"
listen = "unix:/run/web.sock"
"#;

#[test]
fn a_crash_is_followed_by_the_process_that_waited_with_nothing_of_the_run_before() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_crash_is_followed_by")? else { return Ok(()) };
    scratch.service("web", TELLS)?;
    scratch.service("system", "[dependencies]\nwants = [\"web\"]\n")?;
    scratch.start()?;
    let mut main = scratch.running("web")?;
    let mut standby = ready(&scratch, "web", 0)?;
    for round in 1..=3 {
        ensure!(main != standby);
        has_told(&scratch, round)?;
        ensure!(runs(&scratch, "web")?.iter().filter(|(_, pids)| *pids > 0).count() == 2, "one cgroup each");
        end(main)?;
        main_is(&scratch, "web", standby)?;
        main = standby;
        standby = ready(&scratch, "web", main)?;
    }
    let said = has_told(&scratch, 4)?;
    ensure!(!said.contains("left"), "the /tmp of another run was seen: {said}");
    ensure!(said.matches("run 1 listen 1 1 names main watchdog 1").count() == 4, "{said}");
    // What the launched one was given, the released ones were given.
    let words = |start: &str| -> Vec<String> {
        let lines = said.lines().filter_map(|line| line.split_once(' ').map(|(_, words)| words));
        lines.filter(|words| words.starts_with(start)).map(str::to_owned).collect()
    };
    for start in ["CapEff", "NoNewPrivs", "Seccomp", "0 1 2"] {
        let all = words(start);
        ensure!(all.iter().all(|words| *words == all[0]), "{all:?}");
    }
    ensure!(words("0 1 2").len() == 4, "{said}");
    ensure!(scratch.status("web")?["restarts"] == 3);
    // Stopped is stopped: nothing is left of either.
    ensure!(scratch.motherctl(&["stop", "web"])?.status == 0);
    let status = scratch.status("web")?;
    ensure!(status["state"] == "stopped" && status["standby"]["pid"].is_null(), "{status}");
    ensure!(!scratch.cgroup().join("system.slice/web.service").exists(), "its cgroup is gone");
    ensure!(!Path::new(&format!("/proc/{standby}")).exists() || ended(standby)?, "it ended with the service");
    Ok(())
}

/// What the runs of `web` have said, once so many have.
fn has_told(scratch: &Scratch, runs: usize) -> Result<String> {
    scratch.eventually(&format!("run {runs} has told"), |scratch| {
        let said = logs(scratch, "web")?;
        Ok((said.matches(" 0 1 2").count() >= runs).then_some(said))
    })
}

fn ended(pid: u64) -> Result<bool> {
    Ok(fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z")))
}

#[test]
fn a_standby_ends_with_its_motherd_and_the_next_one_makes_another() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_standby_ends_with_its_motherd")? else { return Ok(()) };
    scratch.service("web", TELLS)?;
    scratch.service("system", "[dependencies]\nwants = [\"web\"]\n")?;
    scratch.start()?;
    let main = scratch.running("web")?;
    let mut standby = ready(&scratch, "web", 0)?;
    for round in 0..3 {
        let motherd = scratch.motherd()?;
        end(u64::try_from(motherd)?)?;
        let next = ready(&scratch, "web", standby)?;
        scratch.eventually("the one before has ended", |_| Ok(ended(standby)?.then_some(())))?;
        ensure!(scratch.running("web")? == main, "round {round}: the service did not notice");
        standby = next;
    }
    end(main)?;
    main_is(&scratch, "web", standby)?;
    ready(&scratch, "web", standby)?;
    // Of what the standbys left nothing is left: a run and a standby.
    let runs = runs(&scratch, "web")?;
    ensure!(runs.len() <= 3 && runs.iter().filter(|(_, pids)| *pids > 0).count() == 2, "{runs:?}");
    let said = scratch.log()?;
    ensure!(!said.contains("orphan"), "{said}");
    Ok(())
}

#[test]
fn what_would_be_launched_otherwise_now_is_launched_and_not_released() -> Result<()> {
    let Some(mut scratch) = Scratch::new("what_would_be_launched_otherwise_now")? else { return Ok(()) };
    let shown = scratch.path("shown");
    fs::create_dir_all(&shown)?;
    fs::write(shown.join("which"), "the first")?;
    scratch.policy(
        "shows",
        &format!(
            "extends = [\"base/default\"]\n[filesystem]\nbind = [{{ from = \"{}\", to = \"/run/shown\", read_only = true }}]\n\
             [landlock]\nread = {{ add = [\"/run/shown\"] }}\n",
            shown.display()
        ),
    )?;
    let text = |words: &str| {
        format!(
            "exec = [\"/bin/sh\", \"-c\", \"cat /run/shown/which; echo {words}; exec sleep 1000\"]\npolicy = \"shows\"\n\
             standby = true\n[restart]\nwhen = \"always\"\ndelay = \"1ms\"\n"
        )
    };
    scratch.service("web", &text("one"))?;
    scratch.start()?;
    let main = scratch.running_by_request("web")?;
    let standby = ready(&scratch, "web", 0)?;
    fs::rename(&shown, scratch.path("away"))?;
    fs::create_dir_all(&shown)?;
    fs::write(shown.join("which"), "the second")?;
    end(main)?;
    let next = scratch.eventually("another one runs", |scratch| {
        Ok(scratch.status("web")?["main_pid"].as_u64().filter(|pid| *pid != main))
    })?;
    ensure!(next != standby, "it would have shown the first folder");
    scratch.eventually("it sees the second", |scratch| {
        Ok(logs(scratch, "web")?.contains("the second").then_some(()))
    })?;
    ensure!(scratch.log()?.contains("web: its standby is not what would be launched now"));
    // Another file: the standby of the one before goes at once.
    let standby = ready(&scratch, "web", standby)?;
    scratch.service("web", &text("two"))?;
    ensure!(scratch.motherctl(&["reload-config"])?.status == 0);
    scratch.eventually("it is gone", |scratch| {
        Ok(scratch.status("web")?["standby"]["pid"].is_null().then_some(()))
    })?;
    scratch.eventually("its process too", |_| Ok(ended(standby)?.then_some(())))?;
    ensure!(scratch.motherctl(&["restart", "web"])?.status == 0);
    ready(&scratch, "web", standby)?;
    scratch.eventually("the new file", |scratch| Ok(logs(scratch, "web")?.contains("two").then_some(())))
}

/// Whoever is told of the end of a run does not wait for its mounts and its network to be taken down.
#[test]
fn the_namespaces_of_a_run_are_held_until_after_its_end_and_no_longer() -> Result<()> {
    let Some(mut scratch) = Scratch::new("the_namespaces_of_a_run")? else { return Ok(()) };
    let own = "exec = [\"/bin/sleep\", \"1000\"]\npolicy = \"base/default\"\n";
    let restart = "[restart]\nwhen = \"always\"\ndelay = \"1ms\"\n";
    scratch.service("plain", &format!("{own}{restart}"))?;
    scratch.service("waited", &format!("{own}standby = true\n{restart}"))?;
    scratch.service("system", "[dependencies]\nwants = [\"plain\", \"waited\"]\n")?;
    scratch.start()?;
    for service in ["plain", "waited"] {
        let first = scratch.running(service)?;
        let released = if service == "waited" { Some(ready(&scratch, service, 0)?) } else { None };
        end(first)?;
        let main = scratch.eventually(&format!("{service} runs again"), |scratch| {
            Ok(scratch.status(service)?["main_pid"].as_u64().filter(|pid| *pid != first))
        })?;
        ensure!(released.is_none_or(|released| released == main), "it was released: {released:?}, {main}");
        let kinds = ["mnt", "net"];
        let links = kinds.map(|kind| fs::read_link(format!("/proc/{main}/ns/{kind}")));
        for link in links {
            let link = link?;
            scratch.eventually(&format!("{service}: {} is held", link.display()), |scratch| {
                Ok(is_held(scratch, &link)?.then_some(()))
            })?;
            ensure!(!is_held(&scratch, Path::new("mnt:[1]"))?, "control");
        }
        let links = kinds.map(|kind| fs::read_link(format!("/proc/{main}/ns/{kind}")));
        ensure!(scratch.motherctl(&["stop", service])?.status == 0);
        for link in links {
            let link = link?;
            scratch.eventually(&format!("{service}: {} is let go of", link.display()), |scratch| {
                Ok((!is_held(scratch, &link)?).then_some(()))
            })?;
        }
    }
    Ok(())
}

/// What a motherd that has ended leaves in a cgroup may take its time to end, and nobody is in the record of it: a standby that it
/// had ended, on a busy machine.
#[test]
fn a_service_beside_which_something_is_left_when_motherd_dies_is_started_again_after_that() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_service_beside_which_something")? else { return Ok(()) };
    let text = "exec = [\"/bin/sleep\", \"1000\"]\nstandby = true\n[restart]\nwhen = \"always\"\n";
    scratch.service("web", &format!("{text}delay = \"60s\"\n"))?;
    scratch.service("app", "exec = [\"/bin/sleep\", \"1000\"]\n[dependencies]\nneeds = [\"web\"]\n")?;
    scratch.service("system", "[dependencies]\nwants = [\"app\"]\n")?;
    scratch.start()?;
    let app = scratch.running("app")?;
    for while_motherd_is_away in [false, true] {
        let first = scratch.running("web")?;
        ready(&scratch, "web", 0)?;
        end(first)?;
        scratch.eventually("web waits for its next start", |scratch| {
            Ok((scratch.status("web")?["state"] == "backoff").then_some(()))
        })?;
        let left = scratch.cgroup().join("system.slice/web.service/run-9");
        fs::create_dir(&left)?;
        let mut other = std::process::Command::new("/bin/sleep").arg("1000").spawn()?;
        fs::write(left.join("cgroup.procs"), other.id().to_string())?;
        scratch.kill_motherd()?;
        ensure!(scratch.status("web")?["state"] == "orphan", "nothing is started beside it");
        if while_motherd_is_away {
            kill(Pid::from_raw(scratch.motherd()?), Signal::SIGSTOP)?;
        }
        other.kill()?;
        other.wait()?;
        if while_motherd_is_away {
            scratch.kill_motherd()?;
        }
        scratch.running("web")?;
        ensure!(scratch.running("app")? == app, "who needs it runs on");
    }
    // And where it is not meant to be up, nothing is left.
    ensure!(scratch.motherctl(&["stop", "--force", "web"])?.status == 0);
    ensure!(!scratch.cgroup().join("system.slice/web.service").exists());
    Ok(())
}

#[test]
fn a_connection_finds_a_process_that_waits() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_connection_finds_a_process_that_waits")? else { return Ok(()) };
    scratch.service("lazy", &TELLS.replace("listen =", "lazy = true\nlisten ="))?;
    scratch.start()?;
    scratch.answers()?;
    // Somebody starts it by name, and stops it.
    let standby = ready(&scratch, "lazy", 0)?;
    ensure!(scratch.status("lazy")?["state"] == "stopped");
    ensure!(scratch.motherctl(&["start", "lazy"])?.status == 0);
    main_is(&scratch, "lazy", standby)?;
    let for_a_crash = ready(&scratch, "lazy", standby)?;
    ensure!(scratch.motherctl(&["stop", "lazy"])?.status == 0);
    let standby = ready(&scratch, "lazy", for_a_crash)?;
    ensure!(scratch.status("lazy")?["state"] == "stopped");
    // Another motherd.
    end(u64::try_from(scratch.motherd()?)?)?;
    let standby = ready(&scratch, "lazy", standby)?;
    ensure!(scratch.status("lazy")?["state"] == "stopped", "{}", scratch.log()?);
    let _connection = UnixStream::connect(scratch.path("run/web.sock"))?;
    main_is(&scratch, "lazy", standby)?;
    ready(&scratch, "lazy", standby)?;
    Ok(())
}
