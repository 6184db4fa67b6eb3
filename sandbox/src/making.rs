//! Namespaces without a process in them: a child makes them, does what is to be done in them, passes them on and ends.

use std::{
    ffi::CStr,
    io::IoSliceMut,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::atomic::AtomicU32,
};

use nix::{
    errno::Errno,
    sys::{
        socket::{AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair},
        wait::{Id, WaitPidFlag, waitid},
    },
};

use crate::{
    apply::{self, Context, Making, Mounts, Notes, Outcome},
    launch::Fault,
    plan::{Owner, Step},
    sys::{self, clone, raw::PointerArray},
    template::Template,
};

/// So many namespaces are passed on at most.
pub(crate) const MOST: usize = 3;

/// Which namespaces, and what is to be done in them.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) steps: &'a [Step],
    /// CLONE_NEW*
    pub(crate) flags: u64,
    /// Which of those that the child is in at its end are passed on, as in `/proc/self/ns`; at most [`MOST`].
    pub(crate) names: &'a [&'a CStr],
    /// What [`crate::plan::Op::EnterTemplate`] enters.
    pub(crate) template: Option<&'a Template>,
    /// For which service.
    pub(crate) owner: Option<&'a Owner>,
    /// What the steps note.
    pub(crate) notes: &'a Notes,
    /// Where a step that fails is told.
    pub(crate) outcome: &'a Outcome,
    pub(crate) fault: Fault,
}

/// Makes them, and answers them in the order of their names, or says what failed; a step that did is in `wanted.outcome`.
pub(crate) fn namespaces(wanted: &Wanted<'_>) -> Result<Vec<OwnedFd>, (&'static str, Errno)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let refused = |what| wanted.fault.refuses(what).map_err(|errno| (what, errno));
    refused("socketpair")?;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags)
        .map_err(|errno| ("socketpair", errno))?;
    let (none, cell) = (PointerArray::new(Vec::new()), AtomicU32::new(0));
    let context = Context {
        owner: wanted.owner,
        template: wanted.template.map(|template| Mounts::OfAll(template.namespace())),
        notes: wanted.template.map_or(Notes::none(), |template| template.notes()),
        ..Context::of_steps(wanted.steps, wanted.notes, wanted.outcome, &none, wanted.fault)
    };
    let making = Making { context: &context, names: wanted.names, socket: theirs.as_raw_fd() };
    let request = clone::Request {
        namespaces: wanted.flags,
        cgroup: None,
        relation: clone::Relation::Helper,
        pid_cell: &cell,
        shares_descriptors: false,
    };
    refused("clone3")?;
    let child = clone::vfork_into(&request, &making, |making| apply::hand_over(making))
        .map_err(|errno| ("clone3", errno))?;
    // It has ended: it never execs, and CLONE_VFORK held this process until then.
    waitid(Id::PIDFd(child.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::__WALL)
        .map_err(|errno| ("waitid", errno))?;
    match received(&ours) {
        Ok(made) if made.len() == wanted.names.len() => Ok(made),
        Ok(_) => Err(("pass namespaces on", Errno::EBADMSG)),
        Err(errno) => Err(("pass namespaces on", errno)),
    }
}

/// The descriptors that the child has sent, if it has.
fn received(socket: &OwnedFd) -> Result<Vec<OwnedFd>, Errno> {
    let mut byte = [0];
    let mut vector = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; MOST]);
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut vector, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let rights = message.cmsgs()?.filter_map(|control| {
        if let ControlMessageOwned::ScmRights(fds) = control { Some(fds) } else { None }
    });
    Ok(rights.flatten().map(sys::adopt).collect())
}
