/*
 * check.c - every invariant of the heap, checked from outside on a copy.
 *
 * The names are those of arena.h (A), slab.h (S), thread.h (T), remote.h (R), block.h (B), fit.h (F),
 * zone.h (Z), shard.h (M here, S there) and heap.h (H). What a thread is changing right now is left
 * out: a core may have been taken in the middle of it.
 */
#include "copy.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { CHECK_TRIES_MAX = 5, COPY_TRIES_MAX = 4 };

struct check {
    struct reader *reader;
    const struct copy *copy;
    char *text;
    bool is_broken;
    uint8_t *listed; /* by granule: on how many lists it was met */
};

/* The first one counts. Always false. */
__attribute__((format(printf, 2, 3))) static bool broken(struct check *check, const char *format,
                                                         ...)
{
    if (!check->is_broken) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(check->text, CHECK_TEXT_MAX, format, arguments);
        va_end(arguments);
        check->is_broken = true;
    }
    return false;
}

static size_t start_of(const struct check *check, size_t index)
{
    return copy_granule_start(check->copy, index);
}

/* --------------------------------------------------------------------------------- the arena */

static bool check_arena(struct check *check)
{
    const struct copy *copy = check->copy;
    const struct arena *arena = &copy->arena;
    size_t taken_count = 0;
    size_t dirty_count = 0;
    if (arena->frontier_count > arena->committed_count ||
        arena->committed_count > arena->granule_count) {
        return broken(check, "A2: the frontier lies within what is committed");
    }
    if (arena->table_committed_count < arena->frontier_count) {
        return broken(check, "A3: every granule has a descriptor");
    }
    for (size_t index = 0; index < arena->frontier_count; index++) {
        bool is_taken = copy_bit(copy->taken, index);
        taken_count += is_taken;
        dirty_count += !is_taken && copy_bit(copy->touched, index);
        if (!is_taken && copy->granules[index].kind != GRANULE_FREE) {
            return broken(check, "A5: a free granule has no kind: granule 0x%zx",
                          start_of(check, index));
        }
        if (copy->granules[index].kind > GRANULE_EMPTY) {
            return broken(check, "A5: a granule's kind is one: granule 0x%zx",
                          start_of(check, index));
        }
    }
    size_t above = arena->frontier_count % WORD_BITS;
    size_t last = arena->frontier_count / WORD_BITS;
    if (((copy->taken[last] | copy->touched[last]) >> above) != 0) {
        return broken(check, "A1: nothing at the frontier is taken or touched");
    }
    if (taken_count != arena->taken_count || dirty_count != arena->dirty_count) {
        return broken(check,
                      "A4: the counters agree with the sets: %zu taken and %zu dirty, "
                      "counted %zu and %zu",
                      taken_count, dirty_count, (size_t)arena->taken_count,
                      (size_t)arena->dirty_count);
    }
    return true;
}

/* ---------------------------------------------------------------------------------------- slabs */

static bool check_slots(struct check *check, size_t index)
{
    static uint8_t states[SLOTS_MAX];
    const char *found = NULL;
    if (copy_slot_states(check->reader, check->copy, index, states, &found)) {
        return true;
    }
    return broken(check, "%s: slab 0x%zx of class %zu", found, start_of(check, index),
                  class_bytes((unsigned)copy_class(&check->copy->granules[index])));
}

/* One slab of a list; `owner` 0: nobody's. */
static bool check_slab(struct check *check, size_t index, size_t size_class, uintptr_t owner,
                       enum slab_state state)
{
    const struct granule *slab = &check->copy->granules[index];
    if (slab->kind != GRANULE_SLAB || slab->owner != owner) {
        return broken(check, "S2: a thread owns the slabs on its lists: slab 0x%zx",
                      start_of(check, index));
    }
    if (slab->size_class != size_class || slab->state != state) {
        return broken(check, "S2: a slab is of its list's class and state: slab 0x%zx",
                      start_of(check, index));
    }
    bool is_carved = copy_carved(slab) == class_capacity((unsigned)size_class) && slab->away == 0;
    if (state == SLAB_FULL && !is_carved) {
        return broken(check,
                      "S3: a full slab is carved to its end, and nothing is away: slab 0x%zx",
                      start_of(check, index));
    }
    if (check->listed[index]++ != 0) {
        return broken(check, "S2: a slab is on one list: slab 0x%zx", start_of(check, index));
    }
    return true;
}

/* A list of slabs from its first descriptor on. `count_wanted` SIZE_MAX: it does not say. */
static bool check_slab_list(struct check *check, const struct granule *first, size_t count_wanted,
                            size_t size_class, uintptr_t owner, enum slab_state state)
{
    const struct granule *prev = NULL;
    size_t count = 0;
    for (const struct granule *at = first; at != NULL; count++) {
        size_t index = copy_granule_index(check->copy, at);
        if (index == SIZE_MAX || count > check->copy->arena.frontier_count) {
            return broken(check, "S2: a list of slabs leads to slabs: class %zu, link 0x%zx",
                          class_bytes((unsigned)size_class), (size_t)(uintptr_t)at);
        }
        if (!check_slab(check, index, size_class, owner, state)) {
            return false;
        }
        if (check->copy->granules[index].prev != prev) {
            return broken(check, "S2: a damaged list of slabs: slab 0x%zx", start_of(check, index));
        }
        prev = at;
        at = check->copy->granules[index].next;
    }
    if (count_wanted != SIZE_MAX && count != count_wanted) {
        return broken(check, "S2: a list knows its length: class %zu",
                      class_bytes((unsigned)size_class));
    }
    return true;
}

static bool check_thread(struct check *check, const struct thread_copy *thread)
{
    const uintptr_t owner = thread->standing == THREAD_LIVE ? thread->thread.self : OWNER_DORMANT;
    for (size_t i = 0; i < CLASS_COUNT; i++) {
        const struct class_slabs *slabs = &thread->thread.classes[i];
        if (!check_slab_list(check, slabs->partial.first, slabs->partial.count, i, owner,
                             SLAB_PARTIAL) ||
            !check_slab_list(check, slabs->thin.first, slabs->thin.count, i, owner, SLAB_THIN) ||
            !check_slab_list(check, slabs->full.first, slabs->full.count, i, owner, SLAB_FULL)) {
            return false;
        }
        if (slabs->current == NULL) {
            if (thread->bins[i] != 0) {
                return broken(check, "T2: a bin holds slots of the current slab: class %zu",
                              class_bytes((unsigned)i));
            }
            continue;
        }
        size_t index = copy_granule_index(check->copy, slabs->current);
        if (index == SIZE_MAX) {
            return broken(check, "S2: a current slab is one: class %zu", class_bytes((unsigned)i));
        }
        if (!check_slab(check, index, i, owner, SLAB_CURRENT)) {
            return false;
        }
    }
    return true;
}

/* One of the two lists of a class. */
static bool check_woken_list(struct check *check, const struct granule *first, size_t size_class,
                             bool is_loose)
{
    if (!check_slab_list(check, first, SIZE_MAX, size_class, 0, SLAB_SHARED)) {
        return false;
    }
    for (const struct granule *at = first; at != NULL;) {
        size_t index = copy_granule_index(check->copy, at);
        const struct granule *slab = &check->copy->granules[index];
        if (slab->remote >> REMOTE_STATE_SHIFT != REMOTE_WOKEN + size_class ||
            (slab->loose_slots != 0) != is_loose || slab->floor_slots != 0) {
            return broken(check, "R4: a slab on one of the class's lists is woken: slab 0x%zx",
                          start_of(check, index));
        }
        if (slab->threshold > slab->need) {
            return broken(check, "R6: a woken slab's need bounds its threshold: slab 0x%zx",
                          start_of(check, index));
        }
        at = slab->next;
    }
    return true;
}

static bool check_woken(struct check *check)
{
    for (size_t i = 0; i < CLASS_COUNT; i++) {
        const struct woken *woken = &check->copy->woken[i];
        if (!check_woken_list(check, woken->first, i, false) ||
            !check_woken_list(check, woken->loose, i, true)) {
            return false;
        }
    }
    return true;
}

/* Whether the slab's owner is inside a slow path, and its lists may disagree. */
static bool is_busy(const struct copy *copy, uintptr_t owner)
{
    for (size_t i = 0; i < copy->thread_count; i++) {
        if (copy->threads[i].standing == THREAD_LIVE && copy->threads[i].thread.self == owner) {
            return copy->threads[i].thread.is_busy;
        }
    }
    return false;
}

/* Each slab by itself, and that lists have missed none. */
static bool check_all_slabs(struct check *check, bool is_anybody_busy)
{
    const struct copy *copy = check->copy;
    for (size_t index = 0; index < copy->arena.frontier_count; index++) {
        const struct granule *slab = &copy->granules[index];
        if (slab->kind != GRANULE_SLAB || is_busy(copy, slab->owner)) {
            continue;
        }
        if (slab->size_class >= CLASS_COUNT || slab->state > SLAB_SHARED ||
            slab->carved_slots > class_capacity(slab->size_class)) {
            return broken(check, "S1: a slab carves no more slots than it has: slab 0x%zx",
                          start_of(check, index));
        }
        bool is_asleep = remote_state(slab->remote) == REMOTE_ASLEEP;
        if (is_asleep && (slab->owner != 0 || check->listed[index] != 0)) {
            return broken(check, "R1: a sleeping slab is nobody's, and on no list: slab 0x%zx",
                          start_of(check, index));
        }
        if (!is_asleep && !is_anybody_busy && check->listed[index] == 0) {
            return broken(check, "T1: every slab that is awake is on a list: slab 0x%zx",
                          start_of(check, index));
        }
        if (!check_slots(check, index)) {
            return false;
        }
    }
    return true;
}

static bool check_slabs(struct check *check)
{
    const struct copy *copy = check->copy;
    bool is_anybody_busy = false;
    for (size_t i = 0; i < copy->thread_count; i++) {
        const struct thread_copy *thread = &copy->threads[i];
        if (thread->standing == THREAD_UNUSED) {
            continue;
        }
        if (thread->thread.is_busy) {
            is_anybody_busy = true;
        } else if (!check_thread(check, thread)) {
            return false;
        }
    }
    return check_woken(check) && check_all_slabs(check, is_anybody_busy);
}

/* ------------------------------------------------------------------------------ tagged blocks */

/* What a walk over blocks found. */
struct found {
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
           word_at(ground, address, tag) &&
           (tag_mix(ground->key, block_at(address), tag_word(*tag)) ^ *tag) >> CHECKSUM_SHIFT == 0;
}

static size_t tag_bytes(uintptr_t tag)
{
    return tag_word(tag) & ~(uintptr_t)BLOCK_FLAGS;
}

/* The dirty pages of a free block (shard.h: S2, S4). */
static size_t dirty_bytes_of(const struct ground *ground, uintptr_t block, size_t bytes)
{
    struct spare spare;
    if (ground->page_bytes == 0 || bytes < SPARE_BYTES_MIN ||
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
                         struct found *found, bool *is_last_free)
{
    struct check *check = ground->check;
    bool is_prev_free = false;
    while (start != end) {
        uintptr_t tag;
        if (!tag_at(ground, start, &tag) || tag_bytes(tag) < BLOCK_BYTES_MIN ||
            tag_bytes(tag) > end - start || !is_aligned(tag_bytes(tag), BLOCK_UNIT_BYTES)) {
            return broken(check, "B1: a damaged tag: block 0x%zx",
                          (size_t)(start + BLOCK_TAG_BYTES));
        }
        const size_t bytes = tag_bytes(tag);
        const bool is_free = (tag & BLOCK_IS_FREE) != 0;
        if (((tag & BLOCK_IS_PREV_FREE) != 0) != is_prev_free) {
            return broken(check, "B3: a tag that is wrong about the block before: block 0x%zx",
                          (size_t)(start + BLOCK_TAG_BYTES));
        }
        if (is_free) {
            uintptr_t footer = 0;
            if (!word_at(ground, start + bytes - sizeof footer, &footer) || footer != bytes) {
                return broken(check, "B2: a free block whose sizes disagree: block 0x%zx",
                              (size_t)(start + BLOCK_TAG_BYTES));
            }
            if (is_prev_free) {
                return broken(check, "B4: two neighbours both free: block 0x%zx",
                              (size_t)(start + BLOCK_TAG_BYTES));
            }
            found->free_count++;
            found->free_bytes += bytes - BLOCK_TAG_BYTES;
            found->dirty_bytes += dirty_bytes_of(ground, start, bytes);
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
            return broken(check, "F1: a listed block that is not free: block 0x%zx",
                          (size_t)(at + BLOCK_TAG_BYTES));
        }
        if ((uintptr_t)block.prev != prev) {
            return broken(check, "F2: a damaged link: block 0x%zx", (size_t)(at + BLOCK_TAG_BYTES));
        }
        if (bin != SIZE_MAX && fit_bin(tag_bytes(tag)) != bin) {
            return broken(check, "F3: a block in the wrong bin: block 0x%zx",
                          (size_t)(at + BLOCK_TAG_BYTES));
        }
        bool is_by_size = bin == SIZE_MAX && fit->policy == HMM_FIT_BEST;
        bool is_in_order =
            is_by_size && tag_bytes(tag) != prev_bytes ? tag_bytes(tag) > prev_bytes : at > prev;
        if (bin == SIZE_MAX && !is_in_order) {
            return broken(check, "F4: a list out of order: block 0x%zx",
                          (size_t)(at + BLOCK_TAG_BYTES));
        }
        *count += 1;
        if (*count > fit->count) {
            return broken(check, "F1: a block listed twice: block 0x%zx",
                          (size_t)(at + BLOCK_TAG_BYTES));
        }
        prev = at;
        prev_bytes = tag_bytes(tag);
        at = (uintptr_t)block.next;
    }
    if (bin == SIZE_MAX && (uintptr_t)fit->tail != prev) {
        return broken(check, "F2: a tail that is not the list's last");
    }
    return true;
}

/* All bins of a segregated index. */
static bool check_bins(const struct ground *ground, const struct fit *fit, size_t *count)
{
    struct check *check = ground->check;
    if (fit->row_count > sizeof fit->rows_filled * CHAR_BIT) {
        return broken(check, "F3: an index with more rows than sizes have");
    }
    for (unsigned bin = 0; bin < fit_bin_count(fit); bin++) {
        uintptr_t head = 0;
        fit_row_bits filled = 0;
        if (!target_copy_cached(check->reader, (uintptr_t)(fit->bins + bin), &head, sizeof head) ||
            !target_copy_cached(check->reader, (uintptr_t)(fit->bins_filled + fit_row_of(bin)),
                                &filled, sizeof filled)) {
            return broken(check, "F3: bins that are nowhere");
        }
        bool is_row_filled = (fit->rows_filled >> fit_row_of(bin) & 1) != 0;
        if (((filled >> fit_bit_of(bin) & 1) != 0) != (head != 0) ||
            is_row_filled != (filled != 0)) {
            return broken(check, "F3: a bit that disagrees with its bin");
        }
        if (!check_list(ground, fit, head, bin, count)) {
            return false;
        }
    }
    return true;
}

/* ---------------------------------------------------------------------------------------- shards */

static bool check_zone(const struct ground *ground, size_t index, size_t shard_index,
                       struct found *found)
{
    struct check *check = ground->check;
    const struct copy *copy = check->copy;
    const struct shard *shard = &copy->shards[shard_index];
    const struct zone *zone = &copy->granules[index].zone;
    const uintptr_t base = start_of(check, index);
    const uintptr_t start = base + BLOCK_UNIT_BYTES - BLOCK_TAG_BYTES;
    if (zone->top < start || zone->touched < zone->top || zone->end < zone->touched ||
        zone->end > copy_granule_start(copy, copy->arena.frontier_count)) {
        return broken(check, "Z1: start, top, touched, end out of order: zone 0x%zx", (size_t)base);
    }
    for (size_t i = 0; i < (zone->end - base) >> GRANULE_SHIFT; i++) {
        const struct granule *granule = &copy->granules[index + i];
        if (granule->kind != GRANULE_ZONE || granule->run_offset != i ||
            granule->shard != shard_index) {
            return broken(check, "Z1: a granule that does not name its zone: granule 0x%zx",
                          start_of(check, index + i));
        }
    }
    bool is_empty = zone->top == start;
    if (is_empty != (copy_granule_index(copy, shard->empty) == index)) {
        return broken(check, "M3: an empty zone that should be gone: zone 0x%zx", (size_t)base);
    }
    bool is_last_free = false;
    if (!check_blocks(ground, start, zone->top, found, &is_last_free)) {
        return false;
    }
    if (is_last_free) {
        return broken(check, "Z3: a free block at the top: zone 0x%zx", (size_t)base);
    }
    found->dirty_bytes +=
        align_up(zone->touched, ground->page_bytes) - align_up(zone->top, ground->page_bytes);
    return true;
}

static bool check_shard(struct check *check, size_t shard_index)
{
    const struct copy *copy = check->copy;
    const struct shard *shard = &copy->shards[shard_index];
    const struct ground ground = {check, &shard->key, shard->page_bytes};
    struct found found = {0};
    size_t listed_count = 0;
    size_t zone_count = 0;
    const struct granule *prev = NULL;
    if (shard->page_bytes == 0 || !is_power_of_two(shard->page_bytes)) {
        return shard->page_bytes == 0 || broken(check, "M2: a shard's pages have a size");
    }
    for (const struct granule *at = shard->zones; at != NULL; zone_count++) {
        size_t index = copy_granule_index(copy, at);
        if (index == SIZE_MAX || zone_count > copy->arena.frontier_count ||
            copy->granules[index].zone.prev != prev) {
            return broken(check, "Z1: a damaged list of zones: shard %zu", shard_index);
        }
        if (!check_zone(&ground, index, shard_index, &found)) {
            return false;
        }
        prev = at;
        at = copy->granules[index].zone.next;
    }
    if (!check_bins(&ground, &shard->touched, &listed_count)) {
        return false;
    }
    if (listed_count != shard->touched.count) {
        return broken(check, "F1: an index knows how many blocks it lists: shard %zu", shard_index);
    }
    listed_count = 0;
    if (!check_bins(&ground, &shard->purged, &listed_count)) {
        return false;
    }
    if (shard->touched.count + listed_count != found.free_count) {
        return broken(check, "M1: a free block that is not listed: shard %zu", shard_index);
    }
    if (found.used_count != shard->live_count || found.used_bytes != shard->live_bytes ||
        found.free_bytes != shard->free_bytes || found.dirty_bytes != shard->dirty_bytes) {
        return broken(check, "M2: a counter that disagrees with the blocks: shard %zu",
                      shard_index);
    }
    return true;
}

/* ---------------------------------------------------------------------------------------- heaps */

static bool check_heap(struct check *check, const struct heap_copy *copied)
{
    const struct heap *heap = &copied->handle.heap;
    const struct ground ground = {check, &heap->key, 0};
    struct found found = {0};
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
            return broken(check, "B5: a damaged sentinel: region 0x%zx", (size_t)region->base);
        }
    }
    if (!(fit_is_segregated(&heap->fit) ? check_bins(&ground, &heap->fit, &listed_count)
                                        : check_list(&ground, &heap->fit, (uintptr_t)heap->fit.head,
                                                     SIZE_MAX, &listed_count))) {
        return false;
    }
    if (listed_count != found.free_count || heap->fit.count != found.free_count) {
        return broken(check, "F1: a free block that is not listed: heap 0x%zx",
                      (size_t)copied->address);
    }
    if (heap->live_count != found.used_count || heap->live_bytes != found.used_bytes ||
        heap->free_bytes != found.free_bytes || heap->peak_live_bytes < found.used_bytes) {
        return broken(check, "H1: a counter that disagrees with the blocks: heap 0x%zx",
                      (size_t)copied->address);
    }
    return true;
}

/* --------------------------------------------------------------------------------- all of it */

static bool check_copy(struct check *check)
{
    if (check->copy->trouble != NULL) {
        return broken(check, "%s", check->copy->trouble);
    }
    if (check->copy->engine == ENGINE_FAST) {
        if (!check_arena(check) || !check_slabs(check)) {
            return false;
        }
        for (size_t i = 0; i < SHARD_COUNT_MAX; i++) {
            if (!check_shard(check, i)) {
                return false;
            }
        }
    }
    for (size_t i = 0; i < check->copy->heap_count; i++) {
        if (!check_heap(check, &check->copy->heaps[i])) {
            return false;
        }
    }
    return true;
}

/* Looks once. false: the target has gone. */
static bool check_once(struct reader *reader, char *text, bool *is_broken, bool *has_changed)
{
    struct copy copy;
    if (!copy_take(reader, &copy, COPY_TRIES_MAX)) {
        return false;
    }
    struct check check = {
        .reader = reader,
        .copy = &copy,
        .text = text,
        .listed = must_allocate(copy.arena.frontier_count, sizeof *check.listed),
    };
    (void)check_copy(&check);
    *is_broken = check.is_broken;
    *has_changed = copy.has_changed || !copy_is_current(reader, &copy);
    free(check.listed);
    copy_free(&copy);
    return true;
}

/* Of a process that runs a broken invariant counts only if every look sees the same: what is seen in
 * the middle of a change is gone at the next look. */
enum check_result reader_check(struct reader *reader, char text[CHECK_TEXT_MAX], bool *has_changed)
{
    char last[CHECK_TEXT_MAX] = "";
    for (int tries = 0; tries < CHECK_TRIES_MAX; tries++) {
        bool is_broken;
        if (!check_once(reader, text, &is_broken, has_changed)) {
            return CHECK_UNREADABLE;
        }
        if (!is_broken) {
            return CHECK_HOLDS;
        }
        if (reader->kind != READER_PROCESS) {
            return CHECK_BROKEN;
        }
        if (tries != 0 && strcmp(text, last) != 0) {
            *has_changed = true;
        }
        memcpy(last, text, sizeof last);
    }
    return *has_changed ? CHECK_UNDECIDED : CHECK_BROKEN;
}
