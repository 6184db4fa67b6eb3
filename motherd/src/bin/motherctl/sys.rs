//! Where the program begins: C's main(3), without the beginning that the standard library has for programs.
//!
//! That one makes a second stack, on which it would be said that the first is full, and looks for the end of the first in
//! /proc/self/maps: a tenth of what `motherctl list` takes from its beginning to its end. What else it does is done by
//! `motherd::ctl::main`.

use std::{
    ffi::{CStr, OsStr, OsString, c_char, c_int},
    os::unix::ffi::OsStrExt,
};

/// What C's runtime calls, with the words of the command line.
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, words: *const *const c_char) -> c_int {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: C's runtime passes a pointer to this many pointers, and a null pointer behind them, which execve(2) put onto the
    // stack, where nobody changes them.
    let words = unsafe { std::slice::from_raw_parts(words, count) };
    motherd::ctl::main(words.iter().map(|word| owned(*word)).collect())
}

fn owned(word: *const c_char) -> OsString {
    // SAFETY: each of them is a string that ends in NUL, put there by execve(2) as well.
    let word = unsafe { CStr::from_ptr(word) };
    OsStr::from_bytes(word.to_bytes()).to_owned()
}
