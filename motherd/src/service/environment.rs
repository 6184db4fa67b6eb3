//! `[environment]`: variables of one service, beside and before those of its policy.
//!
//! Variables by which the dynamic loader is told where code is belong to the policy, which is checked against what the
//! service may write to; and what motherd itself tells a service is nobody else's to say. Both are refused here.

use sandbox::diagnostic::Located;
use toml::de::DeTable;

use super::{
    raw::{RawService, Reader},
    validate::Checker,
};

/// A variable as it is written: its name and its value.
pub(crate) type RawVariable = (Located<String>, Located<String>);

/// What motherd tells a service, or a command of it.
const TOLD: [&str; 10] = [
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "MAINPID",
    "EXIT_CODE",
    "EXIT_STATUS",
    "CREDENTIALS_DIRECTORY",
];

/// Variables of the dynamic loader and the C library that name files; `LD_` begins more of them (ld.so(8)).
const LOADER: [&str; 4] = ["GCONV_PATH", "GLIBC_TUNABLES", "LOCPATH", "NLSPATH"];

impl Reader<'_> {
    pub(super) fn environment(&mut self, table: &DeTable<'_>, raw: &mut RawService) {
        let Some(entry) = table.get("environment") else { return };
        let Some(section) = entry.get_ref().as_table() else {
            self.wrong_type("environment", entry, "a table");
            return;
        };
        for key in section.keys() {
            let name = key.get_ref().as_ref();
            if let Some(value) = self.string(section, name) {
                raw.environment.push((Located::new(name.to_owned(), self.place(key.span())), value));
            }
        }
    }
}

impl Checker<'_> {
    /// Sorted by name: what a service is told does not depend on a parser's order.
    pub(super) fn environment(&mut self, raw: &RawService) -> Vec<(String, String)> {
        let mut variables = Vec::new();
        for (name, value) in &raw.environment {
            let value = self.expand(value.clone());
            if let Some((message, help)) = problem(&name.value) {
                self.refuse("bad-value", &name.at, message, help);
            } else if value.value.contains('\0') {
                let message = format!("the value of `{}` has a NUL byte", name.value);
                self.refuse("bad-value", &value.at, message, "execve(2) would cut it there");
            } else {
                variables.push((name.value.clone(), value.value));
            }
        }
        variables.sort();
        variables
    }
}

/// What is wrong with a name, and what to do about it.
fn problem(name: &str) -> Option<(String, &'static str)> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if !first || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        let help = "a name is made of letters, digits and _, and does not begin with a digit";
        return Some((format!("`{name}` is not the name of a variable"), help));
    }
    if TOLD.contains(&name) {
        return Some((format!("`{name}` is what motherd tells the service"), "leave it out"));
    }
    if name.starts_with("LD_") || LOADER.contains(&name) {
        let help = "write it in `process.environment` of the policy, where it is checked against what the service may write";
        return Some((format!("`{name}` decides which code is run"), help));
    }
    None
}

#[cfg(test)]
mod tests {
    use crate::service::parse_text;

    fn variables(text: &str) -> Result<Vec<(String, String)>, String> {
        let text = format!("exec = [\"/bin/x\"]\n[environment]\n{text}");
        let service = parse_text("x@7", &text).map_err(|report| report.to_string())?;
        Ok(service.program().map(|program| program.environment.clone()).unwrap_or_default())
    }

    #[test]
    fn variables_arrive_sorted_with_the_instance_in_their_values() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let found = variables("PORT = \"80%i\"\nA_1 = \"\"\n_b = \"a b=c\"\n").unwrap();
        assert_eq!(found, [pair("A_1", ""), pair("PORT", "807"), pair("_b", "a b=c")]);
    }

    #[test]
    fn what_is_not_a_services_to_say_is_refused_at_its_place() {
        let check = |text: &str, words: &[&str]| {
            let told = variables(text).unwrap_err();
            for word in words {
                assert!(told.contains(word), "{word} is not in\n{told}");
            }
        };
        check("A-B = \"x\"\n", &["bad-value", "`A-B` is not the name of a variable", "x@7.toml:3:1"]);
        check("9A = \"x\"\n", &["`9A` is not the name of a variable"]);
        check("NOTIFY_SOCKET = \"/x\"\n", &["`NOTIFY_SOCKET` is what motherd tells the service"]);
        check("LD_PRELOAD = \"/x.so\"\n", &["`LD_PRELOAD` decides which code is run", "of the policy"]);
        check("GCONV_PATH = \"/x\"\n", &["`GCONV_PATH` decides"]);
        check("A = \"\\u0000\"\n", &["NUL byte"]);
        check("A = 3\n", &["wrong-type", "`A` has to be a string"]);
        let told = parse_text("x", "exec = [\"/bin/x\"]\nenvironment = 3\n").unwrap_err().to_string();
        assert!(told.contains("`environment` has to be a table"), "{told}");
        let told = parse_text("x", "[environment]\nA = \"b\"\n").unwrap_err().to_string();
        assert!(told.contains("missing-exec"), "{told}");
    }
}
