/*
 * huge.c - decides when an extent of the arena becomes a huge page. See huge.h.
 *
 * An extent costs 0.2 to 0.5 ms, as long as the machine has one at hand, its small pages 0.6 to
 * 1.3. A virtual machine whose host has taken its free pages back needs 2 to 6 ms for a huge one,
 * and no more than before for small ones; so both are timed, and accounts are kept: after an extent
 * that took longer than small pages would have, there is no other until that has been earned.
 * Whether there are huge pages at all is seen by that, too: the first page of a fresh extent takes
 * long if it brings the whole, and the rest takes no time then. What the system has been told is
 * written in a file, but to read that would be a third of what the first malloc of a process takes,
 * and later a sandbox may kill for it. What is learnt is opinion: racing threads do no harm.
 */
#include "huge.h"
#include "arena.h"
#include "os.h"
#include "slab.h"

enum {
    EXTENT_BYTES = ARENA_ALIGN_BYTES,
    /* docs/experiments.md: of so much the overhang of one extent is an eighth at most. */
    CARVED_BYTES_MIN = 16 << 20,
    DENSE_PERCENT = 90,
    PERCENT = 100,
    /* So much below the frontier is looked at. */
    WINDOW_COUNT_MAX = 2048,
    /* What the small pages of an extent take as long as nobody has looked. */
    SMALL_NS = 700 * 1000,
    /* What an extent takes longer than its small pages would have is earned again before the next
     * one: by what others took less, or by a share of what each takes that is left out
     * (docs/experiments.md). No extent counts for more than the small pages of so many, which is
     * what one that the host has to bring takes; and as much may be put by, or whoever was
     * interrupted once would have no huge pages for long. */
    LEFT_OUT_SHARE = 16,
    LOST_MAX = 8,
    /* The mean of so many looks, none of which counts as more than so many times the mean:
     * whoever was interrupted knows nothing. */
    LOOKS = 16,
    LOOK_SHARE_MAX = 4,
    /* No huge page is cleared in less, and a small one takes a tenth of it. */
    HUGE_NS_MIN = 20 * 1000,
    /* So many small ones, and no huge one ever: there are none. */
    SMALL_MAX = 4,
    /* Each stretch of marked extents is a mapping, and so is what lies before it. */
    STRETCHES_MAX = 64,
};

static _Atomic bool is_available;
static _Atomic bool has_come;                /* a huge page, once */
static _Atomic unsigned small_count;         /* so many extents brought none */
static _Atomic int64_t saved_ns;             /* by huge pages, below 0: lost */
static _Atomic uint64_t small_ns = SMALL_NS; /* what an extent's small pages take */
/* Extents below this granule may be marked, so that the system fills their holes by itself. Changed
 * under the arena's lock, as the next three. */
static _Atomic size_t marked_count;
static _Atomic size_t refused_count; /* below it, marks have been withdrawn */
static size_t filled_end;            /* where the last one that was filled ends */
static unsigned stretch_count;

void hmm_huge_init(void)
{
    atomic_store_explicit(&is_available, hmm_os_huge_bytes() == EXTENT_BYTES, memory_order_relaxed);
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

static int64_t small_now(void)
{
    return (int64_t)atomic_load_explicit(&small_ns, memory_order_relaxed);
}

static void save(int64_t ns)
{
    const int64_t sum = atomic_load_explicit(&saved_ns, memory_order_relaxed) + ns;
    const int64_t most = LOST_MAX * small_now();
    atomic_store_explicit(&saved_ns, sum < most ? sum : most, memory_order_relaxed);
}

static bool is_left_out(void)
{
    if (atomic_load_explicit(&saved_ns, memory_order_relaxed) >= 0) {
        return false;
    }
    save(small_now() / LEFT_OUT_SHARE);
    return true;
}

/* Of an extent that took so long. */
static void learn(uint64_t ns)
{
    const int64_t small = small_now();
    const uint64_t most = (uint64_t)small * LOST_MAX;
    save(small - (int64_t)(ns < most ? ns : most));
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

static bool may_fill(size_t index)
{
    return index >= (CARVED_BYTES_MIN >> GRANULE_SHIFT) &&
           atomic_load_explicit(&is_available, memory_order_relaxed);
}

bool hmm_huge_may_refill(size_t index)
{
    return may_fill(index) && atomic_load_explicit(&has_come, memory_order_relaxed);
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

/* How long that took; 0: the system cannot. */
static uint64_t populate_ns(void *start, size_t bytes)
{
    const uint64_t start_ns = hmm_os_clock_ns();
    const bool is_done = hmm_os_populate(start, bytes);
    const uint64_t ns = hmm_os_clock_ns() - start_ns;
    return is_done ? ns + 1 : 0;
}

bool hmm_huge_touch_small(void *start, size_t bytes)
{
    const uint64_t ns = populate_ns(start, bytes) * (EXTENT_BYTES / bytes);
    if (ns != 0) {
        const uint64_t mean = atomic_load_explicit(&small_ns, memory_order_relaxed);
        const uint64_t look = ns < mean * LOOK_SHARE_MAX ? ns : mean * LOOK_SHARE_MAX;
        atomic_store_explicit(&small_ns, mean - mean / LOOKS + look / LOOKS, memory_order_relaxed);
    }
    return ns != 0;
}

static void learn_small(void)
{
    const unsigned count = atomic_load_explicit(&small_count, memory_order_relaxed) + 1;
    atomic_store_explicit(&small_count, count, memory_order_relaxed);
    if (count >= SMALL_MAX && !atomic_load_explicit(&has_come, memory_order_relaxed)) {
        atomic_store_explicit(&is_available, false, memory_order_relaxed);
    }
    save(-small_now());
}

/* Where a small page came, it stays alone. */
static bool fill_fresh(char *extent)
{
    const size_t page_bytes = hmm_os_page_bytes();
    const uint64_t first_ns = populate_ns(extent, page_bytes);
    if (first_ns < HUGE_NS_MIN) {
        learn_small();
        return false;
    }
    const uint64_t rest_ns = populate_ns(extent + page_bytes, EXTENT_BYTES - page_bytes);
    if (rest_ns != 0 && rest_ns < first_ns) {
        atomic_store_explicit(&has_come, true, memory_order_relaxed);
    }
    learn(first_ns + rest_ns);
    return rest_ns != 0;
}

static bool fill_again(char *extent)
{
    const uint64_t start_ns = hmm_os_clock_ns();
    const bool is_done =
        hmm_os_collapse(extent, EXTENT_BYTES) || hmm_os_populate(extent, EXTENT_BYTES);
    learn(hmm_os_clock_ns() - start_ns);
    return is_done;
}

static bool fill(size_t index, bool was_touched)
{
    if (!is_dense(index) || !may_mark(index) || is_left_out()) {
        return false;
    }
    char *extent = granule_at(index);
    if (!hmm_os_want_huge(extent, EXTENT_BYTES)) {
        atomic_store_explicit(&is_available, false, memory_order_relaxed);
        return false;
    }
    const bool is_filled = was_touched ? fill_again(extent) : fill_fresh(extent);
    note_marked(index);
    return is_filled;
}

/* Slabs and zones, which fill up from their start, are shorter than an extent. A longer run is one
 * block, of which nobody knows how much will be touched. */
void hmm_huge_consider(size_t first, size_t count)
{
    size_t index = align_up(first, EXTENT_COUNT);
    if (index < first + count && count < EXTENT_COUNT && may_fill(index) && fill(index, false)) {
        hmm_arena_note_populated(index);
    }
}

bool hmm_huge_refill(size_t index)
{
    return fill(index, true);
}
