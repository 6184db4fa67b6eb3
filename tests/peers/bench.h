/* System calls without a C library, and what the programs of the benchmark have in common. Linux, x86_64. */
#ifndef BENCH_H
#define BENCH_H

#include <asm/unistd.h>
#include <linux/fcntl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/types.h>

typedef unsigned long word;
#define INLINE static inline __attribute__((always_inline))

static inline long call6(long number, word a, word b, word c, word d, word e, word f)
{
	long result;
	register word r10 __asm__("r10") = d;
	register word r8 __asm__("r8") = e;
	register word r9 __asm__("r9") = f;
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

#define CALL0(n) call6(n, 0, 0, 0, 0, 0, 0)
#define CALL1(n, a) call6(n, (word)(a), 0, 0, 0, 0, 0)
#define CALL2(n, a, b) call6(n, (word)(a), (word)(b), 0, 0, 0, 0)
#define CALL3(n, a, b, c) call6(n, (word)(a), (word)(b), (word)(c), 0, 0, 0)
#define CALL4(n, a, b, c, d) call6(n, (word)(a), (word)(b), (word)(c), (word)(d), 0, 0)
#define CALL5(n, a, b, c, d, e) call6(n, (word)(a), (word)(b), (word)(c), (word)(d), (word)(e), 0)

/* What each service appends to the file of stamps: `guest/stamps.rs` reads it. */
struct stamp {
	__u32 id;
	__u32 unused;
	__u64 monotonic_ns;
};

#ifndef STAMPS
#define STAMPS "/bench/run/stamps"
#endif
#define SERVICE "/bench/service"
#define SIGCHLD 17
#define EINTR 4

/* gcc calls these by itself. */
void *memset(void *to, int byte, word size)
{
	char *at = to;
	while (size--)
		*at++ = byte;
	return to;
}

static inline __attribute__((noreturn)) void leave(int status)
{
	for (;;)
		CALL1(__NR_exit_group, status);
}

static inline int number_of(const char *text)
{
	int number = 0;
	while (*text >= '0' && *text <= '9')
		number = number * 10 + *text++ - '0';
	return number;
}

/* Writes a number and a NUL; returns where the NUL is. */
static inline char *put_number(char *at, int number)
{
	char digits[12];
	int count = 0;
	do
		digits[count++] = '0' + number % 10;
	while (number /= 10);
	while (count)
		*at++ = digits[--count];
	*at = 0;
	return at;
}

static inline char *put(char *at, const char *text)
{
	while ((*at = *text++))
		at++;
	return at;
}

/* The first instructions: argc and argv lie on the stack. */
#define START(function) \
	__asm__(".globl _start\n_start:\n\txor %ebp,%ebp\n\tmov %rsp,%rdi\n\tand $-16,%rsp\n\tcall " #function "\n\thlt\n")

#endif
