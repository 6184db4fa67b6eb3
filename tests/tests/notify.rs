//! Services that mean no good on their own socket and on that of others, and descriptors that outlive who gave them away.
//! What the protocol's clients say, and that it is heard, is in `clients.rs`. On this very host, as ordinary processes.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::clients::{Clients, POLICY, orders};
use e2e::scratch::Scratch;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn who_floods_stalls_or_lies_disturbs_nobody() -> Result<()> {
    let test = "who_floods_stalls_or_lies";
    let Some(mut scratch) = Scratch::new(test)? else { return Ok(()) };
    let clients = Clients::new(&scratch)?;
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
        "exec = [\"{}\", \"-c\", '''\n{flood}''']\npolicy = \"{POLICY}\"\n[start]\ntype = \"notify\"\n[notify]\nfd_store_max = 3\n\
         [stop]\nsignal = \"SIGKILL\"\n",
        clients.python
    );
    scratch.service("flood", &text)?;
    scratch.service("other", &clients.all[0].service(&["READY=1"], "", &orders("other")))?;
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
    let other = scratch.status("other")?;
    ensure!(other["says"].is_null(), "{other:#}");
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
    let python = Clients::new(&scratch)?.python;
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
            "exec = [\"{python}\", \"-c\", '''\n{script}''']\npolicy = \"{POLICY}\"\n[start]\ntype = \"notify\"\n[notify]\nfd_store_max = 3\n\
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
        // Each of the two lines of the second run may come after the other was looked at.
        Ok((text.matches("got").count() == 2 && text.contains("read treasure")).then_some(text))
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

/// A service of type `fd` that runs this.
fn by_descriptor(script: &str, more: &str) -> String {
    format!(
        "exec = [\"/bin/sh\", \"-c\", '''\n{script}\n''']\npolicy = \"unconfined\"\n[start]\ntype = \"fd\"\nfd = 3\n\
         {more}[restart]\nwhen = \"never\"\n"
    )
}

#[test]
fn a_newline_on_a_descriptor_is_readiness_also_where_nobody_reads_it_yet() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_newline_on_a_descriptor")? else { return Ok(()) };
    let go = scratch.path("go");
    let waits = format!("mkfifo {0}; read word <{0}; printf '\\n' >&3; exec sleep infinity", go.display());
    scratch.service("s6", &by_descriptor("echo not yet >&3; exec 3>&- sleep infinity", ""))?;
    scratch.service("early", &by_descriptor("printf 'words\\n' >&3; exec sleep infinity", ""))?;
    scratch.service("system", "[dependencies]\nwants = [\"late\"]\n")?;
    scratch.service("late", &by_descriptor(&waits, ""))?;
    scratch.service("closed", &by_descriptor("exec 3>&-; exec sleep infinity", ""))?;
    scratch.service("silent", &by_descriptor("exec sleep infinity", "timeout = \"300ms\"\n"))?;
    scratch.service("crashed", &by_descriptor("exit 3", ""))?;
    scratch.start()?;
    scratch.answers()?;
    for name in ["s6", "early"] {
        let started = scratch.motherctl(&["start", name])?;
        ensure!(started.status == 0, "{started:?}");
    }
    for (name, why) in [
        ("closed", "it closed descriptor 3 and had written no newline to it"),
        ("silent", "not started after 0.3 s"),
        ("crashed", "exited with status 3 before it was ready"),
    ] {
        let started = scratch.motherctl(&["start", name])?;
        ensure!(started.status == 1 && started.errors.contains(why), "{name}: {started:?}");
    }
    let kept = |scratch: &Scratch| -> Result<bool> {
        Ok(scratch.motherctl(&["fdstore", "late"])?.out.contains("ready"))
    };
    let pid = scratch.eventually("late waits", |scratch| {
        let status = scratch.status("late")?;
        let waits = status["state"] == "starting" && go.exists() && kept(scratch)?;
        Ok(status["main_pid"].as_u64().filter(|_| waits))
    })?;
    // One motherd dies while nothing was written; the next while it stands still and the newline comes.
    scratch.kill_motherd()?;
    ensure!(scratch.status("late")?["state"] == "starting" && kept(&scratch)?, "adopted as it was");
    let motherd = Pid::from_raw(scratch.motherd()?);
    kill(motherd, Signal::SIGSTOP)?;
    fs::write(&go, "go\n")?;
    let state = format!("/proc/{pid}/comm");
    scratch.eventually("it has written, and sleeps", |_| {
        Ok((fs::read_to_string(&state)?.trim() == "sleep").then_some(()))
    })?;
    kill(motherd, Signal::SIGKILL)?;
    ensure!(scratch.running("late")? == pid, "it is the same process");
    ensure!(!kept(&scratch)?, "nothing is kept for it any more");
    scratch.stop()?;
    Ok(())
}
