/*
 * shelf.h - freed blocks of a shard that are not merged with their neighbours yet. For the
 * medium rooms only.
 *
 * Most programs ask soon for a size that they have just freed. To merge such a block and to cut it
 * out again touches the tags, footers and links of six others, which are mostly in no cache; to lay
 * it aside and to take it back touches its own tag. Blocks are rounded to sizes that the shelf has
 * a list for, so any block of a list serves any request for it.
 *
 * K1  To its neighbours a block on the shelf is a used one; it is marked as a gap, so that a second
 *     free of it is seen. It is on the list of shelf_index, once, and nothing else is. Its link is
 *     sealed, because a list that a write after free cuts short would never become empty.
 * K2  bytes and count agree with the lists. Live bytes do not have these blocks in them.
 * K3  Whoever leaves the shard the long way leaves no more on the shelf than shelf_bytes_most, a
 *     share of what is live. So an empty shard has an empty shelf.
 * K4  No memory that is not dirty is touched, no zone taken, and no request refused, while
 *     something is on the shelf.
 */
#ifndef HMM_SHELF_H
#define HMM_SHELF_H

#include "fit.h"
#include "medium.h"

/* docs/experiments.md has the share and the most of it. */
enum {
    SHELF_SHIFT_MIN = 13, /* smaller blocks are slots, but for threads that have no bins */
    SHELF_SHIFT_MAX = 18,
    SHELF_BIN_MIN = (SHELF_SHIFT_MIN - FIT_LINEAR_SHIFT + 1) << FIT_BINS_SHIFT,
    SHELF_LIST_COUNT = ((SHELF_SHIFT_MAX - SHELF_SHIFT_MIN) << FIT_BINS_SHIFT) + 1,
    SHELF_WORD_BITS = sizeof(size_t) * CHAR_BIT,
    SHELF_WORD_COUNT = (SHELF_LIST_COUNT + SHELF_WORD_BITS - 1) / SHELF_WORD_BITS,
    SHELF_WIDTH = 2, /* so many lists further on a block may lie that is handed out whole */
    SHELF_LIVE_SHARE = 4,
    SHELF_BYTES_MOST = 8 << 20,
};

static_assert(1 << SHELF_SHIFT_MAX >= MEDIUM_BYTES_MAX, "a list for every size");

struct shelf {
    /* 0: the shelf is not used, and blocks are not rounded; immutable once open */
    size_t bytes_most;
    size_t bytes; /* with tags */
    size_t count;
    unsigned hand;                   /* the next to go is on this list, or the first one after it */
    size_t filled[SHELF_WORD_COUNT]; /* bit i: list i holds a block */
    struct block *lists[SHELF_LIST_COUNT]; /* linked by next, the last one freed first */
};

/* A block's size, or a larger one, that fills its list: no other size is asked for. Sizes are one
 * unit above equal steps, so that a power of two with its tag is one. */
static inline size_t shelf_round(size_t block_bytes)
{
    const size_t rounded_bytes = block_bytes - BLOCK_UNIT_BYTES;
    if (rounded_bytes < (size_t)1 << SHELF_SHIFT_MIN || rounded_bytes > (size_t)1
                                                                            << SHELF_SHIFT_MAX) {
        return block_bytes;
    }
    size_t step_bytes = (size_t)1 << (bit_highest(rounded_bytes) - FIT_BINS_SHIFT);
    return align_up(rounded_bytes, step_bytes) + BLOCK_UNIT_BYTES;
}

/* The list of a block; of one that has none: SHELF_LIST_COUNT or more. */
static inline unsigned shelf_index(size_t block_bytes)
{
    return fit_bin(block_bytes - BLOCK_UNIT_BYTES) - SHELF_BIN_MIN;
}

static inline bool shelf_is_index(unsigned index)
{
    return index < SHELF_LIST_COUNT;
}

/* Others may be at work: a moment's opinion. */
HMM_RACY static inline size_t shelf_usable_bytes(const struct shelf *shelf)
{
    size_t bytes = shelf->bytes;
    return size_less(bytes, shelf->count * BLOCK_TAG_BYTES);
}

static inline size_t shelf_bytes_most(const struct shelf *shelf, size_t live_bytes)
{
    return size_min(live_bytes / SHELF_LIVE_SHARE, shelf->bytes_most);
}

/* What prev is of a block on the shelf. Where tags have no checksum there is no shelf. */
static inline struct block *shelf_link_seal(const struct block_key *key, const struct block *block)
{
#if UINTPTR_MAX > UINT32_MAX
    return block_at((uintptr_t)tag_mix(key, block, (uintptr_t)block->next));
#else
    (void)key;
    return block->prev;
#endif
}

static inline void shelf_push(struct shelf *shelf, const struct block_key *key, unsigned index,
                              struct block *block, size_t block_bytes)
{
    block->next = shelf->lists[index];
    block->prev = shelf_link_seal(key, block);
    shelf->lists[index] = block;
    shelf->filled[index / SHELF_WORD_BITS] |= (size_t)1 << index % SHELF_WORD_BITS;
    shelf->bytes += block_bytes;
    shelf->count++;
}

/* Takes the first block off its list. Its link has been verified. */
static inline void shelf_pop(struct shelf *shelf, unsigned index, size_t block_bytes)
{
    struct block *next = shelf->lists[index]->next;
    shelf->lists[index] = next;
    if (next == NULL) {
        shelf->filled[index / SHELF_WORD_BITS] &= ~((size_t)1 << index % SHELF_WORD_BITS);
    }
    shelf->bytes -= block_bytes;
    shelf->count--;
}

/* The first list from `index` on that holds a block; SHELF_LIST_COUNT or more: none does. */
static inline unsigned shelf_index_from(const struct shelf *shelf, unsigned index)
{
    if (!shelf_is_index(index)) {
        return index;
    }
    unsigned word = index / SHELF_WORD_BITS;
    size_t bits = shelf->filled[word] & (SIZE_MAX << index % SHELF_WORD_BITS);
    while (bits == 0 && ++word < SHELF_WORD_COUNT) {
        bits = shelf->filled[word];
    }
    return bits != 0 ? word * SHELF_WORD_BITS + bit_lowest(bits) : SHELF_LIST_COUNT;
}

/* The list whose turn it is, of a shelf that is not empty. */
static inline unsigned shelf_next_index(const struct shelf *shelf)
{
    unsigned word = shelf->hand / SHELF_WORD_BITS;
    size_t bits = shelf->filled[word] & (SIZE_MAX << shelf->hand % SHELF_WORD_BITS);
    while (bits == 0) {
        word = (word + 1) % SHELF_WORD_COUNT;
        bits = shelf->filled[word];
    }
    return word * SHELF_WORD_BITS + bit_lowest(bits);
}

#endif
