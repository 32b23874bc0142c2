/*
 * os_call.h - the way into the kernel, for those few files that go there.
 *
 * Not by a call's name in the C library, nor by syscall(): others may put their own in the place of
 * these, which allocate, or wait for a lock that the caller of malloc holds; and each name that a
 * small process calls may bring it 64 KiB of the C library's text.
 */
#ifndef HMM_OS_CALL_H
#define HMM_OS_CALL_H

#include "base.h"

#include <sys/syscall.h>

enum { OS_CALL_WORDS = 6 }; /* the most that a call is given */

/* As syscall(): what the call returns, or -1 with errno. Where we do not know the machine's own
 * way, by syscall(). */
HMM_HIDDEN long hmm_os_call(long number, const long given[OS_CALL_WORDS]);

/* With the call's number, and one number at least that it is given. */
#define OS_CALL(number, ...) hmm_os_call(number, (const long[OS_CALL_WORDS]){__VA_ARGS__})

#endif
