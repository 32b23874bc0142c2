/*
 * heap_record.h - by whom a block of a hardened heap was allocated and freed: two sites, kept
 * in the block.
 *
 *      +-----+------------------+----------+-------+-----------+-------+------+-----
 *      | tag | asked for        | slack, 0 | check | allocated | freed | seal | tag of the next
 *      +-----+------------------+----------+-------+-----------+-------+------+-----
 *                                          `-------- a record --------'
 *
 * Only where sites were asked for; the other heaps' blocks have no room for it. It stays when
 * the block is freed, so that a crime that is seen later can say who did that. The check is a
 * product of the sites and the record's address with the secret: like a mark, a record is known
 * wherever it is met in free memory, however blocks have merged since. Memory that is handed out
 * again has none.
 *
 * A record is a unit long and begins at a multiple of it. Where a free block is cut, its tag and
 * links and the size that is repeated are written over whole records only, so nothing is left of
 * one that could not be told. On 32-bit that is not so, and freestanding there are no sites:
 * neither keeps any.
 */
#ifndef HMM_HEAP_RECORD_H
#define HMM_HEAP_RECORD_H

#include "block.h"
#include "seal.h"

struct record_sites {
    uint32_t allocated; /* sites.h, 0: unknown, as below */
    uint32_t freed;     /* 0 while the block is live, too */
};

struct record {
    uint64_t check;
    struct record_sites sites;
};

enum {
    RECORD_BYTES = sizeof(struct record),
    RECORDS_CAN_BE = !HMM_FREESTANDING && BLOCK_UNIT_BYTES == RECORD_BYTES,
};

static_assert(RECORD_BYTES == 16, "no padding");

/* The first byte of a check is never 0, whatever the order of bytes: so a search for what is not 0
 * meets it, and a 0 that is written behind a block is seen. */
#define RECORD_CHECK_ONES ((uint64_t)0x0100000000000001)

static inline uint64_t record_check(const struct seal_key *key, uintptr_t address,
                                    struct record_sites sites)
{
    uint64_t both = (uint64_t)sites.allocated << 32 | sites.freed;
    uint64_t product = ((uint64_t)address ^ ~key->add) * key->multiply;
    return rotate_left((product ^ both) * key->multiply, 32) | RECORD_CHECK_ONES;
}

static inline struct record record_load(uintptr_t address)
{
    struct record record;
    memcpy(&record, (const void *)address, sizeof record);
    return record;
}

static inline void record_store(const struct seal_key *key, uintptr_t address,
                                struct record_sites sites)
{
    struct record record = {record_check(key, address, sites), sites};
    memcpy((void *)address, &record, sizeof record);
}

/* Whether what stands there is one. */
HMM_HIDDEN HMM_COLD bool hmm_heap_is_record(const struct seal_key *key, uintptr_t address);

#endif
