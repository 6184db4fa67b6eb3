//! Finds policies by name, reads them safely, and resolves `extends`.
//!
//! Invariant: no byte of a policy is believed that somebody else than root, or than the caller who runs as another
//! user, could have written. It is asked of the descriptor that is then read, not of the path, so that nothing can be
//! exchanged in between: each file is a regular file, owned so, not writable by group and others, opened without
//! following links; and so is each folder between it and the folder that policies are looked for in, itself included.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat},
    sys::stat::{FileStat, Mode, SFlag, fstat},
    unistd::geteuid,
};

use super::{
    Policy,
    raw::RawPolicy,
    reader::{Notes, did_you_mean},
    validate::validate,
};
use crate::diagnostic::{Diagnostic, FileId, Located, Place, Report, Sources};

/// A policy has at most this many bytes. The largest that ship have under 8 KiB.
const SIZE_LIMIT: u64 = 1 << 20;

/// A policy has at most this many ancestors above each other.
const DEPTH_LIMIT: usize = 16;

/// The folders that policies are looked for in, the first that has a name wins.
#[derive(Debug, Clone)]
pub struct Store {
    dirs: Vec<PathBuf>,
}

/// Why a name was not read.
enum Refusal {
    /// There is no file of this name: the next folder may have one.
    Missing,
    /// There is one, and this is wrong with it: a folder further down is not asked.
    Told(Box<Diagnostic>),
}

impl From<Box<Diagnostic>> for Refusal {
    fn from(diagnostic: Box<Diagnostic>) -> Self {
        Self::Told(diagnostic)
    }
}

impl Store {
    /// A store over folders, in the order in which they are asked. Folders that do not exist are empty.
    #[must_use]
    pub fn new(dirs: Vec<PathBuf>) -> Self {
        Self { dirs }
    }

    /// The policy of a name: the path of its file in one of the folders, without `.toml`.
    ///
    /// # Errors
    /// Everything that is wrong with it and with what it extends.
    pub fn load(&self, name: &str) -> Result<Policy, Report> {
        self.load_telling(name, |_| ())
    }

    /// The same; `tell` is given its text before that is read, for what can be begun meanwhile.
    ///
    /// # Errors
    /// As above.
    pub fn load_telling(&self, name: &str, tell: impl FnOnce(&str)) -> Result<Policy, Report> {
        let mut loader = Loader::new(self);
        let text = match loader.find(name, None) {
            Ok(found) => {
                tell(&found.1);
                Some(found)
            }
            Err(diagnostic) => {
                loader.notes.push(*diagnostic);
                None
            }
        };
        loader.finish(name.to_owned(), text, Some(name.to_owned()))
    }

    /// Whether a policy that was [loaded](Store::load) by its name would be loaded so again: each of its files, those that
    /// it extends among them, is found in the same folder, may still be believed, and has the same text.
    #[must_use]
    pub fn still_says(&self, policy: &Policy) -> bool {
        policy.sources.files().zip(&policy.names).all(|(file, name)| {
            let found = name.as_deref().and_then(|name| self.open(name).ok());
            found.is_some_and(|(path, text)| {
                path == policy.sources.path(file) && text == policy.sources.text(file)
            })
        })
    }

    /// The names of all policies in the folders, sorted; what cannot be listed has none.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for dir in &self.dirs {
            collect_names(dir, "", DEPTH_LIMIT, &mut names);
        }
        names.sort();
        names.dedup();
        names
    }

    fn open(&self, name: &str) -> Result<(PathBuf, String), Refusal> {
        for dir in &self.dirs {
            match read_beneath(dir, name) {
                Err(Refusal::Missing) => {}
                other => return other,
            }
        }
        Err(Refusal::Missing)
    }
}

/// The policy in a file, whose `extends` are looked up in the store. Its name is its path.
///
/// # Errors
/// Everything that is wrong with it and with what it extends.
pub fn load_file(path: &Path, store: &Store) -> Result<Policy, Report> {
    load_file_telling(path, store, |_| ())
}

/// The same; `tell` is given its text before that is read, for what can be begun meanwhile.
///
/// # Errors
/// As above.
pub fn load_file_telling(path: &Path, store: &Store, tell: impl FnOnce(&str)) -> Result<Policy, Report> {
    let mut loader = Loader::new(store);
    let text = match read_file(path) {
        Ok(text) => {
            tell(&text);
            Some((path.to_owned(), text))
        }
        Err(diagnostic) => {
            loader.notes.push(*diagnostic);
            None
        }
    };
    loader.finish(path.display().to_string(), text, None)
}

/// The policy in a text, as if it stood in the file `path`, whose `extends` are looked up in the store.
///
/// # Errors
/// Everything that is wrong with it and with what it extends.
pub fn load_text(path: &Path, text: &str, store: &Store) -> Result<Policy, Report> {
    Loader::new(store).finish(path.display().to_string(), Some((path.to_owned(), text.to_owned())), None)
}

/// One load: the texts, the diagnostics, and the files that are done.
struct Loader<'s> {
    store: &'s Store,
    sources: Sources,
    /// By what each of them was found.
    names: Vec<Option<String>>,
    notes: Notes,
    /// Each file once, an ancestor before who extends it.
    order: Vec<RawPolicy>,
    /// The names of the files in `order`.
    done: Vec<String>,
    /// A file could not be found or parsed: what the others mean together is not known.
    incomplete: bool,
}

/// A policy that is being read, and the place in its child that asked for it.
struct Step {
    name: String,
    at: Option<Place>,
}

impl<'s> Loader<'s> {
    fn new(store: &'s Store) -> Self {
        Self {
            store,
            sources: Sources::default(),
            names: Vec::new(),
            notes: Notes::default(),
            order: Vec::new(),
            done: Vec::new(),
            incomplete: false,
        }
    }

    fn finish(
        mut self,
        name: String,
        text: Option<(PathBuf, String)>,
        found_by: Option<String>,
    ) -> Result<Policy, Report> {
        let file = text.map(|(path, text)| {
            let file = self.add(path, text, found_by);
            self.read(file, &mut vec![Step { name: name.clone(), at: None }]);
            file
        });
        if let (Some(file), false) = (file, self.incomplete) {
            let merged = std::mem::take(&mut self.order)
                .into_iter()
                .fold(RawPolicy::default(), |below, raw| raw.over(below, &mut self.notes));
            let description = merged.description.as_ref().map(|text| text.value.clone()).unwrap_or_default();
            let written = merged.written();
            let rules = validate(merged, file, &mut self.notes);
            if self.notes.is_empty() {
                let Self { sources, names, .. } = self;
                return Ok(Policy { name, description, sources, names, rules, written });
            }
        }
        Err(Report { sources: self.sources, diagnostics: self.notes.into_sorted() })
    }

    fn add(&mut self, path: PathBuf, text: String, found_by: Option<String>) -> FileId {
        self.names.push(found_by);
        self.sources.add(path, text)
    }

    /// Reads a file, after everything that it extends.
    fn read(&mut self, file: FileId, path: &mut Vec<Step>) {
        let text = self.sources.text(file).to_owned();
        let (tree, errors) = toml::de::DeTable::parse_recoverable(&text);
        for error in &errors {
            self.notes.push(syntax_error(error, file, &text));
        }
        // After a syntax error the tree is a guess; a key that stands twice leaves it whole.
        if errors.iter().any(|error| error.message() != DUPLICATE_KEY) {
            self.incomplete = true;
            return;
        }
        let mut raw = RawPolicy::read(file, &tree, &mut self.notes);
        for parent in std::mem::take(&mut raw.extends) {
            self.extend(parent, path);
        }
        self.order.push(raw);
    }

    fn extend(&mut self, parent: Located<String>, path: &mut Vec<Step>) {
        let Located { value: name, at } = parent;
        if let Some(start) = path.iter().position(|step| step.name == name) {
            let diagnostic = self.cycle(&path[start..], &name, at);
            self.notes.push(diagnostic);
            return;
        }
        if self.done.contains(&name) {
            return; // An ancestor on two ways is applied once, where it is reached first.
        }
        if path.len() > DEPTH_LIMIT {
            let message = format!("`{name}` is more than {DEPTH_LIMIT} policies away");
            self.notes.push(Diagnostic::error("extends-too-deep", at, message));
            return;
        }
        match self.find(&name, Some(&at)) {
            Ok((file_path, text)) => {
                let file = self.add(file_path, text, Some(name.clone()));
                path.push(Step { name: name.clone(), at: Some(at) });
                self.read(file, path);
                path.pop();
                self.done.push(name);
            }
            Err(diagnostic) => {
                self.incomplete = true;
                self.notes.push(*diagnostic);
            }
        }
    }

    /// The text of a name, or what to tell at the place that named it.
    fn find(&self, name: &str, at: Option<&Place>) -> Result<(PathBuf, String), Box<Diagnostic>> {
        let tell = |code, message: String| match at {
            Some(at) => Diagnostic::error(code, at.clone(), message),
            None => Diagnostic::error_nowhere(code, message),
        };
        if let Some(problem) = wrong_with_name(name) {
            let message = format!("`{name}` cannot be the name of a policy");
            return Err(Box::new(tell("invalid-policy-name", message).help(problem)));
        }
        match self.store.open(name) {
            Ok(found) => Ok(found),
            Err(Refusal::Told(mut diagnostic)) => {
                diagnostic.at = at.cloned();
                Err(diagnostic)
            }
            Err(Refusal::Missing) => {
                let names = self.store.names();
                let suggestion = did_you_mean(name, names.iter().map(String::as_str));
                let dirs: Vec<_> = self.store.dirs.iter().map(|dir| dir.display().to_string()).collect();
                let help = format!("looked for {name}.toml in {}", dirs.join(", "));
                let diagnostic = tell("unknown-policy", format!("no policy is named `{name}`"));
                Err(Box::new(match at {
                    Some(_) => diagnostic.label(suggestion).help(help),
                    None if suggestion.is_empty() => diagnostic.help(help),
                    None => diagnostic.help(format!("{suggestion} {help}")),
                }))
            }
        }
    }

    /// A cycle, with the place of every edge of it.
    fn cycle(&self, steps: &[Step], name: &str, at: Place) -> Diagnostic {
        let mut edges = Vec::new();
        for pair in steps.windows(2) {
            let place = pair[1].at.as_ref().map(|at| self.sources.locate(at)).unwrap_or_default();
            edges.push(format!("{} -> {} ({place})", pair[0].name, pair[1].name));
        }
        let last = steps.last().map_or(name, |step| step.name.as_str());
        edges.push(format!("{last} -> {name} ({})", self.sources.locate(&at)));
        Diagnostic::error("extends-cycle", at, format!("`{name}` would extend itself"))
            .help(format!("the cycle: {}", edges.join(", ")))
    }
}

/// What the parser says of a key or a table that stands twice; a test holds it to that.
const DUPLICATE_KEY: &str = "duplicate key";

/// What it says of `umask = 0077`.
const LEADING_ZERO: &str = "unexpected leading zero";

fn syntax_error(error: &toml::de::Error, file: FileId, text: &str) -> Diagnostic {
    let span = error.span().unwrap_or(0..0);
    let span = span.start.min(text.len())..span.end.min(text.len());
    let at = Place { file, span: floor(text, span.start)..floor(text, span.end) };
    if error.message() == DUPLICATE_KEY {
        let message = format!("`{}` stands twice", &text[at.span.clone()]);
        return Diagnostic::error("duplicate-key", at, message);
    }
    let diagnostic = Diagnostic::error("syntax", at, error.message().to_owned());
    if error.message().starts_with(LEADING_ZERO) {
        return diagnostic.help("a mode stands in quotes: \"0077\"");
    }
    diagnostic
}

/// The character that an offset is in.
fn floor(text: &str, offset: usize) -> usize {
    (0..=offset).rev().find(|offset| text.is_char_boundary(*offset)).unwrap_or(0)
}

/// Why a text cannot be a name: it has to stay beneath the folder, whatever is done with it.
fn wrong_with_name(name: &str) -> Option<&'static str> {
    if name.is_empty() || name.len() > 255 {
        Some("a name has 1 to 255 bytes")
    } else if name.starts_with('/') {
        Some("a name is relative to the folders that policies are looked for in")
    } else if name.ends_with(".toml") {
        Some("a name is written without .toml")
    } else if name.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
        Some("no part of a name is empty or starts with a dot")
    } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-@+".contains(&byte)) {
        Some("a name has letters, digits and / . _ - @ +")
    } else {
        None
    }
}

fn collect_names(dir: &Path, prefix: &str, depth: usize, names: &mut Vec<String>) {
    // For suggestions and listings: what cannot be read here is told when it is loaded.
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let (Ok(kind), Ok(name)) = (entry.file_type(), entry.file_name().into_string()) else { continue };
        let name = format!("{prefix}{name}");
        if kind.is_dir() && depth > 0 {
            collect_names(&entry.path(), &format!("{name}/"), depth - 1, names);
        } else if let Some(name) = name.strip_suffix(".toml").filter(|_| kind.is_file()) {
            names.push(name.to_owned());
        }
    }
}

/// Never wait for a fifo, follow a link or pass the descriptor on.
const CAREFULLY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK);

/// Reads `name.toml` beneath a folder, one component after the other.
fn read_beneath(dir: &Path, name: &str) -> Result<(PathBuf, String), Refusal> {
    let mut path = dir.to_owned();
    // The folder itself may be a link: its place is the administrator's choice.
    let mut folder = match open(dir, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(folder) => folder,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Err(Refusal::Missing),
        Err(errno) => return Err(unreadable(&path, errno).into()),
    };
    let (parents, last) = name.rsplit_once('/').unwrap_or(("", name));
    check_owner(&path, &folder, SFlag::S_IFDIR)?;
    for part in parents.split('/').filter(|part| !part.is_empty()) {
        path.push(part);
        folder = match openat(&folder, part, CAREFULLY | OFlag::O_DIRECTORY, Mode::empty()) {
            Ok(folder) => folder,
            Err(Errno::ENOENT) => return Err(Refusal::Missing),
            Err(errno) => return Err(unreadable(&path, errno).into()),
        };
        check_owner(&path, &folder, SFlag::S_IFDIR)?;
    }
    let file_name = format!("{last}.toml");
    path.push(&file_name);
    match openat(&folder, file_name.as_str(), CAREFULLY, Mode::empty()) {
        Ok(file) => Ok((path.clone(), read_checked(&path, File::from(file))?)),
        Err(Errno::ENOENT) => Err(Refusal::Missing),
        Err(errno) => Err(unreadable(&path, errno).into()),
    }
}

/// Reads a file that was given by its path; the folders above it are the caller's choice. Service files are read by it
/// too.
///
/// # Errors
/// It cannot be read, or somebody else than root or the caller could have written it.
pub fn read_file(path: &Path) -> Result<String, Box<Diagnostic>> {
    match open(path, CAREFULLY, Mode::empty()) {
        Ok(file) => read_checked(path, File::from(file)),
        Err(errno) => Err(unreadable(path, errno)),
    }
}

fn read_checked(path: &Path, file: File) -> Result<String, Box<Diagnostic>> {
    let told = |code, message| Err(Box::new(Diagnostic::error_nowhere(code, message)));
    check_owner(path, &file, SFlag::S_IFREG)?;
    // Most of them are read at once.
    let mut bytes = Vec::with_capacity(4096);
    if let Err(error) = file.take(SIZE_LIMIT + 1).read_to_end(&mut bytes) {
        return Err(unreadable(path, errno_of(&error)));
    }
    if u64::try_from(bytes.len()).is_ok_and(|length| length > SIZE_LIMIT) {
        return told("file-too-large", format!("{} has more than 1 MiB", path.display()));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => {
            let offset = error.utf8_error().valid_up_to();
            told("not-utf8", format!("{} is not UTF-8 from byte {offset} on", path.display()))
        }
    }
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Refuses what somebody else could have written: by what the open descriptor says.
fn check_owner(path: &Path, file: impl AsFd, kind: SFlag) -> Result<(), Box<Diagnostic>> {
    let stat = fstat(file).map_err(|errno| unreadable(path, errno))?;
    match unsafe_because(&stat, kind, geteuid().as_raw()) {
        None => Ok(()),
        Some((why, help)) => {
            let message = format!("{} {why}", path.display());
            Err(Box::new(Diagnostic::error_nowhere("unsafe-file", message).help(help)))
        }
    }
}

fn unsafe_because(stat: &FileStat, kind: SFlag, caller: libc::uid_t) -> Option<(String, &'static str)> {
    if stat.st_mode & SFlag::S_IFMT.bits() != kind.bits() {
        let what = if kind == SFlag::S_IFREG { "a regular file" } else { "a folder" };
        return Some((format!("is not {what}"), "a policy is read from a regular file"));
    }
    if stat.st_uid != 0 && stat.st_uid != caller {
        return Some((
            format!("belongs to the user {}", stat.st_uid),
            "it has to belong to root, or to who runs this",
        ));
    }
    let others = Mode::S_IWGRP.union(Mode::S_IWOTH).bits();
    if stat.st_mode & others != 0 {
        let mode = stat.st_mode & 0o7777;
        return Some((format!("is writable by others (mode {mode:04o})"), "chmod go-w"));
    }
    None
}

fn unreadable(path: &Path, errno: Errno) -> Box<Diagnostic> {
    if matches!(errno, Errno::ELOOP | Errno::ENOTDIR) {
        let message = format!("{} is a link, or no folder", path.display());
        let help = "links are not followed: name the file itself";
        return Box::new(Diagnostic::error_nowhere("unsafe-file", message).help(help));
    }
    Box::new(Diagnostic::error_nowhere("unreadable-file", format!("open {}: {errno:?}", path.display())))
}
