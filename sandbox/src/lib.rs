//! From policy text to a confined process.
//!
//! One pipeline, one verb a stage:
//!
//! ```text
//! TOML text --parse--> RawPolicy --validate--> Policy --compile--> Plan --apply--> confined child --exec--> service
//!            (toml)               (spans kept)            (cannot be wrong)  (for this Kernel)  (between clone and exec)
//! ```
//!
//! The invariant of the whole crate: **a process runs with everything its policy says, or it does not run.** Whatever
//! can fail for a knowable reason fails in the parent, before the child exists, with the place in the file; what fails
//! in the child is reported as `{step, index, errno}`, which the parent maps back to that place.
//!
//! Vocabulary: a [`policy::Policy`] is what an author wanted, checked; a [`kernel::Kernel`] is what this machine offers,
//! probed once; a [`compile::Plan`] is the ordered steps that a child walks; [`launch::launch`] makes the child.

mod apply;
pub mod attest;
pub mod berth;
pub mod beside;
pub mod cgroup;
pub mod compile;
mod credentials;
pub mod descriptors;
pub mod diagnostic;
mod digest;
pub mod doctor;
pub mod explain;
#[cfg(test)]
mod golden;
pub mod inherited;
pub mod kernel;
pub mod launch;
mod making;
pub mod netpool;
pub mod ordinary;
mod plan;
pub mod policy;
pub mod question;
mod record;
pub mod standby;
mod steps;
pub mod survey;
#[allow(unsafe_code, reason = "the boundary to the kernel: raw system calls and clone3")]
mod sys;
pub mod syscalls;
pub mod template;
pub mod timings;
#[cfg(test)]
mod truth;
mod userns;

pub use plan::{LeftOut, Plan, Trigger};
