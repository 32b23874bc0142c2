/*
 * leaks_roots.h - where a search for leaks begins: the memory that leaks.h calls roots. For leaks.c
 * only.
 */
#ifndef HMM_LEAKS_ROOTS_H
#define HMM_LEAKS_ROOTS_H

#include "base.h"

struct range {
    uintptr_t start;
    uintptr_t end;
};

struct root_walk {
    uintptr_t stack;  /* of the calling thread: below it lies what the search has there */
    struct range own; /* memory of the search, which is no root */
    void (*visit)(struct range root, void *context);
    void *context;
};

/* Shows every root. false: what the process has mapped could not be read. */
HMM_HIDDEN bool hmm_leaks_walk_roots(const struct root_walk *walk);

#endif
