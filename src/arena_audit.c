/*
 * arena_audit.c - the invariants of the arena, checked. See arena.h.
 */
#include "arena_sets.h"

/* From the frontier to the end of what is committed. */
static bool is_clean_above(void)
{
    const size_t end = align_up(hmm_arena.committed_count, WORD_BITS) / WORD_BITS;
    bool is_clean = true;
    for (size_t word = hmm_arena.frontier_count / WORD_BITS; word < end; word++) {
        uint64_t bits = word_load(&hmm_arena.sets[word].taken) |
                        word_load(&hmm_arena.sets[word].touched) |
                        word_load(&hmm_arena.sets[word].hidden);
        is_clean = is_clean && (bits & ~word_mask(word, 0, hmm_arena.frontier_count)) == 0;
    }
    return is_clean;
}

const char *hmm_arena_audit(void)
{
    size_t taken_count = 0;
    size_t dirty_count = 0;
    size_t hidden_count = 0;
    if (hmm_arena.frontier_count > hmm_arena.committed_count ||
        hmm_arena.committed_count > hmm_arena.granule_count) {
        return "A2: the frontier lies within what is committed";
    }
    if (!is_clean_above()) {
        return "A1: nothing above the frontier is taken, touched or hidden";
    }
    if (hmm_arena.table_committed_count < hmm_arena.frontier_count) {
        return "A3: every granule has a descriptor";
    }
    if (hmm_arena.table_committed_count > align_up(hmm_arena.granule_count, TABLE_COMMIT_COUNT)) {
        return "A3: the table ends with the range";
    }
    for (size_t index = 0; index < hmm_arena.frontier_count; index++) {
        uint64_t bit = (uint64_t)1 << index % WORD_BITS;
        bool is_taken = (word_load(&hmm_arena.sets[index / WORD_BITS].taken) & bit) != 0;
        bool is_touched = (word_load(&hmm_arena.sets[index / WORD_BITS].touched) & bit) != 0;
        bool is_hidden = (word_load(&hmm_arena.sets[index / WORD_BITS].hidden) & bit) != 0;
        if (is_taken && is_hidden) {
            return "A6: what is hidden is free";
        }
        hidden_count += is_hidden;
        taken_count += is_taken;
        dirty_count += !is_taken && is_touched;
        if (!is_taken && granule_kind(&hmm_arena.table[index]) != GRANULE_FREE) {
            return "A5: a free granule has no kind";
        }
    }
    if (taken_count != counter(&hmm_arena.taken_count) ||
        dirty_count != counter(&hmm_arena.dirty_count)) {
        return "A4: the counters agree with the sets";
    }
    return hidden_count == hmm_arena.hidden_count ? NULL : "A6: the counter agrees with the set";
}
