//! PID 1 under fire: of a namespace of its own, with everything against it. It goes on reaping, relaunching and answering.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;

use e2e::faults::{EXHAUSTION, Faults};
use e2e::scratch::skip;

use super::*;

/// From a pid namespace of its own and a mount namespace of its own.
const UNSHARE: [&str; 5] = ["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"];

/// Of which calls fail: another rotation of it in each round.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// How many orphans are made: `ORPHANS=20000` for the long form.
const ORPHANS: usize = 2000;

impl Machine {
    /// As PID 1 of a namespace, once a shell there has done what `prepare` says; `None`, loudly, where this is not root.
    fn first(name: &str, prepare: &str) -> Result<Option<Machine>> {
        if !nix::unistd::geteuid().is_root() {
            skip(&format!("initldr::fire::{name}"), "it needs root, for a pid namespace")?;
            return Ok(None);
        }
        let script = format!("{prepare}; exec \"$@\"");
        let above = UNSHARE.iter().copied().chain(["sh", "-c", &script, "sh"]).collect::<Vec<_>>();
        let mut machine = Self::start_below(name, &above)?;
        let end = Instant::now() + SOON;
        // unshare's child becomes the shell, and that initldr.
        machine.initldr = loop {
            let outer = machine.outer.id();
            let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"))?;
            let child = children.split_whitespace().next();
            let name = child.map(|child| fs::read_to_string(format!("/proc/{child}/comm")));
            match (child, name) {
                (Some(child), Some(Ok(name))) if name.trim_end() == "initldr" => {
                    break Pid::from_raw(child.parse()?);
                }
                _ if Instant::now() > end => bail!("no initldr came up\n{}", machine.log()),
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        Ok(Some(machine))
    }

    fn send(&self, number: i32) -> Result<()> {
        ensure!(nix::unistd::geteuid().is_root() || number != 9);
        // nix knows no real-time signals.
        let status = Command::new("/bin/kill")
            .args(["-s", &number.to_string(), &self.initldr.to_string()])
            .status()?;
        ensure!(status.success(), "kill -s {number}");
        Ok(())
    }
}

/// It reaps and tells, answers, and makes another motherd when that one dies: which is returned.
fn does_its_work(machine: &mut Machine, mut motherd: Motherd) -> Result<Motherd> {
    let told = motherd.exits("setsid -f sh -c 'exit 77'", 1).context("an orphan is reaped and told")?;
    ensure!(told[0].1 == 77, "{told:?}");
    motherd.tell("drop no/such/slot")?;
    motherd.expect(&format!("answer no/such/slot {}", libc::ENOENT)).context("a request is answered")?;
    motherd.tell(&format!("acknowledge {}", told[0].0))?;
    // Answered after the acknowledgement was sent.
    motherd.tell("shell true")?;
    motherd.expect("shell 0")?;
    motherd.tell("exit 0")?;
    let mut next = machine.motherd().context("another motherd is made")?;
    let said = next.hello()?;
    ensure!(said.len() == 1 && said[0].contains("cause=Exited(0)"), "{said:?}");
    Ok(next)
}

/// Those by which somebody asks for the end of a container, sooner and at once.
const STOPS: [i32; 8] = [2, 15, 30, 37, 38, 39, 40, 41];
const ENDS: [i32; 6] = [3, 47, 48, 49, 50, 51];
/// SIGHUP, SIGUSR2, SIGWINCH.
const TOLD: [i32; 3] = [1, 12, 28];

/// Where it was a request to end: it is none, and initldr has heard that.
fn carries_on(motherd: &mut Motherd) -> Result<()> {
    motherd.tell("carry-on")?;
    motherd.tell("drop none")?;
    motherd.expect(&format!("answer none {}", libc::ENOENT))
}

/// One signal, sent by `send`; what has to come of it in a container.
fn bears(machine: &mut Machine, mut motherd: Motherd, number: i32) -> Result<Motherd> {
    if number == libc::SIGUSR1 {
        let mut next = machine.motherd().context("SIGUSR1 makes another motherd")?;
        next.hello()?;
        return Ok(next);
    }
    let told = STOPS.contains(&number) || TOLD.contains(&number) || number >= 34;
    if told {
        motherd.expect(&format!("signal {number}"))?;
    }
    carries_on(&mut motherd)?;
    // What was not told by now is not told at all: this one was sent after it.
    machine.send(libc::SIGHUP)?;
    motherd.expect(&format!("signal {}", libc::SIGHUP)).with_context(|| format!("after signal {number}"))?;
    motherd.tell("alive")?;
    Ok(motherd)
}

#[test]
fn every_signal_from_outside_is_borne_or_ends_it_as_the_table_says() -> Result<()> {
    let Some(mut machine) = Machine::first("outside", ":")? else { return Ok(()) };
    let mut motherd = machine.motherd()?;
    motherd.hello()?;
    // SIGKILL and SIGSTOP from above are the one thing against which there is nothing.
    for number in (1..=64).filter(|number| ![9, 19].contains(number) && !ENDS.contains(number)) {
        machine.send(number)?;
        motherd = bears(&mut machine, motherd, number)
            .with_context(|| format!("signal {number}\n{}", machine.log()))?;
    }
    does_its_work(&mut machine, motherd)?;
    for number in ENDS {
        let Some(mut machine) = Machine::first(&format!("at-once-{number}"), ":")? else { return Ok(()) };
        machine.motherd()?.hello()?;
        machine.send(number)?;
        let ended = machine.ended()?;
        assert_eq!(ended.code(), Some(1), "signal {number}: {ended}");
    }
    Ok(())
}

#[test]
fn every_signal_from_inside_is_borne_and_kill_and_stop_do_nothing() -> Result<()> {
    let Some(mut machine) = Machine::first("inside", ":")? else { return Ok(()) };
    let mut motherd = machine.motherd()?;
    motherd.hello()?;
    for number in (1..=64).filter(|number| !ENDS.contains(number)) {
        if number == libc::SIGUSR1 {
            motherd.tell(&format!("shell kill -{number} 1"))?; // whoever sends it does not hear of it any more
            motherd = bears(&mut machine, motherd, number).context("SIGUSR1")?;
            continue;
        }
        motherd.tell(&format!("shell kill -{number} 1"))?;
        let told = STOPS.contains(&number) || TOLD.contains(&number) || number >= 34;
        // The shell's end and the signal are told by two threads, in either order.
        let mut heard = vec![motherd.hear().with_context(|| format!("{number}\n{}", machine.log()))?];
        let second = told.then(|| motherd.hear()).transpose();
        heard.extend(second.with_context(|| format!("signal {number}, {heard:?}\n{}", machine.log()))?);
        let mut expected = vec!["shell 0".to_owned()];
        expected.extend(told.then(|| format!("signal {number}")));
        heard.sort();
        ensure!(heard == expected, "{heard:?}, not {expected:?}");
        carries_on(&mut motherd)?;
        machine.send(libc::SIGHUP)?;
        motherd.expect(&format!("signal {}", libc::SIGHUP)).with_context(|| format!("after {number}"))?;
    }
    does_its_work(&mut machine, motherd).map(drop)
}

#[test]
fn a_request_to_stop_ends_it_with_the_status_that_motherd_says() -> Result<()> {
    for (number, say, status) in
        [(15, "end", 0), (2, "end", 0), (30, "exit-with 7", 7), (37, "exit-with 255", 255)]
    {
        let Some(mut machine) = Machine::first(&format!("stop-{number}"), ":")? else { return Ok(()) };
        let mut motherd = machine.motherd()?;
        motherd.hello()?;
        motherd.exits("(trap '' TERM; sleep 1000 & )", 0)?;
        machine.send(number)?;
        motherd.expect(&format!("signal {number}"))?;
        motherd.tell(say)?;
        let ended = machine.ended()?;
        assert_eq!((ended.code(), ended.signal()), (Some(status), None), "signal {number}, {say}");
    }
    Ok(())
}

#[test]
fn orphans_by_the_thousand_are_reaped_by_pid_1_each_once() -> Result<()> {
    let count = env::var("ORPHANS").ok().and_then(|text| text.parse().ok()).unwrap_or(ORPHANS);
    let Some(mut machine) = Machine::first("storm", ":")? else { return Ok(()) };
    let mut motherd = machine.motherd()?;
    motherd.hello()?;
    // Each is the child of a process that is gone.
    let script = format!("i=0; while [ $i -lt {count} ]; do (exit 9 & ); i=$((i+1)); done");
    motherd.tell(&format!("shell {script}"))?;
    motherd.stream.set_read_timeout(Some(Duration::from_secs(300)))?;
    let (mut next, mut done) = (1, false);
    while next <= count as u64 || !done {
        match motherd.hear()? {
            line if line == "shell 0" => done = true,
            line => {
                let (sequence, status) = exit(&line)?;
                ensure!((sequence, status) == (next, 9), "{line}, expected number {next}");
                next += 1;
                // Else the ring would overflow, which it says.
                if sequence % 1000 == 0 {
                    motherd.tell(&format!("acknowledge {sequence}"))?;
                }
            }
        }
    }
    assert_eq!(machine.children()?.len(), 1, "no zombies");
    motherd.tell(&format!("acknowledge {count}"))?;
    does_its_work(&mut machine, motherd).map(drop)
}

#[test]
fn without_a_console_or_anything_open_it_works_and_writes_into_nothing_of_its_own() -> Result<()> {
    for (name, prepare, expected) in [
        ("closed", "exec <&- >&- 2>&-", "/dev/null"),
        ("no-dev", "mount -t tmpfs none /dev; exec <&- >&- 2>&-", "/"),
    ] {
        // The console of this host is its own affair.
        let prepare = format!("mount --bind /dev/null /dev/console 2>/dev/null; {prepare}");
        let Some(mut machine) = Machine::first(name, &prepare)? else { return Ok(()) };
        let mut motherd = machine.motherd()?;
        motherd.hello()?;
        for number in 0..=2 {
            let file = fs::read_link(format!("/proc/{}/fd/{number}", machine.initldr))?;
            let file = file.to_string_lossy().into_owned();
            ensure!(file == expected || file == "/dev/console", "descriptor {number} is {file}");
        }
        // It has said something, which did not go to motherd.
        machine.send(libc::SIGHUP)?;
        motherd.expect(&format!("signal {}", libc::SIGHUP))?;
        let mut motherd = does_its_work(&mut machine, motherd)?;
        motherd.tell("exit-with 3")?;
        assert_eq!(machine.ended()?.code(), Some(3));
    }
    Ok(())
}

#[test]
fn without_proc_it_works_and_ends_everything() -> Result<()> {
    let Some(mut machine) = Machine::first("no-proc", "mount -t tmpfs none /proc")? else { return Ok(()) };
    let mut motherd = machine.motherd()?;
    motherd.hello()?;
    motherd.tell("shell trap '' TERM; sleep 1000 >/dev/null 2>&1 &")?;
    motherd.expect("shell 0")?;
    let sleeper = machine.children()?.into_iter().max().context("an orphan")?;
    let mut motherd = does_its_work(&mut machine, motherd)?;
    motherd.tell("end")?;
    assert_eq!(machine.ended()?.code(), Some(0));
    assert!(kill(Pid::from_raw(sleeper), None).is_err(), "nothing is left behind");
    Ok(())
}

#[test]
fn without_a_descriptor_to_spare_it_reaps_and_relaunches_when_there_is_one() -> Result<()> {
    let Some(mut machine) = Machine::first("no-descriptor", ":")? else { return Ok(()) };
    let mut motherd = machine.motherd()?;
    motherd.hello()?;
    let limit = |limit: &str| -> Result<()> {
        let of = format!("--nofile={limit}");
        let status = Command::new("prlimit").args(["--pid", &machine.initldr.to_string(), &of]).status()?;
        ensure!(status.success(), "prlimit");
        Ok(())
    };
    let open = fs::read_dir(format!("/proc/{}/fd", machine.initldr))?.count();
    // The link closes with motherd, and gives one number back: a pair needs two.
    limit(&format!("{}:", open - 1))?;
    let gone = machine.folder.join("gone");
    motherd.tell(&format!("shell (while [ ! -e {} ]; do sleep 0.01; done; exit 7) & :", gone.display()))?;
    motherd.expect("shell 0")?;
    motherd.kill()?;
    let end = Instant::now() + SOON;
    while !machine.log().contains(&format!("launch motherd: errno {}", libc::EMFILE)) {
        ensure!(Instant::now() < end, "it never came to that\n{}", machine.log());
        std::thread::sleep(Duration::from_millis(2));
    }
    fs::write(&gone, "")?;
    while !machine.children()?.is_empty() {
        ensure!(Instant::now() < end, "it does not reap\n{}", machine.log());
        std::thread::sleep(Duration::from_millis(2));
    }
    limit("1024:")?;
    let mut motherd = machine.motherd()?;
    let said = motherd.hello()?;
    ensure!(said[1..] == ["exit 1 code=1 status=7"], "{said:?}");
    ensure!(!said[0].contains("safe"), "no fault of motherd's: {said:?}");
    motherd.tell("acknowledge 1")?;
    does_its_work(&mut machine, motherd).map(drop)
}

/// Every kind of exhaustion at once, while motherd dies and orphans end: no exit is lost or told twice, and when it is
/// over everything is as before.
#[test]
fn calls_that_fail_for_want_of_memory_lose_nothing() -> Result<()> {
    let mut failed = BTreeMap::new();
    let rounds: u64 = env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    for round in 1..=rounds {
        let name = format!("no-memory-{round}");
        let Some(mut machine) = Machine::first(&name, ":")? else { return Ok(()) };
        let mut motherd = machine.motherd()?;
        motherd.hello()?;
        let faults =
            Faults::inject(machine.initldr, &EXHAUSTION, SEED.rotate_left(u32::try_from(round % 64)?));
        let mut next = 1;
        for life in 0..4_u64 {
            motherd.tell("shell for i in 1 2 3 4 5 6 7 8 9 10; do (exit 5 & ); done")?;
            let (mut exits, mut done) = (0, false);
            while exits < 10 || !done {
                match motherd
                    .hear()
                    .with_context(|| format!("round {round}, life {life}\n{}", machine.log()))?
                {
                    line if line == "shell 0" => done = true,
                    line => {
                        ensure!(exit(&line)? == (next, 5), "{line}, expected number {next}");
                        (exits, next) = (exits + 1, next + 1);
                    }
                }
            }
            motherd.tell("drop no/such/slot")?;
            motherd.expect(&format!("answer no/such/slot {}", libc::ENOENT))?;
            motherd.tell(&format!("acknowledge {}", next - 1))?;
            motherd.tell("shell true")?;
            motherd.expect("shell 0")?;
            motherd.kill()?;
            motherd = machine.motherd()?;
            let said = motherd.hello()?;
            ensure!(said.len() == 1 && !said[0].contains("safe"), "{said:?}\n{}", machine.log());
        }
        for (call, count) in faults.stop()? {
            *failed.entry(call).or_insert(0) += count;
        }
        does_its_work(&mut machine, motherd)?;
    }
    println!("calls that were made to fail, by number: {failed:?}");
    for call in [libc::SYS_ppoll, libc::SYS_sendmsg, libc::SYS_recvmsg, libc::SYS_read] {
        ensure!(failed.contains_key(&call), "control: call {call} never failed: {failed:?}");
    }
    let launches = [libc::SYS_socketpair, libc::SYS_clone].iter().any(|call| failed.contains_key(call));
    ensure!(launches, "control: no launch ever failed: {failed:?}");
    Ok(())
}

#[test]
fn a_flood_on_the_link_keeps_nobody_waiting() -> Result<()> {
    let Some(mut machine) = Machine::first("flood", ":")? else { return Ok(()) };
    let mut motherd = machine.motherd()?;
    motherd.hello()?;
    motherd.tell("shell (while :; do (exit 4 & ); sleep 0.01; done) & :")?;
    // Two threads tell of the shell's end and of exits, in either order.
    while motherd.hear()? != "shell 0" {}
    motherd.tell("flood 12345")?;
    let mut exits = 0;
    loop {
        match motherd.hear().with_context(|| machine.log())? {
            line if line == "flooded" => break,
            line if line.starts_with("exit ") => exits += 1,
            line => ensure!(line == "replay-end" || line.starts_with("answer none "), "{line}"),
        }
    }
    ensure!(exits > 0, "exits are told all the while");
    // A child of motherd's holds the link and goes on when that is gone: it is shut all the same.
    motherd.tell("leak")?;
    while motherd.hear()? != "leaked" {}
    motherd.kill()?;
    let mut next = machine.motherd()?;
    // The flooder has ended by itself.
    let mut flooder = next.hello()?.iter().any(|line| line.ends_with("status=9"));
    while !flooder {
        let (sequence, status) = exit(&next.hear().with_context(|| machine.log())?)?;
        next.tell(&format!("acknowledge {sequence}"))?;
        flooder = status == 9;
    }
    Ok(())
}
