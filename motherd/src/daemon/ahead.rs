//! [`Stock`]: what launches can have ready, made when there is nothing else to do: templates of the mounts of each plan that
//! was launched, a few networks for anybody, and a berth each for what was launched last.
//!
//! It is a cache: all of it is made again by the next motherd, and a launch that finds nothing here makes everything
//! itself. What is made, and when it may be used, is the sandbox's ([`sandbox::template`], [`sandbox::netpool`],
//! [`sandbox::berth`]); here is how much is kept and when it is thrown away.
//!
//! Invariants. Nothing is made while an event waits, but for a template of which a second launch comes before there was time
//! for it: in a boot there is none. And nothing is done once everything is there: an idle motherd does not wake up for it. When the host mounts or unmounts something, every template goes at once, for it would keep what was
//! unmounted busy; and before each launch it is asked again whether that happened.

use std::{
    cell::RefCell,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use sandbox::{
    Plan,
    berth::Berth,
    launch::Ahead,
    netpool::{NetworkPool, PooledNetwork},
    template::{MountWatch, Template},
};

/// Templates that are kept: a few dozen mounts each, which the kernel holds in some 20 KB.
const TEMPLATES: usize = 32;
/// Networks that are kept: some 100 KB of kernel memory each. More than a few launches at once make their own.
const NETWORKS: usize = 4;
/// Berths that are kept, each with a network and a few file systems.
const BERTHS: usize = 8;
/// The host mounts seldom one thing alone: so long after the last change templates are built again.
const SETTLE: Duration = Duration::from_secs(1);
/// And at most so long: a host that mounts all the time has templates that nobody uses.
const SETTLE_MAX: Duration = Duration::from_secs(3600);

/// So long after a launch nothing is made and nothing taken down: whoever begins has the processors first.
const BREATH: Duration = Duration::from_millis(20);
/// More namespaces of those that have ended are not kept that long: where something is launched all the time there is no such
/// pause.
const ENDED: usize = 4;

/// What one launch takes out of the stock.
#[derive(Debug, Default)]
pub(super) struct Taken {
    template: Option<Arc<Template>>,
    network: RefCell<Option<PooledNetwork>>,
    berth: RefCell<Option<Berth>>,
}

impl Taken {
    pub(super) fn ahead(&self) -> Ahead<'_> {
        Ahead {
            template: self.template.as_ref(),
            network: Some(&self.network),
            berth: Some(&self.berth),
            ..Ahead::default()
        }
    }
}

/// What is there, and what is wanted.
#[derive(Debug)]
pub(super) struct Stock {
    /// The one that was used last at the end.
    templates: Vec<Kept>,
    /// Launched without one, in that order.
    wanted: Vec<Arc<Plan>>,
    /// The one that was made last at the end.
    berths: Vec<(Arc<Plan>, Berth)>,
    /// The plans that were launched last, of which none is there, in that order.
    berths_wanted: Vec<Arc<Plan>>,
    /// Namespaces of services that have ended.
    ended: Vec<OwnedFd>,
    networks: NetworkPool,
    /// A plan that takes one was launched.
    takes_networks: bool,
    /// Looked at before each launch. Its own, since looking is what makes it silent.
    before_launch: MountWatch,
    /// In the epoll set.
    wakes: MountWatch,
    /// No template is built before.
    settled: Duration,
    settle: Duration,
    /// Nothing is done before: see [`BREATH`].
    breath: Duration,
    /// Nothing is made any more: the machine is being ended.
    closed: bool,
}

#[derive(Debug)]
struct Kept {
    template: Arc<Template>,
    plan: Arc<Plan>,
}

impl Stock {
    /// An empty one.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            templates: Vec::new(),
            wanted: Vec::new(),
            berths: Vec::new(),
            berths_wanted: Vec::new(),
            ended: Vec::new(),
            networks: NetworkPool::new(NETWORKS),
            takes_networks: false,
            before_launch: MountWatch::new()?,
            wakes: MountWatch::new()?,
            settled: Duration::ZERO,
            settle: SETTLE,
            breath: Duration::ZERO,
            closed: false,
        })
    }

    /// Becomes ready when the host's mounts change (EPOLLPRI): [`Stock::mounts_changed`].
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.wakes)
    }

    /// What there is for a launch of this plan.
    pub(super) fn take(&mut self, plan: &Arc<Plan>, now: Duration) -> Taken {
        self.begun(now);
        let template = self.template(plan, now);
        // A berth is as good as the template that it was made from.
        let berth = self.berth(plan).filter(|_| template.is_some());
        // It has a network of its own.
        let network = if berth.is_some() { None } else { self.network(plan) };
        Taken { template, network: network.into(), berth: berth.into() }
    }

    /// A process begins, whether something is taken for it or it is there already.
    pub(super) fn begun(&mut self, now: Duration) {
        self.breath = now.saturating_add(BREATH);
    }

    /// A berth, if one is there that is still what would be made; the next one is wanted in any case.
    fn berth(&mut self, plan: &Arc<Plan>) -> Option<Berth> {
        if self.closed || !plan.has_berth() {
            return None;
        }
        self.want_berth(plan.clone());
        let place = self.berths.iter().position(|(_, berth)| berth.is_of(plan))?;
        let (_, berth) = self.berths.remove(place);
        berth.is_current().then_some(berth)
    }

    fn want_berth(&mut self, plan: Arc<Plan>) {
        self.berths_wanted.retain(|known| !Arc::ptr_eq(known, &plan));
        self.berths_wanted.push(plan);
        if self.berths_wanted.len() > BERTHS {
            self.berths_wanted.remove(0);
        }
    }

    /// A service is launched by another plan than before: nothing will be launched by the old one any more. Another service
    /// that shared its template, and by a plan that is still right, has it built anew.
    pub(super) fn replaced(&mut self, old: &Arc<Plan>, new: &Plan) {
        self.berths.retain(|(plan, _)| !Arc::ptr_eq(plan, old));
        self.berths_wanted.retain(|plan| !Arc::ptr_eq(plan, old));
        if !old.shares_template_with(new) {
            self.templates.retain(|kept| !kept.template.is_of(old));
            self.wanted.retain(|plan| !plan.shares_template_with(old));
        }
    }

    /// Namespaces of a service that has ended: taken down when nothing else is to be done.
    pub(super) fn take_down(&mut self, namespaces: Vec<OwnedFd>) {
        self.ended.extend(namespaces);
    }

    /// The template for a launch, if one is there that is still what would be built.
    fn template(&mut self, plan: &Arc<Plan>, now: Duration) -> Option<Arc<Template>> {
        if self.closed || !plan.has_template() {
            return None;
        }
        if self.before_launch.changed() {
            self.drop_templates(now);
        }
        if let Some(place) = self.templates.iter().position(|kept| kept.template.is_of(plan)) {
            let kept = self.templates.remove(place);
            if kept.template.is_current() {
                let template = kept.template.clone();
                self.templates.push(kept);
                self.settle = SETTLE;
                return Some(template);
            }
        }
        if self.settled <= now && self.wanted.iter().any(|known| known.shares_template_with(plan)) {
            return self.make_for_many(plan, now);
        }
        self.want(plan.clone());
        None
    }

    /// A template for a launch that is not the first without one: others will follow it before there is time to make it.
    /// Building one takes as long as what one launch saves by it twice.
    fn make_for_many(&mut self, plan: &Arc<Plan>, now: Duration) -> Option<Arc<Template>> {
        self.wanted.retain(|known| !known.shares_template_with(plan));
        self.make_template(plan.clone());
        let made =
            self.templates.last().filter(|kept| kept.template.is_of(plan)).map(|kept| kept.template.clone());
        if made.is_none() {
            // It was said why. Not every launch tries it again.
            self.want(plan.clone());
            self.settled = now.saturating_add(self.settle);
        }
        made
    }

    /// A network for a launch, if one is there.
    fn network(&mut self, plan: &Plan) -> Option<PooledNetwork> {
        if self.closed || !plan.takes_network() {
            return None;
        }
        self.takes_networks = true;
        self.networks.take()
    }

    /// The epoll set says that the host's mounts have changed. If a launch was faster to see it, all is done already.
    pub(super) fn mounts_changed(&mut self, now: Duration) {
        if self.before_launch.changed() {
            self.drop_templates(now);
        }
    }

    fn drop_templates(&mut self, now: Duration) {
        for Kept { plan, .. } in std::mem::take(&mut self.templates) {
            self.want(plan);
        }
        for (plan, _) in std::mem::take(&mut self.berths) {
            self.want_berth(plan);
        }
        self.settled = now.saturating_add(self.settle);
        self.settle = self.settle.saturating_mul(2).min(SETTLE_MAX);
    }

    /// Plans that share a template want one.
    fn want(&mut self, plan: Arc<Plan>) {
        self.wanted.retain(|known| !known.shares_template_with(&plan));
        self.wanted.push(plan);
        if self.wanted.len() > TEMPLATES {
            self.wanted.remove(0);
        }
    }

    /// When there will be something to do that cannot be done yet.
    pub(super) fn next(&self, now: Duration) -> Option<Duration> {
        let at_once = self.is_to_do_at_once().then_some(self.breath);
        let mounts = self.is_to_make_mounts().then_some(self.settled.max(self.breath));
        at_once.into_iter().chain(mounts).min().filter(|next| *next > now && !self.closed)
    }

    /// Whether [`Stock::make`] would do something.
    pub(super) fn wants(&self, now: Duration) -> bool {
        let mounts = self.settled <= now && self.is_to_make_mounts();
        let due = self.breath <= now || self.closed;
        self.ended.len() > ENDED || (due && (self.is_to_do_at_once() || mounts))
    }

    fn is_to_do_at_once(&self) -> bool {
        !self.ended.is_empty() || (!self.closed && self.takes_networks && self.networks.has_room())
    }

    fn is_to_make_mounts(&self) -> bool {
        !self.closed && (!self.wanted.is_empty() || self.makes_berth().is_some())
    }

    /// The place among those wanted of the last berth for which there is a template.
    fn makes_berth(&self) -> Option<usize> {
        let has_template = |plan: &Arc<Plan>| self.templates.iter().any(|kept| kept.template.is_of(plan));
        self.berths_wanted.iter().rposition(has_template)
    }

    /// Takes down or makes one thing. What cannot be made is wanted again when it would have been used.
    pub(super) fn make(&mut self, now: Duration) {
        if let Some(namespace) = self.ended.pop() {
            return drop(namespace);
        }
        if self.closed {
            return;
        }
        if self.takes_networks && self.networks.has_room() {
            if let Err(error) = self.networks.add() {
                tracing::warn!("{error}; launches make their own");
                self.takes_networks = false;
            }
            return;
        }
        if self.settled > now {
            return;
        }
        // From here on a change of the mounts is told, before it everything is built anew.
        if self.before_launch.changed() {
            return self.drop_templates(now);
        }
        // The one that was launched last first.
        match self.wanted.pop() {
            Some(plan) => self.make_template(plan),
            None => self.make_berth(),
        }
    }

    fn make_template(&mut self, plan: Arc<Plan>) {
        match Template::build(&plan) {
            Ok(Some(template)) => {
                if self.templates.len() >= TEMPLATES {
                    self.templates.remove(0);
                }
                self.templates.push(Kept { template, plan });
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("{}: {error}; launches build their mounts", plan.policy()),
        }
    }

    fn make_berth(&mut self) {
        let Some(place) = self.makes_berth() else { return };
        let plan = self.berths_wanted.remove(place);
        let Some(kept) = self.templates.iter().find(|kept| kept.template.is_of(&plan)) else { return };
        match Berth::make(&plan, &kept.template) {
            Ok(Some(berth)) => {
                self.berths.retain(|(known, _)| !Arc::ptr_eq(known, &plan));
                if self.berths.len() >= BERTHS {
                    self.berths.remove(0);
                }
                self.berths.push((plan, berth));
            }
            Ok(None) => {}
            // The next launch finds the template stale too, and has it built anew.
            Err(error) => tracing::debug!("{}: {error}; launches make theirs", plan.policy()),
        }
    }

    /// The machine is being ended: nothing may be kept busy, and nothing is made any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.templates.clear();
        self.wanted.clear();
        self.berths.clear();
        self.berths_wanted.clear();
        while self.networks.take().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox::{compile::Compiler, compile::Subject, kernel::Kernel, policy::Store};

    fn plan(compiler: &Compiler, name: &str) -> Arc<Plan> {
        let subject = Subject { name: name.to_owned(), root: "/".into(), sockets: vec![] };
        compiler.compile(&subject).unwrap().plan
    }

    fn compiler(policy: &str) -> Compiler {
        let policies = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
        Compiler::new(Store::new(vec![policies]).load(policy).unwrap(), Kernel::probe(None).unwrap())
    }

    #[test]
    fn services_of_one_policy_want_one_template_and_what_has_none_wants_none() {
        let mut stock = Stock::new().unwrap();
        let (strict, open) = (compiler("base/default"), compiler("unconfined"));
        // For as long as the host's mounts have changed just now, nothing is made.
        stock.settled = Duration::from_secs(1);
        for name in ["one", "two", "three"] {
            assert!(stock.take(&plan(&strict, name), Duration::ZERO).template.is_none());
            assert!(stock.take(&plan(&open, name), Duration::ZERO).template.is_none());
        }
        assert_eq!((stock.wanted.len(), stock.berths_wanted.len()), (1, 3), "a berth is for one service");
        assert!(stock.wants(Duration::from_secs(1)));
    }

    #[test]
    fn the_second_of_many_launches_builds_the_template_that_the_others_use() {
        let (strict, other) = (compiler("base/default"), compiler("base/default"));
        let [one, two, three] = ["one", "two", "three"].map(|name| plan(&strict, name));
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("SKIPPED: a template takes root");
        }
        let mut stock = Stock::new().unwrap();
        assert!(stock.take(&one, Duration::ZERO).template.is_none(), "for one launch it does not pay");
        assert!(
            stock.take(&plan(&other, "alone"), Duration::ZERO).template.is_none(),
            "nor for one of another kind"
        );
        let built = stock.take(&two, Duration::ZERO).template.unwrap();
        let found = stock.take(&three, Duration::ZERO).template.unwrap();
        assert!(Arc::ptr_eq(&built, &found) && built.is_of(&one));
        assert_eq!((stock.templates.len(), stock.wanted.len()), (1, 1));
    }

    #[test]
    fn what_no_launch_can_use_any_more_goes_at_once() {
        let mut stock = Stock::new().unwrap();
        let (before, after) = (compiler("base/default"), compiler("base/default"));
        let (old, same, new) = (plan(&before, "one"), plan(&before, "one"), plan(&after, "one"));
        drop(stock.take(&old, Duration::ZERO));
        stock.replaced(&old, &same);
        assert_eq!((stock.wanted.len(), stock.berths_wanted.len()), (1, 0), "they share a template");
        drop(stock.take(&same, Duration::ZERO));
        stock.replaced(&same, &new);
        assert_eq!((stock.wanted.len(), stock.berths_wanted.len()), (0, 0));
    }

    #[test]
    fn nobody_waits_for_what_is_wanted_by_nobody() {
        let mut stock = Stock::new().unwrap();
        assert!(!stock.wants(Duration::ZERO) && stock.next(Duration::ZERO).is_none());
        assert!(stock.network(&plan(&compiler("unconfined"), "one")).is_none());
        assert!(!stock.wants(Duration::ZERO));
        assert!(stock.network(&plan(&compiler("base/default"), "one")).is_none());
        assert!(stock.wants(Duration::ZERO));
        stock.close();
        assert!(!stock.wants(Duration::ZERO));
    }

    #[test]
    fn a_host_that_goes_on_mounting_is_waited_for_longer_each_time() {
        let mut stock = Stock::new().unwrap();
        stock.want(plan(&compiler("base/default"), "one"));
        let second = Duration::from_secs(1);
        for (now, next) in [(0, 1), (1, 3), (3, 7)] {
            stock.drop_templates(second * now);
            assert_eq!(stock.next(second * now), Some(second * next));
            assert!(!stock.wants(second * (next - 1)) && stock.wants(second * next));
        }
        for _ in 0..20 {
            stock.drop_templates(Duration::ZERO);
        }
        assert_eq!(stock.settled, SETTLE_MAX);
    }

    #[test]
    fn a_berth_is_wanted_for_who_was_launched_once_there_is_a_template() {
        let mut stock = Stock::new().unwrap();
        let strict = compiler("base/default");
        let (one, other) = (plan(&strict, "one"), plan(&strict, "other"));
        stock.want_berth(one.clone());
        stock.want_berth(other.clone());
        stock.want_berth(one.clone());
        assert_eq!(stock.berths_wanted.len(), 2, "each once");
        assert!(Arc::ptr_eq(&stock.berths_wanted[1], &one), "the last to be launched at the end");
        assert!(stock.makes_berth().is_none() && !stock.wants(Duration::ZERO), "there is no template yet");
        for number in 0..BERTHS {
            stock.want_berth(plan(&strict, &format!("s{number}")));
        }
        assert_eq!(stock.berths_wanted.len(), BERTHS);
        assert!(!stock.berths_wanted.iter().any(|wanted| Arc::ptr_eq(wanted, &other)));
    }

    #[test]
    fn the_mounts_of_who_has_ended_are_taken_down_one_at_a_time_even_at_the_end() {
        let mut stock = Stock::new().unwrap();
        stock.take_down(vec![]);
        assert!(!stock.wants(Duration::ZERO));
        for _ in 0..2 {
            stock.take_down(vec![std::fs::File::open("/dev/null").unwrap().into()]);
        }
        stock.close();
        for left in [1, 0] {
            assert!(stock.wants(Duration::ZERO));
            stock.make(Duration::ZERO);
            assert_eq!(stock.ended.len(), left);
        }
        assert!(!stock.wants(Duration::ZERO));
    }

    #[test]
    fn whoever_begins_has_the_processors_first() {
        let mut stock = Stock::new().unwrap();
        let millisecond = Duration::from_millis(1);
        drop(stock.take(&plan(&compiler("base/default"), "one"), millisecond));
        stock.take_down(vec![std::fs::File::open("/dev/null").unwrap().into()]);
        assert!(!stock.wants(BREATH));
        let null = || std::fs::File::open("/dev/null").unwrap().into();
        stock.take_down((0..ENDED).map(|_| null()).collect());
        assert!(stock.wants(BREATH), "there are too many");
        stock.make(BREATH);
        assert!(!stock.wants(BREATH) && stock.ended.len() == ENDED);
        assert_eq!(stock.next(millisecond), Some(BREATH + millisecond));
        assert!(stock.wants(BREATH + millisecond));
        assert_eq!(stock.next(BREATH + millisecond), None, "it is not waited for");
        stock.close();
        assert!(stock.wants(millisecond), "the end of the machine waits for nobody");
    }

    #[test]
    fn what_is_wanted_is_bounded() {
        let mut stock = Stock::new().unwrap();
        let many: Vec<_> =
            (0..TEMPLATES + 5).map(|number| plan(&compiler("base/default"), &format!("s{number}"))).collect();
        for plan in &many {
            stock.want(plan.clone());
        }
        assert_eq!(stock.wanted.len(), TEMPLATES);
        assert!(Arc::ptr_eq(&stock.wanted[TEMPLATES - 1], &many[TEMPLATES + 4]), "the last stays");
    }
}
