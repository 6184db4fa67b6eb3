//! Each key of `[namespaces]` as it is felt inside the sandbox, and the same act without the key.

mod inside;

use inside::{is_root, run, try_run};

#[test]
fn the_host_and_domain_name_are_the_services_own() {
    if !is_root() {
        return;
    }
    let names = "uname -n; cat /proc/sys/kernel/domainname";
    let open = "[filesystem]\nproc = \"full\"\n";
    let before = run(open, names).output;
    let lines = format!("{open}[namespaces]\nhostname = \"web-1.example\"\ndomainname = \"nis.example\"\n");
    assert_eq!(run(&lines, names).output, "web-1.example\nnis.example\n");
    assert_eq!(run(open, names).output, before, "the host keeps its own");
    assert_ne!(before, "web-1.example\nnis.example\n");
}

/// Seconds since the start, as the service sees it.
fn uptime(lines: &str) -> f64 {
    let lines = format!("[filesystem]\nproc = \"full\"\n{lines}");
    let ran = run(&lines, "cat /proc/uptime");
    ran.output.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{ran:?}"))
}

#[test]
fn the_clocks_of_a_time_namespace_have_their_offsets() {
    if !is_root() {
        return;
    }
    let host = uptime("");
    let same = uptime("[namespaces]\ntime = \"private\"\n");
    assert!((same - host).abs() < 100.0, "{same} and {host}");
    let ahead = uptime("[namespaces]\ntime = \"private\"\ntime_offset_boottime = \"720h\"\n");
    assert!((ahead - host - 30.0 * 86_400.0).abs() < 100.0, "{ahead} and {host}");
    let read = "cat /proc/self/timens_offsets";
    let offsets = |lines: &str| {
        let lines = format!("[filesystem]\nproc = \"full\"\n[namespaces]\ntime = \"private\"\n{lines}");
        let output = run(&lines, read).output;
        output.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(offsets(""), ["monotonic", "0", "0", "boottime", "0", "0"]);
    let both = "time_offset_monotonic = \"2h\"\ntime_offset_boottime = \"1500ms\"\n";
    assert_eq!(offsets(both), ["monotonic", "7200", "0", "boottime", "1", "500000000"]);
}

#[test]
fn a_clock_cannot_be_before_the_machines_start() {
    if !is_root() {
        return;
    }
    let lines = "[namespaces]\ntime = \"private\"\ntime_offset_monotonic = \"-1200000h\"\n";
    let error = try_run(lines, "true").unwrap_err();
    assert!(error.starts_with("t.toml:4:25: time offsets: monotonic -4320000000 0: ERANGE"), "{error}");
}
