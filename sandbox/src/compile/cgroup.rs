//! `[cgroup]`: which files get which values, and which controllers carry the figures.

use crate::{
    compile::{Builder, scheduling::Ranges},
    diagnostic::{Diagnostic, Located, Place},
    kernel::Kernel,
    plan::CgroupSetting,
    policy::{CgroupLimits, Device, DeviceKind, IndexRange, Limit},
};

/// The controllers that carry the figures of `status`. Others are enabled where a limit needs them and nowhere else.
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
    for setting in wanted(limits, builder) {
        if builder.kernel.controllers.contains(setting.controller) {
            if !settings.controllers.iter().any(|name| name == setting.controller) {
                settings.controllers.push(setting.controller.to_owned());
            }
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
        None if kernel.ordinary_user.is_some() => {
            format!("the {controller} controller is not available: an ordinary user has no cgroup to give")
        }
        None => format!("the {controller} controller is not available: no cgroup2 tree is mounted"),
    }
}

fn wanted(limits: &CgroupLimits, builder: &mut Builder<'_>) -> Vec<CgroupSetting> {
    let mut settings = Vec::new();
    let mut push = |controller, file: &str, value: String, at: &Place| {
        settings.push(CgroupSetting { controller, file: file.to_owned(), value, at: at.clone() });
    };
    let whole = [
        ("memory", "memory.high", &limits.memory_high),
        ("memory", "memory.max", &limits.memory_max),
        ("memory", "memory.swap.max", &limits.swap_max),
        ("memory", "memory.min", &limits.memory_min),
        ("memory", "memory.low", &limits.memory_low),
        ("memory", "memory.swap.high", &limits.swap_high),
        ("memory", "memory.zswap.max", &limits.memory_zswap_max),
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
    if let Some(burst) = &limits.cpu_burst {
        push("cpu", "cpu.max.burst", (burst.value / 1_000).to_string(), &burst.at);
    }
    let idle = limits.cpu_idle.as_ref().is_some_and(|idle| idle.value);
    // An idle cgroup has no weight: the kernel refuses one (`cpu_weight_write_u64`).
    let cpu_weight = if idle { &None } else { &limits.cpu_weight };
    for (controller, file, weight) in
        [("cpu", "cpu.weight", cpu_weight), ("io", "io.weight", &limits.io_weight)]
    {
        if let Some(weight) = weight {
            push(controller, file, weight.value.to_string(), &weight.at);
        }
    }
    for (controller, file, switch) in [
        ("cpu", "cpu.idle", &limits.cpu_idle),
        ("memory", "memory.oom.group", &limits.oom_group),
        ("memory", "memory.zswap.writeback", &limits.memory_zswap_writeback),
    ] {
        if let Some(switch) = switch {
            push(controller, file, u8::from(switch.value).to_string(), &switch.at);
        }
    }
    for (file, ranges) in [("cpuset.cpus", &limits.cpuset_cpus), ("cpuset.mems", &limits.cpuset_mems)] {
        if let Some((ranges, first)) = ranges.as_ref().and_then(|ranges| Some((ranges, ranges.first()?))) {
            let numbers = ranges.iter().flat_map(|range| range.value.first..=range.value.last);
            push("cpuset", file, Ranges::of(numbers).to_string(), &first.at);
        }
    }
    for limit in &limits.io_max {
        let listed = listed(&limit.value.limits);
        push(
            "io",
            "io.max",
            format!("{} {listed}", device(&limit.value.device, &limit.at, builder)),
            &limit.at,
        );
    }
    for limit in &limits.io_latency {
        let device = device(&limit.value.device, &limit.at, builder);
        push("io", "io.latency", format!("{device} target={}", limit.value.target / 1_000), &limit.at);
    }
    for limit in &limits.hugetlb {
        let size = &limit.value.name;
        if !builder.kernel.huge_pages.contains(size) && builder.kernel.controllers.contains("hugetlb") {
            let sizes: Vec<&str> = builder.kernel.huge_pages.iter().map(String::as_str).collect();
            builder.error(
                Diagnostic::error(
                    "no-huge-pages",
                    limit.at.clone(),
                    format!("this kernel has no pages of {size}"),
                )
                .help(format!("it has: {}", sizes.join(", "))),
            );
        }
        push("hugetlb", &format!("hugetlb.{size}.max"), figure(limit.value.limit), &limit.at);
    }
    for limit in &limits.rdma {
        let value = format!("{} {}", limit.value.device, listed(&limit.value.limits));
        push("rdma", "rdma.max", value, &limit.at);
    }
    for limit in &limits.misc {
        push("misc", "misc.max", format!("{} {}", limit.value.name, figure(limit.value.limit)), &limit.at);
    }
    check_set(&limits.cpuset_cpus, "processor", &builder.kernel.processors.clone(), builder);
    check_set(&limits.cpuset_mems, "memory node", &builder.kernel.memory_nodes.clone(), builder);
    settings
}

fn figure(limit: Limit) -> String {
    match limit {
        Limit::Max => "max".to_owned(),
        Limit::Value(value) => value.to_string(),
    }
}

/// `rbps=1048576 wiops=max`.
fn listed(limits: &[(&'static str, Limit)]) -> String {
    let limits: Vec<String> =
        limits.iter().map(|(name, limit)| format!("{name}={}", figure(*limit))).collect();
    limits.join(" ")
}

/// `254:0`
fn device(device: &Device, at: &Place, builder: &mut Builder<'_>) -> String {
    let path = match device {
        Device::Numbers(major, minor) => return format!("{major}:{minor}"),
        Device::Path(path) => path,
    };
    let why = match builder.host.device(path) {
        Ok(Some((DeviceKind::Block, major, minor))) => return format!("{major}:{minor}"),
        Ok(_) => format!("{path} is no block device"),
        Err(error) => format!("{path}: {error}"),
    };
    builder
        .error(Diagnostic::error("no-device", at.clone(), why).help("name a whole disk, or its major:minor"));
    String::new()
}

/// The kernel takes any number into a cpuset, and leaves a set of which it has nothing out of account.
fn check_set(
    ranges: &Option<Vec<Located<IndexRange>>>,
    what: &str,
    there: &std::collections::BTreeSet<u32>,
    builder: &mut Builder<'_>,
) {
    for range in ranges.iter().flatten() {
        let missing = (range.value.first..=range.value.last).find(|number| !there.contains(number));
        if let Some(missing) = missing {
            let code = if what == "processor" { "no-processor" } else { "no-memory-node" };
            let there = Ranges::of(there.iter().copied());
            builder.error(
                Diagnostic::error(code, range.at.clone(), format!("{what} {missing} is not there"))
                    .help(format!("there: {there}")),
            );
        }
    }
}
