/*
 * The floor: an init of forty lines. It starts N services, reaps, and starts again at once what has ended. It has no
 * configuration, no log and no way to be asked. With CGROUP each service has a cgroup and a pipe (cgroup.h), with SANDBOX it is
 * confined (sandbox.h).
 */
#include "bench.h"

#define MOST 4096
static int pids[MOST];
static int count;

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

static __attribute__((noinline)) void start(int id)
{
	char number[12];
	char *arguments[] = { SERVICE, number, 0 };
	char *environment[] = { 0 };
	long pid;

	put_number(number, id);
	/* The child runs on this very stack while we are suspended. What it does before its execve is inlined here, and
	 * there is no red zone, so it returns through no frame and overwrites none that we still need. */
	pid = make(id);
	if (pid == 0) {
		confine();
		CALL3(__NR_execve, SERVICE, arguments, environment);
		leave(127);
	}
	pids[id] = pid;
}

__attribute__((used, noreturn)) void begin(word *stack)
{
	int id, pid;

	count = number_of((char *)stack[2]);
	prepare();
	for (id = 0; id < count; id++)
		start(id);
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
