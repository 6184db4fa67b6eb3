//! The service manager, and motherctl.

pub mod calendar;
pub mod control;
pub mod ctl;
pub mod daemon;
pub mod early;
pub mod eventlog;
mod failpoint;
mod fault;
mod fnv;
pub mod graph;
pub mod manager;
pub mod rare;
#[cfg(test)]
mod scratch;
pub mod service;
#[cfg(test)]
mod simulate;
pub mod state;
pub mod supervise;
pub mod timing;

#[allow(unsafe_code, reason = "the one module of this crate that makes raw system calls")]
mod sys;
