//! [`compile`]: a policy, a subject and a kernel in; a [`Plan`] or diagnostics out.
//!
//! Pure: it asks the [`Kernel`] value and the [`Host`] it is given and nothing else, so every kernel and every host can
//! be described in a test. What this machine lacks is an error here, in the parent, at the place in the file, unless the
//! policy calls it optional: then it is in [`Plan::left_out`].

mod automatic;
pub(crate) mod bpf;
mod capabilities;
mod cgroup;
pub mod codes;
mod compiler;
mod control_sockets;
#[cfg(test)]
pub(crate) mod described;
mod host;
pub(crate) mod landlock;
mod loader;
pub(crate) mod mounts;
mod namespaces;
mod pressure;
mod process;
mod scheduling;
pub(crate) mod seccomp;
pub(crate) mod template;
#[cfg(test)]
mod tests;
mod transcript;
pub(crate) mod users;

use std::{ffi::CString, path::PathBuf, sync::Arc};

pub use automatic::auto_id;
pub use compiler::{Compiled, Compiler};
pub use host::{FileKind, Host, RealHost};
pub use pressure::triggers;

use crate::{
    diagnostic::{Diagnostic, Located, Place, Report},
    kernel::Kernel,
    plan::{
        Action, CgroupProgram, CredentialPlan, LeftOut, Op, Phase, Plan, SLOTS, Slot, Step, Trigger,
        UserNamespacePlan,
    },
    policy::{
        CREDENTIALS_DIRECTORY, CREDENTIALS_VARIABLE, Confinement, Credential, IdMap, Landlock, OptionalPath,
        Policy, Rules,
    },
};

/// Whom a policy is compiled for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The service's name: it seeds `user = "auto"`.
    pub name: String,
    /// Before every path of this host; `/` but for tests and for `motherd --root`.
    pub root: PathBuf,
    /// Sockets of the launcher that it is to reach, by their paths on the host, whatever the policy mounts over these.
    pub sockets: Vec<String>,
}

/// Compiles a policy for this subject, this kernel and the real host.
///
/// # Errors
/// Everything that this machine cannot enforce or does not have, at its places.
pub fn compile(policy: &Policy, subject: &Subject, kernel: &Kernel) -> Result<Arc<Plan>, Report> {
    compile_on(policy, subject, kernel, &RealHost::new(&subject.root)).map(Arc::new)
}

/// The same, for a host that a test describes.
///
/// # Errors
/// As [`compile`].
pub fn compile_on(
    policy: &Policy,
    subject: &Subject,
    kernel: &Kernel,
    host: &dyn Host,
) -> Result<Plan, Report> {
    compile_with(policy, subject, kernel, host, None)
}

/// With the step of the policy's filter for this kernel, if that was made before.
fn compile_with(
    policy: &Policy,
    subject: &Subject,
    kernel: &Kernel,
    host: &dyn Host,
    filter: Option<&Step>,
) -> Result<Plan, Report> {
    let mut builder = Builder::new(kernel, host, subject);
    let plan = match &policy.rules {
        Rules::Unconfined(_) => unconfined(policy, builder),
        Rules::Confined(confinement) => {
            let outcome = confined(policy, confinement, filter, &mut builder);
            if !builder.diagnostics.is_empty() {
                return Err(Report { sources: policy.sources.clone(), diagnostics: builder.diagnostics });
            }
            builder.finish(policy, outcome)
        }
    };
    Ok(plan)
}

/// What the sections answer besides steps.
struct Outcome {
    namespaces: namespaces::Wanted,
    landlock: Option<crate::plan::LandlockPlan>,
    cgroup: cgroup::Settings,
    pressure: Vec<Trigger>,
    programs: Option<Vec<CgroupProgram>>,
    environment: Vec<(String, String)>,
    credentials: Vec<CredentialPlan>,
    identity: process::Identity,
}

fn confined(
    policy: &Policy,
    rules: &Confinement,
    filter: Option<&Step>,
    builder: &mut Builder<'_>,
) -> Outcome {
    builder.step(Phase::Process, Op::NewSession, "", None);
    builder.step(Phase::Process, Op::DefaultSignals, "", None);
    builder.step(Phase::Process, Op::Umask(0), "while files are made", None);
    builder.step(Phase::Signals, Op::UnblockSignals, "", None);
    builder.step(Phase::Descriptors, Op::Descriptors, "", None);
    let ids = users::Ids::of(rules, builder);
    let identity = process::compile(rules, &ids, builder);
    let namespaces = namespaces::compile(rules, &ids, builder);
    let view = mounts::compile(rules, (identity.host_uid, identity.host_gid), builder);
    loader::check(rules, &view, builder);
    capabilities::compile(rules, &ids, identity.uid, builder);
    let landlock = landlock::compile(&with_credentials(rules), &view, builder);
    match filter {
        Some(made) => builder.steps.push(made.clone()),
        None => seccomp::compile(rules, builder),
    }
    let cgroup = cgroup::compile(&rules.cgroup, builder);
    let pressure = pressure::compile(policy, &rules.cgroup, builder);
    let programs = bpf::compile(rules, builder);
    let mut environment: Vec<_> =
        rules.process.environment.iter().map(|variable| variable.value.clone()).collect();
    if !rules.credentials.is_empty() {
        environment.push((CREDENTIALS_VARIABLE.to_owned(), CREDENTIALS_DIRECTORY.to_owned()));
    }
    let credentials =
        rules.credentials.iter().map(|credential| credential_plan(credential, builder)).collect();
    tracing::debug!(policy = policy.name(), steps = builder.steps.len(), "compiled");
    Outcome { namespaces, landlock, cgroup, pressure, programs, environment, credentials, identity }
}

/// A service may read its credentials, or they would be for nothing.
fn with_credentials(rules: &Confinement) -> Landlock {
    let mut landlock = rules.landlock.clone();
    if let Some(first) = rules.credentials.first() {
        let path = OptionalPath { path: CREDENTIALS_DIRECTORY.to_owned(), optional: false };
        landlock.read.push(Located::new(path, first.at.clone()));
    }
    landlock
}

fn credential_plan(wanted: &Located<Credential>, builder: &mut Builder<'_>) -> CredentialPlan {
    let Credential { name, file, optional } = &wanted.value;
    match builder.host.kind(&file.value) {
        Ok(FileKind::Directory) => {
            let message = format!("{} is a folder", file.value);
            builder.error(
                Diagnostic::error("missing-path", file.at.clone(), message).help("a credential is one file"),
            );
        }
        Err(error) if !(*optional && error.kind() == std::io::ErrorKind::NotFound) => {
            let path = file.clone().map(|path| OptionalPath { path, optional: *optional });
            builder.error(missing_path(&path, &error));
        }
        Ok(FileKind::Other) | Err(_) => {}
    }
    CredentialPlan { name: name.clone(), file: file.value.clone(), optional: *optional, at: file.at.clone() }
}

/// A cgroup of its own and nothing else; even so nothing of the launcher's session, signals, descriptors or environment
/// is inherited.
fn unconfined(policy: &Policy, mut builder: Builder<'_>) -> Plan {
    builder.step(Phase::Process, Op::NewSession, "", None);
    builder.step(Phase::Process, Op::DefaultSignals, "", None);
    builder.step(Phase::Signals, Op::UnblockSignals, "", None);
    builder.step(Phase::Descriptors, Op::Descriptors, "", None);
    process::open_files(&mut builder);
    let outcome = Outcome {
        namespaces: namespaces::Wanted::default(),
        landlock: None,
        cgroup: cgroup::Settings::none(builder.kernel),
        pressure: Vec::new(),
        programs: (builder.kernel.cgroup_bpf == Some(true)).then(Vec::new),
        environment: vec![("PATH".to_owned(), process::DEFAULT_PATH.to_owned())],
        credentials: Vec::new(),
        identity: process::Identity { uid: 0, gid: 0, host_uid: 0, host_gid: 0 },
    };
    builder.finish(policy, outcome)
}

/// What the sections write into.
pub(crate) struct Builder<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) host: &'a dyn Host,
    pub(crate) subject: &'a Subject,
    pub(crate) diagnostics: Vec<Diagnostic>,
    pub(crate) left_out: Vec<LeftOut>,
    /// Whether a mount point may be reached through links: where the tree is the host's own.
    pub(crate) through_links: bool,
    /// Where an empty folder was mounted over something first, and whether launches share it.
    pub(crate) hidden: Option<(CString, bool)>,
    /// When what is mounted now is mounted.
    pub(crate) mounting: Phase,
    steps: Vec<Step>,
    slots: usize,
    id_maps: Vec<UserNamespacePlan>,
    sharing: bool,
}

impl<'a> Builder<'a> {
    fn new(kernel: &'a Kernel, host: &'a dyn Host, subject: &'a Subject) -> Self {
        Self {
            kernel,
            host,
            subject,
            diagnostics: Vec::new(),
            left_out: Vec::new(),
            through_links: false,
            hidden: None,
            mounting: Phase::Mount,
            steps: Vec::new(),
            slots: 0,
            id_maps: Vec::new(),
            sharing: false,
        }
    }

    pub(crate) fn step(&mut self, phase: Phase, op: Op, object: impl Into<String>, at: Option<Place>) {
        let action = Action { phase, op, object: object.into(), at, shared: self.sharing };
        self.steps.push(Step::new(action));
    }

    /// Whether the steps that are made now may be done once for all launches.
    pub(crate) fn is_sharing(&self) -> bool {
        self.sharing
    }

    /// Whether the steps from here on may be done once for all launches; answers what was before.
    pub(crate) fn sharing(&mut self, shared: bool) -> bool {
        std::mem::replace(&mut self.sharing, shared)
    }

    pub(crate) fn error(&mut self, diagnostic: Diagnostic) {
        debug_assert!(codes::known(diagnostic.code), "{} is not in codes.rs", diagnostic.code);
        self.diagnostics.push(diagnostic);
    }

    pub(crate) fn left_out(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.left_out.push(LeftOut { what: what.into(), why: why.into() });
    }

    /// A user namespace that the parent makes for an idmapped bind; answers its index.
    pub(crate) fn id_map(&mut self, map: &Located<IdMap>) -> usize {
        users::refuse_without_support(&map.at, self);
        self.id_maps.push(UserNamespacePlan::new(map, 0));
        self.id_maps.len() - 1
    }

    /// A fresh slot; `at` is blamed where there are too many.
    pub(crate) fn slot(&mut self, at: Option<&Place>) -> Slot {
        if self.slots == SLOTS
            && let Some(at) = at
        {
            self.error(
                Diagnostic::error("too-many-mounts", at.clone(), format!("more than {SLOTS} mounts"))
                    .help("bind a common parent instead of many paths"),
            );
        }
        self.slots += 1;
        Slot(self.slots - 1)
    }

    fn finish(self, policy: &Policy, outcome: Outcome) -> Plan {
        let mut steps = self.steps;
        // Stable: within a phase the order in which the sections made them stays.
        steps.sort_by_key(|step| step.phase);
        let template = template::split(&steps, outcome.namespaces.new, self.id_maps.is_empty());
        Plan {
            policy: policy.name.clone(),
            sources: policy.sources.clone(),
            namespaces: outcome.namespaces.new,
            user_namespace: outcome.namespaces.owner.map(Box::new),
            network_of: outcome.namespaces.network_of.map(Box::new),
            id_maps: self.id_maps,
            steps: steps.into(),
            template,
            credentials: outcome.credentials,
            landlock: outcome.landlock,
            controllers: outcome.cgroup.controllers.into(),
            cgroup: outcome.cgroup.files.into(),
            pressure: outcome.pressure,
            programs: outcome.programs.map(Into::into),
            environment: outcome.environment.into(),
            uid: outcome.identity.host_uid,
            gid: outcome.identity.host_gid,
            inside_uid: outcome.identity.uid,
            inside_gid: outcome.identity.gid,
            left_out: self.left_out.into(),
        }
    }
}

/// A C string out of a checked text: validation refuses NUL bytes in everything that gets here.
pub(crate) fn c_string(text: &str) -> CString {
    CString::new(text).expect("validation refuses NUL bytes in paths")
}

/// The diagnostic for a path that a policy needs and this host lacks.
fn missing_path(path: &Located<OptionalPath>, error: &std::io::Error) -> Diagnostic {
    let name = &path.value.path;
    Diagnostic::error("missing-path", path.at.clone(), format!("{name}: {error}"))
        .help(format!("make it, or write {{ path = \"{name}\", optional = true }} if it may be missing"))
}
