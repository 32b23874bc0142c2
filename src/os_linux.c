/*
 * os_linux.c - the system calls, on Linux. See os.h.
 */
#include "os.h"
#include "libc.h"
#include "os_call.h"

#include <link.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* Younger than some headers. */
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#ifndef MADV_COLD
#define MADV_COLD 20
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA           0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

#ifdef SYS_mmap2
#define SYS_MAP SYS_mmap2
#else
#define SYS_MAP SYS_mmap
#endif

enum {
    PAGE_BYTES_FALLBACK = 4096,
    RANGE_SHARE_SHIFT = 2, /* four times the machine's memory */
    RANGE_SHIFT_FALLBACK = 36,
};

/* Those that say by errno why not come first; the others leave it alone. */

static void *map(void *start, size_t bytes, int protection, int more_flags)
{
    const long flags = MAP_PRIVATE | MAP_ANONYMOUS | more_flags;
    return (void *)OS_CALL(SYS_MAP, (long)start, (long)bytes, protection, flags, -1, 0);
}

static void *remap(void *start, size_t bytes, size_t new_bytes, int flags, void *to)
{
    return (void *)OS_CALL(SYS_mremap, (long)start, (long)bytes, (long)new_bytes, flags, (long)to);
}

static void unmap(void *start, size_t bytes)
{
    int saved = errno;
    (void)OS_CALL(SYS_munmap, (long)start, (long)bytes);
    errno = saved;
}

/* 0, or why not. */
static int advice_error(void *start, size_t bytes, int advice)
{
    int saved = errno;
    int error = OS_CALL(SYS_madvise, (long)start, (long)bytes, advice) == 0 ? 0 : errno;
    errno = saved;
    return error;
}

static bool advise(void *start, size_t bytes, int advice)
{
    return advice_error(start, bytes, advice) == 0;
}

static bool protect(void *start, size_t bytes, int protection)
{
    int saved = errno;
    bool is_done = OS_CALL(SYS_mprotect, (long)start, (long)bytes, protection) == 0;
    errno = saved;
    return is_done;
}

size_t hmm_os_page_bytes(void)
{
    size_t bytes = (size_t)getauxval(AT_PAGESZ);
    return bytes != 0 ? bytes : (size_t)PAGE_BYTES_FALLBACK;
}

/* 0: the machine does not say. Whoever asks at the same time finds the same. */
static size_t memory_bytes(void)
{
    static _Atomic size_t known_bytes;
    size_t bytes = atomic_load_explicit(&known_bytes, memory_order_relaxed);
    if (bytes != 0) {
        return bytes;
    }
    int saved = errno;
    struct sysinfo info;
    if (OS_CALL(SYS_sysinfo, (long)&info) != 0 ||
        !size_multiply((size_t)info.totalram, info.mem_unit, &bytes)) {
        bytes = 0;
    }
    errno = saved;
    atomic_store_explicit(&known_bytes, bytes, memory_order_relaxed);
    return bytes;
}

size_t hmm_os_range_bytes(void)
{
    const unsigned shift_max = sizeof(size_t) * CHAR_BIT - 2;
    size_t bytes = memory_bytes();
    unsigned shift =
        bytes != 0 ? bit_highest(bytes) + 1 + RANGE_SHARE_SHIFT : (unsigned)RANGE_SHIFT_FALLBACK;
    return (size_t)1 << (shift < shift_max ? shift : shift_max);
}

size_t hmm_os_data_limit_bytes(void)
{
    struct rlimit64 limit = {RLIM64_INFINITY, RLIM64_INFINITY};
    int saved = errno;
    (void)OS_CALL(SYS_prlimit64, 0, RLIMIT_DATA, 0, (long)&limit);
    errno = saved;
    return limit.rlim_cur < SIZE_MAX ? (size_t)limit.rlim_cur : SIZE_MAX;
}

size_t hmm_os_cpu_count(void)
{
    int saved = errno;
    cpu_set_t cpus;
    size_t count = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? (size_t)CPU_COUNT(&cpus) : 0;
    errno = saved;
    return count;
}

/* A debugger that writes a core writes all that is mapped, were it a terabyte without memory: it is
 * asked to leave reservations out, up to where they are committed.
 *
 * MAP_NORESERVE is left out on purpose: with it the kernel would grant a terabyte on a small
 * machine when it is committed, and malloc could not say no. */
void *hmm_os_reserve(size_t bytes, size_t open_bytes)
{
    int saved = errno;
    char *start = map(NULL, bytes, PROT_NONE, 0);
    errno = saved;
    if (start == MAP_FAILED) {
        return NULL;
    }
    if (open_bytes != 0 && !protect(start, open_bytes, PROT_READ | PROT_WRITE)) {
        unmap(start, bytes);
        return NULL;
    }
    if (open_bytes < bytes) {
        (void)advise(start + open_bytes, bytes - open_bytes, MADV_DONTDUMP);
    }
    return start;
}

bool hmm_os_commit(void *start, size_t bytes)
{
    bool is_done = protect(start, bytes, PROT_READ | PROT_WRITE);
    if (is_done) {
        (void)advise(start, bytes, MADV_DODUMP);
    }
    return is_done;
}

bool hmm_os_show(void *start, size_t bytes)
{
    return protect(start, bytes, PROT_READ);
}

/* mprotect alone would keep the commit charge, and madvise the write permission that RLIMIT_DATA
 * counts; a fresh mapping in the same place gives both back. */
bool hmm_os_decommit_unmarked(void *start, size_t bytes)
{
    int saved = errno;
    void *got = map(start, bytes, PROT_NONE, MAP_FIXED);
    errno = saved;
    return got != MAP_FAILED;
}

bool hmm_os_decommit(void *start, size_t bytes)
{
    bool is_done = hmm_os_decommit_unmarked(start, bytes);
    if (is_done) {
        (void)advise(start, bytes, MADV_DONTDUMP);
    }
    return is_done;
}

void hmm_os_release(void *start, size_t bytes)
{
    unmap(start, bytes);
}

/* Where a page of it is locked the first is EINVAL. The other (Linux 5.18) leaves the lock: what is
 * touched again is locked again. Not it alone, because older kernels do not know it. */
bool hmm_os_purge(void *start, size_t bytes)
{
    int error = advice_error(start, bytes, MADV_DONTNEED);
    return error == 0 || (error == EINVAL && advise(start, bytes, MADV_DONTNEED_LOCKED));
}

/* relaxed: an opinion */
static _Atomic bool is_nameless;

static bool name_set(void *start, size_t bytes, const char *name)
{
    int saved = errno;
    bool is_done = OS_CALL(SYS_prctl, PR_SET_VMA, PR_SET_VMA_ANON_NAME, (long)start, (long)bytes,
                           (long)name) == 0;
    errno = saved;
    return is_done;
}

void hmm_os_name(void *start, size_t bytes, const char *name)
{
    if (!atomic_load_explicit(&is_nameless, memory_order_relaxed) &&
        !name_set(start, bytes, name)) {
        atomic_store_explicit(&is_nameless, true, memory_order_relaxed);
    }
}

/* Neighbours of one name can become one mapping again. */
static bool name_renew(void *start, size_t bytes, const char *name)
{
    return atomic_load_explicit(&is_nameless, memory_order_relaxed) || name_set(start, bytes, name);
}

bool hmm_os_renew(void *start, size_t bytes, const char *name)
{
    int saved = errno;
    bool is_done = map(start, bytes, PROT_READ | PROT_WRITE, MAP_FIXED) != MAP_FAILED &&
                   name_renew(start, bytes, name);
    errno = saved;
    return is_done;
}

/* Kernels before 6.12 unmap what lies there before they find out that there is no commit charge
 * to be had. */
bool hmm_os_plug(void *start, size_t bytes)
{
    int saved = errno;
    void *got = map(start, bytes, PROT_NONE, MAP_FIXED_NOREPLACE);
    if (got != MAP_FAILED && got != start) {
        unmap(got, bytes); /* the flag is not known */
    }
    errno = saved;
    return got == start;
}

bool hmm_os_hide(void *start, size_t bytes)
{
    return protect(start, bytes, PROT_NONE);
}

bool hmm_os_unhide(void *start, size_t bytes, const char *name)
{
    return protect(start, bytes, PROT_READ | PROT_WRITE) && name_renew(start, bytes, name);
}

/* Whether nothing is mapped at what would have been the new place of pages, or nobody knows. While
 * there is one thread, nobody else can have mapped something there meanwhile. */
static bool is_place_lost(void *to, size_t bytes)
{
    void *got = map(to, bytes, PROT_READ | PROT_WRITE, MAP_FIXED_NOREPLACE);
    return got != to && !(errno == EEXIST && process_has_one_thread());
}

/* Nothing but one mapping can grow: all others say EFAULT, and this one that there is no room
 * (ENOMEM), because others follow. A locked mapping is not made cold (EINVAL). */
bool hmm_os_can_move(void *start, size_t bytes)
{
    int saved = errno;
    const size_t page_bytes = hmm_os_page_bytes();
    bool is_one = true;
    if (remap(start, bytes, bytes + page_bytes, 0, NULL) != MAP_FAILED) {
        unmap((char *)start + bytes, page_bytes);
    } else {
        is_one = errno != EFAULT;
    }
    const bool can_move = is_one && advise(start, page_bytes, MADV_COLD);
    errno = saved;
    return can_move;
}

/* MREMAP_DONTUNMAP (Linux 5.7) leaves the old mapping where it is, empty: there is never a hole
 * into which another thread's mmap could fall. But the kernel unmaps the new place before it finds
 * out that it cannot move, as where there may be no more mappings, and then there is one. Where the
 * flag is not known (EINVAL), or the call (ENOSYS), or a sandbox forbids it (EPERM), it has not
 * come that far. Of several mappings it would move some and not others (from Linux 6.17 on; EFAULT
 * before), and of a locked one's neighbours it would take the lock. */
enum os_move hmm_os_move(void *from, void *to, size_t bytes)
{
    int saved = errno;
    enum os_move result = OS_MOVED;
    if (remap(from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to) ==
        MAP_FAILED) {
        bool has_begun = errno != EINVAL && errno != ENOSYS && errno != EPERM;
        result = has_begun && is_place_lost(to, bytes) ? OS_MOVE_LOST : OS_NOT_MOVED;
    }
    errno = saved;
    return result;
}

/* A huge page is one entry of the second level: as many pages as a page holds entries. */
size_t hmm_os_huge_bytes(void)
{
    size_t page_bytes = hmm_os_page_bytes();
    return page_bytes * (page_bytes / sizeof(uint64_t));
}

bool hmm_os_populate(void *start, size_t bytes)
{
    return advise(start, bytes, MADV_POPULATE_WRITE);
}

bool hmm_os_want_huge(void *start, size_t bytes)
{
    return advise(start, bytes, MADV_HUGEPAGE);
}

/* Small pages leave a page table behind, and where there is one, small ones come again. This in
 * turn needs a table. */
bool hmm_os_collapse(void *start, size_t bytes)
{
    return advise(start, bytes, MADV_COLLAPSE);
}

void hmm_os_refuse_huge(void *start, size_t bytes)
{
    (void)advise(start, bytes, MADV_NOHUGEPAGE);
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now = {0};
    int saved = errno;
    (void)clock_gettime(clock, &now);
    errno = saved;
    const uint64_t ns_per_s = 1000000000;
    return (uint64_t)now.tv_sec * ns_per_s + (uint64_t)now.tv_nsec;
}

uint64_t hmm_os_clock_ms(void)
{
    const uint64_t ns_per_ms = 1000000;
    return clock_ns(CLOCK_MONOTONIC_COARSE) / ns_per_ms;
}

uint64_t hmm_os_clock_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

bool hmm_os_random(void *bytes, size_t count)
{
    int saved = errno;
    bool is_done = getrandom(bytes, count, GRND_NONBLOCK) == (ssize_t)count;
    errno = saved;
    return is_done;
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
    (void)OS_CALL(SYS_futex, (long)word, FUTEX_WAIT_PRIVATE, (long)value);
    errno = saved;
}

void hmm_os_futex_wait_for(const void *word, uint32_t value, unsigned ms)
{
    int saved = errno;
    struct timespec time = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    (void)OS_CALL(SYS_futex, (long)word, FUTEX_WAIT_PRIVATE, (long)value, (long)&time);
    errno = saved;
}

void hmm_os_futex_wake(const void *word)
{
    int saved = errno;
    (void)OS_CALL(SYS_futex, (long)word, FUTEX_WAKE_PRIVATE, 1);
    errno = saved;
}

void hmm_os_name_thread(const char *name)
{
    int saved = errno;
    (void)OS_CALL(SYS_prctl, PR_SET_NAME, (long)name);
    errno = saved;
}

bool hmm_os_thread_is_gone(void)
{
    enum { SIGNAL_OF_GLIBC = 32, SIGNAL_SET_BYTES = 8 };
    int saved = errno;
    unsigned long blocked[SIGNAL_SET_BYTES / sizeof(unsigned long)] = {0};
    (void)OS_CALL(SYS_rt_sigprocmask, SIG_BLOCK, 0, (long)blocked, SIGNAL_SET_BYTES);
    errno = saved;
    return !libc_shows_who_is_gone() || (blocked[0] >> (SIGNAL_OF_GLIBC - 1) & 1) != 0;
}

/* Where the call is not allowed, as in some containers, the memory has to be there. */
size_t hmm_os_copy(void *to, const void *from, size_t bytes)
{
    int saved = errno;
    struct iovec local = {to, bytes};
    struct iovec remote = {(void *)(uintptr_t)from, bytes};
    ssize_t copied = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
    if (copied < 0 && (errno == EPERM || errno == ENOSYS)) {
        memcpy(to, from, bytes);
        copied = (ssize_t)bytes;
    }
    errno = saved;
    return copied > 0 ? (size_t)copied : 0;
}

void hmm_os_on_signal(int number, void (*handle)(int number))
{
    int saved = errno;
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART | SA_ONSTACK};
    (void)sigaction(number, &action, NULL);
    errno = saved;
}

uint64_t hmm_os_thread_id(void)
{
    return (uint64_t)OS_CALL(SYS_gettid, 0);
}

uint64_t hmm_os_process_id(void)
{
    return (uint64_t)OS_CALL(SYS_getpid, 0);
}

/* The linker's name for the headers of what it has linked. */
extern HMM_HIDDEN const ElfW(Ehdr) __ehdr_start;

bool hmm_os_is_in_program(void)
{
    return getauxval(AT_PHDR) == (uintptr_t)&__ehdr_start + __ehdr_start.e_phoff;
}

bool hmm_os_is_privileged(void)
{
    return getauxval(AT_SECURE) != 0;
}
