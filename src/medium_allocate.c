/*
 * medium_allocate.c - a block of medium size: from the shelf, which is the short way (medium.c), or
 * else out of a free block, a larger one on the shelf, or a zone's wilderness. Memory that is
 * touched comes first.
 */
#include "medium_verify.h"

/* What is asked for. */
struct wish {
    size_t alignment;
    size_t bytes;       /* rounded, for the shelf */
    size_t least_bytes; /* these will do */
};

/* A power of two, so that a mask chooses the shard of a number. 0: not found out yet. Relaxed,
 * because every thread finds the same. */
static _Atomic unsigned shard_count;

static HMM_COLD unsigned shard_count_find(void)
{
    size_t cpu_count = hmm_os_cpu_count();
    cpu_count = cpu_count != 0 ? size_min(cpu_count, SHARD_COUNT_MAX) : SHARD_COUNT_MAX;
    unsigned count = 1u << bit_highest(cpu_count);
    atomic_store_explicit(&shard_count, count, memory_order_relaxed);
    return count;
}

/* One thread has one shard. */
static struct shard *shard_choose(unsigned number)
{
    if (process_has_one_thread()) {
        return &hmm_medium_shards[0];
    }
    unsigned count = atomic_load_explicit(&shard_count, memory_order_relaxed);
    count = LIKELY(count != 0) ? count : shard_count_find();
    return &hmm_medium_shards[number & (count - 1)];
}

static inline void shard_count_placed(struct shard *shard, size_t block_bytes)
{
    shard->live_bytes += block_bytes - BLOCK_TAG_BYTES;
    shard->live_count++;
    shard->placed_count++;
}

/* ------------------------------------------------------------------------- out of what there is */

/* Hands out a block that begins `lead_bytes` into memory that is in nobody's hands; what lies
 * before it becomes free. `zero` is what is known of that memory. */
static void *shard_place(struct shard *shard, struct block *block, size_t lead_bytes, size_t bytes,
                         struct zero_span zero, struct visit *visit)
{
    struct block *placed = block_after(block, lead_bytes);
    void *ptr = block_payload(placed);
    if (lead_bytes != 0) {
        shard_make_free(shard, block, lead_bytes, zero);
    }
    block_write(&shard->key, placed, bytes, lead_bytes != 0 ? BLOCK_IS_PREV_FREE : 0);
    shard_count_placed(shard, bytes);
    *visit->zero = span_clip(zero, (uintptr_t)ptr, block_address(placed) + bytes);
    return ptr;
}

/* Cuts a used block out of a free one that was verified; what lies around it stays free. */
static void *shard_cut(struct shard *shard, struct block *block, size_t alignment, size_t bytes,
                       struct visit *visit)
{
    size_t lead_bytes = fit_lead_bytes(block, alignment);
    size_t rest_bytes = block_bytes(block) - lead_bytes - bytes;
    struct block *rest = block_after(block, lead_bytes + bytes);
    struct zero_span purged = shard_unfree(shard, block);
    if (rest_bytes >= BLOCK_BYTES_MIN) {
        shard_make_free(shard, rest, rest_bytes, purged);
    } else {
        block_set_flags(&shard->key, block_after(rest, rest_bytes), 0, BLOCK_IS_PREV_FREE);
        bytes += rest_bytes;
    }
    void *ptr = shard_place(shard, block, lead_bytes, bytes, purged, visit);
    visit->regret_bytes += span_bytes(*visit->zero);
    return ptr;
}

/* The same out of what a search found, which is verified first. NULL: a crime. */
static void *shard_cut_found(struct shard *shard, struct block *block, size_t alignment,
                             size_t bytes, struct visit *visit)
{
    return shard_verify_found(shard, block, visit->crime) != NULL
               ? shard_cut(shard, block, alignment, bytes, visit)
               : NULL;
}

/* Cuts a used block out of a wilderness that has room for it. */
static void *zone_cut(struct shard *shard, struct granule *first, size_t alignment, size_t bytes,
                      struct visit *visit)
{
    struct block *block = block_at(first->zone.top);
    const struct zero_span zero = {first->zone.touched, first->zone.end};
    size_t lead_bytes = fit_lead_bytes(block, alignment);
    zone_raise(shard, first, first->zone.top + lead_bytes + bytes, visit);
    return shard_place(shard, block, lead_bytes, bytes, zero, visit);
}

/* A zone where the block would lie in touched memory; NULL: none. Others than dirty ones have
 * no such room. */
static struct granule *shard_touched_zone(const struct shard *shard, size_t alignment, size_t bytes)
{
    const struct granule *end = zone_first_clean(shard);
    struct granule *first = shard->zones;
    for (int looks = 0; first != end && looks < ZONE_LOOK_COUNT; looks++) {
        if (zone_reach(first, alignment, bytes) <= first->zone.touched) {
            return first;
        }
        first = first->zone.next;
    }
    return NULL;
}

/* A zone before `end` that has room; NULL: none. Out of line, because the front of the
 * library is full. */
static HMM_NOINLINE struct granule *roomy_zone(struct granule *first, const struct granule *end,
                                               size_t alignment, size_t bytes)
{
    for (int looks = 0; first != end && looks < ZONE_LOOK_COUNT; looks++) {
        if (zone_reach(first, alignment, bytes) != UINTPTR_MAX) {
            return first;
        }
        first = first->zone.next;
    }
    return NULL;
}

/* A zone that has room; NULL: none. */
static struct granule *shard_roomy_zone(const struct shard *shard, size_t alignment, size_t bytes)
{
    struct granule *clean = zone_first_clean(shard);
    struct granule *first = roomy_zone(shard->zones, clean, alignment, bytes);
    if (first == NULL) {
        first = roomy_zone(clean, NULL, alignment, bytes);
    }
    bool is_empty_roomy =
        shard->empty != NULL && zone_reach(shard->empty, alignment, bytes) != UINTPTR_MAX;
    return first == NULL && is_empty_roomy ? shard->empty : first;
}

/* A block out of memory that is touched; NULL: nothing fits, or a crime. */
static void *shard_find_touched(struct shard *shard, size_t alignment, size_t bytes,
                                struct visit *visit)
{
    struct block *block = fit_search(&shard->touched, bytes, alignment);
    if (LIKELY(block != NULL)) {
        return shard_cut_found(shard, block, alignment, bytes, visit);
    }
    struct granule *first = shard_touched_zone(shard, alignment, bytes);
    return first != NULL ? zone_cut(shard, first, alignment, bytes, visit) : NULL;
}

/* A block out of memory that is touched only now. */
static void *shard_find_fresh(struct shard *shard, size_t alignment, size_t bytes,
                              struct visit *visit)
{
    struct block *block = fit_search(&shard->purged, bytes, alignment);
    if (block != NULL) {
        return shard_cut_found(shard, block, alignment, bytes, visit);
    }
    struct granule *first = shard_roomy_zone(shard, alignment, bytes);
    return first != NULL ? zone_cut(shard, first, alignment, bytes, visit) : NULL;
}

/* A block out of the smallest one on the shelf that is larger; NULL: there is none, or a crime. */
static void *shard_find_shelved(struct shard *shard, size_t bytes, struct visit *visit)
{
    unsigned asked = shelf_index(bytes);
    unsigned index = shelf_is_index(asked) ? shelf_index_from(&shard->shelf, asked + 1) : asked;
    if (!shelf_is_index(index)) {
        return NULL;
    }
    struct block *block = shard->shelf.lists[index];
    struct granule *first = shard_verify_shelved(shard, index, visit->crime);
    if (first == NULL || !shard_verify_next(shard, first, block, visit->crime)) {
        return NULL;
    }
    size_t rest_bytes = block_bytes(block) - bytes;
    shelf_pop(&shard->shelf, index, block_bytes(block));
    block_write(&shard->key, block, bytes, block_is_prev_free(block) ? BLOCK_IS_PREV_FREE : 0);
    struct block *rest = block_after(block, bytes);
    block_write(&shard->key, rest, rest_bytes, 0);
    hmm_shard_put(shard, first, rest, span_none, visit);
    shard_count_placed(shard, bytes);
    *visit->zero = span_none;
    return block_payload(block);
}

/* Merges all that is on the shelf, and looks once more. */
static HMM_COLD void *shard_find_merged(struct shard *shard, const struct wish *wish,
                                        struct visit *visit)
{
    hmm_shard_clear_shelf(shard, 0, visit);
    return visit->crime->what == NULL
               ? shard_find_touched(shard, wish->alignment, wish->bytes, visit)
               : NULL;
}

static bool is_still_wanted(const void *ptr, const struct visit *visit)
{
    return ptr == NULL && visit->crime->what == NULL;
}

/* A block from what the shard has: touched memory first (K4), and of the size for the shelf first.
 * NULL: nothing fits, or a crime. */
static void *shard_find(struct shard *shard, const struct wish *wish, struct visit *visit)
{
    void *ptr = shard_find_touched(shard, wish->alignment, wish->bytes, visit);
    if (is_still_wanted(ptr, visit) && wish->alignment == BLOCK_UNIT_BYTES) {
        ptr = shard_find_shelved(shard, wish->bytes, visit);
    }
    if (is_still_wanted(ptr, visit) && shard->shelf.count != 0) {
        ptr = shard_find_merged(shard, wish, visit);
    }
    if (is_still_wanted(ptr, visit) && wish->least_bytes < wish->bytes) {
        ptr = shard_find_touched(shard, wish->alignment, wish->least_bytes, visit);
    }
    if (is_still_wanted(ptr, visit)) {
        ptr = shard_find_fresh(shard, wish->alignment, wish->bytes, visit);
    }
    if (is_still_wanted(ptr, visit) && wish->least_bytes < wish->bytes) {
        ptr = shard_find_fresh(shard, wish->alignment, wish->least_bytes, visit);
    }
    return ptr;
}

/* ------------------------------------------------------------------------------------- the call */

/* A block from the shard or, if there is one, from a zone that becomes the shard's. The lock is
 * held, and is not afterwards. */
static void *shard_allocate(struct shard *shard, struct granule *fresh, const struct wish *wish,
                            struct zero_span *zero, struct crime *crime)
{
    struct visit visit = {.crime = crime, .zero = zero};
    void *ptr;
    if (UNLIKELY(shard->page_bytes == 0)) {
        hmm_shard_open(shard);
    }
    if (fresh != NULL) {
        bool is_roomy = zone_reach(fresh, wish->alignment, wish->bytes) != UINTPTR_MAX;
        size_t bytes = is_roomy ? wish->bytes : wish->least_bytes;
        zone_attach(shard, fresh);
        ptr = zone_cut(shard, fresh, wish->alignment, bytes, &visit);
    } else {
        ptr = shard_find(shard, wish, &visit);
    }
    hmm_shard_finish(shard, &visit);
    return LIKELY(crime->what == NULL) ? ptr : NULL;
}

/* The long way, of a shard whose lock is held. */
static void *allocate_locked(struct shard *shard, const struct wish *wish, struct zero_span *zero,
                             struct crime *crime)
{
    void *ptr = shard_allocate(shard, NULL, wish, zero, crime);
    if (LIKELY(ptr != NULL) || crime->what != NULL) {
        return ptr;
    }
    struct granule *fresh = zone_create(shard, wish->alignment, wish->least_bytes);
    if (fresh != NULL) {
        hmm_lock_acquire(&shard->lock);
        return shard_allocate(shard, fresh, wish, zero, crime);
    }
    /* Before the request fails: what other shards have, also of what was pushed there and nobody
     * has looked for since (P4). */
    for (int i = 0; i < SHARD_COUNT_MAX && ptr == NULL && crime->what == NULL; i++) {
        struct shard *other = &hmm_medium_shards[i];
        if (!process_has_one_thread()) {
            hmm_shard_look_again(other, crime);
        }
        if (crime->what == NULL) {
            hmm_lock_acquire(&other->lock);
            ptr = shard_allocate(other, NULL, wish, zero, crime);
        }
    }
    return ptr;
}

/* A block of at least `bytes` from the shelf; NULL: there is none, or a crime. */
static HMM_INLINE struct block *shard_take_shelved(struct shard *shard, size_t bytes,
                                                   struct crime *crime)
{
    unsigned asked = shelf_index(bytes);
    unsigned index = shelf_index_from(&shard->shelf, asked);
    if (!shelf_is_index(index) || index > asked + SHELF_WIDTH) {
        return NULL;
    }
    struct block *block = shard->shelf.lists[index];
    size_t found_bytes = block_bytes(block);
    if (UNLIKELY(!shard_is_shelved(shard, block) || found_bytes < bytes)) {
        (void)shard_verify_shelved(shard, index, crime);
        return NULL;
    }
    shelf_pop(&shard->shelf, index, found_bytes);
    block_set_flags(&shard->key, block, 0, BLOCK_IS_GAP);
    shard_count_placed(shard, found_bytes);
    return block;
}

void *hmm_medium_allocate(unsigned number, size_t alignment, size_t request_bytes,
                          struct zero_span *zero, struct crime *crime)
{
    ASSERT(request_bytes <= MEDIUM_BYTES_MAX && alignment <= MEDIUM_ALIGN_BYTES_MAX);
    size_t least_bytes = block_bytes_for(request_bytes);
    size_t bytes = shelf_round(least_bytes);
    struct shard *shard = shard_choose(number);
    hmm_lock_acquire(&shard->lock);
    if (LIKELY(alignment <= BLOCK_UNIT_BYTES)) {
        const struct block *block = shard_take_shelved(shard, bytes, crime);
        if (LIKELY(block != NULL)) {
            *zero = span_none;
            shard_leave_shelf(shard, crime);
            return LIKELY(crime->what == NULL) ? block_payload(block) : NULL;
        }
        if (UNLIKELY(crime->what != NULL)) {
            hmm_lock_release(&shard->lock);
            return NULL;
        }
    }
    const struct wish wish = {size_max(alignment, BLOCK_UNIT_BYTES),
                              hmm_medium_is_exact ? least_bytes : bytes, least_bytes};
    return allocate_locked(shard, &wish, zero, crime);
}

void hmm_medium_clear(void *ptr, size_t bytes, struct zero_span zero)
{
    const uintptr_t end = (uintptr_t)ptr + bytes;
    uintptr_t zero_start = size_min(zero.start, end);
    uintptr_t zero_end = size_min(zero.end, end);
    if (zero_start >= zero_end || zero_start < (uintptr_t)ptr) {
        memset(ptr, 0, bytes);
        return;
    }
    memset(ptr, 0, zero_start - (uintptr_t)ptr);
    memset((void *)zero_end, 0, end - zero_end);
}
