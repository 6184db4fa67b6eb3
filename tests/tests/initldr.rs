//! initldr as an ordinary process, with a motherd that does what these tests tell it: what survives a motherd, what is
//! reaped, what ends it; and what kind of program it is.

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Once,
    time::{Duration, Instant},
};

#[path = "initldr/fire.rs"]
mod fire;
#[path = "initldr/succession.rs"]
mod succession;
#[path = "initldr/watchdog.rs"]
mod watchdog;

/// For anything that should happen soon, on a machine that does other things too.
const SOON: Duration = Duration::from_secs(20);

/// The built program. `cargo test -p e2e` alone does not build it.
fn initldr() -> PathBuf {
    static BUILD: Once = Once::new();
    let folder = PathBuf::from(env!("CARGO_BIN_EXE_fake_motherd"));
    let path = folder.with_file_name("initldr");
    BUILD.call_once(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "initldr", "--bin", "initldr"]);
        if folder.parent().is_some_and(|folder| folder.ends_with("release")) {
            cargo.arg("--release");
        }
        let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
        assert!(status.success(), "cargo build --package initldr");
    });
    path
}

/// An initldr whose motherd is `fake_motherd`.
struct Machine {
    /// initldr, or what is above it.
    outer: Child,
    initldr: Pid,
    listener: UnixListener,
    folder: PathBuf,
}

impl Machine {
    fn start(name: &str) -> Result<Machine> {
        Self::start_below(name, &[])
    }

    /// Started by a command that executes what follows it.
    fn start_below(name: &str, above: &[&str]) -> Result<Machine> {
        let folder = env::temp_dir().join(format!("initldr-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let socket = folder.join("control");
        let listener = UnixListener::bind(&socket)?;
        listener.set_nonblocking(true)?;
        let program = initldr();
        let mut words: Vec<&std::ffi::OsStr> = above.iter().map(|word| (*word).as_ref()).collect();
        words.extend([
            program.as_os_str(),
            "--motherd".as_ref(),
            env!("CARGO_BIN_EXE_fake_motherd").as_ref(),
        ]);
        words.extend(["--".as_ref(), socket.as_os_str()]);
        let outer = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stderr(fs::File::create(folder.join("log"))?)
            .spawn()?;
        let initldr = Pid::from_raw(outer.id().cast_signed());
        Ok(Machine { outer, initldr, listener, folder })
    }

    /// The next motherd to come up.
    fn motherd(&mut self) -> Result<Motherd> {
        let end = Instant::now() + SOON;
        let stream = loop {
            match self.listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if Instant::now() > end => return Err(error).context(self.log()),
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(SOON))?;
        let mut motherd =
            Motherd { lines: BufReader::new(stream.try_clone()?), stream, pid: Pid::from_raw(0) };
        let here = motherd.hear()?;
        motherd.pid = self.outside(here.strip_prefix("here ").context("here")?)?;
        Ok(motherd)
    }

    /// A child's pid as it knows it itself, which may be that of another process out here: what it is here.
    fn outside(&self, inside: &str) -> Result<Pid> {
        for child in self.children()? {
            let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
            let own = status.lines().find_map(|line| line.strip_prefix("NSpid:")?.split_whitespace().last());
            if own == Some(inside) {
                return Ok(Pid::from_raw(child));
            }
        }
        bail!("no child of initldr's is {inside} to itself")
    }

    fn pid(&self) -> Pid {
        self.initldr
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(self.pid(), signal)?)
    }

    fn proc(&self, file: &str) -> Result<String> {
        Ok(fs::read_to_string(format!("/proc/{}/{file}", self.initldr))?)
    }

    fn children(&self) -> Result<Vec<i32>> {
        let children = self.proc(&format!("task/{}/children", self.initldr))?;
        Ok(children.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
    }

    fn ended(&mut self) -> Result<ExitStatus> {
        let end = Instant::now() + SOON;
        while Instant::now() < end {
            if let Some(status) = self.outer.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("initldr still runs\n{}", self.log())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Whatever is still there: a failed test leaves nothing behind. motherd ends with its link.
        self.outer.kill().unwrap_or_default();
        self.outer.wait().map(drop).unwrap_or_default();
        fs::remove_dir_all(&self.folder).unwrap_or_default();
    }
}

/// One life of the fake.
struct Motherd {
    lines: BufReader<UnixStream>,
    stream: UnixStream,
    pid: Pid,
}

impl Motherd {
    fn tell(&mut self, command: &str) -> Result<()> {
        Ok(writeln!(self.stream, "{command}")?)
    }

    fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.lines.read_line(&mut line)? > 0, "motherd is gone");
        Ok(line.trim_end().to_owned())
    }

    fn expect(&mut self, line: &str) -> Result<()> {
        let heard = self.hear()?;
        ensure!(heard == line, "heard `{heard}`, not `{line}`");
        Ok(())
    }

    /// Has a file kept. What is done is not answered, but what is asked after it and cannot be done is.
    fn store(&mut self, slot: &str, path: &Path) -> Result<()> {
        self.tell(&format!("store {slot} {}", path.display()))?;
        self.tell("drop nothing")?;
        self.expect(&format!("answer nothing {}", libc::ENOENT))
    }

    /// Says hello and hears everything up to the end of the replay.
    fn hello(&mut self) -> Result<Vec<String>> {
        self.tell("hello")?;
        let mut said = vec![];
        loop {
            match self.hear()? {
                line if line == "replay-end" => return Ok(said),
                line => said.push(line),
            }
        }
    }

    /// Runs a script of the shell, and hears `count` exits; their numbers and statuses.
    fn exits(&mut self, script: &str, count: usize) -> Result<Vec<(u64, i32)>> {
        self.tell(&format!("shell {script}"))?;
        let mut exits = vec![];
        let mut done = false;
        while exits.len() < count || !done {
            match self.hear()? {
                line if line == "shell 0" => done = true,
                line => exits.push(exit(&line)?),
            }
        }
        Ok(exits)
    }

    fn kill(self) -> Result<()> {
        Ok(kill(self.pid, Signal::SIGKILL)?)
    }
}

/// `exit 7 code=1 status=3`: 7 and 3.
fn exit(line: &str) -> Result<(u64, i32)> {
    let mut words = line.split([' ', '=']);
    ensure!(words.next() == Some("exit"), "not an exit: {line}");
    let sequence = words.next().context("sequence")?.parse()?;
    Ok((sequence, words.next_back().context("status")?.parse()?))
}

#[test]
fn an_exit_is_told_again_until_it_is_acknowledged() -> Result<()> {
    let mut machine = Machine::start("replay")?;
    let mut first = machine.motherd()?;
    let welcome = first.hello()?;
    assert_eq!(welcome, ["welcome generation=1 pid1=false cause=First lost=0 was_down=false"]);
    assert_eq!(first.exits("(sh -c 'exit 3' &)", 1)?, [(1, 3)]);
    assert_eq!(first.exits("(sh -c 'kill -9 $$' &)", 1)?, [(2, 9)]);
    first.tell("acknowledge 1")?;
    first.tell("shell true")?; // answered after the acknowledgement was sent
    first.expect("shell 0")?;
    first.kill()?;

    let mut second = machine.motherd()?;
    let welcome = second.hello()?;
    let expected = "welcome generation=2 pid1=false cause=Signaled(9) lost=0 was_down=true";
    assert_eq!(welcome, [expected, "exit 2 code=2 status=9"]);
    second.kill()?;

    let mut third = machine.motherd()?;
    assert_eq!(third.hello()?[1..], ["exit 2 code=2 status=9"], "nobody acknowledged it");
    third.tell("acknowledge 18446744073709551615")?;
    assert_eq!(third.exits("(sh -c 'exit 5' &)", 1)?, [(3, 5)]);
    third.tell("exit 4")?;
    let mut fourth = machine.motherd()?;
    let said = fourth.hello()?;
    assert!(said[0].contains("generation=4 pid1=false cause=Exited(4)"), "{said:?}");
    assert_eq!(
        said[1..],
        ["exit 3 code=1 status=5"],
        "an acknowledgement of what was not sent yet counts for nothing"
    );
    Ok(())
}

#[test]
fn an_exit_while_there_is_no_motherd_is_not_lost() -> Result<()> {
    let mut machine = Machine::start("down")?;
    let mut first = machine.motherd()?;
    first.hello()?;
    let gone = machine.folder.join("gone");
    first.tell(&format!("shell (while [ ! -e {} ]; do sleep 0.01; done; exit 7) & :", gone.display()))?;
    first.expect("shell 0")?;
    first.kill()?;
    let mut second = machine.motherd()?; // it has not said hello
    fs::write(&gone, "")?;
    second.tell("shell sleep 0.3")?;
    second.expect("shell 0")?;
    assert_eq!(second.hello()?[1..], ["exit 1 code=1 status=7"]);
    Ok(())
}

#[test]
fn a_stored_descriptor_outlives_motherd_until_it_is_dropped() -> Result<()> {
    let mut machine = Machine::start("store")?;
    let mut first = machine.motherd()?;
    first.hello()?;
    for name in ["one", "two", "three"] {
        let path = machine.folder.join(name);
        fs::write(&path, format!("text {name}\n"))?;
        first.store(&format!("slot/{name}"), &path)?;
        fs::remove_file(path)?; // the descriptor is now all there is of it
    }
    first.tell("drop slot/one")?;
    first.tell("drop slot/one")?;
    first.expect(&format!("answer slot/one {}", libc::ENOENT))?;
    first.tell("store-nothing slot/x")?;
    first.expect(&format!("answer slot/x {}", libc::EBADF))?;
    first.kill()?;
    let mut second = machine.motherd()?;
    assert_eq!(second.hello()?[1..], ["stored slot/two text two", "stored slot/three text three"]);
    Ok(())
}

#[test]
fn a_store_request_of_a_motherd_that_dies_at_once_is_honoured() -> Result<()> {
    let mut machine = Machine::start("last-words")?;
    let path = machine.folder.join("file");
    fs::write(&path, "last words\n")?;
    for _ in 0..20 {
        let mut motherd = machine.motherd()?;
        motherd.tell("hello")?;
        motherd.tell(&format!("store slot {}", path.display()))?;
        motherd.tell("exit 0")?;
        if machine.log().matches("ended").count() > 2 {
            break; // often enough: the next ones wait longer and longer
        }
    }
    let mut next = machine.motherd()?;
    assert_eq!(next.hello()?[1..], ["stored slot last words"]);
    Ok(())
}

#[test]
fn the_state_survives_any_death_and_cannot_be_resized() -> Result<()> {
    let mut machine = Machine::start("state")?;
    let mut first = machine.motherd()?;
    first.tell("write remember me")?;
    first.expect("written")?;
    first.kill()?;
    let mut second = machine.motherd()?;
    second.tell("read 11")?;
    second.expect(&format!("state {} remember me", 4 << 20))?;
    second.tell("shell truncate -s 1 /proc/$PPID/fd/4 2>/dev/null")?;
    second.expect("shell 1")?;
    Ok(())
}

#[test]
fn two_thousand_orphans_are_reaped_and_told_each_once() -> Result<()> {
    let mut machine = Machine::start("orphans")?;
    let mut motherd = machine.motherd()?;
    motherd.hello()?;
    let script = "i=0; while [ $i -lt 2000 ]; do (exit 9 & ); i=$((i+1)); done";
    let begun = Instant::now();
    let exits = motherd.exits(script, 2000)?;
    println!("2000 orphans: {:?}", begun.elapsed());
    assert!(exits.iter().all(|&(_, status)| status == 9));
    assert_eq!(
        exits.iter().map(|&(sequence, _)| sequence).collect::<Vec<_>>(),
        (1..=2000).collect::<Vec<_>>()
    );
    assert_eq!(machine.children()?, [motherd.pid.as_raw()], "no zombies");
    Ok(())
}

#[test]
fn a_motherd_that_keeps_dying_is_relaunched_less_and_less_often() -> Result<()> {
    let mut machine = Machine::start("backoff")?;
    let mut died = vec![];
    for _ in 0..6 {
        let mut motherd = machine.motherd()?;
        motherd.tell("exit 1")?;
        died.push(Instant::now());
    }
    let gaps: Vec<_> = died.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
    println!("relaunches after {gaps:?} ms");
    for (gap, least) in gaps.iter().zip([0, 100, 200, 400, 800]) {
        assert!(*gap + 5 >= least, "{gaps:?}"); // the clock of this test starts a moment after the exit
    }
    assert!(gaps[0] < 100, "the first relaunch is at once: {gaps:?}");
    Ok(())
}

#[test]
fn a_motherd_that_closes_the_link_is_killed_and_relaunched() -> Result<()> {
    let mut machine = Machine::start("close")?;
    let mut first = machine.motherd()?;
    first.hello()?;
    first.tell("close-and-hang")?;
    let mut second = machine.motherd()?;
    let said = second.hello()?;
    assert!(said[0].contains("generation=2 pid1=false cause=Signaled(9)"), "{said:?}");
    Ok(())
}

#[test]
fn bad_messages_are_counted_and_the_link_goes_on() -> Result<()> {
    let mut machine = Machine::start("garbage")?;
    let mut motherd = machine.motherd()?;
    motherd.tell("garbage")?;
    motherd.hello()?;
    for _ in 0..3 {
        motherd.tell("garbage")?;
    }
    assert_eq!(motherd.exits("(sh -c 'exit 6' &)", 1)?, [(1, 6)]);
    let log = machine.log();
    assert!(log.contains("bad message number 16"), "{log}");
    Ok(())
}

#[test]
fn a_signal_is_passed_on_and_the_end_is_motherds() -> Result<()> {
    let mut machine = Machine::start("end")?;
    let mut motherd = machine.motherd()?;
    motherd.hello()?;
    motherd.tell("shell trap '' TERM; sleep 1000 & echo $! >/dev/null")?;
    motherd.expect("shell 0")?;
    let sleeper = machine.children()?.into_iter().find(|&pid| pid != motherd.pid.as_raw());
    let sleeper = Pid::from_raw(sleeper.context("an orphan that sleeps")?);
    machine.signal(Signal::SIGHUP)?;
    motherd.expect(&format!("signal {}", libc::SIGHUP))?;
    machine.signal(Signal::SIGTERM)?;
    motherd.expect(&format!("signal {}", libc::SIGTERM))?;
    motherd.tell("end")?;
    assert_eq!(machine.ended()?.code(), Some(0));
    assert!(kill(sleeper, None).is_err(), "nothing is left behind");
    assert!(kill(motherd.pid, None).is_err());
    Ok(())
}

#[test]
fn the_next_motherd_hears_of_a_stop_that_the_last_one_did_not_finish() -> Result<()> {
    let mut machine = Machine::start("stop-again")?;
    let mut first = machine.motherd()?;
    first.hello()?;
    machine.signal(Signal::SIGTERM)?;
    first.expect(&format!("signal {}", libc::SIGTERM))?;
    first.kill()?;
    let mut second = machine.motherd()?;
    second.hello()?;
    second.expect(&format!("signal {}", libc::SIGTERM))?;
    second.tell("end")?;
    assert_eq!(machine.ended()?.code(), Some(0));
    Ok(())
}

#[test]
fn a_second_sigterm_ends_it_without_motherd() -> Result<()> {
    let mut machine = Machine::start("force")?;
    let motherd = machine.motherd()?;
    kill(motherd.pid, Signal::SIGSTOP)?;
    machine.signal(Signal::SIGTERM)?;
    while !machine.log().contains("signal 15") {
        std::thread::sleep(Duration::from_millis(2)); // two pending SIGTERMs are one
    }
    machine.signal(Signal::SIGTERM)?;
    assert_eq!(machine.ended()?.code(), Some(1));
    assert!(kill(motherd.pid, None).is_err());
    Ok(())
}

#[test]
fn an_idle_initldr_is_never_woken_and_stays_small() -> Result<()> {
    let mut machine = Machine::start("idle")?;
    let mut motherd = machine.motherd()?;
    motherd.hello()?;
    motherd.tell("shell sleep 0.2")?;
    motherd.expect("shell 0")?;
    let switches = |machine: &Machine| -> Result<String> {
        Ok(machine.proc("status")?.lines().filter(|line| line.contains("ctxt_switches")).collect())
    };
    let before = switches(&machine)?;
    std::thread::sleep(Duration::from_secs(3)); // this is what idle means
    assert_eq!(switches(&machine)?, before);
    let rollup = machine.proc("smaps_rollup")?;
    let figures: Vec<_> = rollup
        .lines()
        .filter(|line| ["Rss:", "Pss:", "Pss_Anon:"].iter().any(|key| line.starts_with(key)))
        .collect();
    println!("resident: {figures:?}");
    let rss: u64 = figures[0].split_whitespace().nth(1).context("Rss")?.parse()?;
    assert!(rss <= 400, "{rss} KiB resident"); // unoptimized; of a release it is a third
    Ok(())
}

#[test]
fn a_command_line_that_is_not_understood_is_refused() -> Result<()> {
    let output = Command::new(initldr()).args(["--mother", "/bin/true"]).output()?;
    let said = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said.contains("argument not understood: --mother\n") && said.contains("usage: initldr"),
        "{said}"
    );
    Ok(())
}

/// No allocator, no library, nothing to be found by a dynamic loader: what cannot be called cannot fail.
#[test]
fn the_program_is_whole_in_itself() -> Result<()> {
    let elf = fs::read(initldr())?;
    let number = |at: usize, size: usize| -> Result<usize> {
        let bytes = elf.get(at..at + size).context("in the file")?;
        Ok(bytes.iter().rev().fold(0, |value, &byte| value << 8 | usize::from(byte)))
    };
    ensure!(elf.starts_with(b"\x7fELF\x02\x01"), "a 64-bit little-endian ELF file");
    let mark = format!("initldr speaks link version {}", initldr::link::VERSION);
    ensure!(
        elf.windows(mark.len()).any(|window| window == mark.as_bytes()),
        "the file does not say `{mark}`"
    );
    assert_eq!(number(16, 2)?, 2, "ET_EXEC");
    let (headers, count) = (number(32, 8)?, number(56, 2)?);
    for header in 0..count {
        let kind = number(headers + header * 56, 4)?;
        assert!(kind != 2 && kind != 3, "PT_DYNAMIC or PT_INTERP");
    }
    let (sections, count) = (number(40, 8)?, number(60, 2)?);
    let mut symbols = 0;
    for section in (0..count).map(|index| sections + index * 64) {
        const SHT_SYMTAB: usize = 2;
        if number(section + 4, 4)? != SHT_SYMTAB {
            continue;
        }
        let strings = number(sections + number(section + 40, 4)? * 64 + 24, 8)?;
        let (start, size) = (number(section + 24, 8)?, number(section + 32, 8)?);
        for symbol in (start..start + size).step_by(24) {
            let name = &elf[strings + number(symbol, 4)?..];
            let name = String::from_utf8_lossy(name.split(|&byte| byte == 0).next().unwrap_or_default());
            assert!(name.is_empty() || number(symbol + 6, 2)? != 0, "undefined: {name}");
            for allocator in ["__rust_alloc", "__rg_alloc", "__rdl_alloc", "malloc", "brk", "mmap"] {
                assert_ne!(name, allocator);
            }
            symbols += 1;
        }
    }
    ensure!(symbols > 100, "only {symbols} symbols: too few to tell anything");
    println!("{} bytes, {symbols} symbols, none undefined", elf.len());
    Ok(())
}
