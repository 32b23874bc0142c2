/*
 * run_out.h - all the memory that can be had, for tests of what follows.
 */
#ifndef HMM_TESTS_RUN_OUT_H
#define HMM_TESTS_RUN_OUT_H

#include "content.h"
#include "hmm.h"

/* In blocks of so many bytes, or of any of some sizes, each twice the one before. Returns the last
 * one, which points to the one before it. */
static inline void **run_out_of(size_t bytes, unsigned sizes, uint64_t *random)
{
    void **last = NULL;
    void **ptr = HmmAlloc(bytes << random_below(random, sizes));
    while (ptr != NULL) {
        *ptr = last;
        last = ptr;
        ptr = HmmAlloc(bytes << random_below(random, sizes));
    }
    return last;
}

static inline void give_back(void **last)
{
    while (last != NULL) {
        void **before = *last;
        HmmFree(last);
        last = before;
    }
}

#endif
