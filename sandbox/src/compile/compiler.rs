//! [`Compiler`]: one policy for one kernel, compiled for many subjects.
//!
//! What does not depend on whom it is for is made once: the policy's text is parsed, its filter is built, its programs are
//! in the kernel, and its launches share a template. What is left of compiling is paths and ids.
//!
//! Invariant: [`Compiler::compile`] answers what [`super::compile_on`] would answer with the same policy, subject, kernel
//! and host. A [`Compiled`] plan says whether it would still be that.

use std::{
    cell::{OnceCell, RefCell},
    sync::{Arc, Weak},
};

use super::{
    RealHost, Subject, compile_with,
    transcript::{Noting, Transcript},
};
use crate::{
    compile::Host,
    diagnostic::Report,
    kernel::Kernel,
    plan::{CgroupProgram, Op, Plan, Step, TemplateBuild, are_like},
    policy::Policy,
};

/// A policy, a kernel, and what was made of them for all subjects.
#[derive(Debug)]
pub struct Compiler {
    policy: Policy,
    kernel: Kernel,
    digest: OnceCell<[u8; 32]>,
    filter: OnceCell<Step>,
    programs: RefCell<Vec<Arc<[CgroupProgram]>>>,
    builds: RefCell<Vec<Weak<TemplateBuild>>>,
    last: RefCell<Option<Compiled>>,
}

/// A plan, and what it follows from besides its policy and the kernel.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// What came of it.
    pub plan: Arc<Plan>,
    subject: Subject,
    transcript: Transcript,
}

impl Compiled {
    /// Whether compiling for this subject would have the same plan: it is the same subject, and every question that was
    /// asked of the host has the same answer, for one or two dozen calls of stat(2).
    #[must_use]
    pub fn is_current_for(&self, subject: &Subject) -> bool {
        self.subject == *subject && self.transcript.holds(&RealHost::new(&subject.root))
    }
}

impl Compiler {
    /// Nothing is compiled yet.
    #[must_use]
    pub fn new(policy: Policy, kernel: Kernel) -> Self {
        let (digest, filter) = (OnceCell::new(), OnceCell::new());
        let (programs, builds, last) = (RefCell::default(), RefCell::default(), RefCell::default());
        Self { policy, kernel, digest, filter, programs, builds, last }
    }

    /// What is compiled.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// [`Policy::digest`], computed once.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        *self.digest.get_or_init(|| self.policy.digest())
    }

    /// Compiles for a subject on the real host.
    ///
    /// # Errors
    /// Everything that this machine cannot enforce or does not have, at its places.
    pub fn compile(&self, subject: &Subject) -> Result<Compiled, Report> {
        self.compile_on(subject, &RealHost::new(&subject.root))
    }

    pub(crate) fn compile_on(&self, subject: &Subject, host: &dyn Host) -> Result<Compiled, Report> {
        let noting = Noting::new(host);
        let mut plan = compile_with(&self.policy, subject, &self.kernel, &noting, self.filter.get())?;
        self.share(&mut plan);
        let mut transcript = noting.into_transcript();
        if let Some(last) = &*self.last.borrow() {
            transcript.share(&last.transcript);
        }
        let last = self.last.borrow().as_ref().map(|last| last.plan.clone());
        let plan = last.filter(|last| last.does_the_same_as(&plan)).unwrap_or_else(|| Arc::new(plan));
        let compiled = Compiled { plan, subject: subject.clone(), transcript };
        self.last.replace(Some(compiled.clone()));
        Ok(compiled)
    }

    /// What a plan has in common with those before it becomes the same.
    fn share(&self, plan: &mut Plan) {
        if let Some(step) = plan.steps.iter().find(|step| matches!(step.op, Op::Seccomp { .. })) {
            self.filter.get_or_init(|| step.clone());
        }
        if let Some(of_plan) = &mut plan.programs {
            let mut lists = self.programs.borrow_mut();
            match lists.iter().find(|known| are_like(known, of_plan)) {
                Some(known) => *of_plan = known.clone(),
                None => {
                    let known = |program: &CgroupProgram| {
                        lists
                            .iter()
                            .flat_map(|list| list.iter())
                            .find(|known| known.is_like(program))
                            .cloned()
                    };
                    *of_plan = of_plan.iter().map(|one| known(one).unwrap_or_else(|| one.clone())).collect();
                    lists.push(of_plan.clone());
                }
            }
        }
        if let Some(parts) = &mut plan.template {
            let mut builds = self.builds.borrow_mut();
            builds.retain(|build| build.strong_count() > 0);
            match builds.iter().filter_map(Weak::upgrade).find(|build| *build == parts.build) {
                Some(known) => parts.build = known,
                None => builds.push(Arc::downgrade(&parts.build)),
            }
        }
        if let Some(last) = &*self.last.borrow() {
            share_steps(plan, &last.plan);
            share_lists(plan, &last.plan);
        }
        fit(plan);
    }
}

/// What two plans do alike, in the same place of the same list, is kept once: most of it, where only whom they are for differs.
fn share_steps(plan: &mut Plan, known: &Plan) {
    plan.steps.share(&known.steps);
    if let (Some(parts), Some(known)) = (&mut plan.template, &known.template) {
        parts.launch.share(&known.launch);
        if let (Some(berth), Some(known)) = (&mut parts.berth, &known.berth) {
            berth.ahead.share(&known.ahead);
            berth.launch.share(&known.launch);
        }
    }
}

/// What is not done by the child, and whole lists of it, is alike as a rule too.
fn share_lists(plan: &mut Plan, known: &Plan) {
    fn share<T: PartialEq>(list: &mut Arc<[T]>, known: &Arc<[T]>) {
        if list == known {
            *list = known.clone();
        }
    }
    share(&mut plan.controllers, &known.controllers);
    share(&mut plan.cgroup, &known.cgroup);
    share(&mut plan.environment, &known.environment);
    share(&mut plan.left_out, &known.left_out);
}

/// A plan is kept for as long as its service runs, and its lists grow no more.
fn fit(plan: &mut Plan) {
    if let Some(berth) = plan.template.as_mut().and_then(|parts| parts.berth.as_mut()) {
        berth.sources.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{
        compile_on,
        described::{DescribedHost, here, kernel, policy, strict},
    };
    use crate::{plan::LeftOut, policy::Rules};

    fn subject(name: &str) -> Subject {
        Subject { name: name.to_owned(), root: "/".into(), sockets: vec![] }
    }

    #[test]
    fn what_it_compiles_is_what_is_compiled_without_it() {
        let compiler = Compiler::new(policy(strict()), kernel(7));
        let host = DescribedHost::debian();
        for name in ["web", "db", "web"] {
            let compiled = compiler.compile_on(&subject(name), &host).unwrap();
            let alone = compile_on(&policy(strict()), &subject(name), &kernel(7), &host).unwrap();
            assert_eq!(format!("{:?}", compiled.plan), format!("{alone:?}"), "{name}");
        }
    }

    #[test]
    fn subjects_of_one_policy_share_its_filter_and_what_builds_its_template() {
        let compiler = Compiler::new(policy(strict()), kernel(7));
        let host = DescribedHost::debian();
        let [one, other] = ["web", "db"].map(|name| compiler.compile_on(&subject(name), &host).unwrap().plan);
        let build = |plan: &Plan| plan.template.as_ref().unwrap().build.clone();
        assert!(Arc::ptr_eq(&build(&one), &build(&other)));
        assert_ne!(one.uid(), other.uid());
        let filter = |plan: &Plan| {
            let step = plan.steps.iter().find(|step| matches!(step.op, Op::Seccomp { .. })).cloned();
            let Some(Op::Seccomp { program, .. }) = step.map(|step| step.op.clone()) else {
                panic!("no filter")
            };
            program
        };
        assert!(Arc::ptr_eq(&filter(&one), &filter(&other)));
        assert!(Arc::ptr_eq(&one.cgroup, &other.cgroup) && Arc::ptr_eq(&one.left_out, &other.left_out));
        assert!(Arc::ptr_eq(&one.environment, &other.environment));
        // What differs is who they are, and no step says that.
        let own = |(one, other): &(&Step, &Step)| !one.is(other);
        let own: Vec<_> =
            one.steps.iter().zip(other.steps.iter()).filter(own).map(|(step, _)| &step.object).collect();
        assert!(own.is_empty() && one.steps.len() > 60, "{own:?} of {}", one.steps.len());
        let lists = |plan: &Plan| {
            let parts = plan.template.clone().unwrap();
            let berth = parts.berth.unwrap();
            [plan.steps.clone(), parts.launch, berth.ahead, berth.launch]
        };
        for (one, other) in lists(&one).iter().zip(&lists(&other)) {
            assert!(other.is_shared_with(one));
        }
    }

    #[test]
    fn subjects_for_whom_the_same_is_done_have_one_plan() {
        let host = DescribedHost::debian();
        let both = |rules| {
            let compiler = Compiler::new(Policy { rules, ..policy(strict()) }, kernel(7));
            ["web", "db"].map(|name| compiler.compile_on(&subject(name), &host).unwrap().plan)
        };
        let [one, other] = both(Rules::Unconfined(here(()).at));
        assert!(Arc::ptr_eq(&one, &other));
        let [one, other] = both(Rules::Confined(Box::new(strict())));
        assert!(!Arc::ptr_eq(&one, &other), "each runs as a user of its own");
        assert!(!one.does_the_same_as(&one), "and has mounts that are made ahead");
        let [one, _] = both(Rules::Unconfined(here(()).at));
        assert!(one.does_the_same_as(&one), "control");
        let different: [fn(&mut Plan); 6] = [
            |plan| plan.uid += 1,
            |plan| plan.namespaces += 1,
            |plan| plan.steps = plan.steps.in_one()[..1].to_vec().into(),
            |plan| plan.controllers = Arc::default(),
            |plan| plan.environment = [("A".to_owned(), "b".to_owned())].into(),
            |plan| plan.left_out = [LeftOut { what: "this".to_owned(), why: "that".to_owned() }].into(),
        ];
        for (number, change) in different.iter().enumerate() {
            let mut changed = (*one).clone();
            change(&mut changed);
            assert!(!one.does_the_same_as(&changed) && !changed.does_the_same_as(&one), "{number}");
        }
    }

    #[test]
    fn a_plan_is_good_until_the_host_answers_otherwise() {
        let compiler = Compiler::new(policy(strict()), kernel(7));
        let compiled = compiler.compile_on(&subject("web"), &DescribedHost::debian()).unwrap();
        assert!(compiled.transcript.holds(&DescribedHost::debian()));
        assert!(compiled.transcript.holds(&DescribedHost::debian().with("/elsewhere")));
        // `/home` is hidden where it is there, so that it is not makes another plan.
        assert!(!compiled.transcript.holds(&DescribedHost::debian().without("/home")));
    }
}
