//! What is around a program: commands before it, beside it and after it, programs that fork, and what ends them.
//! On this very host, as ordinary processes.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::clients::{Clients, orders};
use e2e::scratch::Scratch;

/// Everything that a service has written.
fn output(scratch: &Scratch, service: &str) -> Result<String> {
    let folder = scratch.path("var/log/motherd").join(service);
    let mut files: Vec<_> = fs::read_dir(folder)?.collect::<std::io::Result<_>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    files.iter().map(|file| Ok(fs::read_to_string(file.path())?)).collect()
}

/// The words of its state's cause.
fn cause(scratch: &Scratch, service: &str) -> Result<String> {
    Ok(scratch.status(service)?["cause"]["words"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn commands_run_before_beside_and_after_the_program_in_its_sandbox() -> Result<()> {
    let Some(mut scratch) = Scratch::new("commands_run_before_beside_and_after")? else { return Ok(()) };
    let text = r#"
exec = ["/bin/sh", "-c", "echo of main >/tmp/shared; echo main; echo greets $GREETING; trap 'echo asked; exit 0' TERM; trap 'echo hup' HUP; while :; do sleep 0.02; done"]
[start]
pre = [["/bin/sh", "-c", "echo pre one; echo $$; test ! -e /tmp/shared"], ["/bin/sh", "-c", "echo pre two $GREETING"]]
post = [["/bin/sh", "-c", "until test -s /tmp/shared; do sleep 0.02; done; echo post sees $(cat /tmp/shared), main is $MAINPID; id -u"]]
[reload]
exec = ["/bin/sh", "-c", "kill -HUP $MAINPID && echo reloaded by command"]
[stop]
exec = ["/bin/sh", "-c", "echo stop sees $(cat /tmp/shared)"]
post = ["/bin/sh", "-c", "echo after $EXIT_CODE $EXIT_STATUS; test ! -e /tmp/shared && echo in a sandbox of its own"]
[environment]
GREETING = "hello"
"#;
    scratch.service("web", text)?;
    scratch.service("system", "[dependencies]\nwants = [\"web\"]")?;
    scratch.start()?;
    scratch.running("web")?;
    let reloaded = scratch.motherctl(&["reload", "web"])?;
    ensure!(reloaded.status == 0, "{reloaded:?}");
    let stopped = scratch.motherctl(&["stop", "web"])?;
    ensure!(stopped.status == 0, "{stopped:?}");
    let said = output(&scratch, "web")?;
    for line in [
        "pre one",
        "pre two hello",
        "greets hello",
        "post sees of main, main is 1",
        "reloaded by command",
        "stop sees of main",
        "asked",
        "after exited 0",
        "in a sandbox of its own",
    ] {
        ensure!(said.contains(line), "{line:?} is not in\n{said}");
    }
    let place = |line: &str| said.find(line);
    let order =
        ["pre one", "pre two", "main\n", "post sees", "reloaded by", "stop sees", "asked", "after exited"];
    ensure!(order.map(place).is_sorted(), "in another order:\n{said}");
    scratch.stop()?;
    Ok(())
}

#[test]
fn a_service_that_says_when_it_is_ready_has_commands_as_any_other() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_service_that_says_when")? else { return Ok(()) };
    let clients = Clients::new(&scratch)?;
    let pre = "timeout = \"20s\"\npre = [[\"/bin/sh\", \"-c\", \"test -S $NOTIFY_SOCKET && echo told\"]]";
    scratch.service("web", &clients.all[3].service(&["READY=1"], pre, &orders("web")))?;
    scratch.start()?;
    scratch.running_by_request("web")?;
    ensure!(output(&scratch, "web")?.contains("told"), "{}", output(&scratch, "web")?);
    scratch.stop()?;
    Ok(())
}

#[test]
fn a_command_that_fails_fails_the_start_and_is_named() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_command_that_fails")? else { return Ok(()) };
    let never = "[restart]\nwhen = \"never\"\n";
    let exec = "exec = [\"/bin/sleep\", \"1000\"]\n";
    scratch.service(
        "pre",
        &format!("{exec}{never}[start]\npre = [[\"/bin/true\"], [\"/bin/sh\", \"-c\", \"exit 7\"]]"),
    )?;
    scratch.service(
        "post",
        &format!("{exec}{never}[start]\npost = [[\"/bin/false\"]]\n[stop]\nsignal = \"SIGKILL\""),
    )?;
    scratch.service("none", &format!("{exec}{never}[start]\npre = [[\"/no/such/program\"]]"))?;
    scratch.service(
        "slow",
        &format!("{exec}{never}[start]\ntimeout = \"300ms\"\npre = [[\"/bin/sleep\", \"1000\"]]"),
    )?;
    scratch.service(
        "stop",
        &format!("{exec}{never}[stop]\nsignal = \"SIGKILL\"\nexec = [\"/bin/false\"]\npost = [[\"/bin/false\"], [\"/bin/echo\", \"still\"]]"),
    )?;
    scratch.start()?;
    scratch.eventually("motherd answers", |scratch| Ok(scratch.status("pre").ok()))?;
    for (service, words) in [
        ("pre", "start.pre[1]: exited with status 7"),
        ("post", "start.post[0]: exited with status 1"),
        ("none", "execve /no/such/program: ENOENT"),
        ("slow", "start.pre[0]: not ended in time"),
    ] {
        let started = scratch.motherctl(&["start", service])?;
        ensure!(started.status == 1 && started.errors.contains(words), "{service}: {started:?}");
        let status = scratch.status(service)?;
        ensure!(status["state"] == "failed", "{status}");
        ensure!(cause(&scratch, service)?.contains(words), "{status}");
    }
    // Around the end it is passed over, and said.
    ensure!(scratch.motherctl(&["start", "stop"])?.status == 0);
    ensure!(scratch.motherctl(&["stop", "stop"])?.status == 0);
    let words = cause(&scratch, "stop")?;
    let told = ["stop.exec[0]: exited with status 1", "stop.post[0]: exited with status 1"];
    ensure!(told.iter().all(|part| words.contains(part)), "{words}");
    ensure!(output(&scratch, "stop")?.contains("still"), "the next one runs all the same");
    // The control: with commands that succeed the very same file is up.
    scratch.service(
        "good",
        &format!("{exec}{never}[start]\npre = [[\"/bin/true\"]]\npost = [[\"/bin/true\"]]"),
    )?;
    scratch.stop()?;
    scratch.service("system", "[dependencies]\nwants = [\"good\"]")?;
    scratch.start()?;
    scratch.running("good")?;
    scratch.stop()?;
    Ok(())
}

#[test]
fn a_program_that_forks_is_its_daemon_from_then_on() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_program_that_forks")? else { return Ok(()) };
    scratch.policy("forks", "extends = [\"base/default\"]\n[namespaces]\npid = \"host\"")?;
    let daemon = |extra: &str, script: &str| {
        format!(
            "policy = \"forks\"\nexec = [\"/bin/sh\", \"-c\", \"{script}\"]\n[start]\ntype = \"forking\"\n\
             timeout = \"2s\"\n{extra}[restart]\nwhen = \"never\"\n"
        )
    };
    scratch.service("alone", &daemon("", "sleep 1000 & exit 0"))?;
    let written = "sleep 1000 & sleep 1000 & echo $! >/tmp/pid; exit 0";
    scratch.service("named", &daemon("pidfile = \"/tmp/pid\"\n", written))?;
    scratch.service("lies", &daemon("pidfile = \"/tmp/pid\"\n", "sleep 1000 & echo 1 >/tmp/pid; exit 0"))?;
    scratch.service("fails", &daemon("", "exit 3"))?;
    scratch.service("first", &daemon("", "sleep 1000 & exit 0").replace("policy = \"forks\"\n", ""))?;
    scratch.start()?;
    scratch.eventually("motherd answers", |scratch| Ok(scratch.status("alone").ok()))?;
    for service in ["alone", "named"] {
        let started = scratch.motherctl(&["start", service])?;
        ensure!(started.status == 0, "{service}: {started:?}");
        let main = scratch.status(service)?["main_pid"].as_u64().context("a main process")?;
        // The shell's child has its name until it has exec'd.
        scratch.eventually(&format!("{service} is its daemon"), |_| {
            Ok((fs::read_to_string(format!("/proc/{main}/comm"))? == "sleep\n").then_some(()))
        })?;
        // Its end is the end of the service, with its status.
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(main)?),
            nix::sys::signal::Signal::SIGKILL,
        )?;
        scratch.eventually("its end is noticed", |scratch| {
            Ok((scratch.status(service)?["state"] == "failed").then_some(()))
        })?;
        ensure!(cause(&scratch, service)?.contains("ended by SIGKILL"), "{}", cause(&scratch, service)?);
    }
    for (service, words) in [
        ("lies", "no daemon was found within 2 s"),
        ("fails", "exited with status 3"),
        ("first", "a program that forks cannot have a pid namespace of its own"),
    ] {
        let started = scratch.motherctl(&["start", service])?;
        ensure!(started.status == 1 && started.errors.contains(words), "{service}: {started:?}");
    }
    scratch.stop()?;
    Ok(())
}

#[test]
fn a_motherd_that_is_killed_while_a_command_runs_loses_nothing_of_it() -> Result<()> {
    let Some(mut scratch) = Scratch::new("killed_while_a_command_runs")? else { return Ok(()) };
    let shared = scratch.path("shared");
    fs::create_dir_all(&shared)?;
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777))?;
    scratch.policy(
        "shares",
        &format!(
            "extends = [\"base/default\"]\n[filesystem]\nbind = [{{ from = \"{}\", to = \"/srv\" }}]\n\
             [landlock]\nread = {{ add = [\"/srv\"] }}",
            shared.display()
        ),
    )?;
    let pre = "echo began; until test -e /srv/go; do sleep 0.02; done; echo ended";
    scratch.service(
        "web",
        &format!("policy = \"shares\"\nexec = [\"/bin/sleep\", \"1000\"]\n[start]\npre = [[\"/bin/sh\", \"-c\", \"{pre}\"]]\n[stop]\nsignal = \"SIGKILL\""),
    )?;
    scratch.service("system", "[dependencies]\nwants = [\"web\"]")?;
    scratch.start()?;
    scratch.eventually("the command runs", |scratch| {
        Ok(output(scratch, "web").is_ok_and(|said| said.contains("began")).then_some(()))
    })?;
    let first = scratch.motherd()?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL)?;
    scratch
        .eventually("another motherd", |scratch| Ok(scratch.motherd().ok().filter(|pid| *pid != first)))?;
    fs::write(shared.join("go"), "")?;
    scratch.running("web")?;
    let said = output(&scratch, "web")?;
    ensure!(said.matches("began").count() == 1 && said.matches("ended").count() == 1, "{said}");
    scratch.stop()?;
    Ok(())
}
