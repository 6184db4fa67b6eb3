//! The shell around the manager: descriptors to events, effects to system calls.
//!
//! ```text
//!  link (exits, signals) ─┐                                              ┌─ clone3 into a cgroup        spawn.rs
//!  timerfd ───────────────┤  events.rs        manager         execute.rs │─ pidfd_send_signal, cgroup.kill
//!  cgroup.events ─────────┼──► Event ──► (State, Effects) ──► Effect ────┤─ rmdir of an empty cgroup
//!  control socket ────────┤                    │                         │─ a reply on the control socket
//!  log pipes ─────────────┘             state memfd (record)             └─ End, over the link
//! ```
//!
//! Invariants. One thread, one wait: between events there are no wake-ups. What the manager decided is in the state memfd
//! before its effects are executed; an exit is acknowledged after that. Of many launches a slice is made at a time, and nobody
//! waits for all of them (`dispatch.rs`). An effect concerns the process that the manager named or nothing: signals go through
//! a pidfd whose identity was checked.

mod about;
mod adopt;
mod ahead;
mod answer;
mod base;
mod by_id;
mod commands;
mod conditions;
mod dispatch;
mod ending;
mod events;
mod execute;
mod fdstore;
mod fence;
mod foreign;
mod forking;
mod generation;
mod health;
mod jobs;
mod journal;
mod link;
mod listen;
mod log;
mod machine;
mod networks;
mod notify;
mod oom;
mod output;
mod outward;
mod phase;
mod policies;
mod pressure;
mod proc;
mod ready;
mod rest;
mod schedule;
mod signals;
mod sockets;
mod spawn;
mod standby;
mod started;
mod streams;
mod survivors;
mod timers;
mod transient;
mod tree;
mod upgrade;
mod watchdog;
pub(crate) mod why;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fmt, fs, io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{CommandFactory, Parser};
use initldr::link::{ExitRecord, LINK_FD, STATE_FD};
use nix::{
    sys::{
        epoll::Epoll,
        timerfd::{ClockId, TimerFd, TimerFlags},
    },
    time::{ClockId as Clock, clock_gettime},
};
use sandbox::{
    cgroup::{Cgroup, Slices},
    compile::{Host, RealHost},
    kernel::Kernel,
    policy::Store,
};
use tracing::level_filters::LevelFilter;

use self::{
    base::Base,
    events::Watching,
    link::Link,
    log::{Log, Stage},
    notify::Readiness,
    phase::{Phase, Words},
    sockets::Sockets,
    streams::Streams,
    timers::Timers,
};
use crate::{
    control::{address, server::Server},
    eventlog::{EventLog, What},
    failpoint,
    graph::{Graph, Id},
    manager::Manager,
    rare::Rare,
    service::{self, Catalog},
    state::Table,
    supervise::{Cause, State},
    sys,
};

/// Manage services
///
/// It is started by initldr, which holds its state and reaps its services.
#[derive(Debug, Parser)]
#[command(name = "motherd", version)]
struct Args {
    /// Put this before all paths
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Look for services here instead; the first folder that has a name wins
    #[arg(long, value_name = "DIR")]
    services: Vec<PathBuf>,
    /// Look for policies here instead; the first folder that has a name wins
    #[arg(long, value_name = "DIR")]
    policies: Vec<PathBuf>,
    /// Which half of a boot; by itself `initramfs` where /etc/initrd-release is there, and else `system`
    #[arg(long, value_enum)]
    phase: Option<Phase>,
    /// The cgroup below which services get theirs (the root of the cgroup2 tree)
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
    /// Do not trust the recorded state: leave what runs alone, and start nothing
    #[arg(long)]
    safe: bool,
    /// Say what can be read of the state on standard input and of the service files, and end
    #[arg(long)]
    check_state: bool,
    /// What motherd has a helper do
    #[arg(long, hide = true, value_name = "JSON")]
    prepare_upgrade: Option<String>,
}

/// The command line of motherd, for its manual page.
pub(crate) fn arguments() -> clap::Command {
    Args::command()
}

/// Why motherd cannot go on. initldr starts it again.
#[derive(Debug, thiserror::Error)]
enum Fatal {
    #[error("not started by initldr: descriptor {0} is not open. Start `initldr --motherd PATH -- ARGS`")]
    NotUnderInitldr(i32),
    #[error(transparent)]
    Link(#[from] link::LinkError),
    #[error("{what}: {source}")]
    System { what: String, source: io::Error },
    #[error("{0}")]
    Kernel(#[from] sandbox::kernel::ProbeError),
    #[error(
        "{} is managed by another motherd{}: one initldr for each; to manage something else give it another --root and \
         --cgroup", folder.display(), initldr.as_ref().map(|pid| format!(" (locked by process {pid})")).unwrap_or_default()
    )]
    Managed { folder: PathBuf, initldr: Option<String> },
    /// No failure: another one is to take over.
    #[error("retired, for another motherd to take over")]
    Retired,
}

impl Fatal {
    fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

/// Where things are, `--root` applied.
#[derive(Debug)]
struct Paths {
    root: PathBuf,
    services: Vec<PathBuf>,
    enabled: PathBuf,
    policies: Vec<PathBuf>,
    run: PathBuf,
    log: PathBuf,
    stamps: PathBuf,
}

impl Paths {
    fn new(args: &Args) -> Self {
        let below = |path: &str| args.root.join(path);
        let or = |given: &[PathBuf], usual: &[&str]| match given {
            [] => usual.iter().map(|path| below(path)).collect(),
            given => given.to_vec(),
        };
        let services = ["etc/motherd/services", "run/motherd/services", "usr/lib/motherd/services"];
        Self {
            services: or(&args.services, &services),
            policies: or(&args.policies, &["etc/motherd/policies", "usr/lib/motherd/policies"]),
            enabled: below(service::enabled::FOLDER),
            run: below("run/motherd"),
            log: below("var/log/motherd"),
            stamps: below("var/lib/motherd/timers"),
            root: args.root.clone(),
        }
    }
}

/// What the kernel has for a service, beside what the manager knows.
#[derive(Debug, Default)]
struct Runtime {
    /// Compiled for the current run, and kept for restarts that nobody asked for.
    planned: Option<policies::Planned>,
    /// Which text of its policy the main process was launched with, as far as that is known.
    policy: Option<policies::Digest>,
    cgroup: Option<Cgroup>,
    /// Where its present run is, below that, where it may have a standby.
    run: Option<Cgroup>,
    /// The process that waits to be the next one.
    waiting: Option<Box<standby::Waiting>>,
    /// Why there is none.
    no_standby: Option<String>,
    /// Whose limits the cgroup has, where runs are below it.
    limited_by: Option<std::sync::Arc<sandbox::Plan>>,
    /// `cgroup.events` of its run, in the epoll set.
    watch: Option<fs::File>,
    /// The main process.
    pidfd: Option<OwnedFd>,
    /// Namespaces of its own, its mounts and its network: they are taken down some time after its end, and not in it.
    namespaces: Vec<OwnedFd>,
    /// The command of its state.
    command: Option<OwnedFd>,
    start_ticks: u64,
    /// initldr keeps a pidfd of it, or of the one before.
    process_kept: bool,
    log: Option<Log>,
    /// Where it says that it is ready, if it does.
    readiness: Option<Readiness>,
    /// Where it writes that it is ready, until it has.
    ready: Option<ready::Ready>,
    /// What it said of its present run.
    said: Rare<notify::Said>,
    /// What it gave away to get it back.
    held: Vec<notify::Held>,
    /// The triggers of its policy that are armed on its cgroup.
    pressure: Vec<pressure::Armed>,
    /// How many of its processes were killed for want of memory, as far as it was said.
    oom_kills: u64,
}

/// Everything.
struct Daemon {
    paths: Paths,
    kernel: Kernel,
    /// The cgroup below which services get theirs.
    base: Base,
    /// While effects are executed: where below it cgroups were made for the same decision.
    slices: Slices,
    store: Store,
    policies: policies::Policies,
    stock: ahead::Stock,
    catalog: Catalog,
    manager: Manager,
    table: Table,
    /// What happened, for `events`.
    events: EventLog,
    /// Between the log pipes and their files.
    stage: Stage,
    /// When which log has to tell of what it dropped.
    log_due: BTreeMap<Id, Duration>,
    /// The group whose members may read: the control socket and the logs.
    readers: Option<u32>,
    sockets: Sockets,
    conditions: conditions::Conditions,
    timers: Timers,
    /// Who is told of it as it happens.
    streams: Streams,
    link: Link,
    epoll: Epoll,
    timer: TimerFd,
    armed: Option<Duration>,
    server: Server,
    watching: Watching,
    /// Each by itself: the nodes of the tree are half empty.
    runtime: BTreeMap<Id, Box<Runtime>>,
    /// What was launched, and has not all that it needs later.
    fresh: started::Fresh,
    searches: forking::Searches,
    jobs: jobs::Jobs,
    leaving: standby::Leaving,
    guarded: notify::Guarded,
    checks: health::Checks,
    /// What was said last of each service, so that every change is said once.
    said: by_id::ById<State>,
    /// Who is told how this boot went.
    outward: outward::Outward,
    /// When what holds the end of everything up is said next.
    report: Option<Duration>,
    watchdog: watchdog::Watchdog,
    rest: rest::Rest,
    turns: dispatch::Turns,
    /// Whose child is on its way.
    flying: Option<spawn::Flying>,
    /// Who may have ended for good since the last look.
    ended: BTreeSet<Id>,
    /// Populated cgroups of services that no file describes: paths below the base.
    orphans: BTreeSet<String>,
    /// In an initramfs: the target that ends it, until it has.
    hands_over_at: Option<Id>,
    transients: transient::Transients,
    installed: upgrade::Installed,
    upgrade: Option<upgrade::Upgrade>,
    /// Which motherd this is.
    about: about::About,
}

impl fmt::Debug for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Daemon").field("manager", &self.manager).finish_non_exhaustive()
    }
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(status) = upgrade::beside(&args) {
        return status;
    }
    let words = Words::read(&args.root);
    tracing_subscriber::fmt()
        .with_max_level(words.level.unwrap_or(LevelFilter::INFO))
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(false)
        .with_timer(SinceBoot)
        .init();
    match run(&args, words) {
        Err(Fatal::Retired) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("motherd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args, words: Words) -> Result<Infallible, Fatal> {
    sys::memory::keep_little();
    // Nothing in motherd ever changes one: signals come over the link.
    if let Err(errno) = sandbox::inherited::dispositions_are_final() {
        tracing::debug!("sigaction: {errno}; launches reset all signals");
    }
    let mut daemon = Daemon::open(args, words)?;
    // What reading the files took.
    daemon.rest.want();
    daemon.run()
}

/// As the kernel's own messages have it.
struct SinceBoot;

impl tracing_subscriber::fmt::time::FormatTime for SinceBoot {
    fn format_time(&self, w: &mut tracing_subscriber::fmt::format::Writer<'_>) -> fmt::Result {
        let now = now();
        write!(w, "[{:5}.{:06}]", now.as_secs(), now.subsec_micros())
    }
}

/// Says something on standard error, however little is said there otherwise.
fn tell(text: &str) {
    // Nobody is left to be told where that is closed.
    drop(io::Write::write_all(&mut io::stderr(), text.as_bytes()));
}

/// CLOCK_BOOTTIME.
fn now() -> Duration {
    clock_gettime(Clock::CLOCK_BOOTTIME).map(Duration::from).expect("the clock exists since Linux 2.6.39")
}

impl Daemon {
    /// Everything up to the point where the first event can come: what ran before is adopted, and the boot target is on
    /// its way.
    fn open(args: &Args, mut words: Words) -> Result<Self, Fatal> {
        let open_files = raise_file_limit();
        nix::sys::prctl::set_child_subreaper(true)
            .map_err(io::Error::from)
            .map_err(Fatal::system("prctl"))?;
        let link = sys::process::inherited(LINK_FD).ok_or(Fatal::NotUnderInitldr(LINK_FD))?;
        let state = sys::process::inherited(STATE_FD).ok_or(Fatal::NotUnderInitldr(STATE_FD))?;
        let link = Link::new(link);
        let paths = Paths::new(args);
        failpoint::arm(&paths.run);
        let mut replay = link.hello()?;
        failpoint::hit("adopt.replayed");
        if replay.pid1 {
            notify::raise_queue();
        }
        let safe = args.safe || replay.safe;
        let installed = upgrade::Installed::find(&paths.root);
        let about = about::About::new(&replay, safe, &installed);
        let readers = readers(&paths);
        fs::create_dir_all(&paths.run).map_err(Fatal::system(format!("make {}", paths.run.display())))?;
        let base = Base::find(args.cgroup.as_deref())?;
        let cgroups = base.unusable.is_none().then_some(base.path.as_path());
        fence::close(&link, &mut replay.stored, &paths.run, cgroups)?;
        failpoint::hit("adopt.fenced");
        let server = control_server(&paths, readers, replay.stored.remove("control"), &link)?;
        failpoint::hit("adopt.control-kept");
        let events = journal::open(&link, replay.stored.remove(journal::SLOT))?;
        let (stage, left) = output::open_stage(&link, &mut replay.stored)?;

        let mut kernel = Kernel::probe(cgroups)?;
        kernel.open_files = open_files.unwrap_or(kernel.open_files);
        base.leave();
        let store = Store::new(paths.policies.clone());
        let (table, found, records) =
            Table::map(&state).map_err(io::Error::from).map_err(Fatal::system("map the state"))?;
        failpoint::hit("adopt.mapped");
        let mut catalog = service::load_with_enabled(&paths.services, &paths.enabled);
        service::make_instances(&mut catalog, adopt::instances(&records, &replay.stored));
        networks::imply_needs(&mut catalog, &store);
        let (graph, catalog) = build(catalog);
        let epoll = Epoll::new(nix::sys::epoll::EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(io::Error::from)
            .map_err(Fatal::system("epoll_create1"))?;
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)
            .map_err(io::Error::from)
            .map_err(Fatal::system("timerfd_create"))?;
        let timers = Timers::new(paths.stamps.clone()).map_err(Fatal::system("make a clock"))?;
        let stock = ahead::Stock::new().map_err(Fatal::system("watch the mounts"))?;
        let mut daemon = Self {
            store,
            policies: policies::Policies::default(),
            stock,
            paths,
            kernel,
            base,
            slices: Slices::default(),
            catalog,
            manager: Manager::new(graph),
            table,
            events,
            stage,
            log_due: BTreeMap::new(),
            readers,
            sockets: Sockets::default(),
            conditions: conditions::Conditions::default(),
            timers,
            streams: Streams::default(),
            link,
            epoll,
            timer,
            armed: None,
            server,
            watching: Watching::default(),
            runtime: BTreeMap::new(),
            fresh: started::Fresh::default(),
            searches: forking::Searches::default(),
            jobs: jobs::Jobs::default(),
            leaving: standby::Leaving::default(),
            guarded: notify::Guarded::default(),
            checks: health::Checks::default(),
            said: by_id::ById::default(),
            outward: outward::Outward::new(std::env::var_os("NOTIFY_SOCKET").as_deref()),
            report: None,
            rest: rest::Rest::default(),
            turns: dispatch::Turns::default(),
            flying: None,
            watchdog: watchdog::Watchdog::new(words.watchdog.take(), replay.stored.remove(watchdog::SLOT)),
            ended: BTreeSet::new(),
            orphans: BTreeSet::new(),
            hands_over_at: None,
            transients: transient::Transients::default(),
            installed,
            upgrade: None,
            about,
        };
        daemon.live();
        daemon.watch_all().map_err(Fatal::system("epoll_ctl"))?;
        let phase = args.phase.unwrap_or_else(|| Phase::of(&args.root));
        if phase == Phase::Initramfs {
            daemon.hands_over_at = daemon.manager.graph().find("initramfs");
        }
        let mut exits = std::mem::take(&mut replay.exits);
        let (booted, ending) = daemon.adopt(safe, replay, found, records, &mut exits, left)?;
        failpoint::hit("adopt.resumed");
        daemon.acknowledge(&exits)?;
        failpoint::hit("adopt.acknowledged");
        daemon.load_transients()?;
        daemon.load_plan();
        if !safe {
            daemon.load_sockets()?;
            daemon.load_timers()?;
        }
        daemon.timers.arm_anew().map_err(Fatal::system("timerfd_settime"))?;
        let target = words.target(phase);
        daemon.announce_later(&target);
        if let Some(how) = ending {
            let cause = Cause::new("the motherd before this one was ending the machine");
            daemon.report_later();
            let effects = daemon.manager.end(how, &cause, now());
            daemon.dispatch(effects)?;
        } else if !booted && !safe {
            daemon.boot_target(&target)?;
        }
        daemon.let_go()?;
        daemon.announce();
        // A motherd before this one may have seen the target come up, and died of it.
        daemon.hand_over()?;
        Ok(daemon)
    }

    /// Starts a service and what it takes, as what this boot is for.
    fn boot(&mut self, id: Id, cause: &Cause) -> Result<(), Fatal> {
        self.note(What::Manager, "", cause);
        let effects = self.manager.boot(id, cause, now());
        // Recorded before it is marked as begun: a motherd that ends in between begins it again, which does no harm.
        self.record();
        failpoint::hit("boot.recorded");
        self.table.set_booted();
        failpoint::hit("boot.marked");
        self.dispatch(effects)
    }

    /// The state of everything that changed goes into the memfd, and each change is said with its cause.
    fn record(&mut self) {
        for id in self.manager.take_touched() {
            let recorded = self.manager.is_to_be_recorded(id);
            if recorded {
                self.write_record(id);
            }
            let unit = self.manager.unit(id);
            let name = self.manager.graph().name(id);
            if recorded && matches!(unit.state, State::Stopped | State::Done | State::Failed) {
                self.ended.insert(id);
            }
            if !self.manager.graph().service(id).sockets().is_empty() {
                self.sockets.changed(id);
            }
            if !self.manager.graph().service(id).conditions().is_empty() {
                self.conditions.changed(id);
            }
            if unit.is_up() {
                self.conditions.hint(now());
            }
            if self.said.get(id) != Some(&unit.state) {
                say(name, unit, &self.manager, id);
                let state = unit.state.clone();
                let before = self.said.insert(id, state.clone());
                self.note_state(id, before.as_ref(), &state);
            }
        }
    }

    fn write_record(&mut self, id: Id) {
        let unit = self.manager.unit(id);
        let name = self.manager.graph().name(id);
        let runtime = self.runtime.get(&id);
        let cgroup = runtime.and_then(|runtime| runtime.run.as_ref().or(runtime.cgroup.as_ref()));
        let waiting = runtime.and_then(|runtime| runtime.waiting.as_ref());
        failpoint::hit("record.write");
        let recorded = self.table.write(&crate::state::Record {
            name: name.to_owned(),
            unit: unit.clone(),
            start_ticks: runtime.map_or(0, |runtime| runtime.start_ticks),
            cgroup_id: cgroup.map_or(0, Cgroup::id),
            policy: runtime.and_then(|runtime| runtime.policy).unwrap_or_default(),
            standby_cgroup_id: waiting.map_or(0, |waiting| waiting.cgroup_id()),
            oom_kills: runtime.map_or(0, |runtime| runtime.oom_kills),
            stale: false,
        });
        self.clear_cells(name, unit);
        if !recorded {
            tracing::error!("{name}: no room for another service in the state");
        }
    }

    /// Who has ended and is not started again by itself says no more: its pipe is emptied, initldr's slots are freed.
    fn let_go(&mut self) -> Result<(), Fatal> {
        for id in std::mem::take(&mut self.ended) {
            let name = self.manager.graph().name(id).to_owned();
            let at_rest = matches!(self.manager.unit(id).state, State::Stopped | State::Done | State::Failed);
            if !at_rest {
                continue;
            }
            let Some(runtime) = self.runtime.get_mut(&id) else {
                self.put_away(id)?;
                continue;
            };
            if std::mem::take(&mut runtime.process_kept) {
                self.link.forget(&spawn::process_slot(&name))?;
                failpoint::hit("settle.process-dropped");
            }
            // A standby says that it is ready where this one did.
            if runtime.waiting.is_none()
                && let Some(readiness) = runtime.readiness.take()
            {
                // In this order: what is kept has its path.
                self.link.forget(&spawn::notify_slot(&name))?;
                readiness.remove();
            }
            self.let_log_go(id, &name)?;
            let program = self.manager.graph().service(id).program();
            if !program.is_some_and(|program| program.notify.fd_store_preserve) {
                self.let_go_of_all(id)?;
            }
            self.put_away(id)?;
        }
        self.settle_conditions()?;
        self.settle_sockets()
    }

    /// What came of these exits is in the state. In safe mode it is not: what ran by a record that is not believed may be
    /// among them, so they are left for the next motherd, and initldr is told from time to time that this one is there.
    fn acknowledge(&mut self, exits: &[ExitRecord]) -> Result<(), Fatal> {
        let Some(sequence) = exits.iter().map(|exit| exit.sequence).max() else { return Ok(()) };
        if self.about.is_safe() {
            self.about.owes_since.get_or_insert(now());
            return Ok(());
        }
        Ok(self.link.acknowledge(sequence)?)
    }
}

fn say(name: &str, unit: &crate::supervise::Unit, manager: &Manager, id: Id) {
    let why = &unit.cause.words;
    match &unit.state {
        State::Running { main } => tracing::info!("{name}: running as {} ({why})", main.pid),
        State::Starting { main, .. } => tracing::info!("{name}: starting as {} ({why})", main.pid),
        State::Done => tracing::info!("{name}: done ({why})"),
        State::Stopped => tracing::info!("{name}: stopped ({why})"),
        State::Waiting => match manager.waits_for(id) {
            Some(obstacle) => tracing::info!("{name}: {obstacle} ({why})"),
            None => tracing::debug!("{name}: waiting ({why})"),
        },
        State::Backoff { until } => {
            let wait = until.saturating_sub(unit.since).as_secs_f64();
            let failing = if unit.history.failing { "failing, " } else { "" };
            tracing::warn!("{name}: {failing}tried again in {wait:.1} s ({why})");
        }
        State::Failed => tracing::error!("{name}: failed ({why})"),
        State::Orphan => tracing::warn!("{name}: orphaned processes ({why})"),
        State::Expecting { .. }
        | State::Preparing { .. }
        | State::Launching
        | State::Forked { .. }
        | State::Settling { .. }
        | State::Stopping { .. }
        | State::Cleaning { .. } => tracing::debug!("{name}: {:?} ({why})", unit.state),
    }
}

/// The services that can be started, in order; everything that is wrong is said, and kept for `status`.
fn build(mut catalog: Catalog) -> (Graph, Catalog) {
    for problem in &catalog.problems {
        tracing::error!("{}", problem.message);
    }
    // The graph has them from here on.
    let services: Vec<_> = std::mem::take(&mut catalog.services).into_values().collect();
    let broken = catalog.broken.keys().cloned().collect();
    let built = Graph::build(services, &broken);
    for warning in &built.warnings {
        tracing::warn!("{warning}");
    }
    catalog.broken.extend(built.refused);
    for (name, report) in &catalog.broken {
        tracing::error!("{name} is not loaded:\n{report}");
    }
    (built.graph, catalog)
}

/// The group whose members may read what root may do: `status` and `logs` show what services write.
fn readers(paths: &Paths) -> Option<u32> {
    const READERS: &str = "motherd";
    RealHost::new(&paths.root).group(READERS).unwrap_or_else(|error| {
        tracing::debug!("{error}: the control socket and the logs are root's alone");
        None
    })
}

/// The control socket: the one that initldr kept, as long as its path is there, so that nobody is ever refused; or a new one,
/// which initldr keeps from now on.
fn control_server(
    paths: &Paths,
    group: Option<u32>,
    kept: Option<OwnedFd>,
    link: &Link,
) -> Result<Server, Fatal> {
    let path = paths.run.join("motherd.sock");
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    let listener = match kept {
        Some(kept) if path.exists() => kept,
        Some(_) | None => {
            let listener = address::listen(&path, mode, group)
                .map_err(Fatal::system(format!("listen on {}", path.display())))?;
            link.store("control", listener.as_fd())?;
            listener
        }
    };
    Server::new(listener).map_err(Fatal::system("control socket"))
}

/// A handful of descriptors for each service, as many services as initldr has slots for.
const OPEN_FILES: u64 = 65_536;

/// Each service costs a handful of descriptors, and what the kernel gives PID 1 and its children, 4096 at most, is not enough
/// for a thousand. Returns the hard limit of before, which is what services are to have.
fn raise_file_limit() -> Option<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| {
        // More than the hard limit takes CAP_SYS_RESOURCE.
        let most = hard.max(OPEN_FILES);
        setrlimit(Resource::RLIMIT_NOFILE, most, most)
            .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard))
            .map(|()| hard)
    });
    if let Err(errno) = raised {
        tracing::warn!(%errno, "the limit on open files stays as it is");
    }
    raised.ok()
}
