/*
 * guard_block.c - what a damaged block tells, and the sites beside a seal. See guard_block.h.
 */
#include "guard_block.h"
#include "handle.h"
#include "operators.h"

const unsigned char hmm_guard_last_bytes[2 * SHORT_SLACK_BYTES] = {
    [SHORT_SLACK_BYTES... 2 * SHORT_SLACK_BYTES - 1] = 255,
};

/* Of a slot it is known whose it is, even where a created heap has it as a piece. */
static HMM_COLD HMM_NORETURN void judge(const char *call, const void *ptr, struct crime *crime)
{
    if (crime->slab != 0) {
        hmm_fatal(call, ptr, crime, NULL);
    }
    hmm_handle_accuse(NULL, call, ptr, crime);
}

/* Adds the evidence that a slot can give, or a medium block by its tag. */
static void crime_locate(struct crime *crime, const void *ptr, seal_word *seal)
{
    const struct granule *granule = granule_of(ptr);
    if (granule_kind(granule) == GRANULE_SLAB) {
        crime->slab = granule_start(granule);
        crime->slot_bytes = class_bytes(slab_class(granule));
        crime->slot_index = ((uintptr_t)ptr - crime->slab) / crime->slot_bytes;
    } else if (granule_kind(granule) == GRANULE_ZONE && seal != NULL) {
        crime->at = (uintptr_t)ptr - BLOCK_TAG_BYTES;
        crime->block_bytes = (uintptr_t)seal + SEAL_BYTES - crime->at;
    }
    if (hmm_settings.guard.has_sites && seal != NULL) {
        crime->site_allocated = sites_of(seal)->allocated;
        crime->site_freed = atomic_load_explicit(seal, memory_order_relaxed) == 0
                                ? sites_of(seal)->freed_or_check
                                : 0;
    }
}

HMM_COLD HMM_NORETURN void hmm_guard_accuse(const char *call, const void *ptr, const char *what,
                                            seal_word *seal)
{
    struct crime crime = {.what = what};
    crime_locate(&crime, ptr, seal);
    judge(call, ptr, &crime);
}

HMM_COLD HMM_NORETURN void hmm_guard_accuse_byte(const char *call, const void *ptr,
                                                 const char *what, seal_word *seal,
                                                 const void *byte)
{
    struct crime crime = {.what = what};
    crime_locate(&crime, ptr, seal);
    crime.has_byte = true;
    crime.byte_offset = (const char *)byte - (const char *)ptr;
    judge(call, ptr, &crime);
}

/* Of a block whose seal is damaged: the first byte behind what was asked for that is not 0, if the
 * seal still says where that ends. */
static HMM_COLD const void *end_damage(const void *ptr, const seal_word *seal)
{
    uint64_t word = seal_load(seal);
    const char *trailer = (const char *)seal + SEAL_BYTES - hmm_settings.guard.trailer_bytes;
    bool is_telling = hmm_seal_facts_are_telling(&hmm_settings.guard.key, seal, word) &&
                      facts_slack(word) <= (size_t)(trailer - (const char *)ptr);
    const void *damage = is_telling ? first_nonzero(trailer - facts_slack(word), trailer) : NULL;
    return damage != NULL ? damage : hmm_seal_damage(&hmm_settings.guard.key, seal, word);
}

HMM_COLD HMM_NORETURN void hmm_guard_accuse_seal(const char *call, const char *what_if_free,
                                                 const void *ptr, seal_word *seal)
{
    if (seal_load(seal) == 0) {
        hmm_guard_accuse(call, ptr, what_if_free, seal);
    }
    hmm_guard_accuse_byte(call, ptr, "write past the end", seal, end_damage(ptr, seal));
}

HMM_COLD HMM_NORETURN void hmm_guard_accuse_end(const char *call, const void *ptr, seal_word *seal)
{
    const char *trailer = (const char *)seal + SEAL_BYTES - hmm_settings.guard.trailer_bytes;
    const void *damage = first_nonzero(trailer - facts_slack(seal_load(seal)), trailer);
    hmm_guard_accuse_byte(call, ptr, "write past the end", seal, damage != NULL ? damage : trailer);
}

void hmm_guard_check_claim(const struct claim *claim, const void *ptr, size_t request_bytes,
                           enum origin origin, unsigned alignment_shift, seal_word *seal)
{
    if (hmm_settings.options.ignores_claims) {
        return;
    }
    if (origin != claim->origin && is_between_malloc_and_new(origin, claim->origin) &&
        hmm_operators_are_mixed()) {
        return;
    }
    struct crime crime;
    const struct block_facts facts = {request_bytes, origin, alignment_shift, UINT_MAX};
    if (!hmm_seal_verify_claim(claim, &facts, &crime)) {
        crime_locate(&crime, ptr, seal);
        judge(claim->call, ptr, &crime);
    }
}

HMM_COLD void hmm_guard_seal_sites(seal_word *seal, uint32_t site)
{
    sites_of(seal)->allocated = site;
    sites_of(seal)->freed_or_check = sites_check(seal);
}
