/*
 * unit.h - what every unit test includes: cmocka and the headers that it wants before itself.
 */
#ifndef HMM_TESTS_UNIT_H
#define HMM_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* A sanitizer maps terabytes, makes system calls and may have a thread of its own: tests of limits
 * and of system calls cannot run beside it, and are skipped. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define UNIT_IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define UNIT_IS_SANITIZED 1
#endif
#endif
#ifndef UNIT_IS_SANITIZED
#define UNIT_IS_SANITIZED 0
#endif

/* Ends a test that cannot run here. */
static inline void skip_where(bool cannot_run, const char *why)
{
    if (cannot_run) {
        print_message("# skipped: %s\n", why);
        skip();
    }
}

static inline void skip_where_sanitized(void)
{
    skip_where(UNIT_IS_SANITIZED, "a sanitizer is in the way");
}

#endif
