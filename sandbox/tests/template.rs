//! A launch from a template is the launch without it: the same mounts, the same view, nothing of the launch before.

mod inside;

use std::{
    cell::RefCell,
    fs::File,
    io::Read,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use inside::is_root;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::wait::{Id, WaitPidFlag, waitid},
};
use sandbox::{
    Plan,
    berth::Berth,
    compile::{Compiler, Subject, compile},
    kernel::Kernel,
    launch::{Ahead, Launch, LaunchError, Launched, Underway, launch},
    netpool::{NetworkPool, PooledNetwork},
    policy::{Store, load_text},
    template::{MountWatch, Template, TemplateMeanwhile},
};

/// This thread's own mounts from here on: what others mount on this host meanwhile would tell one launch from the next.
fn own_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).expect("a step of this test");
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("a step of this test");
}

fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies")
}

fn plan(text: &str) -> Arc<Plan> {
    let policy =
        load_text(Path::new("test.toml"), text, &Store::new(vec![policies()])).expect("a step of this test");
    let subject = Subject { name: "template".to_owned(), root: "/".into(), sockets: vec![] };
    compile(&policy, &subject, &Kernel::probe(None).expect("a step of this test"))
        .expect("a step of this test")
}

fn run(
    plan: &Arc<Plan>,
    template: Option<&Arc<Template>>,
    network: Option<PooledNetwork>,
    script: &str,
) -> String {
    run_ahead(plan, Ahead { template, network: Some(&network.into()), ..Ahead::default() }, script)
}

fn run_ahead(plan: &Arc<Plan>, ahead: Ahead<'_>, script: &str) -> String {
    output(launch, plan, ahead, script).expect("a step of this test")
}

/// The same, by a launcher that does something else meanwhile.
fn run_underway(plan: &Arc<Plan>, ahead: Ahead<'_>, script: &str) -> String {
    output(underway, plan, ahead, script).expect("a step of this test")
}

fn underway(request: &Launch<'_>) -> Result<Launched, LaunchError> {
    Underway::begin(request)?.launched()
}

fn output(
    launch: fn(&Launch<'_>) -> Result<Launched, LaunchError>,
    plan: &Arc<Plan>,
    ahead: Ahead<'_>,
    script: &str,
) -> Result<String, LaunchError> {
    let null = File::open("/dev/null").expect("a step of this test");
    let (mut reader, writer) = std::io::pipe().expect("a step of this test");
    let launched = launch(&Launch {
        ahead,
        ..Launch::new(
            plan,
            &["/usr/bin/sh", "-c", script].map(str::to_owned),
            [null.as_fd(), writer.as_fd(), writer.as_fd()],
        )
    })?;
    drop(writer);
    let mut output = String::new();
    reader.read_to_string(&mut output).expect("a step of this test");
    waitid(Id::PIDFd(launched.pidfd.as_fd()), WaitPidFlag::WEXITED).expect("a step of this test");
    Ok(output)
}

/// What a service can tell of its world. Ids of mounts and numbers of anonymous devices differ from launch to launch, and
/// so do the times of what is new. What is mounted in the folders of other tests goes with them from every namespace.
const LOOK: &str = r#"
    cut -d' ' -f4- /proc/self/mountinfo | grep -v /motherd-test- | sort
    for name in / /dev/ /proc/ /sys/ /tmp/ /run/ /home /root /boot /etc /usr /var; do stat -c '%n %a %u %g %F' $name; done
    for name in / /dev /dev/pts /dev/shm /tmp /run /sys /sys/class/net /sys/fs/cgroup /proc /home /root; do
        echo "$name: $(ls -A $name 2>&1 | grep -v '^[0-9]*$' | tr '\n' ' ')"
        if touch $name/x 2>/dev/null; then echo "$name can be written to"; rm $name/x; fi
    done
    stat -c '%n %a %u %g %t:%T' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty
    grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|SigPnd|SigBlk|SigIgn|SigCgt|Umask)' /proc/self/status
    cat /proc/self/cgroup /proc/net/dev /proc/self/limits /proc/self/oom_score_adj; pwd; env | sort; ls /proc/self/fd
    readlink /proc/self/ns/user /proc/self/ns/time; hostname; id
"#;

#[test]
fn all_that_ships_looks_the_same_with_a_template_and_a_pool_and_without() {
    if !is_root() {
        return;
    }
    own_mounts();
    let mut pool = NetworkPool::new(1);
    let mut compared = Vec::new();
    for name in Store::new(vec![policies()]).names() {
        let policy = Store::new(vec![policies()]).load(&name).expect("a step of this test");
        let subject = Subject { name: "template".to_owned(), root: "/".into(), sockets: vec![] };
        // Some need users or folders that this host does not have.
        let Ok(plan) = compile(&policy, &subject, &Kernel::probe(None).expect("a step of this test")) else {
            eprintln!("{name}: cannot be compiled on this host");
            continue;
        };
        if !plan.has_template() && !plan.takes_network() {
            // Both launches would be the same one, and what they see is the whole host, which changes meanwhile.
            assert!(["boot/hostname", "boot/sysctl", "unconfined"].contains(&name.as_str()), "{name}");
            continue;
        }
        same(&plan, &mut pool);
        compared.push(name);
    }
    eprintln!("compared: {compared:?}");
    assert!(compared.iter().any(|name| name == "base/default"), "{compared:?}");
}

fn same(plan: &Arc<Plan>, pool: &mut NetworkPool) {
    let inline = run(plan, None, None, LOOK);
    let template = Template::build(plan).expect("a step of this test");
    assert_eq!(template.is_some(), plan.has_template());
    for _ in 0..2 {
        if plan.takes_network() {
            pool.add().expect("a step of this test");
        }
        assert_eq!(run(plan, template.as_ref(), pool.take(), LOOK), inline, "{}", plan.policy());
        for template in [None, template.as_ref()] {
            let network = PooledNetwork::begin().expect("a step of this test");
            let look = run(plan, template, Some(network), LOOK);
            assert_eq!(look, inline, "{}, its network on its way", plan.policy());
        }
        for network in [None, Some(PooledNetwork::begin().expect("a step of this test"))] {
            let begun = TemplateMeanwhile::begin(plan).expect("a step of this test");
            assert_eq!(begun.is_some(), plan.has_template());
            let (begun, network) = (RefCell::new(begun), RefCell::new(network));
            let ahead = Ahead { meanwhile: Some(&begun), network: Some(&network), ..Ahead::default() };
            assert_eq!(run_ahead(plan, ahead, LOOK), inline, "{}, its template on its way", plan.policy());
            assert!(begun.take().is_none(), "it was taken");
        }
        for template in [None, template.as_ref()] {
            let look = run_underway(plan, Ahead { template, ..Ahead::default() }, LOOK);
            assert_eq!(look, inline, "{}, while its launcher does something else", plan.policy());
        }
        for run in [run_ahead, run_underway] {
            let Some(berth) = berth(plan, template.as_ref()) else { continue };
            let look = run(plan, Ahead { berth: Some(&berth), ..Ahead::default() }, LOOK);
            assert_eq!(look, inline, "{}, from a berth", plan.policy());
            assert!(berth.take().is_none(), "it was taken");
        }
    }
}

fn berth(plan: &Arc<Plan>, template: Option<&Arc<Template>>) -> Option<RefCell<Option<Berth>>> {
    let made = Berth::make(plan, template?).expect("a step of this test");
    assert_eq!(made.is_some(), plan.has_berth());
    made.map(|berth| RefCell::new(Some(berth)))
}

#[test]
fn trees_beneath_what_a_launch_makes_and_masked_files_are_the_same_too() {
    if !is_root() {
        return;
    }
    own_mounts();
    let mut pool = NetworkPool::new(1);
    for text in [
        "extends = [\"base/default\"]\n[filesystem]\nproc = \"full\"\n\
         bind = [{ from = \"/etc\", to = \"/run/etc\", read_only = true }, { from = \"/usr/share\", to = \"/tmp/share\" }]\n\
         hidden = [\"/etc/shadow\", \"/root\", \"/home\"]\n",
        "extends = [\"base/default\"]\n[filesystem]\nroot = \"empty\"\n\
         read_only = [\"/\", \"/usr\", \"/etc\", \"/bin\", \"/lib\", \"/lib64\", \"/sbin\"]\n",
    ] {
        let plan = plan(text);
        assert!(plan.has_template(), "{text}");
        same(&plan, &mut pool);
    }
}

/// Their steps are the same: who a service is comes with its launch.
#[test]
fn services_that_share_a_template_each_own_what_is_theirs() {
    if !is_root() {
        return;
    }
    let store = Store::new(vec![policies()]);
    let policy = store.load("base/default").expect("a step of this test");
    let compiler = Compiler::new(policy, Kernel::probe(None).expect("a step of this test"));
    let plan = |name: &str| {
        let subject = Subject { name: name.to_owned(), root: "/".into(), sockets: vec![] };
        compiler.compile(&subject).expect("a step of this test").plan
    };
    let [web, db] = ["web", "db"].map(plan);
    assert_ne!(web.uid(), db.uid());
    assert!(web.shares_template_with(&db));
    let template = Template::build(&web).expect("a step of this test");
    let look = "id -u; id -g; id -G; stat -c '%u %g' /tmp /run /dev/shm; stat -c '%u %g' /dev /dev/null";
    for plan in [&web, &db, &web] {
        let (uid, gid) = (plan.uid(), plan.gid());
        let own = format!("{uid}\n{gid}\n{gid}\n");
        let expected = own + &format!("{uid} {gid}\n").repeat(3) + &"0 0\n".repeat(2);
        for template in [None, template.as_ref()] {
            assert_eq!(run(plan, template, None, look), expected);
            assert_eq!(run_underway(plan, Ahead { template, ..Ahead::default() }, look), expected);
        }
        let berth = berth(plan, template.as_ref()).expect("a step of this test");
        assert_eq!(run_ahead(plan, Ahead { berth: Some(&berth), ..Ahead::default() }, look), expected);
    }
}

#[test]
fn what_one_launch_writes_the_next_does_not_see() {
    if !is_root() {
        return;
    }
    let plan = plan(
        "extends = [\"base/default\"]\n[landlock]\nwrite = [\"/tmp\", \"/run\", \"/dev/shm\", \"/dev/null\"]\n",
    );
    let template = Template::build(&plan).expect("a step of this test");
    let write = "for f in /tmp /run /dev/shm; do echo was here > $f/left && cat $f/left; done";
    assert_eq!(run(&plan, template.as_ref(), None, write), "was here\n".repeat(3), "control");
    assert_eq!(run(&plan, template.as_ref(), None, "cat /tmp/* /run/* /dev/shm/* 2>/dev/null"), "");
}

#[test]
fn what_could_be_changed_for_the_next_launch_is_never_shared() {
    if !is_root() {
        return;
    }
    for text in [
        // Who may mount could make a read-only file system of the template's writable again.
        "extends = [\"base/default\"]\n[capabilities]\nkeep = [\"CAP_SYS_ADMIN\"]\n",
        // An empty root that is not sealed is written to.
        "extends = [\"base/default\"]\n[filesystem]\nroot = \"empty\"\nread_only = [\"/usr\", \"/etc\", \"/bin\", \
         \"/lib\", \"/lib64\", \"/sbin\"]\n",
        "extends = [\"base/default\"]\n[namespaces]\nuser = \"auto\"\n",
        "extends = [\"unconfined\"]\n",
    ] {
        let policy = load_text(Path::new("test.toml"), text, &Store::new(vec![policies()]));
        let Ok(policy) = policy else { continue };
        let subject = Subject { name: "template".to_owned(), root: "/".into(), sockets: vec![] };
        let plan = compile(&policy, &subject, &Kernel::probe(None).expect("a step of this test"))
            .expect("a step of this test");
        assert!(!plan.has_template(), "{text}");
    }
}

#[test]
fn a_berth_is_used_once_and_the_end_of_its_service_is_told_before_its_mounts_go() {
    if !is_root() {
        return;
    }
    let plan = plan("extends = [\"base/default\"]\n");
    let template = Template::build(&plan).expect("a step of this test").expect("base/default has a template");
    let null = File::open("/dev/null").expect("a step of this test");
    let look = || {
        let (mut reader, writer) = std::io::pipe().expect("a step of this test");
        let (until, held_back) = std::io::pipe().expect("a step of this test");
        let berth = berth(&plan, Some(&template)).expect("base/default has a berth");
        let script = "readlink /proc/self/ns/mnt /proc/self/ns/net /proc/self/ns/ipc; echo was here > /tmp/left; ls /tmp
            exec >&2; cat";
        let launched = launch(&Launch {
            ahead: Ahead { berth: Some(&berth), ..Ahead::default() },
            ..Launch::new(
                &plan,
                &["/usr/bin/sh", "-c", script].map(str::to_owned),
                [until.as_fd(), writer.as_fd(), null.as_fd()],
            )
        })
        .expect("a step of this test");
        drop((writer, until));
        let mut output = String::new();
        reader.read_to_string(&mut output).expect("a step of this test");
        // Held, or the kernel gives their numbers to the next.
        let namespaces = ["net", "ipc"].map(|kind| {
            File::open(format!("/proc/{}/ns/{kind}", launched.pid)).expect("a step of this test")
        });
        drop(held_back);
        waitid(Id::PIDFd(launched.pidfd.as_fd()), WaitPidFlag::WEXITED).expect("a step of this test");
        let mounts = launched.mounts.expect("they are the caller's to take down");
        let held =
            std::fs::read_link(format!("/proc/self/fd/{}", mounts.as_raw_fd())).expect("a step of this test");
        assert!(output.starts_with(&format!("{}\n", held.display())), "{output} in {held:?}");
        (output, mounts, namespaces)
    };
    let ((first, ..), (second, ..)) = (&look(), &look());
    for (one, other) in first.lines().zip(second.lines()).take(3) {
        assert_ne!(one, other, "each is used once");
    }
    assert!(first.ends_with("]\nleft\n") && second.ends_with("]\nleft\n"), "{first} {second}");
}

#[test]
fn a_template_of_another_plan_is_refused() {
    if !is_root() {
        return;
    }
    let (one, other) = (plan("extends = [\"base/default\"]\n"), plan("extends = [\"base/default\"]\n"));
    let template = Template::build(&one).expect("a step of this test");
    let null = File::open("/dev/null").expect("a step of this test");
    let refused = launch(&Launch {
        ahead: Ahead { template: template.as_ref(), ..Ahead::default() },
        ..Launch::new(&other, &["/usr/bin/true".to_owned()], [null.as_fd(), null.as_fd(), null.as_fd()])
    });
    assert_eq!(refused.unwrap_err().to_string(), "template of another plan: EINVAL");
    let berth = berth(&one, template.as_ref());
    let refused = launch(&Launch {
        ahead: Ahead { berth: berth.as_ref(), ..Ahead::default() },
        ..Launch::new(&other, &["/usr/bin/true".to_owned()], [null.as_fd(), null.as_fd(), null.as_fd()])
    });
    assert_eq!(refused.unwrap_err().to_string(), "berth of another plan: EINVAL");
    assert_eq!(run(&one, template.as_ref(), None, "echo runs"), "runs\n", "control");
}

/// A folder of this test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(format!("/var/tmp/template-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).expect("a step of this test");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("a step of this test");
    }
}

#[test]
fn a_folder_that_is_hidden_and_exchanged_is_hidden_all_the_same() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("hidden");
    let (secret, aside) = (folder.0.join("secret"), folder.0.join("aside"));
    let make = |text: &str| {
        std::fs::create_dir(&secret).expect("a step of this test");
        std::fs::write(secret.join("file"), text).expect("a step of this test");
    };
    make("old");
    let plan = plan(&format!(
        "extends = [\"base/default\"]\n[filesystem]\nhidden = [\"{0}\"]\n[landlock]\nread = [\"/usr\", \"/etc\", \
         \"/proc\", \"{1}\"]\n[process]\nuser = \"root\"\n[capabilities]\nkeep = [\"CAP_DAC_OVERRIDE\"]\n",
        secret.display(),
        folder.0.display()
    ));
    assert!(plan.has_template());
    let template = Template::build(&plan).expect("a step of this test");
    let look = format!("cat {}/file 2>/dev/null; echo looked", secret.display());
    assert_eq!(run(&plan, template.as_ref(), None, &look), "looked\n");
    let made_before = berth(&plan, template.as_ref());
    let (other, another) =
        (Template::build(&plan).expect("a step of this test"), berth(&plan, template.as_ref()));
    // The mount that hides it goes where the old folder goes.
    std::fs::rename(&secret, &aside).expect("a step of this test");
    make("new");
    let is_current = || template.as_ref().is_some_and(|template| template.is_current());
    assert!(is_current(), "what it shows is the same");
    assert_eq!(run(&plan, template.as_ref(), None, &look), "looked\n");
    assert!(!is_current(), "the launch found it stale");
    let ahead = Ahead { berth: made_before.as_ref(), ..Ahead::default() };
    assert_eq!(run_ahead(&plan, ahead, &look), "looked\n", "and that of a berth too");
    // Who does something else meanwhile is told, and launches again.
    for ahead in [
        Ahead { template: other.as_ref(), ..Ahead::default() },
        Ahead { berth: another.as_ref(), ..Ahead::default() },
    ] {
        let refused = output(underway, &plan, ahead, &look).expect_err("it is stale");
        assert!(refused.is_stale(), "{refused}");
        assert_eq!(run_underway(&plan, Ahead::default(), &look), "looked\n", "control");
    }
    assert!(!other.is_some_and(|other| other.is_current()), "and says so");
    assert!(
        Berth::make(&plan, template.as_ref().expect("it has one")).is_err(),
        "none is made from a stale one"
    );
    // The same with one that is removed: the kernel takes away what is mounted on it.
    std::fs::remove_dir_all(&secret).expect("a step of this test");
    make("newer");
    assert_eq!(run(&plan, template.as_ref(), None, &look), "looked\n");
    // The control: it is the hiding that does it.
    std::fs::remove_dir_all(&secret).expect("a step of this test");
    std::fs::rename(&aside, &secret).expect("a step of this test");
    assert_eq!(std::fs::read_to_string(secret.join("file")).expect("a step of this test"), "old");
}

#[test]
fn a_folder_that_is_shown_and_exchanged_makes_the_template_old() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("shown");
    let shown = folder.0.join("shown");
    std::fs::create_dir(&shown).expect("a step of this test");
    let plan = plan(&format!(
        "extends = [\"base/default\"]\n[filesystem]\nbind = [{{ from = \"{}\", to = \"/mnt\", read_only = true }}]\n",
        shown.display()
    ));
    let template = Template::build(&plan).expect("a step of this test").expect("a step of this test");
    assert!(template.is_current());
    std::fs::remove_dir(&shown).expect("a step of this test");
    assert!(!template.is_current());
    std::fs::create_dir(&shown).expect("a step of this test");
    assert!(!template.is_current(), "it has the same name, and is another");
}

#[test]
fn a_mount_of_the_hosts_is_noticed_once() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("mount");
    let watch = MountWatch::new().expect("a step of this test");
    // Others on this host may mount meanwhile, so that only the changes of this test can be asserted.
    let none: Option<&str> = None;
    nix::mount::mount(Some("tmpfs"), &folder.0, Some("tmpfs"), nix::mount::MsFlags::empty(), none)
        .expect("a step of this test");
    assert!(watch.changed());
    nix::mount::umount(&folder.0).expect("a step of this test");
    assert!(watch.changed());
}

#[test]
fn a_network_of_the_pool_is_used_once_and_is_like_a_new_one() {
    if !is_root() {
        return;
    }
    let plan = plan("extends = [\"base/default\"]\n");
    assert!(plan.takes_network());
    let mut pool = NetworkPool::new(2);
    assert!(pool.take().is_none());
    while pool.has_room() {
        pool.add().expect("a step of this test");
    }
    let look = "readlink /proc/self/ns/net";
    let networks = [pool.take(), pool.take(), pool.take()];
    assert_eq!(networks.each_ref().map(Option::is_some), [true, true, false]);
    let seen: std::collections::BTreeSet<String> =
        networks.into_iter().map(|network| run(&plan, None, network, look)).collect();
    assert_eq!(seen.len(), 3, "{seen:?}");
    let own = std::fs::read_link("/proc/self/ns/net").expect("a step of this test");
    assert!(!seen.contains(&format!("{}\n", own.display())));
}
