//! Every key that a policy can have, and the test in which a process feels it: a key that is accepted and not applied would
//! be the worst defect there is. The keys are asked of the reader itself, so a new one without a row here fails, and so
//! does a row whose test is gone or does not speak of the key.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// How it is known that a key does what it says.
enum Shown {
    /// Rows of the tables of `felt.rs` or of the tests in QEMU: the key stands in the row.
    InTable(&'static str),
    /// A test of its own, by file and name.
    By(&'static str, &'static str),
    /// No kernel at hand can let a process feel it, and why; the test shows what can be known.
    NotFelt { why: &'static str, file: &'static str, test: &'static str },
    /// It confines nothing, and this is what it does.
    Says { file: &'static str, test: &'static str },
}

use Shown::{By, InTable, NotFelt, Says};

const FELT: &str = "sandbox/tests/felt.rs";
const KEYS: &str = "sandbox/tests/keys.rs";
const FILES: &str = "sandbox/tests/filesystem.rs";
const NAMESPACES: &str = "sandbox/tests/namespaces.rs";
const PROGRAMS: &str = "sandbox/tests/programs.rs";
const SECRETS: &str = "sandbox/tests/credentials.rs";
const LIMITS: &str = "tests/tests/limits.rs";

const TABLE: &[(&str, Shown)] = &[
    (
        "description",
        Says {
            file: "sandbox/src/golden.rs",
            test: "show_and_explain_print_this_about_the_shipped_policies",
        },
    ),
    ("extends", InTable(FELT)),
    ("unconfined", By(FELT, "an_unconfined_command_has_what_its_launcher_has")),
    ("rlimits", By(KEYS, "each_resource_limit_is_the_one_that_is_named")),
    ("credentials", By(SECRETS, "the_service_reads_its_credentials_and_cannot_change_them")),
    ("credentials.NAME.file", By(SECRETS, "the_service_reads_its_credentials_and_cannot_change_them")),
    ("credentials.NAME.optional", By(SECRETS, "a_missing_credential_is_an_error_unless_it_is_optional")),
    // [namespaces]
    ("namespaces.mount", InTable(FELT)),
    ("namespaces.pid", InTable(FELT)),
    ("namespaces.ipc", InTable(FELT)),
    ("namespaces.uts", InTable(FELT)),
    ("namespaces.cgroup", InTable(FELT)),
    ("namespaces.net", InTable(FELT)),
    ("namespaces.user", By(NAMESPACES, "an_automatic_range_is_another_for_another_service")),
    ("namespaces.user.uid_map", By(NAMESPACES, "a_user_namespace_has_the_ids_of_its_map")),
    ("namespaces.user.gid_map", By(NAMESPACES, "a_user_namespace_has_the_ids_of_its_map")),
    ("namespaces.time", InTable(FELT)),
    ("namespaces.hostname", By(NAMESPACES, "the_host_and_domain_name_are_the_services_own")),
    ("namespaces.domainname", By(NAMESPACES, "the_host_and_domain_name_are_the_services_own")),
    ("namespaces.time_offset_monotonic", By(NAMESPACES, "the_clocks_of_a_time_namespace_have_their_offsets")),
    ("namespaces.time_offset_boottime", By(NAMESPACES, "the_clocks_of_a_time_namespace_have_their_offsets")),
    // [filesystem]
    ("filesystem.root", InTable(FELT)),
    ("filesystem.read_only", InTable(FELT)),
    ("filesystem.read_write", InTable(FELT)),
    ("filesystem.read_write.path", InTable(FELT)),
    ("filesystem.read_write.optional", InTable(FELT)),
    ("filesystem.read_write.noexec", By(FILES, "a_writable_path_can_forbid_to_execute")),
    ("filesystem.hidden", InTable(FELT)),
    ("filesystem.tmpfs", InTable(FELT)),
    ("filesystem.tmpfs.path", InTable(FELT)),
    ("filesystem.tmpfs.size", InTable(FELT)),
    ("filesystem.tmpfs.mode", InTable(FELT)),
    ("filesystem.tmpfs.inodes", InTable(FELT)),
    (
        "filesystem.tmpfs.noexec",
        By(FILES, "what_is_written_to_a_tmpfs_is_executed_only_where_the_policy_says_so"),
    ),
    ("filesystem.proc", InTable(FELT)),
    ("filesystem.dev", InTable(FELT)),
    ("filesystem.sys", InTable(FELT)),
    ("filesystem.bind", InTable(FELT)),
    ("filesystem.bind.from", InTable(FELT)),
    ("filesystem.bind.to", InTable(FELT)),
    ("filesystem.bind.read_only", InTable(FELT)),
    ("filesystem.bind.optional", InTable(FELT)),
    ("filesystem.bind.nosuid", By(FILES, "a_bind_ignores_set_user_id_unless_it_says_otherwise")),
    ("filesystem.bind.nodev", By(FILES, "a_bind_forbids_devices_unless_it_says_otherwise")),
    ("filesystem.bind.noexec", By(FILES, "a_bind_can_forbid_to_execute")),
    ("filesystem.bind.nosymfollow", By(FILES, "a_bind_can_forbid_to_follow_links")),
    ("filesystem.bind.control_socket", InTable(FELT)),
    (
        "filesystem.bind.idmap",
        By(FILES, "an_idmapped_bind_shows_owners_as_others_and_stores_them_as_they_were"),
    ),
    ("filesystem.overlay", InTable(LIMITS)),
    ("filesystem.overlay.path", By(FILES, "an_overlay_shows_its_folders_and_takes_what_is_written")),
    ("filesystem.overlay.lower", By(FILES, "an_overlay_shows_its_folders_and_takes_what_is_written")),
    ("filesystem.overlay.size", By(FILES, "an_overlay_shows_its_folders_and_takes_what_is_written")),
    ("filesystem.overlay.mode", By(FILES, "an_overlay_shows_its_folders_and_takes_what_is_written")),
    ("filesystem.overlay.inodes", By(FILES, "an_overlay_shows_its_folders_and_takes_what_is_written")),
    ("filesystem.overlay.noexec", By(FILES, "an_overlay_shows_its_folders_and_takes_what_is_written")),
    // [process]
    ("process.user", InTable(FELT)),
    ("process.group", InTable(FELT)),
    ("process.supplementary_groups", InTable(FELT)),
    ("process.no_new_privs", InTable(FELT)),
    ("process.umask", InTable(FELT)),
    ("process.working_directory", InTable(FELT)),
    ("process.environment", InTable(FELT)),
    ("process.oom_score_adj", InTable(FELT)),
    ("process.nice", InTable(FELT)),
    ("process.memory_deny_write_execute", By(KEYS, "no_memory_is_writable_and_executable")),
    ("process.lock_personality", InTable(FELT)),
    ("process.core_dumps", InTable(FELT)),
    ("process.keyring", InTable(FELT)),
    ("process.scheduler", By(KEYS, "the_scheduler_is_the_one_that_is_named")),
    ("process.scheduler_priority", By(KEYS, "the_scheduler_is_the_one_that_is_named")),
    ("process.cpu_affinity", By(KEYS, "it_runs_on_the_named_processors_alone")),
    ("process.numa_policy", By(KEYS, "its_memory_comes_from_the_named_nodes")),
    ("process.numa_nodes", By(KEYS, "its_memory_comes_from_the_named_nodes")),
    ("process.io_class", By(KEYS, "io_goes_in_the_named_class")),
    ("process.io_priority", By(KEYS, "io_goes_in_the_named_class")),
    ("process.timer_slack", By(KEYS, "timers_are_as_late_as_the_slack_says")),
    ("process.disable_speculation", By(KEYS, "speculation_is_disabled_or_the_policy_is_refused")),
    ("process.disable_speculation.kind", By(KEYS, "speculation_is_disabled_or_the_policy_is_refused")),
    ("process.disable_speculation.optional", By(KEYS, "speculation_is_disabled_or_the_policy_is_refused")),
    ("process.securebits", By(KEYS, "securebits_are_strict_but_for_what_is_chosen")),
    ("process.restrict_realtime", By(KEYS, "a_realtime_scheduler_is_out_of_reach_even_with_the_capability")),
    ("process.restrict_suid", By(KEYS, "no_set_user_id_bit_is_set_by_any_call")),
    ("process.restrict_namespaces", By(KEYS, "namespaces_are_made_of_the_kinds_that_are_named")),
    // [capabilities]
    ("capabilities.keep", InTable(FELT)),
    ("capabilities.ambient", InTable(FELT)),
    // [landlock]
    ("landlock.read", InTable(FELT)),
    ("landlock.read.path", InTable(FELT)),
    ("landlock.read.optional", InTable(FELT)),
    ("landlock.execute", InTable(FELT)),
    ("landlock.write", InTable(FELT)),
    ("landlock.bind_tcp", InTable(FELT)),
    ("landlock.connect_tcp", InTable(FELT)),
    ("landlock.scope", InTable(FELT)),
    ("landlock.optional", By(LIMITS, "what_landlock_lacks_is_refused_unless_it_is_optional")),
    // [seccomp]
    ("seccomp.default", InTable(FELT)),
    ("seccomp.allow", InTable(FELT)),
    ("seccomp.deny", InTable(FELT)),
    ("seccomp.architectures", By(KEYS, "another_architecture_is_dead_unless_it_is_named")),
    ("seccomp.log", By("tests/tests/confinement.rs", "denied_calls_reach_the_log_of_the_kernel")),
    ("seccomp.rule", InTable(FELT)),
    ("seccomp.rule.call", InTable(FELT)),
    ("seccomp.rule.arg", InTable(FELT)),
    ("seccomp.rule.in", InTable(FELT)),
    ("seccomp.socket", By(KEYS, "sockets_are_those_of_the_table")),
    ("seccomp.socket.family", By(KEYS, "sockets_are_those_of_the_table")),
    ("seccomp.socket.type", By(KEYS, "sockets_are_those_of_the_table")),
    ("seccomp.socket.protocol", By(KEYS, "sockets_are_those_of_the_table")),
    ("seccomp.ioctl", By(KEYS, "requests_and_operations_are_those_of_the_lists")),
    ("seccomp.prctl", By(KEYS, "requests_and_operations_are_those_of_the_lists")),
    ("seccomp.io_uring", By(KEYS, "io_uring_needs_its_switch_besides_its_calls")),
    (
        "seccomp.groups",
        NotFelt {
            why: "there is one version of the groups so far, and naming it changes nothing",
            file: "sandbox/src/syscalls/versions.rs",
            test: "the_members_of_every_version_are_those_of_its_golden_file",
        },
    ),
    ("seccomp.action", By(KEYS, "a_denied_call_gets_what_its_action_says")),
    // [cgroup]
    ("cgroup.memory_high", InTable(LIMITS)),
    ("cgroup.memory_max", InTable(LIMITS)),
    ("cgroup.swap_max", InTable(LIMITS)),
    ("cgroup.pids_max", InTable(LIMITS)),
    ("cgroup.cpu_weight", By(LIMITS, "a_processor_is_shared_by_weight")),
    ("cgroup.cpu_max", InTable(LIMITS)),
    ("cgroup.io_weight", By(LIMITS, "a_device_is_shared_by_weight")),
    ("cgroup.oom_group", InTable(LIMITS)),
    ("cgroup.memory_min", By(LIMITS, "protected_memory_stays")),
    ("cgroup.memory_low", By(LIMITS, "protected_memory_stays")),
    ("cgroup.swap_high", InTable(LIMITS)),
    ("cgroup.memory_zswap_max", InTable(LIMITS)),
    ("cgroup.memory_zswap_writeback", InTable(LIMITS)),
    ("cgroup.cpu_idle", By(LIMITS, "a_processor_is_shared_by_weight")),
    ("cgroup.cpu_burst", InTable(LIMITS)),
    ("cgroup.cpuset_cpus", InTable(LIMITS)),
    ("cgroup.cpuset_mems", InTable(LIMITS)),
    ("cgroup.io_max", By(LIMITS, "each_limit_of_a_device_slows_its_own_transfers")),
    ("cgroup.io_max.device", By(LIMITS, "each_limit_of_a_device_slows_its_own_transfers")),
    ("cgroup.io_max.rbps", By(LIMITS, "each_limit_of_a_device_slows_its_own_transfers")),
    ("cgroup.io_max.wbps", By(LIMITS, "each_limit_of_a_device_slows_its_own_transfers")),
    ("cgroup.io_max.riops", By(LIMITS, "each_limit_of_a_device_slows_its_own_transfers")),
    ("cgroup.io_max.wiops", By(LIMITS, "each_limit_of_a_device_slows_its_own_transfers")),
    ("cgroup.io_latency", NO_IO_LATENCY),
    ("cgroup.io_latency.device", NO_IO_LATENCY),
    ("cgroup.io_latency.target", NO_IO_LATENCY),
    ("cgroup.hugetlb", InTable(LIMITS)),
    ("cgroup.rdma", InTable(LIMITS)),
    ("cgroup.rdma.device", InTable(LIMITS)),
    ("cgroup.rdma.hca_handle", InTable(LIMITS)),
    ("cgroup.rdma.hca_object", InTable(LIMITS)),
    (
        "cgroup.misc",
        NotFelt {
            why: "its resources are those of processors that encrypt memory, which QEMU does not emulate",
            file: LIMITS,
            test: "what_a_kernel_has_no_file_for_is_told",
        },
    ),
    ("cgroup.pressure", By(LIMITS, WAITS)),
    ("cgroup.pressure.resource", By(LIMITS, WAITS)),
    ("cgroup.pressure.kind", By(LIMITS, WAITS)),
    ("cgroup.pressure.stall", By(LIMITS, WAITS)),
    ("cgroup.pressure.window", By(LIMITS, WAITS)),
    ("cgroup.pressure.action", By(LIMITS, WAITS)),
    ("cgroup.optional", By(FELT, "what_no_controller_enforces_is_left_out_if_the_policy_says_so")),
    (
        "cgroup.devices",
        By(PROGRAMS, "a_device_that_is_not_listed_cannot_be_opened_whatever_node_leads_there"),
    ),
    ("cgroup.devices.path", By(PROGRAMS, "a_listed_device_is_in_a_minimal_dev")),
    (
        "cgroup.devices.char",
        By(PROGRAMS, "a_device_that_is_not_listed_cannot_be_opened_whatever_node_leads_there"),
    ),
    (
        "cgroup.devices.block",
        By(PROGRAMS, "a_device_that_is_not_listed_cannot_be_opened_whatever_node_leads_there"),
    ),
    (
        "cgroup.devices.access",
        By(PROGRAMS, "a_device_that_is_not_listed_cannot_be_opened_whatever_node_leads_there"),
    ),
    ("cgroup.devices.optional", By(PROGRAMS, "a_listed_device_is_in_a_minimal_dev")),
    ("cgroup.ip_allow", By(PROGRAMS, "packets_go_to_allowed_addresses_alone")),
    ("cgroup.ip_deny", By(PROGRAMS, "packets_go_to_allowed_addresses_alone")),
    ("cgroup.socket_bind", By(PROGRAMS, "sockets_bind_to_listed_ports_alone")),
    ("cgroup.socket_connect", By(PROGRAMS, "sockets_connect_and_send_to_listed_ports_alone")),
];

const WAITS: &str = "who_waits_too_much_for_memory_is_reported_or_ended";

const NO_IO_LATENCY: Shown = NotFelt {
    why: "CONFIG_BLK_CGROUP_IOLATENCY is in none of Debian's kernels, nor in that of this host",
    file: LIMITS,
    test: "what_a_kernel_has_no_file_for_is_told",
};

/// The keys of every table but the names of the sections, as `section.key`.
fn keys() -> BTreeSet<String> {
    let tables = sandbox::policy::keys();
    let is_section = |key: &str| tables.iter().any(|(table, _)| *table == key);
    let mut keys = BTreeSet::new();
    for (table, own) in &tables {
        for key in *own {
            match *table {
                "" if is_section(key) => {}
                "" => drop(keys.insert((*key).to_owned())),
                table => drop(keys.insert(format!("{table}.{key}"))),
            }
        }
    }
    keys
}

/// A test's text, from its name to the end of the function.
fn test_in<'t>(source: &'t str, name: &str) -> Option<&'t str> {
    let start = source.find(&format!("fn {name}("))?;
    let indent = source[..start].rsplit('\n').next().map_or(0, |line| line.len() - line.trim_start().len());
    let end = format!("\n{:indent$}}}\n", "");
    let length = source[start..].find(&end)?;
    Some(&source[start..start + length])
}

/// Whether the text has a key as a word of its own.
fn speaks_of(text: &str, key: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(key)
        .any(|(at, _)| !text[..at].ends_with(part) && !text[at + key.len()..].starts_with(part))
}

#[test]
fn every_key_is_felt_by_a_test_that_is_there() {
    let mut sources: BTreeMap<&str, String> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut not_felt = Vec::new();
    for (key, shown) in TABLE {
        let (file, test) = match shown {
            InTable(file) => (file, None),
            By(file, test) | Says { file, test } => (file, Some(test)),
            NotFelt { why, file, test } => {
                not_felt.push(format!("{key}: {why}"));
                (file, Some(test))
            }
        };
        let source = sources.entry(file).or_insert_with(|| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
            let text = fs::read_to_string(&path);
            // In the lines of a policy a key comes after the end of a line.
            text.unwrap_or_else(|error| panic!("{}: {error}", path.display())).replace("\\n", "\n  ")
        });
        let name = key.rsplit('.').next().expect("a key has a name");
        match test {
            None if !source.contains(&format!("\"{key}\",")) => {
                wrong.push(format!("{key}: no row of {file} is about it"));
            }
            None => {}
            Some(test) => match test_in(source, test) {
                None => wrong.push(format!("{key}: {file} has no test {test}")),
                // What only says something is felt by nobody, and a name chosen by authors stands nowhere.
                Some(text) if matches!(shown, By(..)) && !speaks_of(text, name) => {
                    wrong.push(format!("{key}: {file}::{test} does not speak of `{name}`"));
                }
                Some(_) => {}
            },
        }
    }
    let rows: BTreeSet<String> = TABLE.iter().map(|(key, _)| (*key).to_owned()).collect();
    let keys = keys();
    wrong.extend(keys.difference(&rows).map(|key| format!("{key}: no test is named for it here")));
    wrong.extend(rows.difference(&keys).map(|key| format!("{key}: no policy has such a key")));
    assert_eq!(rows.len(), TABLE.len(), "a key stands here twice");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!(
        "{} keys, of which no process can feel on the kernels at hand:\n{}",
        keys.len(),
        not_felt.join("\n")
    );
}
