/*
 * locked.h - whether the kernel takes the pages of locked memory back, as Linux does from 5.18 on.
 */
#ifndef HMM_TESTS_LOCKED_H
#define HMM_TESTS_LOCKED_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

static inline bool locked_pages_go(void)
{
    const size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool is_known = page != MAP_FAILED && madvise(page, bytes, MADV_DONTNEED_LOCKED) == 0;
    if (page != MAP_FAILED) {
        (void)munmap(page, bytes);
    }
    return is_known;
}

#endif
