/*
 * guard_block.h - what the guard's rooms share: a block with its seal, and what it is accused of.
 * For the files of the guard only. The picture, and G1-G4, are in guard.h.
 */
#ifndef HMM_GUARD_BLOCK_H
#define HMM_GUARD_BLOCK_H

#include "arena.h"
#include "guard.h"
#include "sites.h"
#include "words.h"

enum {
    SITES_BYTES = 2 * sizeof(uint32_t),
    GUARD_FIRST_SLOT = 1, /* G3 */
    /* Whatever is asked for leaves less than this of a slot of two units. */
    SHORT_SLACK_BYTES = 2 * SLOT_UNIT_BYTES - SEAL_BYTES,
    MIDDLE_ROOM_BYTES_MAX = 1024, /* so large slots are cleared without a call */
};

static_assert(SMALL_BYTES_MAX <= 1 << SLACK_BITS, "no slot has more slack than a seal can say");

/* Read by threads that free the next block. */
typedef _Atomic uint64_t seal_word;

/* Site words lie before the seal. While the block is live the second one shows that the first is
 * as it was. */
struct sites {
    uint32_t allocated;
    uint32_t freed_or_check;
};

/* What a block says about itself. */
struct sealed {
    uintptr_t start;
    seal_word *seal;
    size_t request_bytes;
    uint64_t facts;
};

/* --------------------------------------------------------------------------------------- crimes */

/* The evidence is what the pointer's slot can give, or its medium block; seal: NULL if it
 * is not known. */
HMM_HIDDEN HMM_NORETURN void hmm_guard_accuse(const char *call, const void *ptr, const char *what,
                                              seal_word *seal);
HMM_HIDDEN HMM_NORETURN void hmm_guard_accuse_byte(const char *call, const void *ptr,
                                                   const char *what, seal_word *seal,
                                                   const void *byte);

/* Of a block whose seal is not right. */
HMM_HIDDEN HMM_NORETURN void hmm_guard_accuse_seal(const char *call, const char *what_if_free,
                                                   const void *ptr, seal_word *seal);

/* Of one whose seal is right, and what is before it is not. */
HMM_HIDDEN HMM_NORETURN void hmm_guard_accuse_end(const char *call, const void *ptr,
                                                  seal_word *seal);

/* Ends the program if the call says anything about the block that is not so. seal: NULL if
 * it has none. */
HMM_HIDDEN void hmm_guard_check_claim(const struct claim *claim, const void *ptr,
                                      size_t request_bytes, enum origin origin,
                                      unsigned alignment_shift, seal_word *seal);

/* --------------------------------------------------------------------------------------- blocks */

HMM_HIDDEN void hmm_guard_seal_sites(seal_word *seal, uint32_t site);

/* release: whoever finds the seal, or 0, finds what goes with it; acquire in seal_load. Short slots
 * are cleared without it: who finds 0 before a slot, and behind that what is not 0 yet, looks again
 * before he accuses. */
static inline void seal_store(seal_word *seal, uint64_t word)
{
    atomic_store_explicit(seal, word, memory_order_release);
}

static inline uint64_t seal_load(const seal_word *seal)
{
    return atomic_load_explicit(seal, memory_order_acquire);
}

static inline seal_word *seal_of(const void *ptr, size_t room_bytes)
{
    return (seal_word *)((uintptr_t)ptr + room_bytes - SEAL_BYTES);
}

static inline struct sites *sites_of(seal_word *seal)
{
    return (struct sites *)((uintptr_t)seal - SITES_BYTES);
}

static inline uint32_t sites_check(seal_word *seal)
{
    uint64_t sum = (uintptr_t)seal ^ hmm_settings.guard.key.add ^ sites_of(seal)->allocated;
    return (uint32_t)(sum * hmm_settings.guard.key.multiply >> 32);
}

/* Who knows that blocks have no sites says so by the size of the trailer, and the compiler leaves
 * out the rest. */
static inline bool trailer_has_sites(size_t trailer_bytes)
{
    return trailer_bytes != SEAL_BYTES;
}

static inline void *block_seal(void *ptr, size_t room_bytes, size_t trailer_bytes,
                               size_t request_bytes, unsigned alignment_shift, enum origin origin)
{
    seal_word *seal = seal_of(ptr, room_bytes);
    size_t slack_bytes = room_bytes - trailer_bytes - request_bytes;
    ASSERT(slack_bytes >> SLACK_BITS == 0);
    if (trailer_has_sites(trailer_bytes)) {
        hmm_guard_seal_sites(seal, hmm_sites_capture());
    }
    seal_store(seal, seal_make(&hmm_settings.guard.key, seal,
                               facts_make(slack_bytes, alignment_shift, origin)));
    return ptr;
}

/* From the n-th byte on, so many of the last of SHORT_SLACK_BYTES are ones. */
extern HMM_HIDDEN const unsigned char hmm_guard_last_bytes[2 * SHORT_SLACK_BYTES];

/* Less than SHORT_SLACK_BYTES before a seal, joined: 0, or somebody wrote there. Nobody can foresee
 * how many they are, so there is no branch. */
HMM_RACY static inline uint64_t short_slack(const seal_word *seal, size_t slack_bytes)
{
    static_assert(SHORT_SLACK_BYTES == 3 * sizeof(uint64_t), "three words");
    const uint64_t *word = (const uint64_t *)seal - 3;
    const unsigned char *last = &hmm_guard_last_bytes[slack_bytes];
    return (word_at(word) & word_at(last)) |
           (word_at(word + 1) & word_at(last + sizeof(uint64_t))) |
           (word_at(word + 2) & word_at(last + 2 * sizeof(uint64_t)));
}

/* The same of any. */
static inline uint64_t slack_join(const seal_word *seal, size_t slack_bytes)
{
    const char *end = (const char *)seal;
    return LIKELY(slack_bytes < SHORT_SLACK_BYTES) ? short_slack(seal, slack_bytes)
                                                   : !bytes_are_zero(end - slack_bytes, end);
}

/* Whether all is right between what was asked for and the seal. */
static inline bool block_end_is_right(seal_word *seal, uint64_t word, size_t trailer_bytes)
{
    if (!trailer_has_sites(trailer_bytes)) {
        return slack_join(seal, facts_slack(word)) == 0;
    }
    const char *trailer = (const char *)seal + SEAL_BYTES - trailer_bytes;
    return first_nonzero(trailer - facts_slack(word), trailer) == NULL &&
           sites_of(seal)->freed_or_check == sites_check(seal);
}

/* Reads a live block's seal, and its slack; or says what is wrong. */
static HMM_INLINE struct sealed block_open(const char *call, const char *what_if_free, void *ptr,
                                           size_t room_bytes, size_t trailer_bytes)
{
    seal_word *seal = seal_of(ptr, room_bytes);
    uint64_t word = seal_load(seal);
    if (UNLIKELY(!seal_is_right(&hmm_settings.guard.key, seal, word))) {
        hmm_guard_accuse_seal(call, what_if_free, ptr, seal);
    }
    if (UNLIKELY(!block_end_is_right(seal, word, trailer_bytes))) {
        hmm_guard_accuse_end(call, ptr, seal);
    }
    return (struct sealed){
        .start = (uintptr_t)ptr,
        .seal = seal,
        .request_bytes = room_bytes - trailer_bytes - facts_slack(word),
        .facts = seal_facts(word),
    };
}

/* A block that is freed: its content and its seal become 0, so that nothing of it is
 * left to read. */
static inline void block_clear(const struct sealed *block, size_t room_bytes, size_t trailer_bytes)
{
    memset((void *)block->start, 0, room_bytes - trailer_bytes);
    if (trailer_has_sites(trailer_bytes)) {
        sites_of(block->seal)->freed_or_check = hmm_sites_capture();
    }
    seal_store(block->seal, 0);
}

/* Whether the call says nothing about the block that is not so, as far as it need not
 * be looked up. */
static inline bool claim_is_right(const struct claim *claim, const struct sealed *block)
{
    return facts_origin(block->facts) == claim->origin && claim->alignment == 0 &&
           (!claim->has_bytes || claim->bytes == block->request_bytes);
}

static inline void block_check_claim(const struct claim *claim, const struct sealed *block)
{
    if (UNLIKELY(!claim_is_right(claim, block))) {
        hmm_guard_check_claim(claim, (void *)block->start, block->request_bytes,
                              facts_origin(block->facts), facts_alignment_shift(block->facts),
                              block->seal);
    }
}

#endif
