/*
 * guard.c - seals, quarantine, and what they find. See guard.h.
 */
#include "guard.h"
#include "fence.h"
#include "handle.h"
#include "large.h"
#include "medium.h"
#include "os.h"
#include "random.h"
#include "sites.h"
#include "words.h"

enum {
    SITES_BYTES = 2 * sizeof(uint32_t),
    /* In the ordinary library: a thread holds back up to 1 MiB, so that a block lies idle for some
     * thousand calls; and in the secure one what costs little memory. */
    QUARANTINE_COUNT = HMM_SECURE ? 64 : QUARANTINE_COUNT_MAX,
    QUARANTINE_BYTES = HMM_SECURE ? 32 << 10 : 1 << 20,
    QUARANTINE_BLOCK_SHARE = 4,
    GUARD_FIRST_SLOT = 1, /* G3 */
    LOOKED_AT_BEFORE_BYTES = 32,
};

static_assert(SMALL_BYTES_MAX <= 1 << SLACK_BITS, "no slot has more slack than a seal can say");

/* Read by threads that free the next block. */
typedef _Atomic uint64_t seal_word;

/* Site words lie before the seal. While the block is live the second one shows that the first is as it was. */
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

struct guard hmm_guard;

/* --------------------------------------------------------------------------------------- crimes */

static HMM_COLD HMM_NORETURN void judge(const char *call, const void *ptr, struct crime *crime)
{
    const HmmHeap *owner = crime->at == 0 && crime->slab == 0 ? hmm_handle_owner(ptr) : NULL;
    if (owner != NULL) {
        crime->what = "pointer of another heap";
        crime->owner = owner;
    }
    hmm_fatal(call, ptr, crime, NULL);
}

static struct sites *sites_of(seal_word *seal)
{
    return (struct sites *)((uintptr_t)seal - SITES_BYTES);
}

/* The evidence that a slot can give, or a medium block by its tag. */
static struct crime crime_at(const char *what, const void *ptr, seal_word *seal)
{
    struct crime crime = {.what = what};
    const struct granule *granule = granule_of(ptr);
    if (granule_kind(granule) == GRANULE_SLAB) {
        crime.slab = granule_start(granule);
        crime.slot_bytes = class_bytes(slab_class(granule));
        crime.slot_index = ((uintptr_t)ptr - crime.slab) / crime.slot_bytes;
    } else if (granule_kind(granule) == GRANULE_ZONE && seal != NULL) {
        crime.at = (uintptr_t)ptr - BLOCK_TAG_BYTES;
        crime.block_bytes = (uintptr_t)seal + SEAL_BYTES - crime.at;
    }
    if (hmm_guard.has_sites && seal != NULL) {
        crime.site_allocated = sites_of(seal)->allocated;
        crime.site_freed = atomic_load_explicit(seal, memory_order_relaxed) == 0
                               ? sites_of(seal)->freed_or_check
                               : 0;
    }
    return crime;
}

static HMM_COLD HMM_NORETURN void accuse(const char *call, const void *ptr, const char *what,
                                         seal_word *seal)
{
    struct crime crime = crime_at(what, ptr, seal);
    judge(call, ptr, &crime);
}

static HMM_COLD HMM_NORETURN void accuse_byte(const char *call, const void *ptr, const char *what,
                                              seal_word *seal, const void *byte)
{
    struct crime crime = crime_at(what, ptr, seal);
    crime.has_byte = true;
    crime.byte_offset = (const char *)byte - (const char *)ptr;
    judge(call, ptr, &crime);
}

/* ---------------------------------------------------------------------------------------- seals */

/* release: whoever finds the seal, or 0, finds what goes with it; acquire in seal_load */
static void seal_store(seal_word *seal, uint64_t word)
{
    atomic_store_explicit(seal, word, memory_order_release);
}

static uint64_t seal_load(const seal_word *seal)
{
    return atomic_load_explicit(seal, memory_order_acquire);
}

/* Of a block whose seal is damaged: the first byte behind what was asked for that is not 0, if the seal
 * still says where that ends. */
static HMM_COLD const void *end_damage(const void *ptr, const seal_word *seal)
{
    uint64_t word = seal_load(seal);
    const char *trailer = (const char *)seal + SEAL_BYTES - hmm_guard.trailer_bytes;
    bool is_telling = hmm_seal_facts_are_telling(&hmm_guard.key, seal, word) &&
                      facts_slack(word) <= (size_t)(trailer - (const char *)ptr);
    const void *damage = is_telling ? first_nonzero(trailer - facts_slack(word), trailer) : NULL;
    return damage != NULL ? damage : hmm_seal_damage(&hmm_guard.key, seal, word);
}

static inline seal_word *seal_of(const void *ptr, size_t room_bytes)
{
    return (seal_word *)((uintptr_t)ptr + room_bytes - SEAL_BYTES);
}

static uint32_t sites_check(seal_word *seal)
{
    uint64_t sum = (uintptr_t)seal ^ hmm_guard.key.add ^ sites_of(seal)->allocated;
    return (uint32_t)(sum * hmm_guard.key.multiply >> 32);
}

static HMM_COLD void sites_seal(seal_word *seal, uint32_t site)
{
    sites_of(seal)->allocated = site;
    sites_of(seal)->freed_or_check = sites_check(seal);
}

static inline bool sites_are_right(seal_word *seal)
{
    return LIKELY(!hmm_guard.has_sites) || sites_of(seal)->freed_or_check == sites_check(seal);
}

static inline void *block_seal(void *ptr, size_t room_bytes, size_t request_bytes,
                               unsigned alignment_shift, enum origin origin)
{
    seal_word *seal = seal_of(ptr, room_bytes);
    size_t slack_bytes = room_bytes - hmm_guard.trailer_bytes - request_bytes;
    if (UNLIKELY(hmm_guard.has_sites)) {
        sites_seal(seal, hmm_sites_capture());
    }
    seal_store(seal,
               seal_make(&hmm_guard.key, seal, facts_make(slack_bytes, alignment_shift, origin)));
    return ptr;
}

static HMM_COLD HMM_NORETURN void accuse_seal(const char *call, const void *ptr, seal_word *seal,
                                              bool is_freeing)
{
    if (seal_load(seal) == 0) {
        accuse(call, ptr, is_freeing ? "double free" : "freed block", seal);
    }
    accuse_byte(call, ptr, "write past the end", seal, end_damage(ptr, seal));
}

/* Reads a live block's seal, and its slack; or says what is wrong. */
static inline __attribute__((always_inline)) struct sealed
block_open(const char *call, void *ptr, size_t room_bytes, bool is_freeing)
{
    seal_word *seal = seal_of(ptr, room_bytes);
    uint64_t word = seal_load(seal);
    if (UNLIKELY(!seal_is_right(&hmm_guard.key, seal, word))) {
        accuse_seal(call, ptr, seal, is_freeing);
    }
    const char *trailer = (const char *)seal + SEAL_BYTES - hmm_guard.trailer_bytes;
    const void *damage = first_nonzero(trailer - facts_slack(word), trailer);
    damage = LIKELY(damage != NULL || sites_are_right(seal)) ? damage : trailer;
    if (UNLIKELY(damage != NULL)) {
        accuse_byte(call, ptr, "write past the end", seal, damage);
    }
    return (struct sealed){
        .start = (uintptr_t)ptr,
        .seal = seal,
        .request_bytes = (size_t)(trailer - (const char *)ptr) - facts_slack(word),
        .facts = seal_facts(word),
    };
}

/* A block that is freed: its seal and its content become 0, so that nothing of it is left to read. */
static inline void block_clear(const struct sealed *block, size_t room_bytes)
{
    words_clear((void *)block->start, room_bytes - hmm_guard.trailer_bytes);
    if (UNLIKELY(hmm_guard.has_sites)) {
        sites_of(block->seal)->freed_or_check = hmm_sites_capture();
    }
    seal_store(block->seal, 0);
}

/* --------------------------------------------------------------------------------------- claims */

static const char *const origin_names[] = {"malloc", "operator new", "operator new[]"};

static void claim_check(const struct claim *claim, const void *ptr, size_t request_bytes,
                        enum origin origin, unsigned alignment_shift, seal_word *seal)
{
    struct crime crime;
    unsigned claimed_shift = claim->alignment != 0 ? bit_highest(claim->alignment) : 0;
    if (origin != claim->origin) {
        crime = crime_at("mismatched call", ptr, seal);
        crime.maker = origin_names[origin];
    } else if (claim->has_bytes && claim->bytes != request_bytes) {
        crime = crime_at("wrong size", ptr, seal);
        crime.has_sizes = true;
        crime.claimed = claim->bytes;
        crime.known = request_bytes;
    } else if (claim->alignment != 0 &&
               size_max(claimed_shift, ALIGNMENT_SHIFT_MIN) != alignment_shift) {
        crime = crime_at("wrong alignment", ptr, seal);
        crime.has_sizes = true;
        crime.claimed = claim->alignment;
        crime.known = (size_t)1 << alignment_shift;
    } else {
        return;
    }
    judge(claim->call, ptr, &crime);
}

static inline void block_check_claim(const struct claim *claim, const struct sealed *block)
{
    enum origin origin = facts_origin(block->facts);
    if (UNLIKELY(origin != claim->origin || claim->has_bytes || claim->alignment != 0)) {
        claim_check(claim, (void *)block->start, block->request_bytes, origin,
                    facts_alignment_shift(block->facts), block->seal);
    }
}

/* ---------------------------------------------------------------------------------- quarantine */

static inline void small_release(struct thread *thread, struct slot *slot)
{
    struct granule *slab = granule_of(slot);
    if (LIKELY(thread_is_open(thread) && granule_owner(slab) == thread->self)) {
        slot_link(slot, slab->free);
        slab->free = slot;
        if (UNLIKELY(--slab->need == 0)) {
            hmm_thread_slab_event(thread, slab);
        }
        return;
    }
    hmm_thread_free_remote(thread, slab, slot);
}

static void medium_release(const char *call, void *ptr)
{
    struct crime crime;
    crime_clear(&crime);
    if (UNLIKELY(!hmm_medium_free(ptr, &crime))) {
        judge(call, ptr, &crime);
    }
}

static size_t medium_room(const char *call, const void *ptr, bool is_freeing)
{
    size_t room_bytes = 0;
    struct crime crime;
    crime_clear(&crime);
    if (UNLIKELY(!hmm_medium_usable(ptr, &room_bytes, &crime))) {
        crime.what =
            is_freeing && strcmp(crime.what, "freed block") == 0 ? "double free" : crime.what;
        judge(call, ptr, &crime);
    }
    return room_bytes;
}

/* Somebody may have written into the block while it was held back. */
static void medium_release_checked(void *ptr)
{
    size_t room_bytes = medium_room("free", ptr, true);
    seal_word *seal = seal_of(ptr, room_bytes);
    const void *damage = first_nonzero(ptr, (char *)seal + SEAL_BYTES - hmm_guard.trailer_bytes);
    damage = damage == NULL && seal_load(seal) != 0 ? seal : damage;
    if (UNLIKELY(damage != NULL)) {
        accuse_byte("free", ptr, "write after free", seal, damage);
    }
    medium_release("free", ptr);
}

/* A block leaves the quarantine as it came, or somebody wrote into it. Of a slot only the
 * word is looked at that its link will overwrite: the rest is when it is handed out. */
static inline void block_release(struct thread *thread, void *ptr)
{
    if (LIKELY(granule_kind(granule_of(ptr)) == GRANULE_SLAB)) {
        struct slot *slot = ptr;
        if (UNLIKELY(slot->next != NULL)) {
            accuse_byte("free", ptr, "write after free", NULL, nonzero_byte((uintptr_t)ptr));
        }
        small_release(thread, slot);
        return;
    }
    medium_release_checked(ptr);
}

/* Knuth's MMIX generator: its high bits are good enough to make a place hard to guess. */
static inline uint64_t random_next(struct quarantine *quarantine)
{
    quarantine->random_state = quarantine->random_state * 0x5851f42d4c957f2du + 0x14057b7ef767814fu;
    return quarantine->random_state >> 40;
}

static inline __attribute__((always_inline)) void
quarantine_swap(struct thread *thread, size_t index, void *ptr, size_t bytes)
{
    struct quarantine *quarantine = &thread->guarded->quarantine;
    void *old = quarantine->blocks[index].ptr;
    quarantine->bytes += (uint32_t)bytes - quarantine->blocks[index].bytes;
    quarantine->blocks[index].ptr = ptr;
    quarantine->blocks[index].bytes = (uint32_t)bytes;
    atomic_signal_fence(memory_order_seq_cst); /* a forked child finds no block in both places */
    if (old != NULL) {
        block_release(thread, old);
    }
}

/* The block takes the place of another, at random, which may be used again now. */
static inline void quarantine_add(struct thread *thread, void *ptr, size_t bytes)
{
    if (bytes > hmm_guard.quarantine_block_bytes || !thread_is_open(thread)) {
        block_release(thread, ptr);
        return;
    }
    struct quarantine *quarantine = &thread->guarded->quarantine;
    quarantine_swap(thread, (size_t)random_next(quarantine) & hmm_guard.quarantine_mask, ptr,
                    bytes);
    while (quarantine->bytes > hmm_guard.quarantine_bytes) {
        quarantine->next = (quarantine->next + 1) & hmm_guard.quarantine_mask;
        quarantine_swap(thread, quarantine->next, NULL, 0);
    }
}

void hmm_guard_flush(struct thread *thread)
{
    if (thread_is_open(thread)) {
        for (size_t index = 0; index <= hmm_guard.quarantine_mask; index++) {
            quarantine_swap(thread, index, NULL, 0);
        }
    }
    hmm_fence_flush();
}

/* ---------------------------------------------------------------------------------------- slots */

/* A slot from the bin is 0 but for its link (G2), or somebody wrote into it. One that was never handed
 * out is not looked at: that would touch its pages. */
static inline void slot_check(struct slot *slot, size_t room_bytes)
{
    const struct granule *slab = granule_of(slot);
    if (slot_units(slot) >= slab->virgin_units) {
        return;
    }
    seal_word *seal = seal_of(slot, room_bytes);
    const uint64_t *start = (const uint64_t *)&slot->mark;
    const char *end = (const char *)seal + SEAL_BYTES - hmm_guard.trailer_bytes;
    if (UNLIKELY(!words_are_zero(start, (const uint64_t *)end) || seal_load(seal) != 0)) {
        const void *damage = first_nonzero(start, end);
        accuse_byte("malloc", slot, "write after free", seal, damage != NULL ? damage : seal);
    }
}

/* What follows a free slot is NULL or in the same granule: a link leads nowhere else. */
static inline struct slot *slot_follow(const char *call, struct slot *slot)
{
    struct slot *next = slot_next(slot);
    bool is_near = ((uintptr_t)next ^ (uintptr_t)slot) < GRANULE_BYTES &&
                   is_aligned((uintptr_t)next, SLOT_UNIT_BYTES);
    if (UNLIKELY(next != NULL && !is_near)) {
        accuse_byte(call, slot, "write after free", NULL, slot);
    }
    return next;
}

static inline void *slot_hand_out(struct slot *slot, size_t room_bytes, size_t bytes,
                                  unsigned alignment_shift, enum origin origin)
{
    slot_check(slot, room_bytes);
    slot->next = NULL;
    return block_seal(slot, room_bytes, bytes, alignment_shift, origin);
}

static void *small_allocate(struct thread *thread, unsigned size_class, size_t alignment,
                            size_t bytes, enum origin origin)
{
    struct slot *slot = thread->bins[size_class];
    if (LIKELY(slot != NULL)) {
        thread->bins[size_class] = slot_follow("malloc", slot);
    } else {
        slot = hmm_thread_refill(thread, size_class);
        if (LIKELY(slot != NULL)) {
            (void)slot_follow("malloc", slot);
        }
    }
    return slot != NULL ? slot_hand_out(slot, class_bytes(size_class), bytes,
                                        seal_alignment_shift(alignment), origin)
                        : NULL;
}

void *hmm_guard_malloc(size_t bytes)
{
    struct thread *thread = hmm_thread.thread;
    size_t room_bytes = bytes + hmm_guard.trailer_bytes;
    if (LIKELY(thread_is_open(thread) && bytes != 0 && bytes <= hmm_guard.slot_bytes_max)) {
        unsigned size_class = class_of(room_bytes);
        struct slot *slot = thread->bins[size_class];
        if (LIKELY(slot != NULL)) {
            thread->bins[size_class] = slot_follow("malloc", slot);
            return slot_hand_out(slot, class_bytes(size_class), bytes, ALIGNMENT_SHIFT_MIN,
                                 ORIGIN_MALLOC);
        }
    }
    return NULL;
}

/* Whether a byte of a free slot stays other than 0. Whoever has the slot may hand it out, and get it back,
 * between any two looks, but not between all of them. */
static HMM_COLD bool is_lasting(const seal_word *seal, const char *damage)
{
    enum { LOOKS = 1000 };
    for (int looks = 0; looks < LOOKS; looks++) {
        if (seal_load(seal) != 0 || *(const volatile char *)damage == 0) {
            return false;
        }
    }
    return true;
}

/* What lies before a slot: a seal, or 0 and before that the end of a free slot, which is 0, too (G2, G3). That
 * slot may be another thread's, who hands it out meanwhile: so damage counts if it lasts, and the slot stays
 * free. */
static inline const void *damage_before(const char *ptr, size_t room_bytes)
{
    const seal_word *seal = (const seal_word *)((uintptr_t)ptr - SEAL_BYTES);
    uint64_t word = seal_load(seal);
    if (word != 0) {
        return LIKELY(seal_is_right(&hmm_guard.key, seal, word))
                   ? NULL
                   : hmm_seal_damage_from_behind(&hmm_guard.key, seal, word);
    }
    const char *trailer = ptr - hmm_guard.trailer_bytes;
    size_t clear_bytes = size_min(room_bytes - hmm_guard.trailer_bytes - sizeof(struct slot *),
                                  LOOKED_AT_BEFORE_BYTES);
    const char *damage = first_nonzero(trailer - clear_bytes, trailer);
    return LIKELY(damage == NULL) || !is_lasting(seal, damage) ? NULL : damage;
}

static HMM_COLD HMM_NORETURN void accuse_pointer(const char *call, const void *ptr)
{
    const struct granule *slab = granule_of(ptr);
    size_t index = ((uintptr_t)ptr - granule_start(slab)) / class_bytes(slab_class(slab));
    bool is_inside = index < slab_carved(slab) && index >= GUARD_FIRST_SLOT;
    accuse(call, ptr,
           is_inside ? "invalid pointer, inside a block" : "invalid pointer, in no block", NULL);
}

/* The room of a slot in use, or of one that is free and will be found out. */
static inline size_t small_room(const char *call, const void *ptr)
{
    const struct granule *slab = granule_of(ptr);
    if (UNLIKELY(!slab_is_slot(slab, ptr) || slab_index(slab, ptr) < GUARD_FIRST_SLOT)) {
        accuse_pointer(call, ptr);
    }
    return class_bytes(slab_class(slab));
}

/* --------------------------------------------------------------------------------------- medium */

static void *medium_allocate(const char *call, struct thread *thread, size_t alignment,
                             size_t bytes, enum origin origin)
{
    struct crime crime;
    crime_clear(&crime);
    struct zero_span zero;
    void *ptr = hmm_medium_allocate(thread != NULL ? thread->shard : 0, alignment,
                                    bytes + hmm_guard.trailer_bytes, &zero, &crime);
    if (UNLIKELY(crime.what != NULL)) {
        judge(call, NULL, &crime);
    }
    if (ptr == NULL) {
        return NULL;
    }
    size_t room_bytes = medium_room(call, ptr, false);
    memset((char *)ptr + bytes, 0, room_bytes - bytes);
    return block_seal(ptr, room_bytes, bytes, seal_alignment_shift(alignment), origin);
}

static void *medium_resize(struct sealed *block, size_t room_bytes, size_t bytes)
{
    void *ptr = (void *)block->start;
    struct crime crime;
    crime_clear(&crime);
    size_t old_bytes = 0;
    char trailer[SEAL_BYTES + SITES_BYTES];
    char *old_trailer = (char *)ptr + room_bytes - hmm_guard.trailer_bytes;
    if (bytes <= SMALL_BYTES_MAX || bytes + hmm_guard.trailer_bytes > MEDIUM_BYTES_MAX) {
        return NULL;
    }
    if (bytes < block->request_bytes) { /* which succeeds */
        memset((char *)ptr + bytes, 0, block->request_bytes - bytes);
    }
    memcpy(trailer, old_trailer, hmm_guard.trailer_bytes);
    memset(old_trailer, 0, hmm_guard.trailer_bytes);
    if (!hmm_medium_resize(ptr, bytes + hmm_guard.trailer_bytes, &old_bytes, &crime)) {
        memcpy(old_trailer, trailer, hmm_guard.trailer_bytes);
        if (UNLIKELY(crime.what != NULL)) {
            judge("realloc", ptr, &crime);
        }
        return NULL;
    }
    size_t new_room_bytes = medium_room("realloc", ptr, false);
    size_t kept_bytes = size_min(bytes, block->request_bytes);
    memset((char *)ptr + kept_bytes, 0, new_room_bytes - kept_bytes);
    return block_seal(ptr, new_room_bytes, bytes, facts_alignment_shift(block->facts),
                      facts_origin(block->facts));
}

/* ---------------------------------------------------------------------------------------- large */

/* Writes down what a seal says of others. */
static void run_note(void *ptr, size_t alignment, size_t bytes, enum origin origin)
{
    struct run *run = &granule_of(ptr)->run;
    hmm_large_clear(ptr, run->bytes);
    run->request_bytes = bytes;
    run->origin = (uint8_t)origin;
    run->alignment_shift = (uint8_t)seal_alignment_shift(alignment);
    run->site = hmm_guard.has_sites ? hmm_sites_capture() : 0;
}

static void *fenced_allocate(size_t alignment, size_t bytes, enum origin origin)
{
    void *ptr = hmm_fence_allocate(alignment, bytes);
    if (ptr != NULL) {
        run_note(ptr, alignment, bytes, origin);
    }
    return ptr;
}

static void *large_allocate(size_t alignment, size_t bytes, enum origin origin)
{
    void *ptr =
        hmm_guard.level >= GUARD_QUARANTINE ? fenced_allocate(alignment, bytes, origin) : NULL;
    if (ptr != NULL) {
        return ptr;
    }
    ptr = hmm_large_allocate(alignment, bytes);
    if (ptr != NULL) {
        granule_of(ptr)->run.is_fenced = false;
        run_note(ptr, alignment, bytes, origin);
    }
    return ptr;
}

static HMM_COLD HMM_NORETURN void accuse_run(const char *call, const void *ptr, const char *what,
                                             const void *byte)
{
    const struct run *run = &granule_of(ptr)->run;
    struct crime crime = {.what = what, .at = run->start, .block_bytes = run->request_bytes};
    crime.site_allocated = run->site;
    if (byte != NULL) {
        crime.has_byte = true;
        crime.byte_offset = (const char *)byte - (const char *)ptr;
    }
    judge(call, ptr, &crime);
}

/* The run of a large block whose surroundings are as they were. */
static struct run *large_open(const char *call, const void *ptr)
{
    struct granule *first = granule_of(ptr);
    struct run *run = &first->run;
    if (run->start != (uintptr_t)ptr) {
        accuse_run(call, ptr, "invalid pointer, inside a block", NULL);
    }
    const char *end = (const char *)run->start + run->request_bytes;
    if (!run->is_fenced) {
        const void *damage = first_nonzero(end, (const char *)run->start + run->bytes);
        if (damage != NULL) {
            accuse_run(call, ptr, "write past the end", damage);
        }
        return run;
    }
    const void *before = first_nonzero((const char *)run->start - hmm_fence_lead_bytes(first), ptr);
    const void *behind = first_nonzero(end, end + hmm_fence_tail_bytes(first));
    if (before != NULL || behind != NULL) {
        accuse_run(call, ptr, before != NULL ? "write before the start" : "write past the end",
                   before != NULL ? before : behind);
    }
    return run;
}

static void large_free(void *ptr, const struct claim *claim)
{
    struct run *run = large_open(claim->call, ptr);
    claim_check(claim, ptr, run->request_bytes, (enum origin)run->origin, run->alignment_shift,
                NULL);
    if (run->is_fenced) {
        hmm_fence_free(granule_of(ptr));
        return;
    }
    struct crime crime;
    crime_clear(&crime);
    if (!hmm_large_free_cleared(ptr, &crime)) {
        judge(claim->call, ptr, &crime);
    }
}

/* ------------------------------------------------------------------------------------- the calls */

static void *guard_allocate(const char *call, struct thread *thread, size_t alignment, size_t bytes,
                            enum origin origin)
{
    /* A slot has room for its link beside the sites. */
    size_t room_bytes = size_max(bytes, 1) + hmm_guard.trailer_bytes;
    if (hmm_guard.level >= GUARD_FENCES && bytes != 0) {
        void *ptr = fenced_allocate(alignment, bytes, origin);
        if (ptr != NULL) {
            return ptr;
        }
    }
    if (bytes == 0 && hmm_guard.level >= GUARD_QUARANTINE && alignment <= LINE_BYTES) {
        return hmm_fence_allocate_empty();
    }
    if (room_bytes <= SMALL_BYTES_MAX && thread_is_open(thread)) {
        unsigned size_class = class_of(room_bytes);
        if (alignment > SLOT_UNIT_BYTES) {
            size_class = class_aligned(size_class, alignment);
        }
        void *ptr = size_class != CLASS_NONE
                        ? small_allocate(thread, size_class, alignment, bytes, origin)
                        : NULL;
        if (LIKELY(ptr != NULL)) {
            return ptr;
        }
    }
    if (room_bytes <= MEDIUM_BYTES_MAX && alignment <= MEDIUM_ALIGN_BYTES_MAX) {
        return medium_allocate(call, thread, alignment, bytes, origin);
    }
    return large_allocate(alignment, bytes, origin);
}

void *hmm_guard_allocate(const char *call, size_t alignment, size_t bytes, enum origin origin)
{
    struct thread *thread = hmm_thread.thread;
    thread = thread != NULL ? thread : hmm_thread_open();
    void *ptr = guard_allocate(call, thread, alignment, bytes, origin);
    if (UNLIKELY(ptr == NULL)) {
        hmm_guard_flush(thread);
        hmm_thread_flush(thread);
        (void)hmm_medium_trim();
        ptr = guard_allocate(call, thread, alignment, bytes, origin);
    }
    return ptr;
}

/* Slots were looked through, and large blocks are cleared where they are made. */
void hmm_guard_clear(void *ptr, size_t bytes)
{
    if (arena_covers(ptr) && granule_kind(granule_of(ptr)) == GRANULE_ZONE) {
        memset(ptr, 0, bytes);
    }
}

/* What is left of a pointer into the arena that is in no slab, zone or run. */
static HMM_COLD HMM_NORETURN void accuse_stray(const char *call, const void *ptr, bool is_freeing)
{
    const struct granule *granule = granule_of(ptr);
    bool was_run = granule->run.start == (uintptr_t)ptr;
    accuse(call, ptr,
           !was_run     ? "invalid pointer, in no block"
           : is_freeing ? "double free"
                        : "freed block",
           NULL);
}

/* Blocks of 0 bytes are a line apart. */
static void empty_check(const char *call, const void *ptr)
{
    if (!is_aligned((uintptr_t)ptr, LINE_BYTES)) {
        accuse(call, ptr, "invalid pointer, inside a block", NULL);
    }
}

static inline __attribute__((always_inline)) void small_free(void *ptr, const struct claim *claim)
{
    size_t room_bytes = small_room(claim->call, ptr);
    struct sealed block = block_open(claim->call, ptr, room_bytes, true);
    const void *damage = damage_before(ptr, room_bytes);
    if (UNLIKELY(damage != NULL)) {
        accuse_byte(claim->call, ptr, "write before the start", block.seal, damage);
    }
    block_check_claim(claim, &block);
    block_clear(&block, room_bytes);
    quarantine_add(hmm_thread.thread, ptr, room_bytes);
}

static void medium_free(void *ptr, const struct claim *claim)
{
    size_t room_bytes = medium_room(claim->call, ptr, true);
    struct sealed block = block_open(claim->call, ptr, room_bytes, true);
    block_check_claim(claim, &block);
    block_clear(&block, room_bytes);
    quarantine_add(hmm_thread.thread, ptr, room_bytes);
}

/* What free does most, with nothing claimed. */
void hmm_guard_free_plain(void *ptr)
{
    static const struct claim claim = {.call = "free"};
    if (LIKELY(granule_kind(granule_of(ptr)) == GRANULE_SLAB)) {
        small_free(ptr, &claim);
    } else {
        hmm_guard_free(ptr, &claim);
    }
}

void hmm_guard_free(void *ptr, const struct claim *claim)
{
    switch (granule_kind(granule_of(ptr))) {
    case GRANULE_SLAB:
        small_free(ptr, claim);
        break;
    case GRANULE_ZONE:
        medium_free(ptr, claim);
        break;
    case GRANULE_LARGE:
        large_free(ptr, claim);
        break;
    case GRANULE_EMPTY:
        empty_check(claim->call, ptr);
        if (!hmm_fence_free_empty(ptr)) {
            accuse(claim->call, ptr, "double free", NULL);
        }
        break;
    default:
        accuse_stray(claim->call, ptr, true);
    }
}

size_t hmm_guard_usable(const char *call, const void *ptr)
{
    size_t room_bytes = 0;
    switch (granule_kind(granule_of(ptr))) {
    case GRANULE_SLAB:
        room_bytes = small_room(call, ptr);
        break;
    case GRANULE_ZONE:
        room_bytes = medium_room(call, ptr, false);
        break;
    case GRANULE_LARGE:
        return large_open(call, ptr)->request_bytes;
    case GRANULE_EMPTY:
        empty_check(call, ptr);
        if (!hmm_fence_is_empty_block(ptr)) {
            accuse(call, ptr, "freed block", NULL);
        }
        return 0;
    default:
        accuse_stray(call, ptr, false);
    }
    return block_open(call, (void *)(uintptr_t)ptr, room_bytes, false).request_bytes;
}

/* In place where the block's room is right for the new size, too. */
static void *resize_in_place(void *ptr, size_t bytes, const struct claim *claim)
{
    const struct granule *granule = granule_of(ptr);
    if (granule_kind(granule) == GRANULE_SLAB) {
        size_t room_bytes = small_room("realloc", ptr);
        struct sealed block = block_open("realloc", ptr, room_bytes, false);
        block_check_claim(claim, &block);
        if (bytes + hmm_guard.trailer_bytes > SMALL_BYTES_MAX ||
            class_bytes(class_of(bytes + hmm_guard.trailer_bytes)) != room_bytes) {
            return NULL;
        }
        size_t kept_bytes = size_min(bytes, block.request_bytes);
        memset((char *)ptr + kept_bytes, 0, room_bytes - hmm_guard.trailer_bytes - kept_bytes);
        return block_seal(ptr, room_bytes, bytes, facts_alignment_shift(block.facts),
                          facts_origin(block.facts));
    }
    if (granule_kind(granule) == GRANULE_ZONE) {
        size_t room_bytes = medium_room("realloc", ptr, false);
        struct sealed block = block_open("realloc", ptr, room_bytes, false);
        block_check_claim(claim, &block);
        return medium_resize(&block, room_bytes, bytes);
    }
    return NULL;
}

void *hmm_guard_resize(void *ptr, size_t bytes, const struct claim *claim, size_t *old_bytes)
{
    *old_bytes = hmm_guard_usable(claim->call, ptr);
    return hmm_guard.level < GUARD_FENCES ? resize_in_place(ptr, bytes, claim) : NULL;
}

/* --------------------------------------------------------------------------------------- copies */

void hmm_guard_check_write(const char *call, const void *to, size_t bytes)
{
    const struct granule *slab = granule_of(to);
    if (granule_kind(slab) != GRANULE_SLAB || bytes == 0) {
        return;
    }
    uint32_t offset = (uint32_t)(arena_offset(to) & (GRANULE_BYTES - 1));
    uint32_t index = offset / slab->slot_bytes;
    const char *slot = (const char *)granule_start(slab) + (size_t)index * slab->slot_bytes;
    seal_word *seal = seal_of(slot, slab->slot_bytes);
    uint64_t word = seal_load(seal);
    if (UNLIKELY(!seal_is_right(&hmm_guard.key, seal, word))) {
        accuse(call, to, word == 0 ? "write into a free block" : "damaged seal", seal);
    }
    const char *end = (const char *)seal + SEAL_BYTES - hmm_guard.trailer_bytes - facts_slack(word);
    if (UNLIKELY((const char *)to > end || bytes > (size_t)(end - (const char *)to))) {
        accuse_byte(call, to, "write past the end", seal, end);
    }
}

/* -------------------------------------------------------------------------------------- opening */

/* A thread's end: what it holds back may be used by others, and so may what is in its bins, which is
 * followed now. */
static void thread_ends(struct thread *thread)
{
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        for (struct slot *slot = thread->bins[size_class]; slot != NULL;) {
            slot = slot_follow("pthread_exit", slot);
        }
    }
    for (size_t index = 0; index <= hmm_guard.quarantine_mask; index++) {
        quarantine_swap(thread, index, NULL, 0);
    }
}

/* Whether a block that is held back looks as it came, where it is looked at. */
static bool held_is_free(void *ptr)
{
    const struct granule *granule = granule_of(ptr);
    bool is_slot = granule_kind(granule) == GRANULE_SLAB;
    size_t room_bytes =
        is_slot ? class_bytes(slab_class(granule)) : medium_room("fork", ptr, false);
    return ((const struct slot *)ptr)->next == NULL && seal_load(seal_of(ptr, room_bytes)) == 0;
}

/* What a vanished thread was just about to hold back is lost. */
static void guarded_inherit(struct guarded *guarded)
{
    for (size_t index = 0; index <= hmm_guard.quarantine_mask; index++) {
        void *ptr = guarded->quarantine.blocks[index].ptr;
        if (ptr != NULL && held_is_free(ptr)) {
            block_release(hmm_thread.thread, ptr);
        }
    }
    *guarded = (struct guarded){0};
}

void hmm_guard_inherit(void)
{
    if (thread_is_open(hmm_thread.thread)) {
        hmm_thread.thread->guarded->quarantine.random_state = hmm_random_secret();
    }
    hmm_thread_visit_unused(guarded_inherit);
}

void hmm_guard_start(enum guard_level level, bool has_sites)
{
    hmm_guard = (struct guard){
        .level = level,
        .has_sites = has_sites,
        .trailer_bytes = SEAL_BYTES + (has_sites ? SITES_BYTES : 0),
        .slot_bytes_max = level >= GUARD_FENCES
                              ? 0
                              : SMALL_BYTES_MAX - SEAL_BYTES - (has_sites ? SITES_BYTES : 0),
        .quarantine_mask = QUARANTINE_COUNT - 1,
        .quarantine_bytes = QUARANTINE_BYTES,
        .quarantine_block_bytes =
            level >= GUARD_QUARANTINE ? QUARANTINE_BYTES / QUARANTINE_BLOCK_SHARE : 0,
        .key = {.add = hmm_random_secret(), .multiply = hmm_random_secret() | 1},
    };
    hmm_slab_guard = (struct slab_guard){
        .link_key = (uintptr_t)hmm_random_secret() | 1,
        .first_slot = GUARD_FIRST_SLOT,
        .is_shuffled = level >= GUARD_QUARANTINE,
    };
    hmm_thread_set_guard(thread_ends);
}

/* -------------------------------------------------------------------------------------- walking */

static bool walk_block(uintptr_t address, size_t room_bytes, guard_visitor visit, void *context)
{
    seal_word *seal = seal_of((void *)address, room_bytes);
    uint64_t word = seal_load(seal);
    if (word == 0 || !seal_is_right(&hmm_guard.key, seal, word)) {
        return true;
    }
    size_t request_bytes = room_bytes - hmm_guard.trailer_bytes - facts_slack(word);
    return visit((void *)address, request_bytes,
                 hmm_guard.has_sites ? sites_of(seal)->allocated : 0, context);
}

static bool walk_slab(const struct granule *slab, guard_visitor visit, void *context)
{
    size_t slot_bytes = class_bytes(slab_class(slab));
    for (uint32_t index = GUARD_FIRST_SLOT; index < slab_carved(slab); index++) {
        if (!walk_block(granule_start(slab) + index * slot_bytes, slot_bytes, visit, context)) {
            return false;
        }
    }
    return true;
}

struct walk {
    guard_visitor visit;
    void *context;
};

static bool walk_medium(void *ptr, size_t room_bytes, void *context)
{
    const struct walk *walk = context;
    return walk_block((uintptr_t)ptr, room_bytes, walk->visit, walk->context);
}

void hmm_guard_walk(guard_visitor visit, void *context)
{
    struct walk walk = {visit, context};
    bool is_going_on = true;
    for (size_t index = 0; index < hmm_arena.frontier_count && is_going_on; index++) {
        const struct granule *granule = &hmm_arena.table[index];
        if (granule_kind(granule) == GRANULE_SLAB) {
            is_going_on = walk_slab(granule, visit, context);
        } else if (granule_kind(granule) == GRANULE_LARGE) {
            is_going_on = visit((void *)granule->run.start, granule->run.request_bytes,
                                granule->run.site, context);
        }
    }
    if (is_going_on) {
        hmm_medium_walk(walk_medium, &walk);
    }
}

/* --------------------------------------------------------------------------------------- the audit */

/* A room that a slot or a medium block fills. */
static const char *audit_room(uintptr_t start, size_t room_bytes)
{
    seal_word *seal = seal_of((void *)start, room_bytes);
    uint64_t word = seal_load(seal);
    uintptr_t trailer = start + room_bytes - hmm_guard.trailer_bytes;
    if (word != 0) {
        bool is_good =
            seal_is_right(&hmm_guard.key, seal, word) && sites_are_right(seal) &&
            first_nonzero((void *)(trailer - facts_slack(word)), (void *)trailer) == NULL;
        return is_good ? NULL : "G1: a live block has its seal, and its slack is 0";
    }
    uintptr_t content = start + sizeof(struct slot *);
    bool is_zero = content >= trailer || first_nonzero((void *)content, (void *)trailer) == NULL;
    return is_zero ? NULL : "G2: a free slot is 0 but for its link";
}

static const char *audit_slab(const struct granule *slab)
{
    const char *broken = NULL;
    size_t slot_bytes = class_bytes(slab_class(slab));
    if (seal_load(seal_of((void *)granule_start(slab), slot_bytes)) != 0) {
        return "G3: the first slot is never handed out";
    }
    for (uint32_t index = GUARD_FIRST_SLOT; index < slab_carved(slab) && broken == NULL; index++) {
        broken = audit_room(granule_start(slab) + index * slot_bytes, slot_bytes);
    }
    return broken;
}

static bool audit_medium(void *ptr, size_t room_bytes, void *context)
{
    const char **broken = context;
    *broken = audit_room((uintptr_t)ptr, room_bytes);
    return *broken == NULL;
}

static const char *audit_quarantine(const struct quarantine *quarantine)
{
    size_t bytes = 0;
    for (size_t index = 0; index <= hmm_guard.quarantine_mask; index++) {
        const struct held_block *held = &quarantine->blocks[index];
        bytes += held->bytes;
        if (held->ptr != NULL && !held_is_free(held->ptr)) {
            return "G4: a block in quarantine is as it came";
        }
    }
    return bytes == quarantine->bytes && bytes <= hmm_guard.quarantine_bytes
               ? NULL
               : "G4: what is in quarantine is counted and bounded";
}

const char *hmm_guard_audit(void)
{
    const char *broken = NULL;
    for (size_t index = 0; index < hmm_arena.frontier_count && broken == NULL; index++) {
        const struct granule *granule = &hmm_arena.table[index];
        broken = granule_kind(granule) == GRANULE_SLAB ? audit_slab(granule) : NULL;
    }
    if (broken == NULL) {
        hmm_medium_walk(audit_medium, &broken);
    }
    return broken == NULL && thread_is_open(hmm_thread.thread)
               ? audit_quarantine(&hmm_thread.thread->guarded->quarantine)
               : broken;
}
