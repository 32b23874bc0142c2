/*
 * arena_sets.c - what taking and giving granules does to the bit sets. See arena_sets.h.
 */
#include "arena_sets.h"

size_t hmm_arena_set_taken(size_t index, size_t count, size_t old_frontier)
{
    size_t dirty_count = 0;
    for (size_t word = index / WORD_BITS; word * WORD_BITS < index + count; word++) {
        uint64_t mask = word_mask(word, index, count);
        uint64_t taken = word_load(&hmm_arena.sets[word].taken);
        ASSERT((taken & mask) == 0);
        word_store(&hmm_arena.sets[word].taken, taken | mask);
        dirty_count += bit_count(word_load(&hmm_arena.sets[word].touched) & mask);
    }
    counter_set(&hmm_arena.dirty_count, counter(&hmm_arena.dirty_count) - dirty_count);
    counter_set(&hmm_arena.taken_count, counter(&hmm_arena.taken_count) + count);
    size_t old_end = size_max(old_frontier, hmm_arena.lowered_count);
    size_t old_count = index < old_end ? size_min(count, old_end - index) : 0;
    return size_less(old_count, dirty_count);
}

void hmm_arena_set_free(size_t index, size_t count, size_t touched_count)
{
    size_t dirty_count = 0;
    for (size_t word = index / WORD_BITS; word * WORD_BITS < index + count; word++) {
        uint64_t mask = word_mask(word, index, count);
        uint64_t taken = word_load(&hmm_arena.sets[word].taken);
        ASSERT((taken & mask) == mask);
        word_store(&hmm_arena.sets[word].taken, taken & ~mask);
        uint64_t touched = word_load(&hmm_arena.sets[word].touched);
        if (word * WORD_BITS < index + touched_count) {
            touched |= word_mask(word, index, touched_count);
            word_store(&hmm_arena.sets[word].touched, touched);
        }
        dirty_count += bit_count(touched & mask);
    }
    counter_set(&hmm_arena.taken_count, counter(&hmm_arena.taken_count) - count);
    counter_set(&hmm_arena.dirty_count, counter(&hmm_arena.dirty_count) + dirty_count);
    hmm_arena.free_hint = size_min(hmm_arena.free_hint, index / WORD_BITS);
    hmm_arena.dirty_low_hint = size_min(hmm_arena.dirty_low_hint, index / WORD_BITS);
    hmm_arena.dirty_high_hint =
        size_max(hmm_arena.dirty_high_hint, (index + count - 1) / WORD_BITS);
}

void hmm_arena_set_untouched(size_t index, size_t count)
{
    for (size_t word = index / WORD_BITS; word * WORD_BITS < index + count; word++) {
        uint64_t touched = word_load(&hmm_arena.sets[word].touched);
        word_store(&hmm_arena.sets[word].touched, touched & ~word_mask(word, index, count));
    }
}

void hmm_arena_set_hidden(size_t index, size_t count)
{
    for (size_t word = index / WORD_BITS; word * WORD_BITS < index + count; word++) {
        uint64_t mask = word_mask(word, index, count);
        uint64_t hidden = word_load(&hmm_arena.sets[word].hidden);
        hmm_arena.hidden_count += bit_count(~hidden & mask);
        word_store(&hmm_arena.sets[word].hidden, hidden | mask);
    }
}

void hmm_arena_set_shown(size_t index, size_t count)
{
    for (size_t word = index / WORD_BITS; word * WORD_BITS < index + count; word++) {
        uint64_t mask = word_mask(word, index, count);
        uint64_t hidden = word_load(&hmm_arena.sets[word].hidden);
        hmm_arena.hidden_count -= bit_count(hidden & mask);
        word_store(&hmm_arena.sets[word].hidden, hidden & ~mask);
    }
    hmm_arena.free_hint = size_min(hmm_arena.free_hint, index / WORD_BITS);
}
