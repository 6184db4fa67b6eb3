//! Sockets that listen before their service runs, and timers, over the death of motherd; and what a service sees of its
//! sockets, compared with what it sees under `systemd-socket-activate`.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use e2e::clients::Clients;
use e2e::programs::Programs;
use e2e::say;
use e2e::scratch::{Scratch, skip};
use serde_json::Value;

fn shell(script: &str) -> String {
    format!(
        "exec = [\"/bin/sh\", \"-c\", '''{script}''']\npolicy = \"unconfined\"\n[restart]\nwhen = \"never\"\n"
    )
}

fn state(scratch: &Scratch, service: &str) -> Result<Value> {
    Ok(scratch.status(service)?["state"].clone())
}

#[test]
fn a_connection_starts_a_lazy_service_and_none_is_ever_refused() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_connection_starts_a_lazy_service")? else { return Ok(()) };
    let tell = "echo fds $LISTEN_FDS names $LISTEN_FDNAMES; [ $LISTEN_PID = $$ ] && echo mine; \
                for fd in 3 4 5; do [ -S /proc/self/fd/$fd ] && echo socket $fd; done; exec sleep 1000";
    let sockets = "[[socket]]\nname = \"main\"\nlisten = \"unix:/run/lazy.sock\"\nlazy = true\n\
                   [[socket]]\nname = \"log\"\nlisten = \"unix-dgram:/run/lazy.dgram\"\n";
    scratch.service("lazy", &format!("{}{sockets}", shell(tell)))?;
    scratch.start()?;
    scratch.answers()?;
    let path = scratch.path("run/lazy.sock");
    let connect = || UnixStream::connect(&path);
    ensure!(state(&scratch, "lazy")? == "stopped", "nobody has connected");
    scratch.kill_motherd()?;
    ensure!(state(&scratch, "lazy")? == "stopped");

    let mut kept = vec![connect()?];
    let first = scratch.running("lazy")?;
    let output = scratch.eventually("it has told", |scratch| {
        let out = scratch.motherctl(&["logs", "lazy"])?.out;
        Ok(out.contains("socket 4").then_some(out))
    })?;
    for expected in [" fds 2 names main:log\n", " mine\n", " socket 3\n", " socket 4\n"] {
        ensure!(output.contains(expected), "{expected:?} is not in {output}");
    }
    ensure!(!output.contains("socket 5"), "{output}");
    scratch.kill_motherd()?;
    kept.push(connect()?);
    ensure!(scratch.running("lazy")? == first, "it runs on");
    ensure!(scratch.motherctl(&["restart", "lazy"])?.status == 0);
    kept.push(connect()?);
    let why = scratch.motherctl(&["events", "lazy"])?.out;
    ensure!(why.contains("a connection to unix:/run/lazy.sock"), "{why}");

    // A stop keeps the lazy socket: what waits starts it again.
    ensure!(scratch.motherctl(&["stop", "lazy"])?.status == 0);
    kept.push(connect()?);
    scratch.running("lazy")?;
    Ok(())
}

#[test]
fn a_port_that_is_taken_is_told_with_its_place_and_freed_after_a_stop() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_port_that_is_taken")? else { return Ok(()) };
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let at = taken.local_addr()?;
    let text = format!("{}[[socket]]\nlisten = \"tcp:{at}\"\n", shell("exec sleep 1000"));
    scratch.service("web", &text)?;
    scratch.start()?;
    scratch.answers()?;
    let ran = scratch.motherctl(&["start", "web"])?;
    let expected = format!("web.toml:6:10: listen on tcp:{at}: ");
    ensure!(ran.status == 1 && ran.errors.contains(&expected), "{expected} is not in {ran:?}");
    drop(taken);
    ensure!(scratch.motherctl(&["start", "web"])?.status == 0);
    ensure!(std::net::TcpStream::connect(at).is_ok(), "it listens");
    ensure!(scratch.status("web")?["sockets"][0]["listening"] == true);
    ensure!(scratch.motherctl(&["stop", "web"])?.status == 0);
    // initldr lets go of it a moment after the answer.
    scratch.eventually("nobody listens for a service that is down", |_| {
        Ok(std::net::TcpStream::connect(at).is_err().then_some(()))
    })
}

#[test]
fn a_timer_starts_its_service_again_and_again_also_under_another_motherd() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_timer_starts_its_service")? else { return Ok(()) };
    let oneshot = "[start]\ntype = \"oneshot\"\n";
    scratch.service("tick", &format!("{}{oneshot}[[timer]]\nevery = \"1s\"\n", shell("echo tick")))?;
    scratch
        .service("second", &format!("{}{oneshot}[[timer]]\ncalendar = \"*:*:*\"\n", shell("echo second")))?;
    scratch.start()?;
    scratch.answers()?;
    let ticks = |scratch: &Scratch, service: &str| -> Result<usize> {
        Ok(scratch.motherctl(&["logs", service]).map(|ran| ran.out.lines().count()).unwrap_or(0))
    };
    for service in ["tick", "second"] {
        scratch.eventually("it ran twice", |scratch| Ok((ticks(scratch, service)? >= 2).then_some(())))?;
    }
    scratch.kill_motherd()?;
    let before = ticks(&scratch, "tick")?;
    scratch.eventually("it runs on", |scratch| Ok((ticks(scratch, "tick")? > before + 1).then_some(())))?;
    let timers = scratch.motherctl(&["--json", "timers"])?;
    let reply: Value = serde_json::from_str(&timers.out)?;
    ensure!(reply["timers"].as_array().is_some_and(|timers| timers.len() == 2), "{reply:#}");
    ensure!(
        reply["timers"][0]["last"].is_string() && reply["timers"][0]["next_in_usec"].is_u64(),
        "{reply:#}"
    );
    ensure!(scratch.motherctl(&["events", "tick"])?.out.contains("timer: every 1s"));
    Ok(())
}

/// What differs between the two on purpose, and why (docs/services.md, "Sockets").
const ARGUED: [(&str, &str); 3] = [
    // Of a UDP port it would let any process of any user take part in it that sets it too; of a path it means nothing.
    ("udp", "SO_REUSEADDR"),
    ("unix", "SO_REUSEADDR"),
    // 0644 is what the tool of systemd has; its socket units, as motherd, have 0666.
    ("unix", "mode"),
];

/// What each may be asked to listen on, of one kind: systemd's tool knows one kind at a time.
fn kinds(scratch: &Scratch) -> Result<Vec<(Vec<&'static str>, Vec<String>)>> {
    let port = |host: &str, kind: &str| -> Result<String> {
        Ok(match kind {
            "udp" => format!("{kind}:{}", std::net::UdpSocket::bind((host, 0))?.local_addr()?),
            _ => format!("{kind}:{}", TcpListener::bind((host, 0))?.local_addr()?),
        })
    };
    let unix = |kind: &str, name: &str| format!("{kind}:{}", scratch.path(name).display());
    let mut kinds = vec![
        (vec![], vec![port("127.0.0.1", "tcp")?, unix("unix", "run/one.sock"), unix("unix", "run/two.sock")]),
        (vec!["--datagram"], vec![port("127.0.0.1", "udp")?, unix("unix-dgram", "run/datagram.sock")]),
        (vec!["--seqpacket"], vec![unix("unix-seqpacket", "run/seqpacket.sock")]),
    ];
    // A machine without IPv6 has none under either.
    match (port("::1", "tcp"), port("::1", "udp"), port("::", "tcp")) {
        (Ok(tcp), Ok(udp), Ok(any)) => {
            kinds[0].1.extend([tcp, any]);
            kinds[1].1.push(udp);
        }
        _ => skip("a_service_sees_what_it_sees_under_systemd", "no IPv6 on this machine: tcp6, udp6")?,
    }
    Ok(kinds)
}

/// Something comes, which is what systemd's tool waits for before it runs the program.
fn knock(listen: &str) -> Result<()> {
    let (kind, at) = listen.split_once(':').context("an address")?;
    match kind {
        "tcp" => drop(std::net::TcpStream::connect(at)?),
        "udp" => drop(std::net::UdpSocket::bind("127.0.0.1:0")?.send_to(b"x", at)?),
        "unix" => drop(UnixStream::connect(at)?),
        "unix-dgram" => drop(std::os::unix::net::UnixDatagram::unbound()?.send_to(b"x", at)?),
        _ => {
            use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
            let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
            connect(fd.as_raw_fd(), &UnixAddr::new(at)?)?;
        }
    }
    Ok(())
}

/// What the program sees under systemd's tool.
fn under_systemd(clients: &Clients, words: &[&str], listen: &[String], names: &str) -> Result<Value> {
    let (program, libraries) = clients.program("systemd-socket-activate")?;
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", libraries).args(words).arg(format!("--fdname={names}"));
    for one in listen {
        command.arg("--listen").arg(one.split_once(':').context("an address")?.1);
    }
    command.arg(&Programs::built()?.client).arg("descriptors");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // It says each address that it listens on, and then waits.
    let mut errors = BufReader::new(child.stderr.take().context("no stderr")?).lines();
    let mut said = String::new();
    for _ in listen {
        said.push_str(&errors.next().with_context(|| format!("it ended: {said}"))??);
    }
    knock(&listen[0])?;
    // Whoever stops reading would have it killed by SIGPIPE.
    let rest: String = errors.collect::<std::io::Result<Vec<_>>>()?.join("\n");
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}: {said}\n{rest}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What it sees as a service.
fn under_motherd(scratch: &Scratch, service: &str) -> Result<Value> {
    let started = scratch.motherctl(&["start", service])?;
    ensure!(started.status == 0, "{started:?}");
    let line = scratch.eventually("it has told", |scratch| {
        let ran = scratch.motherctl(&["--json", "logs", service])?;
        Ok(ran.out.lines().find(|line| line.contains("LISTEN_FDS")).map(str::to_owned))
    })?;
    ensure!(scratch.motherctl(&["stop", service])?.status == 0);
    let line: Value = serde_json::from_str(&line)?;
    Ok(serde_json::from_str(line["text"].as_str().context("no text")?)?)
}

#[test]
fn a_service_sees_what_it_sees_under_systemd() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_service_sees_what_it_sees_under_systemd")? else { return Ok(()) };
    let clients = Clients::new(&scratch)?;
    let program = Programs::built()?.client.display();
    scratch.start()?;
    scratch.answers()?;
    let mut compared = 0;
    for (number, (words, listen)) in kinds(&scratch)?.into_iter().enumerate() {
        let names: Vec<String> = (0..listen.len()).map(|number| format!("name-{number}")).collect();
        let systemds = under_systemd(&clients, &words, &listen, &names.join(":"))?;
        let service = format!("kind-{number}");
        let mut text = format!(
            "exec = [\"{program}\", \"descriptors\"]\npolicy = \"unconfined\"\n[start]\ntype = \"oneshot\"\n"
        );
        for (name, one) in names.iter().zip(&listen) {
            let below = scratch.path("").display().to_string();
            text += &format!(
                "[[socket]]\nname = \"{name}\"\nlisten = \"{}\"\n",
                one.replace(below.trim_end_matches('/'), "")
            );
        }
        scratch.service(&service, &text)?;
        let loaded = scratch.motherctl(&["reload-config"])?;
        ensure!(loaded.status == 0, "{loaded:?}");
        let motherds = under_motherd(&scratch, &service)?;
        for key in ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID is its own", "open beyond those and 0 to 2"] {
            ensure!(systemds[key] == motherds[key], "{key}: {} and {}", systemds[key], motherds[key]);
        }
        ensure!(
            motherds["LISTEN_PID is its own"] == true && motherds["open beyond those and 0 to 2"] == 0,
            "{motherds:#}"
        );
        for (at, one) in listen.iter().enumerate() {
            let (theirs, ours) = (&systemds["descriptors"][at], &motherds["descriptors"][at]);
            let (Some(theirs), Some(ours)) = (theirs.as_object(), ours.as_object()) else {
                bail!("{one}: {theirs} and {ours}");
            };
            ensure!(theirs.len() > 10 && theirs.keys().eq(ours.keys()), "{one}: {theirs:?} and {ours:?}");
            for (key, value) in theirs {
                let argued = ARGUED.iter().any(|(kind, what)| one.starts_with(kind) && key == what);
                let same = *value == ours[key];
                ensure!(same != argued, "{one}: {key} is {value} under systemd, {} under motherd", ours[key]);
                compared += usize::from(same);
            }
        }
    }
    say(&format!(
        "{compared} properties of descriptors are the same, {} kinds of difference are argued",
        ARGUED.len()
    ));
    Ok(())
}

#[test]
fn a_socket_is_in_the_mode_that_its_file_asks_for_at_each_start() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_socket_is_in_the_mode_that_its_file_asks_for")? else {
        return Ok(());
    };
    let program = Programs::built()?.client.display();
    // Lazy: the open files stay, and with them whatever was done to them.
    let mut text = format!(
        "exec = [\"{program}\", \"descriptors\", \"flip\"]\npolicy = \"unconfined\"\n[start]\ntype = \"oneshot\"\n"
    );
    for (name, more) in [("plain", ""), ("quick", "nonblocking = true\n")] {
        text += &format!("[[socket]]\nlisten = \"unix:/run/{name}.sock\"\nlazy = true\n{more}");
    }
    scratch.service("flips", &text)?;
    scratch.start()?;
    scratch.answers()?;
    for run in 1..=3 {
        let started = scratch.motherctl(&["start", "flips"])?;
        ensure!(started.status == 0, "{started:?}");
        let told = scratch.eventually("it has told", |scratch| {
            let ran = scratch.motherctl(&["--json", "logs", "flips"])?;
            let mut told = ran.out.lines().filter(|line| line.contains("LISTEN_FDS"));
            Ok(told.nth(run - 1).map(str::to_owned))
        })?;
        let told: Value = serde_json::from_str(&told)?;
        let told: Value = serde_json::from_str(told["text"].as_str().context("no text")?)?;
        let modes: Vec<_> = [0, 1].map(|at| told["descriptors"][at]["O_NONBLOCK"].as_bool()).into();
        ensure!(modes == [Some(false), Some(true)], "run {run}: {told:#}");
        ensure!(scratch.motherctl(&["stop", "flips"])?.status == 0);
    }
    Ok(())
}
