/*
 * api_copy.c - the door through which copies go, in libhmm-secure.so only: memcpy and memmove look whether
 * a destination that lies in a slot is a live block with that much room.
 *
 * Most overflows are copies. Found here they are found before anything is damaged, and with the call
 * still on the stack. Copies that the compiler writes out itself do not come here, nor do libc's own.
 */
#include "alloc.h"

#include <strings.h>

/* glibc's other names for the same work, which nobody has replaced. */
void *memcpy(void *restrict to, const void *restrict from, size_t bytes)
{
    if (UNLIKELY(arena_covers(to))) {
        hmm_guard_check_write("memcpy", to, bytes);
    }
    (void)mempcpy(to, from, bytes);
    return to;
}

void *memmove(void *to, const void *from, size_t bytes)
{
    if (UNLIKELY(arena_covers(to))) {
        hmm_guard_check_write("memmove", to, bytes);
    }
    bcopy(from, to, bytes);
    return to;
}
