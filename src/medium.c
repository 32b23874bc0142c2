/*
 * medium.c - blocks of medium size: all calls but the one that allocates. A shard of zones serves a
 * thread; its lock is held for a moment.
 *
 * Each call has two halves, as in heap.c: medium_verify.h looks; what is here, and in the files
 * that shard.h names, acts.
 *
 * Most calls go the short way: free() lays the block on the shelf (shelf.h), malloc() takes one
 * from it, realloc() sees at a glance that the block fits where it is. Where anything is not as it
 * mostly is, nothing has happened, and the long way looks again.
 */
#include "medium_verify.h"
#include "purge.h"

/* A block that is resized keeps what it does not need, up to such a share of it. */
enum { SLACK_SHARE = 8 };

void hmm_medium_set_exact(void)
{
    hmm_medium_is_exact = true;
}

/* ----------------------------------------------------------------------------------------- free */

/* How much may be added to the shelf once the block is not live any more. */
static inline size_t shard_shelf_room(const struct shard *shard, const struct block *block)
{
    size_t most_bytes =
        shelf_bytes_most(&shard->shelf, shard->live_bytes - block_usable_bytes(block));
    return size_less(most_bytes, shard->shelf.bytes);
}

/* The long way, of a shard whose lock is held. */
static bool free_locked(struct shard *shard, const void *ptr, struct crime *crime)
{
    struct visit visit = {.crime = crime};
    (void)hmm_shard_free(shard, ptr, &visit);
    hmm_shard_finish(shard, &visit);
    return crime->what == NULL;
}

/* Somebody has the lock. A misaligned pointer could not even be linked: it waits, to be blamed. */
static HMM_COLD bool free_contended(struct shard *shard, void *ptr, struct crime *crime)
{
    if (!is_aligned((uintptr_t)ptr, BLOCK_UNIT_BYTES)) {
        hmm_lock_acquire(&shard->lock);
        return free_locked(shard, ptr, crime);
    }
    hmm_shard_push_pending(shard, ptr);
    if (hmm_lock_try_now(&shard->lock)) {
        struct visit visit = {.crime = crime};
        hmm_shard_finish(shard, &visit);
    }
    return crime->what == NULL;
}

/* With one thread nobody else has it (lock.h says who else might). */
static bool shard_try(struct shard *shard)
{
    if (!process_has_one_thread()) {
        return hmm_lock_try_now(&shard->lock);
    }
    hmm_lock_acquire(&shard->lock);
    return true;
}

bool hmm_medium_free(void *ptr, struct crime *crime)
{
    struct shard *shard = shard_of(ptr);
    if (UNLIKELY(!shard_try(shard))) {
        return free_contended(shard, ptr, crime);
    }
    struct block *block = block_of(ptr);
    if (UNLIKELY(!shard_is_used(shard, ptr) || !shard_next_is_sealed(shard, block) ||
                 !shard_shelve(shard, block, shard_shelf_room(shard, block)))) {
        return free_locked(shard, ptr, crime);
    }
    shard_leave_shelf(shard, crime);
    return LIKELY(crime->what == NULL);
}

/* ----------------------------------------------------------------------- how much a block holds */

/* The usable bytes of a block that is in use beyond doubt; 0: it is for others to look. */
static size_t usable_at_a_glance(const struct shard *shard, const void *ptr)
{
    const struct block *block = block_of(ptr);
    if (UNLIKELY(!shard_can_vouch(shard, ptr))) {
        return 0;
    }
    uintptr_t tag = medium_tag_peek(block);
    return LIKELY(tag_is_used(shard, block, tag)) ? tag_bytes(tag) - BLOCK_TAG_BYTES : 0;
}

bool hmm_medium_usable(const void *ptr, size_t *usable_bytes, struct crime *crime)
{
    struct shard *shard = shard_of(ptr);
    size_t seen_bytes = usable_at_a_glance(shard, ptr);
    if (LIKELY(seen_bytes != 0)) {
        *usable_bytes = seen_bytes;
        return true;
    }
    struct visit visit = {.crime = crime};
    hmm_lock_acquire(&shard->lock);
    if (shard_verify_pointer(shard, ptr, crime) != NULL) {
        *usable_bytes = block_usable_bytes(block_of(ptr));
    }
    hmm_shard_finish(shard, &visit);
    return crime->what == NULL;
}

/* Gives a used block other bounds: the wilderness or the free block after it has what it wants, and
 * gets what it no longer needs. false: there is no room, or a crime. */
static bool shard_refit(struct shard *shard, struct granule *first, struct block *block,
                        size_t bytes, struct visit *visit)
{
    const unsigned flags = block_is_prev_free(block) ? BLOCK_IS_PREV_FREE : 0;
    size_t own_bytes = block_bytes(block);
    size_t total_bytes = own_bytes;
    struct block *next = block_after(block, own_bytes);
    struct zero_span zero = span_none;
    if (bytes > own_bytes && block_address(next) == first->zone.top) {
        if (bytes > first->zone.end - block_address(block)) {
            return false;
        }
        zone_raise(shard, first, block_address(block) + bytes, visit);
        total_bytes = bytes;
    } else if (bytes > own_bytes) {
        total_bytes += block_is_free(next) ? block_bytes(next) : 0;
        if (bytes > total_bytes || !shard_verify_next(shard, first, next, visit->crime)) {
            return false;
        }
        zero = shard_unfree(shard, next);
        visit->regret_bytes += span_bytes(span_clip(zero, 0, block_address(block) + bytes));
        block_set_flags(&shard->key, block_after(block, total_bytes), 0, BLOCK_IS_PREV_FREE);
    }
    size_t rest_bytes = total_bytes - bytes >= BLOCK_BYTES_MIN ? total_bytes - bytes : 0;
    bytes = total_bytes - rest_bytes;
    block_write(&shard->key, block, bytes, flags);
    shard->live_bytes += bytes - own_bytes;
    if (rest_bytes != 0) {
        struct block *rest = block_after(block, bytes);
        block_write(&shard->key, rest, rest_bytes, 0);
        hmm_shard_put(shard, first, rest, zero, visit);
    }
    return true;
}

bool hmm_medium_verify(const void *ptr, struct crime *crime)
{
    struct shard *shard = shard_of(ptr);
    struct visit visit = {.crime = crime};
    hmm_lock_acquire(&shard->lock);
    struct granule *first = shard_verify_pointer(shard, ptr, crime);
    if (first != NULL) {
        (void)shard_verify_neighbours(shard, first, block_of(ptr), crime);
    }
    hmm_shard_finish(shard, &visit);
    return crime->what == NULL;
}

/* The long way. */
static bool shard_resize(struct shard *shard, void *ptr, size_t request_bytes, size_t *usable_bytes,
                         struct crime *crime)
{
    struct visit visit = {.crime = crime};
    struct block *block = block_of(ptr);
    size_t bytes = block_bytes_for(request_bytes);
    size_t wished_bytes = hmm_medium_is_exact ? bytes : shelf_round(bytes);
    bool is_done = false;
    hmm_lock_acquire(&shard->lock);
    struct granule *first = shard_verify_pointer(shard, ptr, crime);
    if (first != NULL && shard_verify_next(shard, first, block, crime)) {
        *usable_bytes = block_usable_bytes(block);
        is_done = bytes != 0 &&
                  (shard_refit(shard, first, block, wished_bytes, &visit) ||
                   (crime->what == NULL && shard_refit(shard, first, block, bytes, &visit)));
    }
    hmm_shard_finish(shard, &visit);
    return is_done && crime->what == NULL;
}

bool hmm_medium_resize(void *ptr, size_t request_bytes, size_t *usable_bytes, struct crime *crime)
{
    struct shard *shard = shard_of(ptr);
    size_t seen_bytes = usable_at_a_glance(shard, ptr);
    if (request_bytes <= seen_bytes && seen_bytes - request_bytes <= seen_bytes / SLACK_SHARE &&
        LIKELY(!hmm_medium_is_exact)) {
        *usable_bytes = seen_bytes;
        return true;
    }
    return shard_resize(shard, ptr, request_bytes, usable_bytes, crime);
}

static HMM_COLD void purge_excess(size_t budget_bytes)
{
    for (int i = 0; i < SHARD_COUNT_MAX && budget_bytes != 0; i++) {
        struct crime crime; /* for the call that meets it next */
        crime_clear(&crime);
        size_t bytes = hmm_shard_purge_excess(&hmm_medium_shards[i], budget_bytes, true, &crime);
        budget_bytes -= size_min(bytes, budget_bytes);
    }
}

void hmm_medium_purge_excess(size_t budget_bytes)
{
    if (UNLIKELY(hmm_purge_excess_in_zones_bytes() != 0)) {
        purge_excess(budget_bytes);
    }
    hmm_purge_note_rest();
}

void hmm_medium_yield(void)
{
    for (int i = 0; i < SHARD_COUNT_MAX; i++) {
        struct shard *shard = &hmm_medium_shards[i];
        struct crime crime; /* for the call that meets it next */
        crime_clear(&crime);
        struct visit visit = {.crime = &crime};
        hmm_lock_acquire(&shard->lock);
        hmm_shard_clear_shelf(shard, 0, &visit);
        if (shard->empty != NULL) {
            zone_detach(shard, shard->empty, &visit);
            shard->empty = NULL;
        }
        hmm_shard_exit(shard, &visit);
        hmm_shard_end_visit(&visit);
    }
}

size_t hmm_medium_trim(size_t budget_bytes)
{
    size_t purged_bytes = 0;
    for (int i = 0; i < SHARD_COUNT_MAX && purged_bytes < budget_bytes; i++) {
        struct shard *shard = &hmm_medium_shards[i];
        struct crime crime; /* as above */
        crime_clear(&crime);
        purged_bytes += hmm_shard_trim(shard, budget_bytes - purged_bytes, &crime);
        if (purged_bytes < budget_bytes && crime.what == NULL) {
            purged_bytes += hmm_shard_purge(shard, budget_bytes - purged_bytes, true, &crime);
        }
    }
    return purged_bytes;
}

void hmm_medium_lock_all(void)
{
    for (int i = 0; i < SHARD_COUNT_MAX; i++) {
        hmm_lock_acquire_for_fork(&hmm_medium_shards[i].lock);
    }
}

void hmm_medium_unlock_all(void)
{
    for (int i = 0; i < SHARD_COUNT_MAX; i++) {
        hmm_lock_release_after_fork(&hmm_medium_shards[i].lock);
    }
}
