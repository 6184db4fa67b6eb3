/*
 * A service: says when its first instruction ran, and waits for its end.
 *
 * Its number is what its first argument ends in; for supervisors that give none, what its folder's name does. A second
 * argument is where it says it.
 */
#include "bench.h"

START(begin);

/* The digits at the end of a text. */
static int last_number(const char *text)
{
	const char *digits = text;

	for (; *text; text++)
		if (*text < '0' || *text > '9')
			digits = text + 1;
	return number_of(digits);
}

static int own_number(word *stack)
{
	char folder[256];

	if (stack[0] > 1)
		return last_number((char *)stack[2]);
	return CALL2(__NR_getcwd, folder, sizeof folder) > 0 ? last_number(folder) : 0;
}

__attribute__((used, noreturn)) void begin(word *stack)
{
	__u64 time[2];
	struct stamp stamp;
	long fd;

	CALL2(__NR_clock_gettime, 1 /* CLOCK_MONOTONIC */, time);
	stamp.id = own_number(stack);
	stamp.unused = 0;
	stamp.monotonic_ns = time[0] * 1000000000ul + time[1];
	fd = CALL2(__NR_open, stack[0] > 2 ? (char *)stack[3] : STAMPS, O_WRONLY | O_APPEND | O_CLOEXEC);
	if (fd < 0)
		leave(-fd);
	if (CALL3(__NR_write, fd, &stamp, sizeof stamp) != sizeof stamp)
		leave(255);
	CALL1(__NR_close, fd);
	for (;;)
		CALL0(__NR_pause);
}
