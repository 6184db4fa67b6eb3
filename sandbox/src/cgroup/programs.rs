//! The programs on a cgroup: attached before the service exists, read back, and what is there told to whoever asks.
//!
//! Attached and not linked: an attachment is the cgroup's and lasts as long as it, whoever made it may die. A cgroup that is
//! used again has those of the last launch; they are taken off once the new ones are on, by the name that they have.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::errno::Errno;

use super::{Cgroup, CgroupError};
use crate::{
    plan::{CgroupProgram, Plan},
    sys::bpf::{self, Hook, Info},
};

/// What every name of ours begins with; the kernel keeps 15 bytes.
const OURS: &[u8] = b"motherd_";

/// One program as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedProgram {
    /// Where on the cgroup: `device`, `ingress`, `bind4`.
    pub hook: &'static str,
    /// The kernel's number of it.
    pub id: u32,
    /// The kernel's digest of its instructions.
    pub tag: String,
    /// It was attached by a launch, as its name says.
    pub ours: bool,
}

fn name(hook: Hook) -> &'static CStr {
    match hook {
        Hook::Ingress => c"motherd_ingress",
        Hook::Egress => c"motherd_egress",
        Hook::Device => c"motherd_device",
        Hook::Bind4 => c"motherd_bind4",
        Hook::Bind6 => c"motherd_bind6",
        Hook::Connect4 => c"motherd_conn4",
        Hook::Connect6 => c"motherd_conn6",
        Hook::Send4 => c"motherd_send4",
        Hook::Send6 => c"motherd_send6",
    }
}

fn word(hook: Hook) -> &'static str {
    match hook {
        Hook::Ingress => "ingress",
        Hook::Egress => "egress",
        Hook::Device => "device",
        Hook::Bind4 => "bind4",
        Hook::Bind6 => "bind6",
        Hook::Connect4 => "connect4",
        Hook::Connect6 => "connect6",
        Hook::Send4 => "sendmsg4",
        Hook::Send6 => "sendmsg6",
    }
}

impl Cgroup {
    /// Attaches the plan's programs, takes off those of an earlier plan, and reads back that they are there. A cgroup that is
    /// new has none of an earlier plan.
    pub(super) fn attach(&self, plan: &Plan, is_new: bool) -> Result<(), CgroupError> {
        // Where none can be attached, there is none of an earlier launch.
        let Some(programs) = &plan.programs else { return Ok(()) };
        if is_new {
            return programs.iter().try_for_each(|program| self.attach_one(program, plan, true).map(drop));
        }
        for hook in Hook::ALL {
            let wanted = programs.iter().find(|program| program.hook == hook);
            let kept = wanted.map(|program| self.attach_one(program, plan, false)).transpose()?;
            for (id, program, info) in self.attached(hook)? {
                if info.name().starts_with(OURS) && Some(id) != kept {
                    bpf::detach(self.directory(), hook, program.as_fd())
                        .map_err(|errno| self.failed("detach the last", hook, errno))?;
                }
            }
        }
        Ok(())
    }

    /// The id of it.
    fn attach_one(&self, program: &CgroupProgram, plan: &Plan, is_new: bool) -> Result<u32, CgroupError> {
        let hook = program.hook;
        let blame = |action: &str, source: io::Error| {
            let place = plan.sources.locate(&program.at);
            let action = format!("{place}: cgroup.{}: {action} the {} program of", program.key, word(hook));
            CgroupError::new(action, &self.path, source)
        };
        let (loaded, id) = program.loaded(name(hook)).map_err(|errno| blame("load", errno.into()))?;
        let is_there = || bpf::attached(self.directory(), hook).map(|ids| ids.contains(&id));
        if is_new || !is_there().map_err(|errno| blame("ask for", errno.into()))? {
            bpf::attach(self.directory(), hook, loaded).map_err(|errno| blame("attach", errno.into()))?;
        }
        match is_there() {
            Ok(true) => Ok(id),
            Ok(false) => Err(blame("attach", io::Error::other("it is not among those attached"))),
            Err(errno) => Err(blame("ask for", errno.into())),
        }
    }

    fn failed(&self, action: &str, hook: Hook, errno: Errno) -> CgroupError {
        CgroupError::new(format!("{action} {} program of", word(hook)), &self.path, errno)
    }

    /// The programs that are attached there.
    fn attached(&self, hook: Hook) -> Result<Vec<(u32, OwnedFd, Info)>, CgroupError> {
        let failed = |errno| self.failed("ask for the", hook, errno);
        let mut found = Vec::new();
        for id in bpf::attached(self.directory(), hook).map_err(failed)? {
            match bpf::by_id(id) {
                Ok(program) => {
                    let info = bpf::info(program.as_fd()).map_err(failed)?;
                    found.push((id, program, info));
                }
                // Somebody else's, taken off meanwhile.
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        Ok(found)
    }

    /// Every program that is attached to it, as the kernel tells. What is attached to the cgroups above counts besides.
    ///
    /// # Errors
    /// It is gone, this process may not ask (EPERM), or the kernel knows no programs on cgroups (EINVAL, ENOSYS).
    pub fn programs(&self) -> Result<Vec<AttachedProgram>, CgroupError> {
        let mut programs = Vec::new();
        for hook in Hook::ALL {
            for (id, _, info) in self.attached(hook)? {
                let tag = info.tag.iter().map(|byte| format!("{byte:02x}")).collect();
                let ours = info.name().starts_with(OURS);
                programs.push(AttachedProgram { hook: word(hook), id, tag, ours });
            }
        }
        Ok(programs)
    }
}
