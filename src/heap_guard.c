/*
 * heap_guard.c - seals, zeros and the quarantine of a block heap: what is written and cleared, and
 * the calls. See heap_guard.h; heap_guard_block.h looks, what is here acts.
 */
#include "heap_guard_block.h"

enum {
    /* A place costs a word: at most a sixty-fourth of a small heap. */
    PLACE_SHARE = 64 * WORD_BYTES,
    PLACES_MIN = 4,
    /* An eighth of a small heap waits at most, and no block that would drive out all others. */
    HELD_SHARE = 8,
    HELD_BYTES_MAX = 1 << 20,
    HELD_BLOCK_SHARE = 2,
    /* A block waits if it ends no farther from its region's start than twice what is live and a
     * constant; it goes when that has become three times as much and more, so that not each one
     * that is freed makes somebody look. */
    REACH_TO_HOLD = 2,
    REACH_TO_KEEP = 3,
    /* Freeing does not touch pages that the caller has not touched either. */
    PIECE_BYTES = 4096,
    /* A record stays clear of the links that its block has when it is free. */
    LINKS_BYTES = 2 * WORD_BYTES,
};

static_assert(GUARD_PLACES_MAX <= UINT16_MAX, "their number is written down");

/* ---------------------------------------------------------------------------------- small words */

size_t hmm_heap_guard_block_bytes(const struct heap_guard *guard, size_t request_bytes)
{
    size_t room_bytes;
    size_t content_bytes =
        guard_has_records(guard) ? size_max(request_bytes, LINKS_BYTES) : request_bytes;
    return size_add(content_bytes, guard_trailer_bytes(guard), &room_bytes)
               ? block_bytes_for(room_bytes)
               : 0;
}

/* -------------------------------------------------------------------------------------- writing */

static void seal_store(uintptr_t seal, uint64_t word)
{
    memcpy((void *)seal, &word, sizeof word);
}

static void words_clear(uintptr_t start, uintptr_t end)
{
    for (; start < end; start += WORD_BYTES) {
        *heap_word_at(start) = 0;
    }
}

/* What was the caller's becomes 0. */
static void content_clear(uintptr_t start, uintptr_t end)
{
    while (start < end) {
        uintptr_t stop = size_min(align_down(start, PIECE_BYTES) + PIECE_BYTES, end);
        if (stop - start < PIECE_BYTES || words_find_nonzero(start, stop) != 0) {
            memset((void *)start, 0, stop - start);
        }
        start = stop;
    }
}

static HMM_COLD void record_note_allocated(const struct heap_guard *guard,
                                           const struct block *block, uint32_t site)
{
    record_store(&guard->key, seal_trailer(guard, block_seal_at(block)),
                 (struct record_sites){.allocated = site});
}

/* Of a record that is right. */
static HMM_COLD void record_note_freed(const struct heap_guard *guard, const struct block *block,
                                       uint32_t site)
{
    uintptr_t record = seal_trailer(guard, block_seal_at(block));
    struct record_sites sites = record_load(record).sites;
    sites.freed = site;
    record_store(&guard->key, record, sites);
}

static void block_seal(struct heap_guard *guard, struct block *block, size_t request_bytes,
                       unsigned alignment_shift, enum origin origin)
{
    uintptr_t seal = block_seal_at(block);
    uintptr_t trailer = seal_trailer(guard, seal);
    size_t slack_bytes = trailer - (uintptr_t)block_payload(block) - request_bytes;
    ASSERT(slack_bytes >> SLACK_BITS == 0);
    uint64_t facts = facts_make(slack_bytes, alignment_shift, origin);
    seal_store(seal, seal_make(&guard->key, (const void *)seal, facts));
    guard->live_bytes += request_bytes;
    guard->peak_live_bytes = size_max(guard->peak_live_bytes, guard->live_bytes);
    if (guard_has_records(guard)) {
        record_note_allocated(guard, block, 0);
    }
}

/* Marks and records in memory that was looked through, and is handed out. A start of 0:
 * there are none. */
static void traces_clear(uintptr_t start, uintptr_t end)
{
    start = start != 0 && start < end ? words_find_nonzero(start, end) : 0;
    while (start != 0) {
        *heap_word_at(start) = 0;
        start = words_find_nonzero(start + WORD_BYTES, end);
    }
}

/* What was the head of a free block, as far as it lies in [start, end), becomes 0. */
static void head_clear(uintptr_t head, uintptr_t start, uintptr_t end)
{
    words_clear(size_max(head, start), size_min(head + sizeof(struct block), end));
}

/* A tag that was swallowed becomes a mark, if anybody has ever had its block. */
static void mark_write(const struct heap_guard *guard, const struct region *region, uintptr_t tag)
{
    *heap_word_at(tag) = tag < region->fresh ? mark_make(guard, tag) : 0;
}

/* A block that is 0, and whose neighbours were verified, becomes free. */
static void block_release(struct heap *heap, const struct heap_guard *guard, struct region *region,
                          struct block *block)
{
    struct block *next = block_next(block);
    bool is_next_free = block_is_free(next);
    bool is_prev_free = block_is_prev_free(block);
    hmm_heap_put(heap, block);
    if (is_next_free) {
        head_clear(block_address(next), 0, UINTPTR_MAX);
        mark_write(guard, region, block_address(next));
    }
    if (is_prev_free) {
        *heap_word_at(block_address(block) - WORD_BYTES) = 0;
        mark_write(guard, region, block_address(block));
    }
    hmm_heap_settle(heap, region);
}

/* ----------------------------------------------------------------------------------- quarantine */

static size_t random_place(struct heap_guard *guard)
{
    guard->random_state = random_step(guard->random_state);
    return (size_t)(guard->random_state >> 40) & (guard->place_count - 1);
}

/* The first byte of a block that is held back which is not as it should be (Q2); 0: all are. */
static uintptr_t held_damage(const struct heap_guard *guard, const struct block *block)
{
    uintptr_t start = (uintptr_t)block_payload(block);
    if (!guard_has_records(guard)) {
        return bytes_find_nonzero(start, block_end(block));
    }
    uintptr_t seal = block_seal_at(block);
    uintptr_t damage = trailer_damage(guard, start, seal_trailer(guard, seal));
    return damage != 0 ? damage : bytes_find_nonzero(seal, seal + SEAL_BYTES);
}

/* A block leaves the quarantine as it came, or somebody wrote into it. */
static bool place_empty(struct heap *heap, struct heap_guard *guard, size_t place,
                        struct crime *crime)
{
    void *ptr = guard->places[place];
    if (ptr == NULL) {
        return true;
    }
    struct region *region = heap_find(heap, ptr, crime);
    if (region == NULL) {
        crime->accused = ptr;
        return false;
    }
    struct block *block = block_of(ptr);
    uintptr_t damage = held_damage(guard, block);
    if (UNLIKELY(damage != 0)) {
        return hmm_heap_guard_accuse_byte(crime, "write after free", block, ptr, damage);
    }
    if (!heap_verify_neighbours(heap, region, block, crime)) {
        crime->accused = ptr;
        return false;
    }
    guard->places[place] = NULL;
    guard->held_bytes -= block_bytes(block);
    guard->held_count--;
    block_release(heap, guard, region, block);
    return true;
}

/* An empty place for a block of `bytes`; *place is below place_count. */
static bool place_make(struct heap *heap, struct heap_guard *guard, size_t bytes, size_t *place,
                       struct crime *crime)
{
    *place = random_place(guard);
    bool is_good = place_empty(heap, guard, *place, crime);
    while (is_good && guard->held_bytes + bytes > guard->held_bytes_max) {
        is_good = place_empty(heap, guard, guard->next_place, crime);
        guard->next_place = (guard->next_place + 1) & (guard->place_count - 1);
    }
    return is_good;
}

/* To the heap what waits is in use. */
static size_t guard_used_bytes(const struct heap *heap, const struct heap_guard *guard)
{
    return heap->live_bytes - (guard->held_bytes - guard->held_count * BLOCK_TAG_BYTES);
}

/* How far from the start of its region a block ends, where that has a break that a block
 * can hold up. */
static size_t block_reach(const struct region *region, const struct block *block)
{
    size_t reach_bytes = block_end(block) - region->first;
    return region->gives_back ? size_less(reach_bytes, region->gap_bytes) : 0;
}

/* Whether a block that reaches so far holds up the break of a heap that has dropped. */
static bool is_beyond(size_t reach_bytes, size_t share, size_t live_bytes)
{
    return reach_bytes / share > live_bytes + HELD_BYTES_MAX / 2;
}

/* What waits too far from the start of its region goes on its way. */
static bool places_empty_beyond(struct heap *heap, struct heap_guard *guard, size_t live_bytes,
                                struct crime *crime)
{
    bool is_good = true;
    size_t kept_reach_bytes = 0;
    for (size_t place = 0; place < guard->place_count && is_good; place++) {
        const void *ptr = guard->places[place];
        const struct region *region = ptr != NULL ? heap_region_of(heap, (uintptr_t)ptr) : NULL;
        size_t reach_bytes = region != NULL ? block_reach(region, block_of(ptr)) : 0;
        if (is_beyond(reach_bytes, REACH_TO_HOLD, live_bytes)) {
            is_good = place_empty(heap, guard, place, crime);
        } else {
            kept_reach_bytes = size_max(kept_reach_bytes, reach_bytes);
        }
    }
    if (is_good) {
        guard->held_reach_bytes = kept_reach_bytes;
    }
    return is_good;
}

/* Before no more than that is live. */
static inline bool guard_draw_in(struct heap *heap, struct heap_guard *guard, size_t live_bytes,
                                 struct crime *crime)
{
    return LIKELY(!is_beyond(guard->held_reach_bytes, REACH_TO_KEEP, live_bytes)) ||
           places_empty_beyond(heap, guard, live_bytes, crime);
}

static bool guard_flush(struct heap *heap, struct heap_guard *guard, struct crime *crime)
{
    bool is_good = true;
    for (size_t place = 0; place < guard->place_count && is_good && guard->held_count > 0;
         place++) {
        is_good = place_empty(heap, guard, place, crime);
    }
    return is_good;
}

/* ------------------------------------------------------------------------------------ the calls */

static HMM_INLINE void *guard_allocate(struct heap *heap, struct heap_guard *guard,
                                       size_t alignment, size_t request_bytes, enum origin origin,
                                       struct crime *crime)
{
    size_t bytes = hmm_heap_guard_block_bytes(guard, request_bytes);
    alignment = size_max(alignment, BLOCK_UNIT_BYTES);
    struct block *block = hmm_heap_find_room(heap, alignment, bytes, crime);
    if (block == NULL && crime->what == NULL && guard->held_count > 0 &&
        guard_flush(heap, guard, crime)) {
        block = hmm_heap_find_room(heap, alignment, bytes, crime);
    }
    uintptr_t first_trace;
    if (block == NULL || !room_verify(heap, guard, block, alignment, bytes, &first_trace, crime)) {
        return NULL;
    }
    void *ptr = hmm_heap_take_room(heap, block, alignment, bytes);
    struct region *region = heap_region_of(heap, (uintptr_t)ptr);
    block = block_of(ptr);
    uintptr_t seal = block_seal_at(block);
    words_clear((uintptr_t)ptr, size_min((uintptr_t)ptr + LINKS_BYTES, seal));
    traces_clear(first_trace != 0 ? size_max(first_trace, (uintptr_t)ptr) : 0, seal);
    region->fresh = size_max(region->fresh, block_end(block));
    block_seal(guard, block, request_bytes, alignment_shift_of(alignment), origin);
    return ptr;
}

static HMM_INLINE bool guard_free(struct heap *heap, struct heap_guard *guard, void *ptr,
                                  const struct claim *claim, struct crime *crime)
{
    struct opened opened = {0};
    if (!heap_recover(heap, crime) || !block_open(heap, guard, ptr, &opened, crime)) {
        crime_of_free(crime);
        return false;
    }
    struct block *block = opened.block;
    size_t bytes = block_bytes(block);
    size_t place = 0;
    size_t reach_bytes = block_reach(opened.region, block);
    size_t live_bytes = guard_used_bytes(heap, guard) - block_usable_bytes(block);
    bool is_held = guard->place_count != 0 && bytes <= guard->held_block_bytes_max &&
                   !is_beyond(reach_bytes, REACH_TO_HOLD, live_bytes);
    if (!heap_verify_neighbours(heap, opened.region, block, crime) ||
        !hmm_heap_guard_verify_claim(claim, &opened, crime) ||
        (is_held && !place_make(heap, guard, bytes, &place, crime)) ||
        !guard_draw_in(heap, guard, live_bytes, crime)) {
        return false;
    }
    guard->live_bytes -= opened.request_bytes;
    content_clear((uintptr_t)ptr, (uintptr_t)ptr + opened.request_bytes);
    seal_store(block_seal_at(block), 0);
    if (guard_has_records(guard)) {
        record_note_freed(guard, block, claim->site);
    }
    if (is_held) {
        guard->places[place] = ptr;
        guard->held_reach_bytes = size_max(guard->held_reach_bytes, reach_bytes);
        guard->held_bytes += bytes;
        guard->held_count++;
    } else {
        block_release(heap, guard, opened.region, block);
    }
    return true;
}

static HMM_INLINE bool guard_usable(struct heap *heap, const struct heap_guard *guard,
                                    const void *ptr, size_t *usable_bytes, struct crime *crime)
{
    struct opened opened = {0};
    if (!heap_recover(heap, crime) || !block_open(heap, guard, ptr, &opened, crime) ||
        (heap->integrity >= HMM_INTEGRITY_NEIGHBOURS &&
         !heap_verify_neighbours(heap, opened.region, opened.block, crime))) {
        return false;
    }
    *usable_bytes = opened.request_bytes;
    return true;
}

/* The block and what is free behind it become a block of `bytes`, which there is room for,
 * and a rest. */
static void block_refit(struct heap *heap, struct heap_guard *guard, const struct opened *opened,
                        size_t bytes, size_t request_bytes)
{
    struct block *block = opened->block;
    uintptr_t payload = (uintptr_t)block_payload(block);
    const uintptr_t old_end = block_end(block);
    const bool was_next_free = block_is_free(block_next(block));
    const uintptr_t old_seal = block_seal_at(block);
    content_clear(payload + size_min(request_bytes, opened->request_bytes),
                  payload + opened->request_bytes);
    words_clear(seal_trailer(guard, old_seal), old_seal + SEAL_BYTES);
    hmm_heap_refit(heap, block, bytes);
    const uintptr_t end = block_end(block);
    if (was_next_free) {
        const uintptr_t rest_content = end + sizeof *block;
        head_clear(old_end, payload, end);
        traces_clear(old_end, size_min(end, opened->region->fresh));
        head_clear(old_end, rest_content, UINTPTR_MAX);
        if (old_end >= rest_content) {
            mark_write(guard, opened->region, old_end);
        }
    }
    opened->region->fresh = size_max(opened->region->fresh, end);
    guard->live_bytes -= opened->request_bytes;
    block_seal(guard, block, request_bytes, facts_alignment_shift(opened->facts),
               facts_origin(opened->facts));
    hmm_heap_settle(heap, opened->region);
}

/* Whether the block can become one of `bytes` where it is; the break may move for that. */
static bool room_make_behind(struct heap *heap, const struct heap_guard *guard,
                             const struct opened *opened, size_t bytes, struct crime *crime)
{
    uintptr_t first_trace;
    if (!heap_verify_behind(heap, opened->block, crime) ||
        (bytes > block_room_bytes(opened->block) &&
         !hmm_heap_grow_in_place(heap, opened->region, opened->block, bytes, crime))) {
        return false;
    }
    const struct block *next = block_next(opened->block);
    return !block_is_free(next) ||
           free_verify(guard, opened->region, next, block_address(next) + sizeof *next,
                       block_address(opened->block) + bytes + sizeof *next, &first_trace, crime);
}

static HMM_INLINE void *guard_resize(struct heap *heap, struct heap_guard *guard, void *ptr,
                                     size_t request_bytes, size_t *old_bytes, struct crime *crime)
{
    const struct claim claim = {.origin = ORIGIN_MALLOC};
    struct opened opened = {0};
    if (!heap_recover(heap, crime) || !block_open(heap, guard, ptr, &opened, crime) ||
        !heap_verify_neighbours(heap, opened.region, opened.block, crime) ||
        !hmm_heap_guard_verify_claim(&claim, &opened, crime)) {
        return NULL;
    }
    *old_bytes = opened.request_bytes;
    size_t bytes = hmm_heap_guard_block_bytes(guard, request_bytes);
    size_t leaving_bytes = size_less(block_bytes(opened.block), bytes);
    if (bytes == 0 ||
        !guard_draw_in(heap, guard, guard_used_bytes(heap, guard) - leaving_bytes, crime) ||
        !room_make_behind(heap, guard, &opened, bytes, crime)) {
        return NULL;
    }
    block_refit(heap, guard, &opened, bytes, request_bytes);
    return ptr;
}

void hmm_heap_guard_note_site(struct heap_guard *guard, void *ptr, uint32_t site)
{
    record_note_allocated(guard, block_of(ptr), site);
}

/* Each as it is, and where it found a crime, that is explained. */

void *hmm_heap_guard_allocate(struct heap *heap, struct heap_guard *guard, size_t alignment,
                              size_t bytes, enum origin origin, struct crime *crime)
{
    void *ptr = guard_allocate(heap, guard, alignment, bytes, origin, crime);
    if (UNLIKELY(ptr == NULL)) {
        hmm_heap_guard_explain(heap, guard, NULL, crime);
    }
    return ptr;
}

void *hmm_heap_guard_resize(struct heap *heap, struct heap_guard *guard, void *ptr, size_t bytes,
                            size_t *old_bytes, struct crime *crime)
{
    void *resized = guard_resize(heap, guard, ptr, bytes, old_bytes, crime);
    if (UNLIKELY(resized == NULL)) {
        hmm_heap_guard_explain(heap, guard, ptr, crime);
    }
    return resized;
}

bool hmm_heap_guard_free(struct heap *heap, struct heap_guard *guard, void *ptr,
                         const struct claim *claim, struct crime *crime)
{
    bool is_done = guard_free(heap, guard, ptr, claim, crime);
    if (UNLIKELY(!is_done)) {
        hmm_heap_guard_explain(heap, guard, ptr, crime);
    }
    return is_done;
}

bool hmm_heap_guard_usable(struct heap *heap, const struct heap_guard *guard, const void *ptr,
                           size_t *usable_bytes, struct crime *crime)
{
    bool is_done = guard_usable(heap, guard, ptr, usable_bytes, crime);
    if (UNLIKELY(!is_done)) {
        hmm_heap_guard_explain(heap, guard, ptr, crime);
    }
    return is_done;
}

bool hmm_heap_guard_flush(struct heap *heap, struct heap_guard *guard, struct crime *crime)
{
    bool is_done = guard_flush(heap, guard, crime);
    if (UNLIKELY(!is_done)) {
        hmm_heap_guard_explain(heap, guard, NULL, crime);
    }
    return is_done;
}

bool hmm_heap_guard_trim(struct heap *heap, struct heap_guard *guard, size_t keep_bytes,
                         struct crime *crime)
{
    bool has_moved = heap_recover(heap, crime) && guard_flush(heap, guard, crime) &&
                     hmm_heap_trim(heap, keep_bytes, crime);
    hmm_heap_guard_explain(heap, guard, NULL, crime);
    return has_moved;
}

/* -------------------------------------------------------------------------------------- opening */

static size_t places_for(HmmHardening level, size_t capacity_bytes)
{
    size_t wanted_count =
        size_min(size_max(capacity_bytes / PLACE_SHARE, PLACES_MIN), GUARD_PLACES_MAX);
    return level >= HMM_HARDENING_QUARANTINE ? (size_t)1 << bit_highest(wanted_count) : 0;
}

size_t hmm_heap_guard_bytes(HmmHardening level, size_t capacity_bytes)
{
    return sizeof(struct heap_guard) + places_for(level, capacity_bytes) * sizeof(void *);
}

void hmm_heap_guard_init(struct heap *heap, struct heap_guard *guard, HmmHardening level,
                         size_t capacity_bytes, const uint64_t secrets[2],
                         enum heap_records records)
{
    size_t held_bytes_max = size_min(capacity_bytes / HELD_SHARE, HELD_BYTES_MAX);
    memset(guard, 0, hmm_heap_guard_bytes(level, capacity_bytes));
    if (heap->integrity == HMM_INTEGRITY_NONE) {
        heap->integrity = HMM_INTEGRITY_TAG;
    }
    guard->key = (struct seal_key){.add = secrets[0], .multiply = secrets[1] | 1};
    guard->place_count = (uint16_t)places_for(level, capacity_bytes);
    guard->trailer_bytes =
        (uint16_t)(SEAL_BYTES + (records == HEAP_RECORDS_KEPT ? RECORD_BYTES : 0));
    guard->held_bytes_max = held_bytes_max;
    guard->held_block_bytes_max = held_bytes_max / HELD_BLOCK_SHARE;
    guard->random_state = secrets[0] ^ rotate_left(secrets[1], 32);
    heap->keeps_zero = true;
}

void hmm_heap_guard_get_stats(const struct heap *heap, const struct heap_guard *guard,
                              HmmHeapStats *stats)
{
    hmm_heap_get_stats(heap, stats);
    stats->live_count -= guard->held_count;
    stats->live_bytes = guard->live_bytes;
    stats->peak_live_bytes = guard->peak_live_bytes;
    stats->overhead_bytes = stats->break_bytes - stats->live_bytes - stats->free_bytes;
    stats->largest_free_bytes -= size_min(stats->largest_free_bytes, guard_trailer_bytes(guard));
}
