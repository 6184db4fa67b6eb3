/*
 * The floor: an init of forty lines. It starts N services, reaps, and starts again at once what has ended. It has no
 * configuration, no log and no way to be asked. With CGROUP each service has a cgroup and a pipe (cgroup.h), with SANDBOX it is
 * confined (sandbox.h). With STANDBY each confined one has a process beside it that needs but execve(2) to be the next one.
 */
#include "bench.h"

#define MOST 4096
static int pids[MOST];
static int count;
#ifdef STANDBY
/* Who waits, and what it reads from. */
static int waiting[MOST], gates[MOST];
#endif

#ifdef STANDBY
#define SANDBOX
#endif
#if defined SANDBOX
#include "sandbox.h"
#elif defined CGROUP
#include "cgroup.h"
#else
INLINE void prepare(void) {}
INLINE void confine(void) {}
INLINE long make(int id)
{
	(void)id;
	return CALL5(__NR_clone, CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, 0, 0);
}
#endif

START(begin);

static __attribute__((noinline)) long begun(int id)
{
	char number[12];
	char *arguments[] = { SERVICE, number, 0 };
	char *environment[] = { 0 };
	long pid;
#ifdef STANDBY
	int ends[2];

	must(CALL2(__NR_pipe2, ends, O_CLOEXEC), 40);
	gates[id] = ends[1];
#endif

	put_number(number, id);
	/* The child runs on this very stack while we are suspended. What it does before its execve is inlined here, and
	 * there is no red zone, so it returns through no frame and overwrites none that we still need. */
	pid = make(id);
	if (pid == 0) {
		confine();
#ifdef STANDBY
		must(CALL3(__NR_read, ends[0], number + sizeof number - 1, 1), 41);
#endif
		CALL3(__NR_execve, SERVICE, arguments, environment);
		leave(127);
	}
#ifdef STANDBY
	CALL1(__NR_close, ends[0]);
#endif
	return pid;
}

static void start(int id)
{
#ifdef STANDBY
	pids[id] = waiting[id] ? waiting[id] : begun(id);
	waiting[id] = 0;
	must(CALL3(__NR_write, gates[id], "", 1), 42);
	CALL1(__NR_close, gates[id]);
#else
	pids[id] = begun(id);
#endif
}

__attribute__((used, noreturn)) void begin(word *stack)
{
	int id, pid;

	count = number_of((char *)stack[2]);
	prepare();
	for (id = 0; id < count; id++)
		start(id);
#ifdef STANDBY
	/* Once: each service is measured once. */
	for (id = 0; id < count; id++)
		waiting[id] = begun(id);
#endif
	for (;;) {
		pid = CALL4(__NR_wait4, -1, 0, 0, 0);
		for (id = 0; pid > 0 && id < count; id++)
			if (pids[id] == pid) {
				start(id);
				break;
			}
		if (pid < 0 && pid != -EINTR)
			CALL0(__NR_pause);
	}
}
