/*
 * invariants.h - what the files of `hmm check` share. See reader_check in reader.h.
 *
 * The heap is looked at in parts: the tables of the fast engine, with arena, slabs and threads;
 * each shard; each block heap. A part is copied, checked, and copied again: if the copies differ,
 * or its lock is held, somebody was changing it, and what was seen broken may have been half done.
 */
#ifndef HMM_INVARIANTS_H
#define HMM_INVARIANTS_H

#include "copy.h"

struct check {
    struct reader *reader;
    struct copy *copy;
    bool is_broken;
    char text[CHECK_TEXT_MAX]; /* the first invariant that does not hold */
    size_t suspect;            /* the slab that it is about, SIZE_MAX: none */
    uint8_t *listed;           /* by granule: on how many lists it was met */
};

/* The first one counts. Always false. */
__attribute__((format(printf, 2, 3))) bool check_broken(struct check *check, const char *format,
                                                        ...);

/* Of the tables as they were copied. They return whether every invariant holds. */
bool check_tables(struct check *check);
bool check_shard(struct check *check, size_t shard_index);
bool check_heap(struct check *check, size_t heap_index);

#endif
