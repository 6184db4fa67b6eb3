//! `net = "service:NAME"`, on this host: two services in one network, and the same two in one of their own each.

use anyhow::{Result, ensure};
use e2e::scratch::Scratch;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const POLICY: &str = "extends = [\"base/default\"]\n[landlock]\nbind_tcp = [7777]\nconnect_tcp = [7777]\n";

/// Listens on loopback, says that it is ready, and answers each who connects with a word.
const OWNER: &str = r#"
exec = ["/usr/bin/perl", "-MIO::Socket::INET", "-MIO::Socket::UNIX", "-MSocket", "-e", '''
my $l = IO::Socket::INET->new(LocalAddr => "127.0.0.1:7777", Listen => 9, ReuseAddr => 1) or die "listen: $!";
my $n = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Peer => $ENV{NOTIFY_SOCKET}) or die "notify: $!";
$n->send("READY=1") or die "notify: $!";
while (my $c = $l->accept) { print $c "well met\n"; close $c }
''']
policy = "owner"
start = { type = "notify", timeout = "20s" }
"#;

/// Says what came of connecting, and stays.
const CLIENT: &str = r#"
exec = ["/usr/bin/perl", "-MIO::Socket::INET", "-e", '''
$| = 1;
my $c = IO::Socket::INET->new(PeerAddr => "127.0.0.1:7777");
print $c ? "heard: " . <$c> : "nobody: $!\n";
sleep 1 while 1;
''']
"#;

/// What a service has said first, once it has.
fn heard(scratch: &Scratch, service: &str) -> Result<String> {
    scratch.eventually(&format!("{service} says something"), |scratch| {
        let Ok(status) = scratch.status(service) else { return Ok(None) };
        let said = status["log"].as_array().and_then(|lines| lines.last().cloned());
        Ok(said.map(|line| line.to_string()))
    })
}

/// The network of a service, as the kernel attests.
fn network(scratch: &Scratch, service: &str) -> Result<Value> {
    let status = scratch.status(service)?;
    let namespaces = &status["isolation"]["attested"]["value"]["namespaces"];
    let found = namespaces.as_array().and_then(|all| all.iter().find(|one| one["kind"] == "net").cloned());
    found.ok_or_else(|| anyhow::anyhow!("no network in {status:#}"))
}

#[test]
fn a_service_reaches_what_listens_in_the_network_that_it_joins_and_no_other_does() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_service_reaches_what_listens")? else { return Ok(()) };
    scratch.policy("owner", POLICY)?;
    scratch.policy("joins", &format!("{POLICY}[namespaces]\nnet = \"service:owner\"\n"))?;
    scratch.service("owner", OWNER)?;
    scratch.service("joined", &format!("policy = \"joins\"\n{CLIENT}"))?;
    scratch
        .service("alone", &format!("policy = \"owner\"\n{CLIENT}[dependencies]\nafter = [\"owner\"]\n"))?;
    // The owner is wanted by nobody but through the policy of who joins it.
    scratch.service("system", "[dependencies]\nwants = [\"joined\", \"alone\"]\n")?;
    scratch.start()?;

    let said = heard(&scratch, "joined")?;
    ensure!(said.contains("heard: well met"), "{said}; the log:\n{}", scratch.log()?);
    let said = heard(&scratch, "alone")?;
    ensure!(said.contains("nobody: Connection refused"), "control: {said}");

    let (owner, joined, alone) =
        (network(&scratch, "owner")?, network(&scratch, "joined")?, network(&scratch, "alone")?);
    ensure!(joined["inode"] == owner["inode"] && joined["shared_with"] == "owner", "{joined} {owner}");
    ensure!(joined["private"] == true, "it is not the host's: {joined}");
    ensure!(alone["inode"] != owner["inode"] && alone["shared_with"].is_null(), "control: {alone}");
    let shown = scratch.motherctl(&["status", "joined"])?.out;
    ensure!(shown.contains("shared with owner: net"), "{shown}");

    // An owner that is started anew has another network: who was in the old one is moved to it, the other stays.
    let (first, bystander) = (scratch.running("joined")?, scratch.running("alone")?);
    let main = scratch.running("owner")?;
    kill(Pid::from_raw(i32::try_from(main)?), Signal::SIGKILL)?;
    scratch.eventually("who joined is started anew", |scratch| {
        let status = scratch.status("joined")?;
        let anew =
            status["state"] == "running" && status["main_pid"].as_u64().is_some_and(|pid| pid != first);
        Ok(anew.then_some(()))
    })?;
    scratch.running("owner")?;
    let (owner_now, joined) = (network(&scratch, "owner")?, network(&scratch, "joined")?);
    ensure!(owner_now["inode"] != owner["inode"], "control: it is another network");
    ensure!(
        joined["inode"] == owner_now["inode"] && joined["shared_with"] == "owner",
        "{joined} {owner_now}"
    );
    let said = heard(&scratch, "joined")?;
    ensure!(said.contains("heard: well met"), "{said}");
    ensure!(scratch.running("alone")? == bystander, "nobody else is restarted");
    Ok(())
}

#[test]
fn run_says_that_motherd_alone_can_enter_a_service_into_anothers_network() -> Result<()> {
    let Some(scratch) = Scratch::new("run_says_that_motherd_alone")? else { return Ok(()) };
    let run = |name: &str| scratch.motherctl(&["run", "--policy", name, "--", "/bin/echo", "started"]);
    scratch.policy("joins", &format!("{POLICY}[namespaces]\nnet = \"service:owner\"\n"))?;
    scratch.policy("plain", POLICY)?;
    let ran = run("joins")?;
    ensure!(ran.status == 125 && ran.out.is_empty(), "{ran:?}");
    ensure!(ran.errors.contains("joins the network of the service owner"), "{}", ran.errors);
    ensure!(run("plain")?.out == "started\n", "control");
    Ok(())
}

#[test]
fn a_network_of_a_service_that_is_not_there_is_told_where_the_policy_is_named() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_network_of_a_service_that_is_not_there")? else { return Ok(()) };
    scratch.policy("joins", &format!("{POLICY}[namespaces]\nnet = \"service:ownre\"\n"))?;
    scratch.policy("owner", POLICY)?;
    scratch.service("owner", OWNER)?;
    scratch.service("joined", &format!("policy = \"joins\"\n{CLIENT}"))?;
    scratch.service("system", "[dependencies]\nwants = [\"owner\", \"joined\"]\n")?;
    scratch.start()?;
    scratch.running("owner")?;
    let log = scratch.log()?;
    for words in
        ["`joined` needs `ownre`, and there is no such service", "did you mean `owner`?", "joined.toml:1:10"]
    {
        ensure!(log.contains(words), "{words} is not in:\n{log}");
    }
    Ok(())
}
