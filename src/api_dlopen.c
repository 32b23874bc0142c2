/*
 * api_dlopen.c - the door through which plug-ins come: dlopen without RTLD_DEEPBIND.
 *
 * What is loaded with that flag looks names up in what it needs itself first, and so finds the C
 * library's malloc and free before those of the program. Then the first block that one side hands
 * to the other ends up in the wrong free; a copy that strdup made, with the program's malloc, is
 * enough. PHP loads its extensions that way. Without the flag a plug-in's names are looked up like
 * everybody's: in the program first.
 *
 * dlopen looks at who called it: that one's search path holds, and its namespace. Going there is a
 * jump, so it sees our caller.
 */
#include "base.h"
#include "symbol.h"

#include <stdatomic.h>

#ifdef RTLD_DEEPBIND /* glibc alone has it */

typedef void *(*dlopen_function)(const char *file, int mode);

/* The next one behind ours, 0: not looked up yet. Who looks it up at the same time
 * finds the same. */
static _Atomic uintptr_t dlopen_address;

static HMM_COLD dlopen_function dlopen_find(void)
{
    uintptr_t address = (uintptr_t)symbol_find(RTLD_NEXT, "dlopen");
    atomic_store_explicit(&dlopen_address, address, memory_order_relaxed);
    return (dlopen_function)address;
}

void *dlopen(const char *file, int mode)
{
    uintptr_t address = atomic_load_explicit(&dlopen_address, memory_order_relaxed);
    dlopen_function next = LIKELY(address != 0) ? (dlopen_function)address : dlopen_find();
    return LIKELY(next != NULL) ? next(file, mode & ~RTLD_DEEPBIND) : NULL;
}

#endif
