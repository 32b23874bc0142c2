/*
 * guard_slots.c - slots with seals: the fast paths of guarded threads. See guard.h.
 */
#include "guard_quarantine.h"

enum {
    LOOKED_AT_BEFORE_BYTES = 32,
};

/* ------------------------------------------------------------------------------------ allocation */

/* A slot from the bin is 0 but for its link (G2), or somebody wrote into it. One that was never handed
 * out is not looked at: that would touch its pages. */
static inline void slot_check(struct slot *slot, size_t room_bytes)
{
    const struct granule *slab = granule_of(slot);
    if (slot_units(slot) >= slab->virgin_units) {
        return;
    }
    seal_word *seal = seal_of(slot, room_bytes);
    const uint64_t *start = (const uint64_t *)&slot->mark;
    const char *end = (const char *)seal + SEAL_BYTES - hmm_guard.trailer_bytes;
    if (UNLIKELY(!words_are_zero(start, (const uint64_t *)end) || seal_load(seal) != 0)) {
        const void *damage = first_nonzero(start, end);
        hmm_guard_accuse_byte("malloc", slot, "write after free", seal,
                              damage != NULL ? damage : seal);
    }
}

/* What follows a free slot is NULL or in the same granule: a link leads nowhere else. */
static inline struct slot *slot_follow(const char *call, struct slot *slot)
{
    struct slot *next = slot_next(slot);
    bool is_near = ((uintptr_t)next ^ (uintptr_t)slot) < GRANULE_BYTES &&
                   is_aligned((uintptr_t)next, SLOT_UNIT_BYTES);
    if (UNLIKELY(next != NULL && !is_near)) {
        hmm_guard_accuse_byte(call, slot, "write after free", NULL, slot);
    }
    return next;
}

static inline void *slot_hand_out(struct slot *slot, size_t room_bytes, size_t bytes,
                                  unsigned alignment_shift, enum origin origin)
{
    slot_check(slot, room_bytes);
    slot->next = NULL;
    return block_seal(slot, room_bytes, bytes, alignment_shift, origin);
}

void *hmm_guard_slot_allocate(struct thread *thread, unsigned size_class, size_t alignment,
                              size_t bytes, enum origin origin)
{
    struct slot *slot = thread->bins[size_class];
    if (LIKELY(slot != NULL)) {
        thread->bins[size_class] = slot_follow("malloc", slot);
    } else {
        slot = hmm_thread_refill(thread, size_class);
        if (LIKELY(slot != NULL)) {
            (void)slot_follow("malloc", slot);
        }
    }
    return slot != NULL ? slot_hand_out(slot, class_bytes(size_class), bytes,
                                        seal_alignment_shift(alignment), origin)
                        : NULL;
}

void *hmm_guard_malloc(size_t bytes)
{
    struct thread *thread = hmm_thread.thread;
    size_t room_bytes = bytes + hmm_guard.trailer_bytes;
    if (LIKELY(thread_is_open(thread) && bytes != 0 && bytes <= hmm_guard.slot_bytes_max)) {
        unsigned size_class = class_of(room_bytes);
        struct slot *slot = thread->bins[size_class];
        if (LIKELY(slot != NULL)) {
            thread->bins[size_class] = slot_follow("malloc", slot);
            return slot_hand_out(slot, class_bytes(size_class), bytes, ALIGNMENT_SHIFT_MIN,
                                 ORIGIN_MALLOC);
        }
    }
    return NULL;
}

void hmm_guard_slots_check(const struct thread *thread)
{
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        for (struct slot *slot = thread->bins[size_class]; slot != NULL;) {
            slot = slot_follow("pthread_exit", slot);
        }
    }
}

/* -------------------------------------------------------------------------------------- freeing */

/* Whether a byte of a free slot stays other than 0. Whoever has the slot may hand it out, and get it back,
 * between any two looks, but not between all of them. */
static HMM_COLD bool is_lasting(const seal_word *seal, const char *damage)
{
    enum { LOOKS = 1000 };
    for (int looks = 0; looks < LOOKS; looks++) {
        if (seal_load(seal) != 0 || *(const volatile char *)damage == 0) {
            return false;
        }
    }
    return true;
}

/* What lies before a slot: a seal, or 0 and before that the end of a free slot, which is 0, too (G2, G3). That
 * slot may be another thread's, who hands it out meanwhile: so damage counts if it lasts, and the slot stays
 * free. */
static inline const void *damage_before(const char *ptr, size_t room_bytes)
{
    const seal_word *seal = (const seal_word *)((uintptr_t)ptr - SEAL_BYTES);
    uint64_t word = seal_load(seal);
    if (word != 0) {
        return LIKELY(seal_is_right(&hmm_guard.key, seal, word))
                   ? NULL
                   : hmm_seal_damage_from_behind(&hmm_guard.key, seal, word);
    }
    const char *trailer = ptr - hmm_guard.trailer_bytes;
    size_t clear_bytes = size_min(room_bytes - hmm_guard.trailer_bytes - sizeof(struct slot *),
                                  LOOKED_AT_BEFORE_BYTES);
    const char *damage = first_nonzero(trailer - clear_bytes, trailer);
    return LIKELY(damage == NULL) || !is_lasting(seal, damage) ? NULL : damage;
}

static HMM_COLD HMM_NORETURN void accuse_pointer(const char *call, const void *ptr)
{
    const struct granule *slab = granule_of(ptr);
    size_t index = ((uintptr_t)ptr - granule_start(slab)) / class_bytes(slab_class(slab));
    bool is_inside = index < slab_carved(slab) && index >= GUARD_FIRST_SLOT;
    hmm_guard_accuse(call, ptr,
                     is_inside ? "invalid pointer, inside a block" : "invalid pointer, in no block",
                     NULL);
}

/* The room of a slot in use, or of one that is free and will be found out. */
static inline size_t slot_room(const char *call, const void *ptr)
{
    const struct granule *slab = granule_of(ptr);
    if (UNLIKELY(!slab_is_slot(slab, ptr) || slab_index(slab, ptr) < GUARD_FIRST_SLOT)) {
        accuse_pointer(call, ptr);
    }
    return class_bytes(slab_class(slab));
}

static inline __attribute__((always_inline)) void slot_free(void *ptr, const struct claim *claim)
{
    size_t room_bytes = slot_room(claim->call, ptr);
    struct sealed block = block_open(claim->call, ptr, room_bytes, true);
    const void *damage = damage_before(ptr, room_bytes);
    if (UNLIKELY(damage != NULL)) {
        hmm_guard_accuse_byte(claim->call, ptr, "write before the start", block.seal, damage);
    }
    block_check_claim(claim, &block);
    block_clear(&block, room_bytes);
    quarantine_add(hmm_thread.thread, ptr, room_bytes);
}

void hmm_guard_slot_free(void *ptr, const struct claim *claim)
{
    slot_free(ptr, claim);
}

/* What free does most, with nothing claimed. */
void hmm_guard_free_plain(void *ptr)
{
    static const struct claim claim = {.call = "free"};
    if (LIKELY(granule_kind(granule_of(ptr)) == GRANULE_SLAB)) {
        slot_free(ptr, &claim);
    } else {
        hmm_guard_free(ptr, &claim);
    }
}

/* ---------------------------------------------------------------------------------- other calls */

size_t hmm_guard_slot_usable(const char *call, const void *ptr)
{
    size_t room_bytes = slot_room(call, ptr);
    return block_open(call, (void *)(uintptr_t)ptr, room_bytes, false).request_bytes;
}

void *hmm_guard_slot_resize(void *ptr, size_t bytes, const struct claim *claim)
{
    size_t room_bytes = slot_room(claim->call, ptr);
    struct sealed block = block_open(claim->call, ptr, room_bytes, false);
    block_check_claim(claim, &block);
    if (bytes + hmm_guard.trailer_bytes > SMALL_BYTES_MAX ||
        class_bytes(class_of(bytes + hmm_guard.trailer_bytes)) != room_bytes) {
        return NULL;
    }
    size_t kept_bytes = size_min(bytes, block.request_bytes);
    memset((char *)ptr + kept_bytes, 0, room_bytes - hmm_guard.trailer_bytes - kept_bytes);
    return block_seal(ptr, room_bytes, bytes, facts_alignment_shift(block.facts),
                      facts_origin(block.facts));
}

void hmm_guard_check_write(const char *call, const void *to, size_t bytes)
{
    const struct granule *slab = granule_of(to);
    if (granule_kind(slab) != GRANULE_SLAB || bytes == 0) {
        return;
    }
    uint32_t offset = (uint32_t)(arena_offset(to) & (GRANULE_BYTES - 1));
    uint32_t index = offset / slab->slot_bytes;
    const char *slot = (const char *)granule_start(slab) + (size_t)index * slab->slot_bytes;
    seal_word *seal = seal_of(slot, slab->slot_bytes);
    uint64_t word = seal_load(seal);
    if (UNLIKELY(!seal_is_right(&hmm_guard.key, seal, word))) {
        hmm_guard_accuse(call, to, word == 0 ? "write into a free block" : "damaged seal", seal);
    }
    const char *end = (const char *)seal + SEAL_BYTES - hmm_guard.trailer_bytes - facts_slack(word);
    if (UNLIKELY((const char *)to > end || bytes > (size_t)(end - (const char *)to))) {
        hmm_guard_accuse_byte(call, to, "write past the end", seal, end);
    }
}
