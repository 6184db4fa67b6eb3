//! [`Berth`]: what one launch of a plan finds ready, besides the [`Template`] that all its launches share: a network, an IPC
//! namespace, and the mounts with every file system of its own that can be there before its process is.
//!
//! A berth is for one launch of one plan. Nobody was in it before, and nobody gets it twice: a launch takes it out of where
//! it was kept. As with a template there is nobody in it and nothing of it but its descriptors.
//!
//! Invariant: a launch into a berth is what a launch without it would be now, or it is not into the berth. What a template
//! has to be looked at for, a berth has to be too: [`Berth::is_current`], [`crate::template::MountWatch`], and the launch's
//! own look at what stands where it was mounted.

use std::{
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::Arc,
};

use crate::{
    apply::{Notes, Outcome},
    launch::{Fault, LaunchError, explain},
    making,
    plan::Plan,
    template::{Template, shows_the_same},
};

/// Holding one proves that every step of its plan that can be made ahead succeeded.
#[derive(Debug)]
pub struct Berth {
    plan: Arc<Plan>,
    network: Option<OwnedFd>,
    ipc: Option<OwnedFd>,
    mounts: OwnedFd,
    notes: Arc<Notes>,
}

impl Berth {
    /// Makes one from a template [of](Template::is_of) the plan; `None` for a plan that has none ([`Plan::has_berth`]).
    ///
    /// # Errors
    /// The step that failed, as a launch would tell it; ESTALE where the template is not what would be built now.
    pub fn make(plan: &Arc<Plan>, template: &Template) -> Result<Option<Self>, LaunchError> {
        Self::make_with(plan, template, Fault::default())
    }

    pub(crate) fn make_with(
        plan: &Arc<Plan>,
        template: &Template,
        fault: Fault,
    ) -> Result<Option<Self>, LaunchError> {
        if !template.is_of(plan) {
            return Err(LaunchError::parent_side("template of another plan", nix::errno::Errno::EINVAL));
        }
        let Some(wanted) = plan.template.as_ref().and_then(|parts| parts.berth.as_ref()) else {
            return Ok(None);
        };
        let has = |flag: i32| wanted.made & u64::from(flag.cast_unsigned()) != 0;
        let (network, ipc) = (has(libc::CLONE_NEWNET), has(libc::CLONE_NEWIPC));
        let names = [(true, c"mnt"), (network, c"net"), (ipc, c"ipc")];
        let names: Vec<_> = names.into_iter().filter_map(|(wanted, name)| wanted.then_some(name)).collect();
        let notes = Arc::new(Notes::blank(wanted.sources.len(), wanted.mount_points));
        let outcome = Outcome::new();
        let ahead = wanted.ahead.in_one();
        let made = making::namespaces(&making::Wanted {
            steps: &ahead,
            flags: wanted.made,
            names: &names,
            template: Some(template),
            owner: Some(&plan.owner()),
            notes: &notes,
            outcome: &outcome,
            fault,
        });
        let made = made.map_err(|(what, errno)| match outcome.failure() {
            Some((step, errno)) => explain(plan, &ahead, None, step, errno, 0),
            None => LaunchError::parent_side(&format!("berth: {what}"), errno),
        });
        let mut made = made.inspect_err(|error| {
            if error.is_stale() {
                template.found_stale();
            }
        })?;
        // In the order of their names.
        let (ipc, network) = (ipc.then(|| made.pop()).flatten(), network.then(|| made.pop()).flatten());
        match made.pop() {
            Some(mounts) => Ok(Some(Self { plan: plan.clone(), network, ipc, mounts, notes })),
            None => Err(LaunchError::parent_side("berth", nix::errno::Errno::EBADMSG)),
        }
    }

    /// Whether the paths of the host that it shows besides its template's lead to the same files and folders.
    #[must_use]
    pub fn is_current(&self) -> bool {
        let sources = self.plan.template.iter().flat_map(|parts| &parts.berth);
        shows_the_same(sources.flat_map(|berth| &berth.sources), &self.notes)
    }

    /// Whether it was made for this very plan.
    #[must_use]
    pub fn is_of(&self, plan: &Plan) -> bool {
        std::ptr::eq(&raw const *self.plan, plan)
    }

    /// Its mounts alone are left: whoever holds them decides when they are taken down.
    pub(crate) fn into_mounts(self) -> OwnedFd {
        self.mounts
    }

    pub(crate) fn namespaces(&self) -> [(i32, Option<RawFd>); 3] {
        let of = |namespace: &Option<OwnedFd>| namespace.as_ref().map(AsRawFd::as_raw_fd);
        [
            (libc::CLONE_NEWNET, of(&self.network)),
            (libc::CLONE_NEWIPC, of(&self.ipc)),
            (libc::CLONE_NEWNS, Some(self.mounts.as_raw_fd())),
        ]
    }

    pub(crate) fn notes(&self) -> &Arc<Notes> {
        &self.notes
    }
}
