/*
 * api_dlopen.c - the door through which plug-ins come: dlopen without RTLD_DEEPBIND.
 *
 * What is loaded with that flag looks names up in what it needs itself first, and so finds the C library's malloc and
 * free before those of the program. Then the first block that one side hands to the other ends up in the wrong free;
 * a copy that strdup made, with the program's malloc, is enough. PHP loads its extensions that way. Without the flag
 * a plug-in's names are looked up like everybody's: in the program first.
 *
 * dlopen looks at who called it: that one's search path holds, and its namespace. Going there is a jump, so it
 * sees our caller.
 */
#include "next.h"

typedef void *(*dlopen_function)(const char *file, int mode);

void *dlopen(const char *file, int mode)
{
    static _Atomic uintptr_t known;
    dlopen_function next = (dlopen_function)next_address(&known, "dlopen");
    return LIKELY(next != NULL) ? next(file, mode & ~RTLD_DEEPBIND) : NULL;
}
