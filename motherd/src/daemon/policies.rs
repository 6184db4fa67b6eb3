//! The policies as they are now, and the plan of each service: compiled once, and again when what it follows from is
//! another.
//!
//! A plan follows from the policy's text and those that it extends, from the service's name and sockets, from this kernel,
//! and from what compiling asks of the host: which paths are there, who users are. The text is read again when somebody
//! asks for a start, and compared; a restart that nobody asked for stays with the text that the service was started with.
//! What is started by one decision (a boot, say) goes by one look at each policy.
//! The host is asked again before every launch. Where all answers are the same the plan is the same, and launching is all
//! that a launch costs.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use sandbox::{
    Plan,
    compile::{Compiled, Compiler, Subject},
    diagnostic::{Report, Severity},
    kernel::Kernel,
    policy::Store,
};

use super::{Daemon, spawn::Refusal};
use crate::{control::protocol::PolicyInForce, graph::Id, service::Program};

/// The beginning of a policy's digest: enough to tell whether its text is another.
pub(super) type Digest = [u8; 8];

/// The policies that were read.
#[derive(Debug, Default)]
pub(super) struct Policies {
    by_name: BTreeMap<String, Rc<Compiler>>,
    /// While the effects of one decision are executed: what was looked at for it.
    looked_at: Option<BTreeSet<String>>,
}

impl Policies {
    /// From here until [`Policies::end`] each policy is looked at once.
    pub(super) fn begin(&mut self) {
        self.go_on(BTreeSet::new());
    }

    /// The same for a decision that has looked at these already.
    pub(super) fn go_on(&mut self, looked_at: BTreeSet<String>) {
        self.looked_at = Some(looked_at);
    }

    /// Returns what was looked at.
    pub(super) fn end(&mut self) -> BTreeSet<String> {
        self.looked_at.take().unwrap_or_default()
    }

    /// The policy of a name, as its files say now.
    pub(super) fn read(
        &mut self,
        name: &str,
        store: &Store,
        kernel: &Kernel,
    ) -> Result<Rc<Compiler>, Report> {
        let seen = self.looked_at.as_ref().is_some_and(|seen| seen.contains(name));
        let known = self.by_name.get(name).filter(|known| seen || store.still_says(known.policy()));
        let compiler = match known {
            Some(known) => known.clone(),
            None => {
                let compiler = Rc::new(Compiler::new(store.load(name)?, kernel.clone()));
                // Those that nobody is started with any more go.
                self.by_name.retain(|_, known| Rc::strong_count(known) > 1);
                self.by_name.insert(name.to_owned(), compiler.clone());
                compiler
            }
        };
        if let Some(seen) = &mut self.looked_at {
            seen.insert(name.to_owned());
        }
        Ok(compiler)
    }
}

/// What a service was launched with last, or is about to be.
#[derive(Debug)]
pub(super) struct Planned {
    compiler: Rc<Compiler>,
    compiled: Compiled,
    /// Somebody asked for the next start: the text is looked at again.
    outdated: bool,
}

impl Planned {
    pub(super) fn plan(&self) -> &Arc<Plan> {
        &self.compiled.plan
    }

    /// Of the text that it is by.
    pub(super) fn digest(&self) -> Digest {
        digest(&self.compiler)
    }
}

impl super::Runtime {
    /// Somebody asked for the next start: the policy's files are looked at again before it.
    pub(super) fn outdate(&mut self) {
        if let Some(planned) = &mut self.planned {
            planned.outdated = true;
        }
    }
}

/// Why a policy is not of use here: the first error, with its place.
pub(super) struct PlanError(pub(super) String);

impl From<PlanError> for Refusal {
    fn from(PlanError(why): PlanError) -> Self {
        Self::permanent(why)
    }
}

impl Daemon {
    /// The plan of the next launch of a service.
    pub(super) fn plan(&mut self, id: Id, name: &str, program: &Program) -> Result<Arc<Plan>, PlanError> {
        let subject = self.subject(name, program);
        let known = self.runtime.get(&id).and_then(|runtime| runtime.planned.as_ref());
        let compiler = match known.filter(|known| !known.outdated) {
            Some(known) => known.compiler.clone(),
            None => self
                .policies
                .read(&program.policy.value, &self.store, &self.kernel)
                .map_err(|report| self.useless(id, program, &report))?,
        };
        let same = known
            .filter(|known| Rc::ptr_eq(&known.compiler, &compiler))
            .filter(|known| known.compiled.is_current_for(&subject));
        let compiled = match same {
            Some(known) => known.compiled.clone(),
            None => compiler.compile(&subject).map_err(|report| self.useless(id, program, &report))?,
        };
        self.refuse_shared_ids(id, name, &compiled.plan)?;
        let plan = compiled.plan.clone();
        self.runtime.entry(id).or_default().planned = Some(Planned { compiler, compiled, outdated: false });
        Ok(plan)
    }

    /// What the main process of a service was launched with: by this motherd, or with the text of which the record has the
    /// digest, if its files still say that. `None` where it cannot be known any more.
    pub(super) fn plan_in_force(&mut self, id: Id) -> Option<Arc<Plan>> {
        let runtime = self.runtime.get(&id)?;
        let in_force = runtime.policy?;
        if let Some(known) = runtime.planned.as_ref().filter(|known| known.digest() == in_force) {
            return Some(known.plan().clone());
        }
        let service = self.manager.graph().service(id).clone();
        let program = service.program()?;
        let compiler = self.policies.read(&program.policy.value, &self.store, &self.kernel).ok()?;
        if digest(&compiler) != in_force {
            return None;
        }
        let compiled = compiler.compile(&self.subject(service.name(), program)).ok()?;
        let plan = compiled.plan.clone();
        self.runtime.entry(id).or_default().planned = Some(Planned { compiler, compiled, outdated: false });
        Some(plan)
    }

    /// Which text of its policy the main process of a service was launched with, and whether its files say something else
    /// now.
    pub(super) fn policy_in_force(&mut self, id: Id) -> Option<PolicyInForce> {
        let in_force = self.runtime.get(&id)?.policy?;
        let program = self.manager.graph().service(id).program()?;
        let now = self.policies.read(&program.policy.value, &self.store, &self.kernel);
        let hexadecimal = in_force.iter().map(|byte| format!("{byte:02x}")).collect();
        let drift = now.map_or(true, |compiler| digest(&compiler) != in_force);
        Some(PolicyInForce { digest: hexadecimal, drift })
    }

    fn subject(&self, name: &str, program: &Program) -> Subject {
        let socket = self.notify_path(name).display().to_string();
        let sockets = if program.may_say() { vec![socket] } else { vec![] };
        Subject { name: name.to_owned(), root: self.paths.root.clone(), sockets }
    }

    fn useless(&self, id: Id, program: &Program, report: &Report) -> PlanError {
        let sources = self.manager.graph().service(id).sources();
        PlanError(
            first_error(report)
                .unwrap_or_else(|message| format!("{}: {message}", sources.locate(&program.policy.at))),
        )
    }

    /// Two services with one range of ids in their user namespaces would own each other's files.
    fn refuse_shared_ids(&self, id: Id, name: &str, plan: &Plan) -> Result<(), PlanError> {
        let Some(ids) = plan.automatic_ids() else { return Ok(()) };
        let known = self.runtime.iter().filter(|(other, _)| **other != id);
        let mut plans = known.filter_map(|(other, runtime)| Some((*other, runtime.planned.as_ref()?.plan())));
        match plans.find(|(_, plan)| plan.automatic_ids().as_ref() == Some(&ids)) {
            None => Ok(()),
            Some((other, _)) => Err(PlanError(format!(
                "`{name}` and `{}` have the same automatic ids, {} to {}: give one of them a map, or rename it",
                self.manager.graph().service(other).name(),
                ids.start(),
                ids.end()
            ))),
        }
    }
}

fn digest(compiler: &Compiler) -> Digest {
    let [a, b, c, d, e, f, g, h, ..] = compiler.digest();
    [a, b, c, d, e, f, g, h]
}

/// `a.toml:1:2: message`, and how many more there are; `Err` with the message alone where the report knows no place.
fn first_error(report: &Report) -> Result<String, String> {
    let mut errors = report.diagnostics.iter().filter(|problem| problem.severity == Severity::Error);
    let Some(first) = errors.next() else { return Err("refused without a reason".to_owned()) };
    let more = match errors.count() {
        0 => String::new(),
        more => format!(" (and {more} more: `motherctl policy check` shows all)"),
    };
    let label = if first.label.is_empty() { String::new() } else { format!(": {}", first.label) };
    let message = format!("{}{label}{more}", first.message);
    match &first.at {
        Some(at) => Ok(format!("{}: {message}", report.sources.locate(at))),
        None => Err(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_policy_is_read_again_when_one_of_its_files_says_something_else() {
        let scratch = Scratch::new();
        let write = |name: &str, text: &str| {
            let path = scratch.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("below/base.toml", "[process]\nnice = 1\n");
        write("below/web.toml", "extends = [\"base\"]\n");
        let store = Store::new(vec![scratch.path().join("above"), scratch.path().join("below")]);
        let kernel = Kernel::probe(None).unwrap();
        let mut policies = Policies::default();
        let mut read = || policies.read("web", &store, &kernel).unwrap();
        let first = read();
        assert!(Rc::ptr_eq(&first, &read()), "nothing was written");
        // Of the same length, at once, and in what it extends: no time of a file would have to tell.
        write("below/base.toml", "[process]\nnice = 2\n");
        let second = read();
        assert!(!Rc::ptr_eq(&first, &second));
        assert_ne!(first.policy().digest(), second.policy().digest());
        // A folder that is asked earlier has one now.
        write("above/base.toml", "[process]\nnice = 2\n");
        let third = read();
        assert!(!Rc::ptr_eq(&second, &third));
        assert_eq!(second.policy().digest(), third.policy().digest(), "it says the same");
        // One decision, one look.
        policies.begin();
        let before = policies.read("web", &store, &kernel).unwrap();
        write("below/web.toml", "extends = [\"base\"]\n\n");
        assert!(Rc::ptr_eq(&before, &policies.read("web", &store, &kernel).unwrap()));
        policies.end();
        assert!(!Rc::ptr_eq(&before, &policies.read("web", &store, &kernel).unwrap()));
        // One that somebody else may write is not believed any longer, whatever it says.
        let path = scratch.path().join("above/base.toml");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(&path, mode).unwrap();
        assert!(policies.read("web", &store, &kernel).is_err());
    }
}
