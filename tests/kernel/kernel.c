/*
 * kernel.c - another kernel, as far as the library can tell: larger pages, fewer addresses, more
 * memory, no moving of pages. Linked with --wrap, so that the library's own calls come here first,
 * and those of the tests.
 *
 * KERNEL_PAGE_KIB        how large a page is; addresses that are no multiples of it end the
 *                        program, lengths are rounded up to it, as the kernel does
 * KERNEL_ADDRESS_BITS    how long an address may be; with more than 48 bits, how long each is: that
 *                        needs a kernel that has such addresses
 * KERNEL_MEMORY_SHIFT    the binary logarithm of the machine's memory
 * KERNEL_HAS_NO_MREMAP   pages cannot be moved
 * KERNEL_IS_OLD          pages of several mappings cannot be moved at once (Linux before 6.17),
 *                        small pages do not become a huge one (before 6.1), and locked ones are not
 *                        taken back (before 5.18)
 */
#include "os_call.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

enum { KIBIBYTE = 1 << 10, ADDRESS_LOW_SHIFT = 32, ADDRESS_USUAL_BITS = 48 };

void *__real_mmap(void *start, size_t bytes, int protection, int flags, int file, off_t offset);
int __real_munmap(void *start, size_t bytes);
int __real_mprotect(void *start, size_t bytes, int protection);
int __real_madvise(void *start, size_t bytes, int advice);
void *__real_mremap(void *start, size_t bytes, size_t new_bytes, int flags, void *to);
unsigned long __real_getauxval(unsigned long type);
int __real_mincore(void *start, size_t bytes, unsigned char *map);
void *__real_sbrk(intptr_t delta_bytes);
/* Weak: a program of few rooms may be linked without it, and makes no such call. */
__attribute__((weak)) long __real_hmm_os_call(long number, const long given[OS_CALL_WORDS]);

void *__wrap_mmap(void *start, size_t bytes, int protection, int flags, int file, off_t offset);
int __wrap_munmap(void *start, size_t bytes);
int __wrap_mprotect(void *start, size_t bytes, int protection);
int __wrap_madvise(void *start, size_t bytes, int advice);
void *__wrap_mremap(void *start, size_t bytes, size_t new_bytes, int flags, ...);
unsigned long __wrap_getauxval(unsigned long type);
int __wrap_mincore(void *start, size_t bytes, unsigned char *map);
void *__wrap_sbrk(intptr_t delta_bytes);
long __wrap_hmm_os_call(long number, const long given[OS_CALL_WORDS]);

static uintptr_t address_next; /* where the next mapping goes, where addresses are few */

static size_t number_of(const char *name)
{
    const char *value = getenv(name);
    return value != NULL ? strtoul(value, NULL, 10) : 0;
}

/* At least what a page really is. */
static size_t page_bytes(void)
{
    static size_t bytes;
    if (bytes == 0) {
        size_t real_bytes = __real_getauxval(AT_PAGESZ);
        size_t wanted_bytes = number_of("KERNEL_PAGE_KIB") * KIBIBYTE;
        bytes = wanted_bytes > real_bytes ? wanted_bytes : real_bytes;
    }
    return bytes;
}

static size_t page_up(size_t bytes)
{
    return (bytes + page_bytes() - 1) & ~(page_bytes() - 1);
}

/* The kernel would answer EINVAL; here it is a mistake of ours. */
static void demand_whole_pages(const void *start)
{
    static const char line[] = "# an address that is no multiple of a page\n";
    if (((uintptr_t)start & (page_bytes() - 1)) != 0) {
        (void)!write(STDERR_FILENO, line, sizeof line - 1);
        abort();
    }
}

/* One page more, of which the ends go back. */
static void *map_aligned(size_t bytes, int protection, int flags)
{
    size_t whole_bytes = bytes + page_bytes();
    unsigned char *start = __real_mmap(NULL, whole_bytes, protection, flags, -1, 0);
    if (start == MAP_FAILED) {
        return MAP_FAILED;
    }
    size_t lead_bytes = (size_t)(page_up((uintptr_t)start) - (uintptr_t)start);
    if (lead_bytes != 0) {
        (void)__real_munmap(start, lead_bytes);
    }
    (void)__real_munmap(start + lead_bytes + bytes, page_bytes() - lead_bytes);
    return start + lead_bytes;
}

/* One after the other from below; what is given back last can be had again. Half of all addresses
 * are the kernel's. */
static void *map_in_turn(size_t bytes, int protection, int flags, size_t bits)
{
    const bool is_long = bits > ADDRESS_USUAL_BITS;
    const uintptr_t end = (uintptr_t)1 << (is_long ? bits - 1 : bits);
    uintptr_t start = __atomic_load_n(&address_next, __ATOMIC_RELAXED);
    start = start != 0 ? start : is_long ? end / 2 : (uintptr_t)1 << ADDRESS_LOW_SHIFT;
    void *got = MAP_FAILED;
    errno = EEXIST;
    while (got == MAP_FAILED && errno == EEXIST && bytes <= end && start <= end - bytes) {
        got = __real_mmap((void *)start, bytes, protection, flags | MAP_FIXED_NOREPLACE, -1, 0);
        start = got == MAP_FAILED ? start + page_bytes() * KIBIBYTE : start + bytes;
    }
    if (got == MAP_FAILED) {
        errno = ENOMEM;
    } else {
        __atomic_store_n(&address_next, start, __ATOMIC_RELAXED);
    }
    return got;
}

void *__wrap_mmap(void *start, size_t bytes, int protection, int flags, int file, off_t offset)
{
    size_t bits = number_of("KERNEL_ADDRESS_BITS");
    if (file >= 0 || bytes == 0 || bytes > SIZE_MAX / 2) {
        return __real_mmap(start, bytes, protection, flags, file, offset);
    }
    bytes = page_up(bytes);
    if ((flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) != 0) {
        demand_whole_pages(start);
        return __real_mmap(start, bytes, protection, flags, -1, 0);
    }
    return bits != 0 ? map_in_turn(bytes, protection, flags, bits)
                     : map_aligned(bytes, protection, flags);
}

int __wrap_munmap(void *start, size_t bytes)
{
    demand_whole_pages(start);
    uintptr_t end = (uintptr_t)start + page_up(bytes);
    (void)__atomic_compare_exchange_n(&address_next, &end, (uintptr_t)start, false,
                                      __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return __real_munmap(start, page_up(bytes));
}

int __wrap_mprotect(void *start, size_t bytes, int protection)
{
    demand_whole_pages(start);
    return __real_mprotect(start, page_up(bytes), protection);
}

int __wrap_madvise(void *start, size_t bytes, int advice)
{
    demand_whole_pages(start);
    bool is_young = advice == MADV_COLLAPSE || advice == MADV_DONTNEED_LOCKED;
    if (is_young && number_of("KERNEL_IS_OLD") != 0) {
        errno = EINVAL;
        return -1;
    }
    return __real_madvise(start, page_up(bytes), advice);
}

/* Whether a mapping covers the range. Without memory: whoever wants some may be asking. */
static bool is_one_mapping(const void *start, size_t bytes)
{
    char text[4096];
    uintptr_t ends[2] = {0, 0}; /* of the line's mapping: they come first, in hexadecimal digits */
    int which = 0;
    bool is_found = false;
    const int file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    for (ssize_t length = 1; length > 0 && !is_found;) {
        length = read(file, text, sizeof text);
        for (ssize_t i = 0; i < length; i++) {
            const char letter = text[i];
            if (letter == '\n') {
                is_found |= ends[0] <= (uintptr_t)start && (uintptr_t)start + bytes <= ends[1];
                ends[0] = ends[1] = 0;
                which = 0;
            } else if (letter == '-' || letter == ' ') {
                which++;
            } else if (which < 2) {
                ends[which] = ends[which] * 16 +
                              (uintptr_t)(letter <= '9' ? letter - '0' : letter - 'a' + 10);
            }
        }
    }
    close(file);
    return is_found;
}

void *__wrap_mremap(void *start, size_t bytes, size_t new_bytes, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    void *to = (flags & MREMAP_FIXED) != 0 ? va_arg(arguments, void *) : start;
    va_end(arguments);
    if (number_of("KERNEL_HAS_NO_MREMAP") != 0) {
        errno = EINVAL;
        return MAP_FAILED;
    }
    demand_whole_pages(start);
    demand_whole_pages(to);
    if (number_of("KERNEL_IS_OLD") != 0 && !is_one_mapping(start, bytes)) {
        if (to != start) {
            (void)__real_munmap(to, page_up(new_bytes)); /* as the kernel does first */
        }
        errno = EFAULT;
        return MAP_FAILED;
    }
    return __real_mremap(start, page_up(bytes), page_up(new_bytes), flags, to);
}

unsigned long __wrap_getauxval(unsigned long type)
{
    return type == AT_PAGESZ ? page_bytes() : __real_getauxval(type);
}

/* A page is there if a part of it is. */
int __wrap_mincore(void *start, size_t bytes, unsigned char *map)
{
    unsigned char parts[64];
    size_t part_count = page_bytes() / __real_getauxval(AT_PAGESZ);
    int result = 0;
    demand_whole_pages(start);
    for (size_t page = 0; page < page_up(bytes) / page_bytes() && result == 0; page++) {
        result = __real_mincore((char *)start + page * page_bytes(), page_bytes(), parts);
        map[page] = 0;
        for (size_t i = 0; i < part_count; i++) {
            map[page] |= parts[i] & 1;
        }
    }
    return result;
}

/* The real break is at the end of the page in which ours lies. */
void *__wrap_sbrk(intptr_t delta_bytes)
{
    static char *brk;
    static char *real_brk;
    char *now = __real_sbrk(0);
    if (now != real_brk) { /* somebody else's work */
        brk = real_brk = now;
    }
    char *before = brk;
    intptr_t real_delta_bytes =
        (intptr_t)page_up((uintptr_t)brk + (uintptr_t)delta_bytes) - (intptr_t)(uintptr_t)real_brk;
    if (delta_bytes != 0 && __real_sbrk(real_delta_bytes) == (void *)-1) {
        return (void *)-1;
    }
    if (delta_bytes != 0) {
        brk += delta_bytes;
        real_brk += real_delta_bytes;
    }
    return before;
}

static long memory_info(struct sysinfo *info)
{
    size_t shift = number_of("KERNEL_MEMORY_SHIFT");
    long result = __real_hmm_os_call(SYS_sysinfo, (const long[OS_CALL_WORDS]){(long)info});
    if (result == 0 && shift != 0) {
        info->totalram = 1;
        info->mem_unit = 1u << (shift < 31 ? shift : 31);
        info->totalram <<= shift - (shift < 31 ? shift : 31);
    }
    return result;
}

/* The library's own calls have no names. */
long __wrap_hmm_os_call(long number, const long given[OS_CALL_WORDS])
{
    void *start = (void *)given[0];
    const size_t bytes = (size_t)given[1];
    switch (number) {
    case SYS_mmap:
        return (long)__wrap_mmap(start, bytes, (int)given[2], (int)given[3], (int)given[4],
                                 given[5]);
    case SYS_sysinfo:
        return memory_info((struct sysinfo *)start);
    case SYS_munmap:
        return __wrap_munmap(start, bytes);
    case SYS_mprotect:
        return __wrap_mprotect(start, bytes, (int)given[2]);
    case SYS_madvise:
        return __wrap_madvise(start, bytes, (int)given[2]);
    case SYS_mremap:
        return (long)__wrap_mremap(start, bytes, (size_t)given[2], (int)given[3], (void *)given[4]);
    default:
        return __real_hmm_os_call(number, given);
    }
}
