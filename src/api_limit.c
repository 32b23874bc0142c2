/*
 * api_limit.c - the doors through which a process limits its own address space.
 *
 * A limit of it counts what is reserved. So after setrlimit(RLIMIT_AS) a process whose heap has
 * reserved more could start no thread and load no library, while the heap itself grew as if there
 * were no limit. The reserved range is cut down to half of the limit, and the rest is everybody's:
 * what the heap needs beyond its range it maps, as under a limit that was there before it started.
 * A child that has the heap from its parent by vfork() limits itself, and leaves the range alone.
 */
#include "alloc.h"
#include "os_call.h"
#include "process.h"

#include <errno.h>
#include <sys/resource.h>
#include <unistd.h>

#if UINTPTR_MAX > UINT32_MAX /* where the kernel's limits are those of all these calls */

enum { RANGE_SHARE = 2 };

/* What the caller has set may be overwritten by what was: one place can be given for both. */
static void range_shrink(void)
{
    struct rlimit limit;
    if (OS_CALL(SYS_prlimit64, 0, RLIMIT_AS, 0, (long)&limit) == 0 &&
        limit.rlim_cur != RLIM_INFINITY) {
        hmm_alloc_shrink_range(limit.rlim_cur / RANGE_SHARE);
    }
}

static int limit_set(pid_t process, unsigned resource, const struct rlimit *limit,
                     struct rlimit *old)
{
    int result = (int)OS_CALL(SYS_prlimit64, process, (long)resource, (long)limit, (long)old);
    if (result == 0 && limit != NULL && resource == RLIMIT_AS &&
        (process == 0 || process == getpid()) && hmm_fork_is_owner()) {
        int saved = errno;
        range_shrink();
        errno = saved;
    }
    return result;
}

#ifdef __GLIBC__
typedef __rlimit_resource_t resource_name;
#else
typedef int resource_name;
#endif

int setrlimit(resource_name resource, const struct rlimit *limit)
{
    return limit_set(0, (unsigned)resource, limit, NULL);
}

int prlimit(pid_t process, resource_name resource, const struct rlimit *limit, struct rlimit *old)
{
    return limit_set(process, (unsigned)resource, limit, old);
}

#ifdef __GLIBC__

int setrlimit64(resource_name resource, const struct rlimit64 *limit)
{
    return limit_set(0, resource, (const struct rlimit *)limit, NULL);
}

int prlimit64(pid_t process, resource_name resource, const struct rlimit64 *limit,
              struct rlimit64 *old)
{
    return limit_set(process, resource, (const struct rlimit *)limit, (struct rlimit *)old);
}

#endif
#endif
