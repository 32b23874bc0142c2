/*
 * medium_audit.c - the medium memory's numbers, and a walk that checks the invariants of shard.h
 * and zone.h. It trusts nothing it reads.
 */
#include "block_audit.h"
#include "zone.h"

HMM_RACY void hmm_medium_get_stats(struct medium_stats *stats)
{
    *stats = (struct medium_stats){0};
    for (int i = 0; i < SHARD_COUNT_MAX; i++) {
        const struct shard *shard = &hmm_medium_shards[i];
        stats->live_bytes += shard->live_bytes;
        stats->live_count += shard->live_count;
        stats->free_bytes += shard->free_bytes + shelf_usable_bytes(&shard->shelf);
        stats->free_count += shard->touched.count + shard->purged.count + shard->shelf.count;
        stats->dirty_bytes += shard->dirty_bytes + shard->shelf.bytes;
        stats->held_bytes += shard->held_bytes;
    }
    for (size_t index = 0; index < hmm_arena.frontier_count; index++) {
        const struct granule *granule = &hmm_arena.table[index];
        if (granule_kind(granule) == GRANULE_ZONE && granule->run_offset == 0) {
            stats->zone_bytes += granule->zone.top - granule_start(granule);
        }
    }
}

static bool walk_zone(const struct granule *first, medium_visitor visit, void *context)
{
    uintptr_t at = zone_start(first);
    while (at < first->zone.top && block_is_within(block_at(at), first->zone.top)) {
        const struct block *block = block_at(at);
        if (!block_is_free(block) && !block_is_gap(block) &&
            !visit(block_payload(block), block_usable_bytes(block), context)) {
            return false;
        }
        at += block_bytes(block);
    }
    return true;
}

void hmm_medium_walk(medium_visitor visit, void *context)
{
    bool is_going_on = true;
    for (int i = 0; i < SHARD_COUNT_MAX && is_going_on; i++) {
        struct shard *shard = &hmm_medium_shards[i];
        hmm_lock_acquire(&shard->lock);
        const struct granule *first = shard->zones;
        while (first != NULL && is_going_on) {
            is_going_on = walk_zone(first, visit, context);
            first = first->zone.next;
        }
        hmm_lock_release(&shard->lock);
    }
}

static const char *audit_zone(const struct shard *shard, const struct granule *first,
                              struct census *census)
{
    const struct zone *zone = &first->zone;
    if (zone->top < zone_start(first) || zone->touched < zone->top || zone->end < zone->touched) {
        return "Z1: start, top, touched, end out of order";
    }
    for (size_t i = 0; i < zone_granule_count(first); i++) {
        if (shard_zone_at(shard, (const void *)granule_start(first + i)) != first) {
            return "Z1: a granule that does not name its zone";
        }
    }
    bool is_empty = zone->top == zone_start(first);
    if (is_empty != (shard->empty == first) ||
        (is_empty && zone->touched - granule_start(first) > EMPTY_BYTES_MAX)) {
        return "M3: an empty zone that should be gone";
    }
    bool is_last_free = false;
    const char *broken =
        audit_blocks(&shard->key, zone_start(first), zone->top, census, &is_last_free);
    return broken == NULL && is_last_free ? "Z3: a free block at the top" : broken;
}

static bool audit_is_listed_here(const void *keeper, const struct fit *fit,
                                 const struct block *block)
{
    const struct shard *shard = keeper;
    if (!shard_can_follow(shard, block) || !block_is_sealed(&shard->key, block) ||
        !block_is_free(block) || block_is_purged(block) != (fit == &shard->purged)) {
        return false;
    }
    bool is_large = block_bytes(block) >= SPARE_BYTES_MIN;
    bool is_dirty = block_dirty_bytes(shard, block) != 0;
    bool has_pages = span_bytes(block_pages(shard, block, block_bytes(block))) != 0;
    return block_is_purged(block) ? is_large || has_pages : !is_large || is_dirty;
}

/* The zones, and how much of their wilderness is dirty. */
static const char *audit_zones(const struct shard *shard, struct census *census,
                               size_t *dirty_bytes)
{
    const char *broken = NULL;
    const struct granule *prev = NULL;
    const struct granule *last_dirty = NULL;
    const struct granule *first = shard->zones;
    while (broken == NULL && first != NULL) {
        broken = first->zone.prev != prev ? "Z1: a damaged list of zones"
                                          : audit_zone(shard, first, census);
        if (broken == NULL && zone_is_dirty(shard, first)) {
            broken = prev != last_dirty ? "M5: a zone with dirty pages behind one without" : NULL;
            last_dirty = first;
        }
        *dirty_bytes += span_bytes(zone_dirty_pages(shard, &first->zone));
        prev = first;
        first = first->zone.next;
    }
    return broken == NULL && last_dirty != hmm_medium_places[shard_number(shard)].last_dirty
               ? "M5: another zone is the last with dirty pages"
               : broken;
}

/* The lists of an index that was audited: how much of their blocks is dirty. */
static size_t index_dirty_bytes(const struct shard *shard, const struct fit *fit)
{
    size_t dirty_bytes = 0;
    for (unsigned bin = 0; bin < fit_bin_count(fit); bin++) {
        for (const struct block *block = fit->bins[bin]; block != NULL; block = block->next) {
            dirty_bytes += block_dirty_bytes(shard, block);
        }
    }
    return dirty_bytes;
}

/* One list of the shelf. *count and *bytes grow by what is on it. */
static const char *audit_shelf_list(const struct shard *shard, unsigned index, size_t *count,
                                    size_t *bytes)
{
    const struct shelf *shelf = &shard->shelf;
    bool has_bit = (shelf->filled[index / SHELF_WORD_BITS] >> index % SHELF_WORD_BITS & 1) != 0;
    if (has_bit != (shelf->lists[index] != NULL)) {
        return "K1: a bit that disagrees with its list";
    }
    for (const struct block *block = shelf->lists[index]; block != NULL; block = block->next) {
        if (!shard_can_follow(shard, block) || !block_is_sealed(&shard->key, block) ||
            block_is_free(block) || !block_is_gap(block) ||
            shelf_index(block_bytes(block)) != index) {
            return "K1: a block that should not be on the shelf";
        }
        *bytes += block_bytes(block);
        *count += 1;
        if (*count > shelf->count) {
            return "K1: a block that is on the shelf twice";
        }
    }
    return NULL;
}

static const char *audit_shelf(const struct shard *shard)
{
    size_t count = 0;
    size_t bytes = 0;
    const char *broken = NULL;
    for (unsigned index = 0; broken == NULL && index < SHELF_LIST_COUNT; index++) {
        broken = audit_shelf_list(shard, index, &count, &bytes);
    }
    if (broken == NULL && (count != shard->shelf.count || bytes != shard->shelf.bytes)) {
        broken = "K2: a counter that disagrees with the shelf";
    }
    if (broken == NULL && bytes > shelf_bytes_most(&shard->shelf, shard->live_bytes)) {
        broken = "K3: too much on the shelf";
    }
    return broken;
}

static const char *audit_shard(const struct shard *shard)
{
    struct census census = {0};
    size_t dirty_bytes = 0;
    size_t touched_count = 0;
    size_t purged_count = 0;
    const char *broken = audit_zones(shard, &census, &dirty_bytes);
    if (broken == NULL) {
        broken = audit_shelf(shard);
    }
    if (broken == NULL) {
        broken = audit_bins(shard, audit_is_listed_here, &shard->touched, &touched_count);
    }
    if (broken == NULL) {
        broken = audit_bins(shard, audit_is_listed_here, &shard->purged, &purged_count);
    }
    if (broken != NULL) {
        return broken;
    }
    if (touched_count != shard->touched.count || purged_count != shard->purged.count ||
        touched_count + purged_count != census.free_count) {
        return "M1: a free block that is not listed";
    }
    dirty_bytes += index_dirty_bytes(shard, &shard->touched);
    if (census.used_bytes != shard->live_bytes || census.used_count != shard->live_count ||
        census.free_bytes != shard->free_bytes || dirty_bytes != shard->dirty_bytes ||
        is_worth_a_report(shard, shard->dirty_bytes + shard->reckoned_shelf_bytes,
                          shard->reported_bytes)) {
        return "M2: a counter that disagrees with the blocks";
    }
    return NULL;
}

const char *hmm_medium_audit(void)
{
    const char *broken = NULL;
    for (int i = 0; i < SHARD_COUNT_MAX && broken == NULL; i++) {
        struct shard *shard = &hmm_medium_shards[i];
        hmm_lock_acquire(&shard->lock);
        broken = shard->page_bytes != 0 ? audit_shard(shard) : NULL;
        hmm_lock_release(&shard->lock);
    }
    return broken;
}
