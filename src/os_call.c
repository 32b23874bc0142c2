/*
 * os_call.c - the way into the kernel. See os_call.h.
 */
#include "os_call.h"

#include <errno.h>
#include <unistd.h>

/* What the kernel answers: the last of all numbers, so many, are errors. */
enum { ERRORS_MAX = 4095 };

#if defined __x86_64__ && defined __LP64__

static inline long call(long number, const long given[OS_CALL_WORDS])
{
    register long fourth __asm__("r10") = given[3];
    register long fifth __asm__("r8") = given[4];
    register long sixth __asm__("r9") = given[5];
    long answer;
    __asm__ volatile("syscall"
                     : "=a"(answer)
                     : "a"(number), "D"(given[0]), "S"(given[1]), "d"(given[2]), "r"(fourth),
                       "r"(fifth), "r"(sixth)
                     : "rcx", "r11", "memory");
    return answer;
}

#elif defined __aarch64__ && defined __LP64__

static inline long call(long number, const long given[OS_CALL_WORDS])
{
    register long which __asm__("x8") = number;
    register long answer __asm__("x0") = given[0];
    register long second __asm__("x1") = given[1];
    register long third __asm__("x2") = given[2];
    register long fourth __asm__("x3") = given[3];
    register long fifth __asm__("x4") = given[4];
    register long sixth __asm__("x5") = given[5];
    __asm__ volatile("svc #0"
                     : "+r"(answer)
                     : "r"(which), "r"(second), "r"(third), "r"(fourth), "r"(fifth), "r"(sixth)
                     : "memory");
    return answer;
}

#elif defined __riscv && __riscv_xlen == 64

static inline long call(long number, const long given[OS_CALL_WORDS])
{
    register long which __asm__("a7") = number;
    register long answer __asm__("a0") = given[0];
    register long second __asm__("a1") = given[1];
    register long third __asm__("a2") = given[2];
    register long fourth __asm__("a3") = given[3];
    register long fifth __asm__("a4") = given[4];
    register long sixth __asm__("a5") = given[5];
    __asm__ volatile("ecall"
                     : "+r"(answer)
                     : "r"(which), "r"(second), "r"(third), "r"(fourth), "r"(fifth), "r"(sixth)
                     : "memory");
    return answer;
}

#else

static inline long call(long number, const long given[OS_CALL_WORDS])
{
    long answer = syscall(number, given[0], given[1], given[2], given[3], given[4], given[5]);
    return answer == -1 ? -(long)errno : answer;
}

#endif

long hmm_os_call(long number, const long given[OS_CALL_WORDS])
{
    long answer = call(number, given);
    if (answer < 0 && answer >= -ERRORS_MAX) {
        errno = (int)-answer;
        answer = -1;
    }
    return answer;
}
