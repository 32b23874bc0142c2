/*
 * api_copy.c - the door through which copies go, in libhmm-secure.so only: memcpy and memmove look
 * whether a destination that lies in a slot is a live block with that much room.
 *
 * Most overflows are copies. Found here they are found before anything is damaged, and with
 * the call still on the stack. Copies that the compiler writes out itself do not come here,
 * nor do libc's own.
 *
 * The work itself is done under glibc's other names for it, which nobody has replaced: those that
 * compare with the size of the destination, where the compiler knew one. They return what the call
 * returns, so that going there is a jump. musl has no other names: there copies are not looked at.
 */
#include "alloc.h"
#include "guard_write.h"
#include "libc.h"

#ifdef __GLIBC__

void *__memcpy_chk(void *restrict to, const void *restrict from, size_t bytes, size_t room_bytes);
void *__memmove_chk(void *to, const void *from, size_t bytes, size_t room_bytes);

/* As much as there may be. Compilers must not see that: some would make a call of memcpy of it,
 * which is this one. */
static inline size_t any_room_bytes(void)
{
    size_t bytes = SIZE_MAX;
    __asm__("" : "+r"(bytes));
    return bytes;
}

void *memcpy(void *restrict to, const void *restrict from, size_t bytes)
{
    if (arena_covers(to) && UNLIKELY(!write_is_right(to, bytes))) {
        hmm_guard_accuse_write("memcpy", to);
    }
    return __memcpy_chk(to, from, bytes, any_room_bytes());
}

void *memmove(void *to, const void *from, size_t bytes)
{
    if (arena_covers(to) && UNLIKELY(!write_is_right(to, bytes))) {
        hmm_guard_accuse_write("memmove", to);
    }
    return __memmove_chk(to, from, bytes, any_room_bytes());
}

#endif
