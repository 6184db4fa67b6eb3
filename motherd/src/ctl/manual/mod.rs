//! `motherctl man DIR`: the manual pages, for man(1).
//!
//! Nothing is written twice: commands and options are those that clap reads, the rest are the documents of `docs/`, which
//! tests hold to what the programs do.

mod markdown;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use serde_json::json;

use self::markdown::{section, to_roff};
use super::{
    args::{Args, Global},
    failure::Failure,
    output::{print, print_json},
};
use crate::{control::protocol::VERSION, daemon};

const MOTHERCTL: &str = include_str!("../../../../docs/motherctl.md");
const SERVICES: &str = include_str!("../../../../docs/services.md");
const POLICY: &str = include_str!("../../../../docs/policy.md");
const BOOT: &str = include_str!("../../../../docs/boot.md");
const CONTAINER: &str = include_str!("../../../../docs/container.md");
const INITLDR: &str = include_str!("../../../../docs/man/initldr.md");
const MOTHERD: &str = include_str!("../../../../docs/man/motherd.md");

/// What stands at the foot of each page.
const SOURCE: &str = concat!("MotherD ", env!("CARGO_PKG_VERSION"));

/// No name of a page or a key is broken at the end of a line.
const WHOLE_WORDS: &str = ".nr HY 0\n";
/// And no line is stretched, for which long names leave no room.
const RAGGED: &str = ".ad l\n";

/// One page: its name without the section, the section, and its text.
struct Page {
    name: String,
    section: u8,
    roff: Vec<u8>,
}

impl Page {
    /// A document.
    fn of(name: &str, section: u8, about: &str, text: &str) -> Self {
        let title = name.to_uppercase();
        let roff = format!(
            "{WHOLE_WORDS}.TH \"{title}\" \"{section}\" \"\" \"{SOURCE}\" \"MotherD\"\n{RAGGED}.SH NAME\n{name} \\- {about}\n\
             .SH DESCRIPTION\n{}",
            to_roff(text)
        );
        Self { name: name.into(), section, roff: roff.into_bytes() }
    }

    /// What clap reads, and what there is to say besides.
    fn read_by(command: &Command, section: u8, more: &str) -> io::Result<Self> {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
        let man = Man::new(command.clone())
            .title(name.to_uppercase())
            .section(section.to_string())
            .source(SOURCE)
            .manual("MotherD");
        let mut roff = WHOLE_WORDS.as_bytes().to_vec();
        man.render_title(&mut roff)?;
        roff.write_all(RAGGED.as_bytes())?;
        man.render_name_section(&mut roff)?;
        man.render_synopsis_section(&mut roff)?;
        man.render_description_section(&mut roff)?;
        man.render_options_section(&mut roff)?;
        if command.get_subcommands().any(|command| !command.is_hide_set()) {
            man.render_subcommands_section(&mut roff)?;
        }
        roff.write_all(to_roff(more).as_bytes())?;
        Ok(Self { name, section, roff })
    }

    fn see(mut self, others: &[&str]) -> Self {
        let others = format!(".SH \"SEE ALSO\"\n{}\n", others.join(", ").replace('-', "\\-"));
        self.roff.extend_from_slice(others.as_bytes());
        self
    }

    /// Below a folder of pages, as man(1) looks for it.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("man{0}/{1}.{0}", self.section, self.name))
    }
}

/// All of them.
fn pages() -> io::Result<Vec<Page>> {
    let part = |heading| section(BOOT, heading).unwrap_or_default();
    let (_, motherctl) = MOTHERCTL.split_at(MOTHERCTL.find("\n## ").unwrap_or_default());
    let mut pages = vec![
        Page::of("initldr", 8, "process 1, or a reaper", &format!("{INITLDR}{}", part("Signals to initldr")))
            .see(&["motherd(8)", "motherctl(1)", "motherd.boot(7)", "motherd.container(7)"]),
        Page::read_by(&built(daemon::arguments()), 8, MOTHERD)?.see(&[
            "initldr(8)",
            "motherctl(1)",
            "motherd.service(5)",
            "motherd.policy(5)",
        ]),
        Page::of("motherd.service", 5, "service files", SERVICES).see(&["motherd(8)", "motherd.policy(5)"]),
        Page::of("motherd.policy", 5, "policies, which confine services", POLICY).see(&[
            "motherctl-policy(1)",
            "motherctl-run(1)",
            "motherd.service(5)",
        ]),
        Page::of("motherd.boot", 7, "from the kernel to a login, and back", BOOT)
            .see(&["initldr(8)", "motherd.service(5)"]),
        Page::of("motherd.container", 7, "initldr and motherd in a container", CONTAINER)
            .see(&["initldr(8)"]),
    ];
    let whole = built(Args::command());
    pages.push(Page::read_by(&whole, 1, motherctl)?.see(&[
        "motherd(8)",
        "motherd.service(5)",
        "motherd.policy(5)",
    ]));
    of_commands(&whole, &mut pages)?;
    Ok(pages)
}

/// With the full names of its commands, and without the command that prints help.
fn built(command: Command) -> Command {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    command
}

fn of_commands(command: &Command, pages: &mut Vec<Page>) -> io::Result<()> {
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        pages.push(Page::read_by(command, 1, "")?.see(&["motherctl(1)"]));
        of_commands(command, pages)?;
    }
    Ok(())
}

/// Writes them below a folder, which is made where it is not there.
pub(super) fn man(global: &Global, folder: &Path) -> Result<u8, Failure> {
    let failed = |what: &Path| {
        let what = what.display().to_string();
        move |error: io::Error| {
            let source: &(dyn std::error::Error + 'static) = &error;
            Failure::new(1, source).about(&format!("write the manual pages to {what}"))
        }
    };
    let mut written = Vec::new();
    for page in pages().map_err(failed(folder))? {
        let path = folder.join(page.path());
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed(parent))?;
        }
        fs::write(&path, &page.roff).map_err(failed(&path))?;
        written.push(path.display().to_string());
    }
    if global.json {
        print_json(&json!({ "version": VERSION, "pages": written }))?;
    } else {
        print(&format!("{} pages: man -M {} motherctl\n", written.len(), folder.display()))?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_and_each_page_another_name() {
        let pages = pages().unwrap();
        let mut paths: Vec<_> = pages.iter().map(Page::path).collect();
        for path in ["man1/motherctl.1", "man1/motherctl-policy-check.1", "man8/motherd.8", "man8/initldr.8"]
        {
            assert!(paths.contains(&path.into()), "{path}");
        }
        for command in Args::command().get_subcommands() {
            let path = format!("man1/motherctl-{}.1", command.get_name());
            assert!(paths.contains(&path.into()), "{}", command.get_name());
        }
        let count = paths.len();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), count);
    }

    #[test]
    fn what_a_page_refers_to_is_a_page() {
        let pages = pages().unwrap();
        let names: Vec<_> = pages.iter().map(|page| format!("{}({})", page.name, page.section)).collect();
        for page in &pages {
            let text = String::from_utf8(page.roff.clone()).unwrap().replace("\\-", "-");
            for word in text.split(|one: char| !(one.is_ascii_alphanumeric() || "-.()".contains(one))) {
                let ours = word.starts_with("motherctl")
                    || word.starts_with("motherd")
                    || word.starts_with("initldr");
                let refers = ours
                    && word.contains('(')
                    && word.trim_end_matches(['.', ')']).ends_with(char::is_numeric);
                let word = word.trim_end_matches('.');
                let word = if word.ends_with("))") { &word[..word.len() - 1] } else { word };
                assert!(!refers || names.iter().any(|name| name == word), "{}: {word}", page.name);
            }
        }
    }

    #[test]
    fn the_sections_of_documents_that_are_used_are_there() {
        assert!(section(BOOT, "Signals to initldr").is_some() && MOTHERCTL.contains("\n## Exit status\n"));
        let pages = pages().unwrap();
        let text = |name: &str| {
            let page = pages.iter().find(|page| page.name == name).unwrap();
            String::from_utf8(page.roff.clone()).unwrap()
        };
        assert!(text("initldr").contains("RTMIN+13"));
        assert!(text("motherd").contains("\\-\\-safe") && text("motherd").contains("/var/log/motherd"));
        assert!(!text("motherd").contains("prepare"), "what helpers take is nobody else's");
        assert!(text("motherctl").contains(".SH \"EXIT STATUS\""));
        assert!(text("motherd.service").contains("\\fBdependencies.needs\\fR"));
        assert!(text("motherd.policy").contains("\\fBmemory_max\\fR"));
    }

    #[test]
    fn initldrs_page_has_the_options_that_it_reads() {
        let program = include_str!("../../../../initldr/src/args.rs");
        let read: std::collections::BTreeSet<_> = program
            .split("b\"--")
            .skip(1)
            .filter_map(|rest| rest.split_once('"'))
            .map(|(name, _)| name)
            .collect();
        let read: Vec<_> = read.into_iter().filter(|name| !name.is_empty()).collect();
        let mut told: Vec<_> =
            INITLDR.lines().filter_map(|line| line.strip_prefix("| `--")?.split([' ', '`']).next()).collect();
        told.sort_unstable();
        assert_eq!(told, read);
        assert!(read.len() > 3, "{read:?}");
    }

    /// What stands behind `motherctl` in the code of a document, up to a comment or another command.
    fn command_lines(text: &str) -> Vec<Vec<&str>> {
        let starts = text.match_indices("motherctl ").filter(|(at, _)| {
            let before = text[..*at].chars().next_back();
            matches!(before, Some('`' | '\n' | ' ' | '/')) && {
                // In a line of a block, or in a span, of which each has two marks.
                let line = &text[text[..*at].rfind('\n').map_or(0, |end| end + 1)..*at];
                line.matches('`').count() % 2 == 1
                    || line.is_empty()
                    || line.starts_with("$ ")
                    || line.starts_with("sudo ")
            }
        });
        let line = |(at, name): (usize, &str)| {
            let rest = &text[at + name.len()..];
            let end = rest.find(['`', '\n', '#', '|', '&', '>']).unwrap_or(rest.len());
            rest[..end].split_whitespace().take_while(|word| *word != "--").collect()
        };
        starts.map(line).collect()
    }

    #[test]
    fn what_documents_have_motherctl_do_it_does() {
        let readme = include_str!("../../../../README.md");
        let daemons = include_str!("../../../../docs/daemons.md");
        let whole = built(Args::command());
        let mut found = 0;
        for text in [MOTHERCTL, SERVICES, POLICY, BOOT, CONTAINER, INITLDR, MOTHERD, readme, daemons] {
            for line in command_lines(text) {
                let mut command = &whole;
                let mut words = line.iter().peekable();
                while let Some(word) = words.next() {
                    if let Some(long) = word.strip_prefix("--") {
                        let long = long.trim_matches(['[', ']']);
                        let argument =
                            command.get_arguments().find(|argument| argument.get_long() == Some(long));
                        let argument = argument.unwrap_or_else(|| panic!("--{long} of {line:?}"));
                        if argument.get_action().takes_values() {
                            words.next();
                        }
                    } else if command.has_subcommands()
                        && word.starts_with(|one: char| one.is_ascii_lowercase())
                    {
                        command =
                            command.find_subcommand(word).unwrap_or_else(|| panic!("{word} of {line:?}"));
                        found += 1;
                    }
                }
            }
        }
        assert!(found > 60, "{found} commands are found");
        let lines =
            command_lines("`motherctl list` and motherctl nothing\nmotherctl --json status web | jq\n");
        assert_eq!(lines, [vec!["list"], vec!["--json", "status", "web"]]);
    }
}
