/*
 * slab.c - slots of one size in a granule. See slab.h.
 */
#include "slab.h"
#include "fence.h"
#include "os.h"
#include "random.h"

enum {
    /* Guarded: after so many slabs a fence. */
    SLABS_BETWEEN_FENCES = 16,
    /* What is looked at before a slot. */
    BEFORE_FIRST_BYTES = 64,
    SLOTS_MAX = GRANULE_BYTES / SLOT_UNIT_BYTES,
};

struct slab_guard hmm_slab_guard;

static void build_fence_now_and_then(void)
{
    static _Atomic unsigned slab_count;
    unsigned count = atomic_fetch_add_explicit(&slab_count, 1, memory_order_relaxed);
    if (count % SLABS_BETWEEN_FENCES == 0) {
        hmm_fence_build();
    }
}

struct granule *hmm_slab_create(unsigned size_class, uintptr_t owner)
{
    if (UNLIKELY(hmm_slab_guard.is_shuffled)) {
        build_fence_now_and_then();
    }
    struct granule *slab = hmm_arena_take(1, 1);
    if (slab == NULL) {
        return NULL;
    }
    slab->free = NULL;
    slab->need = 0;
    atomic_store_explicit(&slab->carved_slots, hmm_slab_guard.first_slot, memory_order_relaxed);
    slab->index_factor = class_index_factor(size_class);
    slab->slot_bytes = (uint32_t)class_bytes(size_class);
    slab->virgin_units = VIRGIN_NONE;
    slab->next = slab->prev = NULL;
    slab->state = SLAB_CURRENT;
    slab->is_zero = !granule_is_touched(slab);
    atomic_store_explicit(&slab->size_class, (uint8_t)size_class, memory_order_relaxed);
    atomic_store_explicit(&slab->remote, 0, memory_order_relaxed);
    atomic_store_explicit(&slab->threshold, class_wake(size_class), memory_order_relaxed);
    granule_set_kind(slab, GRANULE_SLAB);
    granule_set_owner(slab, owner);
    return slab;
}

/* So many slots that the page in which the first one ends is used up. */
static uint32_t carve_count(size_t offset, size_t slot_bytes)
{
    size_t page_bytes = size_min(hmm_os_page_bytes(), GRANULE_BYTES);
    size_t end = size_min(align_up(offset + slot_bytes, page_bytes), GRANULE_BYTES);
    return (uint32_t)((end - offset) / slot_bytes);
}

/* Links the slots in the order of their addresses. */
static struct slot *carve_in_order(uintptr_t start, uint32_t count, size_t slot_bytes)
{
    struct slot *slot = (struct slot *)start;
    for (uint32_t carved = 1; carved < count; carved++) {
        slot->next = (struct slot *)((uintptr_t)slot + slot_bytes);
        slot = slot->next;
    }
    slot->next = NULL;
    return (struct slot *)start;
}

/* In any order, each as likely (Durstenfeld's shuffle). What granules held before is gone. */
static HMM_COLD struct slot *carve_guarded(const struct granule *slab, uintptr_t start,
                                           uint32_t count, size_t slot_bytes)
{
    uint16_t order[SLOTS_MAX];
    uint64_t random = hmm_random_secret();
    if (!slab->is_zero) {
        bool is_first = slab_carved(slab) == hmm_slab_guard.first_slot;
        size_t before_bytes = is_first ? size_min(slot_bytes, BEFORE_FIRST_BYTES) : 0;
        memset((char *)start - before_bytes, 0, count * slot_bytes + before_bytes);
    }
    for (uint32_t i = 0; i < count; i++) {
        order[i] = (uint16_t)i;
        if (hmm_slab_guard.is_shuffled) {
            uint32_t other = (uint32_t)(random >> 32) % (i + 1);
            order[i] = order[other];
            order[other] = (uint16_t)i;
            random = random * 0x5851f42d4c957f2du + 1; /* Knuth's MMIX generator */
        }
    }
    struct slot *next = NULL;
    for (uint32_t i = count; i > 0; i--) {
        struct slot *slot = (struct slot *)(start + order[i - 1] * slot_bytes);
        slot_link(slot, next);
        next = slot;
    }
    return next;
}

struct slot *hmm_slab_carve(struct granule *slab)
{
    size_t slot_bytes = class_bytes(slab_class(slab));
    size_t offset = slab_carved(slab) * slot_bytes;
    uint32_t count = carve_count(offset, slot_bytes);
    uintptr_t start = granule_start(slab) + offset;
    struct slot *first = UNLIKELY(hmm_slab_guard.link_key != 0)
                             ? carve_guarded(slab, start, count, slot_bytes)
                             : carve_in_order(start, count, slot_bytes);
    atomic_store_explicit(&slab->carved_slots, slab_carved(slab) + count, memory_order_relaxed);
    slab->need += count;
    slab->virgin_units = slab->is_zero ? (uint32_t)(offset >> SLOT_UNIT_SHIFT) : VIRGIN_NONE;
    return first;
}

struct slot *hmm_slab_take_free(struct granule *slab)
{
    struct slot *first = slab->free;
    if (first != NULL) {
        slab->free = NULL;
        slab->need = slab_slots(slab);
        slab->virgin_units = VIRGIN_NONE;
    }
    return first;
}

void hmm_slab_put_back(struct granule *slab, struct slot *first)
{
    uint32_t count = 1;
    struct slot *last = first;
    while (slot_next(last) != NULL) {
        last = slot_next(last);
        count++;
    }
    slot_link(last, slab->free);
    slab->free = first;
    slab->need -= count;
    slab->virgin_units = VIRGIN_NONE;
}

void hmm_slab_release(struct granule *slab)
{
    granule_set_owner(slab, 0);
    granule_set_kind(slab, GRANULE_FREE);
    atomic_store_explicit(&slab->remote, 0, memory_order_relaxed);
    hmm_arena_give(slab, 1, 1);
}
