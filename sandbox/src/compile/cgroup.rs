//! `[cgroup]`: which files get which values, and which controllers carry the figures.

use crate::{
    compile::Builder,
    diagnostic::{Diagnostic, Place},
    kernel::Kernel,
    plan::CgroupSetting,
    policy::{CgroupLimits, Limit},
};

/// The controllers that limits and figures need.
const CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];

/// The period of `cpu.max`, microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;

/// What goes into the service's cgroup.
pub(crate) struct Settings {
    pub(crate) controllers: Vec<String>,
    pub(crate) files: Vec<CgroupSetting>,
}

impl Settings {
    /// No limits; the controllers that are there carry the figures all the same.
    pub(crate) fn none(kernel: &Kernel) -> Self {
        let controllers = CONTROLLERS.into_iter().filter(|name| kernel.controllers.contains(*name));
        Self { controllers: controllers.map(str::to_owned).collect(), files: Vec::new() }
    }
}

/// The settings of the section; a controller that is missing is an error unless it is optional.
pub(crate) fn compile(limits: &CgroupLimits, builder: &mut Builder<'_>) -> Settings {
    let mut settings = Settings::none(builder.kernel);
    for setting in wanted(limits) {
        if builder.kernel.controllers.contains(setting.controller) {
            settings.files.push(setting);
            continue;
        }
        let why = missing(setting.controller, builder.kernel);
        if limits.optional.contains(setting.controller) {
            builder.left_out(format!("cgroup {}", setting.file), why);
        } else {
            builder.error(
                Diagnostic::error("no-controller", setting.at, why)
                    .label(format!("{} cannot be enforced here", setting.file))
                    .help(format!(
                        "run where the {0} controller is, or write optional = [\"{0}\"] in [cgroup] to go without",
                        setting.controller
                    )),
            );
        }
    }
    settings
}

fn missing(controller: &str, kernel: &Kernel) -> String {
    match &kernel.cgroup_base {
        Some(base) => {
            format!("the {controller} controller is not available in the cgroup2 tree at {}", base.display())
        }
        None => format!("the {controller} controller is not available: no cgroup2 tree is mounted"),
    }
}

fn wanted(limits: &CgroupLimits) -> Vec<CgroupSetting> {
    let mut settings = Vec::new();
    let mut push = |controller, file, value: String, at: &Place| {
        settings.push(CgroupSetting { controller, file, value, at: at.clone() });
    };
    let figure = |limit: Limit| match limit {
        Limit::Max => "max".to_owned(),
        Limit::Value(value) => value.to_string(),
    };
    let whole = [
        ("memory", "memory.high", &limits.memory_high),
        ("memory", "memory.max", &limits.memory_max),
        ("memory", "memory.swap.max", &limits.swap_max),
        ("pids", "pids.max", &limits.pids_max),
    ];
    for (controller, file, limit) in whole {
        if let Some(limit) = limit {
            push(controller, file, figure(limit.value), &limit.at);
        }
    }
    if let Some(quota) = &limits.cpu_max {
        push("cpu", "cpu.max", format!("{} {CPU_PERIOD_US}", figure(quota.value)), &quota.at);
    }
    for (controller, file, weight) in
        [("cpu", "cpu.weight", &limits.cpu_weight), ("io", "io.weight", &limits.io_weight)]
    {
        if let Some(weight) = weight {
            push(controller, file, weight.value.to_string(), &weight.at);
        }
    }
    if let Some(group) = &limits.oom_group {
        push("memory", "memory.oom.group", u8::from(group.value).to_string(), &group.at);
    }
    settings
}
