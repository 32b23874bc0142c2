/*
 * guard_slots.c - slots with seals: the fast paths of guarded threads. See guard.h.
 */
#include "guard_fast.h"
#include "guard_write.h"

enum {
    LOOKED_AT_BEFORE_BYTES = 32,
    /* Larger slots are not looked through where that would touch a page before it is needed. */
    VIRGIN_BYTES_MIN = 2048,
};

/* ----------------------------------------------------------------------------------- allocation */

static HMM_COLD HMM_NORETURN void accuse_slot(const struct slot *slot, size_t room_bytes)
{
    seal_word *seal = seal_of(slot, room_bytes);
    const char *end = (const char *)seal + SEAL_BYTES - hmm_settings.guard.trailer_bytes;
    const void *damage = first_nonzero(&slot->mark, end);
    hmm_guard_accuse_byte("malloc", slot, "write after free", seal, damage != NULL ? damage : seal);
}

/* Whether a free slot is 0 but for its link, and its sites. */
static inline bool slot_is_zero(const struct slot *slot, size_t room_bytes, size_t trailer_bytes)
{
    if (!trailer_has_sites(trailer_bytes)) {
        return slot->mark == 0 && pairs_are_zero(slot + 1, room_bytes - sizeof *slot);
    }
    seal_word *seal = seal_of(slot, room_bytes);
    return words_are_zero((const uint64_t *)&slot->mark, (const uint64_t *)sites_of(seal)) &&
           seal_load(seal) == 0;
}

/* A slot from the bin is 0 but for its link (G2), or somebody wrote into it. */
static inline void slot_check(const struct slot *slot, size_t room_bytes, size_t trailer_bytes)
{
    if (UNLIKELY(room_bytes > VIRGIN_BYTES_MIN) &&
        slot_units(slot) >= granule_of(slot)->virgin_units) {
        return;
    }
    if (UNLIKELY(!slot_is_zero(slot, room_bytes, trailer_bytes))) {
        accuse_slot(slot, room_bytes);
    }
}

/* What follows a free slot is in the same granule, or NULL: a link leads nowhere else. */
static inline struct slot *slot_follow(const char *call, struct slot *slot)
{
    struct slot *next = slot_next(slot);
    if (UNLIKELY(!slot_is_near(slot, next) && next != NULL)) {
        hmm_guard_accuse_byte(call, slot, "write after free", NULL, slot);
    }
    return next;
}

static inline void *slot_hand_out(struct slot *slot, size_t room_bytes, size_t trailer_bytes,
                                  size_t bytes, unsigned alignment_shift, enum origin origin)
{
    slot_check(slot, room_bytes, trailer_bytes);
    slot->next = NULL;
    return block_seal(slot, room_bytes, trailer_bytes, bytes, alignment_shift, origin);
}

void *hmm_guard_slot_allocate(struct thread *thread, unsigned size_class,
                              const struct request *request)
{
    struct slot *slot = thread->bins[size_class];
    if (LIKELY(slot != NULL)) {
        thread->bins[size_class] = slot_follow("malloc", slot);
    } else {
        slot = hmm_thread_refill(thread, size_class);
        if (UNLIKELY(slot == NULL)) {
            return NULL;
        }
        (void)slot_follow("malloc", slot);
    }
    return slot_hand_out(slot, class_bytes(size_class), hmm_settings.guard.trailer_bytes,
                         request->bytes, seal_alignment_shift(request->alignment), request->origin);
}

void *hmm_guard_malloc(size_t bytes, enum origin origin)
{
    if (!HMM_SECURE) {
        void *ptr = guard_malloc_short(bytes, origin);
        if (LIKELY(ptr != NULL)) {
            return ptr;
        }
    }
    if (UNLIKELY(bytes - 1 >= hmm_settings.guard.bin_bytes_max)) {
        return NULL;
    }
    unsigned size_class = class_of(bytes + SEAL_BYTES);
    struct slot **bin = guard_bin(size_class);
    struct slot *slot = bin != NULL ? *bin : NULL;
    if (UNLIKELY(slot == NULL)) {
        return NULL;
    }
    *bin = slot_follow("malloc", slot);
    __builtin_prefetch(*bin); /* what the next call begins with */
    return slot_hand_out(slot, class_bytes(size_class), SEAL_BYTES, bytes, ALIGNMENT_SHIFT_MIN,
                         origin);
}

void hmm_guard_slots_check(const char *call, const struct thread *thread)
{
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        for (struct slot *slot = thread->bins[size_class]; slot != NULL;) {
            slot = slot_follow(call, slot);
        }
    }
}

/* -------------------------------------------------------------------------------------- freeing */

/* Whether a byte of a free slot stays other than 0. Whoever has the slot may hand it out, and get
 * it back, between any two looks, but not between all of them. */
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

/* So much of a free slot, before its trailer, is looked at from the slot behind; not its link. */
static inline size_t end_bytes(size_t room_bytes, size_t trailer_bytes)
{
    return size_min(room_bytes - trailer_bytes - sizeof(struct slot *), LOOKED_AT_BEFORE_BYTES);
}

/* Where there are no sites. false: what lies before the slot may be damaged. */
HMM_RACY static inline bool before_is_right(uintptr_t start, size_t room_bytes)
{
    const seal_word *seal = seal_before(start);
    uint64_t word = seal_load(seal);
    uint64_t content = 0;
    if (LIKELY(room_bytes >= LOOKED_AT_BEFORE_BYTES)) { /* the last of it may be the seal */
        size_t bytes = end_bytes(room_bytes, SEAL_BYTES);
        const char *from = (const char *)seal - bytes;
        content = two_words_at(from) | two_words_at(from + bytes / 2);
    }
    return before_damage(seal, word, content) == 0;
}

/* As first_nonzero, of a few bytes to which another thread may be writing. */
HMM_RACY static const char *nonzero_before(const char *at, const char *end)
{
    while (at < end && *(const volatile char *)at == 0) {
        at++;
    }
    return at < end ? at : NULL;
}

/* The damage before a slot, NULL: there is none. A free slot may be another thread's, who hands it
 * out meanwhile: so damage counts if it lasts, and the slot stays free. */
static HMM_COLD const void *damage_before(uintptr_t start, size_t room_bytes)
{
    const seal_word *seal = seal_before(start);
    uint64_t word = seal_load(seal);
    if (word != 0) {
        return seal_is_right(&hmm_settings.guard.key, seal, word)
                   ? NULL
                   : hmm_seal_damage_from_behind(&hmm_settings.guard.key, seal, word);
    }
    size_t trailer_bytes = hmm_settings.guard.trailer_bytes;
    const char *end = (const char *)(start - trailer_bytes);
    const char *damage = nonzero_before(end - end_bytes(room_bytes, trailer_bytes), end);
    return damage != NULL && is_lasting(seal, damage) ? damage : NULL;
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
    if (UNLIKELY(slab_index(slab, ptr) - GUARD_FIRST_SLOT >=
                 slab_carved(slab) - GUARD_FIRST_SLOT)) {
        accuse_pointer(call, ptr);
    }
    return slab->slot_bytes;
}

/* All lines of a slot are asked for at once: what is freed may be far away by now, and stores wait
 * for the checks. */
static inline void slot_fetch(const void *slot, size_t room_bytes)
{
    for (size_t at = 0; at < room_bytes; at += LINE_BYTES) {
        __builtin_prefetch((const char *)slot + at, 1);
    }
}

/* The last of a slot's pairs is a word, and the seal. */
static inline void slot_end_clear(seal_word *seal)
{
    *((uint64_t *)seal - 1) = 0;
    seal_store(seal, 0);
}

static inline void slot_clear(const struct sealed *block, size_t room_bytes, size_t trailer_bytes)
{
    if (trailer_has_sites(trailer_bytes) || room_bytes <= SHORT_ROOM_BYTES_MAX ||
        room_bytes > MIDDLE_ROOM_BYTES_MAX) {
        block_clear(block, room_bytes, trailer_bytes);
        return;
    }
    pairs_clear_long((char *)block->start, room_bytes - PAIR_BYTES);
    slot_end_clear(block->seal);
}

static inline void check_before(const char *call, const struct sealed *block, size_t room_bytes,
                                size_t trailer_bytes)
{
    if (UNLIKELY(trailer_has_sites(trailer_bytes) || !before_is_right(block->start, room_bytes))) {
        const void *damage = damage_before(block->start, room_bytes);
        if (UNLIKELY(damage != NULL)) {
            hmm_guard_accuse_byte(call, (const void *)block->start, "write before the start",
                                  block->seal, damage);
        }
    }
}

/* Any slot. */
static HMM_NOINLINE void slot_free(void *ptr, const struct claim *claim)
{
    size_t trailer_bytes = hmm_settings.guard.trailer_bytes;
    size_t room_bytes = slot_room(claim->call, ptr);
    slot_fetch(ptr, size_min(room_bytes, MIDDLE_ROOM_BYTES_MAX));
    struct sealed block = block_open(claim->call, "double free", ptr, room_bytes, trailer_bytes);
    check_before(claim->call, &block, room_bytes, trailer_bytes);
    block_check_claim(claim, &block);
    slot_clear(&block, room_bytes, trailer_bytes);
    quarantine_add(ptr, room_bytes);
}

/* As guard_free_short, for slots that are longer, and cleared without a call. */
static HMM_INLINE bool free_middle(void *ptr, const struct claim *claim)
{
    const struct granule *slab = granule_of(ptr);
    if (UNLIKELY(!slab_is_slot(slab, ptr))) {
        return false;
    }
    size_t room_bytes = slab->slot_bytes;
    if (room_bytes - SHORT_ROOM_BYTES_MAX - 1 >= MIDDLE_ROOM_BYTES_MAX - SHORT_ROOM_BYTES_MAX ||
        hmm_thread.short_room_span_bytes == 0 || claim->alignment != 0) {
        return false;
    }
    slot_fetch(ptr, room_bytes);
    uint64_t word;
    if (UNLIKELY(!block_is_usual(ptr, room_bytes, room_bytes, claim, &word))) {
        return false;
    }
    pairs_clear_long(ptr, room_bytes - PAIR_BYTES);
    slot_end_clear(seal_of(ptr, room_bytes));
    quarantine_add(ptr, room_bytes);
    return true;
}

void hmm_guard_free(void *ptr, const struct claim *claim)
{
    if ((!HMM_SECURE && LIKELY(guard_free_short(ptr, claim))) || LIKELY(free_middle(ptr, claim))) {
        return;
    }
    if (UNLIKELY(granule_kind(granule_of(ptr)) != GRANULE_SLAB)) {
        hmm_guard_free_other(ptr, claim);
    } else {
        slot_free(ptr, claim);
    }
}

/* ---------------------------------------------------------------------------------- other calls */

static HMM_INLINE size_t slot_usable(const char *call, const void *ptr, size_t trailer_bytes)
{
    return block_open(call, "freed block", (void *)(uintptr_t)ptr, slot_room(call, ptr),
                      trailer_bytes)
        .request_bytes;
}

static HMM_NOINLINE size_t slot_usable_with_sites(const char *call, const void *ptr)
{
    return slot_usable(call, ptr, SEAL_BYTES + SITES_BYTES);
}

/* Some programs ask with each call. */
size_t hmm_guard_slot_usable(const char *call, const void *ptr)
{
    return LIKELY(!hmm_settings.guard.has_sites) ? slot_usable(call, ptr, SEAL_BYTES)
                                                 : slot_usable_with_sites(call, ptr);
}

/* Whether a request has its place in slots of that size, and of no other. */
static inline bool slot_suits(size_t room_bytes, size_t bytes)
{
    return bytes <= SMALL_BYTES_MAX && class_bytes(class_of(bytes)) == room_bytes;
}

static HMM_INLINE void *slot_resize(void *ptr, size_t bytes, const struct claim *claim,
                                    size_t *old_bytes, size_t trailer_bytes)
{
    size_t room_bytes = slot_room(claim->call, ptr);
    struct sealed block = block_open(claim->call, "freed block", ptr, room_bytes, trailer_bytes);
    block_check_claim(claim, &block);
    *old_bytes = block.request_bytes;
    if (!slot_suits(room_bytes, bytes + trailer_bytes)) {
        /* It will be freed: what is said then must be said before another one has been made. */
        check_before(claim->call, &block, room_bytes, trailer_bytes);
        return NULL;
    }
    if (bytes < block.request_bytes) { /* what it grows by is 0 */
        memset((char *)ptr + bytes, 0, block.request_bytes - bytes);
    }
    return block_seal(ptr, room_bytes, trailer_bytes, bytes, facts_alignment_shift(block.facts),
                      facts_origin(block.facts));
}

static HMM_NOINLINE void *slot_resize_with_sites(void *ptr, size_t bytes, const struct claim *claim,
                                                 size_t *old_bytes)
{
    return slot_resize(ptr, bytes, claim, old_bytes, SEAL_BYTES + SITES_BYTES);
}

void *hmm_guard_slot_resize(void *ptr, size_t bytes, const struct claim *claim, size_t *old_bytes)
{
    return LIKELY(!hmm_settings.guard.has_sites)
               ? slot_resize(ptr, bytes, claim, old_bytes, SEAL_BYTES)
               : slot_resize_with_sites(ptr, bytes, claim, old_bytes);
}

void hmm_guard_accuse_write(const char *call, const void *to)
{
    struct slot_end slot = slot_end_of(to);
    if (!seal_is_right(&hmm_settings.guard.key, slot.seal, slot.word)) {
        hmm_guard_accuse(call, to, slot.word == 0 ? "write into a free block" : "damaged seal",
                         slot.seal);
    }
    hmm_guard_accuse_byte(call, to, "write past the end", slot.seal,
                          (const char *)to - slot.offset_bytes + slot_request_bytes(&slot));
}
