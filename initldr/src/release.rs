//! What the end of a machine does about its disks: what is in memory is written, and whatever holds a file system is let
//! go of, so that the next boot finds each of them clean. And then what it asks of the kernel.
//!
//! One thing holds another up: a swap file its file system, that one its device, a loop device the file system of its
//! file. So it goes pass after pass until a pass has changed nothing.

use crate::{boot::Log, boot::text, end::Ending};
use core::ffi::CStr;
use initldr::storage::{Device, LOOK, Patience, device, removal, to_unmount, unwritten};
use initldr::sys::{self, Errno};
use initldr::{abi::*, link::End, mounts};

/// A mount on a mount takes one pass each; nobody stacks more.
const PASSES: usize = 32;

impl Ending<'_> {
    /// Writes what is in memory to the disks, however slow they are, as long as it becomes less.
    pub(crate) fn sync(&self) {
        let mut patience = Patience::new(still_unwritten());
        self.have_done_while(
            "sync",
            LOOK,
            || sys::sync().unwrap_or_default(),
            || {
                let left = still_unwritten();
                self.log.say(format_args!("sync: {left} KiB are still to be written"));
                patience.goes_on(left)
            },
        );
    }
}

fn still_unwritten() -> u32 {
    let mut sum = 0_u32;
    each_piece(c"/proc/meminfo", b'\n', |line| sum = sum.saturating_add(unwritten(line)));
    sum
}

/// Unmounts whatever lets itself be unmounted, ends swapping, and takes loop and mapped devices apart.
pub(crate) fn let_go() {
    // Nothing of this is to show in another mount namespace.
    sys::mount(c"none", c"/", c"", MS_REC | MS_PRIVATE, None).unwrap_or_default();
    sys::chdir(c"/dev").unwrap_or_default(); // where devices have their names; what is there stays mounted
    for _ in 0..PASSES {
        let mut gone = 0;
        each_mount(|path| gone += u32::from(path != c"/" && sys::umount(path, 0).is_ok()));
        let mut path = [0; mounts::PATH_SIZE];
        each_piece(c"/proc/swaps", b'\n', |line| {
            let field = line.split(|&byte| byte == b' ' || byte == b'\t').next().unwrap_or_default();
            let swap = mounts::unescaped(field, &mut path);
            gone += u32::from(swap.is_some_and(|path| sys::swapoff(path).is_ok()));
        });
        each_piece(c"/proc/partitions", b'\n', |line| {
            gone += u32::from(device(line, &mut path).is_some_and(is_gone));
        });
        if gone == 0 {
            break;
        }
    }
}

/// Takes a device apart, unless somebody uses it.
fn is_gone(device: Device<'_>) -> bool {
    match device {
        // One that is in use says yes as well, but then it is still there.
        Device::Loop(name) => {
            let clear = || sys::open(name, O_RDONLY).and_then(|device| sys::clear_loop(&device));
            clear().is_ok() && clear().is_err()
        }
        Device::Mapped(number) => sys::open(c"/dev/mapper/control", O_RDWR)
            .and_then(|control| sys::remove_mapped(&control, &mut removal(number)))
            .is_ok(),
    }
}

/// What could not be unmounted, the root first of all.
pub(crate) fn make_read_only(log: &Log) {
    each_mount(|path| {
        // What has no read-only state refuses in other words, and has nothing to lose.
        if sys::mount(c"none", path, c"", MS_REMOUNT | MS_RDONLY, None) == Err(Errno(EBUSY)) {
            log.say(format_args!("{} is in use, and stays writable", text(path)));
        }
    });
}

/// Asks for the end. From HALT and POWER_OFF the kernel lets its caller *exit*, which must not happen to PID 1: another
/// reason for a child.
pub(crate) fn ask_the_kernel(how: End) {
    for command in commands(how) {
        sys::reboot(command).unwrap_or_default(); // that it returns at all is the failure; so, the next
    }
}

/// What reboot(2) is asked, one after the other.
fn commands(how: End) -> [usize; 2] {
    match how {
        End::PowerOff | End::Exit(_) => [LINUX_REBOOT_CMD_POWER_OFF, LINUX_REBOOT_CMD_HALT],
        End::Reboot => [LINUX_REBOOT_CMD_RESTART, LINUX_REBOOT_CMD_RESTART],
        End::Halt => [LINUX_REBOOT_CMD_HALT, LINUX_REBOOT_CMD_POWER_OFF],
        End::Kexec => [LINUX_REBOOT_CMD_KEXEC, LINUX_REBOOT_CMD_RESTART],
        // It did not come to pass; the whole machine beginning anew is the nearest to it.
        End::SoftReboot => [LINUX_REBOOT_CMD_RESTART, LINUX_REBOOT_CMD_HALT],
    }
}

/// Each mount point that `to_unmount` lets through. The list changes under the reader, so an entry may be missed:
/// the next pass has it.
fn each_mount(mut act: impl FnMut(&CStr)) {
    let mut path = [0; mounts::PATH_SIZE];
    each_piece(c"/proc/self/mounts", b'\n', |line| {
        if let Some(path) = to_unmount(line, &mut path) {
            act(path);
        }
    });
}

/// Each piece of a file that `end` ends.
pub(crate) fn each_piece(file: &CStr, end: u8, mut act: impl FnMut(&[u8])) {
    let Ok(file) = sys::open(file, O_RDONLY) else { return };
    let (mut buffer, mut held) = ([0; 2 * mounts::PATH_SIZE], 0);
    while let Some(room) = buffer.get_mut(held..)
        && let Ok(read @ 1..) = sys::read(&file, room)
    {
        held += read;
        let whole = buffer.iter().take(held).rposition(|&byte| byte == end).map_or(0, |last| last + 1);
        buffer.get(..whole).unwrap_or_default().split(|&byte| byte == end).for_each(&mut act);
        buffer.copy_within(whole..held, 0);
        held = if held - whole == buffer.len() { 0 } else { held - whole }; // such a path cannot be reached anyway
    }
}
