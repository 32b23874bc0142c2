/*
 * block.h - the tag: one word before each payload, and what it says.
 *
 *        used                              free
 *        +-----------------------+         +-----------------------+  <- struct block
 *        | tag                   |         | tag                   |
 *        +-----------------------+ payload +-----------------------+  <- at BLOCK_UNIT_BYTES
 *        | the caller's          |         | next                  |
 *        |                       |         | prev                  |
 *        |                       |         | ...                   |
 *        |                       |         | size, repeated        |
 *        +-----------------------+         +-----------------------+
 *        | tag of the next block |         | tag, "before is free" |
 *
 * The word is   [ checksum : 16 | size in bytes : 44 | flags : 4 ]   on 64-bit and
 *               [               | size in bytes : 29 | flags : 3 ]   on 32-bit.
 *
 * The checksum is keyed by the tag's address and the heap's secret: an overwritten tag, a tag
 * copied elsewhere, and a payload taken for a tag all fail it, but for one in 65,536. It is there
 * on 64-bit only.
 *
 * B1  A size is a multiple of BLOCK_UNIT_BYTES and at least BLOCK_BYTES_MIN, but
 *     for the sentinel's.
 * B2  A free block repeats its size in its last word; a used block gives that word to its payload.
 * B3  Where a block is free, the next one's tag says "before is free"; nowhere else.
 * B4  No two neighbours are both free.
 * B5  Blocks tile a region from its first tag to the sentinel, a used block of size 0 whose tag is
 *     the last word below the break.
 * B6  A gap, memory of others inside a region, is a used block that is never freed.
 * B7  A tag that a merge swallowed says "free" for as long as its word is not overwritten, so a
 *     second free of that block is seen.
 *
 * Nobody else masks the word.
 */
#ifndef HMM_BLOCK_H
#define HMM_BLOCK_H

#include "base.h"
#include "region.h"

enum {
    BLOCK_UNIT_BYTES = REGION_ALIGN_BYTES,
    BLOCK_TAG_BYTES = sizeof(uintptr_t),
    BLOCK_BYTES_MIN = 2 * BLOCK_UNIT_BYTES, /* tag, next, prev, size repeated */
};

enum block_flag {
    BLOCK_IS_FREE = 1,
    BLOCK_IS_PREV_FREE = 2,
    BLOCK_IS_GAP = 4,
    BLOCK_FLAGS = 7,
};

struct block {
    uintptr_t tag;
    struct block *next; /* free blocks only, as is prev: links of the free index */
    struct block *prev;
};

static_assert(sizeof(struct block) + sizeof(uintptr_t) == BLOCK_BYTES_MIN, "smallest block");
static_assert(offsetof(struct block, next) == BLOCK_TAG_BYTES, "payload follows the tag");

/* The secret of one heap's checksums. */
struct block_key {
    uint64_t add;
    uint64_t multiply; /* odd */
};

#if UINTPTR_MAX > UINT32_MAX

/* A fuzzer, whose blocks are small, leaves less to chance with fewer bits for the size. */
#ifndef BLOCK_CHECKSUM_SHIFT
#define BLOCK_CHECKSUM_SHIFT 48
#endif

enum { CHECKSUM_SHIFT = BLOCK_CHECKSUM_SHIFT };

/* Larger blocks cannot be written down. */
#define BLOCK_BYTES_MAX      (((size_t)1 << CHECKSUM_SHIFT) - BLOCK_UNIT_BYTES)
#define BLOCK_FREE_BYTES_MAX BLOCK_BYTES_MAX

enum {
    BLOCK_HAS_CHECKSUM = 1,
    BLOCK_ROTATION = 17, /* spreads an address over bits that a size does not fill */
};

/* Its top bits are the checksum, because the top bits of a product depend on all of its factor. */
static inline uint64_t tag_mix(const struct block_key *key, const struct block *block,
                               uintptr_t word)
{
    return (word ^ rotate_left((uintptr_t)block, BLOCK_ROTATION) ^ key->add) * key->multiply;
}

static inline uintptr_t tag_seal(const struct block_key *key, const struct block *block,
                                 uintptr_t word)
{
    return word | tag_mix(key, block, word) >> CHECKSUM_SHIFT << CHECKSUM_SHIFT;
}

static inline uintptr_t tag_word(uintptr_t tag)
{
    return tag & (((uintptr_t)1 << CHECKSUM_SHIFT) - 1);
}

/* Whether the tag is one that this heap wrote in this place. */
static inline bool tag_is_sealed(const struct block_key *key, const struct block *block,
                                 uintptr_t tag)
{
    return (tag_mix(key, block, tag_word(tag)) ^ tag) >> CHECKSUM_SHIFT == 0;
}

#else

#define BLOCK_BYTES_MAX      (OBJECT_BYTES_MAX - BLOCK_UNIT_BYTES + 1)
/* Free neighbours can merge into more than one object may be. */
#define BLOCK_FREE_BYTES_MAX (SIZE_MAX - BLOCK_UNIT_BYTES + 1)

enum { BLOCK_HAS_CHECKSUM = 0 };

static inline uintptr_t tag_seal(const struct block_key *key, const struct block *block,
                                 uintptr_t word)
{
    (void)key;
    (void)block;
    return word;
}

static inline uintptr_t tag_word(uintptr_t tag)
{
    return tag;
}

/* Without a checksum: whether the size could be one. */
static inline bool tag_is_sealed(const struct block_key *key, const struct block *block,
                                 uintptr_t tag)
{
    size_t bytes = tag & ~(uintptr_t)BLOCK_FLAGS;
    (void)key;
    return bytes == 0 || (bytes >= BLOCK_BYTES_MIN && bytes <= UINTPTR_MAX - (uintptr_t)block);
}

#endif

static inline bool block_is_sealed(const struct block_key *key, const struct block *block)
{
    return tag_is_sealed(key, block, block->tag);
}

static inline size_t tag_bytes(uintptr_t tag)
{
    return tag_word(tag) & ~(uintptr_t)BLOCK_FLAGS;
}

static inline size_t block_bytes(const struct block *block)
{
    return tag_bytes(block->tag);
}

static inline bool block_is_free(const struct block *block)
{
    return (block->tag & BLOCK_IS_FREE) != 0;
}

static inline bool block_is_prev_free(const struct block *block)
{
    return (block->tag & BLOCK_IS_PREV_FREE) != 0;
}

static inline bool block_is_gap(const struct block *block)
{
    return (block->tag & BLOCK_IS_GAP) != 0;
}

static inline bool block_is_sentinel(const struct block *block)
{
    return block_bytes(block) == 0;
}

static inline void block_write(const struct block_key *key, struct block *block, size_t bytes,
                               unsigned flags)
{
    block->tag = tag_seal(key, block, bytes | flags);
}

/* Same size, other flags. */
static inline void block_set_flags(const struct block_key *key, struct block *block,
                                   unsigned set_flags, unsigned clear_flags)
{
    uintptr_t word = tag_word(block->tag);
    block->tag = tag_seal(key, block, (word | set_flags) & ~(uintptr_t)clear_flags);
}

static inline struct block *block_at(uintptr_t address)
{
    return (struct block *)address;
}

static inline uintptr_t block_address(const struct block *block)
{
    return (uintptr_t)block;
}

static inline struct block *block_after(const struct block *block, size_t bytes)
{
    return block_at(block_address(block) + bytes);
}

static inline struct block *block_next(const struct block *block)
{
    return block_after(block, block_bytes(block));
}

/* What a used block has room for where it is: its bytes, and those of the free one behind it. */
static inline size_t block_room_bytes(const struct block *block)
{
    const struct block *next = block_next(block);
    return block_bytes(block) + (block_is_free(next) ? block_bytes(next) : 0);
}

static inline void *block_payload(const struct block *block)
{
    return (void *)(block_address(block) + BLOCK_TAG_BYTES);
}

static inline struct block *block_of(const void *payload)
{
    return block_at((uintptr_t)payload - BLOCK_TAG_BYTES);
}

static inline size_t block_usable_bytes(const struct block *block)
{
    return block_bytes(block) - BLOCK_TAG_BYTES;
}

/* The word in which a free block of `bytes` repeats its size. */
static inline uintptr_t *block_footer(const struct block *block, size_t bytes)
{
    return (uintptr_t *)(block_address(block) + bytes - sizeof(uintptr_t));
}

/* The size of the free block before this one, as that block's last word has it. */
static inline size_t block_prev_bytes(const struct block *block)
{
    return *(const uintptr_t *)(block_address(block) - sizeof(uintptr_t));
}

static inline struct block *block_before(const struct block *block, size_t bytes)
{
    return block_at(block_address(block) - bytes);
}

/* Whether the block can be one and ends at `end` or below. */
static inline bool block_is_within(const struct block *block, uintptr_t end)
{
    size_t bytes = block_bytes(block);
    return block_address(block) < end && bytes >= BLOCK_BYTES_MIN &&
           bytes <= end - block_address(block);
}

/* The block that serves a request, 0 where none can be large enough. */
static inline size_t block_bytes_for(size_t request_bytes)
{
    if (request_bytes > BLOCK_BYTES_MAX - BLOCK_TAG_BYTES - BLOCK_UNIT_BYTES) {
        return 0;
    }
    size_t bytes = align_up(request_bytes + BLOCK_TAG_BYTES, BLOCK_UNIT_BYTES);
    return size_max(bytes, BLOCK_BYTES_MIN);
}

#endif
