/*
 * zone.h - zones: runs of granules that blocks of one shard tile from below. For the
 * medium rooms only.
 *
 *     start                                  top             touched            end
 *      | word | block | block | free block |  |  wilderness, |  wilderness,     |
 *      |      |       |       |            |  |  dirty       |  never touched   |
 *
 * The blocks have the tags of block.h, but there is no sentinel: what is not a block yet is the
 * zone's wilderness, in which nothing is written, so no page is touched before a block needs it.
 * The first word, which no block can use, remembers how far the zone's memory ever reached: below
 * it, memory that is zero was given back, and touching it is a regret.
 *
 * Z1  start < top <= touched <= end; every granule of a zone names its first and its shard.
 * Z2  Blocks tile the zone from its first tag to the top, as B1-B4 of block.h say; B7 holds above
 *     the top as well.
 * Z3  No free block ends at the top: it is merged into the wilderness.
 * Z4  [touched, end) is zero.
 * Z5  A used block marked as a gap is in the hands of a thread that gives its pages back, or on
 *     the shelf (K1).
 */
#ifndef HMM_ZONE_H
#define HMM_ZONE_H

#include "shard.h"

enum {
    /* docs/experiments.md: larger zones come back later, and find adjacent dirty
     * granules less often. */
    ZONE_SHIFT = 20,
    ZONE_GRANULE_COUNT = 1 << (ZONE_SHIFT - GRANULE_SHIFT),
    /* So much of an empty zone is kept, where it is touched: a block that comes and goes alone must
     * not take a zone and give it back each time, 300 ns, and what is kept is lost to slabs. */
    EMPTY_BYTES_MAX = 256 * 1024,
};

static_assert((int)MEDIUM_BYTES_MAX + MEDIUM_ALIGN_BYTES_MAX < 1 << ZONE_SHIFT, "a zone holds any");
static_assert(BLOCK_UNIT_BYTES - BLOCK_TAG_BYTES >= sizeof(uintptr_t), "room for zone_reached");

/* The first tag. */
static inline uintptr_t zone_start(const struct granule *first)
{
    return granule_start(first) + BLOCK_UNIT_BYTES - BLOCK_TAG_BYTES;
}

static inline uintptr_t *zone_reached(const struct granule *first)
{
    return (uintptr_t *)granule_start(first);
}

static inline size_t zone_granule_count(const struct granule *first)
{
    return (first->zone.end - granule_start(first)) >> GRANULE_SHIFT;
}

/* The pages of the wilderness that were touched. */
static inline struct zero_span zone_dirty_pages(const struct shard *shard, const struct zone *zone)
{
    return (struct zero_span){page_up(shard, zone->top), page_up(shard, zone->touched)};
}

/* The zone of this shard that covers the address; NULL: none does. */
static inline struct granule *shard_zone_at(const struct shard *shard, const void *ptr)
{
    struct granule *granule = granule_of(ptr);
    bool is_ours = granule_kind(granule) == GRANULE_ZONE && granule->shard == shard_number(shard);
    return is_ours ? granule - granule->run_offset : NULL;
}

/* Whether a link of the index can be followed. */
static inline bool shard_can_follow(const struct shard *shard, const struct block *link)
{
    return fit_is_link(&shard->touched, link) && shard_zone_at(shard, block_payload(link)) != NULL;
}

/* ------------------------------------------------------------------- the list, and the counters */

static inline bool zone_is_dirty(const struct shard *shard, const struct granule *first)
{
    return span_bytes(zone_dirty_pages(shard, &first->zone)) != 0;
}

/* The zone, which is on no list, comes to where it belongs: M5. */
HMM_HIDDEN void hmm_zone_link(struct shard *shard, struct granule *first);

HMM_HIDDEN void hmm_zone_unlink(struct shard *shard, struct granule *first);

/* NULL: all are dirty. */
static inline struct granule *zone_first_clean(const struct shard *shard)
{
    const struct granule *last_dirty = hmm_medium_places[shard_number(shard)].last_dirty;
    return last_dirty != NULL ? last_dirty->zone.next : shard->zones;
}

/* It is the one last used of its kind: searches begin there (M5). */
static inline void zone_to_front(struct shard *shard, struct granule *first)
{
    const struct granule *last_dirty = hmm_medium_places[shard_number(shard)].last_dirty;
    const struct granule *prev = first->zone.prev;
    bool is_there = zone_is_dirty(shard, first) ? prev == NULL && last_dirty != NULL
                                                : prev == last_dirty && last_dirty != first;
    if (!is_there) {
        hmm_zone_unlink(shard, first);
        hmm_zone_link(shard, first);
    }
}

static inline void zone_count(struct shard *shard, const struct granule *first)
{
    shard->dirty_bytes += span_bytes(zone_dirty_pages(shard, &first->zone));
    shard->held_bytes += first->zone.end - granule_start(first);
}

static inline void zone_uncount(struct shard *shard, const struct granule *first)
{
    shard->dirty_bytes -= span_bytes(zone_dirty_pages(shard, &first->zone));
    shard->held_bytes -= first->zone.end - granule_start(first);
}

/* ---------------------------------------------------------------------------------- come and go */

/* A new zone that nobody else knows yet, as large as a zone is or, where memory is short, just
 * large enough for the request; NULL: no memory. No lock is held. */
static inline struct granule *zone_create(const struct shard *shard, size_t alignment, size_t bytes)
{
    size_t lead_bytes = alignment > BLOCK_UNIT_BYTES ? alignment + BLOCK_BYTES_MIN : 0;
    size_t count = ZONE_GRANULE_COUNT;
    struct granule *first = hmm_arena_take(count, 1);
    if (first == NULL) {
        count = align_up(BLOCK_UNIT_BYTES + lead_bytes + bytes, GRANULE_BYTES) >> GRANULE_SHIFT;
        first = hmm_arena_take(count, 1);
    }
    if (first == NULL) {
        return NULL;
    }
    struct zone *zone = &first->zone;
    zone->top = zone_start(first);
    zone->touched = zone->top;
    zone->end = granule_start(first) + (count << GRANULE_SHIFT);
    for (size_t i = 0; i < count; i++) {
        struct granule *granule = first + i;
        if (granule_is_touched(granule)) {
            zone->touched = granule_start(granule) + GRANULE_BYTES;
        }
        ASSERT(granule_owner(granule) == 0);
        granule->run_offset = (uint32_t)i;
        granule->shard = (uint8_t)shard_number(shard);
        granule_set_kind(granule, GRANULE_ZONE);
    }
    *zone_reached(first) = zone->touched;
    return first;
}

/* A zone becomes the shard's. Links of free blocks may lead to it from now on. */
static inline void zone_attach(struct shard *shard, struct granule *first)
{
    shard->touched.low = size_min(shard->touched.low, granule_start(first));
    shard->touched.high = size_max(shard->touched.high, first->zone.end);
    shard->purged.low = shard->touched.low;
    shard->purged.high = shard->touched.high;
    zone_count(shard, first);
    hmm_zone_link(shard, first);
}

/* Takes granules from `first` on out of the shard's reach. They are given back when the lock is. */
static inline void zone_leave(struct granule *first, struct visit *visit)
{
    for (size_t i = 0; i < zone_granule_count(first); i++) {
        granule_set_kind(first + i, GRANULE_FREE);
    }
    first->zone.next = visit->gone;
    visit->gone = first;
}

static inline void zone_detach(struct shard *shard, struct granule *first, struct visit *visit)
{
    zone_uncount(shard, first);
    hmm_zone_unlink(shard, first);
    zone_leave(first, visit);
}

/* A zone that holds no block any more goes; the shard keeps one, or the first part of it. */
static inline void zone_retire(struct shard *shard, struct granule *first, struct visit *visit)
{
    struct zone *zone = &first->zone;
    if (shard->empty != NULL) {
        zone_detach(shard, first, visit);
        return;
    }
    shard->empty = first;
    if (zone->touched - granule_start(first) > EMPTY_BYTES_MAX) {
        struct granule *rest = first + EMPTY_BYTES_MAX / GRANULE_BYTES;
        rest->zone = *zone;
        zone_uncount(shard, first);
        zone->end = zone->touched = granule_start(rest);
        zone_count(shard, first);
        zone_leave(rest, visit);
    }
    zone_to_front(shard, first);
}

/* ------------------------------------------------------------------------------- the wilderness */

/* The caller puts the zone to where it belongs then. */
static inline void zone_move(struct shard *shard, struct zone *zone, uintptr_t top,
                             uintptr_t touched)
{
    shard->dirty_bytes -= span_bytes(zone_dirty_pages(shard, zone));
    zone->top = top;
    zone->touched = touched;
    shard->dirty_bytes += span_bytes(zone_dirty_pages(shard, zone));
}

/* Moves the top up to `top`, into memory that may have been given back before. */
static inline void zone_raise(struct shard *shard, struct granule *first, uintptr_t top,
                              struct visit *visit)
{
    struct zone *zone = &first->zone;
    if (top > zone->touched) {
        uintptr_t reached = size_min(*zone_reached(first), top);
        visit->regret_bytes += reached > zone->touched ? reached - zone->touched : 0;
    }
    if (shard->empty == first) {
        shard->empty = NULL;
    }
    zone_move(shard, zone, top, size_max(zone->touched, top));
    zone_to_front(shard, first);
}

/* Moves the top down to `top`. `zero` is what is known of [top, the old top). */
static inline void zone_lower(struct shard *shard, struct granule *first, uintptr_t top,
                              struct zero_span zero, struct visit *visit)
{
    struct zone *zone = &first->zone;
    uintptr_t touched = zone->touched;
    if (zero.end >= touched && zero.start < touched) {
        *zone_reached(first) = size_max(*zone_reached(first), touched);
        touched = size_max(zero.start, top);
    }
    zone_move(shard, zone, top, touched);
    if (top == zone_start(first)) {
        zone_retire(shard, first, visit);
    } else {
        zone_to_front(shard, first);
    }
}

/* How far the next block would reach; UINTPTR_MAX: there is no room for it. */
static inline uintptr_t zone_reach(const struct granule *first, size_t alignment, size_t bytes)
{
    const struct zone *zone = &first->zone;
    size_t lead_bytes;
    return fit_can_place(block_at(zone->top), zone->end - zone->top, bytes, alignment, &lead_bytes)
               ? zone->top + lead_bytes + bytes
               : UINTPTR_MAX;
}

#endif
