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
    let allowed = format!("{{ path = \"{at}\", noexec = false }}");
    assert_eq!(run(&lines(&allowed), &script).output, "new\nran\n");
    // What one may write and then execute is what memory_deny_write_execute is against.
    for element in [format!("\"{at}\""), format!("{{ path = \"{at}\", noexec = true }}")] {
        let ran = run(&lines(&element), &script);
        assert!(ran.output.starts_with("new\n") && ran.output.contains("Permission denied"), "{ran:?}");
    }
    let free = format!("{}[process]\nmemory_deny_write_execute = false\n", lines(&format!("\"{at}\"")));
    assert_eq!(run(&free, &script).output, "new\nran\n");
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

#[test]
fn an_overlay_shows_its_folders_and_takes_what_is_written() {
    if !is_root() {
        return;
    }
    let (top, below) = (scratch("overlay-top"), scratch("overlay-below"));
    for (folder, name, text) in
        [(&top, "both", "top\n"), (&below, "both", "below\n"), (&below, "one", "one\n")]
    {
        fs::write(folder.join(name), text).expect("it is ours");
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o666)).expect("it is ours");
    }
    fs::write(below.join("program"), "#!/bin/sh\necho ran\n").expect("it is ours");
    fs::set_permissions(below.join("program"), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let lines = |options: &str| {
        format!(
            "[filesystem]\noverlay = [{{ lower = [\"{}\", \"{}\"], path = \"/run/data\", size = \"1M\" {options} }}]\n{}",
            top.display(),
            below.display(),
            OPEN.replace("/data", "/run/data")
        )
    };
    let script = "cd /run/data && cat both one && echo changed > both && echo new > new && rm one && cat both new && \
                  ls && ./program; stat -c %a:%u . && id -u";
    let ran = run(&lines(", noexec = false"), script);
    let (before, after) = ran.output.rsplit_once("755:").unwrap_or_else(|| panic!("{ran:?}"));
    assert_eq!(before, "top\none\nchanged\nnew\nboth\nnew\nprogram\nran\n");
    let ids: Vec<&str> = after.split_whitespace().collect();
    assert!(ids[0] == ids[1] && ids[0] != "0", "the folder is the service's: {ran:?}");
    // The host's are as they were.
    assert_eq!(fs::read_to_string(top.join("both")).expect("it is there"), "top\n");
    assert_eq!(fs::read_to_string(below.join("one")).expect("it is there"), "one\n");
    assert!(!top.join("new").exists() && !below.join("new").exists());
    // Its bounds and options, each with its control.
    let fill = "head -c 3000000 /dev/zero > /run/data/big; stat -c %s /run/data/big";
    let ran = run(&lines(""), fill);
    assert!(ran.output.contains("No space left on device"), "{ran:?}");
    assert_eq!(run(&lines("").replace("1M", "8M"), fill).output, "3000000\n");
    let ran = run(&lines(""), "/run/data/program");
    assert!(ran.status == 126, "{ran:?}");
    assert!(run(&lines(", mode = \"0700\""), "stat -c %a /run/data").output == "700\n");
    let make =
        "cd /run/data && for i in $(seq 100); do touch new$i || break; done 2>/dev/null; ls | grep -c new";
    let few: u32 = run(&lines(", inodes = 20"), make).output.trim().parse().expect("a number of files");
    assert!((10..=20).contains(&few), "the folder itself and what overlayfs keeps count as well: {few}");
    assert_eq!(run(&lines(""), make).output, "100\n", "control");
    // mountinfo tells nothing of where the layers are.
    let ran = run(&lines(""), "grep overlay /proc/self/mountinfo");
    assert!(ran.output.contains("lowerdir=l0:l1,upperdir=upper,workdir=work"), "{ran:?}");
    // Two of them, in a user namespace, beside another mount in one.
    let two = format!(
        "[namespaces]\nuser = \"auto\"\n[filesystem]\noverlay = [{{ lower = [\"{0}\"], path = \"/run/a\", size = \"1M\" }}, \
         {{ lower = [\"{1}\"], path = \"/run/b\", size = \"1M\" }}]\ntmpfs = {{ add = [{{ path = \"/run/a/t\", size = \"1M\" }}] }}\n\
         [landlock]\nread = {{ add = [\"/run\"] }}\n",
        top.display(),
        below.display()
    );
    let ran = run(
        &two,
        "cat /run/a/both /run/b/both; echo x > /run/b/x && rm /run/b/one && mkdir /run/b/one && ls /run/a /run/b",
    );
    assert_eq!(ran.output, "top\nbelow\n/run/a:\nboth\nt\n\n/run/b:\nboth\none\nprogram\nx\n");
}

#[test]
fn a_path_beneath_a_bind_is_hidden_as_well() {
    if !is_root() {
        return;
    }
    let folder = folder("hidden-in-a-bind");
    let lines = bound(&folder, "");
    assert_eq!(run(&lines, "cat /data/text").output, "words\n");
    let ran = run(&lines.replace("hidden = []", "hidden = [\"/data/text\"]"), "cat /data/text");
    assert!(ran.output.contains("Permission denied"), "{ran:?}");
    let ran = run(&lines.replace("hidden = []", "hidden = [\"/usr/share\"]"), "ls /usr/share | wc -l");
    assert!(ran.output.contains("Permission denied"), "{ran:?}");
    assert_ne!(run(&lines, "ls /usr/share | wc -l").output, "0\n");
}
