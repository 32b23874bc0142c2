/*
 * heap_guard.h - hardening of a block heap: what HmmHeapOptions.hardening adds to every block.
 *
 *      +-----+---------------------------+----------+------+-----
 *      | tag | what was asked for        | slack, 0 | seal | tag of the next block
 *      +-----+---------------------------+----------+------+-----
 *            ptr                         ptr + request_bytes
 *
 * It sits between the handle and the heap, and adds nothing to the calls of a heap that has
 * none: such a heap's handle has another magic number. Like the heap, it first looks and then
 * acts (H3), by the halves that heap.h offers, so a crime leaves everything as it was; and it
 * writes no message.
 *
 * The seal (seal.h) makes a second free certain to be seen, and a write behind the block. What is
 * free is 0, so a write into it is seen when it is handed out. From level 2 on a block that is
 * freed waits: its place in the quarantine, at random, decides what goes on its way instead. What
 * would hold up the break of a heap that has dropped does not wait.
 *
 * When a free block swallows a tag, because it merges, the word becomes a mark: a number that only
 * this heap could have written there. So a second free is seen wherever the first one's block lies
 * by now, for as long as that memory is free (compare B7).
 *
 * Where sites are kept, a record of them lies before the seal (heap_record.h), and stays in
 * what is free.
 *
 * Q1  A free block is 0 but for its tag, its links, its size repeated, marks and records.
 * Q2  A used block is live, its seal and its record right and its slack 0; or it is held back, and
 *     0, seal and all, but for its record.
 * Q3  What is held back is in the quarantine once, and counted; live_bytes is what was asked for
 *     by the others.
 *
 * Freestanding, like the heap.
 */
#ifndef HMM_HEAP_GUARD_H
#define HMM_HEAP_GUARD_H

#include "heap.h"
#include "heap_record.h"
#include "seal.h"

/* As many as a thread of the fast engine has. */
enum { GUARD_PLACES_MAX = 256 };

/* All guarded by the heap's lock. Lies behind the handle. */
struct heap_guard {
    /* immutable after init */
    struct seal_key key;
    uint16_t place_count;        /* a power of two; 0: nothing is held back */
    uint16_t trailer_bytes;      /* of the seal, and of the record before it if there are such */
    size_t held_bytes_max;       /* all blocks that are held back together */
    size_t held_block_bytes_max; /* larger ones are not held back */

    size_t live_bytes; /* what was asked for, of live blocks */
    size_t peak_live_bytes;
    size_t held_bytes; /* of blocks, with their tags */
    size_t held_count;
    size_t held_reach_bytes; /* none ends farther from the start of a region that gives back */
    size_t next_place;       /* where the bound takes from */
    uint64_t random_state;
    void *places[]; /* NULL: empty */
};

static inline bool guard_has_records(const struct heap_guard *guard)
{
    return RECORDS_CAN_BE && UNLIKELY(guard->trailer_bytes != SEAL_BYTES);
}

/* What a block has behind what was asked for and slack. */
static inline size_t guard_trailer_bytes(const struct heap_guard *guard)
{
    return RECORDS_CAN_BE ? guard->trailer_bytes : SEAL_BYTES;
}

/* The block that serves a request, 0 where none can be large enough. */
HMM_HIDDEN size_t hmm_heap_guard_block_bytes(const struct heap_guard *guard, size_t request_bytes);

/* How large one is, for a heap that can have up to `capacity_bytes`. The level is not NONE. */
HMM_HIDDEN size_t hmm_heap_guard_bytes(HmmHardening level, size_t capacity_bytes);

/* Before the heap has its first region. The secrets are random numbers of their own. Without
 * records every site is 0. */
enum heap_records { HEAP_RECORDS_NONE, HEAP_RECORDS_KEPT };
HMM_HIDDEN void hmm_heap_guard_init(struct heap *heap, struct heap_guard *guard, HmmHardening level,
                                    size_t capacity_bytes, const uint64_t secrets[2],
                                    enum heap_records records);

/* As the heap's calls of those names (heap.h). What is held back is used before there is no memory.
 * A crime may be about another block: crime.accused. */
HMM_HIDDEN void *hmm_heap_guard_allocate(struct heap *heap, struct heap_guard *guard,
                                         size_t alignment, size_t bytes, enum origin origin,
                                         struct crime *crime);
/* *old_bytes: what was asked for. The block never moves. */
HMM_HIDDEN void *hmm_heap_guard_resize(struct heap *heap, struct heap_guard *guard, void *ptr,
                                       size_t bytes, size_t *old_bytes, struct crime *crime);
HMM_HIDDEN HMM_MUST_USE bool hmm_heap_guard_free(struct heap *heap, struct heap_guard *guard,
                                                 void *ptr, const struct claim *claim,
                                                 struct crime *crime);
/* *usable_bytes: what was asked for. */
HMM_HIDDEN HMM_MUST_USE bool hmm_heap_guard_usable(struct heap *heap,
                                                   const struct heap_guard *guard, const void *ptr,
                                                   size_t *usable_bytes, struct crime *crime);

/* The block that was just allocated or resized, from that site. Only where there are records. */
HMM_HIDDEN HMM_COLD void hmm_heap_guard_note_site(struct heap_guard *guard, void *ptr,
                                                  uint32_t site);

/* What is held back goes on its way. false: a crime; what comes after it is held back still. */
HMM_HIDDEN HMM_MUST_USE bool hmm_heap_guard_flush(struct heap *heap, struct heap_guard *guard,
                                                  struct crime *crime);

/* Flushes, then gives back what lies free at the breaks, but for `keep_bytes` each. Whether
 * a break moved. */
HMM_HIDDEN bool hmm_heap_guard_trim(struct heap *heap, struct heap_guard *guard, size_t keep_bytes,
                                    struct crime *crime);

/* After a flush: live is what was asked for, and overhead the rest. */
HMM_HIDDEN void hmm_heap_guard_get_stats(const struct heap *heap, const struct heap_guard *guard,
                                         HmmHeapStats *stats);

/* heap_guard_audit.c: as hmm_heap_walk; what is held back is shown as free. */
HMM_HIDDEN bool hmm_heap_guard_walk(const struct heap *heap, const struct heap_guard *guard,
                                    HmmVisitor visit, void *context);

/* The first invariant of the heap, then of Q1-Q3, that does not hold. */
HMM_HIDDEN const char *hmm_heap_guard_audit(const struct heap *heap,
                                            const struct heap_guard *guard);

#endif
