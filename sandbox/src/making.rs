//! A namespace without a process in it: a child makes it, does what is to be done in it, passes it on and ends.

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
    apply::{self, Context, Making, Notes, Outcome},
    launch::Fault,
    plan::Step,
    sys::{self, clone, raw::PointerArray},
};

/// Which namespace, and what is to be done in it.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) steps: &'a [Step],
    /// CLONE_NEW*
    pub(crate) flag: i32,
    /// Of the process that is in it: `/proc/self/ns/mnt`.
    pub(crate) path: &'a CStr,
    pub(crate) notes: &'a Notes,
    /// Where a step that fails is told.
    pub(crate) outcome: &'a Outcome,
    pub(crate) fault: Fault,
}

/// Makes it, or says what failed; a step that did is in `wanted.outcome`.
pub(crate) fn namespace(wanted: &Wanted<'_>) -> Result<OwnedFd, (&'static str, Errno)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let refused = |what| wanted.fault.refuses(what).map_err(|errno| (what, errno));
    refused("socketpair")?;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags)
        .map_err(|errno| ("socketpair", errno))?;
    let (none, cell) = (PointerArray::new(Vec::new()), AtomicU32::new(0));
    let context = Context::of_steps(wanted.steps, wanted.notes, wanted.outcome, &none, wanted.fault);
    let making = Making { context: &context, namespace: wanted.path, socket: theirs.as_raw_fd() };
    let request = clone::Request {
        namespaces: u64::from(wanted.flag.cast_unsigned()),
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
    received(&ours).map_err(|errno| ("pass a namespace on", errno))
}

/// The descriptor that the child has sent, if it has.
fn received(socket: &OwnedFd) -> Result<OwnedFd, Errno> {
    let mut byte = [0];
    let mut vector = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(std::os::fd::RawFd);
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut vector, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut rights = message.cmsgs()?.filter_map(|control| {
        if let ControlMessageOwned::ScmRights(fds) = control { fds.first().copied() } else { None }
    });
    rights.next().map(sys::adopt).ok_or(Errno::EBADMSG)
}
