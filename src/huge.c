/*
 * huge.c - decides when an extent of the arena becomes a huge page. See huge.h.
 *
 * An extent costs 0.24 ms, as long as the machine has one at hand, its small pages 0.7. A virtual machine whose host has
 * taken its free pages back needs 4 ms for a huge one, and no more than before for small ones; so each is timed, and
 * after a slow one some are skipped. What is learnt is opinion: racing threads do no harm.
 */
#include "huge.h"
#include "arena.h"
#include "os.h"
#include "slab.h"

enum {
    EXTENT_BYTES = ARENA_ALIGN_BYTES,
    /* docs/experiments.md: from 8 MiB on the overhang of one extent is hidden in the rest. */
    CARVED_BYTES_MIN = 8 << 20,
    DENSE_PERCENT = 90,
    PERCENT = 100,
    /* So much below the frontier is looked at. */
    WINDOW_COUNT_MAX = 2048,
    /* Such a page was not at hand. With twice as much there are fewer faults, and no less time: docs/experiments.md. */
    SLOW_NS = 400 * 1000,
    SKIP_MAX = 16,
    /* Each stretch of marked extents is a mapping, and so is what lies before it. */
    STRETCHES_MAX = 64,
};

static _Atomic bool is_available;
static _Atomic unsigned skip_next; /* after the next slow one */
static _Atomic unsigned skip_left; /* extents still to be skipped */
/* Extents below this granule may be marked, so that the system fills their holes by itself. Changed under the arena's
 * lock, as the next three. */
static _Atomic size_t marked_count;
static _Atomic size_t refused_count; /* below it, marks have been withdrawn */
static size_t filled_end;            /* where the last one that was filled ends */
static unsigned stretch_count;

void hmm_huge_init(void)
{
    atomic_store_explicit(&is_available, hmm_os_has_huge_pages(EXTENT_BYTES), memory_order_relaxed);
}

/* As slab_carved, of a descriptor that may become something else meanwhile. */
HMM_RACY static uint32_t carved_peek(const struct granule *granule)
{
    return *(const volatile uint32_t *)&granule->carved_slots;
}

/* What slabs have carved, of how much. Large blocks say nothing about how slabs will grow. */
HMM_RACY static bool is_dense(size_t index)
{
    size_t count = size_min(index, WINDOW_COUNT_MAX);
    size_t carved_bytes = 0;
    size_t slab_bytes = 0;
    for (const struct granule *granule = &hmm_arena.table[index - count];
         granule < &hmm_arena.table[index]; granule++) {
        if (granule_kind(granule) == GRANULE_SLAB) {
            carved_bytes += carved_peek(granule) * class_bytes(slab_class(granule));
            slab_bytes += GRANULE_BYTES;
        }
    }
    return carved_bytes >= CARVED_BYTES_MIN && carved_bytes / DENSE_PERCENT >= slab_bytes / PERCENT;
}

static bool is_skipped(void)
{
    unsigned left = atomic_load_explicit(&skip_left, memory_order_relaxed);
    if (left == 0) {
        return false;
    }
    atomic_store_explicit(&skip_left, left - 1, memory_order_relaxed);
    return true;
}

static void learn(uint64_t ns)
{
    unsigned skip = 0;
    if (ns > SLOW_NS) {
        skip = atomic_load_explicit(&skip_next, memory_order_relaxed);
        skip = skip == 0 ? 1 : (skip < SKIP_MAX ? 2 * skip : SKIP_MAX);
    }
    atomic_store_explicit(&skip_next, skip, memory_order_relaxed);
    atomic_store_explicit(&skip_left, skip, memory_order_relaxed);
}

void hmm_huge_withdraw(void)
{
    if (atomic_load_explicit(&marked_count, memory_order_relaxed) == 0) {
        return;
    }
    hmm_lock_acquire(&hmm_arena.lock);
    size_t count = atomic_load_explicit(&marked_count, memory_order_relaxed);
    size_t refused = atomic_load_explicit(&refused_count, memory_order_relaxed);
    atomic_store_explicit(&refused_count, size_max(refused, count), memory_order_relaxed);
    atomic_store_explicit(&marked_count, 0, memory_order_relaxed);
    filled_end = 0;
    stretch_count = 0;
    hmm_lock_release(&hmm_arena.lock);
    hmm_os_refuse_huge((void *)hmm_arena.base, count << GRANULE_SHIFT);
}

static void *granule_at(size_t index)
{
    return (void *)(hmm_arena.base + (index << GRANULE_SHIFT));
}

void hmm_huge_join(size_t index, size_t count)
{
    size_t refused = atomic_load_explicit(&refused_count, memory_order_relaxed);
    if (index < refused) {
        hmm_os_refuse_huge(granule_at(index), size_min(count, refused - index) << GRANULE_SHIFT);
    }
}

static void lower(_Atomic size_t *count, size_t index)
{
    size_t old = atomic_load_explicit(count, memory_order_relaxed);
    atomic_store_explicit(count, size_min(old, index), memory_order_relaxed);
}

void hmm_huge_lower(size_t index)
{
    lower(&marked_count, index);
    lower(&refused_count, index);
}

bool hmm_huge_may_fill(size_t index)
{
    return index >= (CARVED_BYTES_MIN >> GRANULE_SHIFT) &&
           atomic_load_explicit(&is_available, memory_order_relaxed);
}

/* Whether the extent begins no stretch, or there may be another one. */
static bool may_mark(size_t index)
{
    hmm_lock_acquire(&hmm_arena.lock);
    bool may = filled_end == index || stretch_count < STRETCHES_MAX;
    hmm_lock_release(&hmm_arena.lock);
    return may;
}

/* Once it has been: whoever withdraws what is marked before that leaves this one to the next. */
static void note_marked(size_t index)
{
    const size_t end = index + EXTENT_COUNT;
    hmm_lock_acquire(&hmm_arena.lock);
    stretch_count += filled_end != index;
    filled_end = end;
    size_t marked = atomic_load_explicit(&marked_count, memory_order_relaxed);
    atomic_store_explicit(&marked_count, size_max(marked, end), memory_order_relaxed);
    hmm_lock_release(&hmm_arena.lock);
}

/* Whether it was, or the system was at least asked to. */
static bool fill(size_t index, bool was_touched)
{
    if (!is_dense(index) || !may_mark(index) || is_skipped()) {
        return false;
    }
    const uint64_t start_ns = hmm_os_clock_ns();
    if (!hmm_os_populate_huge(granule_at(index), EXTENT_BYTES, was_touched)) {
        atomic_store_explicit(&is_available, false, memory_order_relaxed);
    }
    learn(hmm_os_clock_ns() - start_ns);
    note_marked(index);
    return true;
}

/* Slabs and zones, which fill up from their start, are shorter than an extent. A longer run is one
 * block, of which nobody knows how much will be touched. */
void hmm_huge_consider(size_t first, size_t count)
{
    size_t index = align_up(first, EXTENT_COUNT);
    if (index < first + count && count < EXTENT_COUNT && hmm_huge_may_fill(index) &&
        fill(index, false)) {
        hmm_arena_note_populated(index, EXTENT_COUNT);
    }
}

bool hmm_huge_refill(size_t index)
{
    return fill(index, true);
}
