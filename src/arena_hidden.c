/*
 * arena_hidden.c - free granules that nobody can access. See arena.h.
 *
 * What a process can write to is accounted to it whether there are pages or not: a limit of its
 * data counts it, and a system that does not overcommit refuses memory for it, to a fork before
 * all. So what a heap that has become smaller leaves free below something that lives is hidden,
 * much at a time, and shown again much at a time.
 *
 * Where there is a limit, granules that are hidden leave room in it for others, and cannot be
 * accessed again where these have taken it. They are free all the same: whoever takes them makes
 * room by hiding others, the highest first.
 *
 * The lock is held over the system calls: all of this is rare, and nobody else could go
 * on without memory.
 */
#include "arena_sets.h"
#include "huge.h"
#include "os.h"

enum {
    /* At least so much is hidden at a time. */
    HIDE_COUNT_MIN = (4 << 20) / GRANULE_BYTES,
    /* Each may be a mapping, and part another one in two; a process may have 65,530. */
    HIDDEN_STRETCHES_MAX = 4096,
    /* What is idle is hidden from so much in a row on, and such a share of the heap: a process
     * should have few mappings. */
    IDLE_COUNT_MIN = (512 << 10) / GRANULE_BYTES,
    IDLE_SHARE = 128,
    /* So often others are hidden for the same granules, and each time twice as much: others may
     * take what they leave, or the system may refuse for another reason. */
    TRIES_MAX = 4,
};

void hmm_arena_note_hidden(struct granule *first, size_t count)
{
    hmm_lock_acquire(&hmm_arena.lock);
    hmm_arena_set_hidden(granule_index(first), count);
    atomic_store_explicit(&hmm_arena.was_refused, true, memory_order_relaxed);
    hmm_lock_release(&hmm_arena.lock);
}

static size_t hidden_stretches(void)
{
    size_t count = 0;
    uint64_t is_going_on = 0;
    for (size_t word = 0; word < word_count(); word++) {
        uint64_t bits = word_load(&hmm_arena.sets[word].hidden);
        count += bit_count(bits & ~(bits << 1 | is_going_on));
        is_going_on = bits >> (WORD_BITS - 1);
    }
    return count;
}

/* The highest free and accessible granules below `end`, adjacent within one word and
 * `count_max` at most. */
static struct stretch highest_free(size_t end, size_t count_max)
{
    size_t word = (end + WORD_BITS - 1) / WORD_BITS;
    uint64_t bits = 0;
    while (word > 0 && bits == 0) {
        word--;
        bits = set_word(SET_FREE, word) & word_mask(word, 0, end);
    }
    if (bits == 0) {
        return (struct stretch){0, 0};
    }
    struct stretch stretch = word_highest(bits, count_max);
    stretch.start += word * WORD_BITS;
    return stretch;
}

/* Free granules lose their memory, and nobody can access them. */
static bool stretch_hide(struct stretch stretch)
{
    if (!hmm_os_decommit_unmarked(granule_at(stretch.start), stretch.count << GRANULE_SHIFT)) {
        return false;
    }
    (void)hmm_arena_set_taken(stretch.start, stretch.count, 0);
    hmm_arena_set_untouched(stretch.start, stretch.count);
    hmm_arena_set_hidden(stretch.start, stretch.count);
    hmm_arena_set_free(stretch.start, stretch.count, 0);
    return true;
}

bool hmm_arena_hide_free(size_t count)
{
    const size_t wanted_count = size_max(count, HIDE_COUNT_MIN);
    size_t end = hmm_arena.frontier_count;
    size_t hidden_count = hmm_arena.committed_count - end;
    if (hidden_count != 0 && !hmm_arena_lower(end)) {
        hidden_count = 0;
    }
    if (hidden_stretches() >= HIDDEN_STRETCHES_MAX) {
        return hidden_count != 0;
    }
    while (hidden_count < wanted_count && end != 0) {
        struct stretch stretch = highest_free(end, wanted_count - hidden_count);
        hidden_count += stretch.count != 0 && stretch_hide(stretch) ? stretch.count : 0;
        end = stretch.start;
    }
    return hidden_count != 0;
}

/* The first granules side by side from `index` on that are free and untouched, be they
 * hidden or not. */
static struct stretch next_idle(size_t index)
{
    struct stretch stretch = {index, 0};
    while (index < hmm_arena.frontier_count) {
        size_t word = index / WORD_BITS;
        uint64_t bits = set_word(SET_FREE_OR_HIDDEN, word) & ~set_word(SET_DIRTY, word);
        uint64_t rest = bits >> index % WORD_BITS;
        bool is_idle = (rest & 1) != 0;
        if (!is_idle && stretch.count != 0) {
            break;
        }
        uint64_t others = is_idle ? ~rest : rest;
        size_t length = others == 0 ? WORD_BITS : word_lowest(others);
        length = size_min(length, WORD_BITS - index % WORD_BITS);
        stretch.start = stretch.count == 0 ? index : stretch.start;
        stretch.count += is_idle ? length : 0;
        index += length;
    }
    return stretch;
}

/* What begins at a fence is a mapping already. */
static bool is_behind_fence(struct stretch stretch)
{
    return stretch.start != 0 && granule_kind(&hmm_arena.table[stretch.start - 1]) == GRANULE_FENCE;
}

static size_t count_hidden(size_t index, size_t count)
{
    size_t hidden_count = 0;
    for (size_t word = index / WORD_BITS; word * WORD_BITS < index + count; word++) {
        hidden_count +=
            bit_count(word_load(&hmm_arena.sets[word].hidden) & word_mask(word, index, count));
    }
    return hidden_count;
}

/* What lies beside others that are hidden becomes one mapping with them. */
void hmm_arena_hide_idle(void)
{
    const size_t count_min = size_max(IDLE_COUNT_MIN, hmm_arena.frontier_count / IDLE_SHARE);
    size_t stretches = hidden_stretches();
    struct stretch stretch = next_idle(0);
    while (stretch.count != 0 && stretches < HIDDEN_STRETCHES_MAX) {
        size_t hidden_count = count_hidden(stretch.start, stretch.count);
        size_t least_count = is_behind_fence(stretch) ? IDLE_COUNT_MIN : count_min;
        if (hidden_count < stretch.count && (hidden_count != 0 || stretch.count >= least_count)) {
            stretches += stretch_hide(stretch) && hidden_count == 0;
        }
        stretch = next_idle(stretch.start + stretch.count);
    }
}

static bool run_show(size_t index, size_t count)
{
    if (!hmm_os_unhide(granule_at(index), count << GRANULE_SHIFT, ARENA_NAME)) {
        return false;
    }
    hmm_arena_set_shown(index, count);
    hmm_huge_join(index, count);
    return true;
}

/* With what is hidden beside it in the same words: one call for many that are taken one by one. */
static bool surroundings_show(size_t index, size_t count)
{
    if (arena_was_refused()) {
        return false;
    }
    size_t start = index;
    size_t end = index + count;
    while (start % WORD_BITS != 0 && count_hidden(start - 1, 1) != 0) {
        start--;
    }
    while (end % WORD_BITS != 0 && count_hidden(end, 1) != 0) {
        end++;
    }
    return run_show(start, end - start);
}

/* A part of it may be accessible after a refusal, and would count. */
bool hmm_arena_show_hidden(size_t index, size_t count)
{
    bool is_shown = count_hidden(index, count) == 0 || surroundings_show(index, count) ||
                    run_show(index, count);
    for (unsigned i = 0; i < TRIES_MAX && !is_shown; i++) {
        if (!stretch_hide((struct stretch){index, count}) ||
            !hmm_arena_hide_free(size_max(count, HIDE_COUNT_MIN) << i)) {
            break;
        }
        is_shown = run_show(index, count);
    }
    return is_shown;
}
