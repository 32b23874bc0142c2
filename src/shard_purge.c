/*
 * shard_purge.c - a shard's dirty pages, given back: of large free blocks and of the wilderness,
 * when there is too much, and of all others when somebody asks for it.
 *
 * That happens with no lock held: the range becomes a gap first (Z5). A child of fork() loses the
 * gaps that other threads held then: one each, or those of a zone.
 */
#include "huge.h"
#include "medium_verify.h"
#include "purge.h"

enum {
    /* One locked page must not end all giving back: so often a call goes on. */
    REFUSALS_MAX = 4,
};

/* A gap in a zone, whose holder gives its pages back. */
struct gap {
    struct granule *first; /* NULL: there is nothing to give back, or a crime */
    struct block *block;
    struct zero_span before; /* what is zero already */
    struct zero_span after;  /* what is zero then; whole pages, and a tag perhaps */
};

/* The largest of the free blocks that have dirty pages, roughly; NULL: there is none. */
static struct block *shard_largest_dirty(const struct shard *shard)
{
    const struct fit *fit = &shard->touched;
    if (fit->rows_filled == 0) {
        return NULL;
    }
    unsigned row = bit_highest(fit->rows_filled);
    unsigned bin = (row << FIT_BINS_SHIFT) + bit_highest(fit->bins_filled[row]);
    return bin >= fit_bin(SPARE_BYTES_MIN) ? fit->bins[bin] : NULL;
}

static struct gap block_make_gap(struct shard *shard, struct block *block, struct crime *crime)
{
    struct granule *first = shard_verify_found(shard, block, crime);
    if (first == NULL) {
        return (struct gap){0};
    }
    struct zero_span purged = shard_unfree(shard, block);
    block_set_flags(&shard->key, block, BLOCK_IS_GAP, BLOCK_IS_FREE);
    block_set_flags(&shard->key, block_next(block), 0, BLOCK_IS_PREV_FREE);
    return (struct gap){first, block, purged, block_pages(shard, block, block_bytes(block))};
}

/* The gap reaches one tag beyond the pages, lest the next block's tag lie in them. At the end of
 * the zone there is no room for one. */
static struct gap wilderness_make_gap(struct shard *shard, struct granule *first,
                                      struct visit *visit)
{
    const struct zone *zone = &first->zone;
    struct block *block = block_at(zone->top);
    struct zero_span pages = zone_dirty_pages(shard, zone);
    uintptr_t end = pages.end + BLOCK_UNIT_BYTES - BLOCK_TAG_BYTES;
    end = end <= zone->end ? end : end - BLOCK_UNIT_BYTES;
    zone_raise(shard, first, end, visit);
    block_write(&shard->key, block, end - block_address(block), BLOCK_IS_GAP);
    pages.end = size_max(pages.end, zone->touched);
    return (struct gap){first, block, span_none, pages};
}

/* Takes dirty pages out of everybody's reach: of a block, or of a wilderness. */
static struct gap shard_make_gap(struct shard *shard, bool may_clear_shelf, struct visit *visit)
{
    struct block *block = shard_largest_dirty(shard);
    struct granule *first = shard->zones;
    if (may_clear_shelf && block == NULL && (first == NULL || !zone_is_dirty(shard, first))) {
        hmm_shard_clear_shelf(shard, 0, visit);
        block = shard_largest_dirty(shard);
        first = shard->zones;
    }
    if (visit->crime->what != NULL) {
        return (struct gap){0};
    }
    if (block != NULL) {
        return block_make_gap(shard, block, visit->crime);
    }
    return first != NULL && zone_is_dirty(shard, first) ? wilderness_make_gap(shard, first, visit)
                                                        : (struct gap){0};
}

size_t hmm_shard_purge(struct shard *shard, size_t budget_bytes, bool may_clear_shelf,
                       struct crime *crime)
{
    struct visit visit = {.crime = crime};
    size_t purged_bytes = 0;
    bool is_purged = true;
    while (is_purged && purged_bytes < budget_bytes && crime->what == NULL) {
        hmm_lock_acquire(&shard->lock);
        struct gap gap = shard_make_gap(shard, may_clear_shelf, &visit);
        hmm_shard_exit(shard, &visit);
        if (gap.first == NULL) {
            break;
        }
        size_t bytes = align_down(span_bytes(gap.after), shard->page_bytes);
        is_purged = hmm_purge_pages(gap.after.start, bytes);
        purged_bytes += is_purged ? bytes - span_bytes(gap.before) : 0;
        hmm_lock_acquire(&shard->lock);
        if (shard_verify_tag(shard, gap.first, gap.block, crime) &&
            shard_verify_neighbours(shard, gap.first, gap.block, crime)) {
            hmm_shard_put(shard, gap.first, gap.block, is_purged ? gap.after : gap.before, &visit);
        }
        hmm_shard_exit(shard, &visit);
    }
    hmm_shard_end_visit(&visit);
    return purged_bytes;
}

/* --------------------------------------------------------------------------------- small blocks */

/* The same of a small block, written into its payload, which is nobody else's while its tag is the
 * lock's. */
struct small_gap {
    uintptr_t tag;
    struct small_gap *next; /* of the same zone */
    struct zero_span zero;  /* its whole pages, or none of them, if they could not be given back */
};

static_assert(sizeof(struct small_gap) <= sizeof(struct spare), "before the pages");

static bool is_worth_a_gap(const struct shard *shard, const struct block *block)
{
    size_t bytes = block_bytes(block);
    return block_is_free(block) && !block_is_purged(block) && bytes < SPARE_BYTES_MIN &&
           span_bytes(block_pages(shard, block, bytes)) != 0;
}

/* Of all such blocks of a zone, up to the first crime. */
static struct small_gap *zone_make_small_gaps(struct shard *shard, const struct granule *first,
                                              struct crime *crime)
{
    struct small_gap *all = NULL;
    uintptr_t at = zone_start(first);
    while (at < first->zone.top && shard_verify_tag(shard, first, block_at(at), crime)) {
        struct block *block = block_at(at);
        at += block_bytes(block);
        if (!is_worth_a_gap(shard, block)) {
            continue;
        }
        struct gap gap = block_make_gap(shard, block, crime);
        if (gap.first == NULL) {
            break;
        }
        struct small_gap *small = (struct small_gap *)block;
        small->next = all;
        small->zero = gap.after;
        all = small;
    }
    return all;
}

/* How many bytes went. */
static size_t small_gaps_purge(struct small_gap *all, int *refusals)
{
    size_t purged_bytes = 0;
    for (struct small_gap *small = all; small != NULL; small = small->next) {
        bool is_purged =
            *refusals < REFUSALS_MAX && hmm_purge_pages(small->zero.start, span_bytes(small->zero));
        small->zero = is_purged ? small->zero : span_none;
        purged_bytes += span_bytes(small->zero);
        *refusals += !is_purged;
    }
    return purged_bytes;
}

static bool is_between_used(const struct granule *first, const struct block *block)
{
    const struct block *next = block_next(block);
    return !block_is_prev_free(block) && block_address(next) != first->zone.top &&
           !block_is_free(next);
}

/* They are free blocks again, up to the first crime. The last one may take the zone along. */
static void small_gaps_put(struct shard *shard, struct granule *first, struct small_gap *all,
                           struct visit *visit)
{
    while (all != NULL) {
        struct block *block = (struct block *)all;
        const struct zero_span zero = all->zero;
        all = all->next;
        if (!shard_verify_tag(shard, first, block, visit->crime) ||
            !shard_verify_neighbours(shard, first, block, visit->crime)) {
            return;
        }
        bool is_alone = is_between_used(first, block);
        hmm_shard_put(shard, first, block, zero, visit);
        if (is_alone && span_bytes(zero) != 0) {
            shard_note_purged(shard, block);
        }
    }
}

static size_t zone_count_all(const struct shard *shard)
{
    size_t count = 0;
    for (const struct granule *first = shard->zones; first != NULL; first = first->zone.next) {
        count++;
    }
    return count;
}

/* Zone by zone, because what is a gap nobody else can have. A zone that others move to the front
 * meanwhile is in use and may be missed; threads that do the same share the zones. */
size_t hmm_shard_trim(struct shard *shard, size_t budget_bytes, struct crime *crime)
{
    struct visit visit = {.crime = crime};
    struct granule **next_zone = &hmm_medium_places[shard_number(shard)].walker;
    size_t purged_bytes = 0;
    int refusals = 0;
    hmm_lock_acquire(&shard->lock);
    size_t zone_count = zone_count_all(shard);
    *next_zone = shard->zones;
    while (zone_count-- > 0 && *next_zone != NULL && crime->what == NULL &&
           purged_bytes < budget_bytes && refusals < REFUSALS_MAX) {
        struct granule *first = *next_zone;
        *next_zone = first->zone.next;
        struct small_gap *all = zone_make_small_gaps(shard, first, crime);
        hmm_shard_exit(shard, &visit);
        if (all != NULL) {
            hmm_huge_withdraw();
            purged_bytes += small_gaps_purge(all, &refusals);
        }
        hmm_lock_acquire(&shard->lock);
        small_gaps_put(shard, first, all, &visit);
    }
    hmm_shard_exit(shard, &visit);
    hmm_shard_end_visit(&visit);
    return purged_bytes;
}

/* ---------------------------------------------------------------------------------------------- */

size_t hmm_shard_purge_excess(struct shard *shard, size_t budget_bytes, bool may_clear_shelf,
                              struct crime *crime)
{
    size_t purged_bytes = 0;
    budget_bytes = size_min(hmm_purge_excess_bytes(), budget_bytes);
    if (budget_bytes != 0) {
        struct visit visit = {.crime = crime};
        purged_bytes = hmm_shard_purge(shard, budget_bytes, may_clear_shelf, crime);
        /* Purging has not looked for who has pushed meanwhile (P3). */
        hmm_lock_acquire(&shard->lock);
        hmm_shard_leave(shard, &visit);
    }
    return purged_bytes;
}
