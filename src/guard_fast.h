/*
 * guard_fast.h - what most calls of a guarded thread do, compiled into the
 * doors of libhmm-secure.so.
 *
 * Only short slots come this way: those that are looked through and cleared without a loop. All
 * that is unusual is found by looks whose answers are joined, and then nothing has been changed:
 * the slow path looks again, and says what is wrong, if anything is. So nothing here needs a frame.
 * See guard.h for what is looked at, and why.
 */
#ifndef HMM_GUARD_FAST_H
#define HMM_GUARD_FAST_H

#include "guard_quarantine.h"

enum {
    /* The least slot whose link is no part of what is looked at before the next one; and the
     * largest of a pair, and those that pairs_join_short takes. */
    SHORT_ROOM_BYTES_MIN = 2 * SLOT_UNIT_BYTES,
    SHORT_ROOM_BYTES_MAX = PAIR_BYTES + PAIRS_SHORT_BYTES,
    SHORT_ROOM_SPAN_BYTES = SHORT_ROOM_BYTES_MAX - SHORT_ROOM_BYTES_MIN + 1,
    /* In the secure library smaller requests have such slots as well. */
    SHORT_REQUEST_BYTES_MIN = HMM_SECURE ? 1 : SLOT_UNIT_BYTES - SEAL_BYTES + 1,
    SHORT_REQUEST_SPAN_BYTES = SHORT_ROOM_BYTES_MAX - SEAL_BYTES - SHORT_REQUEST_BYTES_MIN + 1,
};

static_assert((int)SLOT_UNIT_BYTES == PAIR_BYTES, "slots are whole pairs");

/* ----------------------------------------------------------------------------------- allocation */

/* Of a class of short slots: they are a unit apart. */
static inline size_t short_room(unsigned size_class)
{
    return (size_t)(size_class + 1) * SLOT_UNIT_BYTES;
}

/* In the secure library the doors leave the bins in the TLS block to the guard. NULL: the
 * thread has none. */
static inline struct slot **guard_bin(unsigned size_class)
{
    if (HMM_SECURE) {
        return &hmm_thread.bins[size_class];
    }
    struct thread *thread = hmm_thread.thread;
    return LIKELY(thread_is_open(thread)) ? &thread->bins[size_class] : NULL;
}

/* What follows a free slot is in the same granule: a link leads nowhere else. */
static inline bool slot_is_near(const struct slot *slot, const struct slot *next)
{
    const uintptr_t same = ~(uintptr_t)(GRANULE_BYTES - SLOT_UNIT_BYTES);
    return (((uintptr_t)next ^ (uintptr_t)slot) & same) == 0;
}

/* What a free slot has besides its link, all of it joined: 0, or somebody wrote into it (G2). */
static inline uint64_t short_content(const struct slot *slot, size_t room_bytes)
{
    word_pair all;
    pairs_join_short(&all, (const char *)(slot + 1), room_bytes - sizeof *slot);
    return all[0] | all[1] | slot->mark;
}

/* What the thread's bin has, all of it 0. NULL: nothing has happened, and it is a
 * matter for hmm_guard_malloc. */
static HMM_INLINE void *guard_malloc_short(size_t bytes, enum origin origin)
{
    if (UNLIKELY(bytes - SHORT_REQUEST_BYTES_MIN >= hmm_settings.guard.short_request_span_bytes)) {
        return NULL;
    }
    unsigned size_class = class_of(bytes + SEAL_BYTES);
    size_t room_bytes = short_room(size_class);
    struct slot **bin = guard_bin(size_class);
    struct slot *slot = bin != NULL ? *bin : NULL;
    if (UNLIKELY(slot == NULL)) {
        return NULL;
    }
    struct slot *next = slot_next(slot);
    if (UNLIKELY(!slot_is_near(slot, next) || short_content(slot, room_bytes) != 0)) {
        return NULL;
    }
    *bin = next;
    __builtin_prefetch(next); /* what the next call begins with */
    slot->next = NULL;
    return block_seal(slot, room_bytes, SEAL_BYTES, bytes, ALIGNMENT_SHIFT_MIN, origin);
}

/* -------------------------------------------------------------------------------------- freeing */

/* What a value is made of is not wanted any more: else all parts of a long look want
 * registers at once. */
static inline void keep_apart(uint64_t *value)
{
    __asm__("" : "+r"(*value));
}

/* One of two values, where nobody can foresee which: compilers shall not make a branch of it. */
static inline uint64_t choose(bool is_first, uint64_t first, uint64_t second)
{
    __asm__("" : "+r"(first), "+r"(second));
    return is_first ? first : second;
}

/* Of a word that was read there: its facts, if it is right; if not, something below them. */
static inline uint64_t seal_answer(const struct seal_key *key, const void *seal, uint64_t word)
{
    uint64_t facts = seal_facts(word);
    uint64_t product = ((uint64_t)(uintptr_t)seal ^ key->add ^ facts) * key->multiply;
    return product >> (64 - MARK_BITS) ^ word;
}

/* Before a slot lies a seal; or 0, and before that the end of a free slot, which is 0 as well
 * (G2, G3). */
static inline const seal_word *seal_before(uintptr_t start)
{
    return (const seal_word *)start - 1;
}

/* What is wrong there; 0: nothing. `word` was read as the seal, and then the `content` before it,
 * all of it joined. Nobody can foresee which of the two counts, so there is no branch. */
static inline uint64_t before_damage(const seal_word *seal, uint64_t word, uint64_t content)
{
    uint64_t damage = seal_answer(&hmm_settings.guard.key, seal, word) << (64 - MARK_BITS);
    keep_apart(&damage);
    return choose(word == 0, content, damage);
}

/* As far as it is seen here: of content no more than the shortest of these slots has. */
HMM_RACY static inline uint64_t short_damage_before(const void *ptr)
{
    const seal_word *seal = seal_before((uintptr_t)ptr);
    uint64_t word = seal_load(seal);
    uint64_t content = word_at((const uint64_t *)ptr - 2) | word_at((const uint64_t *)ptr - 3);
    return before_damage(seal, word, content);
}

/* Whether a block of that room is live, all is right around it, and the claim is; its slack is less
 * than slack_bytes_end. If not, it is a matter for those who look closer. *word: its seal. */
static HMM_INLINE bool block_is_usual(const void *ptr, size_t room_bytes, size_t slack_bytes_end,
                                      const struct claim *claim, uint64_t *word)
{
    const seal_word *seal = seal_of(ptr, room_bytes);
    *word = seal_load(seal);
    /* If the seal is right, and says what is usual, this is the slack and nothing else. */
    uint64_t answer = seal_answer(&hmm_settings.guard.key, seal, *word);
    uint64_t slack_bytes =
        rotate_left(answer ^ facts_make(0, ALIGNMENT_SHIFT_MIN, claim->origin), SLACK_BITS);
    if (UNLIKELY(slack_bytes >= slack_bytes_end) ||
        (claim->has_bytes && claim->bytes != room_bytes - SEAL_BYTES - slack_bytes)) {
        return false;
    }
    uint64_t damage = slack_join(seal, (size_t)slack_bytes);
    keep_apart(&damage);
    return LIKELY((damage | short_damage_before(ptr)) == 0);
}

/* A slot leaves the quarantine. Anything else than that it goes back to a slab of the thread's own
 * is for the slow path. */
static HMM_INLINE void held_slot_release(const struct guarded *guarded, struct slot *slot,
                                         struct granule *slab)
{
    if (UNLIKELY(slot->next != NULL)) {
        hmm_guard_release(slot);
        return;
    }
    if (UNLIKELY(granule_owner(slab) != guarded->self)) {
        hmm_thread_free_remote(hmm_thread.thread, slab, slot);
        return;
    }
    slot_link(slot, slab->free);
    slab->free = slot;
    if (UNLIKELY(--slab->need == 0)) {
        hmm_thread_slab_event(hmm_thread.thread, slab);
    }
}

/* The slot takes the place of another, which may be used again now. Which one that is nobody can
 * guess who does not know all seals of what was freed before. */
static HMM_INLINE void short_hold(struct guarded *guarded, struct slot *slot, struct granule *slab,
                                  uint64_t seal)
{
    struct quarantine *quarantine = &guarded->quarantine;
    size_t index = (quarantine->random_state >> (MARK_BITS - CHAR_BIT)) % QUARANTINE_COUNT;
    /* For the next one: this seal may still be on its way from memory. A sum alone would find the
     * same places again where a block is freed again and again whose seal is near a simple fraction
     * of what the state can be. */
    quarantine->random_state = quarantine->random_state * 5 + seal;
    struct held_slot *held = &quarantine->slots[index];
    struct held_slot old = *held;
    *held = (struct held_slot){slot, slab};
    atomic_signal_fence(memory_order_seq_cst); /* a forked child finds no slot in both places */
    if (LIKELY(old.slot != NULL)) {
        held_slot_release(guarded, old.slot, old.slab);
    }
}

/* false: nothing has happened, and it is a matter for hmm_guard_free, if the arena
 * covers the pointer. */
static HMM_INLINE bool guard_free_short(void *ptr, const struct claim *claim)
{
    if (UNLIKELY(!arena_covers(ptr)) || claim->alignment != 0) {
        return false;
    }
    struct granule *slab = granule_of(ptr);
    if (UNLIKELY(!slab_is_slot(slab, ptr))) { /* or no slab at all */
        return false;
    }
    uint32_t room_bytes = slab->slot_bytes;
    if (UNLIKELY(room_bytes - SHORT_ROOM_BYTES_MIN >= hmm_thread.short_room_span_bytes)) {
        return false;
    }
    uint64_t word;
    if (UNLIKELY(!block_is_usual(ptr, room_bytes, SHORT_SLACK_BYTES, claim, &word))) {
        return false;
    }
    *(word_pair *)ptr = (word_pair){0, 0};
    pairs_clear_short((char *)ptr + PAIR_BYTES, room_bytes - PAIR_BYTES);
    if (HMM_SECURE || LIKELY(hmm_settings.guard.quarantine_block_bytes != 0)) {
        short_hold(hmm_thread.guarded, ptr, slab, word);
    } else {
        held_slot_release(hmm_thread.guarded, ptr, slab);
    }
    return true;
}

#endif
