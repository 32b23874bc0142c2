/*
 * sizeclass.h - the sizes of slots.
 *
 * Steps of 16 bytes up to 256, then eight classes a doubling up to 8 KiB, and three for the common
 * sizes just above a power of two. A request wastes 5 % on average; four classes a doubling would
 * waste 10 %. From 2 KiB on a size is the largest of which so many fit a granule, so that no
 * granule has a tail that no slot uses. docs/experiments.md has the figures.
 *
 * A class is found in a table of one byte for each 16 bytes of request, and its size in another.
 * Both are constant, so they are right before anything ran.
 */
#ifndef HMM_SIZECLASS_H
#define HMM_SIZECLASS_H

#include "base.h"

enum {
    SLOT_UNIT_SHIFT = 4,
    SLOT_UNIT_BYTES = 1 << SLOT_UNIT_SHIFT,
    SMALL_BYTES_MAX = 8192,
    CLASS_COUNT = 59,
    CLASS_NONE = CLASS_COUNT,
    CLASS_TABLE_COUNT = SMALL_BYTES_MAX / SLOT_UNIT_BYTES + 1,
};

extern HMM_HIDDEN const uint8_t hmm_class_table[CLASS_TABLE_COUNT];
extern HMM_HIDDEN const uint16_t hmm_class_bytes[CLASS_COUNT];

/* Of a request of up to SMALL_BYTES_MAX. */
static inline unsigned class_of(size_t bytes)
{
    return hmm_class_table[(bytes + SLOT_UNIT_BYTES - 1) >> SLOT_UNIT_SHIFT];
}

static inline size_t class_bytes(unsigned size_class)
{
    return hmm_class_bytes[size_class];
}

/* What all slots of the class are aligned to. */
static inline size_t class_alignment(unsigned size_class)
{
    return (size_t)1 << bit_lowest(class_bytes(size_class));
}

/* The first class from `size_class` on whose slots all lie at multiples of `alignment`; CLASS_NONE:
 * there is none. Slots start at the granule's start. */
static inline unsigned class_aligned(unsigned size_class, size_t alignment)
{
    while (size_class < CLASS_COUNT && !is_aligned(class_bytes(size_class), alignment)) {
        size_class++;
    }
    return size_class;
}

#endif
