/*
 * arena_sets.h - the arena's bit sets, for its own files only. The arena's lock is held
 * by whoever writes.
 *
 *     arena.c        granules are taken and given
 *     arena_sets.c   what that does to the sets
 *     arena_purge.c  what is free goes back to the system
 *     arena_hidden.c what is free and inaccessible
 *     arena_open.c   the reservations, and the library's own memory
 */
#ifndef HMM_ARENA_SETS_H
#define HMM_ARENA_SETS_H

#include "arena.h"

enum {
    /* The frontier's memory and the table are made accessible in steps, so that a system
     * call is rare. */
    COMMIT_COUNT_MIN = EXTENT_COUNT,
    TABLE_COMMIT_COUNT = 512, /* 64 KiB of table */
};

enum set { SET_FREE, SET_DIRTY, SET_FREE_OR_HIDDEN };

static inline uint64_t word_load(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static inline void word_store(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

/* Of the granules of one word those that are in the set. The frontier bounds them all. */
static inline uint64_t set_word(enum set set, size_t word)
{
    uint64_t free = ~word_load(&hmm_arena.sets[word].taken);
    if (set == SET_DIRTY) {
        return free & word_load(&hmm_arena.sets[word].touched);
    }
    if (set == SET_FREE) {
        free &= ~word_load(&hmm_arena.sets[word].hidden);
    }
    size_t first = word * WORD_BITS;
    size_t below = size_less(hmm_arena.frontier_count, first);
    return below >= WORD_BITS ? free : free & (((uint64_t)1 << below) - 1);
}

static inline size_t word_count(void)
{
    return (hmm_arena.frontier_count + WORD_BITS - 1) / WORD_BITS;
}

/* The granules of [index, index + count) that lie in one word. */
static inline uint64_t word_mask(size_t word, size_t index, size_t count)
{
    size_t first = word * WORD_BITS;
    size_t from = index > first ? index - first : 0;
    size_t to = size_min(index + count - first, WORD_BITS);
    uint64_t below_to = to == WORD_BITS ? UINT64_MAX : ((uint64_t)1 << to) - 1;
    return below_to & ~(((uint64_t)1 << from) - 1);
}

static inline size_t word_lowest(uint64_t bits)
{
    return (size_t)__builtin_ctzll(bits);
}

static inline size_t counter(const _Atomic size_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

static inline void counter_set(_Atomic size_t *value, size_t to)
{
    atomic_store_explicit(value, to, memory_order_relaxed);
}

/* Whether the system has refused memory. */
static inline bool arena_was_refused(void)
{
    return atomic_load_explicit(&hmm_arena.was_refused, memory_order_relaxed);
}

/* Adjacent granules of the set, seen so far. */
struct stretch {
    size_t start;
    size_t count;
};

/* The highest bits that are set side by side, `count_max` at most, of a word with some. */
static inline struct stretch word_highest(uint64_t bits, size_t count_max)
{
    size_t top = (size_t)(WORD_BITS - 1 - __builtin_clzll(bits));
    uint64_t above_ones = ~bits << (WORD_BITS - 1 - top);
    size_t length = above_ones == 0 ? top + 1 : (size_t)__builtin_clzll(above_ones);
    length = size_min(size_min(length, top + 1), count_max);
    return (struct stretch){top + 1 - length, length};
}

/* Takes free granules. Returns how many of them lie below `old_frontier`, or below where that stood
 * before it last came down, and are untouched: memory that had been given back. */
HMM_HIDDEN size_t hmm_arena_set_taken(size_t index, size_t count, size_t old_frontier);

/* Frees taken granules, of which the first so many are touched from now on. */
HMM_HIDDEN void hmm_arena_set_free(size_t index, size_t count, size_t touched_count);

HMM_HIDDEN void hmm_arena_set_untouched(size_t index, size_t count);
HMM_HIDDEN HMM_COLD void hmm_arena_set_hidden(size_t index, size_t count);
HMM_HIDDEN HMM_COLD void hmm_arena_set_shown(size_t index, size_t count);

/* What is committed ends at granule `index` now, and the frontier lies no higher: of what is above
 * nothing is taken or touched. false: nothing has changed. */
HMM_HIDDEN bool hmm_arena_lower(size_t index);

/* Makes free granules accessible of which some may be hidden, if need be in exchange for others.
 * false: all of these are hidden now, as far as that is known. */
HMM_HIDDEN HMM_COLD bool hmm_arena_show_hidden(size_t index, size_t count);

/* Takes access from so many free granules, or some more: the system counts what a process can write
 * to. false: there are none. */
HMM_HIDDEN HMM_COLD bool hmm_arena_hide_free(size_t count);

/* Memory that is free and untouched is accounted to the process even so. If that is much
 * the frontier comes down over it, and what lies deeper is hidden. Rare enough to be done
 * under the lock. */
HMM_HIDDEN void hmm_arena_lower_account(void);

/* Takes access from what is free and untouched, where it is much in a row: it is no longer
 * accounted to the process. */
HMM_HIDDEN HMM_COLD void hmm_arena_hide_idle(void);

/* Whether free granules are accessible now. */
static inline bool can_access(size_t index, size_t count)
{
    return LIKELY(hmm_arena.hidden_count == 0) || hmm_arena_show_hidden(index, count);
}

#endif
