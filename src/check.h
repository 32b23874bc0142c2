/*
 * check.h - three kinds of check, and the one way to die.
 *
 *   static_assert   constants and layouts, at compile time.
 *   ASSERT          our own mistake: debug builds (HMM_DEBUG) only.
 *   a struct crime  the caller's mistake: always compiled. A room that finds one changes nothing,
 *                   describes it, and returns; the door above, which holds no lock by then, ends
 *                   the program with hmm_fatal. So no message is ever written under a lock, and a
 *                   handler of SIGABRT can still allocate.
 */
#ifndef HMM_CHECK_H
#define HMM_CHECK_H

#include "base.h"

/* What a caller did wrong, as far as the room that saw it knows. */
struct crime {
    const char *what;   /* the crime in words; NULL: none */
    uintptr_t at;       /* the tag that is the evidence, 0: there is none */
    size_t block_bytes; /* that block's size with its tag, 0: unknown */
    const void *owner;  /* the heap that the pointer does belong to, NULL: unknown */
    uintptr_t slab;     /* where the slab lies that the pointer is in, 0: in none */
    size_t slot_bytes;  /* of that slab */
    size_t slot_index;  /* of the slot that the pointer is in */
    const char *maker;  /* the call that made the block, where another should have freed it */
    bool has_sizes;     /* two that disagree: */
    size_t claimed;     /* what the call said, */
    size_t known;       /* and what the block says */
    bool has_byte;
    ptrdiff_t byte_offset;   /* of the first byte that is not as it was, from the pointer on */
    const void *accused;     /* the pointer, where it is not the call's; NULL: it is */
    uint32_t site_allocated; /* sites.h, 0: unknown */
    uint32_t site_freed;
};

/* None so far. Who finds one writes all of it, so the rest need not be anything: it is as large as
 * a crime has evidence, and most calls see none. */
static inline void crime_clear(struct crime *crime)
{
    crime->what = NULL;
}

/* One line on standard error by one write(2), without allocation, stdio or lock; then abort().
 *   hmm: CALL(POINTER): CRIME: EVIDENCE
 * `heap` is 0 where no heap is concerned. In the two-file form: HmmHeapOnFatal, then a trap. */
HMM_NORETURN HMM_HIDDEN void hmm_fatal(const char *call, const void *pointer,
                                       const struct crime *crime, const void *heap);

/* From now on the call stack follows that line (sites.h). Not in the two-file form. */
HMM_HIDDEN void hmm_fatal_show_stack(void);

#ifdef HMM_DEBUG
#define ASSERT_PLACE(file, line)      ASSERT_PLACE_TEXT(file, line)
#define ASSERT_PLACE_TEXT(file, line) file ":" #line ": "
#define ASSERT(condition)                                                                          \
    ((condition) ? (void)0                                                                         \
                 : hmm_fatal("assert", (void *)0,                                                  \
                             &(struct crime){.what = ASSERT_PLACE(__FILE__, __LINE__) #condition}, \
                             (void *)0))
#else
#define ASSERT(condition) ((void)sizeof(condition))
#endif

#endif
