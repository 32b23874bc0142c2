/*
 * purge.h - how much free memory is kept, and what goes back to the system.
 *
 * Dirty memory is free and touched: granules of the arena, and pages inside free blocks of zones.
 * What exceeds the bound, by 512 KiB at least, goes back as it is freed, so a process that frees
 * and then sleeps has given its memory back already:
 *
 *     bound  = max(2 MiB, live / 8) + regret, the former halved after a drop
 *     regret = what was given back and touched again soon after; it halves with every quiet second
 *
 * Of regret no more counts than the heap is likely to come back to: its recent peak, or twice
 * what is live, while a fifth of the peak is live; nothing from a seventh down. But a small heap,
 * of up to 16 MiB, may go back to its peak, and to what lay free between its blocks then, from
 * wherever it is. Freed blocks that wait between fences (fence.h) have a bound of their own, which
 * regret raises as well: together no more than the recent peak stays.
 *
 * What is loose in slabs (slab.h) counts as dirty after a drop, and, where there are threads, as
 * far as it is more than live / 8.
 *
 * A heap that grows gives free pages of slabs back for it which are hardly used any more
 * (hmm_thread_offset_growth), within the bound or not; and dirty granules which a run did not fit
 * into, while more is live than was lately (hmm_arena_offset_growth).
 *
 * Memory is given back without any lock held, but for a slab's that is thinned (remote.h) and what
 * huge pages brought above the frontier, which is the arena's (arena_purge.c): whoever purges takes
 * the range first, so that nobody else can have it meanwhile. Where the system refuses
 * again and again it is asked once a second.
 */
#ifndef HMM_PURGE_H
#define HMM_PURGE_H

#include "base.h"

#include <stdatomic.h>

enum purge_mode {
    PURGE_LIVE,  /* as above */
    PURGE_PEAK,  /* the peak of live memory may stay */
    PURGE_BYTES, /* so many bytes, and no regret */
};

/* Sums over the arena, from which all of this is reckoned. Whoever reads them from outside (root.h)
 * reckons in the same way. */
struct purge_counts {
    _Atomic ptrdiff_t zone_dirty_bytes;
    _Atomic ptrdiff_t zone_idle_bytes;    /* in no block */
    _Atomic ptrdiff_t slab_loose_bytes;   /* free, and perhaps on free pages */
    _Atomic ptrdiff_t slab_away_bytes;    /* given back */
    _Atomic ptrdiff_t untouched_bytes;    /* in slabs */
    _Atomic ptrdiff_t fenced_bytes;       /* inaccessible */
    _Atomic ptrdiff_t fenced_dirty_bytes; /* of those */
    _Atomic size_t recent_bytes_max; /* of live memory; it comes down to what is live in time */
    _Atomic bool has_threads;        /* more than one, once */
};

extern HMM_HIDDEN struct purge_counts hmm_purge_counts;

/* Adding up races with itself: for a moment a sum may be negative. */
static inline size_t purge_sum(const _Atomic ptrdiff_t *sum)
{
    ptrdiff_t now = atomic_load_explicit(sum, memory_order_relaxed);
    return now > 0 ? (size_t)now : 0;
}

/* Inaccessible, and without memory. */
static inline size_t purge_fenced_bytes(const struct purge_counts *counts)
{
    size_t all = purge_sum(&counts->fenced_bytes);
    return size_less(all, purge_sum(&counts->fenced_dirty_bytes));
}

/* What the blocks have, of so much that is taken. */
static inline size_t purge_live_bytes(const struct purge_counts *counts, size_t taken_bytes)
{
    size_t idle_bytes = purge_sum(&counts->zone_idle_bytes) + purge_sum(&counts->slab_loose_bytes) +
                        purge_sum(&counts->fenced_bytes) + purge_sum(&counts->slab_away_bytes) +
                        purge_sum(&counts->untouched_bytes);
    return size_less(taken_bytes, idle_bytes);
}

/* What is taken has memory, but for pages of slabs that were given back or not used yet, and
 * fences. */
static inline size_t purge_held_bytes(const struct purge_counts *counts, size_t taken_bytes)
{
    size_t none_bytes = purge_sum(&counts->slab_away_bytes) + purge_sum(&counts->untouched_bytes) +
                        purge_fenced_bytes(counts);
    return size_less(taken_bytes, none_bytes);
}

/* Whether less than half of the recent peak is live, when so much is. */
static inline bool purge_has_dropped(const struct purge_counts *counts, size_t live_bytes)
{
    enum { DROPPED_SHARE = 2 };
    size_t peak = atomic_load_explicit(&counts->recent_bytes_max, memory_order_relaxed);
    return live_bytes < peak / DROPPED_SHARE;
}

/* In what is taken, when so much is live. Free memory inside slabs is soon used again, where the
 * heap is about as large as it was lately; where there are threads that goes for so much of it: one
 * has what another wants. */
static inline size_t purge_dirty_bytes(const struct purge_counts *counts, size_t live_bytes)
{
    enum { LOOSE_LIVE_SHARE = 8 };
    size_t loose_bytes = purge_sum(&counts->slab_loose_bytes);
    if (!purge_has_dropped(counts, live_bytes)) {
        const bool has_threads = atomic_load_explicit(&counts->has_threads, memory_order_relaxed);
        loose_bytes = has_threads ? size_less(loose_bytes, live_bytes / LOOSE_LIVE_SHARE) : 0;
    }
    return purge_sum(&counts->zone_dirty_bytes) + loose_bytes;
}

/* Before there are threads. `keep_bytes` is for PURGE_BYTES. */
HMM_HIDDEN void hmm_purge_set(enum purge_mode mode, size_t keep_bytes);

/* So much may be dirty, whatever the mode says. Any thread. */
HMM_HIDDEN HMM_COLD void hmm_purge_keep(size_t bytes);

/* All dirty memory. Any thread; a moment's opinion, as is the next. */
HMM_HIDDEN size_t hmm_purge_dirty_bytes(void);

/* What is taken and has memory. */
HMM_HIDDEN HMM_COLD size_t hmm_purge_held_bytes(void);

/* In zones so much more (or, negative, less) is dirty, and so much more is in no
 * block. Any thread. */
HMM_HIDDEN void hmm_purge_count_zones(ptrdiff_t dirty_bytes, ptrdiff_t idle_bytes);

/* In slabs so many more (or, negative, fewer) bytes are loose; so many more are
 * away; so many more were never touched. Any thread. */
HMM_HIDDEN void hmm_purge_count_loose(ptrdiff_t bytes);
HMM_HIDDEN void hmm_purge_count_away(ptrdiff_t bytes);
HMM_HIDDEN void hmm_purge_count_untouched(ptrdiff_t bytes);

/* What is loose in slabs. Any thread; a moment's opinion. */
HMM_HIDDEN size_t hmm_purge_loose_bytes(void);

/* Whether there is too much, or much less is live than lately, and pages of another slab may go
 * back although nobody knows whether its owner wants them. Any thread; a moment's opinion. */
HMM_HIDDEN bool hmm_purge_may_thin(void);

/* So much more (or, negative, less) is inaccessible, and so much of it keeps memory. Any thread. */
HMM_HIDDEN void hmm_purge_count_fenced(ptrdiff_t bytes, ptrdiff_t dirty_bytes);

/* How much of that may be dirty, once so much more is live. */
HMM_HIDDEN size_t hmm_purge_fenced_bound_bytes(size_t more_bytes);

/* What is away in slabs; what was never touched there; and what is inaccessible and without memory.
 * Any thread; a moment's opinion. */
HMM_HIDDEN HMM_COLD size_t hmm_purge_away_bytes(void);
HMM_HIDDEN HMM_COLD size_t hmm_purge_untouched_bytes(void);
HMM_HIDDEN size_t hmm_purge_fenced_bytes(void);

/* More is live, perhaps more than ever. Any thread. */
HMM_HIDDEN void hmm_purge_note_live(void);

/* By so many granules the heap has grown into memory that was never touched, and nothing was given
 * back for it yet. Relaxed: what races lose is no harm. */
extern HMM_HIDDEN _Atomic size_t hmm_purge_growth;
HMM_HIDDEN void hmm_purge_note_growth(size_t granule_count);

/* Whether more is live than was lately, and nobody has said how much may stay. After
 * hmm_purge_note_live. */
HMM_HIDDEN bool hmm_purge_is_at_peak(void);

/* How much of it there is above the bound. */
HMM_HIDDEN size_t hmm_purge_excess_bytes(void);

/* The same, as far as zones have it. */
HMM_HIDDEN size_t hmm_purge_excess_in_zones_bytes(void);

/* Larger blocks and the arena have given back what they have to: whether there is still too
 * much, which then is in slabs, is noted in hmm_purge_is_behind; whoever looks there,
 * relaxed, resets it. */
extern HMM_HIDDEN _Atomic bool hmm_purge_is_behind;
HMM_HIDDEN void hmm_purge_note_rest(void);

/* scavenger.h. Whoever meets more than the bound without regret wakes it, but not it itself. All
 * relaxed: a wake that is missed is made up for by its second look. */
enum { SCAVENGER_NONE, SCAVENGER_ASLEEP, SCAVENGER_AWAKE, SCAVENGER_ENDING };

struct scavenger {
    _Atomic uint32_t state;   /* a futex */
    _Atomic uintptr_t thread; /* its thread pointer */
};

extern HMM_HIDDEN struct scavenger hmm_scavenger;

/* Whether regret keeps memory that will go back when it fades. */
HMM_HIDDEN HMM_COLD bool hmm_purge_has_regret(void);

/* Whether so much more could stay. */
HMM_HIDDEN bool hmm_purge_would_keep(size_t bytes);

/* Purged memory is about to be touched again. Any thread. */
HMM_HIDDEN void hmm_purge_regret(size_t bytes);

/* Gives [start, start + bytes), whole pages that the caller has to itself, back: it is zero then.
 * false: it keeps its content. No lock may be held but a class's. After many refusals in a row the
 * system is left alone for a moment, unless the program asks (hmm_purge_try_again). */
HMM_HIDDEN bool hmm_purge_pages(uintptr_t start, size_t bytes);
HMM_HIDDEN void hmm_purge_try_again(void);

/* Memory went back in another way: who touches it again within a second shall regret that. */
HMM_HIDDEN void hmm_purge_note_gone(void);

#endif
