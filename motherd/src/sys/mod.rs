//! Every unsafe line and every raw system call of this crate. Functions here are named after what they call and decide
//! nothing.

pub(crate) mod clock;
pub(crate) mod given;
pub(crate) mod link;
pub(crate) mod memory;
pub(crate) mod network;
pub(crate) mod notify;
pub(crate) mod pipe;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod watchdog;
