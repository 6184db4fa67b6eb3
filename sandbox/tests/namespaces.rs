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
    assert!(error.starts_with("test.toml:4:25: time offsets: monotonic -4320000000 0: ERANGE"), "{error}");
}

const MAPPED: &str = "[namespaces.user]\nuid_map = [\"0 100000 65536\"]\ngid_map = [\"0 200000 65536\"]\n";

#[test]
fn a_user_namespace_has_the_ids_of_its_map() {
    if !is_root() {
        return;
    }
    let script = "id -u; id -g; cat /proc/self/uid_map; cat /proc/self/gid_map; cat /proc/self/setgroups; \
                  stat -c %u:%g /etc/passwd /tmp";
    let plain = run("", script);
    assert!(plain.output.contains(" 4294967295\n"), "the host maps everything: {plain:?}");
    assert!(plain.output.contains("\n0:0\n"), "its root is root: {plain:?}");
    let words = |output: &str| output.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let own = run(MAPPED, script);
    assert_eq!(
        words(&own.output),
        ["1000", "1000", "0", "100000", "65536", "0", "200000", "65536", "allow", "65534:65534", "1000:1000"],
        "the host's root is nobody there, and /tmp is the service's"
    );
}

/// Seen from outside, by the pid that the launch answers.
#[test]
fn the_host_sees_the_ids_outside() {
    if !is_root() {
        return;
    }
    let folder = inside::scratch("outside-ids");
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .expect("it is ours");
    let at = folder.display();
    let lines = |process: &str| {
        format!(
            "{MAPPED}[filesystem]\nhidden = []\nread_write = [\"{at}\"]\n[landlock]\nwrite = {{ add = [\"{at}\"] }}\n\
             [process]\n{process}\n"
        )
    };
    let owner = |name: &str| {
        let status = std::fs::metadata(folder.join(name)).expect("it was made");
        (std::os::unix::fs::MetadataExt::uid(&status), std::os::unix::fs::MetadataExt::gid(&status))
    };
    let ran = run(&lines("user = \"root\""), &format!("id -u; touch {at}/root"));
    assert_eq!((ran.output.as_str(), owner("root")), ("0\n", (100_000, 200_000)));
    let ran =
        run(&lines("user = 33\ngroup = 34\nsupplementary_groups = [35]"), &format!("id -G; touch {at}/user"));
    assert_eq!((ran.output.as_str(), owner("user")), ("34 35\n", (100_033, 200_034)));
}

#[test]
fn an_automatic_range_is_another_for_another_service() {
    if !is_root() {
        return;
    }
    let map = |name: &str| {
        let plan = inside::plan_for(name, "[namespaces]\nuser = \"auto\"\n");
        let ran = inside::run_plan(&plan, "cat /proc/self/uid_map").expect("it runs");
        ran.output.split_whitespace().map(|word| word.parse::<u32>().expect("numbers")).collect::<Vec<_>>()
    };
    let (web, mail) = (map("web"), map("mail"));
    assert_eq!(web, map("web"));
    assert!(web != mail && web[0] == 0 && web[2] == 65_536 && mail[2] == 65_536, "{web:?} {mail:?}");
    assert!(
        web[1] >= 0x2400_0000 && web[1] + 65_535 < 0x7000_0000 && web[1].is_multiple_of(65_536),
        "{web:?}"
    );
}

#[test]
fn capabilities_act_on_what_the_user_namespace_owns_and_on_nothing_of_the_hosts() {
    if !is_root() {
        return;
    }
    let lines = |user: &str, uts: &str| {
        format!(
            "[namespaces]\nuser = {user}\nuts = \"{uts}\"\n[process]\nuser = \"root\"\n[capabilities]\n\
             keep = [\"CAP_SYS_ADMIN\", \"CAP_NET_ADMIN\"]\n[seccomp]\nallow = [\"@known\"]\ndeny = []\nrule = []\n"
        )
    };
    let map = "{ uid_map = [\"0 100000 65536\"], gid_map = [\"0 100000 65536\"] }";
    let rename = "hostname inside && hostname";
    assert_eq!(run(&lines(map, "private"), rename).output, "inside\n", "its own uts namespace");
    let ran = run(&lines(map, "host"), "hostname stolen || uname -n");
    assert!(!ran.output.contains("stolen\n") && ran.status == 0, "{ran:?}");
    let changed = run(&lines(map, "private"), "cat /proc/self/status | grep CapEff");
    assert_eq!(changed.output, "CapEff:\t0000000000201000\n");
}

#[test]
fn the_loopback_of_an_owned_network_is_up_and_limits_are_as_without() {
    if !is_root() {
        return;
    }
    let lines = format!(
        "{MAPPED}[rlimits]\nnofile = \"77:99\"\n[process]\noom_score_adj = 7\n[landlock]\nread = {{ add = [\"/sys\"] }}\n"
    );
    let script = "cat /sys/class/net/lo/flags; ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj; \
                  echo x > /dev/null && echo null; head -c 3 /dev/zero | wc -c; ls /sys/class/net";
    let plain = lines.replace(MAPPED, "");
    assert_eq!(run(&plain, script).output, "0x9\n77\n99\n7\nnull\n3\nlo\n");
    assert_eq!(run(&lines, script).output, run(&plain, script).output);
}

#[test]
fn an_id_that_is_not_mapped_is_told() {
    if !is_root() {
        return;
    }
    let narrow = "[namespaces.user]\nuid_map = [\"0 100000 10\"]\ngid_map = [\"0 100000 10\"]\n[process]\n";
    assert_eq!(inside::complaints(narrow), Vec::<&str>::new(), "auto is 1");
    assert_eq!(inside::complaints(&format!("{narrow}user = 33\n")), ["unmapped-id", "unmapped-id"]);
    assert_eq!(inside::complaints(&format!("{narrow}supplementary_groups = [33]\n")), ["unmapped-id"]);
    let root_alone = narrow.replace("10\"]", "1\"]");
    assert_eq!(inside::complaints(&root_alone), ["unmapped-id", "unmapped-id"]);
    assert_eq!(run(&format!("{root_alone}user = \"root\"\ngroup = \"root\"\n"), "id -u").output, "0\n");
}
