//! `motherctl run` by a user who is not root, on this host: the sandbox is built in a user namespace, or what forbids that
//! is named.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::programs::Programs;
use e2e::scratch::{Ran, Scratch, skip};

/// Nobody of this host.
const USER: u32 = 54_321;

/// A scratch root that the user may read, if the user may make namespaces here at all; says so where not.
fn scratch(test: &str) -> Result<Option<Scratch>> {
    let Some(scratch) = Scratch::new(test)? else { return Ok(None) };
    let probe = as_user(Path::new("/usr/bin/unshare"), &["--user", "--map-root-user", "/bin/true"])?;
    if probe.status != 0 {
        skip(test, &format!("no user namespaces for ordinary users here: {}", probe.errors.trim()))?;
        return Ok(None);
    }
    Ok(Some(scratch))
}

/// Runs a program as the user, without groups and capabilities.
fn as_user(program: &Path, arguments: &[&str]) -> Result<Ran> {
    let id = USER.to_string();
    let output = Command::new("/usr/bin/setpriv")
        .args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"])
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("cannot run setpriv")?;
    Ok(Ran {
        status: output.status.code().context("killed")?,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a shell under a policy as the user.
fn run(scratch: &Scratch, policy: &str, script: &str) -> Result<Ran> {
    let root = scratch.path("").display().to_string();
    let motherctl = &Programs::built()?.motherctl;
    as_user(motherctl, &["--root", &root, "run", "--policy", policy, "--", "/bin/sh", "-c", script])
}

#[test]
fn a_user_is_confined_as_a_service_of_root_is() -> Result<()> {
    let Some(scratch) = scratch("a_user_is_confined")? else { return Ok(()) };
    let own = scratch.path("own");
    fs::create_dir_all(&own)?;
    chown(&own, Some(USER), Some(USER))?;
    scratch.policy("open", "unconfined = true\n")?;
    let script = format!(
        "id -u; id -g; sed -n 's/^CapEff:.//p; s/^Seccomp:.//p; s/^NoNewPrivs:.//p' /proc/self/status; \
         echo $$; touch /tmp/x && echo tmp; touch {0}/x && echo own; cat /proc/sys/kernel/osrelease; \
         head -c 4 /dev/zero | wc -c; echo gone > /dev/null && echo null; kill -0 {1} && echo seen",
        own.display(),
        std::process::id(),
    );
    let ran = run(&scratch, "base/default", &script)?;
    let expected = format!("{USER}\n{USER}\n0000000000000000\n1\n2\n1\ntmp\n4\nnull\n");
    ensure!(ran.status != 0 && ran.out == expected, "{ran:?}");
    for words in ["own/x'", "Read-only file system", "osrelease", "an ordinary user has no cgroup to give"] {
        ensure!(ran.errors.contains(words), "{words} is not in: {}", ran.errors);
    }
    // The control: the same user, unconfined, writes where it may and sees what there is.
    let ran = run(&scratch, "open", &script)?;
    let words: Vec<&str> = ran.out.split_whitespace().collect();
    ensure!(words.contains(&"own") && words[3..5] == ["0", "0"] && words[5] != "1", "control: {ran:?}");
    ensure!(own.join("x").metadata()?.uid() == USER);
    Ok(())
}

#[test]
fn what_it_may_write_is_the_users_whoever_it_is_inside() -> Result<()> {
    let Some(scratch) = scratch("what_it_may_write")? else { return Ok(()) };
    let (own, roots) = (scratch.path("own"), scratch.path("roots"));
    for folder in [&own, &roots] {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    }
    chown(&own, Some(USER), Some(USER))?;
    let (own, roots) = (own.display(), roots.display());
    scratch.policy(
        "root",
        &format!(
            "extends = [\"base/default\"]\n[process]\nuser = \"root\"\ngroup = \"root\"\n\
             [capabilities]\nkeep = [\"CAP_DAC_OVERRIDE\", \"CAP_CHOWN\"]\n\
             [filesystem]\nread_write = [\"{own}\", \"{roots}\"]\n[landlock]\nwrite = {{ add = [\"{own}\", \"{roots}\"] }}\n"
        ),
    )?;
    let script = format!(
        "id -u; touch {own}/made && echo made; touch {roots}/made && echo too; mount -t tmpfs x /tmp"
    );
    let ran = run(&scratch, "root", &script)?;
    ensure!(ran.out == "0\nmade\n" && ran.status != 0, "root of nothing: {ran:?}");
    ensure!(scratch.path("own/made").metadata()?.uid() == USER, "it is the user's");
    // The control: the host's root may, under the same policy.
    let ran = scratch.motherctl(&["run", "--policy", "root", "--", "/bin/sh", "-c", &script])?;
    ensure!(ran.out == "0\nmade\ntoo\n", "control: {ran:?}");
    Ok(())
}

#[test]
fn what_takes_root_is_refused_in_words_or_left_out_in_words() -> Result<()> {
    let Some(scratch) = scratch("what_takes_root")? else { return Ok(()) };
    let refused = |lines: &str, words: &str| -> Result<()> {
        scratch.policy("asks", &format!("extends = [\"base/default\"]\n{lines}\n"))?;
        let ran = run(&scratch, "asks", "echo started")?;
        ensure!(ran.status == 125 && ran.out.is_empty() && ran.errors.contains(words), "{lines}: {ran:?}");
        Ok(())
    };
    refused(
        "[cgroup]\noptional = []",
        "the memory controller is not available: an ordinary user has no cgroup to give",
    )?;
    refused("[namespaces]\nuser = \"auto\"", "an ordinary user has one id to map")?;
    refused("[process]\nsupplementary_groups = [7]", "an ordinary user cannot join groups")?;
    refused("[process]\nnice = -20", "asks.toml:3:8: nice: -20: EACCES")?;
    refused("[process]\nnice = -20", "as root it may succeed")?;
    ensure!(run(&scratch, "base/default", "echo started")?.out == "started\n", "control");
    Ok(())
}

/// In a user namespace whose `user.max_user_namespaces` is 0, which an administrator of the host would write for all.
const WITHOUT_NAMESPACES: &str = r#"
pipe my $made, my $make; pipe my $wait, my $go;
my $pid = fork;
if (!$pid) {
    syscall(272, 0x10000000) == 0 or die "unshare: $!";     # CLONE_NEWUSER
    syswrite $make, "x"; sysread $wait, my $x, 1;
    open my $f, ">", "/proc/sys/user/max_user_namespaces" or die $!; print $f $ARGV[0]; close $f or die $!;
    exec "/usr/bin/setpriv", "--reuid", $ARGV[1], "--regid", $ARGV[1], "--clear-groups", "--", @ARGV[2 .. $#ARGV];
}
sysread $made, my $x, 1;
for my $map ("uid_map", "gid_map") { open my $f, ">", "/proc/$pid/$map" or die $!; print $f "0 0 65536"; close $f or die $!; }
syswrite $go, "x"; waitpid $pid, 0; exit $? >> 8;
"#;

#[test]
fn the_sysctl_that_forbids_user_namespaces_is_named() -> Result<()> {
    let Some(scratch) = scratch("the_sysctl_that_forbids")? else { return Ok(()) };
    let run = |most: &str| -> Result<Ran> {
        let output = Command::new("/usr/bin/perl")
            .args(["-e", WITHOUT_NAMESPACES, most, &USER.to_string()])
            .arg(&Programs::built()?.motherctl)
            .arg("--root")
            .arg(scratch.path(""))
            .args(["run", "--policy", "base/default", "--", "/bin/echo", "started"])
            .stdin(Stdio::null())
            .output()?;
        Ok(Ran {
            status: output.status.code().context("killed")?,
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    };
    let ran = run("0")?;
    ensure!(ran.status == 125 && ran.out.is_empty(), "{ran:?}");
    for words in ["unshare(CLONE_NEWUSER): ENOSPC", "user.max_user_namespaces is 0"] {
        ensure!(ran.errors.contains(words), "{words} is not in: {}", ran.errors);
    }
    ensure!(run("1000")?.out == "started\n", "control: with some left it starts");
    Ok(())
}

#[test]
fn a_filter_that_forbids_user_namespaces_is_named() -> Result<()> {
    let Some(scratch) = scratch("a_filter_that_forbids")? else { return Ok(()) };
    let motherctl = Programs::built()?.motherctl.canonicalize()?;
    let (root, program) = (scratch.path("").canonicalize()?, motherctl.display());
    let open = |allowed: &str| {
        format!(
            "extends = [\"base/default\"]\n[process]\nrestrict_namespaces = {allowed}\n[filesystem]\nproc = \"full\"\n[landlock]\n\
             read = {{ add = [\"{0}\", \"/sys\"] }}\nexecute = {{ add = [\"{program}\"] }}\n",
            root.display()
        )
    };
    scratch.policy("outer", &open("true"))?;
    scratch.policy("lax", &open("[\"user\"]").replace("[landlock]", "[seccomp]\nallow = { add = [\"unshare\"] }\ndeny = { remove = [\"@privileged\", \"@mount\", \"@debug\"] }\n[landlock]"))?;
    // What root owns belongs to nobody inside.
    for folder in ["etc", "usr"] {
        let id = format!("{USER}:{USER}");
        let status = Command::new("/usr/bin/chown").args(["-R", &id]).arg(scratch.path(folder)).status()?;
        ensure!(status.success(), "chown: {status}");
    }
    let inner = format!("{program} --root {} run --policy base/default -- /bin/echo started", root.display());
    let ran = run(&scratch, "outer", &inner)?;
    ensure!(ran.status == 125 && ran.out.is_empty(), "{ran:?}");
    for words in ["unshare(CLONE_NEWUSER): EPERM", "runs under a seccomp filter"] {
        ensure!(ran.errors.contains(words), "{words} is not in: {}", ran.errors);
    }
    // The control: where the filter lets it, that call is not what fails.
    let ran = run(&scratch, "lax", &inner)?;
    ensure!(!ran.errors.contains("unshare(CLONE_NEWUSER)"), "control: {ran:?}");
    Ok(())
}
