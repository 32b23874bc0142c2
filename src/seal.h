/*
 * seal.h - a word that nobody can guess, and what it says: arithmetic, without memory of its own.
 *
 *     [ slack : 13 | alignment : 4 | origin : 2 | unused : 5 | mark : 40 ]
 *
 * The facts are what must be known of a block when it comes back: how much of its room was not
 * asked for, its alignment, and which call made it. The mark is the top of a product of the facts
 * and the seal's address with a secret, because the top bits of a product depend on all of its
 * factors. It is in the bytes that an overflow reaches first.
 *
 * Where seals lie, and who may read or write them when, is for others to say: guard_block.h. It
 * knows the language and nothing else, so it also builds freestanding.
 */
#ifndef HMM_SEAL_H
#define HMM_SEAL_H

#include "check.h"

enum {
    SEAL_BYTES = sizeof(uint64_t),
    MARK_BYTES = 5,
    MARK_BITS = MARK_BYTES * CHAR_BIT,
    ORIGIN_BITS = 2,
    ALIGNMENT_BITS = 4,
    SLACK_BITS = 13,
    SLACK_SHIFT = 64 - SLACK_BITS,
    ALIGNMENT_SHIFT = SLACK_SHIFT - ALIGNMENT_BITS,
    ORIGIN_SHIFT = ALIGNMENT_SHIFT - ORIGIN_BITS,
    /* Each is a power of two, at least one unit. */
    ALIGNMENT_SHIFT_MIN = 4,
};

static_assert(ORIGIN_SHIFT >= MARK_BITS, "a seal is one word");

#define MARK_MASK (((uint64_t)1 << MARK_BITS) - 1)

/* The call that made a block; the one that frees it must match. */
enum origin { ORIGIN_MALLOC, ORIGIN_NEW, ORIGIN_NEW_ARRAY };

/* Of two that differ: whether one of them is malloc. */
static inline bool is_between_malloc_and_new(enum origin one, enum origin other)
{
    return one == ORIGIN_MALLOC || other == ORIGIN_MALLOC;
}

/* What a call says about a block besides its address; 0: nothing. */
struct claim {
    const char *call;
    size_t bytes;
    size_t alignment;
    uint32_t site; /* where it comes from (sites.h); only block heaps are told */
    enum origin origin;
    bool has_bytes;
    bool is_excused; /* the block may be malloc's as well as new's, of another size and alignment */
    bool is_waived;  /* nothing of all that counts */
};

struct seal_key {
    uint64_t add;
    uint64_t multiply; /* odd */
};

static inline uint64_t seal_make(const struct seal_key *key, const void *seal, uint64_t facts)
{
    uint64_t product = ((uint64_t)(uintptr_t)seal ^ key->add ^ facts) * key->multiply;
    return facts | product >> (64 - MARK_BITS);
}

static inline uint64_t seal_facts(uint64_t word)
{
    return word & ~MARK_MASK;
}

/* Of a word that was read there. */
static inline bool seal_is_right(const struct seal_key *key, const void *seal, uint64_t word)
{
    return seal_make(key, seal, seal_facts(word)) == word;
}

static inline unsigned seal_alignment_shift(size_t alignment)
{
    return (unsigned)size_max(bit_highest(alignment), ALIGNMENT_SHIFT_MIN);
}

static inline uint64_t facts_make(size_t slack_bytes, unsigned alignment_shift, enum origin origin)
{
    return (uint64_t)slack_bytes << SLACK_SHIFT |
           (uint64_t)(alignment_shift - ALIGNMENT_SHIFT_MIN) << ALIGNMENT_SHIFT |
           (uint64_t)origin << ORIGIN_SHIFT;
}

static inline size_t facts_slack(uint64_t word)
{
    return (size_t)(word >> SLACK_SHIFT);
}

static inline unsigned facts_alignment_shift(uint64_t word)
{
    return ALIGNMENT_SHIFT_MIN + (word >> ALIGNMENT_SHIFT & ((1u << ALIGNMENT_BITS) - 1));
}

static inline enum origin facts_origin(uint64_t word)
{
    return (enum origin)(word >> ORIGIN_SHIFT & ((1u << ORIGIN_BITS) - 1));
}

/* What is known of a block. */
struct block_facts {
    size_t request_bytes;
    enum origin origin;
    unsigned alignment_shift;
    unsigned alignment_shift_max; /* what is above counts as this */
};

/* Whether all that the claim says of a block is so. If not, *crime is what is wrong with it; where
 * it lies is for the caller to add. */
HMM_HIDDEN bool hmm_seal_verify_claim(const struct claim *claim, const struct block_facts *facts,
                                      struct crime *crime);

/* Of a word that was read there, is neither right nor 0, and was one of them: where the first byte
 * is that is not as it was. What fewer bytes differ from is what it was; where all is lost, the
 * first byte is. */
HMM_HIDDEN const void *hmm_seal_damage(const struct seal_key *key, const void *seal, uint64_t word);

/* The same where the damage came from behind the seal: it reaches the facts first. */
HMM_HIDDEN const void *hmm_seal_damage_from_behind(const struct seal_key *key, const void *seal,
                                                   uint64_t word);

/* The same where it came from before: whether the facts of a damaged seal can still be believed,
 * because what is left of the mark agrees with them. */
HMM_HIDDEN bool hmm_seal_facts_are_telling(const struct seal_key *key, const void *seal,
                                           uint64_t word);

#endif
