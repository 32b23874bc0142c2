/*
 * medium.c - blocks of medium size. A shard of zones serves a thread; its lock is held for a moment.
 *
 * Each call has two halves, as in heap.c: medium_verify.h looks, what is here acts.
 *
 * Most calls go the short way: free() lays the block on the shelf (shelf.h), malloc() takes one from it, realloc()
 * sees at a glance that the block fits where it is. Where anything is not as it mostly is, nothing has
 * happened, and the long way looks again.
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
 * P4  Stats, audits, trimming and fork() do not look, as they could not report a crime: what was
 *     pushed meanwhile waits for the next call that allocates or frees in the shard, or moves a block's end.
 * P5  While the process has one thread nothing is pushed.
 *
 * Pages are given back with no lock held: the range becomes a gap first (Z5). A child of fork()
 * loses the gaps that other threads held then.
 */
#include "medium_verify.h"
#include "purge.h"
#include "random.h"

enum {
    /* How many zones a call looks at: those behind wait until a block at their top is freed. */
    ZONE_LOOK_COUNT = 8,
    /* A block that is resized keeps what it does not need, up to such a share of it. */
    SLACK_SHARE = 8,
    /* A call gives so much back, and the rest of the block that it was at. */
    PURGE_BYTES_MAX = 1 << 20,
    /* Rows of bins for every size below the zone's. */
    ROW_COUNT = ZONE_SHIFT - FIT_LINEAR_SHIFT + 1,
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

/* What is asked for. */
struct wish {
    size_t alignment;
    size_t bytes;       /* rounded, for the shelf */
    size_t least_bytes; /* these will do */
};

#define SHARD_INITIALIZER                                                                          \
    {                                                                                              \
        .lock = LOCK_INITIALIZER(LOCK_RANK_MEDIUM)                                                 \
    }

struct shard hmm_medium_shards[SHARD_COUNT_MAX] = {
    SHARD_INITIALIZER, SHARD_INITIALIZER, SHARD_INITIALIZER, SHARD_INITIALIZER,
    SHARD_INITIALIZER, SHARD_INITIALIZER, SHARD_INITIALIZER, SHARD_INITIALIZER,
};
static struct rows shard_rows[SHARD_COUNT_MAX][2]; /* of touched and purged */

/* A power of two, so that a mask chooses the shard of a number. 0: not found out yet. Relaxed,
 * because every thread finds the same. */
static _Atomic unsigned shard_count;

static bool is_exact; /* immutable once there are blocks */

void hmm_medium_set_exact(void)
{
    is_exact = true;
}

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
    if (__libc_single_threaded) {
        return &hmm_medium_shards[0];
    }
    unsigned count = atomic_load_explicit(&shard_count, memory_order_relaxed);
    count = LIKELY(count != 0) ? count : shard_count_find();
    return &hmm_medium_shards[number & (count - 1)];
}

/* -------------------------------------------------------------------------------- merging */

/* A block that was verified, with its neighbours, and is no longer used becomes free memory. `zero`
 * is what is known of it. */
static void zone_put(struct shard *shard, struct granule *first, struct block *block,
                     struct zero_span zero, struct visit *visit)
{
    size_t bytes = block_bytes(block);
    visit->has_freed = true;
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

/* --------------------------------------------------------------------------------- the shelf */

/* A used block, whose tag is good, goes on the shelf; `most_bytes` may lie there then. false: it must be
 * merged, nothing has changed. */
static inline __attribute__((always_inline)) bool
shard_shelve(struct shard *shard, struct block *block, size_t most_bytes)
{
    size_t bytes = block_bytes(block);
    unsigned index = shelf_index(bytes);
    if (!shelf_is_index(index) || bytes > most_bytes) {
        return false;
    }
    shard->live_bytes -= bytes - BLOCK_TAG_BYTES;
    shard->live_count--;
    block_set_flags(&shard->key, block, BLOCK_IS_GAP, 0);
    shelf_push(&shard->shelf, index, block, bytes);
    return true;
}

/* How much may be added to the shelf once the block is not live any more. */
static inline size_t shard_shelf_room(const struct shard *shard, const struct block *block)
{
    size_t most_bytes =
        shelf_bytes_most(&shard->shelf, shard->live_bytes - block_usable_bytes(block));
    return most_bytes - size_min(most_bytes, shard->shelf.bytes);
}

/* Merges what has been on the shelf for long, until no more than so much is left. Ends at a crime. */
static HMM_COLD void shard_clear_shelf(struct shard *shard, size_t keep_bytes, struct visit *visit)
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
        zone_put(shard, first, block, span_none, visit);
    }
}

/* K3 */
static void shard_limit_shelf(struct shard *shard, struct visit *visit)
{
    size_t most_bytes = shelf_bytes_most(&shard->shelf, shard->live_bytes);
    if (shard->shelf.bytes > most_bytes && visit->crime->what == NULL) {
        shard_clear_shelf(shard, most_bytes, visit);
    }
}

/* ---------------------------------------------------------------------------------- allocate */

/* Hands out a block that begins `lead_bytes` into memory that is in nobody's hands; what lies before
 * it becomes free. `zero` is what is known of that memory. */
static void *shard_place(struct shard *shard, struct block *block, size_t lead_bytes, size_t bytes,
                         struct zero_span zero, struct visit *visit)
{
    struct block *placed = block_after(block, lead_bytes);
    void *ptr = block_payload(placed);
    if (lead_bytes != 0) {
        shard_make_free(shard, block, lead_bytes, zero);
    }
    block_write(&shard->key, placed, bytes, lead_bytes != 0 ? BLOCK_IS_PREV_FREE : 0);
    shard->live_bytes += bytes - BLOCK_TAG_BYTES;
    shard->live_count++;
    shard->placed_count++;
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

/* Cuts a used block out of a wilderness that has room for it. */
static void *zone_cut(struct shard *shard, struct granule *first, size_t alignment, size_t bytes,
                      struct visit *visit)
{
    struct block *block = block_at(first->zone.top);
    const struct zero_span zero = {first->zone.touched, first->zone.end};
    size_t lead_bytes = fit_lead_bytes(block, alignment);
    zone_raise(shard, first, first->zone.top + lead_bytes + bytes, visit);
    zone_to_front(shard, first);
    return shard_place(shard, block, lead_bytes, bytes, zero, visit);
}

/* A zone where the block would lie in touched memory; NULL: none. */
static struct granule *shard_touched_zone(const struct shard *shard, size_t alignment, size_t bytes)
{
    struct granule *first = shard->zones;
    for (int looks = 0; first != NULL && looks < ZONE_LOOK_COUNT; looks++) {
        if (zone_reach(first, alignment, bytes) <= first->zone.touched) {
            return first;
        }
        first = first->zone.next;
    }
    return NULL;
}

/* A zone that has room; NULL: none. */
static struct granule *shard_roomy_zone(const struct shard *shard, size_t alignment, size_t bytes)
{
    struct granule *first = shard->zones;
    for (int looks = 0; first != NULL && looks < ZONE_LOOK_COUNT; looks++) {
        if (zone_reach(first, alignment, bytes) != UINTPTR_MAX) {
            return first;
        }
        first = first->zone.next;
    }
    bool is_empty_roomy =
        shard->empty != NULL && zone_reach(shard->empty, alignment, bytes) != UINTPTR_MAX;
    return is_empty_roomy ? shard->empty : NULL;
}

/* A block out of memory that is touched; NULL: nothing fits, or a crime. */
static void *shard_find_touched(struct shard *shard, size_t alignment, size_t bytes,
                                struct visit *visit)
{
    struct block *block = fit_search(&shard->touched, bytes, alignment);
    if (LIKELY(block != NULL)) {
        return shard_verify_found(shard, block, visit->crime) != NULL
                   ? shard_cut(shard, block, alignment, bytes, visit)
                   : NULL;
    }
    struct granule *first = shard_touched_zone(shard, alignment, bytes);
    return first != NULL ? zone_cut(shard, first, alignment, bytes, visit) : NULL;
}

/* A block out of memory that is touched only now. */
static void *shard_find_fresh(struct shard *shard, size_t alignment, size_t bytes,
                              struct visit *visit)
{
    struct block *block = fit_search(&shard->purged, bytes, alignment);
    if (block == NULL) {
        struct granule *first = shard_roomy_zone(shard, alignment, bytes);
        return first != NULL ? zone_cut(shard, first, alignment, bytes, visit) : NULL;
    }
    return shard_verify_found(shard, block, visit->crime) != NULL
               ? shard_cut(shard, block, alignment, bytes, visit)
               : NULL;
}

/* A block out of the smallest one on the shelf that is larger; NULL: there is none, or a crime. */
static void *shard_find_shelved(struct shard *shard, size_t bytes, struct visit *visit)
{
    unsigned index = shelf_index_from(&shard->shelf, shelf_index(bytes) + 1);
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
    zone_put(shard, first, rest, span_none, visit);
    shard->live_bytes += bytes - BLOCK_TAG_BYTES;
    shard->live_count++;
    shard->placed_count++;
    *visit->zero = span_none;
    return block_payload(block);
}

/* Merges all that is on the shelf, and looks once more. */
static HMM_COLD void *shard_find_merged(struct shard *shard, const struct wish *wish,
                                        struct visit *visit)
{
    shard_clear_shelf(shard, 0, visit);
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

/* -------------------------------------------------------------------------------------- free */

/* Frees a block of this shard. false: a crime. */
static bool shard_free(struct shard *shard, const void *ptr, struct visit *visit)
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
        zone_put(shard, first, block, span_none, visit);
    }
    return true;
}

static void pending_push(struct shard *shard, struct pending *pending)
{
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
        if (!shard_free(shard, pending, visit)) {
            return;
        }
        before = block;
        pending = next;
    }
}

/* ---------------------------------------------------------------------------- into and out of it */

static HMM_COLD void shard_open(struct shard *shard)
{
    uint64_t secret = hmm_random_secret();
    struct rows *rows = shard_rows[shard_number(shard)];
    ASSERT(fit_rows_bytes(ROW_COUNT) == sizeof *rows);
    shard->key = (struct block_key){.add = secret, .multiply = rotate_left(secret, 32) | 1};
    shard->touched = shard->purged = (struct fit){.policy = HMM_FIT_GOOD, .low = UINTPTR_MAX};
    fit_set_rows(&shard->touched, &rows[0], ROW_COUNT);
    fit_set_rows(&shard->purged, &rows[1], ROW_COUNT);
    shard->shelf.bytes_most = is_exact ? 0 : SHELF_BYTES_MOST;
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

/* Tells purge.c what has changed, if that is worth while, and releases the lock. */
static void shard_exit(struct shard *shard, struct visit *visit)
{
    shard->reckoned_shelf_bytes = shard->shelf.bytes;
    if (is_worth_a_report(shard, shard->dirty_bytes + shard->shelf.bytes, shard->reported_bytes) ||
        is_worth_a_report(shard, shard->held_bytes - shard->live_bytes,
                          shard->reported_idle_bytes)) {
        shard_report(shard, visit);
    }
    hmm_lock_release(&shard->lock);
}

/* What must not be done under the lock. */
static void visit_end(struct visit *visit)
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

/* Releases the lock, so that no pending block is left behind (P3). */
static void shard_leave(struct shard *shard, struct visit *visit)
{
    do {
        if (shard_has_pending(shard, visit)) {
            shard_drain(shard, visit);
        }
        shard_limit_shelf(shard, visit);
        shard_exit(shard, visit);
    } while (shard_has_pending(shard, visit) && hmm_lock_try_now(&shard->lock));
    visit_end(visit);
}

/* ----------------------------------------------------------------------------------- purging */

/* A gap in a zone, whose holder gives its pages back. */
struct hold {
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

static struct hold hold_block(struct shard *shard, struct block *block, struct crime *crime)
{
    struct granule *first = shard_verify_found(shard, block, crime);
    if (first == NULL) {
        return (struct hold){0};
    }
    struct zero_span purged = shard_unfree(shard, block);
    block_set_flags(&shard->key, block, BLOCK_IS_GAP, BLOCK_IS_FREE);
    block_set_flags(&shard->key, block_next(block), 0, BLOCK_IS_PREV_FREE);
    return (struct hold){first, block, purged, spare_pages(shard, block)};
}

/* The gap reaches one tag beyond the pages, lest the next block's tag lie in them. At the end of
 * the zone there is no room for one. */
static struct hold hold_wilderness(struct shard *shard, struct granule *first, struct visit *visit)
{
    const struct zone *zone = &first->zone;
    struct block *block = block_at(zone->top);
    struct zero_span pages = zone_dirty_pages(shard, zone);
    uintptr_t end = pages.end + BLOCK_UNIT_BYTES - BLOCK_TAG_BYTES;
    end = end <= zone->end ? end : end - BLOCK_UNIT_BYTES;
    zone_raise(shard, first, end, visit);
    block_write(&shard->key, block, end - block_address(block), BLOCK_IS_GAP);
    pages.end = size_max(pages.end, zone->touched);
    return (struct hold){first, block, span_none, pages};
}

/* Takes dirty pages out of everybody's reach: of a block or of the wilderness of so many zones. */
static struct hold shard_hold(struct shard *shard, size_t look_count, struct visit *visit)
{
    struct block *block = shard_largest_dirty(shard);
    if (block == NULL && shard->shelf.count != 0) {
        shard_clear_shelf(shard, 0, visit);
        if (UNLIKELY(visit->crime->what != NULL)) {
            return (struct hold){0};
        }
        block = shard_largest_dirty(shard);
    }
    if (block != NULL) {
        return hold_block(shard, block, visit->crime);
    }
    struct granule *first = shard->zones;
    for (size_t looks = 0; first != NULL && looks < look_count; looks++) {
        if (span_bytes(zone_dirty_pages(shard, &first->zone)) != 0) {
            return hold_wilderness(shard, first, visit);
        }
        first = first->zone.next;
    }
    return (struct hold){0};
}

/* Gives dirty memory of the shard back, one block after the other, until it is so much. Returns how
 * much it was. */
static size_t shard_purge(struct shard *shard, size_t budget_bytes, size_t look_count,
                          struct crime *crime)
{
    struct visit visit = {.crime = crime};
    size_t purged_bytes = 0;
    bool is_purged = true;
    while (is_purged && purged_bytes < budget_bytes && crime->what == NULL) {
        hmm_lock_acquire(&shard->lock);
        struct hold hold = shard_hold(shard, look_count, &visit);
        shard_exit(shard, &visit);
        if (hold.first == NULL) {
            break;
        }
        size_t bytes = align_down(span_bytes(hold.after), shard->page_bytes);
        is_purged = hmm_purge_pages(hold.after.start, bytes);
        purged_bytes += is_purged ? bytes - span_bytes(hold.before) : 0;
        hmm_lock_acquire(&shard->lock);
        if (shard_verify_tag(shard, hold.first, hold.block, crime) &&
            shard_verify_neighbours(shard, hold.first, hold.block, crime)) {
            zone_put(shard, hold.first, hold.block, is_purged ? hold.after : hold.before, &visit);
        }
        shard_exit(shard, &visit);
    }
    visit_end(&visit);
    return purged_bytes;
}

/* Gives back what exceeds the bound. */
static HMM_COLD void shard_purge_excess(struct shard *shard, struct crime *crime)
{
    size_t budget_bytes = size_min(hmm_purge_excess_bytes(), PURGE_BYTES_MAX);
    if (budget_bytes != 0) {
        struct visit visit = {.crime = crime}; /* P3: purging does not look */
        (void)shard_purge(shard, budget_bytes, ZONE_LOOK_COUNT, crime);
        hmm_lock_acquire(&shard->lock);
        shard_leave(shard, &visit);
    }
}

/* Leaves the shard after a change, and does what that entails. */
static void shard_finish(struct shard *shard, struct visit *visit)
{
    shard_leave(shard, visit);
    if (UNLIKELY(visit->has_more_dirty && visit->has_freed && visit->crime->what == NULL)) {
        shard_purge_excess(shard, visit->crime);
    }
}

/* -------------------------------------------------------------------------------- the calls */

/* A block from the shard or, if there is one, from a zone that becomes the shard's. The lock is held, and
 * is not afterwards. */
static void *shard_allocate(struct shard *shard, struct granule *fresh, const struct wish *wish,
                            struct zero_span *zero, struct crime *crime)
{
    struct visit visit = {.crime = crime, .zero = zero};
    void *ptr;
    if (UNLIKELY(shard->page_bytes == 0)) {
        shard_open(shard);
    }
    if (fresh != NULL) {
        bool is_roomy = zone_reach(fresh, wish->alignment, wish->bytes) != UINTPTR_MAX;
        size_t bytes = is_roomy ? wish->bytes : wish->least_bytes;
        zone_attach(shard, fresh);
        ptr = zone_cut(shard, fresh, wish->alignment, bytes, &visit);
    } else {
        ptr = shard_find(shard, wish, &visit);
    }
    shard_finish(shard, &visit);
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
    /* Before the request fails: what other shards have. */
    for (int i = 0; i < SHARD_COUNT_MAX && ptr == NULL && crime->what == NULL; i++) {
        hmm_lock_acquire(&hmm_medium_shards[i].lock);
        ptr = shard_allocate(&hmm_medium_shards[i], NULL, wish, zero, crime);
    }
    return ptr;
}

/* The lock was released after a short way: P3. */
static HMM_COLD void shard_look_again(struct shard *shard, struct crime *crime)
{
    struct visit visit = {.crime = crime};
    if (hmm_lock_try_now(&shard->lock)) {
        shard_finish(shard, &visit);
    }
}

/* Releases the lock after a change that moved a block to or from the shelf, and no more. */
static inline __attribute__((always_inline)) void shard_leave_shelf(struct shard *shard,
                                                                    struct crime *crime)
{
    hmm_lock_release(&shard->lock);
    if (UNLIKELY(atomic_load_explicit(&shard->pending, memory_order_seq_cst) != NULL)) {
        shard_look_again(shard, crime);
    }
}

/* A block of at least `bytes` from the shelf; NULL: there is none, or a crime. */
static inline __attribute__((always_inline)) struct block *
shard_take_shelved(struct shard *shard, size_t bytes, struct crime *crime)
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
    shard->live_bytes += found_bytes - BLOCK_TAG_BYTES;
    shard->live_count++;
    shard->placed_count++;
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
    const struct wish wish = {size_max(alignment, BLOCK_UNIT_BYTES), is_exact ? least_bytes : bytes,
                              least_bytes};
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

/* The long way, of a shard whose lock is held. */
static bool free_locked(struct shard *shard, const void *ptr, struct crime *crime)
{
    struct visit visit = {.crime = crime};
    (void)shard_free(shard, ptr, &visit);
    shard_finish(shard, &visit);
    return crime->what == NULL;
}

/* Somebody has the lock. A misaligned pointer could not even be linked: it waits, to be blamed. */
static HMM_COLD bool free_contended(struct shard *shard, void *ptr, struct crime *crime)
{
    if (!is_aligned((uintptr_t)ptr, BLOCK_UNIT_BYTES)) {
        hmm_lock_acquire(&shard->lock);
        return free_locked(shard, ptr, crime);
    }
    pending_push(shard, ptr);
    if (hmm_lock_try_now(&shard->lock)) {
        struct visit visit = {.crime = crime};
        shard_finish(shard, &visit);
    }
    return crime->what == NULL;
}

/* With one thread nobody else has it (lock.h says who else might). */
static bool shard_try(struct shard *shard)
{
    if (!__libc_single_threaded) {
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
    if (UNLIKELY(!shard_is_used(shard, ptr) ||
                 !shard_shelve(shard, block, shard_shelf_room(shard, block)))) {
        return free_locked(shard, ptr, crime);
    }
    shard_leave_shelf(shard, crime);
    return LIKELY(crime->what == NULL);
}

/* A used block's tag can be read without the lock: nobody changes its size meanwhile, and its word is
 * written whole. */
HMM_RACY static uintptr_t tag_peek(const struct block *block)
{
    return *(const volatile uintptr_t *)&block->tag;
}

/* The usable bytes of a block that is in use beyond doubt; 0: it is for others to look. */
static size_t usable_at_a_glance(const struct shard *shard, const void *ptr)
{
    const struct block *block = block_of(ptr);
    if (UNLIKELY(!shard_can_vouch(shard, ptr))) {
        return 0;
    }
    uintptr_t tag = tag_peek(block);
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
    shard_finish(shard, &visit);
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
        zone_put(shard, first, rest, zero, visit);
    }
    return true;
}

/* The long way. */
static bool shard_resize(struct shard *shard, void *ptr, size_t request_bytes, size_t *usable_bytes,
                         struct crime *crime)
{
    struct visit visit = {.crime = crime};
    struct block *block = block_of(ptr);
    size_t bytes = block_bytes_for(request_bytes);
    bool is_done = false;
    hmm_lock_acquire(&shard->lock);
    struct granule *first = shard_verify_pointer(shard, ptr, crime);
    if (first != NULL && shard_verify_next(shard, first, block, crime)) {
        *usable_bytes = block_usable_bytes(block);
        is_done = bytes != 0 &&
                  (shard_refit(shard, first, block, shelf_round(bytes), &visit) ||
                   (crime->what == NULL && shard_refit(shard, first, block, bytes, &visit)));
    }
    shard_finish(shard, &visit);
    return is_done && crime->what == NULL;
}

bool hmm_medium_resize(void *ptr, size_t request_bytes, size_t *usable_bytes, struct crime *crime)
{
    struct shard *shard = shard_of(ptr);
    size_t seen_bytes = usable_at_a_glance(shard, ptr);
    if (request_bytes <= seen_bytes && seen_bytes - request_bytes <= seen_bytes / SLACK_SHARE &&
        LIKELY(!is_exact)) {
        *usable_bytes = seen_bytes;
        return true;
    }
    return shard_resize(shard, ptr, request_bytes, usable_bytes, crime);
}

bool hmm_medium_trim(void)
{
    bool has_given = false;
    for (int i = 0; i < SHARD_COUNT_MAX; i++) {
        struct shard *shard = &hmm_medium_shards[i];
        struct crime crime; /* for the call that meets it next */
        crime_clear(&crime);
        struct visit visit = {.crime = &crime};
        hmm_lock_acquire(&shard->lock);
        shard_clear_shelf(shard, 0, &visit);
        if (shard->empty != NULL) {
            has_given = true;
            zone_detach(shard, shard->empty, &visit);
            shard->empty = NULL;
        }
        shard_exit(shard, &visit);
        visit_end(&visit);
        has_given |= shard_purge(shard, SIZE_MAX, SIZE_MAX, &crime) != 0;
    }
    return has_given;
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
