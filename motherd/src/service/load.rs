//! Folders of service files to a [`Catalog`]: what loaded, what did not, and everything that is wrong, at once.
//!
//! A file that does not load takes nothing with it but itself. The first folder that has a name wins, even with a file
//! that is broken: falling back to another folder's file would run something that the operator replaced.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use sandbox::{
    diagnostic::{Diagnostic, FileId, Report, Severity, Sources},
    policy::read_file,
};

use super::{Body, Service, enabled, raw, validate::validate, words::check_name, words::check_service_name};

/// What the folders of service files say.
#[derive(Debug, Default)]
pub struct Catalog {
    /// What loaded, by name.
    pub services: BTreeMap<String, Service>,
    /// Templates, by the part of the name before `@`.
    pub templates: BTreeMap<String, Template>,
    /// What is wrong with each service that did not load.
    pub broken: BTreeMap<String, Report>,
    /// What is wrong with no service's file in particular: a folder that cannot be read, a file's name.
    pub problems: Vec<Diagnostic>,
}

/// A checked template: `worker@.toml`. Each instance is a service of its own.
#[derive(Debug, Clone)]
pub struct Template {
    path: PathBuf,
    text: String,
}

impl Template {
    /// The service `NAME@INSTANCE`.
    ///
    /// # Errors
    /// With the template's diagnostics: an instance can make a value wrong.
    pub fn instantiate(&self, name: &str) -> Result<Service, Report> {
        parse(name, &self.path, self.text.clone())
    }
}

/// Loads every `NAME.toml` of the folders; a folder that does not exist is empty.
#[must_use]
pub fn load_dirs(dirs: &[PathBuf]) -> Catalog {
    let mut catalog = read_dirs(dirs);
    instances_of_names(&mut catalog);
    catalog
}

/// The same, with what is [`enabled`] in a folder.
#[must_use]
pub fn load_with_enabled(dirs: &[PathBuf], folder: &Path) -> Catalog {
    let mut catalog = read_dirs(dirs);
    enabled::apply(folder, &mut catalog);
    instances_of_names(&mut catalog);
    catalog
}

fn instances_of_names(catalog: &mut Catalog) {
    let named = catalog.services.values().flat_map(named_instances).collect();
    make_instances(catalog, named);
}

fn read_dirs(dirs: &[PathBuf]) -> Catalog {
    let mut catalog = Catalog::default();
    let mut seen = BTreeSet::new();
    for dir in dirs {
        let files = match files_of(dir) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                let message = format!("read {}: {error}", dir.display());
                catalog.problems.push(Diagnostic::error_nowhere("folder-unreadable", message));
                continue;
            }
        };
        for (name, path) in files {
            if seen.insert(name.clone()) {
                load(&name, &path, &mut catalog);
            }
        }
    }
    catalog
}

/// `(NAME, path)` of each `NAME.toml`, by name.
fn files_of(dir: &Path) -> io::Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml")
            && let Some(stem) = path.file_stem()
        {
            files.insert(stem.to_string_lossy().into_owned(), path.clone());
        }
    }
    Ok(files)
}

fn load(name: &str, path: &Path, catalog: &mut Catalog) {
    let template = name.strip_suffix('@');
    let text = match check_name(template.unwrap_or(name)) {
        Ok(()) => read_file(path),
        Err(why) => {
            let message = format!("{}: `{name}` is not the name of a service", path.display());
            catalog.problems.push(Diagnostic::error_nowhere("bad-name", message).help(why));
            return;
        }
    };
    let text = match text {
        Ok(text) => text,
        Err(problem) => {
            let report = Report { sources: Sources::default(), diagnostics: vec![*problem] };
            catalog.broken.insert(name.to_owned(), report);
            return;
        }
    };
    if let Some(template) = template {
        // Checked with some instance, so that `check` and the boot see a broken template before it is used.
        match parse(&format!("{template}@instance"), path, text.clone()) {
            Ok(_) => {
                catalog.templates.insert(template.to_owned(), Template { path: path.to_owned(), text });
            }
            Err(report) => {
                catalog.broken.insert(name.to_owned(), report);
            }
        }
        return;
    }
    match parse(name, path, text) {
        Ok(service) => {
            catalog.services.insert(name.to_owned(), service);
        }
        Err(report) => {
            catalog.broken.insert(name.to_owned(), report);
        }
    }
}

/// Makes instances of their templates: those that services name (`wants = ["worker@blue"]`), or those that somebody has
/// started; and those that these name. A name that no template is for is passed over.
pub(crate) fn make_instances(catalog: &mut Catalog, mut wanted: Vec<String>) {
    while let Some(name) = wanted.pop() {
        if catalog.services.contains_key(&name) || catalog.broken.contains_key(&name) {
            continue;
        }
        let template = name.split_once('@').and_then(|(template, _)| catalog.templates.get(template));
        let template = template.filter(|_| check_service_name(&name).is_ok());
        match template.map(|template| template.instantiate(&name)) {
            Some(Ok(service)) => {
                wanted.extend(named_instances(&service));
                catalog.services.insert(name, service);
            }
            Some(Err(report)) => {
                catalog.broken.insert(name, report);
            }
            None => {}
        }
    }
}

/// The instances that a service depends on.
pub(crate) fn named_instances(service: &Service) -> Vec<String> {
    let started = service.dependencies.each().filter(|(relation, _)| relation.starts());
    started.map(|(_, name)| name.value.clone()).filter(|name| name.contains('@')).collect()
}

/// One text to a service, or everything that is wrong with it.
pub(crate) fn parse(name: &str, path: &Path, text: String) -> Result<Service, Report> {
    let mut sources = Sources::default();
    let file: FileId = sources.add(path, text.clone());
    let mut problems = Vec::new();
    let raw = raw::parse(&text, file, &mut problems);
    let service = raw.and_then(|raw| validate(name, raw, &sources, file, &mut problems));
    problems.sort_by_key(|problem| problem.at.as_ref().map_or(0, |at| at.span.start));
    match service {
        Some(service) if problems.iter().all(|problem| problem.severity == Severity::Warning) => Ok(service),
        Some(_) | None => Err(Report { sources, diagnostics: problems }),
    }
}

impl Service {
    /// Whether it is a group: nothing of its own to run.
    #[must_use]
    pub fn is_group(&self) -> bool {
        matches!(self.body, Body::Group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{LogRate, Relation, Restart, Start, When};
    use std::time::Duration;

    fn check(text: &str, expected: &str) {
        let report = parse("web", Path::new("web.toml"), text.to_owned()).expect_err("it is wrong");
        assert_eq!(report.to_string(), expected);
    }

    fn codes(text: &str) -> Vec<&'static str> {
        match parse("web", Path::new("web.toml"), text.to_owned()) {
            Ok(_) => Vec::new(),
            Err(report) => report.diagnostics.iter().map(|problem| problem.code).collect(),
        }
    }

    #[test]
    fn a_program_needs_no_more_than_its_exec() {
        let service = parse("web", Path::new("web.toml"), "exec = [\"/bin/web\"]".to_owned()).unwrap();
        let program = service.program().unwrap();
        assert_eq!(program.exec.value, ["/bin/web"]);
        assert_eq!(program.policy.value, "base/default");
        assert_eq!(service.cgroup().unwrap(), "system.slice/web.service");
        assert_eq!(program.start, Start::Exec);
        assert_eq!(*program.restart, Restart::default());
        assert_eq!(program.stop_signal, libc::SIGTERM);
    }

    #[test]
    fn every_key_that_is_executed_arrives() {
        let text = r#"
description = "static web server"
exec   = ["/usr/sbin/web-server", "--foreground"]
policy = "web-server"
slice  = "web"
[dependencies]
needs  = ["network"]
wants  = ["log-shipper"]
after  = ["local-mounts"]
conflicts = []
[start]
type    = "notify"
timeout = "30s"
[reload]
signal = "SIGHUP"
[stop]
signal  = "SIGINT"
timeout = "11s"
[restart]
when   = "always"
delay  = "200ms"
factor = 3
max_delay = "61s"
reset_after = "31s"
limit  = 11
limit_window = "62s"
[log]
keep  = "32M"
rate  = "60/m"
"#;
        let service = parse("web", Path::new("web.toml"), text.to_owned()).unwrap();
        let program = service.program().unwrap();
        assert_eq!(service.description(), "static web server");
        assert_eq!(service.cgroup().unwrap(), "web.slice/web.service");
        assert_eq!(service.dependencies().of(Relation::Needs)[0].value, "network");
        assert_eq!(program.start, Start::Notify);
        assert_eq!(program.start_timeout, Some(Duration::from_secs(30)));
        assert_eq!(program.reload_signal, Some(libc::SIGHUP));
        assert_eq!((program.stop_signal, program.stop_timeout), (libc::SIGINT, Duration::from_secs(11)));
        let restart = Restart {
            when: When::Always,
            delay: Duration::from_millis(200),
            factor: 3.0,
            max_delay: Duration::from_secs(61),
            reset_after: Duration::from_secs(31),
            limit: 11,
            limit_window: Duration::from_secs(62),
            ..Restart::default()
        };
        assert_eq!(*program.restart, restart);
        assert_eq!(program.log_keep_bytes, 32 << 20);
        assert_eq!(program.log_rate, Some(LogRate { lines: 60, per: Duration::from_secs(60) }));
    }

    #[test]
    fn an_unknown_key_is_an_error_with_the_nearest_spelling() {
        check(
            "exec = [\"/bin/web\"]\npolcy = \"x\"\n",
            "error[unknown-key]: a service file has no key `polcy`\n --> web.toml:2:1\n  |\n2 | polcy = \"x\"\n  | \
             ^^^^^ did you mean `policy`?\n  = help: it has description, exec, policy, slice, standby, environment, dependencies, condition, \
             start, reload, stop, restart, notify, watchdog, health, socket, timer, log\n",
        );
    }

    #[test]
    fn everything_wrong_with_a_file_is_told_at_once() {
        let text = "exec = [\"web\"]\npolicy = 3\n[stop]\nsignal = \"TERM\"\ntimeout = \"10\"\n[restrat]\n";
        assert_eq!(codes(text), ["bad-exec", "wrong-type", "bad-signal", "bad-duration", "unknown-key"]);
    }

    #[test]
    fn what_is_wrong_in_one_table_hides_nothing_of_another() {
        let text = "exec = [\"/bin/web\"]\n[start]\ntype = \"fd\"\n\
                    [[socket]]\nlisten = \"tpc:0.0.0.0:80\"\n[[timer]]\npersistent = true\n[log]\nrate = \"1\"\n";
        assert_eq!(codes(text), ["missing-key", "bad-socket", "bad-timer", "bad-rate"]);
    }

    #[test]
    fn a_bad_socket_timer_or_rate_is_told_at_its_place_with_what_is_near() {
        check(
            "exec = [\"/bin/web\"]\n[[timer]]\ncalendar = \"dialy 03:00\"\n",
            "error[bad-calendar]: \"dialy 03:00\" is not a calendar time: `dialy` is no word, day of the week, date or \
             time\n --> web.toml:3:13\n  |\n3 | calendar = \"dialy 03:00\"\n  |             ^^^^^ did you mean `daily`?\n  \
             = help: for instance \"hourly\", \"daily 03:00\", \"weekly mon 04:00\", \"mon..fri 09:00\", \
             \"*-*-01 00:30\", \"*:0/15\"; times are UTC\n",
        );
        check(
            "exec = [\"/bin/web\"]\n[[socket]]\nlisten = \"tpc:0.0.0.0:80\"\n",
            "error[bad-socket]: \"tpc:0.0.0.0:80\" is nothing to listen on: `tpc` is no kind of socket\n --> \
             web.toml:3:10\n  |\n3 | listen = \"tpc:0.0.0.0:80\"\n  |          ^^^^^^^^^^^^^^^^ did you mean `tcp:`?\n  \
             = help: it begins with tcp:, udp:, unix:, unix-dgram:, unix-seqpacket:, fifo:\n",
        );
        check(
            "exec = [\"/bin/web\"]\n[log]\nrate = \"1000\"\n",
            "error[bad-rate]: \"1000\" is not a rate\n --> web.toml:3:8\n  |\n3 | rate = \"1000\"\n  |        ^^^^^^\n  \
             = help: a rate is a number of lines, a slash and s, m or h: \"1000/s\", \"60/m\"\n",
        );
        let two = "exec = [\"/bin/web\"]\n[[timer]]\nevery = \"1m\"\nafter_boot = \"2m\"\n";
        assert_eq!(codes(two), ["bad-timer"]);
        assert_eq!(
            codes("exec = [\"/bin/web\"]\n[[timer]]\nevery = \"1m\"\npersistent = true\n"),
            ["bad-timer"]
        );
        let twice = "[[socket]]\nlisten = \"tcp:0.0.0.0:80\"\n";
        assert_eq!(codes(&format!("exec = [\"/bin/web\"]\n{twice}{twice}")), ["bad-socket"]);
    }

    #[test]
    fn sockets_and_timers_arrive() {
        let text = "exec = [\"/bin/web\"]\n[[socket]]\nname = \"http\"\nlisten = \"tcp:0.0.0.0:80\"\nlazy = true\n\
                    backlog = 5\n[[socket]]\nlisten = \"unix:/run/w\"\nmode = \"600\"\n[[timer]]\n\
                    calendar = \"daily 03:00\"\npersistent = true\n[[timer]]\nevery = \"90s\"\njitter = \"5s\"\n";
        let service = parse("web", Path::new("web.toml"), text.to_owned()).unwrap();
        let [http, local] = service.sockets() else { panic!() };
        assert_eq!((http.name.as_str(), http.lazy, http.backlog), ("http", true, 5));
        assert_eq!((local.name.as_str(), local.lazy, local.mode), ("web", false, 0o600));
        let timers: Vec<String> = service.timers().iter().map(ToString::to_string).collect();
        assert_eq!(timers, ["daily 03:00", "every 90s"]);
        assert!(service.timers()[0].persistent);
    }

    #[test]
    fn a_group_with_a_key_of_a_process_lacks_its_exec() {
        assert_eq!(codes("description = \"all\"\n[dependencies]\nwants = [\"a\"]"), [""; 0]);
        assert_eq!(codes("policy = \"x\""), ["missing-exec"]);
    }

    #[test]
    fn a_key_written_twice_and_broken_toml_have_their_place() {
        assert_eq!(codes("exec = [\"/bin/a\"]\nexec = [\"/bin/b\"]"), ["duplicate-key"]);
        assert_eq!(codes("exec = ["), ["syntax"]);
    }

    #[test]
    fn a_template_puts_its_instance_in_and_refuses_a_lone_percent() {
        let template =
            Template { path: "w@.toml".into(), text: "exec = [\"/bin/w\", \"--q=%i\", \"100%%\"]".into() };
        let service = template.instantiate("w@blue").unwrap();
        assert_eq!(service.program().unwrap().exec.value, ["/bin/w", "--q=blue", "100%"]);
        let template = Template { path: "w@.toml".into(), text: "exec = [\"/bin/w\", \"%x\"]".into() };
        assert!(template.instantiate("w@blue").is_err());
    }

    #[test]
    fn a_oneshot_is_not_repeated_unless_that_is_written() {
        let oneshot = "exec = [\"/bin/once\"]\n[start]\ntype = \"oneshot\"\n";
        let service = parse("once", Path::new("once.toml"), oneshot.to_owned()).unwrap();
        assert_eq!(service.program().unwrap().restart.when, When::Never);
        assert_eq!(service.program().unwrap().start_timeout, None);
        assert_eq!(codes(&format!("{oneshot}[restart]\nwhen = \"always\"\n")), ["bad-value"]);
    }

    #[test]
    fn the_first_folder_that_has_a_name_wins_even_broken() {
        let scratch = crate::scratch::Scratch::new();
        let (first, second) = (scratch.path().join("first"), scratch.path().join("second"));
        std::fs::create_dir_all(&first).unwrap();
        std::fs::create_dir_all(&second).unwrap();
        std::fs::write(first.join("a.toml"), "exec = [\"/bin/first\"]").unwrap();
        std::fs::write(second.join("a.toml"), "exec = [\"/bin/second\"]").unwrap();
        std::fs::write(first.join("b.toml"), "exec = [").unwrap();
        std::fs::write(second.join("b.toml"), "exec = [\"/bin/b\"]").unwrap();
        std::fs::write(second.join("w@.toml"), "exec = [\"/bin/w\", \"%i\"]").unwrap();
        std::fs::write(second.join("all.toml"), "[dependencies]\nwants = [\"a\", \"w@1\"]").unwrap();
        let catalog = load_dirs(&[first, second, scratch.path().join("missing")]);
        assert_eq!(catalog.services["a"].program().unwrap().exec.value, ["/bin/first"]);
        assert_eq!(catalog.services["w@1"].program().unwrap().exec.value, ["/bin/w", "1"]);
        assert_eq!(catalog.broken.keys().collect::<Vec<_>>(), ["b"]);
        assert!(catalog.problems.is_empty());
    }

    #[test]
    fn a_file_that_others_could_have_written_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = crate::scratch::Scratch::new();
        let path = scratch.path().join("a.toml");
        std::fs::write(&path, "exec = [\"/bin/a\"]").unwrap();
        for (mode, loads) in [(0o644, true), (0o664, false), (0o646, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let catalog = load_dirs(&[scratch.path().to_owned()]);
            assert_eq!(catalog.services.contains_key("a"), loads, "{mode:o}");
            assert_eq!(catalog.broken.contains_key("a"), !loads, "{mode:o}");
        }
    }
}
