/*
 * shard.h - a shard of medium memory: its lock, its secret, its free blocks and its counters. For the
 * medium rooms only; the zones that it has are in zone.h.
 *
 * A shard has two indexes of its free blocks: one of blocks that were touched, one of large blocks
 * whose pages have all been given back. So the order of allocation, touched memory first, and what
 * to give back next are one look each.
 *
 * S1  Every free block of a shard is in `purged` if it is of SPARE_BYTES_MIN or more and has no
 *     dirty page, else in `touched`; once, and nothing else is.
 * S2  The counters of live, free and dirty memory agree with the blocks. Dirty are the pages inside
 *     free blocks of SPARE_BYTES_MIN or more but for the purged span, and those of a wilderness up
 *     to `touched`. What purge.c was told is that and what was on the shelf when the shard was last
 *     left the long way, but for a step: is_worth_a_report.
 * S3  One zone at most holds no block: `empty`, of which EMPTY_BYTES_MAX at most is touched.
 * S4  The purged span of a free block is zero, and consists of whole pages inside that block, after
 *     its links.
 */
#ifndef HMM_SHARD_H
#define HMM_SHARD_H

#include "fit.h"
#include "medium.h"
#include "shelf.h"

enum {
    SHARD_COUNT_MAX = 8,
    /* Free blocks from here on are worth a system call, and have room for a span. */
    SPARE_BYTES_MIN = 64 * 1024,
    /* Shared counters are told of changes in steps: a block that comes and goes costs none. */
    REPORT_BYTES = 64 * 1024,
    REPORT_SHARE = 256, /* of the zones, where that is more */
};

/* A free block of SPARE_BYTES_MIN or more. */
struct spare {
    struct block block;
    struct zero_span purged; /* S4; empty: start == end */
};

struct shard {
    _Alignas(LINE_BYTES) struct lock lock;
    _Atomic(struct pending *) pending; /* medium.c: P1-P5, the top first */

    /* guarded by the lock */
    size_t page_bytes; /* 0: the shard was never used */
    struct block_key key;
    struct fit touched; /* S1 */
    struct fit purged;
    struct granule *zones; /* the first granule of each, the one last used first */
    struct granule *empty; /* S3, NULL: none */
    size_t live_bytes;     /* usable bytes of used blocks */
    size_t live_count;
    size_t free_bytes; /* usable bytes of free blocks */
    size_t dirty_bytes;
    size_t placed_count;   /* blocks ever handed out */
    size_t held_bytes;     /* the zones, from end to end */
    size_t reported_bytes; /* of dirty_bytes, what purge.c was told */
    size_t reported_idle_bytes;
    size_t
        reckoned_shelf_bytes; /* shelf.bytes as of the last report or look at whether one is due */
    struct shelf shelf;
};

extern HMM_HIDDEN struct shard hmm_medium_shards[SHARD_COUNT_MAX];

/* What one call takes out of the lock with it. */
struct visit {
    struct crime *crime;  /* the caller's, of its own block or of one that was pending */
    struct granule *gone; /* empty zones to be given back, linked by next */
    size_t regret_bytes;  /* memory given back that is handed out again */
    /* The caller's, of the block handed out. Written in place: a copy of both words at once waits
     * for the stores before it, which mostly miss the cache: 340 ns a pair at random, not 225. */
    struct zero_span *zero;
    bool has_freed;
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

/* -------------------------------------------------------------------------------------- spans */

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

/* ---------------------------------------------------------------------------- the free blocks */

/* Of a free block of SPARE_BYTES_MIN or more: whole pages between its links and its last word. */
static inline struct zero_span spare_pages(const struct shard *shard, const struct block *block)
{
    uintptr_t start = page_up(shard, block_address(block) + sizeof(struct spare));
    uintptr_t end =
        align_down((uintptr_t)block_footer(block, block_bytes(block)), shard->page_bytes);
    return start < end ? (struct zero_span){start, end} : span_none;
}

/* Of a free block, and its purged span: within its pages, whatever was written there since. */
static inline size_t spare_dirty_bytes(const struct shard *shard, const struct block *block,
                                       struct zero_span *purged)
{
    *purged = span_none;
    if (block_bytes(block) < SPARE_BYTES_MIN) {
        return 0;
    }
    struct zero_span pages = spare_pages(shard, block);
    *purged = span_clip(((const struct spare *)block)->purged, pages.start, pages.end);
    return span_bytes(pages) - span_bytes(*purged);
}

/* S1 */
static inline bool is_all_purged(size_t block_bytes, size_t dirty_bytes)
{
    return block_bytes >= SPARE_BYTES_MIN && dirty_bytes == 0;
}

static inline struct fit *shard_index(struct shard *shard, size_t block_bytes, size_t dirty_bytes)
{
    return is_all_purged(block_bytes, dirty_bytes) ? &shard->purged : &shard->touched;
}

/* Makes [block, block + bytes) a free block, and keeps what it can of the span. Its neighbours must
 * not be free. */
static inline void shard_make_free(struct shard *shard, struct block *block, size_t bytes,
                                   struct zero_span zero)
{
    block_write(&shard->key, block, bytes, BLOCK_IS_FREE);
    *block_footer(block, bytes) = bytes;
    size_t dirty_bytes = 0;
    if (bytes >= SPARE_BYTES_MIN) {
        ((struct spare *)block)->purged =
            (struct zero_span){page_up(shard, zero.start), align_down(zero.end, shard->page_bytes)};
        struct zero_span purged;
        dirty_bytes = spare_dirty_bytes(shard, block, &purged);
    }
    shard->free_bytes += bytes - BLOCK_TAG_BYTES;
    shard->dirty_bytes += dirty_bytes;
    fit_insert(shard_index(shard, bytes, dirty_bytes), block);
}

/* Takes a free block out of the index. Its tag goes on saying "free" (B7). Returns its span. */
static inline struct zero_span shard_unfree(struct shard *shard, struct block *block)
{
    size_t bytes = block_bytes(block);
    struct zero_span purged;
    size_t dirty_bytes = spare_dirty_bytes(shard, block, &purged);
    shard->free_bytes -= bytes - BLOCK_TAG_BYTES;
    shard->dirty_bytes -= dirty_bytes;
    fit_remove(shard_index(shard, bytes, dirty_bytes), block, bytes);
    return purged;
}

#endif
