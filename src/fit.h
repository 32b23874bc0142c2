/*
 * fit.h - the index of free blocks, and the four ways to choose one.
 *
 * fit=good keeps two-level segregated bins (Masmano, Ripoll, Crespo, Real: "TLSF", ECRTS 2004).
 * Sizes below FIT_LINEAR_BYTES have a bin each; above, each power of two is a row of
 * FIT_BINS_PER_ROW bins of equal width. A bit set says which bins hold blocks, so the smallest bin
 * in which every block fits is found by two bit scans. Before it is asked, up to FIT_PROBE_COUNT
 * blocks of the request's own bin are looked at, because the first that fits there is a closer fit.
 *
 * fit=first, next and best keep one doubly linked list, in the order of addresses or, for best, of
 * sizes. They differ in where a search starts, and in nothing else. The cursor is the node last
 * inserted or its neighbour: the place of the next one is looked for from there.
 *
 * F1  Every free block of the heap is in the index once, and nothing else is.
 * F2  next and prev of neighbours in a list name each other; the ends hold NULL.
 * F3  A bin holds the sizes that fit_bin gives it; a bit is set where its bin holds a block.
 * F4  A list is in strictly rising order of address (first, next) or of size, then address (best).
 */
#ifndef HMM_FIT_H
#define HMM_FIT_H

#include "block.h"
#include "hmm.h"

/* Measured with bench/policies.c, smallest array over most live bytes: 8 bins a row need 1 % more
 * memory on random sizes than 16; 32 need 2 % less where buffers grow among small blocks and 1 %
 * more where sizes come in phases, for twice the header (680 bytes for a 4 KiB array). One, four or
 * sixteen probes differ by less than two seeds of one workload do, in time and in memory; four keep
 * a nearly full heap from missing a fit that is there. */
enum {
    FIT_BINS_SHIFT = 4,
    FIT_BINS_PER_ROW = 1 << FIT_BINS_SHIFT,
    FIT_LINEAR_BYTES = FIT_BINS_PER_ROW * BLOCK_UNIT_BYTES,
    FIT_LINEAR_SHIFT = FIT_BINS_SHIFT + (sizeof(uintptr_t) == 8 ? 4 : 3),
    FIT_PROBE_COUNT = 4,
};

typedef uint32_t fit_row_bits; /* one bit a bin of a row */

static_assert(FIT_LINEAR_BYTES == 1 << FIT_LINEAR_SHIFT, "its binary logarithm");
static_assert(FIT_BINS_PER_ROW <= sizeof(fit_row_bits) * CHAR_BIT, "a bit for each bin");

struct fit {
    HmmFit policy; /* immutable after init */
    /* good: */
    unsigned row_count;
    size_t rows_filled;        /* bit r: row r holds a block */
    fit_row_bits *bins_filled; /* by row; bit b: its bin b holds a block */
    struct block **bins;       /* row after row, the first of each bin's list, NULL: empty */
    /* first, next, best: */
    struct block *head;
    struct block *tail;
    struct block *cursor; /* any node of the list, NULL: the list is empty */
    struct block *rover;  /* next: where the last search ended, NULL: at the head */
    /* all: */
    size_t count;
    /* Links outside [low, high) are wild: somebody wrote into a freed block. A search that meets
     * one ends at the block that holds it, whose verification then says so. A low of 0: links are
     * not looked at. */
    uintptr_t low;
    uintptr_t high;
    const struct region
        *regions; /* what lies in [low, high), where that is more than one; else NULL */
};

static inline bool fit_is_segregated(const struct fit *fit)
{
    return fit->policy == HMM_FIT_GOOD;
}

/* The number of a size's bin. Above the linear sizes the bits after the highest one say which bin
 * of the row it is; that highest one, left standing, makes up for the linear row. */
static inline unsigned fit_bin(size_t bytes)
{
    if (bytes < FIT_LINEAR_BYTES) {
        return (unsigned)(bytes / BLOCK_UNIT_BYTES);
    }
    unsigned high = bit_highest(bytes);
    unsigned row_before = high - FIT_LINEAR_SHIFT;
    return (row_before << FIT_BINS_SHIFT) + (unsigned)(bytes >> (high - FIT_BINS_SHIFT));
}

static inline unsigned fit_row_of(unsigned bin)
{
    return bin >> FIT_BINS_SHIFT;
}

static inline unsigned fit_bit_of(unsigned bin)
{
    return bin & (FIT_BINS_PER_ROW - 1);
}

/* How many rows blocks of up to `bytes` need, and how much memory those take. */
static inline unsigned fit_row_count(size_t bytes)
{
    return fit_row_of(fit_bin(bytes)) + 1;
}

static inline size_t fit_rows_bytes(unsigned row_count)
{
    const size_t row_bytes = FIT_BINS_PER_ROW * sizeof(struct block *) + sizeof(fit_row_bits);
    return align_up(row_count * row_bytes, BLOCK_UNIT_BYTES);
}

/* Lays empty rows into `memory`, or moves what the index holds into more rows. */
static inline void fit_set_rows(struct fit *fit, void *memory, unsigned row_count)
{
    struct block **bins = memory;
    fit_row_bits *bins_filled = (fit_row_bits *)(bins + (size_t)row_count * FIT_BINS_PER_ROW);
    memset(memory, 0, fit_rows_bytes(row_count));
    for (unsigned row = 0; row < fit->row_count; row++) {
        bins_filled[row] = fit->bins_filled[row];
    }
    for (unsigned bin = 0; bin < fit->row_count * FIT_BINS_PER_ROW; bin++) {
        bins[bin] = fit->bins[bin];
    }
    fit->bins = bins;
    fit->bins_filled = bins_filled;
    fit->row_count = row_count;
}

static inline unsigned fit_bin_count(const struct fit *fit)
{
    return fit->row_count * FIT_BINS_PER_ROW;
}

/* Whether one of the regions has room for a free block at the address. */
static inline bool fit_is_in_region(const struct fit *fit, uintptr_t address)
{
    const struct region *region = fit->regions;
    while (region != NULL &&
           !(address >= region->first && address < region->brk - BLOCK_BYTES_MIN)) {
        region = region->next;
    }
    return region != NULL;
}

/* Whether a link leads to where blocks are. */
static inline bool fit_is_link(const struct fit *fit, const struct block *link)
{
    uintptr_t address = block_address(link);
    return address >= fit->low && address < fit->high &&
           is_aligned(address + BLOCK_TAG_BYTES, BLOCK_UNIT_BYTES) &&
           (LIKELY(fit->regions == NULL) || fit_is_in_region(fit, address));
}

/* Whether a link can be followed, or ends the list. */
static inline bool fit_can_follow(const struct fit *fit, const struct block *link)
{
    return fit->low == 0 || link == NULL || fit_is_link(fit, link);
}

static inline bool fit_has_good_next(const struct fit *fit, const struct block *block)
{
    return fit_can_follow(fit, block->next);
}

/* ------------------------------------------------------------------------------ segregated bins */

static inline void fit_bin_insert(struct fit *fit, struct block *block)
{
    unsigned bin = fit_bin(block_bytes(block));
    struct block *next = fit->bins[bin];
    block->prev = NULL;
    block->next = next;
    fit->bins[bin] = block;
    if (next != NULL) {
        next->prev = block;
    }
    fit->bins_filled[fit_row_of(bin)] |= (fit_row_bits)1 << fit_bit_of(bin);
    fit->rows_filled |= (size_t)1 << fit_row_of(bin);
}

static inline void fit_bin_remove(struct fit *fit, struct block *block, size_t bytes)
{
    struct block *next = block->next;
    if (next != NULL) {
        next->prev = block->prev;
    }
    if (block->prev != NULL) {
        block->prev->next = next;
        return;
    }
    unsigned bin = fit_bin(bytes);
    fit->bins[bin] = next;
    if (next == NULL) {
        fit_row_bits *filled = &fit->bins_filled[fit_row_of(bin)];
        *filled &= ~((fit_row_bits)1 << fit_bit_of(bin));
        if (*filled == 0) {
            fit->rows_filled &= ~((size_t)1 << fit_row_of(bin));
        }
    }
}

/* The first filled bin after `bin`; fit_bin_count: there is none. */
static inline unsigned fit_bin_above(const struct fit *fit, unsigned bin)
{
    unsigned row = fit_row_of(bin);
    fit_row_bits filled = fit->bins_filled[row] & ~(((fit_row_bits)2 << fit_bit_of(bin)) - 1);
    if (filled == 0) {
        size_t rows = fit->rows_filled & ~(((size_t)2 << row) - 1);
        if (rows == 0) {
            return fit_bin_count(fit);
        }
        row = bit_lowest(rows);
        filled = fit->bins_filled[row];
    }
    return (row << FIT_BINS_SHIFT) + bit_lowest(filled);
}

static HMM_INLINE struct block *fit_bin_find(const struct fit *fit, size_t bytes)
{
    unsigned bin = fit_bin(bytes);
    if (bin >= fit_bin_count(fit)) {
        return NULL;
    }
    struct block *block = fit->bins[bin];
    for (int probes = 0; block != NULL && probes < FIT_PROBE_COUNT; probes++) {
        if (block_bytes(block) >= bytes || UNLIKELY(!fit_has_good_next(fit, block))) {
            return block;
        }
        block = block->next;
    }
    bin = fit_bin_above(fit, bin);
    return bin < fit_bin_count(fit) ? fit->bins[bin] : NULL;
}

/* The largest size that fit_bin_find would find: in the highest bin it sees only the first few. */
static inline size_t fit_bin_largest(const struct fit *fit)
{
    if (fit->rows_filled == 0) {
        return 0;
    }
    unsigned row = bit_highest(fit->rows_filled);
    unsigned bin = (row << FIT_BINS_SHIFT) + bit_highest(fit->bins_filled[row]);
    const struct block *block = fit->bins[bin];
    size_t largest_bytes = 0;
    for (int probes = 0; block != NULL && probes < FIT_PROBE_COUNT; probes++) {
        largest_bytes = size_max(largest_bytes, block_bytes(block));
        block = fit_has_good_next(fit, block) ? block->next : NULL;
    }
    return largest_bytes;
}

/* ------------------------------------------------------------------------------------- one list */

static inline bool fit_is_before(const struct fit *fit, const struct block *a,
                                 const struct block *b)
{
    if (fit->policy == HMM_FIT_BEST && block_bytes(a) != block_bytes(b)) {
        return block_bytes(a) < block_bytes(b);
    }
    return block_address(a) < block_address(b);
}

/* Where a block belongs: between two neighbours, either of which may be NULL. */
struct fit_place {
    struct block *before;
    struct block *after;
};

/* Looked for from the cursor on. Nobody has verified the links on the way, so each is held against
 * the bounds, and a ring is left after as many steps as there are blocks. Where they lead astray
 * the place is the head, which is nobody's word but the index's own: the list is out of order then,
 * and whoever verifies the damaged block says why. */
static inline struct fit_place fit_list_place(const struct fit *fit, const struct block *block)
{
    size_t steps_left = fit->count;
    struct block *before = fit->cursor;
    while (steps_left > 0 && before != NULL && fit_is_before(fit, block, before)) {
        before = before->prev;
        steps_left = fit_can_follow(fit, before) ? steps_left - 1 : 0;
    }
    struct block *after = before != NULL && steps_left > 0 ? before->next : fit->head;
    steps_left = fit_can_follow(fit, after) ? steps_left : 0;
    while (steps_left > 0 && after != NULL && fit_is_before(fit, after, block)) {
        before = after;
        after = after->next;
        steps_left = fit_can_follow(fit, after) ? steps_left - 1 : 0;
    }
    bool is_between = steps_left > 0 && (before == NULL ? fit->head : before->next) == after &&
                      (after == NULL ? fit->tail == before : after->prev == before);
    return is_between ? (struct fit_place){before, after} : (struct fit_place){NULL, fit->head};
}

static inline void fit_list_insert(struct fit *fit, struct block *block)
{
    struct fit_place place = fit_list_place(fit, block);
    block->prev = place.before;
    block->next = place.after;
    *(place.before != NULL ? &place.before->next : &fit->head) = block;
    *(place.after != NULL ? &place.after->prev : &fit->tail) = block;
    fit->cursor = block;
}

static inline void fit_list_remove(struct fit *fit, struct block *block)
{
    *(block->prev != NULL ? &block->prev->next : &fit->head) = block->next;
    *(block->next != NULL ? &block->next->prev : &fit->tail) = block->prev;
    if (fit->cursor == block) {
        fit->cursor = block->next != NULL ? block->next : block->prev;
    }
    if (fit->rover == block) {
        fit->rover = block->prev;
    }
}

/* How far into the block a new one must begin so that its payload is aligned: 0, or at least the
 * smallest block, which is then split off. Where can_align_up says that it can be. */
static inline size_t fit_lead_bytes(const struct block *block, size_t alignment)
{
    uintptr_t payload = (uintptr_t)block_payload(block);
    return is_aligned(payload, alignment)
               ? 0
               : align_up(payload + BLOCK_BYTES_MIN, alignment) - payload;
}

/* Whether a block of `bytes` has room there. */
static inline bool fit_can_place(const struct block *block, size_t room_bytes, size_t bytes,
                                 size_t alignment, size_t *lead_bytes)
{
    *lead_bytes = fit_lead_bytes(block, alignment);
    return (*lead_bytes == 0 ||
            can_align_up((uintptr_t)block_payload(block) + BLOCK_BYTES_MIN, alignment)) &&
           *lead_bytes <= room_bytes && bytes <= room_bytes - *lead_bytes;
}

static inline bool fit_can_serve(const struct block *block, size_t bytes, size_t alignment)
{
    size_t lead_bytes;
    return fit_can_place(block, block_bytes(block), bytes, alignment, &lead_bytes);
}

/* The first that can serve, or whose next link is wild, from `block` on and before `end`. A ring is
 * left after as many steps as there are blocks. */
static inline struct block *fit_list_look(const struct fit *fit, struct block *block,
                                          const struct block *end, size_t bytes, size_t alignment)
{
    size_t steps_left = fit->count;
    while (block != NULL && block != end && steps_left > 0 &&
           !fit_can_serve(block, bytes, alignment) && fit_has_good_next(fit, block)) {
        block = block->next;
        steps_left--;
    }
    return block != end && steps_left > 0 ? block : NULL;
}

/* From the head of the list, or from the rover and then round to it. */
static inline struct block *fit_list_find(struct fit *fit, size_t bytes, size_t alignment)
{
    struct block *start = fit->rover != NULL ? fit->rover : fit->head;
    struct block *block = fit_list_look(fit, start, NULL, bytes, alignment);
    if (block == NULL && start != fit->head) {
        block = fit_list_look(fit, fit->head, start, bytes, alignment);
    }
    fit->rover = fit->policy == HMM_FIT_NEXT ? block : NULL;
    return block;
}

static inline size_t fit_list_largest(const struct fit *fit)
{
    if (fit->policy == HMM_FIT_BEST) {
        return fit->tail != NULL ? block_bytes(fit->tail) : 0;
    }
    size_t largest_bytes = 0;
    size_t steps_left = fit->count;
    const struct block *block = fit->head;
    while (block != NULL && steps_left > 0) {
        largest_bytes = size_max(largest_bytes, block_bytes(block));
        block = fit_has_good_next(fit, block) ? block->next : NULL;
        steps_left--;
    }
    return largest_bytes;
}

/* --------------------------------------------------------------------------------------- either */

static inline void fit_insert(struct fit *fit, struct block *block)
{
    fit->count++;
    if (fit_is_segregated(fit)) {
        fit_bin_insert(fit, block);
    } else {
        fit_list_insert(fit, block);
    }
}

/* The block may have been given another tag since it was inserted with `bytes`. */
static inline void fit_remove(struct fit *fit, struct block *block, size_t bytes)
{
    fit->count--;
    if (fit_is_segregated(fit)) {
        fit_bin_remove(fit, block, bytes);
    } else {
        fit_list_remove(fit, block);
    }
}

/* Whether `block` may stand where `old`, of `old_bytes`, stands now. */
static inline bool fit_can_inherit(const struct fit *fit, const struct block *old, size_t old_bytes,
                                   const struct block *block)
{
    if (fit_is_segregated(fit)) {
        return fit_bin(block_bytes(block)) == fit_bin(old_bytes);
    }
    return (old->prev == NULL || fit_is_before(fit, old->prev, block)) &&
           (old->next == NULL || fit_is_before(fit, block, old->next));
}

/* Removes `old` and inserts `block`, which overlaps it or begins where it ended: a block that was
 * split, or grew. Mostly the new one can take over the old one's place, without a search. */
static inline void fit_replace(struct fit *fit, struct block *old, size_t old_bytes,
                               struct block *block)
{
    if (!fit_can_inherit(fit, old, old_bytes, block)) {
        fit_remove(fit, old, old_bytes);
        fit_insert(fit, block);
        return;
    }
    struct block *next = old->next;
    struct block *prev = old->prev;
    block->next = next;
    block->prev = prev;
    if (next != NULL) {
        next->prev = block;
    }
    if (prev != NULL) {
        prev->next = block;
    }
    if (fit_is_segregated(fit)) {
        if (prev == NULL) {
            fit->bins[fit_bin(old_bytes)] = block;
        }
        return;
    }
    fit->head = prev == NULL ? block : fit->head;
    fit->tail = next == NULL ? block : fit->tail;
    fit->cursor = block;
    fit->rover = fit->rover == old ? block : fit->rover;
}

/* Where the index says that a block is the first of its list. */
static inline struct block *fit_list_head(const struct fit *fit, const struct block *block)
{
    if (!fit_is_segregated(fit)) {
        return fit->head;
    }
    unsigned bin = fit_bin(block_bytes(block));
    return bin < fit_bin_count(fit) ? fit->bins[bin] : NULL;
}

/* A free block of at least `bytes`; NULL: none that the policy finds. */
static HMM_INLINE struct block *fit_find(struct fit *fit, size_t bytes)
{
    return fit_is_segregated(fit) ? fit_bin_find(fit, bytes)
                                  : fit_list_find(fit, bytes, BLOCK_UNIT_BYTES);
}

/* As fit_find, for an alignment above the unit. A bin that holds large enough blocks may hold none
 * that is well placed, so the first few of every bin are asked: bounded by the number of bins,
 * which no call changes. */
static inline struct block *fit_find_aligned(struct fit *fit, size_t bytes, size_t alignment)
{
    if (!fit_is_segregated(fit)) {
        return fit_list_find(fit, bytes, alignment);
    }
    unsigned bin = fit_bin(bytes);
    while (bin < fit_bin_count(fit)) {
        struct block *block = fit->bins[bin];
        for (int probes = 0; block != NULL && probes < FIT_PROBE_COUNT; probes++) {
            if (fit_can_serve(block, bytes, alignment) || !fit_has_good_next(fit, block)) {
                return block;
            }
            block = block->next;
        }
        bin = fit_bin_above(fit, bin);
    }
    return NULL;
}

/* Whichever of the two the alignment asks for. */
static HMM_INLINE struct block *fit_search(struct fit *fit, size_t bytes, size_t alignment)
{
    return alignment <= BLOCK_UNIT_BYTES ? fit_find(fit, bytes)
                                         : fit_find_aligned(fit, bytes, alignment);
}

static inline size_t fit_largest(const struct fit *fit)
{
    return fit_is_segregated(fit) ? fit_bin_largest(fit) : fit_list_largest(fit);
}

#endif
