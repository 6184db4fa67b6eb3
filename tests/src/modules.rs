//! Kernel modules for an image: those that are asked for and those that they need, as `modprobe` looks for them.
//!
//! What a module needs and what else it is called stands in its `.modinfo` section as strings (`depends=`, `alias=`), so
//! no `depmod` is needed to write the two tables that `modprobe` reads.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// A module's contents and what they say of it.
#[derive(Debug)]
struct Module {
    object: Vec<u8>,
    depends: Vec<String>,
    aliases: Vec<String>,
}

/// The files for `/usr/lib/modules`: paths below it, and contents. `asked` are names as `modprobe` takes them.
pub fn files(folder: &Path, asked: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let release = folder.file_name().context("a folder of modules has a name")?.to_string_lossy();
    let mut paths = BTreeMap::new();
    find(&folder.join("kernel"), &mut paths)?;
    let mut chosen: BTreeMap<String, Module> = BTreeMap::new();
    let mut open: Vec<String> = asked.iter().map(|name| (*name).to_owned()).collect();
    let built_in = fs::read_to_string(folder.join("modules.builtin"))?;
    let built_in: Vec<String> = built_in.lines().map(|path| name_of(Path::new(path))).collect();
    while let Some(name) = open.pop() {
        if chosen.contains_key(&name) {
            continue;
        }
        // What a kernel has built in is no module of it, and needs none.
        let Some(path) = paths.get(&name) else {
            ensure!(built_in.contains(&name), "{release} has no module {name}");
            continue;
        };
        let module = read(path)?;
        open.extend(module.depends.iter().cloned());
        chosen.insert(name, module);
    }
    let path = |name: &str| format!("kernel/{name}.ko");
    let (mut dep, mut alias, mut files) = (String::new(), String::new(), Vec::new());
    for (name, module) in &chosen {
        // Every one of them, each before those that it needs itself: what depmod(8) writes, and modprobe loads from the end.
        let mut needed = Vec::new();
        before(name, &chosen, &mut needed);
        needed.pop();
        needed.reverse();
        let needed: String = needed.iter().map(|name| format!(" {}", path(name))).collect();
        writeln!(dep, "{}:{needed}", path(name))?;
        for other in &module.aliases {
            writeln!(alias, "alias {other} {name}")?;
        }
    }
    files.push((format!("{release}/modules.dep"), dep.into_bytes()));
    files.push((format!("{release}/modules.alias"), alias.into_bytes()));
    files.push((format!("{release}/modules.symbols"), Vec::new()));
    files.extend(
        chosen.into_iter().map(|(name, module)| (format!("{release}/{}", path(&name)), module.object)),
    );
    Ok(files)
}

/// A module after all that it needs, unless it is there already.
fn before<'a>(name: &'a str, chosen: &'a BTreeMap<String, Module>, loaded: &mut Vec<&'a str>) {
    let Some(module) = chosen.get(name).filter(|_| !loaded.contains(&name)) else { return };
    for needed in &module.depends {
        before(needed, chosen, loaded);
    }
    loaded.push(name);
}

/// Every module below `folder`, by its name.
fn find(folder: &Path, paths: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, paths)?;
            continue;
        }
        if path.file_name().is_some_and(|name| name.to_string_lossy().contains(".ko")) {
            paths.insert(name_of(&path), path);
        }
    }
    Ok(())
}

/// What `modprobe` calls the module of a file.
fn name_of(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    file.split(".ko").next().unwrap_or_default().replace('-', "_")
}

/// A module, unpacked: kernels before 6.12 do not unpack it themselves.
fn read(path: &Path) -> Result<Module> {
    let object = if path.extension().is_some_and(|extension| extension == "xz") {
        let mut command = Command::new("xz");
        let output = command.args(["--decompress", "--stdout"]).arg(path).stdin(Stdio::null()).output();
        let output = output.context("cannot run xz: apt-get install xz-utils")?;
        ensure!(output.status.success(), "xz of {}: {}", path.display(), output.status);
        output.stdout
    } else {
        fs::read(path)?
    };
    let all = |label: &str| -> Vec<String> {
        let strings = object.split(|byte| *byte == 0).filter_map(|text| std::str::from_utf8(text).ok());
        strings.filter_map(|text| text.strip_prefix(label)).map(str::to_owned).collect()
    };
    let depends = all("depends=");
    let depends = depends.iter().flat_map(|list| list.split(',')).filter(|name| !name.is_empty());
    Ok(Module {
        depends: depends.map(|name| name.replace('-', "_")).collect(),
        aliases: all("alias="),
        object,
    })
}
