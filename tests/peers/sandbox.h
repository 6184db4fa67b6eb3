/*
 * What the floor does for a confined service: what policies/base/default.toml gives it, each thing in the fewest calls that
 * take it there. A cgroup of its own with limits and a program for devices; mount, network, IPC, UTS, pid and cgroup
 * namespaces, loopback up; everything read-only but the file of stamps; its own /proc, /sys, /tmp, /run and /dev; limits; a
 * user of its own; no capability; no_new_privs; Landlock; a filter. It checks that each step succeeds and tells no more.
 */
#ifndef SANDBOX_H
#define SANDBOX_H

#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include "cgroup.h"
#include "filter.h"

#define PR_SET_NO_NEW_PRIVS 38
#define PR_CAPBSET_DROP 24
#define PR_SET_SECUREBITS 28
/* noroot, and all of them locked but what is not set; no ambient capability. */
#define SECUREBITS 235
#define AT_RECURSIVE 0x8000
#define ENOENT 2
#define UID 61000

/* Reading, writing and making the devices of a small /dev, as the device controller asks (BPF_PROG_TYPE_CGROUP_DEVICE). */
#define INSN(op, to, from, skip, value) \
	{ .code = op, .dst_reg = to, .src_reg = from, .off = skip, .imm = value }
#define IS(reg, value, skip) INSN(BPF_JMP | BPF_JEQ | BPF_K, reg, 0, skip, value)

static struct bpf_insn device_program[] = {
	INSN(BPF_LDX | BPF_W | BPF_MEM, BPF_REG_4, BPF_REG_1, 4, 0),	/* major */
	INSN(BPF_LDX | BPF_W | BPF_MEM, BPF_REG_5, BPF_REG_1, 8, 0),	/* minor */
	IS(BPF_REG_4, 1, 3), IS(BPF_REG_4, 5, 8), IS(BPF_REG_4, 136, 9),
	INSN(BPF_JMP | BPF_JA, 0, 0, 10, 0),
	IS(BPF_REG_5, 3, 7), IS(BPF_REG_5, 5, 6), IS(BPF_REG_5, 7, 5), IS(BPF_REG_5, 8, 4), IS(BPF_REG_5, 9, 3),
	INSN(BPF_JMP | BPF_JA, 0, 0, 4, 0),
	IS(BPF_REG_5, 0, 1),
	INSN(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_5, 0, 2, 2),
	INSN(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 1),
	INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	INSN(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 0),
	INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
};

static int devices_fd;

static inline void prepare(void)
{
	union bpf_attr load;

	memset(&load, 0, sizeof load);
	load.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
	load.insn_cnt = sizeof device_program / sizeof *device_program;
	load.insns = (word)device_program;
	load.license = (word) "GPL";
	devices_fd = CALL3(__NR_bpf, BPF_PROG_LOAD, &load, sizeof load);
	must(devices_fd, 4);
	write_to(CGROUPS "/cgroup.subtree_control", "+cpu +memory +pids");
}

static const struct { const char *file, *value; } limits[] = {
	{ "/cpu.weight", "100" }, { "/memory.high", "268435456" }, { "/memory.max", "536870912" },
	{ "/memory.swap.max", "0" }, { "/memory.oom.group", "1" }, { "/pids.max", "64" },
};

/* The service's cgroup with its limits. */
static inline int cgroup_of(int id)
{
	char path[128], file[160];
	union bpf_attr attach;
	word limit;
	int is_new, fd = cgroup_at(path, id, &is_new);

	if (is_new && fd >= 0) {
		for (limit = 0; limit < sizeof limits / sizeof *limits; limit++) {
			put(put(file, path), limits[limit].file);
			write_to(file, limits[limit].value);
		}
		memset(&attach, 0, sizeof attach);
		attach.target_fd = fd;
		attach.attach_bpf_fd = devices_fd;
		attach.attach_type = BPF_CGROUP_DEVICE;
		attach.attach_flags = BPF_F_ALLOW_MULTI;
		must(CALL3(__NR_bpf, BPF_PROG_ATTACH, &attach, sizeof attach), 5);
	}
	return fd;
}

/* Who waits has memory of its own. */
#ifdef STANDBY
#define BORROWS 0ul
#else
#define BORROWS (CLONE_VM | CLONE_VFORK)
#endif

static int service;

INLINE long make(int id)
{
	struct clone_args arguments;
	int cgroup = cgroup_of(id);
	long pid;

	must(cgroup, 3);
	service = id;
	memset(&arguments, 0, sizeof arguments);
	arguments.flags = BORROWS | CLONE_INTO_CGROUP | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
			  CLONE_NEWPID;
	arguments.exit_signal = SIGCHLD;
	arguments.cgroup = cgroup;
	pid = CALL2(__NR_clone3, &arguments, sizeof arguments);
	if (pid != 0)
		CALL1(__NR_close, cgroup);
	return pid;
}

static const struct { const char *path; int major, minor; } devices[] = {
	{ "/dev/null", 1, 3 }, { "/dev/zero", 1, 5 }, { "/dev/full", 1, 7 }, { "/dev/random", 1, 8 },
	{ "/dev/urandom", 1, 9 }, { "/dev/tty", 5, 0 },
};

static const struct { const char *path, *target; } links[] = {
	{ "/dev/fd", "/proc/self/fd" }, { "/dev/stdin", "/proc/self/fd/0" }, { "/dev/stdout", "/proc/self/fd/1" },
	{ "/dev/stderr", "/proc/self/fd/2" }, { "/dev/ptmx", "pts/ptmx" },
};

static const struct { const char *kind, *path; word flags; const char *options; } mounts[] = {
	{ "proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=ptraceable,subset=pid" },
	{ "sysfs", "/sys", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, 0 },
	{ "cgroup2", CGROUPS, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, 0 },
	{ "tmpfs", "/run", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=16M,mode=0755" },
	{ "tmpfs", "/tmp", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=64M,mode=1777" },
	{ "tmpfs", "/dev", MS_NOSUID | MS_NOEXEC, "size=64k,mode=0755" },
};

/* What is hidden where it is there. */
static const char *const hidden[] = { "/boot", "/home", "/root" };

/* Rights of Landlock by their bits (landlock(7)): the header of the machine may know fewer than its kernel. */
#define READ 0xcul
#define EXECUTE (READ | 1)
#define WRITE 0xf7beul
#define WRITE_FILE 0xc006ul
#define ALL 0xfffful

static const struct { const char *path; word rights; } rules[] = {
	{ "/usr", EXECUTE }, { "/etc", READ }, { "/proc", READ }, { "/dev", READ }, { "/lib", EXECUTE },
	{ "/lib64", EXECUTE }, { "/bin", EXECUTE }, { "/sbin", EXECUTE }, { "/bench", EXECUTE }, { "/tmp", WRITE },
	{ "/run", WRITE }, { "/dev/null", WRITE_FILE }, { "/bench/run", WRITE },
};

INLINE void own_files(void)
{
	struct mount_attr read_only = { .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV };
	struct mount_attr writable = { .attr_set = MOUNT_ATTR_NOEXEC, .attr_clr = MOUNT_ATTR_RDONLY };
	struct mount_attr closed = { .attr_set = MOUNT_ATTR_RDONLY };
	long made;
	word at;

	must(CALL5(__NR_mount, 0, "/", 0, MS_REC | MS_PRIVATE, 0), 10);
	must(CALL5(__NR_mount_setattr, -1, "/", AT_RECURSIVE, &read_only, sizeof read_only), 11);
	must(CALL5(__NR_mount_setattr, -1, "/bench/run", 0, &writable, sizeof writable), 12);
	for (at = 0; at < sizeof mounts / sizeof *mounts; at++)
		must(CALL5(__NR_mount, mounts[at].kind, mounts[at].path, mounts[at].kind, mounts[at].flags,
			   mounts[at].options), 13);
	for (at = 0; at < sizeof hidden / sizeof *hidden; at++) {
		made = CALL5(__NR_mount, "tmpfs", hidden[at], "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
			     "size=4k,nr_inodes=2,mode=0");
		must(made == -ENOENT ? 0 : made, 14);
	}
	for (at = 0; at < sizeof devices / sizeof *devices; at++)
		must(CALL3(__NR_mknod, devices[at].path, 0020666, devices[at].major << 8 | devices[at].minor), 15);
	for (at = 0; at < sizeof links / sizeof *links; at++)
		must(CALL2(__NR_symlink, links[at].target, links[at].path), 16);
	must(CALL2(__NR_mkdir, "/dev/pts", 0755), 17);
	must(CALL2(__NR_mkdir, "/dev/shm", 0755), 17);
	must(CALL5(__NR_mount, "devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
		   "newinstance,ptmxmode=0666,mode=0620"), 18);
	must(CALL5(__NR_mount, "tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=64M,mode=1777"),
	     19);
	must(CALL5(__NR_mount_setattr, -1, "/dev", 0, &closed, sizeof closed), 20);
}

/* What may be reached of them; to be restricted by it comes last. */
INLINE long own_rules(void)
{
	__u64 handled[3] = { ALL, 3 /* TCP: bind, connect */, 3 /* abstract sockets, signals */ };
	struct { __u64 rights; __s32 fd; } __attribute__((packed)) rule;
	long ruleset = CALL3(__NR_landlock_create_ruleset, handled, sizeof handled, 0);
	word at;

	must(ruleset, 21);
	for (at = 0; at < sizeof rules / sizeof *rules; at++) {
		rule.rights = rules[at].rights;
		rule.fd = CALL2(__NR_open, rules[at].path, O_PATH | O_CLOEXEC);
		if (rule.fd == -ENOENT)
			continue;
		must(rule.fd, 22);
		must(CALL4(__NR_landlock_add_rule, ruleset, 1, &rule, 0), 23);
		CALL1(__NR_close, rule.fd);
	}
	return ruleset;
}

INLINE void loopback(void)
{
	struct { char name[16]; short flags; char rest[22]; } lo = { "lo", 0x41 /* up, running */, "" };
	long fd = CALL3(__NR_socket, 2 /* AF_INET */, 2 /* SOCK_DGRAM */, 0);

	must(fd, 24);
	must(CALL3(__NR_ioctl, fd, 0x8914 /* SIOCSIFFLAGS */, &lo), 25);
	CALL1(__NR_close, fd);
}

/* A frame of its own, below that of who is suspended. */
static __attribute__((noinline)) void confine(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct none[2] = { { 0, 0, 0 }, { 0, 0, 0 } };
	struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
	word no_core[2] = { 1, 1 }, files[2] = { 1024, 4096 };
	word capability, uid = UID + service;
	long ruleset;

	must(CALL0(__NR_setsid), 26);
	must(CALL4(__NR_prlimit64, 0, 4 /* RLIMIT_CORE */, no_core, 0), 27);
	must(CALL4(__NR_prlimit64, 0, 7 /* RLIMIT_NOFILE */, files, 0), 27);
	must(CALL1(__NR_unshare, CLONE_NEWCGROUP), 28);
	loopback();
	CALL1(__NR_umask, 0);
	own_files();
	CALL1(__NR_umask, 0077);
	ruleset = own_rules();
	for (capability = 0; CALL2(__NR_prctl, PR_CAPBSET_DROP, capability) == 0; capability++)
		;
	must(CALL2(__NR_prctl, PR_SET_SECUREBITS, SECUREBITS), 29);
	must(CALL2(__NR_setgroups, 0, 0), 30);
	must(CALL3(__NR_setresgid, uid, uid, uid), 30);
	must(CALL3(__NR_setresuid, uid, uid, uid), 30);
	must(CALL2(__NR_capset, &header, none), 31);
	must(CALL2(__NR_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, 0), 32);
	must(CALL5(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 33);
	must(CALL2(__NR_landlock_restrict_self, ruleset, 0), 34);
	CALL1(__NR_close, ruleset);
	must(CALL3(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_LOG, &program), 35);
}

#endif
