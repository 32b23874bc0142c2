/*
 * snapshot.c - from the target's tables to what reader.h shows.
 */
#include "copy.h"

#include <stdlib.h>

enum {
    /* More attempts where a walk over blocks met the middle of a change. */
    WALK_TRIES_MAX = 3,
    /* Counters are read often, of processes that do not rest: there a mark must do. */
    COUNTERS_TRIES_MAX = 1,
    ALL_TRIES_MAX = 4,
};

/* ---------------------------------------------------------------------------------------- slabs */

/* The thread that owns the slab; they are in the order of the copy, unused ones last. */
static uint16_t owner_index(const struct copy *copy, uintptr_t owner)
{
    return (uint16_t)size_min(copy_owner_index(copy, owner), NO_THREAD);
}

enum slab_view_state copy_slab_state(const struct granule *slab)
{
    if (slab->owner == OWNER_DORMANT) {
        return SLAB_VIEW_DORMANT;
    }
    switch (remote_state(slab->remote)) {
    case REMOTE_ASLEEP:
        return SLAB_VIEW_ASLEEP;
    case REMOTE_WOKEN:
        return SLAB_VIEW_WOKEN;
    default:
        return slab->state == SLAB_FULL      ? SLAB_VIEW_FULL
               : slab->state == SLAB_CURRENT ? SLAB_VIEW_CURRENT
                                             : SLAB_VIEW_PARTIAL;
    }
}

/* All but what threads hold of it. */
static void slab_view(const struct copy *copy, size_t index, struct granule_view *view)
{
    const struct granule *slab = &copy->granules[index];
    view->kind = VIEW_SLAB;
    view->size_class = (uint8_t)copy_class(slab);
    view->state = (uint8_t)copy_slab_state(slab);
    view->carved_slots = (uint16_t)copy_slots(copy, slab);
    view->used_slots = (uint16_t)(view->carved_slots - copy_free_slots(copy, slab));
    view->thread = owner_index(copy, slab->owner);
}

static void slab_cache(struct snapshot *snapshot, size_t index, uint32_t count)
{
    if (index >= snapshot->frontier_count || snapshot->granules[index].kind != VIEW_SLAB) {
        snapshot->is_unfit |= count != 0;
        return;
    }
    struct granule_view *view = &snapshot->granules[index];
    uint32_t most = view->used_slots;
    count = count < most ? count : most;
    view->cached_slots = (uint16_t)(view->cached_slots + count);
    view->used_slots = (uint16_t)(view->used_slots - count);
}

/* What a guarded thread holds back, if it holds something: a slot or a medium block. */
static void held_count(const struct copy *copy, const void *ptr, size_t bytes,
                       struct snapshot *snapshot)
{
    uintptr_t offset = (uintptr_t)ptr - copy->arena.base;
    size_t index = offset >> GRANULE_SHIFT;
    if (index >= snapshot->frontier_count) {
        return;
    }
    if (snapshot->granules[index].kind == VIEW_SLAB) {
        slab_cache(snapshot, index, 1);
    } else if (snapshot->granules[index].kind == VIEW_ZONE) {
        snapshot->medium.cached_bytes += bytes;
        snapshot->medium.cached_count++;
    }
}

static void thread_caches(const struct copy *copy, const struct thread_copy *thread,
                          struct snapshot *snapshot)
{
    for (size_t size_class = 0; size_class < CLASS_COUNT; size_class++) {
        slab_cache(snapshot, copy_granule_index(copy, thread->thread.classes[size_class].current),
                   thread->bin_counts[size_class]);
    }
    for (size_t i = 0; i < BATCH_COUNT; i++) {
        const struct batch *batch = &thread->thread.batches[i];
        if (batch->slab != NULL) {
            slab_cache(snapshot, copy_granule_index(copy, batch->slab), batch->chain.count);
        }
    }
    for (size_t i = 0; i < QUARANTINE_COUNT_MAX; i++) {
        const struct held_block *block = &thread->quarantine.blocks[i];
        held_count(copy, block->ptr, block->bytes, snapshot);
        held_count(copy, thread->quarantine.slots[i].slot, 0, snapshot);
    }
}

static void slab_count(struct snapshot *snapshot, struct granule_view *view)
{
    struct class_view *class = &snapshot->classes[view->size_class];
    class->slab_count++;
    class->carved_slots += view->carved_slots;
    class->used_slots += view->used_slots;
    class->cached_slots += view->cached_slots;
    view->live_bytes = (uint32_t)(view->used_slots * class->slot_bytes);
    if (view->thread != NO_THREAD) {
        snapshot->threads[view->thread].slab_count++;
    }
}

/* ------------------------------------------------------------------------------------- granules */

/* What of a large block lies in one of its granules. */
static void run_view(const struct copy *copy, const struct granule *run, size_t index,
                     size_t offset, struct granule_view *view)
{
    const uintptr_t start = copy_granule_start(copy, index + offset);
    const uintptr_t end = start + GRANULE_BYTES;
    const uintptr_t low = size_max(start, run->run.start);
    const uintptr_t high =
        size_min(end, run->run.start + size_min(run->run.bytes, OBJECT_BYTES_MAX));
    view->kind = VIEW_LARGE;
    view->thread = NO_THREAD;
    view->first_offset = (uint32_t)offset;
    view->live_bytes = run->run.start != 0 && low < high ? (uint32_t)(high - low) : 0;
}

/* The kind of a granule, and of those behind it if it is the first of a large run. Returns the next
 * one to look at. */
static size_t granule_look(const struct copy *copy, struct snapshot *snapshot, size_t index)
{
    const struct granule *granule = &copy->granules[index];
    struct granule_view *view = &snapshot->granules[index];
    bool is_taken = copy_is_taken(copy, index);
    bool is_touched = copy_is_touched(copy, index);
    view->thread = NO_THREAD;
    if (!is_taken) {
        view->kind = is_touched ? VIEW_DIRTY : VIEW_CLEAN;
        return index + 1;
    }
    switch (granule_kind(granule)) {
    case GRANULE_SLAB:
        slab_view(copy, index, view);
        return index + 1;
    case GRANULE_ZONE:
        view->kind = VIEW_ZONE;
        view->first_offset = granule->run_offset;
        snapshot->medium.zone_count += granule->run_offset == 0;
        return index + 1;
    case GRANULE_LARGE:
        for (size_t i = 0; i < granule->run.granule_count; i++) {
            run_view(copy, granule, index, i, &snapshot->granules[index + i]);
        }
        snapshot->large.live_count += granule->run.start != 0;
        snapshot->large.live_bytes += granule->run.start != 0 ? granule->run.bytes : 0;
        snapshot->large.held_bytes += granule->run.granule_count << GRANULE_SHIFT;
        return index + granule->run.granule_count;
    case GRANULE_EMPTY:
        snapshot->empty_count += granule->empty.live_count;
        view->kind = VIEW_FENCE;
        return index + 1;
    case GRANULE_FENCE:
        view->kind = VIEW_FENCE;
        return index + 1;
    default:
        view->kind = VIEW_TAKEN;
        return index + 1;
    }
}

static void granules_view(const struct copy *copy, struct snapshot *snapshot)
{
    snapshot->frontier_count = copy->arena.frontier_count;
    snapshot->granule_count = size_max(copy->arena.frontier_count, copy->arena.populated_count);
    snapshot->granules = must_allocate(snapshot->granule_count, sizeof *snapshot->granules);
    for (size_t index = 0; index < snapshot->frontier_count;) {
        index = granule_look(copy, snapshot, index);
    }
    for (size_t index = snapshot->frontier_count; index < snapshot->granule_count; index++) {
        snapshot->granules[index].kind = VIEW_BEYOND;
        snapshot->granules[index].thread = NO_THREAD;
    }
    for (size_t i = 0; i < copy->thread_count; i++) {
        if (copy->threads[i].standing != THREAD_UNUSED) {
            thread_caches(copy, &copy->threads[i], snapshot);
        }
    }
    for (size_t index = 0; index < snapshot->frontier_count; index++) {
        if (snapshot->granules[index].kind == VIEW_SLAB) {
            slab_count(snapshot, &snapshot->granules[index]);
        }
    }
    for (size_t i = 0; i < CLASS_COUNT; i++) {
        struct class_view *class = &snapshot->classes[i];
        class->free_slots = class->carved_slots - class->used_slots - class->cached_slots;
    }
}

/* -------------------------------------------------------------------------------------- threads */

static void thread_view(const struct thread_copy *thread, struct snapshot *snapshot)
{
    struct thread_view view = {
        .pointer = thread->standing == THREAD_LIVE ? copy_thread_pointer(thread) : 0,
        .is_dormant = thread->standing == THREAD_DORMANT,
        .batched_slots = thread->standing == THREAD_LIVE ? thread->thread.batched_slots : 0,
        .refill_count = thread->thread.refill_count,
    };
    for (size_t i = 0; i < CLASS_COUNT; i++) {
        view.cached_bytes += thread->bin_counts[i] * snapshot->classes[i].slot_bytes;
        view.handed_slots += thread->thread.classes[i].handed_slots;
        snapshot->classes[i].handed_slots += thread->thread.classes[i].handed_slots;
    }
    if (thread->standing != THREAD_UNUSED) {
        snapshot->threads[snapshot->thread_count++] = view;
        snapshot->live_thread_count += thread->standing == THREAD_LIVE;
    }
}

static void threads_view(const struct copy *copy, struct snapshot *snapshot)
{
    snapshot->threads = must_allocate(copy->thread_count, sizeof *snapshot->threads);
    for (size_t i = 0; i < CLASS_COUNT; i++) {
        snapshot->classes[i].slot_bytes = class_bytes((unsigned)i);
    }
    for (size_t i = 0; i < copy->thread_count; i++) {
        thread_view(&copy->threads[i], snapshot);
    }
}

/* -------------------------------------------------------------------------------- tagged blocks */

static void medium_view(const struct copy *copy, struct medium_view *medium)
{
    for (size_t i = 0; i < SHARD_COUNT_MAX; i++) {
        const struct shard *shard = &copy->shards[i];
        medium->live_bytes += shard->live_bytes;
        medium->live_count += shard->live_count;
        medium->free_bytes += shard->free_bytes + shelf_usable_bytes(&shard->shelf);
        medium->free_count += shard->touched.count + shard->purged.count + shard->shelf.count;
        medium->held_bytes += shard->held_bytes;
        medium->dirty_bytes += shard->dirty_bytes + shard->shelf.bytes;
        medium->placed_count += shard->placed_count;
    }
    /* To the shards what is held back is live. */
    medium->cached_bytes = size_min(medium->cached_bytes, medium->live_bytes);
    medium->cached_count = size_min(medium->cached_count, medium->live_count);
    medium->live_bytes -= medium->cached_bytes;
    medium->live_count -= medium->cached_count;
}

/* How far its break can move, as the library counts it: to the limit that it was given. The program
 * break has no end, and what is held counts. */
static size_t heap_capacity_bytes(const struct copy *copy, const struct heap_copy *heap,
                                  size_t break_bytes)
{
    size_t bytes = 0;
    for (size_t i = 0; i < heap->region_count; i++) {
        const struct region *region = &copy->regions[heap->first_region + i].region;
        size_t whole_bytes = region->limit - region->base;
        size_t reach_bytes = size_less(whole_bytes, region->gap_bytes);
        bytes = size_min(bytes, SIZE_MAX - reach_bytes) + reach_bytes;
    }
    bytes = size_max(size_min(bytes, heap->handle.heap.grant.quota_bytes), break_bytes);
    return bytes > SIZE_MAX / 2 ? break_bytes : bytes;
}

/* The regions' own sums. */
static void heap_measure(const struct copy *copy, const struct heap_copy *heap, HmmHeapStats *stats)
{
    for (size_t i = 0; i < heap->region_count; i++) {
        const struct region *region = &copy->regions[heap->first_region + i].region;
        stats->break_bytes += size_less(region->brk - region->base, region->gap_bytes);
    }
    stats->capacity_bytes = heap_capacity_bytes(copy, heap, stats->break_bytes);
    size_t used_bytes = stats->live_bytes + heap->held_bytes + stats->free_bytes;
    stats->overhead_bytes = size_less(stats->break_bytes, used_bytes);
}

static void heaps_view(const struct copy *copy, struct snapshot *snapshot)
{
    snapshot->heaps = must_allocate(copy->heap_count, sizeof *snapshot->heaps);
    snapshot->regions = must_allocate(copy->region_count, sizeof *snapshot->regions);
    snapshot->heap_count = copy->heap_count;
    snapshot->region_count = copy->region_count;
    for (size_t i = 0; i < copy->heap_count; i++) {
        const struct heap_copy *from = &copy->heaps[i];
        const struct heap *heap = &from->handle.heap;
        snapshot->heaps[i] = (struct heap_view){
            .address = from->address,
            .is_process = from->is_process,
            .is_nested = from->is_nested,
            .fit = heap->fit.policy,
            .held_bytes = from->held_bytes,
            .held_count = from->held_count,
            .stats = {.live_bytes = heap->live_bytes - from->held_bytes,
                      .live_count = heap->live_count - from->held_count,
                      .free_bytes = heap->free_bytes,
                      .free_count = heap->fit.count,
                      .peak_live_bytes = heap->peak_live_bytes,
                      .failed_count = heap->failed_count,
                      .failed_bytes_max = heap->failed_bytes_max},
            .first_region = from->first_region,
            .region_count = from->region_count,
        };
        heap_measure(copy, from, &snapshot->heaps[i].stats);
    }
    for (size_t i = 0; i < copy->region_count; i++) {
        const struct region *region = &copy->regions[i].region;
        snapshot->regions[i] = (struct region_view){region->base, region->first, region->brk,
                                                    region->limit, copy->regions[i].heap};
    }
}

static int piece_compare(const void *address, const void *piece)
{
    uintptr_t start = ((const struct piece *)piece)->start;
    return (*(const uintptr_t *)address > start) - (*(const uintptr_t *)address < start);
}

/* Zones' pieces come first, in the order of addresses. */
static void pieces_mark_held(const struct copy *copy, struct snapshot *snapshot)
{
    size_t count = 0;
    while (count < snapshot->piece_count && snapshot->pieces[count].heap < 0) {
        count++;
    }
    for (size_t i = 0; count != 0 && i < copy->thread_count * QUARANTINE_COUNT_MAX; i++) {
        const struct thread_copy *thread = &copy->threads[i / QUARANTINE_COUNT_MAX];
        const void *ptr = thread->quarantine.blocks[i % QUARANTINE_COUNT_MAX].ptr;
        const uintptr_t start = (uintptr_t)ptr - BLOCK_TAG_BYTES;
        struct piece *piece =
            ptr == NULL || thread->standing == THREAD_UNUSED
                ? NULL
                : bsearch(&start, snapshot->pieces, count, sizeof *snapshot->pieces, piece_compare);
        if (piece != NULL && piece->kind == PIECE_USED) {
            piece->kind = PIECE_HELD;
        }
    }
}

static void pieces_mark_held_in_heaps(const struct copy *copy, struct snapshot *snapshot)
{
    for (size_t i = 0; i < snapshot->piece_count; i++) {
        struct piece *piece = &snapshot->pieces[i];
        const uintptr_t ptr = piece->start + BLOCK_TAG_BYTES;
        if (piece->kind == PIECE_USED && piece->heap >= 0 &&
            copy->heaps[piece->heap].held_count != 0 &&
            bsearch(&ptr, copy->heaps[piece->heap].places, GUARD_PLACES_MAX, sizeof ptr,
                    address_compare) != NULL) {
            piece->kind = PIECE_HELD;
        }
    }
}

/* Zones' blocks, spread over their granules. */
static void zones_fill(struct snapshot *snapshot)
{
    for (size_t i = 0; i < snapshot->piece_count; i++) {
        const struct piece *piece = &snapshot->pieces[i];
        if (piece->heap >= 0 || piece->kind != PIECE_USED) {
            continue;
        }
        uintptr_t start = piece->start + BLOCK_TAG_BYTES - snapshot->arena_base;
        const uintptr_t end = piece->start + piece->bytes - snapshot->arena_base;
        while (start < end) {
            uintptr_t stop = size_min(end, align_down(start, GRANULE_BYTES) + GRANULE_BYTES);
            snapshot->granules[start >> GRANULE_SHIFT].live_bytes += (uint32_t)(stop - start);
            start = stop;
        }
    }
}

/* --------------------------------------------------------------------------------------- totals */

static void totals_add_slabs(struct snapshot *snapshot)
{
    struct totals *totals = &snapshot->totals;
    for (size_t i = 0; i < CLASS_COUNT; i++) {
        const struct class_view *class = &snapshot->classes[i];
        totals->live_count += class->used_slots;
        totals->live_bytes += class->used_slots * class->slot_bytes;
        totals->cached_bytes += class->cached_slots * class->slot_bytes;
        totals->free_bytes += class->free_slots * class->slot_bytes;
    }
}

static void totals_add_heaps(struct snapshot *snapshot)
{
    struct totals *totals = &snapshot->totals;
    for (size_t i = 0; i < snapshot->heap_count; i++) {
        const struct heap_view *heap = &snapshot->heaps[i];
        if (!heap->is_nested) {
            totals->live_count += heap->stats.live_count;
            totals->live_bytes += heap->stats.live_bytes;
            totals->cached_bytes += heap->held_bytes;
            totals->free_bytes += heap->stats.free_bytes;
            totals->metadata_bytes += heap->stats.overhead_bytes;
            totals->peak_bytes += heap->stats.peak_live_bytes;
            totals->held_bytes += heap->stats.break_bytes;
            totals->reserved_bytes += heap->stats.capacity_bytes;
        }
    }
}

static void totals_add(const struct copy *copy, struct snapshot *snapshot)
{
    struct totals *totals = &snapshot->totals;
    const struct medium_view *medium = &snapshot->medium;
    const size_t taken_bytes = copy->arena.taken_count << GRANULE_SHIFT;
    totals_add_slabs(snapshot);
    totals_add_heaps(snapshot);
    totals->live_count += medium->live_count + snapshot->large.live_count + snapshot->empty_count;
    totals->live_bytes += medium->live_bytes + snapshot->large.live_bytes;
    totals->cached_bytes += medium->cached_bytes;
    totals->free_bytes += medium->free_bytes;
    totals->dirty_bytes +=
        (copy->arena.dirty_count << GRANULE_SHIFT) +
        purge_dirty_bytes(&copy->purge, purge_live_bytes(&copy->purge, taken_bytes));
    totals->metadata_bytes +=
        copy_metadata_bytes(copy) +
        (medium->live_count + medium->cached_count + medium->free_count) * BLOCK_TAG_BYTES;
    totals->peak_bytes += copy->arena.taken_count_max << GRANULE_SHIFT;
    totals->held_bytes += purge_held_bytes(&copy->purge, taken_bytes);
    totals->reserved_bytes += copy->arena.bytes;
}

/* ------------------------------------------------------------------------------------- mappings */

static bool is_inside(const struct mapping_view *mapping, uintptr_t start, uintptr_t end)
{
    return mapping->start >= start && mapping->end <= end;
}

static bool is_ours(const struct copy *copy, const struct mapping_view *mapping)
{
    const struct address_range metadata = copy_metadata(copy);
    if (is_inside(mapping, metadata.start, metadata.end) ||
        is_inside(mapping, copy->arena.base, copy->arena.base + copy->arena.bytes)) {
        return true;
    }
    for (size_t i = 0; i < copy->region_count; i++) {
        const struct region *region = &copy->regions[i].region;
        if (is_inside(mapping, region->base, region_end(region))) {
            return true;
        }
    }
    return false;
}

static bool mappings_view(struct reader *reader, const struct copy *copy, unsigned wants,
                          struct snapshot *snapshot)
{
    struct mapping_list list = {0};
    size_t resident_bytes = reader->ops->resident_bytes(reader);
    bool has_sizes = (wants & READ_PAGES) != 0 || resident_bytes == SIZE_MAX;
    if (!has_sizes && (wants & READ_MAPPINGS) == 0) {
        snapshot->totals.resident_bytes = resident_bytes;
        return true;
    }
    if (!reader->ops->list(reader, has_sizes ? MAPPINGS_WITH_SIZES : MAPPINGS_PLAIN, &list)) {
        return false;
    }
    snapshot->mappings = list.entries;
    snapshot->mapping_count = list.count;
    snapshot->totals.mapping_count = list.count;
    snapshot->totals.resident_bytes = has_sizes ? 0 : resident_bytes;
    if (!has_sizes && reader->ops->swapped_bytes != NULL) {
        snapshot->totals.swapped_bytes = reader->ops->swapped_bytes(reader);
    }
    for (size_t i = 0; i < list.count; i++) {
        struct mapping_view *mapping = &list.entries[i];
        mapping->is_ours = is_ours(copy, mapping);
        snapshot->totals.resident_bytes += mapping->resident_bytes;
        snapshot->totals.swapped_bytes += mapping->swapped_bytes;
    }
    return true;
}

/* ------------------------------------------------------------------------------------ all of it */

static bool snapshot_fill(struct reader *reader, struct copy *copy, unsigned wants,
                          struct snapshot *snapshot)
{
    if (!mappings_view(reader, copy, wants, snapshot)) {
        return false;
    }
    snapshot->engine = copy->engine;
    snapshot->options = copy->options;
    snapshot->page_bytes = reader->page_bytes;
    snapshot->arena_base = copy->arena.base;
    snapshot->arena_bytes = copy->arena.bytes;
    threads_view(copy, snapshot);
    granules_view(copy, snapshot);
    medium_view(copy, &snapshot->medium);
    heaps_view(copy, snapshot);
    totals_add(copy, snapshot);
    if ((wants & READ_BLOCKS) != 0) {
        copy_pieces(reader, copy, &snapshot->pieces, &snapshot->piece_count);
        pieces_mark_held(copy, snapshot);
        pieces_mark_held_in_heaps(copy, snapshot);
        zones_fill(snapshot);
    }
    if ((wants & READ_PAGES) != 0) {
        snapshot_add_parts(reader, copy, snapshot);
    }
    snapshot->is_unfit |= copy->trouble != NULL;
    snapshot->has_changed |= copy->has_changed || snapshot->is_unfit;
    if ((wants & READ_BLOCKS) != 0) {
        snapshot->has_changed |= !copy_is_current(reader, copy);
    }
    return true;
}

const char *reader_doubt(const struct reader *reader, bool has_changed, bool is_unfit)
{
    if (!has_changed && !is_unfit) {
        return NULL;
    }
    return reader_kind(reader) == READER_CORE ? "does not fit together: hmm check says what"
           : is_unfit ? "changed while it was read, or is damaged: hmm check tells"
                      : "changed while it was read";
}

struct snapshot *reader_read(struct reader *reader, unsigned wants)
{
    wants |= (wants & READ_PAGES) != 0 ? READ_BLOCKS : 0;
    const int copy_tries = (wants & READ_BLOCKS) == 0 ? COUNTERS_TRIES_MAX : ALL_TRIES_MAX;
    for (int tries = 1;; tries++) {
        struct copy copy;
        if (!copy_take(reader, &copy, copy_tries)) {
            return NULL;
        }
        struct snapshot *snapshot = must_allocate(1, sizeof *snapshot);
        bool is_done = snapshot_fill(reader, &copy, wants, snapshot);
        bool is_enough = copy.trouble == NULL || tries == WALK_TRIES_MAX;
        copy_free(&copy);
        if (is_done && is_enough) {
            return snapshot;
        }
        snapshot_free(snapshot);
        if (!is_done) {
            return NULL;
        }
    }
}

void snapshot_free(struct snapshot *snapshot)
{
    struct mapping_list list = {snapshot->mappings, snapshot->mapping_count, 0};
    mapping_list_free(&list);
    for (size_t i = 0; i < snapshot->part_count; i++) {
        free((char *)snapshot->parts[i].name);
    }
    free(snapshot->granules);
    free(snapshot->threads);
    free(snapshot->heaps);
    free(snapshot->regions);
    free(snapshot->parts);
    free(snapshot->pieces);
    free(snapshot);
}

/* ---------------------------------------------------------------------------------------- words */

const char *part_kind_name(enum part_kind kind)
{
    static const char *const names[PART_KIND_COUNT] = {
        "live-small", "live-medium", "live-large",  "live-blocks", "live-heaps",
        "rounding",   "free-slots",  "free-blocks", "caches",      "dirty",
        "huge-pages", "metadata",    "library",     "other"};
    return names[kind];
}
