//! Each key of `[filesystem]` as it is felt inside the sandbox, and the same act without the key.

mod inside;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use inside::{is_root, run, scratch};

/// What `lines` have to add so that /data can be read and executed.
const OPEN: &str = "[landlock]\nread = { add = [\"/data\"] }\nexecute = { add = [\"/data\"] }\n\
                    write = { add = [\"/data\"] }\n";

/// A folder with a program, a set-user-ID copy of id(1), a link and a device node.
fn folder(name: &str) -> std::path::PathBuf {
    let folder = scratch(name);
    let put = |name: &str, text: &str, mode| {
        fs::write(folder.join(name), text).expect("the folder is ours");
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    put("program", "#!/bin/sh\necho ran\n", 0o755);
    put("text", "words\n", 0o644);
    fs::copy("/usr/bin/id", folder.join("id")).expect("every system has it");
    fs::set_permissions(folder.join("id"), fs::Permissions::from_mode(0o4755)).expect("it is ours");
    std::os::unix::fs::symlink("text", folder.join("link")).expect("the folder is ours");
    let node = nix::sys::stat::mknod(
        &folder.join("zero"),
        nix::sys::stat::SFlag::S_IFCHR,
        nix::sys::stat::Mode::from_bits_truncate(0o666),
        nix::libc::makedev(1, 5),
    );
    node.expect("root may");
    fs::set_permissions(folder.join("zero"), fs::Permissions::from_mode(0o666)).expect("it is ours");
    folder
}

fn bound(from: &Path, options: &str) -> String {
    format!(
        "[filesystem]\nroot = \"empty\"\nread_only = [\"/\", \"/usr\", \"/bin\", \"/lib\", \"/lib64\", \"/etc\"]\nhidden = []\n\
         bind = [{{ from = \"{}\", to = \"/data\" {options} }}]\n{OPEN}",
        from.display()
    )
}

#[test]
fn a_bind_can_forbid_to_execute() {
    if !is_root() {
        return;
    }
    let folder = folder("noexec");
    assert_eq!(run(&bound(&folder, ""), "/data/program").output, "ran\n");
    let ran = run(&bound(&folder, ", noexec = true"), "/data/program");
    assert!(ran.status == 126 && ran.output.contains("Permission denied"), "{ran:?}");
}

#[test]
fn a_bind_can_forbid_to_follow_links() {
    if !is_root() {
        return;
    }
    let folder = folder("nosymfollow");
    assert_eq!(run(&bound(&folder, ""), "cat /data/link").output, "words\n");
    let ran =
        run(&bound(&folder, ", nosymfollow = true"), "cat /data/link; cat /data/text; readlink /data/link");
    assert_eq!(
        ran.output, "cat: /data/link: Too many levels of symbolic links\nwords\ntext\n",
        "the link is there and leads nowhere"
    );
}

#[test]
fn a_bind_forbids_devices_unless_it_says_otherwise() {
    if !is_root() {
        return;
    }
    let folder = folder("nodev");
    let read = "head -c 3 /data/zero | wc -c";
    assert_eq!(run(&bound(&folder, ", nodev = false"), read).output, "3\n");
    let ran = run(&bound(&folder, ""), read);
    assert!(ran.output.contains("Permission denied") && ran.output.ends_with("0\n"), "{ran:?}");
}

#[test]
fn a_bind_ignores_set_user_id_unless_it_says_otherwise() {
    if !is_root() {
        return;
    }
    let folder = folder("nosuid");
    // Without no_new_privs the kernel takes a filter from CAP_SYS_ADMIN alone.
    let lines = |options| {
        bound(&folder, options).replace(OPEN, "")
            + &format!(
                "{OPEN}[process]\nuser = \"root\"\nno_new_privs = false\n[capabilities]\nkeep = [\"CAP_SYS_ADMIN\", \
                 \"CAP_SETUID\"]\n"
            )
    };
    // The program belongs to another user now, whom it becomes.
    std::os::unix::fs::chown(folder.join("id"), Some(4242), None).expect("root may");
    fs::set_permissions(folder.join("id"), fs::Permissions::from_mode(0o4755)).expect("it is ours");
    assert_eq!(run(&lines(", nosuid = false"), "/data/id -u").output, "4242\n");
    assert_eq!(run(&lines(""), "/data/id -u").output, "0\n");
}

#[test]
fn a_writable_path_can_forbid_to_execute() {
    if !is_root() {
        return;
    }
    let folder = folder("writable");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("it is ours");
    let at = folder.display();
    let lines = |element: &str| {
        format!(
            "[filesystem]\nread_write = [{element}]\nhidden = []\n[landlock]\nread = {{ add = [\"{at}\"] }}\n\
             write = {{ add = [\"{at}\"] }}\nexecute = {{ add = [\"{at}\"] }}\n"
        )
    };
    let script = format!("echo new > {at}/new && cat {at}/new; {at}/program");
    assert_eq!(run(&lines(&format!("\"{at}\"")), &script).output, "new\nran\n");
    let ran = run(&lines(&format!("{{ path = \"{at}\", noexec = true }}")), &script);
    assert!(ran.output.starts_with("new\n") && ran.output.contains("Permission denied"), "{ran:?}");
}

#[test]
fn what_is_written_to_a_tmpfs_is_executed_only_where_the_policy_says_so() {
    if !is_root() {
        return;
    }
    let lines = |noexec: &str| {
        format!(
            "[filesystem]\ntmpfs = [{{ path = \"/tmp\", size = \"1M\", mode = \"1777\" {noexec} }}, \
             {{ path = \"/run\", size = \"1M\" }}]\n[landlock]\nread = {{ add = [\"/tmp\"] }}\n\
             execute = {{ add = [\"/tmp\"] }}\n"
        )
    };
    let script = "printf '#!/bin/sh\\necho ran\\n' > /tmp/a; chmod 700 /tmp/a; /tmp/a";
    assert_eq!(run(&lines(", noexec = false"), script).output, "ran\n");
    assert_eq!(run(&lines(""), script).status, 126, "memory_deny_write_execute is true");
    let open = "[process]\nmemory_deny_write_execute = false\n";
    assert_eq!(run(&(lines("") + open), script).output, "ran\n");
    assert_eq!(run(&(lines(", noexec = true") + open), script).status, 126);
}

#[test]
fn an_idmapped_bind_shows_owners_as_others_and_stores_them_as_they_were() {
    use std::os::unix::fs::{MetadataExt, chown};
    if !is_root() {
        return;
    }
    let folder = scratch("idmap");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("it is ours");
    fs::write(folder.join("old"), "words\n").expect("it is ours");
    fs::write(folder.join("foreign"), "words\n").expect("it is ours");
    chown(&folder, Some(33), Some(33)).expect("root may");
    chown(folder.join("old"), Some(33), Some(33)).expect("root may");
    let lines = |idmap: &str| {
        bound(&folder, &format!(", read_only = false {idmap}")) + "[process]\nuser = 100033\ngroup = 100044\n"
    };
    let script = "cat /data/old; stat -c %u:%g /data/old /data/foreign; echo new > /data/new";
    let plain = run(&lines(""), script);
    assert!(plain.output.contains("Permission denied") && !folder.join("new").exists(), "{plain:?}");
    let mapped =
        run(&lines(", idmap = { uid_map = [\"33 100033 1\"], gid_map = [\"33 100044 1\"] }"), script);
    assert_eq!(mapped.output, "words\n100033:100044\n65534:65534\n", "{mapped:?}");
    let new = fs::metadata(folder.join("new")).expect("it was made");
    assert_eq!((new.uid(), new.gid()), (33, 33), "on the disk");
}
