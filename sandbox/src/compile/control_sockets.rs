//! Sockets by which a whole machine is governed. Whoever may speak there can start what no policy confines, so that a
//! sandbox with one in it is none, and binding one is refused unless the policy says that this is what it wants.

use super::{Builder, mounts::is_beneath};
use crate::diagnostic::{Diagnostic, Place};

/// Where container engines, other managers and message buses listen, and what one can do there.
const KNOWN: [(&str, &str); 18] = [
    ("/run/containerd/containerd.sock", "starts containers with any mount"),
    ("/run/cri-dockerd.sock", "starts containers with any mount"),
    ("/run/crio/crio.sock", "starts containers with any mount"),
    ("/run/dbus/system_bus_socket", "reaches every service of the system bus, systemd among them"),
    ("/run/docker.sock", "starts containers with any mount"),
    ("/run/incus/unix.socket", "starts containers with any mount"),
    ("/run/k3s/containerd/containerd.sock", "starts containers with any mount"),
    ("/run/libvirt/libvirt-sock", "starts machines with any disk"),
    ("/run/libvirt/virtqemud-sock", "starts machines with any disk"),
    ("/run/motherd/motherd.sock", "governs every service"),
    ("/run/podman/podman.sock", "starts containers with any mount"),
    ("/run/snapd.socket", "installs and governs snaps"),
    ("/run/systemd/io.systemd.Manager", "governs every unit"),
    ("/run/systemd/notify", "speaks for units of systemd's"),
    ("/run/systemd/private", "governs every unit"),
    ("/run/udev/control", "has udev execute its rules"),
    ("/var/lib/lxd/unix.socket", "starts containers with any mount"),
    ("/var/snap/lxd/common/lxd/unix.socket", "starts containers with any mount"),
];

/// Refuses a tree of the host's that is, or has in it, one of them.
pub(crate) fn refuse(from: &str, at: &Place, builder: &mut Builder<'_>) {
    // A link of every distribution since the folder moved.
    let moved = from.strip_prefix("/var/run").filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let from = moved.map_or_else(|| from.to_owned(), |rest| format!("/run{rest}"));
    // A folder has in it what this host has; a socket by its own name is one wherever the policy comes to.
    let found = KNOWN.iter().find(|(socket, _)| {
        *socket == from || is_beneath(socket, &from) && builder.host.kind(socket).is_ok()
    });
    if let Some((socket, does)) = found {
        let message = format!("whoever speaks to {socket} {does}");
        let help =
            "bind less, or that one socket with `control_socket = true`: then it is no sandbox any more";
        builder.error(Diagnostic::error("control-socket", at.clone(), message).help(help));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compile::{
            compile_on,
            described::{DescribedHost, here, kernel, policy, strict, subject, writable},
        },
        policy::Bind,
    };

    fn bind(from: &str, control_socket: bool) -> Bind {
        Bind {
            from: here(from.to_owned()),
            to: here("/run/bound".to_owned()),
            read_only: true,
            optional: false,
            nosuid: true,
            nodev: true,
            noexec: None,
            nosymfollow: false,
            control_socket,
            idmap: None,
        }
    }

    fn codes(change: impl Fn(&mut crate::policy::Confinement), host: &DescribedHost) -> Vec<&'static str> {
        let mut rules = strict();
        change(&mut rules);
        match compile_on(&policy(rules), &subject(), &kernel(7), host) {
            Ok(_) => Vec::new(),
            Err(report) => report.diagnostics.iter().map(|diagnostic| diagnostic.code).collect(),
        }
    }

    #[test]
    fn a_control_socket_is_bound_only_where_the_policy_says_so() {
        let host =
            DescribedHost::debian().with("/run/docker.sock").with("/var/run").with("/var/run/docker.sock");
        for from in ["/run/docker.sock", "/var/run/docker.sock", "/run", "/var/run"] {
            let bound =
                |control| codes(|rules| rules.filesystem.bind = vec![here(bind(from, control))], &host);
            assert_eq!(bound(false), ["control-socket"], "{from}");
            assert_eq!(bound(true), [""; 0], "{from}");
        }
        let read_write = |rules: &mut crate::policy::Confinement| {
            rules.filesystem.read_write = writable(&["/run/docker.sock"]);
        };
        assert_eq!(codes(read_write, &host), ["control-socket"]);
        let elsewhere = DescribedHost::debian().with("/srv/run/docker.sock");
        let other = |rules: &mut crate::policy::Confinement| {
            rules.filesystem.bind = vec![here(bind("/srv/run/docker.sock", false))];
        };
        assert_eq!(codes(other, &elsewhere), [""; 0], "control: another socket of that name");
        // A folder in which there is none on this host.
        let plain = |rules: &mut crate::policy::Confinement| {
            rules.filesystem.bind = vec![here(bind("/run", false))];
        };
        assert_eq!(codes(plain, &DescribedHost::debian()), [""; 0]);
    }

    #[test]
    fn the_table_is_sorted_and_absolute() {
        assert!(KNOWN.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(KNOWN.iter().all(|(socket, does)| socket.starts_with('/') && !does.is_empty()));
    }
}
