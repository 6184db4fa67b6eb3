//! What services say of themselves, with the clients that they really have: `systemd-notify`, a socket of Python's, and a
//! shell's own words; and one that means no good. On this very host, as ordinary processes.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::scratch::{Scratch, skip};

const SYSTEMD_NOTIFY: &str = "/usr/bin/systemd-notify";
const PYTHON: &str = "/usr/bin/python3";

/// The clients of this machine: what says `READY=1`, and what says anything at all.
fn clients(test: &str) -> Result<Vec<(&'static str, String)>> {
    let mut clients = Vec::new();
    if Path::new(SYSTEMD_NOTIFY).exists() {
        clients.push(("systemd", format!("{SYSTEMD_NOTIFY} \"$@\"")));
    } else {
        skip(test, "no systemd-notify on this machine")?;
    }
    if Path::new(PYTHON).exists() {
        // As the package sdnotify does it: one datagram, lines joined.
        let send = "import os,socket,sys;s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM);\
                    s.connect(os.environ['NOTIFY_SOCKET']);s.sendall('\\n'.join(sys.argv[1:]).encode())";
        clients.push(("python", format!("{PYTHON} -c \"{send}\" \"$@\"")));
    } else {
        skip(test, "no python3 on this machine")?;
    }
    ensure!(!clients.is_empty(), "no client at all");
    Ok(clients)
}

/// A service file whose program is this script; `say` in it is the client.
fn service(client: &str, script: &str, sections: &str) -> String {
    let script = format!("say() {{ {client}; }}\n{script}\nexec sleep 1000\n");
    format!(
        "exec = [\"/bin/sh\", \"-c\", '''\n{script}''']\n[start]\ntype = \"notify\"\ntimeout = \"10s\"\n\
         [stop]\nsignal = \"SIGKILL\"\n{sections}"
    )
}

fn says(scratch: &Scratch, service: &str) -> Result<String> {
    Ok(scratch.status(service)?["says"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn real_clients_say_everything_that_the_protocol_has() -> Result<()> {
    let test = "real_clients_say_everything";
    let Some(mut scratch) = Scratch::new(test)? else { return Ok(()) };
    let clients = clients(test)?;
    for (name, client) in &clients {
        let all =
            "say EXTEND_TIMEOUT_USEC=9000000 'STATUS=warming up'\nsay READY=1 STATUS=serving X_OWN=1 ERRNO=2";
        scratch.service(&format!("all-{name}"), &service(client, all, ""))?;
        let reload = "say READY=1\nsay RELOADING=1 MONOTONIC_USEC=1 STATUS=reading";
        scratch.service(&format!("reload-{name}"), &service(client, reload, ""))?;
        // The main process is the one that it names, and the one that named it may go.
        let main = "sleep 1000 & say MAINPID=$! READY=1; exec sleep 1000";
        scratch.service(&format!("main-{name}"), &service(client, main, ""))?;
        let late = "say WATCHDOG=1 STATUS=alive";
        scratch.service(&format!("late-{name}"), &service(client, late, "").replace("10s", "500ms"))?;
    }
    scratch.start()?;
    scratch.eventually("motherd answers", |scratch| {
        Ok(scratch.motherctl(&["list"])?.status.eq(&0).then_some(()))
    })?;
    for (name, _) in &clients {
        let up = |service: &str| -> Result<()> {
            let started = scratch.motherctl(&["start", service])?;
            ensure!(started.status == 0, "{started:?}\n{}", scratch.log()?);
            Ok(())
        };
        let all = format!("all-{name}");
        up(&all)?;
        ensure!(says(&scratch, &all)? == "serving; error ENOENT", "{}", says(&scratch, &all)?);
        let reload = format!("reload-{name}");
        up(&reload)?;
        scratch.eventually("it says that it is reloading", |scratch| {
            Ok((scratch.status(&reload)?["state"] == "reloading").then_some(()))
        })?;
        let main = format!("main-{name}");
        up(&main)?;
        let pid = scratch.status(&main)?["main_pid"].as_u64().context("a main process")?;
        let parent = fs::read_to_string(format!("/proc/{pid}/status"))?;
        ensure!(parent.contains("NSpid"), "{parent}");
        let seen: Vec<&str> = parent
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:"))
            .context("NSpid")?
            .split_whitespace()
            .collect();
        ensure!(seen.last() != Some(&"1"), "the main process is the one that was named: {seen:?}");
        // The control: who never says READY=1 is not up, whatever else it says.
        let late = scratch.motherctl(&["start", &format!("late-{name}")])?;
        ensure!(late.status == 1 && late.errors.contains("not started after 0.5 s"), "{late:?}");
    }
    scratch.stop()?;
    Ok(())
}

#[test]
fn a_watchdog_that_hears_nothing_ends_the_service_and_one_that_is_fed_does_not() -> Result<()> {
    let test = "a_watchdog_that_hears_nothing";
    let Some(mut scratch) = Scratch::new(test)? else { return Ok(()) };
    let (_, client) = clients(test)?.remove(0);
    let watchdog = "[watchdog]\ninterval = \"400ms\"\n[restart]\nwhen = \"never\"\n";
    let told = "test \"$WATCHDOG_USEC $WATCHDOG_PID\" = \"400000 $$\" || exit 9\nsay READY=1";
    scratch.service("silent", &service(&client, told, watchdog))?;
    let feed = format!("{told}\nwhile say WATCHDOG=1; do sleep 0.1; done");
    scratch.service("fed", &service(&client, &feed, watchdog))?;
    scratch.service("asks", &service(&client, &format!("{told}\nsay WATCHDOG=trigger"), watchdog))?;
    scratch.start()?;
    scratch.eventually("motherd answers", |scratch| {
        Ok(scratch.motherctl(&["list"])?.status.eq(&0).then_some(()))
    })?;
    for service in ["fed", "silent", "asks"] {
        let started = scratch.motherctl(&["start", service])?;
        ensure!(started.status == 0, "{started:?}");
    }
    let ended = |service: &str, words: &str| {
        scratch.eventually(&format!("{service} is ended"), |scratch| {
            let status = scratch.status(service)?;
            let cause = status["cause"]["words"].as_str().unwrap_or_default().to_owned();
            Ok((status["state"] == "failed" && cause.contains(words)).then_some(()))
        })
    };
    ended("silent", "watchdog: silent for 0.4 s")?;
    ended("asks", "it asked its watchdog to end it")?;
    let fed = scratch.status("fed")?;
    ensure!(fed["state"] == "running" && fed["restarts"] == 0, "{fed}");
    scratch.stop()?;
    Ok(())
}

#[test]
fn who_floods_stalls_or_lies_disturbs_nobody() -> Result<()> {
    let test = "who_floods_stalls_or_lies";
    let Some(mut scratch) = Scratch::new(test)? else { return Ok(()) };
    if !Path::new(PYTHON).exists() {
        return skip(test, "no python3 on this machine");
    }
    let (_, client) = clients(test)?.remove(0);
    // As fast as it can: garbage, descriptors that nobody asked for, and barriers whose other end it never looks at.
    let flood = "import os,socket,array\n\
        s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\n\
        s.connect(os.environ['NOTIFY_SOCKET'])\n\
        n=array.array('i',[os.open('/dev/null',os.O_RDONLY)]*200)\n\
        s.sendall(b'READY=1')\n\
        while True:\n\
        \\x20for m in (b'\\0'*4000,b'MAINPID=1\\nFDSTORE=1',b'BARRIER=1',b'NOTIFYACCESS=x\\n'*99):\n\
        \\x20 try:\n\
        \\x20  s.sendmsg([m],[(socket.SOL_SOCKET,socket.SCM_RIGHTS,n)])\n\
        \\x20 except OSError:\n\
        \\x20  pass\n"
        .replace("\\x20", " ");
    let text = format!(
        "exec = [\"{PYTHON}\", \"-c\", '''\n{flood}''']\n[start]\ntype = \"notify\"\n[notify]\nfd_store_max = 3\n\
         [stop]\nsignal = \"SIGKILL\"\n"
    );
    scratch.service("flood", &text)?;
    scratch.service("other", &service(&client, "sleep 0.2; say READY=1", ""))?;
    // Another service's socket is one that it may write to, and is not heard on.
    let path = scratch.path("run/motherd/notify/other");
    scratch.start()?;
    scratch.running_by_request("flood")?;
    let began = Instant::now();
    let asked = scratch.motherctl(&["start", "other"])?;
    ensure!(asked.status == 0, "{asked:?}");
    ensure!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    let liar = std::os::unix::net::UnixDatagram::unbound()?;
    liar.send_to(b"STATUS=hacked\nMAINPID=1\nREADY=1", &path)?;
    scratch.eventually("who is no process of it is said not to be heard", |scratch| {
        Ok(scratch.log()?.contains("which is not in its cgroup: not heard").then_some(()))
    })?;
    ensure!(says(&scratch, "other")?.is_empty(), "{}", says(&scratch, "other")?);
    // A message with 200 descriptors has them open until it is dealt with; what leaks stays open, and soon by the thousand.
    let fds = format!("/proc/{}/fd", scratch.motherd()?);
    scratch.eventually("the descriptors that nobody asked for are closed", |_| {
        Ok((fs::read_dir(&fds)?.count() < 100).then_some(()))
    })?;
    ensure!(scratch.status("flood")?["state"] == "running");
    scratch.stop()?;
    Ok(())
}

#[test]
fn descriptors_that_are_given_away_come_back_over_a_restart_and_the_death_of_motherd() -> Result<()> {
    let test = "descriptors_that_are_given_away";
    let Some(mut scratch) = Scratch::new(test)? else { return Ok(()) };
    if !Path::new(PYTHON).exists() {
        return skip(test, "no python3 on this machine");
    }
    // A pipe with a word in it: whoever holds its reading end next can read it.
    let script = "import os,socket,array,time\n\
        s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\n\
        s.connect(os.environ['NOTIFY_SOCKET'])\n\
        n=os.environ.get('LISTEN_FDS')\n\
        print('got',n,os.environ.get('LISTEN_FDNAMES'),os.environ.get('LISTEN_PID')==str(os.getpid()) if n else '',flush=True)\n\
        if n:\n\
        \\x20print('read',os.read(3,99).decode(),flush=True)\n\
        else:\n\
        \\x20def send(m,f):\n\
        \\x20 s.sendmsg([m],[(socket.SOL_SOCKET,socket.SCM_RIGHTS,array.array('i',f))])\n\
        \\x20r,w=os.pipe()\n\
        \\x20os.write(w,b'treasure')\n\
        \\x20w2=os.dup(w)\n\
        \\x20k=socket.socketpair()\n\
        \\x20send(b'FDSTORE=1\\nFDNAME=chest\\nFDPOLL=0',[r])\n\
        \\x20send(b'FDSTORE=1\\nFDNAME=chest\\nFDPOLL=0',[r])\n\
        \\x20send(b'FDSTORE=1\\nFDNAME=gone',[os.open('/dev/null',0)])\n\
        \\x20send(b'FDSTORE=1\\nFDNAME=hung',[k[0].fileno()])\n\
        \\x20s.sendall(b'FDSTOREREMOVE=1\\nFDNAME=gone')\n\
        \\x20k[0].close()\n\
        \\x20k[1].close()\n\
        s.sendall(b'READY=1')\n\
        time.sleep(1000)\n"
        .replace("\\x20", " ");
    scratch.service(
        "keeper",
        &format!(
            "exec = [\"{PYTHON}\", \"-c\", '''\n{script}''']\n[start]\ntype = \"notify\"\n[notify]\nfd_store_max = 3\n\
             [stop]\nsignal = \"SIGKILL\"\n[restart]\ndelay = \"10ms\"\n"
        ),
    )?;
    scratch.start()?;
    let pid = scratch.running_by_request("keeper")?;
    let first = scratch.motherd()?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL)?;
    scratch
        .eventually("another motherd", |scratch| Ok(scratch.motherd().ok().filter(|pid| *pid != first)))?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(pid)?),
        nix::sys::signal::Signal::SIGKILL,
    )?;
    let log = scratch.path("var/log/motherd/keeper");
    let said = scratch.eventually("it got its treasure back", |_| {
        let mut text = String::new();
        for file in fs::read_dir(&log)? {
            text.push_str(&fs::read_to_string(file?.path())?);
        }
        Ok((text.matches("got").count() == 2).then_some(text))
    })?;
    ensure!(
        said.contains("got None None") && said.contains("read treasure"),
        "the control, the first run: {said}"
    );
    ensure!(said.contains("got 1 chest True"), "one of each file, none of what is gone: {said}");
    // A service that is stopped has nothing kept, unless its file says so.
    ensure!(scratch.motherctl(&["restart", "keeper"])?.status == 0);
    scratch.stop()?;
    Ok(())
}
