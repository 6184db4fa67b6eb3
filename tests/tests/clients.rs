//! The matrix of sd_notify(3): each variable, said by each of the clients that services really have; and for each the
//! control, that the same words from outside of the service change nothing. On this very host, as ordinary processes.

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result, ensure};
use e2e::clients::{Client, Clients, order, orders};
use e2e::say;
use e2e::scratch::Scratch;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket,
};
use nix::unistd::{Pid, pipe2};
use serde_json::Value;

/// One variable, and how it is seen from outside that it was heard.
struct Row {
    variable: &'static str,
    /// What the client says, words between tabs.
    words: &'static str,
    seen: fn(&Value) -> bool,
}

fn says(status: &Value, words: &str) -> bool {
    status["says"].as_str().is_some_and(|says| says.split("; ").any(|part| part == words))
}

/// In this order, each on what the one before has left.
const ROWS: [Row; 9] = [
    Row { variable: "STATUS", words: "STATUS=warming up", seen: |status| says(status, "warming up") },
    Row {
        variable: "READY",
        words: "READY=1\tSTATUS=serving\tX_OWN=1",
        seen: |status| status["state"] == "running" && says(status, "serving"),
    },
    Row { variable: "ERRNO", words: "ERRNO=2", seen: |status| says(status, "error ENOENT") },
    Row { variable: "EXIT_STATUS", words: "EXIT_STATUS=77", seen: |status| says(status, "exit status 77") },
    Row {
        variable: "RELOADING, MONOTONIC_USEC",
        words: "RELOADING=1\tMONOTONIC_USEC=4711",
        seen: |status| status["state"] == "reloading",
    },
    Row { variable: "READY after RELOADING", words: "READY=1", seen: |status| status["state"] == "running" },
    // Its shell or interpreter is the first process of its pid namespace.
    Row {
        variable: "MAINPID",
        words: "MAINPID=@child",
        seen: |status| name_of(&status["main_pid"]).is_some_and(|name| name == "sleep"),
    },
    Row {
        variable: "STOPPING",
        words: "STOPPING=1",
        seen: |status| status["sub_state"] == "stopping by itself",
    },
    Row {
        variable: "WATCHDOG=trigger",
        words: "WATCHDOG=trigger",
        seen: |status| {
            status["last_exit"]["how"] == "killed" && cause_of(status).contains("asked its watchdog")
        },
    },
];

/// Rows whose words end the run in which they are said, or what follows: each has a service of its own.
const ALONE: [&str; 2] = ["STOPPING", "WATCHDOG=trigger"];

fn name_of(pid: &Value) -> Option<String> {
    Some(std::fs::read_to_string(format!("/proc/{}/comm", pid.as_u64()?)).ok()?.trim().to_owned())
}

fn cause_of(status: &Value) -> &str {
    status["cause"]["words"].as_str().unwrap_or_default()
}

/// Says something to a service's socket from outside of it, with a descriptor, and waits until that was dealt with: who is
/// not heard has what came along closed, and everything before it in the same queue is done by then.
fn forge(scratch: &Scratch, service: &str, words: &str) -> Result<()> {
    let path = UnixAddr::new(&scratch.path(&format!("run/motherd/notify/{service}")))?;
    let forger = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let (over, end) = pipe2(OFlag::O_CLOEXEC)?;
    // The forger has no child there; its own pid is the best that it can name.
    let text = words.replace("@child", &std::process::id().to_string()).replace('\t', "\n");
    let descriptors = [end.as_raw_fd()];
    let with = [ControlMessage::ScmRights(&descriptors)];
    let parts = [std::io::IoSlice::new(text.as_bytes())];
    sendmsg(forger.as_raw_fd(), &parts, &with, MsgFlags::empty(), Some(&path))?;
    drop(end);
    let mut closed = [PollFd::new(over.as_fd(), PollFlags::POLLIN)];
    ensure!(
        poll(&mut closed, PollTimeout::from(30_000_u16))? == 1,
        "{service}: a descriptor is kept: {words}"
    );
    Ok(())
}

fn eventually(scratch: &Scratch, service: &str, what: &str, seen: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = Value::Null;
    let found = scratch.eventually(what, |scratch| {
        let Ok(status) = scratch.status(service) else { return Ok(None) };
        last = status;
        Ok(seen(&last).then(|| last.clone()))
    });
    found.with_context(|| format!("{service}: the last status: {last:#}"))
}

/// One cell: forged it does nothing, said by the client it does.
fn cell(scratch: &Scratch, service: &str, row: &Row) -> Result<()> {
    let what = format!("{service} says {}", row.variable);
    forge(scratch, service, row.words)?;
    let after = scratch.status(service)?;
    ensure!(!(row.seen)(&after), "{what}: who is not of the service was heard: {after:#}");
    order(scratch, service, row.words)?;
    eventually(scratch, service, &what, row.seen).map(drop)
}

/// What a service has written.
fn written(scratch: &Scratch, service: &str) -> Result<String> {
    Ok(std::fs::read_to_string(scratch.path(&format!("var/log/motherd/{service}/current")))
        .unwrap_or_default())
}

fn wrote(scratch: &Scratch, service: &str, words: &str) -> Result<()> {
    let found = scratch.eventually(&format!("{service} writes {words:?}"), |scratch| {
        Ok(written(scratch, service)?.contains(words).then_some(()))
    });
    found.with_context(|| written(scratch, service).unwrap_or_default())
}

#[test]
fn every_client_is_understood_in_everything_that_it_can_say_and_nobody_else_is() -> Result<()> {
    let Some(mut scratch) = Scratch::new("every_client_is_understood")? else { return Ok(()) };
    let clients = Clients::new(&scratch)?;
    let long = "EXTEND_TIMEOUT_USEC=3600000000";
    let mut wanted = vec!["late".to_owned()];
    for client in &clients.all {
        let all = format!("all-{}", client.name);
        let more = format!("[notify]\nfd_store_max = 4\n[restart]\ndelay = \"10ms\"\n{}", orders(&all));
        scratch.service(&all, &client.service(&[long], "timeout = \"10s\"", &more))?;
        wanted.push(all);
        for alone in ALONE {
            let name = own(alone, client);
            let more = format!("[restart]\nwhen = \"never\"\n{}", orders(&name));
            scratch.service(&name, &client.service(&["READY=1"], "", &more))?;
        }
    }
    // Says nothing: the control of READY and of EXTEND_TIMEOUT_USEC.
    let never = format!("[restart]\nwhen = \"never\"\n{}", orders("late"));
    scratch.service("late", &clients.all[0].service(&[], "timeout = \"10s\"", &never))?;
    scratch.service("system", &format!("[dependencies]\nwants = {wanted:?}\n"))?;
    scratch.start()?;
    eventually(&scratch, "late", "it is started", |status| status["state"] == "starting")?;
    forge(&scratch, "late", &format!("READY=1\t{long}"))?;
    for client in &clients.all {
        wrote(&scratch, &format!("all-{}", client.name), "said 0: EXTEND_TIMEOUT_USEC")?;
    }
    let late = eventually(&scratch, "late", "it was given up", |status| status["state"] == "failed")?;
    ensure!(cause_of(&late).contains("not started after 10 s"), "{late:#}");
    for client in &clients.all {
        let all = format!("all-{}", client.name);
        let now = scratch.status(&all)?;
        ensure!(now["state"] == "starting", "its time was extended: {now:#}");
        for row in &ROWS {
            let service = if ALONE.contains(&row.variable) { own(row.variable, client) } else { all.clone() };
            if service != all {
                scratch.running_by_request(&service)?;
            }
            cell(&scratch, &service, row)?;
        }
        descriptors_are_kept(&scratch, client, &all)?;
        is_heard_as_far_as_it_says_itself(&scratch, &all)?;
    }
    let log = scratch.log()?;
    ensure!(log.contains("which is not in its cgroup: not heard"), "{log}");
    for row in ROWS.iter().map(|row| row.variable).chain(["EXTEND_TIMEOUT_USEC", "NOTIFYACCESS"]) {
        table_line(row, &clients.all, |_| true);
    }
    for row in ["FDSTORE, FDNAME, FDPOLL", "FDSTOREREMOVE", "BARRIER"] {
        table_line(row, &clients.all, |client| {
            client.sends_descriptors || row == "BARRIER" && client.name == "systemd-notify"
        });
    }
    scratch.stop()?;
    Ok(())
}

/// The service in which a client says what ends it.
fn own(variable: &str, client: &Client) -> String {
    let word = variable.split('=').next_back().unwrap_or_default().to_lowercase();
    format!("{word}-{}", client.name)
}

fn table_line(variable: &str, clients: &[Client], can: impl Fn(&Client) -> bool) {
    let cells: Vec<String> = clients
        .iter()
        .map(|client| if can(client) { client.name.to_owned() } else { format!("({} cannot)", client.name) })
        .collect();
    say(&format!("heard: {variable:<26} {}", cells.join(", ")));
}

/// FDSTORE, FDNAME, FDPOLL, FDSTOREREMOVE and BARRIER; a forged descriptor comes back to nobody.
fn descriptors_are_kept(scratch: &Scratch, client: &Client, service: &str) -> Result<()> {
    forge(scratch, service, "FDSTORE=1\tFDNAME=forged")?;
    if client.sends_descriptors {
        order(scratch, service, "FDSTORE=1\tFDNAME=chest\tFDPOLL=0\t@pipe")?;
        // Whose other side has gone; and one that is taken back.
        order(scratch, service, "FDSTORE=1\tFDNAME=hung\t@pipe")?;
        order(scratch, service, "FDSTORE=1\tFDNAME=gone\t@null")?;
        order(scratch, service, "FDSTOREREMOVE=1\tFDNAME=gone")?;
        order(scratch, service, "BARRIER=1\t@barrier")?;
        wrote(scratch, service, "said 0: BARRIER=1 @barrier\n")?;
    } else {
        order(scratch, service, "STATUS=a barrier of its own")?;
        wrote(scratch, service, "said 0: STATUS=a barrier of its own\n")?;
    }
    ensure!(
        !written(scratch, service)?.contains("said 1"),
        "a message was refused: {}",
        written(scratch, service)?
    );
    let main = scratch.status(service)?["main_pid"].as_u64().context("a main process")?;
    kill(Pid::from_raw(i32::try_from(main)?), Signal::SIGKILL)?;
    eventually(scratch, service, "it is started again", |status| status["restarts"] == 1)?;
    let kept = if client.sends_descriptors { "has orders:chest\n" } else { "has orders\n" };
    scratch.eventually("it says what it got", |scratch| {
        Ok((written(scratch, service)?.matches("Z has ").count() == 2).then_some(()))
    })?;
    wrote(scratch, service, kept)?;
    if client.sends_descriptors {
        wrote(scratch, service, "found treasure\n")?;
    }
    Ok(())
}

/// NOTIFYACCESS: after it not even its own processes are heard, and a start that nobody tells of is none.
fn is_heard_as_far_as_it_says_itself(scratch: &Scratch, service: &str) -> Result<()> {
    order(scratch, service, "READY=1\tSTATUS=open")?;
    eventually(scratch, service, "control: it is heard", |status| says(status, "open"))?;
    order(scratch, service, "NOTIFYACCESS=none\tSTATUS=closing")?;
    eventually(scratch, service, "it closes its own mouth", |status| says(status, "closing"))?;
    order(scratch, service, "STATUS=unheard")?;
    wrote(scratch, service, "said 0: STATUS=unheard\n")?;
    forge(scratch, service, "STATUS=forged")?;
    ensure!(says(&scratch.status(service)?, "closing"));
    Ok(())
}

#[test]
fn a_watchdog_is_fed_and_set_by_every_client() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_watchdog_is_fed_and_set")? else { return Ok(()) };
    let clients = Clients::new(&scratch)?;
    let section =
        |interval: &str| format!("[watchdog]\ninterval = \"{interval}\"\n[restart]\nwhen = \"never\"\n");
    for client in &clients.all {
        let (fed, set) = (format!("fed-{}", client.name), format!("set-{}", client.name));
        let more = format!("{}{}", section("5s"), orders(&fed));
        scratch.service(&fed, &client.service(&["READY=1"], "", &more))?;
        let more = format!("{}{}", section("1h"), orders(&set));
        scratch.service(&set, &client.service(&["READY=1"], "", &more))?;
    }
    let more = format!("{}{}", section("5s"), orders("silent"));
    scratch.service("silent", &clients.all[3].service(&["READY=1"], "", &more))?;
    scratch.start()?;
    for client in &clients.all {
        let (fed, set) = (format!("fed-{}", client.name), format!("set-{}", client.name));
        scratch.running_by_request(&fed)?;
        order(&scratch, &fed, "@feed")?;
        scratch.running_by_request(&set)?;
        forge(&scratch, &set, "WATCHDOG_USEC=1")?;
        let status = scratch.status(&set)?;
        ensure!(status["state"] == "running", "control: nobody else sets it: {status:#}");
        order(&scratch, &set, "WATCHDOG_USEC=500000")?;
        let status = eventually(&scratch, &set, "silence ends it", |status| status["state"] == "failed")?;
        ensure!(cause_of(&status).contains("watchdog: silent for 0.5 s"), "{status:#}");
    }
    wrote(&scratch, "fed-systemd-notify", "told 5000000, 1\n")?;
    // Whoever was up before this one and feeds has outlived the interval when this one has not.
    scratch.running_by_request("silent")?;
    eventually(&scratch, "silent", "control: silence ends it", |status| {
        status["state"] == "failed" && cause_of(status).contains("watchdog: silent for 5 s")
    })?;
    for client in &clients.all {
        let fed = format!("fed-{}", client.name);
        let status = scratch.status(&fed)?;
        ensure!(status["state"] == "running" && status["restarts"] == 0, "{status:#}");
        order(&scratch, &fed, "@quiet")?;
    }
    for client in &clients.all {
        let fed = format!("fed-{}", client.name);
        eventually(&scratch, &fed, "it is fed no more", |status| {
            status["state"] == "failed" && cause_of(status).contains("watchdog: silent for 5 s")
        })?;
    }
    scratch.stop()?;
    Ok(())
}
