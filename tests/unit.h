/*
 * unit.h - what every unit test includes: cmocka and the headers that it wants before itself.
 */
#ifndef HMM_TESTS_UNIT_H
#define HMM_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* A sanitizer maps terabytes, makes system calls and may have a thread of its own: tests of limits
 * and of system calls cannot run beside it, and return at once. */
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

#endif
