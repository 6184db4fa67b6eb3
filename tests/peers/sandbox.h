/*
 * What the floor does for a confined service, in the order in which it has to be: a cgroup of its own with limits for
 * memory and processes; mount, network, IPC, UTS and pid namespaces; everything read-only but the file of stamps; its
 * own /proc, /tmp and /dev; no capability; no_new_privs; a filter. It checks that each step succeeds and tells no more.
 */
#ifndef SANDBOX_H
#define SANDBOX_H

#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#define PR_SET_NO_NEW_PRIVS 38
#define PR_CAPBSET_DROP 24
#define AT_RECURSIVE 0x8000
#define CGROUPS "/sys/fs/cgroup"

static inline void must(long result, int step)
{
	if (result < 0)
		leave(100 + step);
}

static inline void write_to(const char *path, const char *text)
{
	word size = 0;
	long fd = CALL2(__NR_open, path, O_WRONLY | O_CLOEXEC);

	while (text[size])
		size++;
	must(fd, 1);
	must(CALL3(__NR_write, fd, text, size), 2);
	CALL1(__NR_close, fd);
}

static inline void prepare(void)
{
	write_to(CGROUPS "/cgroup.subtree_control", "+memory +pids");
}

/* The service's cgroup with its limits, made before its first start; a directory of it. */
static inline int cgroup_of(int id)
{
	char path[128], file[160];
	long made;

	put_number(put(path, CGROUPS "/svc-"), id);
	made = CALL2(__NR_mkdir, path, 0755);
	if (made == 0) {
		put(put(file, path), "/memory.max");
		write_to(file, "536870912");
		put(put(file, path), "/pids.max");
		write_to(file, "64");
	}
	return CALL2(__NR_open, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

INLINE long make(int id)
{
	struct clone_args arguments;
	int cgroup = cgroup_of(id);
	long pid;

	must(cgroup, 3);
	memset(&arguments, 0, sizeof arguments);
	arguments.flags = CLONE_VM | CLONE_VFORK | CLONE_INTO_CGROUP | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC |
			  CLONE_NEWUTS | CLONE_NEWPID;
	arguments.exit_signal = SIGCHLD;
	arguments.cgroup = cgroup;
	pid = CALL2(__NR_clone3, &arguments, sizeof arguments);
	if (pid != 0)
		CALL1(__NR_close, cgroup);
	return pid;
}

#define REFUSE(number) \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 1)

static struct sock_filter filter[] = {
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 4),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
	BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	REFUSE(__NR_mount), REFUSE(__NR_umount2), REFUSE(__NR_pivot_root), REFUSE(__NR_chroot),
	REFUSE(__NR_open_tree), REFUSE(__NR_move_mount), REFUSE(__NR_fsopen), REFUSE(__NR_mount_setattr),
	REFUSE(__NR_setns), REFUSE(__NR_unshare), REFUSE(__NR_ptrace), REFUSE(__NR_bpf),
	REFUSE(__NR_perf_event_open), REFUSE(__NR_kexec_load), REFUSE(__NR_kexec_file_load), REFUSE(__NR_reboot),
	REFUSE(__NR_init_module), REFUSE(__NR_finit_module), REFUSE(__NR_delete_module), REFUSE(__NR_swapon),
	REFUSE(__NR_swapoff), REFUSE(__NR_settimeofday), REFUSE(__NR_clock_settime), REFUSE(__NR_io_uring_setup),
	REFUSE(__NR_add_key), REFUSE(__NR_keyctl), REFUSE(__NR_request_key), REFUSE(__NR_userfaultfd),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};

static const struct { const char *path; int minor; } devices[] = {
	{ "/dev/null", 3 }, { "/dev/zero", 5 }, { "/dev/full", 7 }, { "/dev/random", 8 }, { "/dev/urandom", 9 },
};

INLINE void confine(void)
{
	struct mount_attr read_only = { .attr_set = MOUNT_ATTR_RDONLY };
	struct mount_attr writable = { .attr_clr = MOUNT_ATTR_RDONLY };
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct none[2] = { { 0, 0, 0 }, { 0, 0, 0 } };
	struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
	word device, capability;

	must(CALL5(__NR_mount, 0, "/", 0, MS_REC | MS_PRIVATE, 0), 10);
	must(CALL5(__NR_mount_setattr, -1, "/", AT_RECURSIVE, &read_only, sizeof read_only), 11);
	must(CALL5(__NR_mount_setattr, -1, "/bench/run", 0, &writable, sizeof writable), 12);
	must(CALL5(__NR_mount, "proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0), 13);
	must(CALL5(__NR_mount, "tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"), 14);
	must(CALL5(__NR_mount, "tmpfs", "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755"), 15);
	for (device = 0; device < sizeof devices / sizeof *devices; device++)
		must(CALL3(__NR_mknod, devices[device].path, 0020666, 1 << 8 | devices[device].minor), 16);
	for (capability = 0; CALL2(__NR_prctl, PR_CAPBSET_DROP, capability) == 0; capability++)
		;
	must(CALL2(__NR_capset, &header, none), 17);
	must(CALL5(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 18);
	must(CALL3(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program), 19);
}

#endif
