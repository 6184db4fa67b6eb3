//! Bugs made on purpose, one at a time, in the places where they would hurt: the simulator has to find each of them.
//!
//! They exist in test builds alone; in any other one [`on`] is `false`, and the compiler takes it out.

/// What is done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A service starts before what it requires is up.
    StartsTooEarly,
    /// A service starts beside one that conflicts with it.
    StartsBesideARival,
    /// A service does not wait for those that want it to come after something.
    IgnoresOrder,
    /// A service stops before those that come later.
    StopsTooEarly,
    /// What crashed is started again without its cgroup being emptied.
    LeavesProcesses,
    /// A main process that was reaped is signalled.
    SignalsTheDead,
    /// A timer stays when its reason has gone.
    KeepsATimer,
    /// A timer is not armed.
    LosesATimer,
    /// A request is answered twice.
    AnswersTwice,
    /// A request that cannot be answered at once is forgotten.
    ForgetsARequest,
    /// The wait before the next try grows without end.
    WaitsForEver,
    /// A service stops without a cause.
    ForgetsWhy,
    /// What was started for a service alone runs on without it.
    KeepsTheUnneeded,
    /// A service that waits for a recovery is not looked at when that comes.
    ForgetsTheBlocked,
    /// A restart ends with the stop.
    ForgetsToComeBack,
    /// What prepares a service is done once and never again.
    PreparesOnce,
    /// A service runs on without what it is bound to.
    BreaksABond,
    /// A transition does not reach the record.
    RecordsLate,
    /// A motherd that comes back does not go on with what was being launched.
    ForgetsALaunch,
    /// A service does not wait for its conditions.
    IgnoresConditions,
    /// A service runs on without a condition that is to end it.
    IgnoresALoss,
    /// Others wait for ever with a service that waits for a condition.
    ExpectsForEver,
    /// A command that had its time runs on beside the next one.
    LeavesACommand,
    /// A program is made though its service is not to be up any more.
    LaunchesTheUnwanted,
    /// An act is done though events have overtaken it.
    ActsTooLate,
    /// A process that waits to be the next one outlives its reason.
    KeepsTheStandby,
    /// No process waits to be the next one.
    ForgetsTheStandby,
}

#[cfg(test)]
impl Fault {
    /// Each of them.
    pub(crate) const ALL: [Self; 27] = [
        Self::StartsTooEarly,
        Self::StartsBesideARival,
        Self::IgnoresOrder,
        Self::StopsTooEarly,
        Self::LeavesProcesses,
        Self::SignalsTheDead,
        Self::KeepsATimer,
        Self::LosesATimer,
        Self::AnswersTwice,
        Self::ForgetsARequest,
        Self::WaitsForEver,
        Self::ForgetsWhy,
        Self::KeepsTheUnneeded,
        Self::ForgetsTheBlocked,
        Self::ForgetsToComeBack,
        Self::PreparesOnce,
        Self::BreaksABond,
        Self::RecordsLate,
        Self::ForgetsALaunch,
        Self::IgnoresConditions,
        Self::IgnoresALoss,
        Self::ExpectsForEver,
        Self::LeavesACommand,
        Self::LaunchesTheUnwanted,
        Self::ActsTooLate,
        Self::KeepsTheStandby,
        Self::ForgetsTheStandby,
    ];
}

#[cfg(test)]
thread_local! {
    static FAULT: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// From here on this thread does that wrong.
#[cfg(test)]
pub(crate) fn make(fault: Option<Fault>) {
    FAULT.set(fault);
}

/// Whether this is to be done wrong.
#[cfg(test)]
pub(crate) fn on(fault: Fault) -> bool {
    FAULT.get() == Some(fault)
}

/// Never, outside of tests.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn on(_fault: Fault) -> bool {
    false
}
