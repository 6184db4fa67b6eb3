//! From the death of a service to the first instruction of the next one: `cargo bench -p e2e --bench restart [-- ROUNDS]`, as
//! root.
//!
//! One and the same program, which writes down when its first instruction ran, is started by a bare vfork and exec, by a
//! launch of the sandbox alone, and by a motherd under which it was killed: one that launches, and one where a process waits
//! (`standby = true`). The restart delay is 0, and motherd has the time to make ready what it makes ready.

use std::{
    cell::RefCell,
    ffi::{CStr, CString},
    fs::{self, File},
    os::fd::AsFd,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    arena::{bare_launch, namespaces},
    peers::{native::compiled, report::median},
    programs::Programs,
    scratch::{Scratch, pidfd_of},
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, waitid, waitpid},
    },
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use sandbox::{
    Plan,
    berth::Berth,
    cgroup::Cgroup,
    compile::{Subject, compile},
    kernel::Kernel,
    launch::{Ahead, Launch, launch},
    policy::{Store, load_text},
    template::Template,
};

/// Nothing takes longer.
const LIMIT: Duration = Duration::from_secs(30);
/// What motherd makes ready it makes when nothing else happens.
const QUIET: Duration = Duration::from_millis(150);
/// What `tests/peers/bench.h` calls a stamp.
const STAMP: usize = 16;

fn main() -> Result<()> {
    let rounds: usize = match std::env::args().skip(1).find(|argument| !argument.starts_with('-')) {
        Some(rounds) => rounds.parse().context("ROUNDS is a number")?,
        None => 50,
    };
    let Some(mut scratch) = Scratch::new("restart latency")? else { bail!("run as root") };
    let house = House::new(&scratch)?;
    house.furnish(&scratch)?;
    let programs = Programs::built()?;
    scratch.start_as(&programs.initldr, &programs.motherd, &[])?;
    house.await_stamps(2).with_context(|| scratch.log().unwrap_or_default())?;
    let bench = Bench { sandbox: Sandboxed::new(&house)?, house, scratch };
    let program = CString::new(bench.house.program.as_os_str().as_bytes())?;
    let mut rows = [
        Row::new("vfork + exec, no namespaces"),
        Row::new("vfork + exec, same namespaces"),
        Row::new("a launch, everything inline"),
        Row::new("a launch, from a berth"),
        Row::new("motherd: restart"),
        Row::new("motherd: restart with standby"),
    ];
    for _ in 0..rounds {
        rows[0].add(bench.bare(&program, 0)?);
        rows[1].add(bench.bare(&program, namespaces())?);
        rows[2].add(bench.sandbox.launch(&bench.house, false)?);
        rows[3].add(bench.sandbox.launch(&bench.house, true)?);
        rows[4].add(bench.restart("launched", false)?);
        rows[5].add(bench.restart("released", true)?);
    }
    print(rounds, &rows);
    Ok(())
}

/// Microseconds up to the first instruction: from the request (a call, or kill(2)), and from the death before it.
#[derive(Debug, Clone, Copy)]
struct Took {
    request: f64,
    death: f64,
}

#[derive(Debug)]
struct Row {
    name: &'static str,
    times: Vec<Took>,
}

impl Row {
    fn new(name: &'static str) -> Self {
        Self { name, times: Vec::new() }
    }

    fn add(&mut self, took: Took) {
        self.times.push(took);
    }

    fn medians(&self) -> [f64; 2] {
        let of = |which: fn(&Took) -> f64| {
            let times: Vec<f64> = self.times.iter().map(which).collect();
            median(&times).unwrap_or(f64::NAN)
        };
        [of(|took| took.request), of(|took| took.death)]
    }
}

fn print(rounds: usize, rows: &[Row; 6]) {
    let [bare, _, _, berth, ..] = rows.each_ref().map(|row| row.medians()[0]);
    println!(
        "{rounds} rounds, us to the first instruction, medians: from the request; from the death before it, which the"
    );
    println!("kernel tells its parent; the latter by a bare vfork + exec, and by a launch from a berth");
    for row in rows {
        let [request, death] = row.medians();
        println!("{:32} {request:9.1} {death:9.1}  x{:6.2} x{:6.2}", row.name, death / bare, death / berth);
    }
}

/// CLOCK_MONOTONIC in microseconds, as the services stamp it.
fn now() -> Result<f64> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?).as_secs_f64() * 1e6)
}

/// The program, and where it and everybody can write.
#[derive(Debug)]
struct House {
    folder: PathBuf,
    program: PathBuf,
    policy: String,
}

impl House {
    fn new(scratch: &Scratch) -> Result<Self> {
        let folder = scratch.path("shown");
        fs::create_dir_all(&folder)?;
        let stamps = folder.join("stamps");
        File::create(&stamps)?;
        fs::set_permissions(&stamps, fs::Permissions::from_mode(0o666))?;
        let define = format!("-DSTAMPS=\"{}\"", stamps.display());
        let program = compiled("service", Some(&define), "restarted")?;
        let (shown, programs) = (folder.display(), program.parent().context("it is in a folder")?.display());
        let policy = format!(
            "extends = [\"base/default\"]\n[filesystem]\nread_write = [\"{shown}\"]\n[landlock]\n\
             read = {{ add = [\"{shown}\", \"{programs}\"] }}\nwrite = {{ add = [\"{shown}\"] }}\nexecute = {{ add = [\"{programs}\"] }}\n"
        );
        Ok(Self { folder, program, policy })
    }

    /// Two services that differ in one thing.
    fn furnish(&self, scratch: &Scratch) -> Result<()> {
        scratch.policy("restarted", &self.policy)?;
        for (name, standby) in [("launched", false), ("released", true)] {
            let program = self.program.display();
            let text = format!(
                "exec = [\"{program}\"]\npolicy = \"restarted\"\nstandby = {standby}\n[restart]\nwhen = \"always\"\n\
                 delay = \"0s\"\nfactor = 1.0\nlimit = 1000000\n"
            );
            scratch.service(name, &text)?;
        }
        scratch.service("system", "[dependencies]\nwants = [\"launched\", \"released\"]\n").map(drop)
    }

    fn stamps(&self) -> Result<Vec<f64>> {
        let bytes = fs::read(self.folder.join("stamps"))?;
        let time =
            |stamp: &[u8]| stamp[8..].iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
        Ok(bytes.chunks_exact(STAMP).map(|stamp| time(stamp) as f64 / 1e3).collect())
    }

    fn count(&self) -> Result<usize> {
        Ok(self.stamps()?.len())
    }

    /// The last of so many stamps.
    fn await_stamps(&self, count: usize) -> Result<f64> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let stamps = self.stamps()?;
            if let Some(last) = stamps.get(count - 1) {
                ensure!(stamps.len() == count, "somebody else began");
                return Ok(*last);
            }
            ensure!(Instant::now() < deadline, "{} of {count} began", stamps.len());
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Launches without a manager.
struct Sandboxed {
    plan: Arc<Plan>,
    template: Arc<Template>,
    base: PathBuf,
    null: File,
}

impl Sandboxed {
    fn new(house: &House) -> Result<Self> {
        let shipped = Store::new(vec![e2e::workspace().join("policies")]);
        let policy = load_text(Path::new("restarted.toml"), &house.policy, &shipped)?;
        let kernel = Kernel::probe(None)?;
        let plan = compile(
            &policy,
            &Subject { name: "restarted".to_owned(), root: "/".into(), sockets: vec![] },
            &kernel,
        )?;
        let template = Template::build(&plan)?.context("base/default has a template")?;
        let base = kernel.cgroup_base.context("no cgroup2 tree is mounted")?;
        let base = base.join(format!("restart-bench-{}", std::process::id()));
        Ok(Self { plan, template, base, null: File::options().read(true).write(true).open("/dev/null")? })
    }

    fn launch(&self, house: &House, from_berth: bool) -> Result<Took> {
        let count = house.count()?;
        let berth = from_berth.then(|| Berth::make(&self.plan, &self.template)).transpose()?.flatten();
        ensure!(berth.is_some() == from_berth, "there is no berth of this plan");
        let berth = RefCell::new(berth);
        let ahead = Ahead { berth: from_berth.then_some(&berth), ..Ahead::default() };
        let argv = [house.program.to_str().context("a path that is text")?.to_owned()];
        let null = self.null.as_fd();
        thread::sleep(QUIET);
        let begin = now()?;
        let cgroup = Cgroup::create(&self.base, "restarted.service", &self.plan)?;
        let launched = launch(&Launch {
            cgroup: Some(&cgroup),
            ahead,
            ..Launch::new(&self.plan, &argv, [null, null, null])
        })?;
        let took = house.await_stamps(count + 1)? - begin;
        cgroup.kill()?;
        waitid(Id::PIDFd(launched.pidfd.as_fd()), WaitPidFlag::WEXITED)?;
        cgroup.remove()?;
        Ok(Took { request: took, death: took })
    }
}

impl Drop for Sandboxed {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.base) {
            eprintln!("cannot remove {}: {error}", self.base.display());
        }
    }
}

struct Bench {
    sandbox: Sandboxed,
    house: House,
    scratch: Scratch,
}

impl Bench {
    fn bare(&self, program: &CStr, namespaces: i32) -> Result<Took> {
        let count = self.house.count()?;
        thread::sleep(QUIET);
        let begin = now()?;
        let pid = bare_launch(program, namespaces)?;
        let took = self.house.await_stamps(count + 1)? - begin;
        kill(pid, Signal::SIGKILL)?;
        waitpid(pid, None)?;
        Ok(Took { request: took, death: took })
    }

    /// Kills the main process of a service, once all is ready for the next.
    fn restart(&self, service: &str, standby: bool) -> Result<Took> {
        let main = self.scratch.eventually(&format!("{service} runs"), |scratch| {
            let status = scratch.status(service)?;
            let ready = !standby || status["standby"]["ready"] == true;
            Ok(status["main_pid"].as_u64().filter(|_| ready && status["state"] == "running"))
        })?;
        let count = self.house.count()?;
        let pid = i32::try_from(main)?;
        let pidfd = pidfd_of(pid)?;
        thread::sleep(QUIET);
        let begin = now()?;
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
        let dead = now()?;
        let first = self.house.await_stamps(count + 1)?;
        Ok(Took { request: first - begin, death: first - dead })
    }
}
