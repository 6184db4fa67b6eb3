/*
 * Makes as many orphans as its argument says: each is a grandchild that ends when it has lost its parent, and not before.
 */
#include "bench.h"

#define PR_SET_PDEATHSIG 1
#define SIGKILL 9

START(begin);

__attribute__((used, noreturn)) void begin(word *stack)
{
	int left = number_of((char *)stack[2]);

	while (left--) {
		long child = CALL0(__NR_fork);
		if (child < 0)
			leave(1);
		if (child == 0) {
			long parent = CALL0(__NR_getpid);
			long orphan = CALL0(__NR_fork);
			if (orphan < 0)
				leave(1);
			if (orphan > 0)
				leave(0);
			CALL2(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL);
			/* It may have ended before that. */
			while (CALL0(__NR_getppid) == parent)
				CALL0(__NR_pause);
			leave(0);
		}
		int status = 0;
		if (CALL4(__NR_wait4, child, &status, 0, 0) != child || status)
			leave(1);
	}
	leave(0);
}
