//! Real daemons under the policies that ship, with the service files of `docs/daemons.md`: each starts, answers, is confined
//! as attested, comes back after a crash, and stops in its time.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::daemons::{Debian, answers, image, in_network_of, question, services};
use e2e::initramfs::SharedImage;
use e2e::machine::Machine;
use e2e::scratch::Scratch;
use e2e::system::{START, figures_are_real, running, status};
use e2e::{on_both_kernels, say};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// What is expected of each.
struct Daemon {
    service: &'static str,
    uid: u64,
    capabilities: &'static [&'static str],
    /// It says when it is ready: then it answers at once.
    says_when: bool,
    /// Namespaces that it shares with the machine.
    shared: &'static [&'static str],
}

static DAEMONS: [Daemon; 5] = [
    Daemon { service: "redis", uid: 101, capabilities: &[], says_when: true, shared: &["net", "user"] },
    Daemon {
        service: "nginx",
        uid: 33,
        capabilities: &["CAP_NET_BIND_SERVICE"],
        says_when: false,
        shared: &["net", "user"],
    },
    Daemon { service: "web", uid: 33, capabilities: &[], says_when: false, shared: &["user"] },
    Daemon { service: "postgresql", uid: 102, capabilities: &[], says_when: true, shared: &["net", "user"] },
    Daemon { service: "memcached", uid: 103, capabilities: &[], says_when: false, shared: &["net", "user"] },
];

#[test]
fn every_service_file_of_the_page_is_tested() -> Result<()> {
    let written: Vec<String> = services()?.into_iter().map(|(name, _)| name).collect();
    let tested = DAEMONS.each_ref().map(|daemon| daemon.service.to_owned());
    ensure!(written == tested, "docs/daemons.md has {written:?}, tested are {tested:?}");
    Ok(())
}

/// The daemons of the page on this host, in a root and a network of their own.
struct Host {
    scratch: Scratch,
    debian: Debian,
}

impl Host {
    fn new(test: &str) -> Result<Option<Self>> {
        let Some(mut scratch) = Scratch::new(test)? else { return Ok(None) };
        let debian = Debian::new(&scratch)?;
        debian.start(&mut scratch)?;
        scratch.answers()?;
        Ok(Some(Self { scratch, debian }))
    }

    fn ask(&self, service: &str) -> Result<()> {
        if service == "postgresql" {
            ensure!(self.debian.sql("select 6 * 7")? == "42");
            return Ok(());
        }
        in_network_of(self.scratch.init()?, || answers(service))
    }

    /// It runs and answers; returns its main process.
    fn serves(&self, daemon: &Daemon) -> Result<u64> {
        let pid = self.scratch.running(daemon.service)?;
        if daemon.says_when {
            self.ask(daemon.service)?;
            return Ok(pid);
        }
        let mut last = None;
        let came = self.scratch.eventually(&format!("{} answers", daemon.service), |_| {
            last = self.ask(daemon.service).err();
            Ok(last.is_none().then_some(()))
        });
        came.with_context(|| format!("the last answer: {last:?}"))?;
        Ok(pid)
    }

    fn run(&self, words: &[&str]) -> Result<()> {
        let ran = self.scratch.motherctl(words)?;
        let log = || self.scratch.motherctl(&["logs", words[1]]).map(|ran| ran.out).unwrap_or_default();
        ensure!(ran.status == 0, "{words:?}: {ran:?}\n{}\n{}", self.scratch.log()?, log());
        Ok(())
    }
}

/// What the kernel says of its main process.
fn is_confined(status: &Value, daemon: &Daemon) -> Result<()> {
    let attested = &status["isolation"]["attested"]["value"];
    let say = |what: &str| format!("{what} of {}: {status:#}", daemon.service);
    ensure!(attested["no_new_privs"] == true && attested["seccomp_mode"] == "filter", say("filters"));
    ensure!(attested["uids"][0] == daemon.uid && attested["groups"] == Value::Array(vec![]), say("user"));
    ensure!(attested["mounts"]["value"]["root_read_only"] == true, say("root"));
    for set in ["permitted", "effective", "bounding", "ambient"] {
        let names: Vec<&str> = attested["capabilities"][set]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        ensure!(names == daemon.capabilities, say(set));
    }
    for namespace in attested["namespaces"].as_array().context("no namespaces")? {
        let kind = namespace["kind"].as_str().unwrap_or_default();
        // Nobody asks for a time namespace of its own.
        let shared = daemon.shared.contains(&kind) || kind.starts_with("time");
        ensure!(namespace["private"] != shared, say(kind));
    }
    Ok(())
}

/// Memory that can be written and executed at once: nowhere, in no process of its cgroup.
fn writes_no_code(status: &Value) -> Result<()> {
    let cgroup = status["cgroup"].as_str().context("no cgroup")?;
    let mut processes = 0;
    for pid in fs::read_to_string(format!("{cgroup}/cgroup.procs"))?.lines() {
        let Ok(maps) = fs::read_to_string(format!("/proc/{pid}/maps")) else { continue };
        ensure!(!maps.lines().any(|line| line.contains(" rwx")), "{}: {pid}:\n{maps}", status["name"]);
        processes += 1;
    }
    ensure!(processes > 0, "no process was looked at");
    Ok(())
}

#[test]
fn each_daemon_starts_answers_comes_back_and_stops_confined() -> Result<()> {
    let Some(host) = Host::new("each_daemon_starts_answers")? else { return Ok(()) };
    let mut lines = Vec::new();
    for daemon in &DAEMONS {
        let service = daemon.service;
        let began = Instant::now();
        host.run(&["start", service])?;
        let first = host.serves(daemon)?;
        let started = began.elapsed();
        let status = host.scratch.status(service)?;
        is_confined(&status, daemon)?;
        writes_no_code(&status)?;
        if service == "postgresql" {
            host.debian.sql("create table kept (what text); insert into kept values ('treasure')")?;
        }
        kill(Pid::from_raw(i32::try_from(first)?), Signal::SIGKILL)?;
        host.scratch.eventually(&format!("{service} comes back"), |scratch| {
            Ok(Some(scratch.running(service)?).filter(|pid| *pid != first))
        })?;
        host.serves(daemon)?;
        if service == "postgresql" {
            ensure!(host.debian.sql("select what from kept")? == "treasure", "a commit outlives a crash");
        }
        let status = host.scratch.status(service)?;
        ensure!(status["restarts"] == 1 && status["last_exit"]["how"] == "killed", "{status:#}");
        let began = Instant::now();
        host.run(&["stop", service])?;
        let stopped = began.elapsed();
        let status = host.scratch.status(service)?;
        // It ended by itself: nobody had to kill it when its time was over.
        ensure!(status["last_exit"]["how"] == "exited" && status["last_exit"]["status"] == 0, "{status:#}");
        ensure!(host.ask(service).is_err(), "{service} answers although it is stopped");
        host.run(&["start", service])?;
        host.serves(daemon)?;
        // The two nginx have one port.
        host.run(&["stop", service])?;
        lines.push(format!("{service}: answers after {started:.1?}, stopped in {stopped:.1?}"));
    }
    say(&lines.join("; "));
    Ok(())
}

/// What came of connections that were made one after the other.
#[derive(Debug, Default)]
struct Tally {
    answered: u32,
    refused: u32,
    /// Taken, and ended without an answer.
    broken: u32,
}

/// Connects again and again from before `act` until after it.
fn while_connecting(host: &Host, service: &str, act: impl FnOnce() -> Result<()>) -> Result<Tally> {
    let (init, over) = (host.scratch.init()?, AtomicBool::new(false));
    let connect = || {
        let mut tally = Tally::default();
        while !over.load(Ordering::Relaxed) {
            match answers(service) {
                Ok(()) => tally.answered += 1,
                Err(error) if is_refusal(&error) => tally.refused += 1,
                Err(_) => tally.broken += 1,
            }
        }
        Ok(tally)
    };
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| in_network_of(init, connect));
        let done = act();
        over.store(true, Ordering::Relaxed);
        let tally = connecting.join().map_err(|_| anyhow::anyhow!("a panic"))?;
        done.and(tally)
    })
}

fn daemon(service: &str) -> Result<&'static Daemon> {
    DAEMONS.iter().find(|daemon| daemon.service == service).context("one of them")
}

fn is_refusal(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

#[test]
fn a_handed_socket_refuses_no_connection_while_its_daemon_restarts_or_crashes() -> Result<()> {
    let Some(host) = Host::new("a_handed_socket_refuses_no_connection")? else { return Ok(()) };
    let restarts = |service: &'static str| {
        let host = &host;
        move || {
            (0..5).try_for_each(|_| {
                host.run(&["restart", service])?;
                host.serves(daemon(service)?).map(drop)
            })
        }
    };
    host.run(&["start", "web"])?;
    let restarted = while_connecting(&host, "web", restarts("web"))?;
    let crashed = while_connecting(&host, "web", || {
        for _ in 0..3 {
            let pid = host.scratch.running("web")?;
            kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
            host.scratch.eventually("it comes back", |scratch| {
                Ok(Some(scratch.running("web")?).filter(|next| *next != pid))
            })?;
            host.serves(daemon("web")?)?;
        }
        Ok(())
    })?;
    host.run(&["stop", "web"])?;
    host.run(&["start", "nginx"])?;
    let control = while_connecting(&host, "nginx", restarts("nginx"))?;
    say(&format!(
        "5 restarts: {restarted:?}; 3 crashes: {crashed:?}; 5 restarts of one that binds itself: {control:?}"
    ));
    ensure!(restarted.answered > 0 && restarted.refused == 0 && restarted.broken == 0, "{restarted:?}");
    ensure!(crashed.answered > 0 && crashed.refused == 0, "{crashed:?}");
    ensure!(control.refused > 0, "control: {control:?}");
    Ok(())
}

static IMAGE: SharedImage = SharedImage::new("daemons", image);

on_both_kernels! {
    IMAGE:
    each_daemon_of_the_page_serves_within_its_limits
}

fn each_daemon_of_the_page_serves_within_its_limits(machine: &mut Machine) -> Result<()> {
    const LONG: Duration = Duration::from_secs(300);
    let mut lines = Vec::new();
    for daemon in &DAEMONS {
        let service = daemon.service;
        let began = Instant::now();
        // Making a cluster takes long where the processor is emulated: longer than one command may.
        machine.ok(&format!("motherctl start {service} >/tmp/start 2>&1 &"))?;
        let first = machine.eventually(&format!("{service} runs"), LONG, |machine| {
            let status = status(machine, service)?;
            ensure!(status["state"] != "failed", "{status:#}\n{}", machine.run("cat /tmp/start")?.output);
            Ok((status["state"] == "running").then(|| status["main_pid"].as_u64()).flatten())
        })?;
        lines.push(format!("{service} in {:.1?}", began.elapsed()));
        guest_answers(machine, daemon)?;
        let attested = status(machine, service)?;
        is_confined(&attested, daemon)?;
        figures_are_real(&attested)?;
        machine.ok(&format!("kill -KILL {first}"))?;
        machine.eventually(&format!("{service} comes back"), LONG, |machine| {
            Ok(Some(running(machine, service)?).filter(|pid| *pid != first))
        })?;
        guest_answers(machine, daemon)?;
        machine.ok(&format!("motherctl stop {service}"))?;
        let stopped = status(machine, service)?;
        ensure!(
            stopped["last_exit"]["how"] == "exited" && stopped["last_exit"]["status"] == 0,
            "{stopped:#}"
        );
    }
    say(&format!("Linux {}: ready: {}", machine.kernel().version(), lines.join(", ")));
    Ok(())
}

/// Asked in the guest: one that says when it is ready answers at once, another a little later.
fn guest_answers(machine: &mut Machine, daemon: &Daemon) -> Result<()> {
    let (question, expected) = question(daemon.service);
    let mut last = None;
    let came = machine.eventually(&format!("{} answers", daemon.service), START, |machine| {
        let answer = machine.run(question)?;
        let good = answer.status == 0 && answer.output.contains(expected);
        ensure!(good || !daemon.says_when, "it said that it was ready: {answer:?}");
        last = Some(answer);
        Ok(good.then_some(()))
    });
    came.with_context(|| format!("the last answer: {last:?}"))
}
