/*
 * libc.h - what C libraries differ in, glibc of any age and musl, and compilers.
 */
#ifndef HMM_LIBC_H
#define HMM_LIBC_H

#include "base.h"

#include <limits.h> /* says which one it is */

#ifdef __GLIBC__
#include <gnu/libc-version.h>
#endif

#if defined(__GLIBC__) && __has_include(<sys/single_threaded.h>)

#include <sys/single_threaded.h>

/* From glibc 2.32 on. */
static inline bool process_has_one_thread(void)
{
    return __libc_single_threaded;
}

#else

/* Nobody would say when that ends, so that what threads need is always done. */
static inline bool process_has_one_thread(void)
{
    return false;
}

#endif

/* What tells threads apart. */
static inline uintptr_t thread_pointer(void)
{
    /* Where compilers have no builtin: before gcc 11, and before 14. */
#if defined(__x86_64__) && !defined(__clang__) && __GNUC__ < 11
    uintptr_t self;
    __asm__("mov %%fs:0, %0" : "=r"(self));
    return self;
#elif defined(__powerpc64__) && !defined(__clang__)
    uintptr_t self;
    __asm__("mr %0, 13" : "=r"(self));
    return self;
#else
    return (uintptr_t)__builtin_thread_pointer();
#endif
}

/* glibc's list of streams has a recursive lock, and its fork() takes it after all handlers. It is
 * held where streams are flushed, and so while a stream is waited for whose reader allocates.
 * Static programs without streams have none. */
#ifdef __GLIBC__

__attribute__((weak)) void _IO_list_lock(void);
__attribute__((weak)) void _IO_list_unlock(void);
__attribute__((weak)) void _IO_list_resetlock(void);

static inline void libc_lock_streams(void)
{
    if (_IO_list_lock != NULL) {
        _IO_list_lock();
    }
}

static inline void libc_unlock_streams(void)
{
    if (_IO_list_unlock != NULL) {
        _IO_list_unlock();
    }
}

/* In a forked child. */
static inline void libc_reset_streams(void)
{
    if (_IO_list_resetlock != NULL) {
        _IO_list_resetlock();
    }
}

#else

static inline void libc_lock_streams(void)
{
}

static inline void libc_unlock_streams(void)
{
}

static inline void libc_reset_streams(void)
{
}

#endif

/* Whether a thread that is past all that it calls at its end can be told from others:
 * hmm_os_thread_is_gone. In musl such a thread frees nothing. */
#ifdef __GLIBC__

static inline bool libc_shows_who_is_gone(void)
{
    return strverscmp(gnu_get_libc_version(), "2.35") >= 0;
}

#else

static inline bool libc_shows_who_is_gone(void)
{
    return true;
}

#endif

/* Constructors are called with the arguments and the environment of main. */
#ifdef __GLIBC__
enum { LIBC_TELLS_CONSTRUCTORS = true };
#else
enum { LIBC_TELLS_CONSTRUCTORS = false };
#endif

#endif
