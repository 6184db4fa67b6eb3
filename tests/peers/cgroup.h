/*
 * What a floor does that knows where its services are: a cgroup for each, and a process that begins in it. With CGROUP, where
 * nothing is confined, also what a supervisor of such services cannot be without: a pipe for what each says, of which it keeps
 * one end, a descriptor of its process, and a session of its own.
 */
#ifndef CGROUP_H
#define CGROUP_H

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

/* The service's cgroup, made before its first start: its path, a directory of it, and whether it is new. */
static inline int cgroup_at(char *path, int id, int *is_new)
{
	put_number(put(path, CGROUPS "/svc-"), id);
	*is_new = CALL2(__NR_mkdir, path, 0755) == 0;
	return CALL2(__NR_open, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

#ifdef CGROUP

static int readers[MOST], processes[MOST];
static int ends[2];

INLINE void prepare(void)
{
	write_to(CGROUPS "/cgroup.subtree_control", "+cpu +io +memory +pids");
}

INLINE long make(int id)
{
	struct clone_args arguments;
	char path[128];
	int is_new, cgroup = cgroup_at(path, id, &is_new);
	long pid;

	must(cgroup, 3);
	must(CALL2(__NR_pipe2, ends, O_CLOEXEC), 4);
	if (!is_new) {
		CALL1(__NR_close, readers[id]);
		CALL1(__NR_close, processes[id]);
	}
	readers[id] = ends[0];
	memset(&arguments, 0, sizeof arguments);
	arguments.flags = CLONE_VM | CLONE_VFORK | CLONE_INTO_CGROUP | CLONE_PIDFD;
	arguments.exit_signal = SIGCHLD;
	arguments.cgroup = cgroup;
	arguments.pidfd = (word)&processes[id];
	pid = CALL2(__NR_clone3, &arguments, sizeof arguments);
	if (pid != 0) {
		CALL1(__NR_close, cgroup);
		CALL1(__NR_close, ends[1]);
	}
	return pid;
}

INLINE void confine(void)
{
	must(CALL0(__NR_setsid), 5);
	must(CALL2(__NR_dup2, ends[1], 1), 6);
	must(CALL2(__NR_dup2, ends[1], 2), 6);
}

#endif
#endif
