/*
 * shard.c - the way into a shard and out of it, and how its blocks become free memory.
 *
 * free() waits for no lock. Who finds it taken pushes the block on the shard's pending stack.
 *
 * P1  A pending block is still a used one. Its first word links it, and is believed only as far as
 *     the shard's zones reach; it is verified when it is drained.
 * P2  The stack is taken whole, so there is no ABA. Only a holder of the lock takes it.
 * P3  Who has pushed tries the lock once more; who has released the lock looks at the stack once
 *     more, and tries the lock if there is something. All four are sequentially consistent: if the
 *     second try fails, there is a holder whose release comes later in their order than the push,
 *     so its look sees the block, or sees that somebody else has taken it. And if its try fails in
 *     turn, the same holds for the next holder.
 * P4  Stats, audits, trimming, purging and fork() do not look, as they could not report a crime:
 *     what was pushed meanwhile waits for the next call that allocates or frees in the shard, or
 *     moves a block's end; and for one that would find no memory otherwise.
 * P5  While the process has one thread nothing is pushed.
 */
#include "medium_verify.h"
#include "purge.h"
#include "random.h"

/* Rows of bins for every size below the zone's. */
enum {
    ROW_COUNT = ZONE_SHIFT - FIT_LINEAR_SHIFT + 1,
    /* A visit gives so much back, or so many times what it has freed. */
    VISIT_PURGE_BYTES = 1 << 20,
    VISIT_PURGE_SHARE = 2,
};

/* Storage of one index; fit_set_rows lays it out so. */
struct rows {
    _Alignas(BLOCK_UNIT_BYTES) struct block *bins[ROW_COUNT * FIT_BINS_PER_ROW];
    fit_row_bits bins_filled[ROW_COUNT];
};

static_assert(sizeof(struct rows) % BLOCK_UNIT_BYTES == 0, "as fit_rows_bytes rounds");

/* A freed block that waits for the holder of the lock, in its own payload. */
struct pending {
    struct pending *next;
};

struct shard hmm_medium_shards[SHARD_COUNT_MAX]; /* zero is a lock that is free: lock.h */
struct zone_places hmm_medium_places[SHARD_COUNT_MAX];
static struct rows shard_rows[SHARD_COUNT_MAX][2]; /* of touched and purged */

bool hmm_medium_is_exact;

/* ---------------------------------------------------------------------------- the list of zones */

void hmm_zone_link(struct shard *shard, struct granule *first)
{
    struct zone_places *places = &hmm_medium_places[shard_number(shard)];
    bool is_dirty = zone_is_dirty(shard, first);
    struct granule *prev = is_dirty ? NULL : places->last_dirty;
    struct granule **link = prev != NULL ? &prev->zone.next : &shard->zones;
    if (is_dirty && places->last_dirty == NULL) {
        places->last_dirty = first;
    }
    first->zone.prev = prev;
    first->zone.next = *link;
    if (*link != NULL) {
        (*link)->zone.prev = first;
    }
    *link = first;
}

void hmm_zone_unlink(struct shard *shard, struct granule *first)
{
    struct zone *zone = &first->zone;
    struct zone_places *places = &hmm_medium_places[shard_number(shard)];
    if (places->walker == first) {
        places->walker = zone->next;
    }
    if (places->last_dirty == first) {
        places->last_dirty = zone->prev;
    }
    *(zone->prev != NULL ? &zone->prev->zone.next : &shard->zones) = zone->next;
    if (zone->next != NULL) {
        zone->next->zone.prev = zone->prev;
    }
}

/* -------------------------------------------------------------------------------------- merging */

void hmm_shard_put(struct shard *shard, struct granule *first, struct block *block,
                   struct zero_span zero, struct visit *visit)
{
    size_t bytes = block_bytes(block);
    visit->freed_bytes += bytes;
    struct block *next = block_after(block, bytes);
    bool is_last = block_address(next) == first->zone.top;
    bool is_prev_free = block_is_prev_free(block);
    if (is_last || is_prev_free) {
        block_set_flags(&shard->key, block, BLOCK_IS_FREE, BLOCK_IS_GAP); /* B7 */
    }
    if (!is_last && block_is_free(next)) {
        bytes += block_bytes(next);
        zero = span_larger(zero, shard_unfree(shard, next));
    } else if (!is_last) {
        block_set_flags(&shard->key, next, BLOCK_IS_PREV_FREE, 0);
    }
    if (is_prev_free) {
        block = block_before(block, block_prev_bytes(block));
        bytes += block_bytes(block);
        struct zero_span before = shard_unfree(shard, block);
        zero = is_last ? zero : span_larger(zero, before);
    }
    if (is_last) {
        zone_lower(shard, first, block_address(block), zero, visit);
    } else {
        shard_make_free(shard, block, bytes, zero);
    }
}

/* ------------------------------------------------------------------------------------ the shelf */

void hmm_shard_clear_shelf(struct shard *shard, size_t keep_bytes, struct visit *visit)
{
    struct shelf *shelf = &shard->shelf;
    while (shelf->bytes > keep_bytes) {
        unsigned index = shelf_next_index(shelf);
        struct block *block = shelf->lists[index];
        struct granule *first = shard_verify_shelved(shard, index, visit->crime);
        if (UNLIKELY(first == NULL ||
                     !shard_verify_neighbours(shard, first, block, visit->crime))) {
            return;
        }
        shelf->hand = index + 1;
        shelf_pop(shelf, index, block_bytes(block));
        hmm_shard_put(shard, first, block, span_none, visit);
    }
}

/* K3 */
static void shard_limit_shelf(struct shard *shard, struct visit *visit)
{
    size_t most_bytes = shelf_bytes_most(&shard->shelf, shard->live_bytes);
    if (shard->shelf.bytes > most_bytes && visit->crime->what == NULL) {
        hmm_shard_clear_shelf(shard, most_bytes, visit);
    }
}

/* -------------------------------------------------------------------------------------- freeing */

bool hmm_shard_free(struct shard *shard, const void *ptr, struct visit *visit)
{
    struct crime *crime = visit->crime;
    struct granule *first = shard_verify_pointer(shard, ptr, crime);
    struct block *block = block_of(ptr);
    if (UNLIKELY(first == NULL || !shard_verify_neighbours(shard, first, block, crime))) {
        crime_of_free(crime);
        return false;
    }
    size_t usable_bytes = block_usable_bytes(block);
    if (!shard_shelve(shard, block,
                      shelf_bytes_most(&shard->shelf, shard->live_bytes - usable_bytes))) {
        shard->live_bytes -= usable_bytes;
        shard->live_count--;
        hmm_shard_put(shard, first, block, span_none, visit);
    }
    return true;
}

void hmm_shard_push_pending(struct shard *shard, void *ptr)
{
    struct pending *pending = ptr;
    struct pending *top = atomic_load_explicit(&shard->pending, memory_order_relaxed);
    do {
        pending->next = top;
    } while (!atomic_compare_exchange_weak_explicit(&shard->pending, &top, pending,
                                                    memory_order_seq_cst, memory_order_relaxed));
}

static bool shard_has_pending(struct shard *shard, const struct visit *visit)
{
    return UNLIKELY(atomic_load_explicit(&shard->pending, memory_order_seq_cst) != NULL) &&
           visit->crime->what == NULL;
}

/* Frees what is pending. At the first crime the rest is left alone, because the program ends. The
 * acquire is the partner of the push. */
static HMM_COLD void shard_drain(struct shard *shard, struct visit *visit)
{
    const struct block *before = NULL;
    const struct pending *pending =
        atomic_exchange_explicit(&shard->pending, NULL, memory_order_acquire);
    while (pending != NULL) {
        const struct block *block = block_of(pending);
        if (!shard_can_follow(shard, block)) {
            crime_set(visit->crime, "damaged free block", before, 0);
            return;
        }
        const struct pending *next = pending->next;
        if (!hmm_shard_free(shard, pending, visit)) {
            return;
        }
        before = block;
        pending = next;
    }
}

/* --------------------------------------------------------------------------- into and out of it */

void hmm_shard_open(struct shard *shard)
{
    uint64_t secret = hmm_random_secret();
    struct rows *rows = shard_rows[shard_number(shard)];
    ASSERT(fit_rows_bytes(ROW_COUNT) == sizeof *rows);
    shard->key = (struct block_key){.add = secret, .multiply = rotate_left(secret, 32) | 1};
    shard->touched = shard->purged = (struct fit){.policy = HMM_FIT_GOOD, .low = UINTPTR_MAX};
    fit_set_rows(&shard->touched, &rows[0], ROW_COUNT);
    fit_set_rows(&shard->purged, &rows[1], ROW_COUNT);
    /* Without a checksum nobody can vouch for a pointer, and there is no short way. */
    shard->shelf.bytes_most = hmm_medium_is_exact || !BLOCK_HAS_CHECKSUM ? 0 : SHELF_BYTES_MOST;
    shard->page_bytes = hmm_os_page_bytes();
}

static HMM_COLD void shard_report(struct shard *shard, struct visit *visit)
{
    size_t dirty_bytes = shard->dirty_bytes + shard->shelf.bytes;
    size_t idle_bytes = shard->held_bytes - shard->live_bytes;
    visit->has_more_dirty |= dirty_bytes > shard->reported_bytes;
    hmm_purge_count_zones((ptrdiff_t)(dirty_bytes - shard->reported_bytes),
                          (ptrdiff_t)(idle_bytes - shard->reported_idle_bytes));
    shard->reported_bytes = dirty_bytes;
    shard->reported_idle_bytes = idle_bytes;
}

void hmm_shard_exit(struct shard *shard, struct visit *visit)
{
    shard->reckoned_shelf_bytes = shard->shelf.bytes;
    if (is_worth_a_report(shard, shard->dirty_bytes + shard->shelf.bytes, shard->reported_bytes) ||
        is_worth_a_report(shard, shard->held_bytes - shard->live_bytes,
                          shard->reported_idle_bytes)) {
        shard_report(shard, visit);
    }
    hmm_lock_release(&shard->lock);
}

void hmm_shard_end_visit(struct visit *visit)
{
    while (UNLIKELY(visit->gone != NULL)) {
        struct granule *first = visit->gone;
        visit->gone = first->zone.next;
        size_t touched_bytes = first->zone.touched - granule_start(first);
        hmm_arena_give(first, zone_granule_count(first),
                       align_up(touched_bytes, GRANULE_BYTES) >> GRANULE_SHIFT);
    }
    if (UNLIKELY(visit->regret_bytes != 0)) {
        hmm_purge_regret(visit->regret_bytes);
    }
}

void hmm_shard_leave(struct shard *shard, struct visit *visit)
{
    do {
        if (shard_has_pending(shard, visit)) {
            shard_drain(shard, visit);
        }
        shard_limit_shelf(shard, visit);
        hmm_shard_exit(shard, visit);
    } while (shard_has_pending(shard, visit) && hmm_lock_try_now(&shard->lock));
    hmm_shard_end_visit(visit);
}

void hmm_shard_finish(struct shard *shard, struct visit *visit)
{
    hmm_shard_leave(shard, visit);
    if (UNLIKELY(visit->has_more_dirty && visit->crime->what == NULL)) {
        size_t budget_bytes = size_max(VISIT_PURGE_BYTES, VISIT_PURGE_SHARE * visit->freed_bytes);
        (void)hmm_arena_purge_excess(budget_bytes);
        (void)hmm_shard_purge_excess(shard, budget_bytes, visit->freed_bytes != 0, visit->crime);
        hmm_purge_note_rest();
    }
}

void hmm_shard_look_again(struct shard *shard, struct crime *crime)
{
    struct visit visit = {.crime = crime};
    if (hmm_lock_try_now(&shard->lock)) {
        hmm_shard_finish(shard, &visit);
    }
}
