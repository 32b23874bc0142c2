/*
 * next.h - what a door of ours stands in front of: the function of the same name that would have been called.
 */
#ifndef HMM_NEXT_H
#define HMM_NEXT_H

#include "base.h"

#include <dlfcn.h>
#include <stdatomic.h>

/* Its address, 0: there is none. `known` is 0 before the first call; who calls at the same time finds the same. */
static inline uintptr_t next_address(_Atomic uintptr_t *known, const char *name)
{
    uintptr_t address = atomic_load_explicit(known, memory_order_relaxed);
    if (UNLIKELY(address == 0)) {
        address = (uintptr_t)dlsym(RTLD_NEXT, name);
        atomic_store_explicit(known, address, memory_order_relaxed);
    }
    return address;
}

#endif
