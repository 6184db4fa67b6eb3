//! What a service ignores: nothing, whatever its launcher does, and whether that said that this changes no more or not. A
//! process of its own: what is said is said for good.

mod inside;

use inside::run;

/// The word of `/proc/PID/status`: bit 0 is signal 1.
fn ignored(status: &str) -> u64 {
    let word = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("it has that line");
    u64::from_str_radix(word.trim(), 16).expect("hexadecimal")
}

#[test]
fn what_the_launcher_ignores_is_reset_before_and_after_that_is_final() {
    if !inside::is_root() {
        return;
    }
    // Rust's start-up has this process ignore SIGPIPE; whoever started it may have had more ignored.
    let here = ignored(&std::fs::read_to_string("/proc/self/status").expect("a process has one"));
    assert_ne!(here & (1 << (libc::SIGPIPE - 1)), 0, "control: {here:x}");
    let in_child = || ignored(&run("", "cat /proc/self/status").output);
    assert_eq!(in_child(), 0, "all are reset");
    sandbox::inherited::dispositions_are_final().expect("dispositions can be asked for");
    assert_eq!(in_child(), 0, "those that were ignored then are reset: {here:x}");
}
