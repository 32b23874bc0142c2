/*
 * heap_guard.c - seals, zeros and the quarantine of a block heap. See heap_guard.h.
 */
#include "heap_guard.h"
#include "heap_verify.h"
#include "heap_zero.h"

enum {
    WORD_BYTES = sizeof(heap_word),
    ALIGNMENT_SHIFT_MAX = ALIGNMENT_SHIFT_MIN + (1 << ALIGNMENT_BITS) - 1,
    /* A place costs a word: at most a sixty-fourth of a small heap, and in a large one as many as a
     * thread of the fast engine has. */
    PLACE_SHARE = 64 * WORD_BYTES,
    PLACES_MIN = 4,
    PLACES_MAX = 256,
    /* An eighth of a small heap waits at most, and no block that would drive out all others. */
    HELD_SHARE = 8,
    HELD_BYTES_MAX = 1 << 20,
    HELD_BLOCK_SHARE = 2,
    /* Freeing does not touch pages that the caller has not touched either. */
    PIECE_BYTES = 4096,
};

/* A block that was looked at, and what its seal says. */
struct opened {
    struct region *region;
    struct block *block;
    size_t request_bytes;
    uint64_t facts;
};

/* ---------------------------------------------------------------------------------- small words */

static uintptr_t block_end(const struct block *block)
{
    return block_address(block) + block_bytes(block);
}

/* Where the seal of a block lies that is used. */
static uintptr_t block_seal_at(const struct block *block)
{
    return block_end(block) - SEAL_BYTES;
}

/* A seal begins where a tag's word does, which on 32-bit is no multiple of its size. */
static uint64_t seal_load(uintptr_t seal)
{
    uint64_t word;
    memcpy(&word, (const void *)seal, sizeof word);
    return word;
}

static void seal_store(uintptr_t seal, uint64_t word)
{
    memcpy((void *)seal, &word, sizeof word);
}

static bool is_right(const struct heap_guard *guard, uintptr_t seal, uint64_t word)
{
    return seal_is_right(&guard->key, (const void *)seal, word);
}

/* What stands where a tag was swallowed. */
static uintptr_t mark_make(const struct heap_guard *guard, uintptr_t tag)
{
    return (uintptr_t)rotate_left(((uint64_t)tag ^ ~guard->key.add) * guard->key.multiply, 32);
}

static bool is_mark(const struct heap_guard *guard, uintptr_t address)
{
    return is_aligned(address + BLOCK_TAG_BYTES, BLOCK_UNIT_BYTES) &&
           *heap_word_at(address) == mark_make(guard, address);
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

/* The first byte of [start, end) that is not 0, 0: all are. The end is a word's. */
static uintptr_t find_nonzero_byte(uintptr_t start, uintptr_t end)
{
    uintptr_t at = start;
    while (at < end && !is_aligned(at, WORD_BYTES) && *(const unsigned char *)at == 0) {
        at++;
    }
    if (at < end && is_aligned(at, WORD_BYTES)) {
        at = words_find_nonzero(at, end);
    }
    while (at != 0 && at < end && *(const unsigned char *)at == 0) {
        at++;
    }
    return at < end ? at : 0;
}

static unsigned alignment_shift_of(size_t alignment)
{
    return (unsigned)size_min(seal_alignment_shift(alignment), ALIGNMENT_SHIFT_MAX);
}

/* --------------------------------------------------------------------------------------- crimes */

/* Of the block whose payload was `ptr` when it was last allocated. */
static bool accuse_byte(struct crime *crime, const char *what, const struct block *block,
                        const void *ptr, uintptr_t byte)
{
    *crime = (struct crime){.what = what,
                            .at = block_address(block),
                            .block_bytes = block_bytes(block),
                            .has_byte = true,
                            .byte_offset = (ptrdiff_t)(byte - (uintptr_t)ptr),
                            .accused = ptr};
    return false;
}

/* A pointer to a block that was freed, and swallowed by another free one since. */
static HMM_COLD bool accuse_swallowed(const struct heap *heap, const struct region *region,
                                      const void *ptr, struct crime *crime)
{
    (void)heap_blame(heap, region, ptr, crime);
    crime->what = crime_freed_block;
    return false;
}

static bool is_held(const struct heap_guard *guard, const void *ptr)
{
    size_t place = 0;
    while (place < guard->place_count && guard->places[place] != ptr) {
        place++;
    }
    return place < guard->place_count;
}

/* A seal that is not right: the block is held back, or somebody wrote over its end. */
static HMM_COLD bool accuse_seal(const struct heap_guard *guard, const struct block *block,
                                 struct crime *crime)
{
    const void *ptr = block_payload(block);
    if (is_held(guard, ptr)) {
        return crime_set(crime, crime_freed_block, block, block_bytes(block));
    }
    uintptr_t seal = block_seal_at(block);
    uint64_t word = seal_load(seal);
    uintptr_t byte = 0;
    if (hmm_seal_facts_are_telling(&guard->key, (const void *)seal, word) &&
        facts_slack(word) <= seal - (uintptr_t)ptr) {
        byte = find_nonzero_byte(seal - facts_slack(word), seal);
    }
    if (byte == 0) {
        byte = word == 0 ? seal : (uintptr_t)hmm_seal_damage(&guard->key, (const void *)seal, word);
    }
    return accuse_byte(crime, "write past the end", block, ptr, byte);
}

static const char *const origin_names[] = {"malloc", "operator new", "operator new[]"};

/* What the call says of the block against what the block says. */
static bool claim_verify(const struct claim *claim, const struct opened *opened,
                         struct crime *crime)
{
    enum origin origin = facts_origin(opened->facts);
    unsigned shift = facts_alignment_shift(opened->facts);
    struct crime found = {.at = block_address(opened->block),
                          .block_bytes = block_bytes(opened->block)};
    if (origin != claim->origin) {
        found.what = "mismatched call";
        found.maker = origin_names[origin];
    } else if (claim->has_bytes && claim->bytes != opened->request_bytes) {
        found.what = "wrong size";
        found.has_sizes = true;
        found.claimed = claim->bytes;
        found.known = opened->request_bytes;
    } else if (claim->alignment != 0 && alignment_shift_of(claim->alignment) != shift) {
        found.what = "wrong alignment";
        found.has_sizes = true;
        found.claimed = claim->alignment;
        found.known = (size_t)1 << shift;
    } else {
        return true;
    }
    *crime = found;
    return false;
}

/* ---------------------------------------------------------------------------------------- seals */

static void block_seal(struct heap_guard *guard, struct block *block, size_t request_bytes,
                       unsigned alignment_shift, enum origin origin)
{
    uintptr_t seal = block_seal_at(block);
    size_t slack_bytes = seal - (uintptr_t)block_payload(block) - request_bytes;
    ASSERT(slack_bytes >> SLACK_BITS == 0);
    uint64_t facts = facts_make(slack_bytes, alignment_shift, origin);
    seal_store(seal, seal_make(&guard->key, (const void *)seal, facts));
    guard->live_bytes += request_bytes;
    guard->peak_live_bytes = size_max(guard->peak_live_bytes, guard->live_bytes);
}

/* From a pointer that nobody vouches for to a live block whose tag and seal are right. */
static bool block_open(const struct heap *heap, const struct heap_guard *guard, const void *ptr,
                       struct opened *opened, struct crime *crime)
{
    struct region *region = heap_region_of(heap, (uintptr_t)ptr);
    if (region != NULL && is_aligned((uintptr_t)ptr, BLOCK_UNIT_BYTES) &&
        block_address(block_of(ptr)) >= region->first &&
        is_mark(guard, block_address(block_of(ptr)))) {
        return accuse_swallowed(heap, region, ptr, crime);
    }
    region = heap_find(heap, ptr, crime);
    if (region == NULL) {
        return false;
    }
    struct block *block = block_of(ptr);
    uintptr_t seal = block_seal_at(block);
    uint64_t word = seal_load(seal);
    if (UNLIKELY(!is_right(guard, seal, word))) {
        return accuse_seal(guard, block, crime);
    }
    size_t request_bytes = seal - (uintptr_t)ptr - facts_slack(word);
    uintptr_t damage = find_nonzero_byte((uintptr_t)ptr + request_bytes, seal);
    if (UNLIKELY(damage != 0)) {
        return accuse_byte(crime, "write past the end", block, ptr, damage);
    }
    *opened = (struct opened){region, block, request_bytes, seal_facts(word)};
    return true;
}

/* ----------------------------------------------------------------------------------- free memory */

/* What a search of free memory found; 0: nothing. */
struct found {
    uintptr_t first_mark;
    uintptr_t stray; /* the first word that is neither 0 nor a mark */
};

static struct found free_search(const struct heap_guard *guard, uintptr_t start, uintptr_t end)
{
    uintptr_t at = start < end ? words_find_nonzero(start, end) : 0;
    struct found found = {0, at};
    if (UNLIKELY(at != 0) && is_mark(guard, at)) {
        found.first_mark = at;
        while (at != 0 && is_mark(guard, at)) {
            at = words_find_nonzero(at + WORD_BYTES, end);
        }
        found.stray = at;
    }
    return found;
}

/* Whose memory it was: the last mark before `at` is where a freed block began, else the free block is. */
static HMM_COLD const void *owner_of(const struct heap_guard *guard, const struct block *block,
                                     uintptr_t at)
{
    uintptr_t tag = align_down(at + BLOCK_TAG_BYTES, BLOCK_UNIT_BYTES) - BLOCK_TAG_BYTES;
    while (tag > block_address(block) && !is_mark(guard, tag)) {
        tag -= BLOCK_UNIT_BYTES;
    }
    return block_payload(block_at(tag));
}

/* Whether [start, end) of a free block is as it should be (Z1), as far as anybody has ever had it.
 * *first_mark: the first mark there, 0: there is none. */
static bool free_verify(const struct heap_guard *guard, const struct region *region,
                        const struct block *block, uintptr_t start, uintptr_t end,
                        uintptr_t *first_mark, struct crime *crime)
{
    end = size_min(end, (uintptr_t)block_footer(block, block_bytes(block)));
    struct found found = free_search(guard, start, size_min(end, region->fresh));
    *first_mark = found.first_mark;
    return LIKELY(found.stray == 0) ||
           accuse_byte(crime, "write after free", block, owner_of(guard, block, found.stray),
                       find_nonzero_byte(found.stray, found.stray + WORD_BYTES));
}

/* The parts of a free block that will be handed out or written over when a block of `bytes` is taken from it:
 * from the word that becomes the size of what lies before it, to the links of what lies behind it. */
static bool room_verify(const struct heap *heap, const struct heap_guard *guard,
                        const struct block *block, size_t alignment, size_t bytes,
                        uintptr_t *first_mark, struct crime *crime)
{
    size_t lead_bytes = fit_lead_bytes(block, alignment);
    uintptr_t placed = block_address(block) + lead_bytes;
    uintptr_t start = lead_bytes == 0 ? placed + sizeof *block : placed - WORD_BYTES;
    const struct region *region = heap_region_of(heap, (uintptr_t)block_payload(block));
    return free_verify(guard, region, block, start, placed + bytes + sizeof *block, first_mark,
                       crime);
}

/* Marks in memory that was looked through, and is handed out. A start of 0: there are none. */
static void marks_clear(uintptr_t start, uintptr_t end)
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

/* Knuth's MMIX generator: its high bits are good enough to make a place hard to guess. */
static size_t random_place(struct heap_guard *guard)
{
    guard->random_state = guard->random_state * 0x5851f42d4c957f2du + 0x14057b7ef767814fu;
    return (size_t)(guard->random_state >> 40) & (guard->place_count - 1);
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
    uintptr_t damage = find_nonzero_byte((uintptr_t)ptr, block_end(block));
    if (UNLIKELY(damage != 0)) {
        return accuse_byte(crime, "write after free", block, ptr, damage);
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

bool hmm_heap_guard_flush(struct heap *heap, struct heap_guard *guard, struct crime *crime)
{
    bool is_good = true;
    for (size_t place = 0; place < guard->place_count && is_good && guard->held_count > 0;
         place++) {
        is_good = place_empty(heap, guard, place, crime);
    }
    return is_good;
}

/* ------------------------------------------------------------------------------------- the calls */

void *hmm_heap_guard_allocate(struct heap *heap, struct heap_guard *guard, size_t alignment,
                              size_t request_bytes, enum origin origin, struct crime *crime)
{
    size_t room_bytes;
    size_t bytes =
        size_add(request_bytes, SEAL_BYTES, &room_bytes) ? block_bytes_for(room_bytes) : 0;
    alignment = size_max(alignment, BLOCK_UNIT_BYTES);
    struct block *block = hmm_heap_find_room(heap, alignment, bytes, crime);
    if (block == NULL && crime->what == NULL && guard->held_count > 0 &&
        hmm_heap_guard_flush(heap, guard, crime)) {
        block = hmm_heap_find_room(heap, alignment, bytes, crime);
    }
    uintptr_t first_mark;
    if (block == NULL || !room_verify(heap, guard, block, alignment, bytes, &first_mark, crime)) {
        return NULL;
    }
    void *ptr = hmm_heap_take_room(heap, block, alignment, bytes);
    struct region *region = heap_region_of(heap, (uintptr_t)ptr);
    block = block_of(ptr);
    uintptr_t seal = block_seal_at(block);
    words_clear((uintptr_t)ptr, size_min((uintptr_t)ptr + 2 * WORD_BYTES, seal));
    marks_clear(first_mark != 0 ? size_max(first_mark, (uintptr_t)ptr) : 0, seal);
    region->fresh = size_max(region->fresh, block_end(block));
    block_seal(guard, block, request_bytes, alignment_shift_of(alignment), origin);
    return ptr;
}

bool hmm_heap_guard_free(struct heap *heap, struct heap_guard *guard, void *ptr,
                         const struct claim *claim, struct crime *crime)
{
    struct opened opened;
    if (!heap_recover(heap, crime) || !block_open(heap, guard, ptr, &opened, crime)) {
        crime_of_free(crime);
        return false;
    }
    struct block *block = opened.block;
    size_t bytes = block_bytes(block);
    size_t place = 0;
    bool is_held = guard->place_count != 0 && bytes <= guard->held_block_bytes_max;
    if (!heap_verify_neighbours(heap, opened.region, block, crime) ||
        !claim_verify(claim, &opened, crime) ||
        (is_held && !place_make(heap, guard, bytes, &place, crime))) {
        return false;
    }
    guard->live_bytes -= opened.request_bytes;
    content_clear((uintptr_t)ptr, (uintptr_t)ptr + opened.request_bytes);
    seal_store(block_seal_at(block), 0);
    if (is_held) {
        guard->places[place] = ptr;
        guard->held_bytes += bytes;
        guard->held_count++;
    } else {
        block_release(heap, guard, opened.region, block);
    }
    return true;
}

bool hmm_heap_guard_usable(struct heap *heap, const struct heap_guard *guard, const void *ptr,
                           size_t *usable_bytes, struct crime *crime)
{
    struct opened opened;
    if (!heap_recover(heap, crime) || !block_open(heap, guard, ptr, &opened, crime) ||
        (heap->integrity >= HMM_INTEGRITY_NEIGHBOURS &&
         !heap_verify_neighbours(heap, opened.region, opened.block, crime))) {
        return false;
    }
    *usable_bytes = opened.request_bytes;
    return true;
}

/* The block and what is free behind it become a block of `bytes`, which there is room for, and a rest. */
static void block_refit(struct heap *heap, struct heap_guard *guard, const struct opened *opened,
                        size_t bytes, size_t request_bytes)
{
    struct block *block = opened->block;
    uintptr_t payload = (uintptr_t)block_payload(block);
    const uintptr_t old_end = block_end(block);
    const bool was_next_free = block_is_free(block_next(block));
    content_clear(payload + size_min(request_bytes, opened->request_bytes),
                  payload + opened->request_bytes);
    seal_store(block_seal_at(block), 0);
    hmm_heap_refit(heap, block, bytes);
    const uintptr_t end = block_end(block);
    if (was_next_free) {
        const uintptr_t rest_content = end + sizeof *block;
        head_clear(old_end, payload, end);
        marks_clear(old_end, size_min(end, opened->region->fresh));
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
    uintptr_t first_mark;
    const struct block *next = block_next(opened->block);
    size_t own_bytes = block_bytes(opened->block);
    size_t next_bytes = block_is_free(next) ? block_bytes(next) : 0;
    if (next_bytes != 0 && !heap_verify_next(heap, next, crime)) {
        return false;
    }
    bool is_last = block_after(next, next_bytes) == region_sentinel(opened->region);
    if (bytes > own_bytes + next_bytes && is_last &&
        hmm_heap_grow_by(heap, opened->region, bytes - own_bytes - next_bytes, crime)) {
        next_bytes = block_is_free(next) ? block_bytes(next) : 0;
    }
    if (bytes > own_bytes + next_bytes) {
        return false;
    }
    return next_bytes == 0 ||
           free_verify(guard, opened->region, next, block_address(next) + sizeof *next,
                       block_address(opened->block) + bytes + sizeof *next, &first_mark, crime);
}

void *hmm_heap_guard_resize(struct heap *heap, struct heap_guard *guard, void *ptr,
                            size_t request_bytes, size_t *old_bytes, struct crime *crime)
{
    const struct claim claim = {.origin = ORIGIN_MALLOC};
    struct opened opened;
    if (!heap_recover(heap, crime) || !block_open(heap, guard, ptr, &opened, crime) ||
        !heap_verify_neighbours(heap, opened.region, opened.block, crime) ||
        !claim_verify(&claim, &opened, crime)) {
        return NULL;
    }
    *old_bytes = opened.request_bytes;
    size_t room_bytes;
    size_t bytes =
        size_add(request_bytes, SEAL_BYTES, &room_bytes) ? block_bytes_for(room_bytes) : 0;
    if (bytes == 0 || !room_make_behind(heap, guard, &opened, bytes, crime)) {
        return NULL;
    }
    block_refit(heap, guard, &opened, bytes, request_bytes);
    return ptr;
}

/* -------------------------------------------------------------------------------------- opening */

static size_t places_for(HmmHardening level, size_t capacity_bytes)
{
    size_t wanted_count = size_min(size_max(capacity_bytes / PLACE_SHARE, PLACES_MIN), PLACES_MAX);
    return level >= HMM_HARDENING_QUARANTINE ? (size_t)1 << bit_highest(wanted_count) : 0;
}

size_t hmm_heap_guard_bytes(HmmHardening level, size_t capacity_bytes)
{
    return sizeof(struct heap_guard) + places_for(level, capacity_bytes) * sizeof(void *);
}

void hmm_heap_guard_init(struct heap *heap, struct heap_guard *guard, HmmHardening level,
                         size_t capacity_bytes, const uint64_t secrets[2])
{
    size_t held_bytes_max = size_min(capacity_bytes / HELD_SHARE, HELD_BYTES_MAX);
    memset(guard, 0, hmm_heap_guard_bytes(level, capacity_bytes));
    if (heap->integrity == HMM_INTEGRITY_NONE) {
        heap->integrity = HMM_INTEGRITY_TAG;
    }
    guard->key = (struct seal_key){.add = secrets[0], .multiply = secrets[1] | 1};
    guard->place_count = places_for(level, capacity_bytes);
    guard->held_bytes_max = held_bytes_max;
    guard->held_block_bytes_max = held_bytes_max / HELD_BLOCK_SHARE;
    guard->random_state = secrets[0] ^ rotate_left(secrets[1], 32);
    heap->keeps_zero = true;
}

/* ----------------------------------------------------------------------------- numbers, walk, audit */

void hmm_heap_guard_get_stats(const struct heap *heap, const struct heap_guard *guard,
                              HmmHeapStats *stats)
{
    hmm_heap_get_stats(heap, stats);
    stats->live_count -= guard->held_count;
    stats->live_bytes = guard->live_bytes;
    stats->peak_live_bytes = guard->peak_live_bytes;
    stats->overhead_bytes = stats->break_bytes - stats->live_bytes - stats->free_bytes;
    stats->largest_free_bytes -= size_min(stats->largest_free_bytes, SEAL_BYTES);
}

struct guarded_walk {
    const struct heap_guard *guard;
    HmmVisitor visit;
    void *context;
};

static bool walk_block(void *ptr, size_t usable_bytes, bool is_used, void *context)
{
    const struct guarded_walk *walk = context;
    if (is_used) {
        uintptr_t seal = (uintptr_t)ptr + usable_bytes - SEAL_BYTES;
        uint64_t word = seal_load(seal);
        is_used = word != 0;
        if (is_used && !is_right(walk->guard, seal, word)) {
            return false;
        }
        usable_bytes -= is_used ? SEAL_BYTES + facts_slack(word) : 0;
    }
    return walk->visit(ptr, usable_bytes, is_used, walk->context);
}

bool hmm_heap_guard_walk(const struct heap *heap, const struct heap_guard *guard, HmmVisitor visit,
                         void *context)
{
    struct guarded_walk walk = {guard, visit, context};
    return hmm_heap_walk(heap, walk_block, &walk);
}

struct guarded_census {
    const struct heap_guard *guard;
    const char *broken;
    size_t live_bytes;
    size_t held_bytes;
    size_t held_count;
};

static const char *audit_used(struct guarded_census *census, uintptr_t ptr, size_t usable_bytes)
{
    uintptr_t seal = ptr + usable_bytes - SEAL_BYTES;
    uint64_t word = seal_load(seal);
    if (word == 0) {
        census->held_count++;
        census->held_bytes += usable_bytes + BLOCK_TAG_BYTES;
        return !is_held(census->guard, (const void *)ptr) ||
                       find_nonzero_byte(ptr, ptr + usable_bytes) != 0
                   ? "Z2: a used block that is neither live nor held back"
                   : NULL;
    }
    if (!is_right(census->guard, seal, word) || facts_slack(word) > seal - ptr ||
        find_nonzero_byte(seal - facts_slack(word), seal) != 0) {
        return "Z2: a live block's seal or slack is damaged";
    }
    census->live_bytes += seal - ptr - facts_slack(word);
    return NULL;
}

static bool audit_block(void *ptr, size_t usable_bytes, bool is_used, void *context)
{
    struct guarded_census *census = context;
    uintptr_t start = (uintptr_t)ptr;
    if (is_used) {
        census->broken = audit_used(census, start, usable_bytes);
    } else if (free_search(census->guard, start + 2 * WORD_BYTES, start + usable_bytes - WORD_BYTES)
                   .stray != 0) {
        census->broken = "Z1: a free block that is not 0";
    }
    return census->broken == NULL;
}

const char *hmm_heap_guard_audit(const struct heap *heap, const struct heap_guard *guard)
{
    const char *broken = hmm_heap_audit(heap);
    if (broken != NULL) {
        return broken;
    }
    struct guarded_census census = {.guard = guard};
    (void)hmm_heap_walk(heap, audit_block, &census);
    if (census.broken != NULL) {
        return census.broken;
    }
    return census.held_count == guard->held_count && census.held_bytes == guard->held_bytes &&
                   census.live_bytes == guard->live_bytes &&
                   guard->peak_live_bytes >= guard->live_bytes &&
                   guard->held_bytes <= guard->held_bytes_max
               ? NULL
               : "Z3: what is live and what is held back is counted";
}
