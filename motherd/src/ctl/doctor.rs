//! `motherctl doctor`: what this machine offers to sandboxes and lacks, the worst first.

use sandbox::{
    doctor::{Facts, Finding, Grade, examine, table},
    kernel::Kernel,
};
use serde_json::{Value, json};

use super::{
    args::Global,
    failure::Failure,
    output::{print, print_json},
    render::{Style, printable},
};
use crate::control::protocol::VERSION;

/// Prints it; 1 if anything is lacking.
pub(super) fn doctor(global: &Global) -> Result<u8, Failure> {
    let kernel = Kernel::probe(None).map_err(|error| Failure::new(1, &error))?;
    let findings = examine(&kernel, &Facts::probe(&kernel));
    if global.json {
        let findings: Vec<Value> = findings.iter().map(as_json).collect();
        print_json(&json!({ "version": VERSION, "kernel": kernel.release, "findings": findings }))?;
    } else {
        let style = Style::choose(global.color);
        let release = printable(&kernel.release);
        print(&format!("Linux {release}\n{}", table(&findings, |grade, word| style.grade(grade, word))))?;
    }
    Ok(status(&findings))
}

fn status(findings: &[Finding]) -> u8 {
    u8::from(findings.iter().any(|finding| finding.grade == Grade::Lacking))
}

fn as_json(finding: &Finding) -> Value {
    json!({
        "grade": finding.grade.word(),
        "subject": finding.subject,
        "message": finding.message,
        "help": finding.help,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(grade: Grade) -> Finding {
        Finding { grade, subject: "landlock".into(), message: "ABI 7".into(), help: None }
    }

    #[test]
    fn only_what_is_lacking_is_a_failure() {
        assert_eq!(status(&[finding(Grade::Good), finding(Grade::Less), finding(Grade::Lax)]), 0);
        assert_eq!(status(&[finding(Grade::Lacking), finding(Grade::Good)]), 1);
    }

    #[test]
    fn a_finding_in_json_has_its_grade_by_name() {
        let expected = json!({ "grade": "lax", "subject": "landlock", "message": "ABI 7", "help": null });
        assert_eq!(as_json(&finding(Grade::Lax)), expected);
    }
}
