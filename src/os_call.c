/*
 * os_call.c - the way into the kernel. See os_call.h.
 */
#include "os_call.h"

#include <errno.h>
#include <unistd.h>

/* What the kernel answers: the last of all numbers, so many, are errors. */
enum { ERRORS_MAX = 4095 };

/* What goes into a register is no load from memory: sanitizers put a call before each of those, in
 * which the registers that are filled already would be lost. */

#if defined __x86_64__ && defined __LP64__

static inline long call(long number, long first, long second, long third, long fourth, long fifth,
                        long sixth)
{
    register long r10 __asm__("r10") = fourth;
    register long r8 __asm__("r8") = fifth;
    register long r9 __asm__("r9") = sixth;
    long answer;
    __asm__ volatile("syscall"
                     : "=a"(answer)
                     : "a"(number), "D"(first), "S"(second), "d"(third), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return answer;
}

#elif defined __aarch64__ && defined __LP64__

static inline long call(long number, long first, long second, long third, long fourth, long fifth,
                        long sixth)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = first;
    register long x1 __asm__("x1") = second;
    register long x2 __asm__("x2") = third;
    register long x3 __asm__("x3") = fourth;
    register long x4 __asm__("x4") = fifth;
    register long x5 __asm__("x5") = sixth;
    __asm__ volatile("svc #0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
}

#elif defined __riscv && __riscv_xlen == 64

static inline long call(long number, long first, long second, long third, long fourth, long fifth,
                        long sixth)
{
    register long a7 __asm__("a7") = number;
    register long a0 __asm__("a0") = first;
    register long a1 __asm__("a1") = second;
    register long a2 __asm__("a2") = third;
    register long a3 __asm__("a3") = fourth;
    register long a4 __asm__("a4") = fifth;
    register long a5 __asm__("a5") = sixth;
    __asm__ volatile("ecall"
                     : "+r"(a0)
                     : "r"(a7), "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5)
                     : "memory");
    return a0;
}

#else

static inline long call(long number, long first, long second, long third, long fourth, long fifth,
                        long sixth)
{
    long answer = syscall(number, first, second, third, fourth, fifth, sixth);
    return answer == -1 ? -(long)errno : answer;
}

#endif

long hmm_os_call(long number, const long given[OS_CALL_WORDS])
{
    long answer = call(number, given[0], given[1], given[2], given[3], given[4], given[5]);
    if (answer < 0 && answer >= -ERRORS_MAX) {
        errno = (int)-answer;
        answer = -1;
    }
    return answer;
}
