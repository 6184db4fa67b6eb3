//! Every attack of [`e2e::attacks`] as a test of its own, on this host and on both kernels in QEMU: `host::NAME`,
//! `linux_6_1::NAME`, `linux_6_12::NAME`. Each place boots once and each test reads what came of its attack there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail, ensure};
use e2e::attacks::{all, rows::ROWS};
use e2e::fetch::Kernel;
use e2e::initramfs::{Image, SharedImage};
use e2e::machine::{Machine, run_on};
use e2e::programs::Programs;
use e2e::scratch::skip;
use e2e::workspace;

static IMAGE: SharedImage = SharedImage::new("attacks", || {
    let mut image = Image::system()?;
    image.program(&Programs::built()?.attacks, "/usr/bin/attacks")?;
    Ok(image)
});

/// What a place said of each attack.
type Answers = BTreeMap<String, String>;
/// It is asked once, by whichever test comes first.
type Asked = OnceLock<Result<Answers, String>>;

/// The lines `NAME ANSWER` of the program.
fn answers(output: &str) -> Answers {
    let known = |line: &&str| all().any(|attack| line.split(' ').next() == Some(attack.name));
    let pair = |line: &str| line.split_once(' ').map(|(name, answer)| (name.to_owned(), answer.to_owned()));
    output.lines().filter(known).filter_map(pair).collect()
}

fn on_this_host() -> Result<Answers> {
    let output = Command::new(&Programs::built()?.attacks).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(answers(&text))
}

fn in_qemu(kernel: Kernel) -> Result<Answers> {
    let found = std::cell::RefCell::new(Answers::new());
    let outcome = run_on(kernel, IMAGE.path()?, |machine: &mut Machine| {
        let mut found = found.borrow_mut();
        found.clear();
        // What a host has beside: terminals, and shared memory.
        machine.ok(
            "mkdir -p /dev/pts /dev/shm && mount -t devpts devpts /dev/pts && mount -t tmpfs shm /dev/shm",
        )?;
        // One command each: all of them take longer than a command may.
        for attack in all() {
            let answer = machine.run(&format!("/usr/bin/attacks {}", attack.name))?;
            found.extend(answers(&answer.output));
        }
        Ok(())
    });
    let mut found = found.into_inner();
    // What was answered before the machine was lost holds.
    if let Err(error) = outcome {
        let error = format!("unanswered {error:#}");
        for attack in all() {
            found.entry(attack.name.to_owned()).or_insert_with(|| error.clone());
        }
    }
    Ok(found)
}

/// What came of an attack in a place.
fn check(place: &str, asked: &Asked, ask: impl FnOnce() -> Result<Answers>, name: &str) -> Result<()> {
    let answers = asked.get_or_init(|| ask().map_err(|error| format!("{error:#}")));
    let answers = answers.as_ref().map_err(|error| anyhow!("{error}"))?;
    let answer = answers.get(name).with_context(|| format!("{place}: nothing came of {name}"))?;
    match answer.split_once(' ').unwrap_or((answer, "")) {
        ("resisted", "") => Ok(()),
        ("not-here", why) => skip(&format!("{place}::{name}"), why),
        (_, what) => bail!("{place}: {name}: {}", what.replace(" | ", "\n")),
    }
}

/// Each attack as a test on each machine, and their names for the test that none is missing.
macro_rules! attacks {
    ($($name:ident)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        mod host {
            static ASKED: super::Asked = super::Asked::new();
            $(#[test] fn $name() -> anyhow::Result<()> {
                if !nix::unistd::geteuid().is_root() {
                    return super::skip(concat!("host::", stringify!($name)), "it needs root");
                }
                super::check("host", &ASKED, super::on_this_host, stringify!($name))
            })*
        }
        mod linux_6_1 {
            static ASKED: super::Asked = super::Asked::new();
            $(#[test] fn $name() -> anyhow::Result<()> {
                let ask = || super::in_qemu(super::Kernel::V6_1);
                super::check("linux_6_1", &ASKED, ask, stringify!($name))
            })*
        }
        mod linux_6_12 {
            static ASKED: super::Asked = super::Asked::new();
            $(#[test] fn $name() -> anyhow::Result<()> {
                let ask = || super::in_qemu(super::Kernel::V6_12);
                super::check("linux_6_12", &ASKED, ask, stringify!($name))
            })*
        }
    };
}

#[rustfmt::skip]
attacks! {
    proc_self_exe_overwrite_cve_2019_5736
    leaked_cwd_fd_cve_2024_21626
    inherited_state_of_the_launcher
    environment_of_the_caller_reaches_the_loader
    groups_and_inheritable_capabilities_kept_cve_2022_29162
    program_exchanged_before_execve
    masked_path_through_dev_null_cve_2025_31133
    dev_symlink_in_root_cve_2026_41579
    procfs_write_misdirection_cve_2019_16884
    symlink_race_in_mount_targets_cve_2024_45310
    mount_propagates_to_the_host
    rw_submount_beneath_a_read_only_bind
    mount_churn_during_a_launch
    old_root_after_pivot
    chroot_escape_with_cap_sys_chroot
    kernel_settings_written_from_a_sandbox
    kernel_memory_and_keys_read_from_a_sandbox
    landlock_rule_on_a_missing_path
    landlock_rule_and_renamed_files
    tiocsti_by_64_bit_request_cve_2019_10063
    x32_numbers_of_denied_calls
    i386_gate
    clone3_flags_unseen_by_the_filter
    unknown_calls_are_not_denied_but_missing
    io_uring_around_the_filter
    high_half_of_an_int_argument
    calls_that_only_attackers_make
    user_namespace_as_a_way_to_new_code
    clock_set_with_cap_sys_time
    write_xor_execute_by_memfd_shm_and_proc_self_mem
    core_dump_of_secrets
    capabilities_return_to_root_at_exec
    identity_of_root_taken_back
    host_root_mapped_into_a_user_namespace
    setuid_and_file_capabilities
    set_user_id_files_made_by_a_service
    speculation_left_to_the_process
    ptrace_between_services_of_one_uid
    credentials_of_a_neighbour
    double_fork_out_of_supervision
    fork_bomb
    file_flood_in_a_tmpfs
    cgroup_escape_and_limits_raised
    frozen_cgroup_that_does_not_end
    landlock_gap_metadata
    landlock_gap_change_of_owner_mode_and_attributes
    landlock_gap_pathname_socket
    landlock_gap_udp_raw_and_listen
    landlock_gap_shared_memory_and_signals
    filter_that_decides_on_memory
    policies_that_somebody_else_wrote
    control_socket_bound_into_a_sandbox
    loader_variable_of_a_writable_folder
    paths_that_mislead
}

#[test]
fn every_attack_is_a_test() {
    let attacks: Vec<&str> = all().map(|attack| attack.name).collect();
    assert_eq!(NAMES, attacks, "name each attack above, in the order of its table");
}

/// Every source of the workspace, one after the other: tests are moved from file to file, and keep their names.
fn sources(dir: &Path) -> Result<String> {
    let mut text = String::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() && name != "target" && !name.starts_with('.') {
            text.push_str(&sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(text)
}

#[test]
fn every_row_is_answered() -> Result<()> {
    let numbers: Vec<u8> = ROWS.iter().map(|row| row.number).collect();
    ensure!(numbers == (1..=50).collect::<Vec<_>>(), "{numbers:?}");
    let sources = sources(workspace())?;
    for row in ROWS {
        let attacked = all().any(|attack| attack.rows.contains(&row.number));
        let answered = attacked || !row.tests.is_empty() || !row.note.is_empty();
        ensure!(answered, "{}: {}: name a test, or say why there is none", row.number, row.pitfall);
        for test in row.tests {
            ensure!(sources.contains(&format!("fn {test}(")), "row {}: there is no {test}", row.number);
        }
    }
    for attack in all() {
        for number in attack.rows {
            ensure!(numbers.contains(number), "{}: there is no row {number}", attack.name);
        }
    }
    Ok(())
}

/// The table as people read it.
fn table() -> String {
    let mut text = String::from(
        "# Attacks\n\n\
         What sandboxes and service managers are known to have been broken by, and what answers it here.\n\
         Each attack is a test of `tests/tests/attacks.rs` by its name, with its control: the same act, unconfined, succeeds.\n\
         All of them run on this host as root and in QEMU on Linux 6.1 and 6.12 (`cargo test -p e2e --test attacks`); \
         `attacks NAME` runs one on any machine.\n\
         A machine that cannot attempt one says so and is counted: a fork bomb needs the pids controller, for one.\n\n\
         | # | what goes wrong elsewhere | attacks, and tests beside them | what resists | remarks |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    for row in ROWS {
        let attacks: Vec<_> = all().filter(|attack| attack.rows.contains(&row.number)).collect();
        let tests = attacks.iter().map(|attack| format!("`{}`", attack.name));
        let beside = row.tests.iter().map(|test| format!("`{test}`"));
        let tests: Vec<String> = tests.chain(beside).collect();
        let mut layers: Vec<&str> = attacks.iter().map(|attack| attack.layer).collect();
        layers.dedup();
        let cells = [
            row.number.to_string(),
            row.pitfall.to_owned(),
            tests.join("<br>"),
            layers.join("; "),
            row.note.to_owned(),
        ];
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}

#[test]
fn the_committed_table_is_this() -> Result<()> {
    let path = workspace().join("docs/attacks.md");
    if std::env::var_os("BLESS").is_some() {
        return Ok(fs::write(path, table())?);
    }
    ensure!(
        fs::read_to_string(path)? == table(),
        "BLESS=1 cargo test -p e2e --test attacks writes docs/attacks.md anew"
    );
    Ok(())
}
