/*
 * heap_guard_audit.c - walks a hardened heap: its blocks as their users see them, and the
 * invariants Q1-Q3 of heap_guard.h.
 */
#include "heap_guard_block.h"

struct guarded_walk {
    const struct heap_guard *guard;
    HmmVisitor visit;
    void *context;
};

static bool walk_block(void *ptr, size_t usable_bytes, bool is_used, void *context)
{
    const struct guarded_walk *walk = context;
    if (is_used) {
        uintptr_t seal = (uintptr_t)ptr + usable_bytes - SEAL_BYTES;
        uint64_t word = seal_load(seal);
        is_used = word != 0;
        if (is_used && !is_right(walk->guard, seal, word)) {
            return false;
        }
        usable_bytes -= is_used ? guard_trailer_bytes(walk->guard) + facts_slack(word) : 0;
    }
    return walk->visit(ptr, usable_bytes, is_used, walk->context);
}

bool hmm_heap_guard_walk(const struct heap *heap, const struct heap_guard *guard, HmmVisitor visit,
                         void *context)
{
    struct guarded_walk walk = {guard, visit, context};
    return hmm_heap_walk(heap, walk_block, &walk);
}

struct guarded_census {
    const struct heap_guard *guard;
    const char *broken;
    size_t live_bytes;
    size_t held_bytes;
    size_t held_count;
};

static const char *audit_used(struct guarded_census *census, uintptr_t ptr, size_t usable_bytes)
{
    uintptr_t seal = ptr + usable_bytes - SEAL_BYTES;
    uint64_t word = seal_load(seal);
    uintptr_t trailer = seal_trailer(census->guard, seal);
    if (word == 0) {
        census->held_count++;
        census->held_bytes += usable_bytes + BLOCK_TAG_BYTES;
        return !is_held(census->guard, (const void *)ptr) ||
                       trailer_damage(census->guard, ptr, trailer) != 0
                   ? "Q2: a used block that is neither live nor held back"
                   : NULL;
    }
    if (!is_right(census->guard, seal, word) || facts_slack(word) > trailer - ptr ||
        trailer_damage(census->guard, trailer - facts_slack(word), trailer) != 0) {
        return "Q2: a live block's seal, record or slack is damaged";
    }
    census->live_bytes += trailer - ptr - facts_slack(word);
    return NULL;
}

static bool audit_block(void *ptr, size_t usable_bytes, bool is_used, void *context)
{
    struct guarded_census *census = context;
    uintptr_t start = (uintptr_t)ptr;
    if (is_used) {
        census->broken = audit_used(census, start, usable_bytes);
    } else if (free_search(census->guard, start + 2 * WORD_BYTES, start + usable_bytes - WORD_BYTES)
                   .stray != 0) {
        census->broken = "Q1: a free block that is not 0";
    }
    return census->broken == NULL;
}

const char *hmm_heap_guard_audit(const struct heap *heap, const struct heap_guard *guard)
{
    const char *broken = hmm_heap_audit(heap);
    if (broken != NULL) {
        return broken;
    }
    struct guarded_census census = {.guard = guard};
    (void)hmm_heap_walk(heap, audit_block, &census);
    if (census.broken != NULL) {
        return census.broken;
    }
    return census.held_count == guard->held_count && census.held_bytes == guard->held_bytes &&
                   census.live_bytes == guard->live_bytes &&
                   guard->peak_live_bytes >= guard->live_bytes &&
                   guard->held_bytes <= guard->held_bytes_max
               ? NULL
               : "Q3: what is live and what is held back is counted";
}
