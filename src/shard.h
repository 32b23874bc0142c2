/*
 * shard.h - a shard of medium memory: its lock, its secret, its free blocks and its counters, and
 * what the files of the medium room do for each other. For them only; the zones that a shard has
 * are in zone.h.
 *
 *     medium.c           the calls
 *     shard.c            into a shard and out of it; merging; frees that wait for the lock
 *     medium_allocate.c  a block from what a shard has
 *     shard_purge.c      dirty pages given back
 *     medium_audit.c     the invariants, checked
 *
 * A shard has two indexes of its free blocks: one of blocks that were touched, one of those whose
 * pages have all been given back. So the order of allocation, touched memory first, and what
 * to give back next are one look each. Of small blocks pages are given back only when somebody asks
 * for all that is free; nobody counts them.
 *
 * M1  Every free block of a shard is in `purged` if it is of SPARE_BYTES_MIN or more and has no
 *     dirty page, or smaller, and somebody has given its whole pages back; else in `touched`; once,
 *     and nothing else is. Its tag says which (BLOCK_IS_PURGED). What is left of a large one in
 *     `purged` is in `touched` when it is small: it is taken next, without a look at the shelf.
 * M2  The counters of live, free and dirty memory agree with the blocks. Dirty are the pages inside
 *     free blocks of SPARE_BYTES_MIN or more but for the purged span, and those of a wilderness up
 *     to `touched`. What purge.c was told is that and what was on the shelf when the shard was last
 *     left the long way, but for a step: is_worth_a_report.
 * M3  One zone at most holds no block: `empty`, of which EMPTY_BYTES_MAX at most is touched.
 * M4  The purged span of a free block is zero, and consists of whole pages inside that block, after
 *     its links. Of a block in `purged` that is all of them.
 * M5  The list of zones begins with those whose wilderness has dirty pages, up to the one that is
 *     known as the last of them. Of either kind the one last used is the first.
 */
#ifndef HMM_SHARD_H
#define HMM_SHARD_H

#include "fit.h"
#include "medium.h"
#include "shelf.h"

enum {
    SHARD_COUNT_MAX = 8,
    /* At how many zones a call looks for room, of those with dirty pages at their top and
     * of the others. */
    ZONE_LOOK_COUNT = 8,
    /* Free blocks from here on are worth a system call before anybody asks for one. */
    SPARE_BYTES_MIN = 64 * 1024,
    /* Of a free block, where a used one would be a gap: M1. */
    BLOCK_IS_PURGED = BLOCK_IS_GAP,
    /* Shared counters are told of changes in steps: a block that comes and goes costs none. */
    REPORT_BYTES = 64 * 1024,
    REPORT_SHARE = 256, /* of the zones, where that is more */
};

/* A free block that has room for more than its links. */
struct spare {
    struct block block;
    /* M4; empty: start == end. Of a block of SPARE_BYTES_MIN or more that is not in `purged`. */
    struct zero_span purged;
};

struct shard {
    _Alignas(LINE_BYTES) struct lock lock;
    _Atomic(struct pending *) pending; /* shard.c: P1-P5, the top first */

    /* guarded by the lock */
    size_t page_bytes; /* 0: the shard was never used */
    struct block_key key;
    struct fit touched; /* M1 */
    struct fit purged;
    struct granule *zones; /* the first granule of each: M5 */
    struct granule *empty; /* M3, NULL: none */
    size_t live_bytes;     /* usable bytes of used blocks */
    size_t live_count;
    size_t free_bytes; /* usable bytes of free blocks */
    size_t dirty_bytes;
    size_t placed_count;   /* blocks ever handed out */
    size_t held_bytes;     /* the zones, from end to end */
    size_t reported_bytes; /* of dirty_bytes, what purge.c was told */
    size_t reported_idle_bytes;
    /* shelf.bytes as of the last report or look at whether one is due */
    size_t reckoned_shelf_bytes;
    struct shelf shelf;
};

extern HMM_HIDDEN struct shard hmm_medium_shards[SHARD_COUNT_MAX];

/* Places in a shard's list of zones; guarded by its lock. Apart from the shards, which are 1 KiB
 * so: to find one takes no multiplication, 7 instructions a pair less. */
struct zone_places {
    struct granule *last_dirty; /* M5; NULL: there is none */
    /* Where whoever goes through all zones is, without the lock between two; NULL: at the end,
     * or nobody does. */
    struct granule *walker;
};

extern HMM_HIDDEN struct zone_places hmm_medium_places[SHARD_COUNT_MAX];

/* Blocks are as large as was asked for, and merged as they are freed; immutable once
 * there are blocks. */
extern HMM_HIDDEN bool hmm_medium_is_exact;

/* What one call takes out of the lock with it. */
struct visit {
    struct crime *crime;  /* the caller's, of its own block or of one that was pending */
    struct granule *gone; /* empty zones to be given back, linked by next */
    size_t regret_bytes;  /* memory given back that is handed out again */
    /* The caller's, of the block handed out. Written in place: a copy of both words at once waits
     * for the stores before it, which mostly miss the cache: 340 ns a pair at random, not 225. */
    struct zero_span *zero;
    size_t freed_bytes;  /* what became free memory, apart from the shelf */
    bool has_more_dirty; /* purge.c was told of more */
};

static inline unsigned shard_number(const struct shard *shard)
{
    return (unsigned)(shard - hmm_medium_shards);
}

/* Of a pointer into a zone. */
static inline struct shard *shard_of(const void *ptr)
{
    return &hmm_medium_shards[granule_of(ptr)->shard % SHARD_COUNT_MAX];
}

static inline size_t page_up(const struct shard *shard, uintptr_t address)
{
    return align_up(address, shard->page_bytes);
}

/* Whether purge.c should know. */
static inline bool is_worth_a_report(const struct shard *shard, size_t now_bytes,
                                     size_t reported_bytes)
{
    size_t step_bytes = size_max(REPORT_BYTES, shard->held_bytes / REPORT_SHARE);
    return now_bytes - reported_bytes + step_bytes > 2 * step_bytes;
}

/* ---------------------------------------------------------------------------------------- spans */

static const struct zero_span span_none = {0, 0};

static inline size_t span_bytes(struct zero_span span)
{
    return span.end - span.start;
}

static inline struct zero_span span_clip(struct zero_span span, uintptr_t start, uintptr_t end)
{
    start = size_max(span.start, start);
    end = size_min(span.end, end);
    return start < end ? (struct zero_span){start, end} : span_none;
}

static inline struct zero_span span_larger(struct zero_span a, struct zero_span b)
{
    return span_bytes(a) >= span_bytes(b) ? a : b;
}

/* ------------------------------------------------------------------------------ the free blocks */

/* The whole pages between a free block's links and its last word. */
static inline struct zero_span block_pages(const struct shard *shard, const struct block *block,
                                           size_t bytes)
{
    uintptr_t start = page_up(shard, block_address(block) + sizeof(struct spare));
    uintptr_t end = align_down((uintptr_t)block_footer(block, bytes), shard->page_bytes);
    return start < end ? (struct zero_span){start, end} : span_none;
}

/* M1 */
static inline bool block_is_purged(const struct block *block)
{
    return (block->tag & BLOCK_IS_PURGED) != 0;
}

/* Of a free block: what is known to be zero, within its pages, whatever was written there since. */
static inline struct zero_span block_purged(const struct shard *shard, const struct block *block)
{
    size_t bytes = block_bytes(block);
    if (bytes < SPARE_BYTES_MIN && !block_is_purged(block)) {
        return span_none;
    }
    struct zero_span pages = block_pages(shard, block, bytes);
    return block_is_purged(block)
               ? pages
               : span_clip(((const struct spare *)block)->purged, pages.start, pages.end);
}

/* The dirty pages of a free block, as far as they are counted (M2). */
static inline size_t block_dirty_bytes(const struct shard *shard, const struct block *block)
{
    size_t bytes = block_bytes(block);
    return bytes < SPARE_BYTES_MIN ? 0
                                   : span_bytes(block_pages(shard, block, bytes)) -
                                         span_bytes(block_purged(shard, block));
}

/* Makes [block, block + bytes) a free block, and keeps what it can of the span. Its neighbours must
 * not be free. */
static inline void shard_make_free(struct shard *shard, struct block *block, size_t bytes,
                                   struct zero_span zero)
{
    struct fit *index = &shard->touched;
    block_write(&shard->key, block, bytes, BLOCK_IS_FREE);
    *block_footer(block, bytes) = bytes;
    if (bytes >= SPARE_BYTES_MIN) {
        ((struct spare *)block)->purged =
            (struct zero_span){page_up(shard, zero.start), align_down(zero.end, shard->page_bytes)};
        size_t dirty_bytes = block_dirty_bytes(shard, block);
        shard->dirty_bytes += dirty_bytes;
        if (dirty_bytes == 0) {
            block_set_flags(&shard->key, block, BLOCK_IS_PURGED, 0);
            index = &shard->purged;
        }
    }
    shard->free_bytes += bytes - BLOCK_TAG_BYTES;
    fit_insert(index, block);
}

/* All whole pages of a small free block, which has some, are zero now. */
static inline void shard_note_purged(struct shard *shard, struct block *block)
{
    fit_remove(&shard->touched, block, block_bytes(block));
    block_set_flags(&shard->key, block, BLOCK_IS_PURGED, 0);
    fit_insert(&shard->purged, block);
}

/* Takes a free block out of the index. Its tag goes on saying "free" (B7). Returns its span. */
static inline struct zero_span shard_unfree(struct shard *shard, struct block *block)
{
    size_t bytes = block_bytes(block);
    shard->free_bytes -= bytes - BLOCK_TAG_BYTES;
    if (LIKELY(bytes < SPARE_BYTES_MIN && !block_is_purged(block))) {
        fit_remove(&shard->touched, block, bytes);
        return span_none;
    }
    struct zero_span purged = block_purged(shard, block);
    shard->dirty_bytes -= block_dirty_bytes(shard, block);
    fit_remove(block_is_purged(block) ? &shard->purged : &shard->touched, block, bytes);
    return purged;
}

/* ------------------------------------------------------------------------------------ the shelf */

/* A used block, whose tag is good, goes on the shelf; `most_bytes` may lie there then. false: it
 * must be merged, nothing has changed. */
static HMM_INLINE bool shard_shelve(struct shard *shard, struct block *block, size_t most_bytes)
{
    size_t bytes = block_bytes(block);
    unsigned index = shelf_index(bytes);
    if (!shelf_is_index(index) || bytes > most_bytes) {
        return false;
    }
    shard->live_bytes -= bytes - BLOCK_TAG_BYTES;
    shard->live_count--;
    block_set_flags(&shard->key, block, BLOCK_IS_GAP, 0);
    shelf_push(&shard->shelf, &shard->key, index, block, bytes);
    return true;
}

/* -------------------------------------------------------------------------------------- shard.c */

/* Before the first use. The lock is held, here and in what follows up to hmm_shard_finish, but for
 * a push and the end of a visit. */
HMM_HIDDEN HMM_COLD void hmm_shard_open(struct shard *shard);

/* A block that was verified, with its neighbours, and is no longer used becomes free memory. `zero`
 * is what is known of it. */
HMM_HIDDEN void hmm_shard_put(struct shard *shard, struct granule *first, struct block *block,
                              struct zero_span zero, struct visit *visit);

/* Merges what has been on the shelf for long, until no more than so much is left. Ends
 * at a crime. */
HMM_HIDDEN HMM_COLD void hmm_shard_clear_shelf(struct shard *shard, size_t keep_bytes,
                                               struct visit *visit);

/* Frees a block of this shard. false: a crime. */
HMM_HIDDEN bool hmm_shard_free(struct shard *shard, const void *ptr, struct visit *visit);

/* Leaves a used block to the holder of the lock, who frees it. */
HMM_HIDDEN void hmm_shard_push_pending(struct shard *shard, void *ptr);

/* Tells purge.c what has changed, if that is worth while, and releases the lock. */
HMM_HIDDEN void hmm_shard_exit(struct shard *shard, struct visit *visit);

/* The same, so that no pending block is left behind (P3); ends the visit. */
HMM_HIDDEN void hmm_shard_leave(struct shard *shard, struct visit *visit);

/* What must not be done under the lock. */
HMM_HIDDEN void hmm_shard_end_visit(struct visit *visit);

/* Leaves the shard after a change, and does what that entails. */
HMM_HIDDEN void hmm_shard_finish(struct shard *shard, struct visit *visit);

/* The lock was released after a short way: P3. */
HMM_HIDDEN HMM_COLD void hmm_shard_look_again(struct shard *shard, struct crime *crime);

/* Releases the lock after a change that moved a block to or from the shelf, and no more. */
static HMM_INLINE void shard_leave_shelf(struct shard *shard, struct crime *crime)
{
    hmm_lock_release(&shard->lock);
    if (UNLIKELY(atomic_load_explicit(&shard->pending, memory_order_seq_cst) != NULL)) {
        hmm_shard_look_again(shard, crime);
    }
}

/* -------------------------------------------------------------------------------- shard_purge.c */

/* Gives dirty memory of the shard back, one block or wilderness after the other, until it is so
 * much, and what is on the shelf only after all else, or not at all. Returns how much it was. The
 * lock is not held. */
HMM_HIDDEN size_t hmm_shard_purge(struct shard *shard, size_t budget_bytes, bool may_clear_shelf,
                                  struct crime *crime);

/* Gives back the pages of free blocks that are too small for that, however few, until it is so
 * much. Returns how much it was. The lock is not held. */
HMM_HIDDEN HMM_COLD size_t hmm_shard_trim(struct shard *shard, size_t budget_bytes,
                                          struct crime *crime);

/* As hmm_shard_purge, but no more than what is above the bound. */
HMM_HIDDEN HMM_COLD size_t hmm_shard_purge_excess(struct shard *shard, size_t budget_bytes,
                                                  bool may_clear_shelf, struct crime *crime);

#endif
