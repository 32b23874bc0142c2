/*
 * symbol.h - looks names up by dlsym.
 *
 * dlsym looks at who called it. Under an auditor that watches calls return (LD_AUDIT with
 * la_x86_64_gnu_pltexit) calls through the linkage table are made by the dynamic linker, which has
 * no scope to look names up in, and glibc's dlsym crashes. So it is called by its address, which is
 * filled in when we are loaded.
 */
#ifndef HMM_SYMBOL_H
#define HMM_SYMBOL_H

#include "base.h"

#include <dlfcn.h>

static inline void *symbol_find(void *handle, const char *name)
{
    /* volatile, or compilers see through it. */
    static void *(*const volatile by_address)(void *, const char *) = dlsym;
    return by_address(handle, name);
}

#endif
