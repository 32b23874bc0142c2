/*
 * check_blocks.c - the invariants of tagged blocks: tags, indexes of free blocks, zones, shards and
 * block heaps. See invariants.h.
 */
#include "invariants.h"

/* -------------------------------------------------------------------------------- tagged blocks */

/* What a walk over blocks found. */
struct census {
    size_t used_count;
    size_t used_bytes;
    size_t free_count;
    size_t free_bytes;
    size_t dirty_bytes;
};

/* How the walk looks at memory, and which index lists a free block. */
struct ground {
    struct check *check;
    const struct block_key *key;
    size_t page_bytes; /* of a shard; 0: no block's pages are looked at */
};

static bool word_at(const struct ground *ground, uintptr_t address, uintptr_t *word)
{
    return target_copy_cached(ground->check->reader, address, word, sizeof *word);
}

/* The tag at an address. false: it is none. */
static bool tag_at(const struct ground *ground, uintptr_t address, uintptr_t *tag)
{
    return is_aligned(address + BLOCK_TAG_BYTES, BLOCK_UNIT_BYTES) &&
           word_at(ground, address, tag) && tag_is_sealed(ground->key, block_at(address), *tag);
}

/* The dirty pages of a free block (shard.h: M2, M4). */
static size_t dirty_bytes_of(const struct ground *ground, uintptr_t block, uintptr_t tag)
{
    struct spare spare;
    const size_t bytes = tag_bytes(tag);
    if (ground->page_bytes == 0 || bytes < SPARE_BYTES_MIN || (tag & BLOCK_IS_PURGED) != 0 ||
        !target_copy_cached(ground->check->reader, block, &spare, sizeof spare)) {
        return 0;
    }
    uintptr_t start = align_up(block + sizeof spare, ground->page_bytes);
    uintptr_t end = align_down(block + bytes - sizeof(uintptr_t), ground->page_bytes);
    struct zero_span purged = span_clip(spare.purged, start, end);
    return start < end ? end - start - span_bytes(purged) : 0;
}

/* The blocks that tile [start, end). *is_last_free: whether the last is free. */
static bool check_blocks(const struct ground *ground, uintptr_t start, uintptr_t end,
                         struct census *found, bool *is_last_free)
{
    struct check *check = ground->check;
    bool is_prev_free = false;
    while (start != end) {
        uintptr_t tag;
        if (!tag_at(ground, start, &tag) || tag_bytes(tag) < BLOCK_BYTES_MIN ||
            tag_bytes(tag) > end - start || !is_aligned(tag_bytes(tag), BLOCK_UNIT_BYTES)) {
            return check_broken(check, "B1: a damaged tag: block 0x%zx",
                                (size_t)(start + BLOCK_TAG_BYTES));
        }
        const size_t bytes = tag_bytes(tag);
        const bool is_free = (tag & BLOCK_IS_FREE) != 0;
        if (((tag & BLOCK_IS_PREV_FREE) != 0) != is_prev_free) {
            return check_broken(check,
                                "B3: a tag that is wrong about the block before: block 0x%zx",
                                (size_t)(start + BLOCK_TAG_BYTES));
        }
        if (is_free) {
            uintptr_t footer = 0;
            if (!word_at(ground, start + bytes - sizeof footer, &footer) || footer != bytes) {
                return check_broken(check, "B2: a free block whose sizes disagree: block 0x%zx",
                                    (size_t)(start + BLOCK_TAG_BYTES));
            }
            if (is_prev_free) {
                return check_broken(check, "B4: two neighbours both free: block 0x%zx",
                                    (size_t)(start + BLOCK_TAG_BYTES));
            }
            found->free_count++;
            found->free_bytes += bytes - BLOCK_TAG_BYTES;
            found->dirty_bytes += dirty_bytes_of(ground, start, tag);
        } else if ((tag & BLOCK_IS_GAP) == 0) {
            found->used_count++;
            found->used_bytes += bytes - BLOCK_TAG_BYTES;
        }
        is_prev_free = is_free;
        start += bytes;
    }
    *is_last_free = is_prev_free;
    return true;
}

/* One list of an index. *count grows by its length; `bin` SIZE_MAX: it is no bin. */
static bool check_list(const struct ground *ground, const struct fit *fit, uintptr_t head,
                       size_t bin, size_t *count)
{
    struct check *check = ground->check;
    uintptr_t prev = 0;
    uintptr_t prev_bytes = 0;
    for (uintptr_t at = head; at != 0;) {
        struct block block;
        uintptr_t tag;
        if (!tag_at(ground, at, &tag) || (tag & BLOCK_IS_FREE) == 0 ||
            !target_copy_cached(check->reader, at, &block, sizeof block)) {
            return check_broken(check, "F1: a listed block that is not free: block 0x%zx",
                                (size_t)(at + BLOCK_TAG_BYTES));
        }
        if ((uintptr_t)block.prev != prev) {
            return check_broken(check, "F2: a damaged link: block 0x%zx",
                                (size_t)(at + BLOCK_TAG_BYTES));
        }
        if (bin != SIZE_MAX && fit_bin(tag_bytes(tag)) != bin) {
            return check_broken(check, "F3: a block in the wrong bin: block 0x%zx",
                                (size_t)(at + BLOCK_TAG_BYTES));
        }
        bool is_by_size = bin == SIZE_MAX && fit->policy == HMM_FIT_BEST;
        bool is_in_order =
            is_by_size && tag_bytes(tag) != prev_bytes ? tag_bytes(tag) > prev_bytes : at > prev;
        if (bin == SIZE_MAX && !is_in_order) {
            return check_broken(check, "F4: a list out of order: block 0x%zx",
                                (size_t)(at + BLOCK_TAG_BYTES));
        }
        *count += 1;
        if (*count > fit->count) {
            return check_broken(check, "F1: a block listed twice: block 0x%zx",
                                (size_t)(at + BLOCK_TAG_BYTES));
        }
        prev = at;
        prev_bytes = tag_bytes(tag);
        at = (uintptr_t)block.next;
    }
    if (bin == SIZE_MAX && (uintptr_t)fit->tail != prev) {
        return check_broken(check, "F2: a tail that is not the list's last");
    }
    return true;
}

/* All bins of a segregated index. */
static bool check_bins(const struct ground *ground, const struct fit *fit, size_t *count)
{
    struct check *check = ground->check;
    if (fit->row_count > sizeof fit->rows_filled * CHAR_BIT) {
        return check_broken(check, "F3: an index with more rows than sizes have");
    }
    for (unsigned bin = 0; bin < fit_bin_count(fit); bin++) {
        uintptr_t head = 0;
        fit_row_bits filled = 0;
        if (!target_copy_cached(check->reader, (uintptr_t)(fit->bins + bin), &head, sizeof head) ||
            !target_copy_cached(check->reader, (uintptr_t)(fit->bins_filled + fit_row_of(bin)),
                                &filled, sizeof filled)) {
            return check_broken(check, "F3: bins that are nowhere");
        }
        bool is_row_filled = (fit->rows_filled >> fit_row_of(bin) & 1) != 0;
        if (((filled >> fit_bit_of(bin) & 1) != 0) != (head != 0) ||
            is_row_filled != (filled != 0)) {
            return check_broken(check, "F3: a bit that disagrees with its bin");
        }
        if (!check_list(ground, fit, head, bin, count)) {
            return false;
        }
    }
    return true;
}

/* --------------------------------------------------------------------------------------- shards */

static bool check_zone(const struct ground *ground, size_t index, size_t shard_index,
                       struct census *found)
{
    struct check *check = ground->check;
    const struct copy *copy = check->copy;
    const struct shard *shard = &copy->shards[shard_index];
    const struct zone *zone = &copy->granules[index].zone;
    const uintptr_t base = copy_granule_start(check->copy, index);
    const uintptr_t start = base + BLOCK_UNIT_BYTES - BLOCK_TAG_BYTES;
    if (zone->top < start || zone->touched < zone->top || zone->end < zone->touched ||
        zone->end > copy_granule_start(copy, copy->arena.frontier_count)) {
        return check_broken(check, "Z1: start, top, touched, end out of order: zone 0x%zx",
                            (size_t)base);
    }
    for (size_t i = 0; i < (zone->end - base) >> GRANULE_SHIFT; i++) {
        const struct granule *granule = &copy->granules[index + i];
        if (granule->kind != GRANULE_ZONE || granule->run_offset != i ||
            granule->shard != shard_index) {
            return check_broken(check, "Z1: a granule that does not name its zone: granule 0x%zx",
                                copy_granule_start(check->copy, index + i));
        }
    }
    bool is_empty = zone->top == start;
    if (is_empty != (copy_granule_index(copy, shard->empty) == index)) {
        return check_broken(check, "M3: an empty zone that should be gone: zone 0x%zx",
                            (size_t)base);
    }
    bool is_last_free = false;
    if (!check_blocks(ground, start, zone->top, found, &is_last_free)) {
        return false;
    }
    if (is_last_free) {
        return check_broken(check, "Z3: a free block at the top: zone 0x%zx", (size_t)base);
    }
    found->dirty_bytes +=
        align_up(zone->touched, ground->page_bytes) - align_up(zone->top, ground->page_bytes);
    return true;
}

/* A list of the shelf (shelf.h). *count and *bytes grow by what is on it. */
static bool check_shelf_list(const struct ground *ground, const struct shelf *shelf, unsigned index,
                             size_t *count, size_t *bytes)
{
    struct check *check = ground->check;
    bool has_bit = (shelf->filled[index / SHELF_WORD_BITS] >> index % SHELF_WORD_BITS & 1) != 0;
    if (has_bit != (shelf->lists[index] != NULL)) {
        return check_broken(check, "K1: a bit that disagrees with its list: list %u", index);
    }
    for (uintptr_t at = (uintptr_t)shelf->lists[index]; at != 0;) {
        struct block block;
        uintptr_t tag;
        if (!tag_at(ground, at, &tag) || (tag & BLOCK_IS_GAP) == 0 || (tag & BLOCK_IS_FREE) != 0 ||
            shelf_index(tag_bytes(tag)) != index ||
            !target_copy_cached(check->reader, at, &block, sizeof block)) {
            return check_broken(check, "K1: a block that should not be on the shelf: block 0x%zx",
                                (size_t)(at + BLOCK_TAG_BYTES));
        }
        *bytes += tag_bytes(tag);
        *count += 1;
        if (*count > shelf->count) {
            return check_broken(check, "K1: a block that is on the shelf twice: block 0x%zx",
                                (size_t)(at + BLOCK_TAG_BYTES));
        }
        at = (uintptr_t)block.next;
    }
    return true;
}

static bool check_shelf(const struct ground *ground, const struct shelf *shelf)
{
    size_t count = 0;
    size_t bytes = 0;
    for (unsigned index = 0; index < SHELF_LIST_COUNT; index++) {
        if (!check_shelf_list(ground, shelf, index, &count, &bytes)) {
            return false;
        }
    }
    return (count == shelf->count && bytes == shelf->bytes) ||
           check_broken(ground->check, "K2: a counter that disagrees with the shelf");
}

static bool check_zones(const struct ground *ground, size_t shard_index, struct census *found)
{
    struct check *check = ground->check;
    struct copy *copy = check->copy;
    const struct shard *shard = &copy->shards[shard_index];
    const struct granule *prev = NULL;
    size_t zone_count = 0;
    bool is_prev_dirty = true;
    for (const struct granule *at = shard->zones; at != NULL; zone_count++) {
        size_t index = copy_granule_index(copy, at);
        if (index == SIZE_MAX || zone_count > copy->arena.frontier_count ||
            !copy_refresh_zone(check->reader, copy, index) ||
            copy->granules[index].zone.prev != prev) {
            return check_broken(check, "Z1: a damaged list of zones: shard %zu", shard_index);
        }
        if (!check_zone(ground, index, shard_index, found)) {
            return false;
        }
        bool is_dirty = zone_is_dirty(shard, &copy->granules[index]);
        if (is_dirty && !is_prev_dirty) {
            return check_broken(check, "M5: a zone with dirty pages behind one without: zone 0x%zx",
                                copy_granule_start(copy, index));
        }
        is_prev_dirty = is_dirty;
        prev = at;
        at = copy->granules[index].zone.next;
    }
    return true;
}

bool check_shard(struct check *check, size_t shard_index)
{
    const struct shard *shard = &check->copy->shards[shard_index];
    const struct ground ground = {check, &shard->key, shard->page_bytes};
    struct census found = {0};
    size_t listed_count = 0;
    if (shard->page_bytes == 0 || !is_power_of_two(shard->page_bytes)) {
        return shard->page_bytes == 0 || check_broken(check, "M2: a shard's pages have a size");
    }
    if (!check_zones(&ground, shard_index, &found)) {
        return false;
    }
    if (!check_shelf(&ground, &shard->shelf) ||
        !check_bins(&ground, &shard->touched, &listed_count)) {
        return false;
    }
    if (listed_count != shard->touched.count) {
        return check_broken(check, "F1: an index knows how many blocks it lists: shard %zu",
                            shard_index);
    }
    listed_count = 0;
    if (!check_bins(&ground, &shard->purged, &listed_count)) {
        return false;
    }
    if (shard->touched.count + listed_count != found.free_count) {
        return check_broken(check, "M1: a free block that is not listed: shard %zu", shard_index);
    }
    if (found.used_count != shard->live_count || found.used_bytes != shard->live_bytes ||
        found.free_bytes != shard->free_bytes || found.dirty_bytes != shard->dirty_bytes) {
        return check_broken(check, "M2: a counter that disagrees with the blocks: shard %zu",
                            shard_index);
    }
    return true;
}

/* ---------------------------------------------------------------------------------------- heaps */

bool check_heap(struct check *check, size_t heap_index)
{
    const struct heap_copy *copied = &check->copy->heaps[heap_index];
    const struct heap *heap = &copied->handle.heap;
    const struct ground ground = {check, &heap->key, 0};
    struct census found = {0};
    size_t listed_count = 0;
    for (size_t i = 0; i < copied->region_count; i++) {
        const struct region *region = &check->copy->regions[copied->first_region + i].region;
        const uintptr_t sentinel = region->brk - BLOCK_TAG_BYTES;
        bool is_last_free = false;
        uintptr_t tag;
        if (region->first == 0) {
            continue;
        }
        if (!check_blocks(&ground, region->first, sentinel, &found, &is_last_free)) {
            return false;
        }
        if (!tag_at(&ground, sentinel, &tag) || tag_bytes(tag) != 0 || (tag & BLOCK_IS_FREE) != 0 ||
            ((tag & BLOCK_IS_PREV_FREE) != 0) != is_last_free) {
            return check_broken(check, "B5: a damaged sentinel: region 0x%zx",
                                (size_t)region->base);
        }
    }
    if (!(fit_is_segregated(&heap->fit) ? check_bins(&ground, &heap->fit, &listed_count)
                                        : check_list(&ground, &heap->fit, (uintptr_t)heap->fit.head,
                                                     SIZE_MAX, &listed_count))) {
        return false;
    }
    if (listed_count != found.free_count || heap->fit.count != found.free_count) {
        return check_broken(check, "F1: a free block that is not listed: heap 0x%zx",
                            (size_t)copied->address);
    }
    if (heap->live_count != found.used_count || heap->live_bytes != found.used_bytes ||
        heap->free_bytes != found.free_bytes || heap->peak_live_bytes < found.used_bytes) {
        return check_broken(check, "H1: a counter that disagrees with the blocks: heap 0x%zx",
                            (size_t)copied->address);
    }
    return true;
}
