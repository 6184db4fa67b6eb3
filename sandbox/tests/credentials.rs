//! `[credentials]` as it is felt inside the sandbox, and the same act without it.

mod inside;

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use inside::{complaints, is_root, plan_for, run, run_plan, scratch, try_run};

/// A folder that nobody but root may enter, with a secret.
fn secret(name: &str) -> PathBuf {
    let folder = scratch(name);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("it is ours");
    let file = folder.join("secret");
    fs::write(&file, "hunter2").expect("it is ours");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
    file
}

fn lines(file: &std::path::Path) -> String {
    format!("[credentials]\npassword = {{ file = \"{}\" }}\n", file.display())
}

#[test]
fn the_service_reads_its_credentials_and_cannot_change_them() {
    if !is_root() {
        return;
    }
    let file = secret("credentials");
    let direct = run("", &format!("cat {}", file.display()));
    assert!(direct.output.contains("Permission denied"), "{direct:?}");
    let script = "cd $CREDENTIALS_DIRECTORY && pwd && cat password && echo && stat -c '%a %u' password . && id -u && \
                  stat -f -c %T .";
    let ran = run(&lines(&file), script);
    let words: Vec<&str> = ran.output.split_whitespace().collect();
    let [path, text, mode, owner, folder_mode, folder_owner, me, kind] = words[..] else { panic!("{ran:?}") };
    assert_eq!((path, text, mode, folder_mode, kind), ("/run/credentials", "hunter2", "400", "500", "ramfs"));
    assert!(owner == me && folder_owner == me && me != "0", "{ran:?}");
    let ran = run(
        &lines(&file),
        "chmod 600 $CREDENTIALS_DIRECTORY/password; rm -f $CREDENTIALS_DIRECTORY/password",
    );
    assert_eq!(ran.output.matches("Read-only file system").count(), 2, "{ran:?}");
    let without = run("", "ls /run/credentials; echo $CREDENTIALS_DIRECTORY");
    assert!(
        without.output.contains("No such file") || without.output.contains("Permission denied"),
        "{without:?}"
    );
    assert!(without.output.ends_with("\n\n"), "the variable is not set: {without:?}");
}

#[test]
fn a_credential_is_in_no_environment_and_no_other_service_sees_it() {
    if !is_root() {
        return;
    }
    let file = secret("credentials-hidden");
    let ran = run(&lines(&file), "cat /proc/self/environ /proc/self/cmdline /proc/self/mountinfo");
    assert!(!ran.output.contains("hunter2") && !ran.output.contains("secret"), "{ran:?}");
    let plan = plan_for("test", &lines(&file));
    assert!(!format!("{plan}").contains("hunter2"), "nor does the plan know it");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("it can be read");
    assert!(!mounts.contains("/run/credentials"), "the host's mounts are as they were");
}

#[test]
fn a_credential_is_read_at_each_start() {
    if !is_root() {
        return;
    }
    let file = secret("credentials-fresh");
    let plan = plan_for("test", &lines(&file));
    let read = || run_plan(&plan, "cat /run/credentials/password").map(|ran| ran.output);
    assert_eq!(read().as_deref(), Ok("hunter2"));
    fs::write(&file, "hunter3").expect("it is ours");
    assert_eq!(read().as_deref(), Ok("hunter3"));
    fs::write(&file, vec![b'x'; 1 << 20]).expect("it is ours");
    assert_eq!(read().map(|text| text.len()), Ok(1 << 20));
    let refused = |why: &str| {
        let error = read().unwrap_err();
        let expected = format!("test.toml:3:21: credential password: {}: {why}", file.display());
        assert_eq!(error, expected);
    };
    fs::write(&file, vec![b'x'; (1 << 20) + 1]).expect("it is ours");
    refused("EFBIG");
    fs::remove_file(&file).expect("it is ours");
    refused("ENOENT");
    std::os::unix::fs::symlink("/etc/passwd", &file).expect("it is ours");
    refused("ELOOP");
}

#[test]
fn a_missing_credential_is_an_error_unless_it_is_optional() {
    if !is_root() {
        return;
    }
    let missing = |optional: &str| format!("[credentials]\na = {{ file = \"/no/such/file\" {optional} }}\n");
    assert_eq!(complaints(&missing("")), ["missing-path"]);
    let ran = run(&missing(", optional = true"), "ls -A $CREDENTIALS_DIRECTORY | wc -l");
    assert_eq!(ran.output, "0\n");
    assert_eq!(complaints("[credentials]\na = { file = \"/etc\" }\n"), ["missing-path"]);
}

#[test]
fn a_credential_belongs_to_a_service_in_a_user_namespace_as_well() {
    if !is_root() {
        return;
    }
    let file = secret("credentials-user");
    let own = lines(&file) + "[namespaces]\nuser = \"auto\"\n";
    let ran = try_run(&own, "cat /run/credentials/password; stat -c ' %u' /run/credentials/password")
        .expect("it runs");
    assert_eq!(ran.output, "hunter2 1000\n");
}
