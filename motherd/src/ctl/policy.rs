//! `motherctl policy check`: everything that is wrong with policy files, of all of them at once.

use std::path::{Path, PathBuf};

use sandbox::{
    Plan,
    compile::{Subject, compile},
    diagnostic::{Diagnostic, Report, Severity, Sources},
    kernel::Kernel,
    policy::{Policy, Store, load_file, load_file_telling},
};
use serde_json::{Value, json};

use super::{
    args::Global,
    failure::Failure,
    output::{complain, print, print_json},
    render::{by_reason, printable},
};
use crate::control::protocol::{LeftOut, VERSION};

/// The policy that `text` names: a file if it has a slash and ends in `.toml`, or ends so and is there; else a name. `tell` is
/// given what stands there before it is read.
pub(super) fn load(text: &str, store: &Store, tell: impl FnOnce(&str)) -> Result<Policy, Report> {
    if is_file(text) {
        load_file_telling(Path::new(text), store, tell)
    } else {
        store.load_telling(text, tell)
    }
}

/// No name ends in `.toml`, and a path that does not is given as `./NAME` would be to a shell: with its ending.
pub(super) fn is_file(text: &str) -> bool {
    text.ends_with(".toml") || text.starts_with('/') || text.starts_with("./") || text.starts_with("../")
}

/// Checks each file, prints what was found, and returns 1 if any of it is an error.
pub(super) fn check(global: &Global, files: &[PathBuf], host: bool) -> Result<u8, Failure> {
    let kernel =
        if host { Some(Kernel::probe(None).map_err(|error| Failure::new(1, &error))?) } else { None };
    let store = Store::new(global.policies());
    let checked: Vec<Checked> = files.iter().map(|file| Checked::of(file, &store, kernel.as_ref())).collect();
    if global.json {
        let files: Vec<Value> = checked.iter().map(Checked::as_json).collect();
        print_json(&json!({ "version": VERSION, "files": files }))?;
    } else {
        for one in &checked {
            if let Err(report) = &one.outcome {
                complain(&format!("{report}\n"));
            }
            print(&one.line())?;
        }
    }
    Ok(u8::from(!checked.iter().all(Checked::is_good)))
}

/// One file, and what came of it.
struct Checked {
    file: PathBuf,
    /// What this machine lacks and the policy calls optional, or what is wrong.
    outcome: Result<Vec<LeftOut>, Report>,
    /// The version of the groups that it was expanded by.
    groups: Option<u32>,
}

impl Checked {
    fn of(file: &Path, store: &Store, kernel: Option<&Kernel>) -> Self {
        let mut groups = None;
        let compiled = |policy: Policy| {
            groups = policy.groups_version();
            match kernel {
                Some(kernel) => compile(&policy, &subject(file), kernel).map(|plan| left_out(&plan)),
                None => Ok(Vec::new()),
            }
        };
        let outcome = load_file(file, store).and_then(compiled);
        Self { file: file.to_owned(), outcome, groups }
    }

    fn is_good(&self) -> bool {
        match &self.outcome {
            Ok(_) => true,
            Err(report) => !report.has_errors(),
        }
    }

    /// The verdict, and what is not enforced here.
    fn line(&self) -> String {
        let file = printable(&self.file.display().to_string());
        let groups = self.groups.map_or_else(String::new, |version| format!(" (groups {version})"));
        match &self.outcome {
            Ok(left) if left.is_empty() => format!("{file}: good{groups}\n"),
            Ok(left) => {
                let left: String =
                    by_reason(left).iter().map(|line| format!("  left out: {line}\n")).collect();
                format!(
                    "{file}: good{groups}, less what this machine lacks and the policy calls optional\n{left}"
                )
            }
            Err(report) => {
                let count = |wanted| report.diagnostics.iter().filter(|one| one.severity == wanted).count();
                let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
                let plural =
                    |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
                format!("{file}: {}, {}\n", plural(errors, "error"), plural(warnings, "warning"))
            }
        }
    }

    fn as_json(&self) -> Value {
        let (left, diagnostics) = match &self.outcome {
            Ok(left) => (left.clone(), Vec::new()),
            Err(Report { sources, diagnostics }) => {
                (Vec::new(), diagnostics.iter().map(|one| diagnostic_as_json(sources, one)).collect())
            }
        };
        json!({
            "file": self.file.display().to_string(),
            "good": self.is_good(),
            "groups_version": self.groups,
            "diagnostics": diagnostics,
            "left_out": left,
        })
    }
}

/// Whom a file is compiled for: the service that its name would be for.
pub(super) fn subject(file: &Path) -> Subject {
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Subject { name, root: PathBuf::from("/"), sockets: vec![] }
}

pub(super) fn left_out(plan: &Plan) -> Vec<LeftOut> {
    plan.left_out().iter().map(LeftOut::from).collect()
}

fn diagnostic_as_json(sources: &Sources, diagnostic: &Diagnostic) -> Value {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let mut value = json!({
        "code": diagnostic.code,
        "severity": severity,
        "message": diagnostic.message,
    });
    if let Some(at) = &diagnostic.at {
        let (line, column) = sources.line_column(at);
        value["at"] = json!({
            "file": sources.path(at.file).display().to_string(),
            "line": line,
            "column": column,
        });
    }
    if !diagnostic.label.is_empty() {
        value["label"] = json!(diagnostic.label);
    }
    if let Some(help) = &diagnostic.help {
        value["help"] = json!(help);
    }
    value
}

#[cfg(test)]
mod tests {
    use sandbox::diagnostic::Place;

    use super::*;

    #[test]
    fn a_name_has_slashes_too_and_a_file_ends_in_toml_or_begins_as_a_path() {
        for name in ["base/default", "web-server", "unconfined"] {
            assert!(!is_file(name), "{name}");
        }
        for file in ["web.toml", "dir/web.toml", "/etc/x", "./web", "../web"] {
            assert!(is_file(file), "{file}");
        }
    }

    fn report(severity: Severity) -> Report {
        let mut sources = Sources::default();
        let file = sources.add("web.toml", "[a]\nwen = 1\n");
        let mut diagnostic =
            Diagnostic::error("unknown-key", Place { file, span: 4..7 }, "no key is named `wen`")
                .label("did you mean `when`?");
        diagnostic.severity = severity;
        Report { sources, diagnostics: vec![diagnostic] }
    }

    #[test]
    fn an_error_makes_a_file_bad_and_a_warning_does_not() {
        let checked = |outcome| Checked { file: "web.toml".into(), outcome, groups: Some(1) };
        let bad = checked(Err(report(Severity::Error)));
        assert!(!bad.is_good());
        assert_eq!(bad.line(), "web.toml: 1 error, 0 warnings\n");
        assert!(checked(Err(report(Severity::Warning))).is_good());
        let left = LeftOut { what: "landlock net".into(), why: "ABI 4, this kernel has 2".into() };
        let good = checked(Ok(vec![left]));
        assert!(
            good.is_good() && good.line().contains("\n  left out: landlock net (ABI 4, this kernel has 2)\n")
        );
    }

    #[test]
    fn a_diagnostic_in_json_has_its_place() {
        let checked =
            Checked { file: "web.toml".into(), outcome: Err(report(Severity::Error)), groups: None };
        let expected = json!({
            "file": "web.toml",
            "good": false,
            "groups_version": null,
            "left_out": [],
            "diagnostics": [{
                "code": "unknown-key",
                "severity": "error",
                "message": "no key is named `wen`",
                "at": { "file": "web.toml", "line": 2, "column": 1 },
                "label": "did you mean `when`?",
            }],
        });
        assert_eq!(checked.as_json(), expected);
    }
}
