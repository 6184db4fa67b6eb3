//! [`launch`]: one confined child, born into its cgroup, or an error that names the place in the policy; [`Underway`]: the same
//! while its launcher does something else.

use std::{
    cell::RefCell,
    ffi::CString,
    fmt,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    sys::wait::{Id, WaitPidFlag, waitid},
};

use crate::{
    apply::{self, Context, Mounts, Notes, Outcome},
    berth::Berth,
    cgroup::Cgroup,
    compile::landlock::ruleset,
    credentials::Secret,
    inherited,
    netpool::{Network, PooledNetwork},
    plan::{CredentialPlan, Op, Owner, Phase, Plan, Step, TemplatePlan, UserNamespacePlan},
    sys::{
        clone::{self, Flight},
        parked,
        raw::PointerArray,
    },
    template::{Template, TemplateMeanwhile},
    timings::Timings,
    userns::UserNamespace,
};

/// Whose child the service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// The caller's: it reaps.
    Caller,
    /// The caller's parent's (CLONE_PARENT): initldr reaps, and the caller's death changes nothing.
    CallersParent,
}

/// The first descriptor that [`Handed::listen`] becomes (sd_listen_fds(3), SD_LISTEN_FDS_START).
const LISTEN_START: RawFd = 3;

/// Descriptors for the child beside stdin, stdout and stderr, and variables that only it can fill in.
#[derive(Debug, Clone, Copy, Default)]
pub struct Handed<'a> {
    /// By their names, from descriptor 3 on: LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PID tell of them (sd_listen_fds(3)).
    pub listen: &'a [(&'a str, BorrowedFd<'a>)],
    /// At a number of its own, told of by nobody: a descriptor for readiness.
    pub at: Option<(RawFd, BorrowedFd<'a>)>,
    /// Variables that hold the child's own pid, as it sees itself: WATCHDOG_PID.
    pub own_pid: &'a [&'a str],
}

/// What was made before a launch. Without any of it everything is made in the launch; the service sees no difference.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ahead<'a> {
    /// One that [is of](Template::is_of) the plan.
    pub template: Option<&'a Arc<Template>>,
    /// One that is being built for this launch; a launch takes it out, and needs no other then.
    pub meanwhile: Option<&'a RefCell<Option<TemplateMeanwhile>>>,
    /// For a plan that [takes one](Plan::takes_network); a launch takes it out.
    pub network: Option<&'a RefCell<Option<PooledNetwork>>>,
    /// One that [is of](Berth::is_of) the plan; a launch takes it out, and needs neither of the others then.
    pub berth: Option<&'a RefCell<Option<Berth>>>,
}

/// What to launch.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// The compiled policy.
    pub plan: &'a Arc<Plan>,
    /// The program, absolute, and its arguments.
    pub argv: &'a [String],
    /// Other programs that are meant, absolute as well: where one is not there, or cannot be executed, the next is tried, as
    /// execvp(3) does along PATH. Each is its own first argument.
    pub others: &'a [String],
    /// Added to the plan's environment; a name given here wins.
    pub environment: &'a [(String, String)],
    /// stdin, stdout, stderr.
    pub stdio: [BorrowedFd<'a>; 3],
    /// What it gets beside them.
    pub handed: Handed<'a>,
    /// Born into this cgroup, which was made for the plan; `None` stays in the caller's, and nothing of `[cgroup]` applies.
    pub cgroup: Option<&'a Cgroup>,
    /// A pidfd of the process whose network it joins, for a plan that does ([`Plan::network_of`]); it must not have been
    /// reaped.
    pub network: Option<BorrowedFd<'a>>,
    /// What was made before, to make this faster.
    pub ahead: Ahead<'a>,
    /// Whose child it is.
    pub parent: Parent,
    /// The kernel writes the pid here before the child's first instruction; in a shared mapping it survives the caller.
    pub pid_cell: Option<&'a AtomicU32>,
    /// Where the time that it takes is noted.
    pub timings: Option<&'a Timings>,
}

impl<'a> Launch<'a> {
    /// A child of the caller's, in the caller's cgroup, with nothing but what its plan gives it.
    #[must_use]
    pub fn new(plan: &'a Arc<Plan>, argv: &'a [String], stdio: [BorrowedFd<'a>; 3]) -> Self {
        Self {
            plan,
            argv,
            others: &[],
            environment: &[],
            stdio,
            handed: Handed::default(),
            cgroup: None,
            network: None,
            ahead: Ahead::default(),
            parent: Parent::Caller,
            pid_cell: None,
            timings: None,
        }
    }
}

/// A service that has exec'd.
#[derive(Debug)]
pub struct Launched {
    /// Its pid, as the caller sees it.
    pub pid: u32,
    /// pidfd_open(2): its identity.
    pub pidfd: OwnedFd,
    /// Its mounts, where these were in a [`Berth`]. Who holds them until its process has ended is told of that end before
    /// they are taken down, which takes as long as a good part of a launch.
    pub mounts: Option<OwnedFd>,
}

/// Which part of a launch failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchFailure {
    /// The sandbox could not be built: nothing was executed.
    Sandbox,
    /// The program is there and cannot be executed.
    NotExecutable,
    /// The program, or the interpreter it names, is not there.
    NotFound,
}

/// A launch that did not take place. Displays as `web-server.toml:14:12: landlock: /srv/www: ENOENT`.
#[derive(Debug, Clone)]
pub struct LaunchError {
    kind: LaunchFailure,
    message: String,
    errno: Errno,
    /// The pid that the child had; 0 where there was none.
    pid: u32,
    /// The template is not what would be built now.
    stale: bool,
}

impl LaunchError {
    /// Which part failed.
    #[must_use]
    pub fn kind(&self) -> LaunchFailure {
        self.kind
    }

    /// What the kernel said.
    #[must_use]
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// The pid of the child that ended before exec, whose exit its parent sees; 0 where clone3 itself failed.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What was ready is not what would be made now: a launch that finds nothing ready may take place.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    pub(crate) fn parent_side(what: &str, errno: Errno) -> Self {
        Self { kind: LaunchFailure::Sandbox, message: what.to_owned(), errno, pid: 0, stale: false }
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.message, self.errno)
    }
}

impl std::error::Error for LaunchError {}

/// Launches a service; returns once it has exec'd.
///
/// # Errors
/// Nothing runs then: the child ended at the step that failed, and for [`Parent::Caller`] it is reaped.
pub fn launch(request: &Launch<'_>) -> Result<Launched, LaunchError> {
    launch_with(request, Fault::default())
}

/// In tests a step of the child or a call of the parent that shall fail, and how; outside tests nothing can be asked.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fault {
    #[cfg(test)]
    pub(crate) at: Option<(u32, Errno)>,
    #[cfg(test)]
    pub(crate) call: Option<(&'static str, Errno)>,
}

impl Fault {
    /// Stands before each call of the parent that can fail.
    pub(crate) fn refuses(self, call: &'static str) -> Result<(), Errno> {
        #[cfg(test)]
        if let Some((named, errno)) = self.call
            && named == call
        {
            return Err(errno);
        }
        // Outside tests the name is not looked at.
        let _: &str = call;
        Ok(())
    }

    fn tells(self, call: &'static str) -> Result<(), LaunchError> {
        self.refuses(call).map_err(|errno| LaunchError::parent_side(call, errno))
    }
}

pub(crate) fn launch_with(request: &Launch<'_>, fault: Fault) -> Result<Launched, LaunchError> {
    launch_in(request, None, fault)
}

/// `beside` is the pidfd whose namespaces [`crate::plan::Op::Enter`] enters.
pub(crate) fn launch_in(
    request: &Launch<'_>,
    beside: Option<RawFd>,
    fault: Fault,
) -> Result<Launched, LaunchError> {
    begin(request, beside, None, fault)
}

/// `parking` is what is executed in the place of the program, with what it is to be given.
pub(crate) fn begin(
    request: &Launch<'_>,
    beside: Option<RawFd>,
    parking: Option<&Parking<'_>>,
    fault: Fault,
) -> Result<Launched, LaunchError> {
    let berth = request.ahead.berth.and_then(RefCell::take);
    if let Some(berth) = berth {
        match launch_from(request, From::Berth(&berth), beside, parking, fault) {
            // Something on the host was renamed since it was made.
            Err(error) if error.stale => {}
            answer => {
                return answer.map(|launched| Launched { mounts: Some(berth.into_mounts()), ..launched });
            }
        }
    }
    if let Some(template) = request.ahead.meanwhile.and_then(RefCell::take) {
        match launch_from(request, From::Meanwhile(&template), beside, parking, fault) {
            // It could not be built, or something on the host was renamed since.
            Err(error) if error.stale => {}
            answer => return answer,
        }
    }
    if let Some(template) = request.ahead.template {
        match launch_from(request, From::Template(template), beside, parking, fault) {
            Err(error) if error.stale => template.found_stale(),
            answer => return answer,
        }
    }
    launch_from(request, From::Nothing, beside, parking, fault)
}

/// What a launch finds ready.
#[derive(Debug, Clone, Copy)]
enum From<'a> {
    Nothing,
    Template(&'a Template),
    Meanwhile(&'a TemplateMeanwhile),
    Berth(&'a Berth),
}

impl<'a> From<'a> {
    /// The steps that are left to do, and the namespaces that clone3 makes (CLONE_NEW*).
    fn left(self, plan: &Plan) -> Result<(Arc<[Step]>, u64), LaunchError> {
        let refused = |what| Err(LaunchError::parent_side(what, Errno::EINVAL));
        match (self, &plan.template) {
            (Self::Nothing, _) => Ok((plan.steps.in_one(), plan.namespaces)),
            (Self::Template(template), Some(parts)) if template.is_of(plan) => {
                Ok((parts.launch.in_one(), parts.namespaces))
            }
            (Self::Meanwhile(template), Some(parts)) if template.is_of(plan) => {
                Ok((parts.launch.in_one(), parts.namespaces))
            }
            (Self::Template(_) | Self::Meanwhile(_), _) => refused("template of another plan"),
            (Self::Berth(berth), Some(TemplatePlan { berth: Some(parts), .. })) if berth.is_of(plan) => {
                Ok((parts.launch.in_one(), parts.namespaces))
            }
            (Self::Berth(_), _) => refused("berth of another plan"),
        }
    }

    fn notes(self) -> &'a Arc<Notes> {
        match self {
            Self::Nothing => Notes::none(),
            Self::Template(template) => template.notes(),
            Self::Meanwhile(template) => template.notes(),
            Self::Berth(berth) => berth.notes(),
        }
    }
}

/// What a process is that waits right before execve ([`crate::standby`]).
#[derive(Debug)]
pub(crate) struct Parking<'a> {
    /// What it executes in the meantime.
    pub(crate) image: BorrowedFd<'a>,
    /// By these it is told what to execute.
    pub(crate) gate: BorrowedFd<'a>,
    /// See above.
    pub(crate) order: BorrowedFd<'a>,
}

impl Parking<'_> {
    /// What is done once it is told to go on is left out.
    fn steps(steps: &[Step]) -> Arc<[Step]> {
        let waits = |phase| matches!(phase, Phase::Landlock | Phase::Signals | Phase::Seccomp);
        steps.iter().filter(|step| !waits(step.phase)).cloned().collect()
    }
}

fn launch_from(
    request: &Launch<'_>,
    from: From<'_>,
    beside: Option<RawFd>,
    parking: Option<&Parking<'_>>,
    fault: Fault,
) -> Result<Launched, LaunchError> {
    go(request, prepare(request, from, beside, parking, fault)?, fault)
}

/// Makes the child and waits for it.
fn go(request: &Launch<'_>, prepared: Prepared, fault: Fault) -> Result<Launched, LaunchError> {
    let mark = |what| request.timings.into_iter().for_each(|timings| timings.mark(what));
    let Prepared { carried, namespaces, pooled: _pooled } = prepared;
    let (own_cell, context) = (AtomicU32::new(0), carried.context(request.timings));
    let clone = clone_request(request, namespaces, &own_cell);
    fault.tells("clone3")?;
    let pidfd = clone::vfork_into(&clone, &context, |context| apply::run(context))
        .map_err(|errno| LaunchError::parent_side("clone3", errno))?;
    let pid = clone.pid_cell.load(Ordering::Acquire);
    request.timings.into_iter().for_each(|timings| timings.stepped_through(&carried.steps));
    mark("execve");
    match carried.outcome.failure() {
        None => Ok(Launched { pid, pidfd, mounts: None }),
        Some(failure) => {
            let programs: Vec<&String> = request.argv.iter().take(1).chain(request.others).collect();
            Err(failed(request.plan, &carried, &programs, failure, (request.parent, pid, &pidfd)))
        }
    }
}

fn clone_request<'a>(request: &Launch<'a>, namespaces: u64, own_cell: &'a AtomicU32) -> clone::Request<'a> {
    clone::Request {
        namespaces,
        cgroup: request.cgroup.map(|cgroup| cgroup.directory().as_raw_fd()),
        relation: match request.parent {
            Parent::Caller => clone::Relation::Caller,
            Parent::CallersParent => clone::Relation::CallersParent,
        },
        pid_cell: request.pid_cell.unwrap_or(own_cell),
        shares_descriptors: true,
    }
}

/// What the child said, of which of the programs; for [`Parent::Caller`] it is reaped.
fn failed(
    plan: &Plan,
    carried: &Carried,
    programs: &[&String],
    (step, errno): (u32, Errno),
    (parent, pid, pidfd): (Parent, u32, &OwnedFd),
) -> LaunchError {
    if parent == Parent::Caller {
        reap(pidfd);
    }
    let other = step.checked_sub(apply::OTHER).and_then(|at| usize::try_from(at).ok());
    let other = other.and_then(|at| programs.get(at.checked_add(1)?));
    let (program, step) = match other {
        Some(program) => (Some(*program), apply::EXEC),
        None => (programs.first().copied(), step),
    };
    explain(plan, &carried.steps, program, step, errno, pid)
}

/// A launch whose child is on its way, in this process's memory but on its own, while this process does something else.
///
/// What may be changed meanwhile: everything but what was handed over for it here. Whoever drops one waits for its end.
///
/// Where a plan asks for another score for the OOM killer than its launcher has, the launch is waited for at once: the kernel
/// writes it to all that share the memory of who writes it, but for a child that CLONE_VFORK holds its parent for
/// (`__set_oom_adj` in fs/proc/base.c).
#[derive(Debug)]
pub struct Underway(Stage);

#[derive(Debug)]
enum Stage {
    Flying(Box<Flying>),
    Landed(Result<Launched, LaunchError>),
}

#[derive(Debug)]
struct Flying {
    /// The first of the fields: what the others are is needed until it has landed.
    flight: Flight<Carried>,
    plan: Arc<Plan>,
    program: Option<String>,
    parent: Parent,
    pid: u32,
    ready: Ready,
    /// The child has its own copy, but only when it has begun.
    _network: Option<OwnedFd>,
}

/// What was ready for it.
#[derive(Debug)]
struct Ready {
    template: Option<Arc<Template>>,
    berth: Option<Berth>,
    _pooled: Option<PooledNetwork>,
}

impl Underway {
    /// Begins a launch, with what is ready; [`LaunchError::is_stale`] tells of what was not as it should be, here or in
    /// [`Underway::launched`].
    ///
    /// Neither [`Launch::others`] nor [`Ahead::meanwhile`] nor [`Launch::timings`] is for this: they are left out.
    ///
    /// # Errors
    /// Nothing runs then.
    pub fn begin(request: &Launch<'_>) -> Result<Self, LaunchError> {
        Self::begin_with(request, Fault::default())
    }

    pub(crate) fn begin_with(request: &Launch<'_>, fault: Fault) -> Result<Self, LaunchError> {
        let network = request.network.map(|process| copy_above(process, 0)).transpose()?;
        let berth = request.ahead.berth.and_then(RefCell::take);
        let template = request.ahead.template.filter(|_| berth.is_none()).cloned();
        let from = match (&berth, &template) {
            (Some(berth), _) => From::Berth(berth),
            (None, Some(template)) => From::Template(template),
            (None, None) => From::Nothing,
        };
        let request =
            &Launch { network: network.as_ref().map(AsFd::as_fd), others: &[], timings: None, ..*request };
        let prepared = prepare(request, from, None, None, fault)?;
        if prepared.carried.changes_score() {
            let launched = go(request, prepared, fault);
            return Ok(Self(Stage::Landed(Ready { template, berth, _pooled: None }.tell(launched))));
        }
        let Prepared { carried, namespaces, pooled } = prepared;
        let own_cell = AtomicU32::new(0);
        let clone = clone_request(request, namespaces, &own_cell);
        fault.tells("clone3")?;
        let flight = Flight::begin(&clone, carried, |carried: &Carried| apply::run(&carried.context(None)))
            .map_err(|errno| LaunchError::parent_side("clone3", errno))?;
        let pid = clone.pid_cell.load(Ordering::Acquire);
        Ok(Self(Stage::Flying(Box::new(Flying {
            flight,
            plan: request.plan.clone(),
            program: request.argv.first().cloned(),
            parent: request.parent,
            pid,
            ready: Ready { template, berth, _pooled: pooled },
            _network: network,
        }))))
    }

    /// Waits until it has exec'd.
    ///
    /// # Errors
    /// As for [`launch`], but that one is stale where that would have launched without what was ready.
    pub fn launched(self) -> Result<Launched, LaunchError> {
        let flying = match self.0 {
            Stage::Landed(launched) => return launched,
            Stage::Flying(flying) => *flying,
        };
        let Flying { flight, plan, program, parent, pid, ready, _network } = flying;
        let (pidfd, carried) = flight.landed();
        ready.tell(match carried.outcome.failure() {
            None => Ok(Launched { pid, pidfd, mounts: None }),
            Some(failure) => {
                let programs: Vec<&String> = program.iter().collect();
                Err(failed(&plan, &carried, &programs, failure, (parent, pid, &pidfd)))
            }
        })
    }
}

impl Ready {
    /// How the launch went that had it.
    fn tell(self, launched: Result<Launched, LaunchError>) -> Result<Launched, LaunchError> {
        match launched {
            Ok(launched) => Ok(Launched { mounts: self.berth.map(Berth::into_mounts), ..launched }),
            Err(error) => {
                if error.stale {
                    self.template.iter().for_each(|template| template.found_stale());
                }
                Err(error)
            }
        }
    }
}

/// All that a child uses, its own: it is there whoever waits for it.
#[derive(Debug)]
struct Carried {
    steps: Arc<[Step]>,
    stdio: [OwnedFd; 3],
    handed: Placed,
    beside: Option<RawFd>,
    ruleset: Option<OwnedFd>,
    oom_score_adj: Option<Box<[u8]>>,
    credentials: Vec<Option<Secret>>,
    owner: Owner,
    namespaces: Option<UserNamespace>,
    network: Option<RawFd>,
    pooled: Option<Network>,
    template: Option<Mounts>,
    berth: [(i32, Option<RawFd>); 3],
    notes: Arc<Notes>,
    noted: &'static Notes,
    id_maps: Vec<UserNamespace>,
    program: Option<RawFd>,
    argv: PointerArray,
    others: Vec<PointerArray>,
    envp: PointerArray,
    outcome: Outcome,
    #[cfg(test)]
    fault: Option<(u32, Errno)>,
}

impl Carried {
    /// Whether the child will write another score for the OOM killer than the launcher has.
    fn changes_score(&self) -> bool {
        let has = |text: &[u8]| self.oom_score_adj.as_deref() == Some(text);
        self.steps.iter().any(|step| matches!(&step.op, Op::OomScoreAdj(text) if !has(text)))
    }

    /// As the child takes it. Nothing is allocated for this.
    fn context<'a>(&'a self, timings: Option<&'a Timings>) -> Context<'a> {
        Context {
            steps: &self.steps,
            stdio: [self.stdio[0].as_raw_fd(), self.stdio[1].as_raw_fd(), self.stdio[2].as_raw_fd()],
            handed: &self.handed.moves,
            beside: self.beside,
            ruleset: self.ruleset.as_ref().map(AsRawFd::as_raw_fd),
            oom_score_adj: self.oom_score_adj.as_deref(),
            credentials: &self.credentials,
            owner: Some(&self.owner),
            namespaces: self.namespaces.as_ref(),
            network: self.network,
            pooled: self.pooled,
            template: self.template,
            berth: self.berth,
            notes: &self.notes,
            noted: self.noted,
            id_maps: &self.id_maps,
            program: self.program,
            argv: &self.argv,
            others: &self.others,
            envp: &self.envp,
            outcome: &self.outcome,
            timings,
            #[cfg(test)]
            fault: self.fault,
        }
    }
}

/// A child that can be made.
struct Prepared {
    carried: Carried,
    /// CLONE_NEW*
    namespaces: u64,
    /// Its network, where it was made before.
    pooled: Option<PooledNetwork>,
}

fn prepare(
    request: &Launch<'_>,
    from: From<'_>,
    beside: Option<RawFd>,
    parking: Option<&Parking<'_>>,
    fault: Fault,
) -> Result<Prepared, LaunchError> {
    let plan = request.plan;
    let (steps, mut namespaces_of_clone) = from.left(plan)?;
    let pooled = match from {
        // It has one.
        From::Berth(_) => None,
        From::Nothing | From::Template(_) | From::Meanwhile(_) => {
            request.ahead.network.and_then(RefCell::take).filter(|_| plan.takes_network())
        }
    };
    let steps = if parking.is_some() { Parking::steps(&steps) } else { steps };
    if pooled.is_some() {
        namespaces_of_clone &= !u64::from(libc::CLONE_NEWNET.cast_unsigned());
    }
    if let (Some(joined), None) = (&plan.network_of, request.network) {
        let place = plan.sources.locate(&joined.at);
        let message = format!("{place}: setns: the network of {}: its process was not given", joined.value);
        return Err(LaunchError::parent_side(&message, Errno::EINVAL));
    }
    let argv = PointerArray::new(c_strings("argument", request.argv.iter().cloned())?);
    let arguments = request.argv.get(1..).unwrap_or_default();
    let others: Result<Vec<_>, _> =
        request.others.iter().map(|program| arguments_of(program, arguments)).collect();
    let others = others?;
    let envp = match parking {
        None => environment(plan, request)?,
        Some(_) => PointerArray::new(Vec::new()),
    };
    let mut handed = match parking {
        None => Placed::prepare(request.handed)?,
        Some(parking) => {
            let targets = vec![(parked::GATE, parking.gate), (parked::ORDER, parking.order)];
            Placed::at(targets, parked::RULESET + 1)?
        }
    };
    let mark = |what| request.timings.into_iter().for_each(|timings| timings.mark(what));
    mark("argv, environment");
    fault.tells("landlock")?;
    let ruleset = match &plan.landlock {
        Some(landlock) => Some(ruleset(landlock).map_err(|error| {
            let errno = Errno::last();
            LaunchError::parent_side(&format!("landlock: {error}"), errno)
        })?),
        None => None,
    };
    // The child uses it after the descriptors are in place, so it must not be where one of them goes.
    let ruleset = match ruleset {
        Some(ruleset) if ruleset.as_raw_fd() < handed.free => Some(copy_above(ruleset.as_fd(), handed.free)?),
        other => other,
    };
    if let (Some(_), Some(ruleset)) = (parking, &ruleset) {
        handed.moves.push((ruleset.as_raw_fd(), parked::RULESET));
    }
    mark("landlock ruleset");
    fault.tells("stdio")?;
    let stdio = request.stdio.map(|fd| copy_above(fd, handed.free));
    let [stdin, stdout, stderr] = stdio;
    let stdio = [stdin?, stdout?, stderr?];
    let namespaces = plan.user_namespace.as_ref().map(|wanted| user_namespace(plan, wanted)).transpose()?;
    let id_maps: Result<Vec<_>, _> = plan.id_maps.iter().map(|wanted| user_namespace(plan, wanted)).collect();
    let credentials: Result<Vec<_>, _> = plan.credentials.iter().map(|wanted| secret(plan, wanted)).collect();
    // Asking costs a call.
    let has_score = steps.iter().any(|step| matches!(step.op, Op::OomScoreAdj(_)));
    let carried = Carried {
        stdio,
        handed,
        beside,
        ruleset,
        oom_score_adj: has_score.then(inherited::oom_score_adj).flatten(),
        credentials: credentials?,
        owner: plan.owner(),
        namespaces,
        network: request.network.map(|process| process.as_raw_fd()),
        pooled: pooled.as_ref().map(|network| network.within(&steps)),
        template: match from {
            From::Template(template) => Some(Mounts::OfAll(template.namespace())),
            From::Meanwhile(template) => Some(Mounts::Arrive(template.socket())),
            From::Nothing | From::Berth(_) => None,
        },
        berth: match from {
            From::Berth(berth) => berth.namespaces(),
            From::Nothing | From::Template(_) | From::Meanwhile(_) => [(0, None); 3],
        },
        notes: from.notes().clone(),
        noted: Notes::none(),
        id_maps: id_maps?,
        program: parking.map(|parking| parking.image.as_raw_fd()),
        argv,
        others,
        envp,
        outcome: Outcome::new(),
        #[cfg(test)]
        fault: fault.at,
        steps,
    };
    mark("stdio, credentials, user namespace");
    Ok(Prepared { carried, namespaces: namespaces_of_clone, pooled })
}

/// Reads a credential; where that fails the error names the place in the policy.
fn secret(plan: &Plan, wanted: &CredentialPlan) -> Result<Option<Secret>, LaunchError> {
    Secret::read(wanted).map_err(|errno| {
        let place = plan.sources.locate(&wanted.at);
        LaunchError::parent_side(&format!("{place}: credential {}: {}", wanted.name, wanted.file), errno)
    })
}

/// Makes a user namespace; where that fails the error names the place in the policy.
fn user_namespace(plan: &Plan, wanted: &UserNamespacePlan) -> Result<UserNamespace, LaunchError> {
    UserNamespace::make(wanted).map_err(|(what, errno)| {
        LaunchError::parent_side(&format!("{}: {what}", plan.sources.locate(&wanted.at)), errno)
    })
}

/// The child is gone already (its exit is what made clone3 return); this takes its status away.
fn reap(pidfd: &OwnedFd) {
    if let Err(errno) = waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED) {
        tracing::warn!(?errno, "waitid of a child that never exec'd");
    }
}

/// The step's place, name and object in front of what the kernel said.
pub(crate) fn explain(
    plan: &Plan,
    steps: &[Step],
    program: Option<&String>,
    step: u32,
    errno: Errno,
    pid: u32,
) -> LaunchError {
    let program = program.map_or("", String::as_str);
    if step == apply::OWN_DESCRIPTORS {
        let message = "close_range: descriptors of its own".to_owned();
        return LaunchError { kind: LaunchFailure::Sandbox, message, errno, pid, stale: false };
    }
    let step = usize::try_from(step).ok().and_then(|step| steps.get(step));
    let stale = step.is_some_and(|step| {
        // The second: none has arrived.
        matches!(step.op, Op::StillMounted { .. })
            || matches!(step.op, Op::EnterTemplate) && errno == Errno::ESTALE
    });
    let (kind, message) = match step {
        Some(step) => {
            let place =
                step.at.as_ref().map(|at| format!("{}: ", plan.sources.locate(at))).unwrap_or_default();
            let object = plan.object(step);
            let object = if object.is_empty() { String::new() } else { format!(": {object}") };
            (LaunchFailure::Sandbox, format!("{place}{}{object}", step.op.name()))
        }
        None if errno == Errno::ENOENT => (LaunchFailure::NotFound, format!("execve {program}")),
        None => (LaunchFailure::NotExecutable, format!("execve {program}")),
    };
    LaunchError { kind, message, errno, pid, stale }
}

/// A program and what it is given.
fn arguments_of(program: &String, arguments: &[String]) -> Result<PointerArray, LaunchError> {
    let all = std::iter::once(program).chain(arguments).cloned();
    Ok(PointerArray::new(c_strings("argument", all)?))
}

/// The plan's variables, what the launcher adds, and what tells of the descriptors; a later name wins.
fn environment(plan: &Plan, request: &Launch<'_>) -> Result<PointerArray, LaunchError> {
    let (strings, pids) = variables(plan, request.environment, request.handed)?;
    Ok(PointerArray::with_own_pid(strings, &pids))
}

/// The same, and the names of those that hold the process's own pid.
pub(crate) fn variables<'a>(
    plan: &Plan,
    environment: &[(String, String)],
    handed: Handed<'a>,
) -> Result<(Vec<CString>, Vec<&'a str>), LaunchError> {
    const OF_LISTENING: [&str; 3] = ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"];
    let Handed { listen, own_pid, .. } = handed;
    let mut pids = own_pid.to_vec();
    let mut told = Vec::new();
    if !listen.is_empty() {
        let names: Vec<&str> = listen.iter().map(|(name, _)| *name).collect();
        told.push(("LISTEN_FDS".to_owned(), listen.len().to_string()));
        told.push(("LISTEN_FDNAMES".to_owned(), names.join(":")));
        pids.push("LISTEN_PID");
    }
    let added = environment.iter().chain(&told);
    let replaced = |name: &String| {
        added.clone().any(|(other, _)| other == name)
            || pids.contains(&name.as_str())
            || (!listen.is_empty() && OF_LISTENING.contains(&name.as_str()))
    };
    let kept = plan.environment.iter().filter(|(name, _)| !replaced(name));
    let strings =
        c_strings("environment", kept.chain(added.clone()).map(|(name, value)| format!("{name}={value}")))?;
    Ok((strings, pids))
}

pub(crate) fn c_strings(
    what: &str,
    strings: impl IntoIterator<Item = String>,
) -> Result<Vec<CString>, LaunchError> {
    strings
        .into_iter()
        .map(CString::new)
        .collect::<Result<_, _>>()
        .map_err(|_| LaunchError::parent_side(&format!("{what} with a NUL byte"), Errno::EINVAL))
}

/// Copies of what is handed on, above every number that something is put to.
#[derive(Debug)]
struct Placed {
    /// Open until the child has its own.
    copies: Vec<OwnedFd>,
    /// From where to where.
    moves: Vec<(RawFd, RawFd)>,
    /// The first number that nothing is put to.
    free: RawFd,
}

impl Placed {
    fn prepare(handed: Handed<'_>) -> Result<Self, LaunchError> {
        let wrong = |what: &str| LaunchError::parent_side(what, Errno::EINVAL);
        let count = RawFd::try_from(handed.listen.len()).map_err(|_| wrong("descriptors"))?;
        let mut free = LISTEN_START + count;
        let mut targets: Vec<_> = (LISTEN_START..).zip(handed.listen.iter().map(|(_, fd)| *fd)).collect();
        if let Some((at, fd)) = handed.at {
            if at < free {
                return Err(wrong(&format!("descriptor {at} is one of those that the service is passed")));
            }
            free = at.checked_add(1).ok_or_else(|| wrong("descriptor"))?;
            targets.push((at, fd));
        }
        if let Some((name, _)) = handed.listen.iter().find(|(name, _)| name.contains(':')) {
            return Err(wrong(&format!("a colon in the name of a descriptor, `{name}`")));
        }
        Self::at(targets, free)
    }

    fn at(targets: Vec<(RawFd, BorrowedFd<'_>)>, free: RawFd) -> Result<Self, LaunchError> {
        let mut placed = Self { copies: Vec::new(), moves: Vec::new(), free };
        for (target, fd) in targets {
            let copy = copy_above(fd, free)?;
            placed.moves.push((copy.as_raw_fd(), target));
            placed.copies.push(copy);
        }
        Ok(placed)
    }
}

/// A copy that cannot be overwritten while what is below `lowest` is put into place.
fn copy_above(fd: BorrowedFd<'_>, lowest: RawFd) -> Result<OwnedFd, LaunchError> {
    let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(lowest))
        .map_err(|errno| LaunchError::parent_side("fcntl F_DUPFD_CLOEXEC", errno))?;
    Ok(crate::sys::adopt(number))
}
