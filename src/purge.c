/*
 * purge.c - the bound of dirty memory, and what it has learnt. See purge.h.
 *
 * All numbers here are opinions, taken without locks: a bound that is a moment old does no harm.
 */
#include "purge.h"
#include "arena.h"
#include "libc.h"
#include "os.h"

/* The shares, and STEP_BYTES, were settled in docs/experiments.md. */
enum {
    DIRTY_BYTES_MIN = 2 << 20,
    DIRTY_LIVE_SHARE = 8,
    /* Freed blocks that wait between fences have a bound of their own, as large as that of all
     * else: without their pages malloc-large took 7.8 million page faults instead of 0.3. */
    FENCED_DIRTY_BYTES_MIN = 4 << 20,
    FENCED_DIRTY_SHARE = 8,
    /* Giving back begins so much above the bound and goes down to it: fewer, larger calls. */
    STEP_BYTES = 512 * 1024,
    /* When a heap has dropped only so much of the bound is kept, and from a seventh of the peak
     * down nothing for its return. */
    DROPPED_DIRTY_SHARE = 2,
    REGRET_PEAK_SHARE = 7,
    REGRET_SLOPE = 16,
    /* What lies free between blocks at the peak: mstress goes there and back in each
     * of its rounds. */
    REGRET_SLACK_SHARE = 4,
    REGRET_BYTES_SMALL = 16 << 20,
    /* Memory that comes back within this time should have stayed. */
    REGRET_MS = 1000,
    MS_PER_SECOND = 1000,
    /* Where threads go on to hand blocks over, the memory is touched again at once: without a limit
     * xmalloc-test took half as long again after a drop. Both: docs/experiments.md. */
    THINNED_A_SECOND = 4096,
    THINNED_A_SECOND_IN_BOUND = 512,
    /* A heap that grows gives pages of slabs back where so much of what is live is loose. */
    SPARED_SHARE = 4,
    /* One locked page must not end all giving back; where nothing can be given back, it is tried
     * now and then: what is locked may not be for ever. */
    REFUSED_MAX = 16,
    REFUSED_PAUSE_MS = 1000,
};

struct purge_counts hmm_purge_counts;
static _Atomic size_t live_bytes_max;
static _Atomic size_t asked_bytes; /* by the program: so many may be dirty */
static _Atomic size_t regret_bytes;
static _Atomic uint64_t regret_ms;    /* when regret was last felt, or halved */
static _Atomic uint64_t forgotten_ms; /* when a part of the recent peak was last forgotten */
static _Atomic uint64_t gone_ms;      /* when memory last went back */
static _Atomic uint64_t refused_ms;   /* when the system last did not take some */
static _Atomic uint64_t thin_second;  /* in which slabs were last thinned */
static _Atomic unsigned thin_count;   /* so many of them */
_Atomic bool hmm_purge_is_behind;
_Atomic size_t hmm_purge_growth;
struct scavenger hmm_scavenger;
static _Atomic unsigned refused_count; /* so often in a row the system did not take memory back */

/* immutable once threads run */
static enum purge_mode purge_mode;
static size_t purge_keep_bytes;

void hmm_purge_set(enum purge_mode mode, size_t keep_bytes)
{
    purge_mode = mode;
    purge_keep_bytes = keep_bytes;
}

void hmm_purge_keep(size_t bytes)
{
    atomic_store_explicit(&asked_bytes, bytes, memory_order_relaxed);
}

size_t hmm_purge_away_bytes(void)
{
    return purge_sum(&hmm_purge_counts.slab_away_bytes);
}

size_t hmm_purge_untouched_bytes(void)
{
    return purge_sum(&hmm_purge_counts.untouched_bytes);
}

size_t hmm_purge_loose_bytes(void)
{
    return purge_sum(&hmm_purge_counts.slab_loose_bytes);
}

size_t hmm_purge_fenced_bytes(void)
{
    return purge_fenced_bytes(&hmm_purge_counts);
}

static size_t taken_bytes(void)
{
    return atomic_load_explicit(&hmm_arena.taken_count, memory_order_relaxed) << GRANULE_SHIFT;
}

static size_t live_bytes(void)
{
    return purge_live_bytes(&hmm_purge_counts, taken_bytes());
}

static bool has_dropped(void)
{
    return purge_has_dropped(&hmm_purge_counts, live_bytes());
}

size_t hmm_purge_dirty_bytes(void)
{
    size_t arena_bytes = atomic_load_explicit(&hmm_arena.dirty_count, memory_order_relaxed)
                         << GRANULE_SHIFT;
    return arena_bytes + purge_dirty_bytes(&hmm_purge_counts, live_bytes());
}

size_t hmm_purge_held_bytes(void)
{
    return purge_held_bytes(&hmm_purge_counts, taken_bytes());
}

static void raise_to(_Atomic size_t *most, size_t bytes)
{
    if (bytes > atomic_load_explicit(most, memory_order_relaxed)) {
        atomic_store_explicit(most, bytes, memory_order_relaxed);
    }
}

void hmm_purge_note_live(void)
{
    size_t live = live_bytes();
    raise_to(&live_bytes_max, live);
    raise_to(&hmm_purge_counts.recent_bytes_max, live);
}

/* How far live memory is below its peak. */
static size_t below_peak_bytes(size_t live)
{
    size_t peak = atomic_load_explicit(&live_bytes_max, memory_order_relaxed);
    return size_less(peak, live);
}

void hmm_purge_count_zones(ptrdiff_t dirty_bytes, ptrdiff_t idle_bytes)
{
    counter_add(&hmm_purge_counts.zone_dirty_bytes, dirty_bytes);
    counter_add(&hmm_purge_counts.zone_idle_bytes, idle_bytes);
    if (idle_bytes < 0) {
        hmm_purge_note_live();
    }
}

void hmm_purge_count_fenced(ptrdiff_t bytes, ptrdiff_t dirty_bytes)
{
    counter_add(&hmm_purge_counts.fenced_bytes, bytes);
    counter_add(&hmm_purge_counts.fenced_dirty_bytes, dirty_bytes);
}

void hmm_purge_count_loose(ptrdiff_t bytes)
{
    counter_add(&hmm_purge_counts.slab_loose_bytes, bytes);
}

void hmm_purge_count_away(ptrdiff_t bytes)
{
    counter_add(&hmm_purge_counts.slab_away_bytes, bytes);
}

void hmm_purge_count_untouched(ptrdiff_t bytes)
{
    counter_add(&hmm_purge_counts.untouched_bytes, bytes);
}

/* Of a heap with such a peak of live memory. */
static size_t footprint_most(size_t peak)
{
    return peak + peak / REGRET_SLACK_SHARE;
}

/* While a fifth of its recent peak is live a heap may go back to it. Below that it is less likely,
 * and from a seventh down not at all. */
static size_t regret_most_of_any(size_t live, size_t peak, size_t missing)
{
    size_t above = size_less(live, peak / REGRET_PEAK_SHARE);
    size_t most = size_max(live, missing);
    return above < most / REGRET_SLOPE ? REGRET_SLOPE * above : most;
}

/* A small heap may go back to its peak from wherever it is. One with twice such a peak is not
 * small, and of those in between less and less counts. */
static size_t regret_most_of_small(size_t peak, size_t missing)
{
    const size_t small = REGRET_BYTES_SMALL;
    return size_min(size_min(missing, small), size_less(2 * small, peak));
}

/* Asked again at each use, because what was learnt above is worth less when live memory falls. */
static size_t regret_most(void)
{
    size_t live = live_bytes();
    size_t peak = atomic_load_explicit(&hmm_purge_counts.recent_bytes_max, memory_order_relaxed);
    size_t missing = footprint_most(peak) - size_min(peak, live);
    return size_max(regret_most_of_any(live, peak, missing), regret_most_of_small(peak, missing));
}

static size_t halved(size_t bytes, uint64_t times)
{
    return times < sizeof bytes * CHAR_BIT ? bytes >> times : 0;
}

/* Another thread may have written down a later time than ours. */
static uint64_t ms_since(uint64_t then_ms, uint64_t now_ms)
{
    return now_ms > then_ms ? now_ms - then_ms : 0;
}

/* What the heap has been for long is not a drop any more: with each second half of the way from the
 * peak to what is live is forgotten. */
static void forget_peak(uint64_t now_ms)
{
    uint64_t before_ms = atomic_load_explicit(&forgotten_ms, memory_order_relaxed);
    if (before_ms == 0) {
        atomic_store_explicit(&forgotten_ms, now_ms, memory_order_relaxed);
    }
    if (before_ms == 0 || ms_since(before_ms, now_ms) < REGRET_MS) {
        return;
    }
    size_t live = live_bytes();
    size_t peak = atomic_load_explicit(&hmm_purge_counts.recent_bytes_max, memory_order_relaxed);
    size_t above = halved(size_less(peak, live), ms_since(before_ms, now_ms) / REGRET_MS);
    atomic_store_explicit(&hmm_purge_counts.recent_bytes_max, live + above, memory_order_relaxed);
    atomic_store_explicit(&forgotten_ms, now_ms, memory_order_relaxed);
}

/* Halved once for each second of quiet. */
static size_t regret_now(void)
{
    size_t bytes = atomic_load_explicit(&regret_bytes, memory_order_relaxed);
    if (bytes == 0) {
        return 0;
    }
    uint64_t now_ms = hmm_os_clock_ms();
    uint64_t quiet_ms = ms_since(atomic_load_explicit(&regret_ms, memory_order_relaxed), now_ms);
    if (quiet_ms >= REGRET_MS) {
        bytes = halved(bytes, quiet_ms / REGRET_MS);
        bytes = bytes >= DIRTY_BYTES_MIN ? bytes : 0;
        atomic_store_explicit(&regret_bytes, bytes, memory_order_relaxed);
        atomic_store_explicit(&regret_ms, now_ms, memory_order_relaxed);
    }
    return bytes;
}

/* As much of it as counts. */
static size_t regret_counted(void)
{
    return size_min(regret_now(), regret_most());
}

static size_t fenced_bound_without_regret(size_t live)
{
    return size_max(FENCED_DIRTY_BYTES_MIN, live / FENCED_DIRTY_SHARE);
}

/* What is regretted counts up to the recent peak: others cannot use what waits. */
size_t hmm_purge_fenced_bound_bytes(size_t more_bytes)
{
    if (purge_mode == PURGE_BYTES) {
        return purge_keep_bytes;
    }
    const size_t live = live_bytes() + more_bytes;
    const size_t peak =
        atomic_load_explicit(&hmm_purge_counts.recent_bytes_max, memory_order_relaxed);
    const size_t missing = size_less(peak, live + hmm_purge_dirty_bytes());
    return fenced_bound_without_regret(live) + size_min(missing, regret_counted());
}

bool hmm_purge_may_thin(void)
{
    const bool is_excess = hmm_purge_excess_bytes() != 0;
    if (!is_excess && !has_dropped()) {
        return false;
    }
    uint64_t second = hmm_os_clock_ms() / MS_PER_SECOND;
    if (atomic_load_explicit(&thin_second, memory_order_relaxed) != second) {
        atomic_store_explicit(&thin_second, second, memory_order_relaxed);
        atomic_store_explicit(&thin_count, 0, memory_order_relaxed);
    }
    unsigned count = atomic_load_explicit(&thin_count, memory_order_relaxed);
    atomic_store_explicit(&thin_count, count + 1, memory_order_relaxed);
    return count < (is_excess ? THINNED_A_SECOND : THINNED_A_SECOND_IN_BOUND);
}

static bool is_refused(void)
{
    return atomic_load_explicit(&refused_count, memory_order_relaxed) >= REFUSED_MAX &&
           ms_since(atomic_load_explicit(&refused_ms, memory_order_relaxed), hmm_os_clock_ms()) <
               REFUSED_PAUSE_MS;
}

static size_t bound_without_regret(void)
{
    size_t asked = atomic_load_explicit(&asked_bytes, memory_order_relaxed);
    if (purge_mode == PURGE_BYTES) {
        return size_max(purge_keep_bytes, asked);
    }
    size_t live = live_bytes();
    size_t bound = size_max(DIRTY_BYTES_MIN, live / DIRTY_LIVE_SHARE);
    bound /= has_dropped() ? DROPPED_DIRTY_SHARE : 1;
    if (purge_mode == PURGE_PEAK) {
        bound = size_max(bound, below_peak_bytes(live));
    }
    return size_max(bound, asked);
}

static bool is_above(size_t dirty, size_t bound)
{
    return dirty > bound && dirty - bound > STEP_BYTES;
}

static HMM_COLD void wake_scavenger(void)
{
    const uintptr_t self = thread_pointer();
    uint32_t asleep = SCAVENGER_ASLEEP;
    if (atomic_load_explicit(&hmm_scavenger.thread, memory_order_relaxed) != self &&
        atomic_compare_exchange_strong_explicit(&hmm_scavenger.state, &asleep, SCAVENGER_AWAKE,
                                                memory_order_relaxed, memory_order_relaxed)) {
        hmm_os_futex_wake(&hmm_scavenger.state);
    }
}

/* How much of so much would be above the bound, as far as something can be done about it. */
static size_t excess_of(size_t dirty)
{
    size_t bound = bound_without_regret();
    if (LIKELY(!is_above(dirty, bound)) || is_refused()) {
        return 0;
    }
    if (UNLIKELY(atomic_load_explicit(&hmm_scavenger.state, memory_order_relaxed) ==
                 SCAVENGER_ASLEEP)) {
        wake_scavenger();
    }
    if (purge_mode != PURGE_BYTES) {
        const size_t regret = regret_counted();
        bound += size_less(regret, purge_sum(&hmm_purge_counts.fenced_dirty_bytes));
    }
    return is_above(dirty, bound) ? dirty - bound : 0;
}

size_t hmm_purge_excess_bytes(void)
{
    return excess_of(hmm_purge_dirty_bytes());
}

bool hmm_purge_has_regret(void)
{
    return regret_now() != 0 && (is_above(hmm_purge_dirty_bytes(), bound_without_regret()) ||
                                 purge_sum(&hmm_purge_counts.fenced_dirty_bytes) >
                                     fenced_bound_without_regret(live_bytes()));
}

size_t hmm_purge_excess_in_zones_bytes(void)
{
    size_t in_zones = purge_sum(&hmm_purge_counts.zone_dirty_bytes);
    return in_zones < STEP_BYTES ? 0 : size_min(in_zones, hmm_purge_excess_bytes());
}

void hmm_purge_note_rest(void)
{
    bool is_behind =
        purge_sum(&hmm_purge_counts.slab_loose_bytes) != 0 && hmm_purge_excess_bytes() != 0;
    if (is_behind) {
        atomic_store_explicit(&hmm_purge_is_behind, true, memory_order_relaxed);
    }
}

static bool is_told_what_to_keep(void)
{
    return purge_mode != PURGE_LIVE ||
           atomic_load_explicit(&asked_bytes, memory_order_relaxed) != 0;
}

bool hmm_purge_is_at_peak(void)
{
    size_t peak = atomic_load_explicit(&hmm_purge_counts.recent_bytes_max, memory_order_relaxed);
    return live_bytes() >= peak && !is_told_what_to_keep();
}

/* Who has said how much may stay is not asked for pages. Where few may be free they stay, because
 * with the first of them the huge ones go. */
void hmm_purge_note_growth(size_t granule_count)
{
    if (hmm_purge_loose_bytes() >= live_bytes() / SPARED_SHARE && !is_told_what_to_keep()) {
        size_t growth = atomic_load_explicit(&hmm_purge_growth, memory_order_relaxed);
        atomic_store_explicit(&hmm_purge_growth, growth + granule_count, memory_order_relaxed);
    }
}

bool hmm_purge_would_keep(size_t bytes)
{
    return excess_of(hmm_purge_dirty_bytes() + bytes) == 0;
}

void hmm_purge_regret(size_t bytes)
{
    uint64_t now_ms = hmm_os_clock_ms();
    if (bytes == 0 ||
        ms_since(atomic_load_explicit(&gone_ms, memory_order_relaxed), now_ms) > REGRET_MS) {
        return;
    }
    forget_peak(now_ms);
    size_t peak = atomic_load_explicit(&hmm_purge_counts.recent_bytes_max, memory_order_relaxed);
    size_t sum = size_min(regret_now() + bytes, footprint_most(peak));
    atomic_store_explicit(&regret_bytes, sum, memory_order_relaxed);
    atomic_store_explicit(&regret_ms, now_ms, memory_order_relaxed);
}

void hmm_purge_note_gone(void)
{
    atomic_store_explicit(&gone_ms, hmm_os_clock_ms(), memory_order_relaxed);
}

void hmm_purge_try_again(void)
{
    atomic_store_explicit(&refused_count, 0, memory_order_relaxed);
}

bool hmm_purge_pages(uintptr_t start, size_t bytes)
{
    if (is_refused()) {
        return false;
    }
    const bool is_done = hmm_os_purge((void *)start, bytes);
    const uint64_t now_ms = hmm_os_clock_ms();
    const unsigned count = atomic_load_explicit(&refused_count, memory_order_relaxed);
    atomic_store_explicit(&refused_count, is_done ? 0 : count + 1, memory_order_relaxed);
    atomic_store_explicit(is_done ? &gone_ms : &refused_ms, now_ms, memory_order_relaxed);
    return is_done;
}
