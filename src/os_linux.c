/*
 * os_linux.c - the system calls, on Linux. See os.h.
 */
#include "os.h"

#include <linux/futex.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

enum { PAGE_BYTES_FALLBACK = 4096 };

size_t hmm_os_page_bytes(void)
{
    size_t bytes = (size_t)getauxval(AT_PAGESZ);
    return bytes != 0 ? bytes : (size_t)PAGE_BYTES_FALLBACK;
}

size_t hmm_os_memory_bytes(void)
{
    int saved = errno;
    struct sysinfo info;
    size_t bytes = 0;
    if (sysinfo(&info) != 0 || !size_multiply((size_t)info.totalram, info.mem_unit, &bytes)) {
        bytes = 0;
    }
    errno = saved;
    return bytes;
}

/* MAP_NORESERVE is left out on purpose: with it the kernel would grant a terabyte on a small
 * machine when it is committed, and malloc could not say no. */
void *hmm_os_reserve(size_t bytes)
{
    int saved = errno;
    void *start = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    errno = saved;
    return start == MAP_FAILED ? NULL : start;
}

bool hmm_os_commit(void *start, size_t bytes)
{
    int saved = errno;
    bool is_done = mprotect(start, bytes, PROT_READ | PROT_WRITE) == 0;
    errno = saved;
    return is_done;
}

/* mprotect alone would keep the commit charge, and madvise the write permission that RLIMIT_DATA
 * counts; a fresh mapping in the same place gives both back. */
bool hmm_os_decommit(void *start, size_t bytes)
{
    int saved = errno;
    void *got = mmap(start, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    errno = saved;
    return got != MAP_FAILED;
}

void hmm_os_release(void *start, size_t bytes)
{
    int saved = errno;
    (void)munmap(start, bytes);
    errno = saved;
}

uintptr_t hmm_os_break(void)
{
    return hmm_os_break_move(0);
}

uintptr_t hmm_os_break_move(intptr_t delta_bytes)
{
    int saved = errno;
    void *before = sbrk(delta_bytes);
    errno = saved;
    return before == (void *)-1 ? 0 : (uintptr_t)before;
}

void hmm_os_futex_wait(const void *word, uint32_t value)
{
    int saved = errno;
    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
    errno = saved;
}

void hmm_os_futex_wake(const void *word)
{
    int saved = errno;
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    errno = saved;
}

/* Not write(), at which a thread can be cancelled. */
void hmm_os_write_error(const char *text, size_t bytes)
{
    int saved = errno;
    (void)syscall(SYS_write, STDERR_FILENO, text, bytes);
    errno = saved;
}

uint64_t hmm_os_thread_id(void)
{
    return (uint64_t)syscall(SYS_gettid);
}

uint64_t hmm_os_process_id(void)
{
    return (uint64_t)syscall(SYS_getpid);
}

bool hmm_os_is_privileged(void)
{
    return getauxval(AT_SECURE) != 0;
}
