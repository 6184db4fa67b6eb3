//! The operator's tool.
#![no_main]

#[allow(unsafe_code, reason = "where C's runtime hands over to this program")]
mod sys;
