//! MotherD and other init systems in one run: `cargo run --release -p e2e --bin peers_boot -- --help`

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use e2e::fetch::Kernel;
use e2e::peers::contender::Contender;
use e2e::peers::image;
use e2e::peers::run::Boot;
use e2e::peers::tables::Results;
use e2e::say;

const USAGE: &str = "\
usage: peers_boot [--only NAME,...] [--services N,...] [--measure WORD,...] [--rounds N] [--kernel 6.1|6.12] [--count]

Boots each contender in QEMU with each number of services and prints tables: times as ratios to the floor of this run.
Whoever cannot be fetched is skipped, and counted at the end.

  --only NAME,...      floor floor-cg floor-sbx floor-standby motherd motherd-sbx motherd-standby busybox sysvinit
                       finit runit s6 systemd systemd-sbx openrc
  --services N,...     1,50,200,500 if it is not given
  --measure WORD,...   what else is measured once the services run: memory, idle=SECONDS, questions with the largest
                       number; restarts, orphans=N, crash with 50, or with the largest where 50 is not asked for.
                       All of them if it is not given (idle=60, orphans=4000); `boot` measures nothing else
  --rounds N           so many boots of each, 1 if it is not given; all contenders take turns in each round
  --kernel             6.12 if it is not given
  --count              guests have one processor, and a clock that counts its instructions, two nanoseconds each: figures
                       that a busy machine does not disturb, and that know nothing of caches";

/// Peers of whom there is no package.
const WITHOUT_PACKAGE: [&str; 1] = ["dinit"];
/// What is measured with the largest number of services; the rest with 50.
const WITH_MANY: [&str; 3] = ["memory", "idle", "questions"];

struct Arguments {
    only: Vec<Contender>,
    services: Vec<usize>,
    measures: Vec<String>,
    rounds: usize,
    kernel: Kernel,
    counted: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match parse(words.into_iter()) {
        Ok(arguments) => match run(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("peers_boot: {error:#}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("{error:#}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
    let mut arguments = Arguments {
        only: Contender::ALL.to_vec(),
        services: vec![1, 50, 200, 500],
        measures: ["memory", "idle=60", "questions", "restarts", "orphans=4000", "crash"]
            .map(str::to_owned)
            .to_vec(),
        rounds: 1,
        kernel: Kernel::V6_12,
        counted: false,
    };
    while let Some(word) = words.next() {
        if word == "--count" {
            arguments.counted = true;
            continue;
        }
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        let list = || value.split(',');
        match word.as_str() {
            "--only" => {
                let named = |name| Contender::named(name).with_context(|| format!("{name} is no contender"));
                arguments.only = list().map(named).collect::<Result<_>>()?;
                arguments.only.sort_unstable();
            }
            "--services" => arguments.services = list().map(str::parse).collect::<Result<_, _>>()?,
            "--measure" => arguments.measures = list().map(str::to_owned).collect(),
            "--rounds" => arguments.rounds = value.parse()?,
            "--kernel" => {
                let named = Kernel::ALL.into_iter().find(|kernel| kernel.version() == value);
                arguments.kernel = named.with_context(|| format!("{value} is no kernel"))?;
            }
            _ => bail!("{word} is no option"),
        }
    }
    Ok(arguments)
}

fn run(arguments: &Arguments) -> Result<()> {
    let mut skipped: Vec<String> =
        WITHOUT_PACKAGE.iter().map(|name| format!("{name}: Debian has no package")).collect();
    let mut images = Vec::new();
    for &contender in &arguments.only {
        match image::write(contender) {
            Ok((path, version)) => images.push((contender, path, version)),
            Err(error) if contender.package().is_some() => {
                skipped.push(format!("{}: {error:#}", contender.name()))
            }
            Err(error) => return Err(error),
        }
    }
    let mut results = Results::default();
    let mut failed = Vec::new();
    for round in 1..=arguments.rounds {
        for &services in &arguments.services {
            for (contender, image, _) in &images {
                if services > contender.most_services() {
                    continue;
                }
                let begin = Instant::now();
                let measures = measures_of(arguments, *contender, services);
                let counted = arguments.counted;
                let boot = Boot { contender: *contender, services, measures: &measures, counted };
                match boot.run(arguments.kernel, image) {
                    Ok(report) => {
                        let last = report.median("last").unwrap_or(f64::NAN);
                        let told: Vec<String> =
                            report.notes.iter().map(|(name, words)| format!("; {name} {words}")).collect();
                        say(&format!(
                            "round {round}: {} with {services}: {last:.0} ms ({} s for all){}",
                            contender.name(),
                            begin.elapsed().as_secs(),
                            told.concat()
                        ));
                        results.add(*contender, services, report);
                    }
                    Err(error) => {
                        say(&format!("FAILED: {error:#}"));
                        failed.push(format!("{} with {services} services", contender.name()));
                    }
                }
            }
        }
    }
    let clock = if arguments.counted { ", two nanoseconds for each instruction" } else { "" };
    println!("Linux {}, {} rounds, QEMU without KVM{clock}.", arguments.kernel.version(), arguments.rounds);
    for (contender, _, version) in &images {
        println!("- {}: {version}", contender.name());
    }
    println!("{}", results.tables());
    if !skipped.is_empty() {
        println!("SKIPPED, {}:\n{}", skipped.len(), skipped.join("\n"));
    }
    if !failed.is_empty() {
        bail!("{} boots failed: {}", failed.len(), failed.join(", "));
    }
    Ok(())
}

/// What is measured in a boot beside the boot.
fn measures_of(arguments: &Arguments, contender: Contender, services: usize) -> Vec<String> {
    let possible = arguments.services.iter().copied().filter(|count| *count <= contender.most_services());
    let largest = possible.clone().max();
    let few = possible.clone().find(|count| *count == 50).or(largest);
    let wanted = |word: &&String| {
        let name = word.split('=').next().unwrap_or_default();
        word.as_str() != "boot" && Some(services) == if WITH_MANY.contains(&name) { largest } else { few }
    };
    arguments.measures.iter().filter(wanted).cloned().collect()
}
