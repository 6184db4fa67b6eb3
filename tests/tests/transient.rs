//! `motherctl run --service`: services without a file of anybody's, from their start until nothing of them is left, over
//! the death of motherd. On this very host, as ordinary processes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::programs::Programs;
use e2e::scratch::{Ran, Scratch};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn started(test: &str) -> Result<Option<Scratch>> {
    let Some(mut scratch) = Scratch::new(test)? else { return Ok(None) };
    scratch.service("file", "exec = [\"/usr/bin/sleep\", \"infinity\"]\n")?;
    scratch.service("worker@", "exec = [\"/usr/bin/sleep\", \"infinity\"]\n")?;
    scratch.service("broken", "exce = [\"/usr/bin/sleep\"]\n")?;
    scratch.start()?;
    scratch.answers()?;
    Ok(Some(scratch))
}

fn run(scratch: &Scratch, name: &str, options: &[&str], command: &[&str]) -> Result<Ran> {
    scratch.motherctl(&[&["run", "--service", name], options, &["--"], command].concat())
}

/// Nothing is left of it: no name, no file, no mark, no cgroup, no record of initldr's.
fn is_gone(scratch: &Scratch, name: &str) -> Result<()> {
    scratch.eventually(&format!("{name} is gone"), |scratch| {
        Ok((scratch.motherctl(&["status", name])?.status == 4).then_some(()))
    })?;
    let listed = scratch.motherctl(&["list"])?.out;
    ensure!(!listed.lines().any(|line| line.starts_with(&format!("{name} "))), "{listed}");
    for path in [format!("run/motherd/services/{name}.toml"), format!("run/motherd/transient/{name}")] {
        ensure!(!scratch.path(&path).exists(), "{path} is left");
    }
    ensure!(!scratch.cgroup().join(format!("system.slice/{name}.service")).exists());
    Ok(())
}

#[test]
fn a_service_without_a_file_is_listed_logged_and_controlled_until_it_is_down() -> Result<()> {
    let Some(mut scratch) = started("a_service_without_a_file")? else { return Ok(()) };
    let script = "echo hello $GREETING; id -u; exec sleep 1000";
    let options = ["--env", "GREETING=a \"b\" c", "--slice", "batch"];
    let ran = run(&scratch, "job", &options, &["sh", "-c", script])?;
    ensure!(ran.status == 0 && ran.out.starts_with("job: running, main pid "), "{ran:?}");
    let first = scratch.running("job")?;
    let definition = scratch.path("run/motherd/services/job.toml");
    ensure!(definition.metadata()?.permissions().mode() & 0o7777 == 0o600, "its variables are nobody else's");
    ensure!(scratch.cgroup().join("batch.slice/job.service").exists(), "it has the slice that was asked for");
    let status = scratch.status("job")?;
    ensure!(status["policy"] == "base/default", "secure by default: {status:#}");
    let output = scratch.eventually("it has written", |scratch| {
        let out = scratch.motherctl(&["logs", "job"])?.out;
        Ok((out.lines().count() == 2).then_some(out))
    })?;
    ensure!(output.contains(" hello a \"b\" c\n") && !output.ends_with(" 0\n"), "{output}");

    // It is as any other: over the death of motherd, a reload, a restart; and its name is taken.
    scratch.kill_motherd()?;
    ensure!(scratch.running("job")? == first, "it runs on");
    fs::remove_file(scratch.path("etc/motherd/services/broken.toml"))?;
    ensure!(scratch.motherctl(&["reload-config"])?.status == 0);
    ensure!(scratch.running("job")? == first);
    ensure!(scratch.motherctl(&["restart", "job"])?.status == 0);
    ensure!(scratch.running("job")? != first);
    let events = scratch.motherctl(&["events", "job"])?.out;
    ensure!(events.contains("start requested by uid 0"), "{events}");
    scratch.kill_motherd()?;
    ensure!(scratch.motherctl(&["stop", "job"])?.status == 0);
    is_gone(&scratch, "job")?;
    ensure!(scratch.motherctl(&["logs", "job"])?.out.lines().count() >= 2, "what it wrote is there");
    // The control: a service with a file stays known, and its file where it is.
    ensure!(scratch.motherctl(&["start", "file"])?.status == 0);
    ensure!(scratch.motherctl(&["stop", "file"])?.status == 0);
    ensure!(scratch.motherctl(&["status", "file"])?.status == 3);
    ensure!(scratch.path("etc/motherd/services/file.toml").exists());

    // One that ends by itself is gone by itself; one that fails is known until somebody stops it or takes its name.
    ensure!(run(&scratch, "brief", &[], &["/bin/true"])?.status == 0);
    is_gone(&scratch, "brief")?;
    ensure!(run(&scratch, "bad", &[], &["/bin/false"])?.status == 0);
    scratch.eventually("it has failed", |scratch| {
        Ok((scratch.status("bad")?["state"] == "failed").then_some(()))
    })?;
    scratch.kill_motherd()?;
    let bad = scratch.status("bad")?;
    ensure!(bad["state"] == "failed" && bad["last_exit"]["status"] == 1, "{bad:#}");
    ensure!(run(&scratch, "bad", &[], &["/bin/sleep", "1000"])?.status == 0, "another one takes its name");
    let again = scratch.status("bad")?;
    ensure!(
        again["state"] == "running" && again["last_exit"].is_null() && again["restarts"] == 0,
        "{again:#}"
    );
    ensure!(scratch.motherctl(&["stop", "bad"])?.status == 0);
    is_gone(&scratch, "bad")?;
    ensure!(run(&scratch, "bad", &[], &["/bin/false"])?.status == 0);
    scratch.eventually("it has failed", |scratch| {
        Ok((scratch.status("bad")?["state"] == "failed").then_some(()))
    })?;
    ensure!(scratch.motherctl(&["stop", "bad"])?.status == 0);
    is_gone(&scratch, "bad")?;

    let remains = run(&scratch, "once", &["--remain"], &["/bin/true"])?;
    ensure!(remains.status == 0 && remains.out == "once: done\n", "{remains:?}");
    scratch.kill_motherd()?;
    ensure!(scratch.status("once")?["state"] == "done");
    ensure!(scratch.motherctl(&["stop", "once"])?.status == 0);
    is_gone(&scratch, "once")?;
    let again = run(&scratch, "again", &["--restart", "always"], &["/bin/sleep", "1000"])?;
    ensure!(again.status == 0, "{again:?}");
    let pid = scratch.running("again")?;
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
    scratch.eventually("it comes back", |scratch| {
        Ok(Some(scratch.running("again")?).filter(|next| *next != pid))
    })?;
    scratch.stop()?;
    Ok(())
}

#[test]
fn who_waits_gets_the_exit_status_over_the_death_of_motherd() -> Result<()> {
    let Some(mut scratch) = started("who_waits_gets_the_exit_status")? else { return Ok(()) };
    let check = |command: &[&str], status: i32, words: &str| -> Result<()> {
        let ran = run(&scratch, "job", &["--wait"], command)?;
        ensure!(
            ran.status == status && (ran.out.clone() + &ran.errors).contains(words),
            "{command:?}: {ran:?}"
        );
        is_gone(&scratch, "job")
    };
    check(&["/bin/true"], 0, "job: exited with status 0")?;
    check(&["/bin/sh", "-c", "exit 7"], 7, "job: exited with status 7")?;
    // Nothing is PID 1 of anything under this policy, so it can kill itself.
    scratch.policy("open", "unconfined = true\n")?;
    let ran = run(&scratch, "job", &["--wait", "--policy", "open"], &["/bin/sh", "-c", "kill -KILL $$"])?;
    ensure!(ran.status == 137 && ran.out == "job: ended by SIGKILL\n", "{ran:?}");
    is_gone(&scratch, "job")?;
    check(&["/no/such/program"], 125, "execve /no/such/program: ENOENT")?;
    let ran = scratch.motherctl(&[
        "--json",
        "run",
        "--service",
        "job",
        "--wait",
        "--",
        "/bin/sh",
        "-c",
        "exit 3",
    ])?;
    let reply: Value = serde_json::from_str(&ran.out).with_context(|| format!("{ran:?}"))?;
    let exit = &reply["last_exit"];
    ensure!(ran.status == 3 && reply["version"] == 1 && reply["service"] == "job", "{ran:?}");
    ensure!(exit["how"] == "exited" && exit["status"] == 3 && reply["state"] == "failed", "{reply:#}");

    // motherd dies while one waits, twice; and what ended while there was none is known to the next.
    let shared = scratch.path("shared");
    fs::create_dir_all(&shared)?;
    let go = shared.join("go");
    let script = format!("until test -e {}; do sleep 0.05; done; exit 5", go.display());
    let mut waits = Command::new(&Programs::built()?.motherctl)
        .arg("--root")
        .arg(scratch.path(""))
        .args(["run", "--service", "long", "--wait", "--policy", "open", "--", "/bin/sh", "-c", &script])
        .stdout(Stdio::piped())
        .spawn()?;
    scratch.running("long")?;
    scratch.kill_motherd()?;
    scratch.kill_motherd()?;
    fs::write(&go, "")?;
    scratch.kill_motherd()?;
    let status = waits.wait()?;
    ensure!(status.code() == Some(5), "{status}");
    is_gone(&scratch, "long")?;

    // Who stops waiting leaves it running; how it ended is known until somebody stops it.
    fs::remove_file(&go)?;
    let mut leaves = Command::new(&Programs::built()?.motherctl)
        .arg("--root")
        .arg(scratch.path(""))
        .args(["run", "--service", "long", "--wait", "--policy", "open", "--", "/bin/sh", "-c", &script])
        .stdout(Stdio::null())
        .spawn()?;
    scratch.running("long")?;
    leaves.kill()?;
    leaves.wait()?;
    fs::write(&go, "")?;
    let status = scratch.eventually("it has ended", |scratch| {
        let status = scratch.status("long")?;
        Ok((status["state"] == "failed").then_some(status))
    })?;
    ensure!(status["last_exit"]["status"] == 5, "{status:#}");
    ensure!(scratch.motherctl(&["stop", "long"])?.status == 0);
    is_gone(&scratch, "long")?;
    scratch.stop()?;
    Ok(())
}

#[test]
fn what_cannot_be_a_service_is_refused_with_the_reason_and_nothing_is_left() -> Result<()> {
    let Some(mut scratch) = started("what_cannot_be_a_service")? else { return Ok(()) };
    ensure!(run(&scratch, "job", &[], &["/bin/sleep", "1000"])?.status == 0);
    let root = scratch.path("").display().to_string();
    let root = root.trim_end_matches('/');
    let golden =
        |name: &str, options: &[&str], command: &[&str], status: i32, expected: &str| -> Result<()> {
            let ran = run(&scratch, name, options, command)?;
            let errors = ran.errors.replace(root, "ROOT");
            ensure!(
                ran.status == status && errors == expected,
                "{name} {options:?} {command:?}: {}\n{errors}",
                ran.status
            );
            Ok(())
        };
    let sleep = ["/bin/sleep", "1000"];
    golden(
        "job",
        &[],
        &sleep,
        1,
        "motherctl: job: there is a service of this name, from ROOT/run/motherd/services/job.toml: stop it first, or choose another name\n",
    )?;
    golden(
        "file",
        &[],
        &sleep,
        1,
        "motherctl: file: there is a service of this name, from ROOT/etc/motherd/services/file.toml\n",
    )?;
    golden(
        "worker@x",
        &[],
        &sleep,
        1,
        "motherctl: worker@x: it would be an instance of worker@: `motherctl start worker@x` starts that\n",
    )?;
    golden("broken", &[], &sleep, 1, "motherctl: broken: there is a file of this name, which has errors\n")?;
    golden(
        "../x",
        &[],
        &sleep,
        2,
        "motherctl: invalid parameter: service: `../x` is not the name of a service: a name begins with a letter or a digit\n",
    )?;
    golden(
        "new",
        &["--policy", "./x.toml"],
        &sleep,
        2,
        "motherctl: ./x.toml: motherd finds policies by their names\ngive it a name: put it in /etc/motherd/policies\n",
    )?;
    golden(
        "new",
        &[],
        &["no-such-command"],
        127,
        "motherctl: no-such-command: there is no such command in /usr/sbin:/usr/bin:/sbin:/bin\n",
    )?;
    for (options, words) in [
        (["--policy", "base/defualt"], "did you mean `base/default`?"),
        (["--env", "LD_PRELOAD=/tmp/x.so"], "`LD_PRELOAD` decides which code is run"),
        (["--env", "NOTIFY_SOCKET=/x"], "`NOTIFY_SOCKET` is what motherd tells the service"),
        (["--env", "1=2"], "`1` is not the name of a variable"),
        (["--slice", "a/b"], "`a/b` is not the name of a slice"),
    ] {
        let ran = run(&scratch, "new", &options, &sleep)?;
        ensure!(ran.status == 1 && ran.errors.contains(words), "{options:?}: {words:?} is not in {ran:?}");
    }
    is_gone(&scratch, "new")?;
    // A user who is not root may not, whatever else the socket lets it do. The control: root may, above.
    fs::set_permissions(scratch.path("run/motherd/motherd.sock"), fs::Permissions::from_mode(0o666))?;
    let nobody = Command::new("/usr/bin/setpriv")
        .args(["--reuid", "54321", "--regid", "54321", "--clear-groups", "--"])
        .arg(&Programs::built()?.motherctl)
        .arg("--socket")
        .arg(scratch.path("run/motherd/motherd.sock"))
        .args(["run", "--service", "new", "--", "/bin/sleep", "1000"])
        .output()?;
    let errors = String::from_utf8_lossy(&nobody.stderr);
    ensure!(nobody.status.code() == Some(5) && errors.contains("Run is for root"), "{errors}");
    is_gone(&scratch, "new")?;
    scratch.stop()?;
    Ok(())
}

#[test]
fn many_of_them_leave_nothing_behind() -> Result<()> {
    const COUNT: usize = 100;
    let Some(mut scratch) = started("many_of_them")? else { return Ok(()) };
    scratch.policy("open", "unconfined = true\n")?;
    for number in 0..COUNT {
        let ran = run(&scratch, &format!("job-{number}"), &["--policy", "open"], &["/bin/true"])?;
        ensure!(ran.status == 0, "{ran:?}");
    }
    is_gone(&scratch, &format!("job-{}", COUNT - 1))?;
    let listed = scratch.motherctl(&["list"])?.out;
    ensure!(!listed.contains("job-"), "{listed}");
    let left = |folder: &str| -> Result<usize> { Ok(fs::read_dir(scratch.path(folder))?.count()) };
    ensure!(left("run/motherd/services")? == 0 && left("run/motherd/transient")? == 0);
    scratch.kill_motherd()?;
    ensure!(!scratch.motherctl(&["list"])?.out.contains("job-"), "nor does the next motherd know one");
    scratch.stop()?;
    Ok(())
}
