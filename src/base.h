/*
 * base.h - the words that every room uses: attributes, bits, checked sizes, alignment.
 *
 * It knows the language and nothing else, so it also builds freestanding. Compilers and targets
 * differ here, in whole definitions, and nowhere above.
 */
#ifndef HMM_BASE_H
#define HMM_BASE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Without an operating system there is no errno, no thread and no standard error. */
#ifndef HMM_FREESTANDING
#define HMM_FREESTANDING (!__STDC_HOSTED__)
#endif

/* Whether this is libhmm-secure.so, whose every block is guarded. */
#ifndef HMM_SECURE
#define HMM_SECURE 0
#endif

#ifndef static_assert
#define static_assert _Static_assert
#endif

#define HMM_HIDDEN   __attribute__((visibility("hidden")))
#define HMM_NORETURN __attribute__((noreturn, cold, noinline))
#define HMM_INLINE   inline __attribute__((always_inline))
#define HMM_NOINLINE __attribute__((noinline))
#define HMM_COLD     __attribute__((cold, noinline))
#define HMM_MUST_USE __attribute__((warn_unused_result))

/* Reads what other threads write without a lock, and says so: the answer is a moment's opinion. */
#define HMM_RACY __attribute__((no_sanitize("thread")))

/* A second name for a function of this file, with all that is known of the first. */
#if defined(__has_attribute) && __has_attribute(copy)
#define HMM_ALIAS_OF(name) __attribute__((alias(#name), copy(name)))
#else
#define HMM_ALIAS_OF(name) __attribute__((alias(#name)))
#endif

#define LIKELY(condition)   __builtin_expect(!!(condition), 1)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

#if HMM_FREESTANDING
void *memcpy(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);
static inline void hmm_set_errno(int code)
{
    (void)code;
}
enum { EINVAL = 22, ENOMEM = 12 };
#else
#include <errno.h>
#include <string.h>
static inline void hmm_set_errno(int code)
{
    errno = code;
}
#endif

/* The largest object that C allows: differences of pointers into it must fit in ptrdiff_t. */
#define OBJECT_BYTES_MAX ((size_t)PTRDIFF_MAX)

static inline bool is_power_of_two(size_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

static inline uintptr_t align_down(uintptr_t value, size_t alignment)
{
    return value & ~((uintptr_t)alignment - 1);
}

/* Wraps to 0 where the next multiple is past the end of the address space: see can_align_up. */
static inline uintptr_t align_up(uintptr_t value, size_t alignment)
{
    return align_down(value + (alignment - 1), alignment);
}

static inline bool can_align_up(uintptr_t value, size_t alignment)
{
    return value <= UINTPTR_MAX - (alignment - 1);
}

static inline bool is_aligned(uintptr_t value, size_t alignment)
{
    return (value & (alignment - 1)) == 0;
}

static_assert(sizeof(size_t) * CHAR_BIT == 32 || sizeof(size_t) * CHAR_BIT == 64,
              "made for addresses of 32 or 64 bits");

/* The index of the highest bit of a value that is not 0. */
static inline unsigned bit_highest(size_t value)
{
    int above_count = sizeof value == sizeof(long) ? __builtin_clzl((unsigned long)value)
                                                   : __builtin_clzll(value);
    return (unsigned)(sizeof value * CHAR_BIT - 1) - (unsigned)above_count;
}

/* The index of the lowest bit of a value that is not 0. */
static inline unsigned bit_lowest(size_t value)
{
    return (unsigned)(sizeof value == sizeof(long) ? __builtin_ctzl((unsigned long)value)
                                                   : __builtin_ctzll(value));
}

static inline uint64_t rotate_left(uint64_t value, unsigned shift)
{
    return value << shift | value >> (64 - shift);
}

/* The next number of Knuth's MMIX generator: its high bits are good enough to make a place hard to
 * guess. */
static inline uint64_t random_step(uint64_t number)
{
    return number * 0x5851f42d4c957f2du + 0x14057b7ef767814fu;
}

/* Checked sizes: false, and an unspecified result, where the sum or product overflows. */
static inline HMM_MUST_USE bool size_add(size_t a, size_t b, size_t *sum)
{
    return !__builtin_add_overflow(a, b, sum);
}

static inline HMM_MUST_USE bool size_multiply(size_t a, size_t b, size_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

static inline size_t size_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t size_max(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* a - b, but not below 0. */
static inline size_t size_less(size_t a, size_t b)
{
    return a - size_min(a, b);
}

#endif
