//! `motherctl completions SHELL`: a script that completes what clap reads, and the names of services, which motherd is
//! asked for when somebody presses the key.

use clap::{Command, CommandFactory};
use clap_complete::{
    generate,
    shells::{Bash, Fish, Zsh},
};

use super::{
    args::{Args, Shell},
    failure::Failure,
    output::print,
};

/// Prints the script.
pub(super) fn completions(shell: Shell) -> Result<u8, Failure> {
    print(&script(shell))?;
    Ok(0)
}

fn script(shell: Shell) -> String {
    let mut command = Args::command();
    let takers = takers(&command);
    let mut script = Vec::new();
    match shell {
        Shell::Bash => generate(Bash, &mut command, "motherctl", &mut script),
        Shell::Fish => generate(Fish, &mut command, "motherctl", &mut script),
        Shell::Zsh => generate(Zsh, &mut command, "motherctl", &mut script),
    }
    let script = String::from_utf8_lossy(&script);
    match shell {
        Shell::Bash => format!("{script}{}", BASH.replace("TAKERS", &takers.join("|"))),
        Shell::Fish => {
            let takers: String = takers.iter().map(|taker| FISH_TAKER.replace("TAKER", taker)).collect();
            format!("{script}{FISH}{takers}")
        }
        Shell::Zsh => {
            // The functions come before the end, where the script is run or registered.
            let (first, rest) = script.split_once('\n').unwrap_or((&script, ""));
            let rest: String = rest.lines().map(|line| names_in_zsh(line) + "\n").collect();
            format!("{first}\n{ZSH}{rest}")
        }
    }
}

/// The commands that take names of services.
fn takers(command: &Command) -> Vec<String> {
    let takes = |command: &&Command| {
        let mut names = command.get_positionals().filter_map(|argument| argument.get_value_names());
        names.any(|names| names.iter().any(|name| name.as_str() == "SERVICE"))
    };
    command.get_subcommands().filter(takes).map(|command| command.get_name().to_owned()).collect()
}

/// A positional of zsh's `_arguments` that is a service gets what knows their names instead of files.
fn names_in_zsh(line: &str) -> String {
    let is_service = ["'*::services", "':service"].iter().any(|start| line.starts_with(start));
    match line.strip_suffix(":_default' \\").filter(|_| is_service) {
        Some(line) => format!("{line}:_motherctl_services' \\"),
        None => line.to_owned(),
    }
}

/// Nothing of a name is expanded: they are compared and not given to compgen. A name with an `@` or a `:` is several
/// words to bash, of which it completes the last one (`$2`).
const BASH: &str = r#"
_motherctl_and_services() {
    _motherctl "$@"
    local word kept=()
    for word in "${COMPREPLY[@]}"; do
        [[ $word == [\<\[]* ]] || kept+=("$word")
    done
    COMPREPLY=("${kept[@]}")
    local line=${COMP_LINE:0:COMP_POINT}
    local whole=${line##*[[:space:]]}
    [[ $whole == -* ]] && return
    [[ $whole == "$2" ]] || COMPREPLY=()
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case $word in
            TAKERS)
                while read -r word _; do
                    [[ $word != SERVICE && $word == "$whole"* ]] && COMPREPLY+=("${word#"${whole%"$2"}"}")
                done < <(motherctl list 2>/dev/null)
                return
                ;;
        esac
    done
}
complete -F _motherctl_and_services -o bashdefault -o default motherctl
"#;

const FISH: &str = r#"
function __fish_motherctl_services
    motherctl list 2>/dev/null | string match -r '^(?!SERVICE )\S+'
end
"#;

/// clap's script has the function that knows which command it is.
const FISH_TAKER: &str = r#"complete -c motherctl -n "__fish_motherctl_using_subcommand TAKER" -f -a "(__fish_motherctl_services)"
"#;

const ZSH: &str = r#"
_motherctl_services() {
    local -a services
    services=(${${(f)"$(motherctl list 2>/dev/null)"}%% *})
    services=(${services:#SERVICE})
    compadd -a services
}
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_has_every_command() {
        for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
            let script = script(shell);
            for command in Args::command().get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell:?}: {}", command.get_name());
            }
            assert!(!script.contains("TAKER"), "{shell:?}");
        }
    }

    #[test]
    fn those_that_take_services_are_known_and_no_others() {
        let takers = takers(&Args::command());
        for name in ["status", "start", "why", "logs", "fdstore", "wait", "kill"] {
            assert!(takers.iter().any(|taker| taker == name), "{name}");
        }
        for name in ["list", "run", "policy", "upgrade", "poweroff", "man"] {
            assert!(!takers.iter().any(|taker| taker == name), "{name}");
        }
        let script = script(Shell::Zsh);
        // Once where it is made.
        assert_eq!(script.matches("_motherctl_services").count(), takers.len() + 1, "{script}");
    }
}
