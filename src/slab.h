/*
 * slab.h - a granule of equal slots, and the four ways in which it can belong to somebody.
 *
 *     slot 0   1   2   3 ...        carved          capacity
 *      +----+----+----+----+---//---+- - - - - - - -+--+
 *      | in use, in the bin, or free|  not yet      |  |   slots are carved a page at a time
 *      +----+----+----+----+---//---+- - - - - - - -+--+
 *
 * Slots move from the carved part or from the slab's list of free ones into the owner's bin, as a
 * whole list; malloc takes them from there one by one. free puts a slot on the slab's own list and
 * counts `need` down. What 0 means depends on the state, and every transition writes `need`:
 *
 *     current   the bin holds this slab's slots. need counts the slots that are in use, in the bin,
 *               or freed by other threads, but for floor_slots: at 0 all came back, or, where there
 *               are threads, a stage since the bin was filled: a quarter of the slots.
 *     partial   on the thread's partial list, with free slots or some to carve. need counts as
 *               above: at 0 the slab has become emptier by a stage, an eighth of its slots, or it
 *               is empty, and its granule goes back. Pages of it may be away.
 *     thin      on the thread's thin list: as partial, but pages of it are away.
 *     full      on the thread's full list, everything carved, nothing free. need is how many slots
 *               must come back before the slab becomes partial.
 *     shared    owned by nobody: asleep, or woken on the class's list. remote.h says who may do
 *               what.
 *
 * Free pages of a slab that is not empty can be given back: they are away then. The slots that
 * lie on them, wholly or in part, are on no list, until the page is carved again. What a stage
 * has freed is loose: it counts as dirty memory until somebody has looked which pages of the
 * slab are free.
 *
 * S1  need == carved - (length of free) - (slots away) - floor_slots, but for full slabs, whose
 *     need is wake - (length of free), and whose floor_slots and loose_slots are 0. A slot that
 *     guard.h keeps unused is not counted.
 * S2  A thread owns every slab on its lists and no other, and its slots are in no
 *     other thread's bin.
 * S3  A full slab is carved to its end, and nothing of it is away.
 * S4  Slots from virgin_units on have not been handed out since the slab's memory was zero, as long
 *     as they are in the owner's bin or uncarved.
 * S5  A free slot has its mark from when it is carved or freed until it is handed out; a slot in
 *     use has not.
 * S6  A free slot that shares a page with memory away is on such a page itself: it is a slot away.
 *     Slots leave the free list before their page is marked as away, which is before the page goes:
 *     a list that a forked child finds never runs into a page that has lost its content.
 */
#ifndef HMM_SLAB_H
#define HMM_SLAB_H

#include "arena.h"
#include "os.h"
#include "settings.h"
#include "sizeclass.h"

#ifndef HMM_FREE_CHECKS
#define HMM_FREE_CHECKS 1
#endif

enum slab_state { SLAB_CURRENT, SLAB_PARTIAL, SLAB_THIN, SLAB_FULL, SLAB_SHARED };

enum {
    /* A full slab wakes when a sixteenth of it came back, but so many slots at least, of few slots
     * a quarter; and so many at most (docs/experiments.md). */
    WAKE_SHARE = 16,
    WAKE_SLOTS_MIN = 16,
    WAKE_SHARE_OF_FEW = 4,
    WAKE_SLOTS_MAX = 256,
    /* A stage of a slab that becomes emptier; also the least that is worth a look for free pages,
     * and a call that gives some back. */
    STAGE_SHARE = 8,
    /* Slabs of few slots would report at each free: mstress and rptest took 5 and 9 % longer. */
    STAGE_SLOTS_MIN = 8,
    STAGE_BYTES = GRANULE_BYTES / STAGE_SHARE,
    /* One of the current slab, which becomes emptier and fuller all the time. */
    CURRENT_STAGE_BYTES = 2 * STAGE_BYTES,
    /* Larger than any slot's number of units: no slot is virgin. */
    VIRGIN_NONE = GRANULE_BYTES / SLOT_UNIT_BYTES,
};

static inline bool links_are_coded(void)
{
    return HMM_SECURE || UNLIKELY(hmm_settings.slabs.link_key != 0);
}

static inline struct slot *slot_next(const struct slot *slot)
{
    uintptr_t word = (uintptr_t)slot->next;
    return (struct slot *)(links_are_coded()
                               ? link_read((uintptr_t)slot, word, hmm_settings.slabs.link_key)
                               : word);
}

static inline void slot_link(struct slot *slot, struct slot *next)
{
    uintptr_t word = (uintptr_t)next;
    slot->next = (struct slot *)(links_are_coded()
                                     ? link_code((uintptr_t)slot, word, hmm_settings.slabs.link_key)
                                     : word);
}

/* Slots of one slab, linked, on their way; and pages of it that have been given back, whose slots
 * are counted, and not in the list. */
struct slot_chain {
    struct slot *head; /* NULL: all are on such pages */
    struct slot *tail;
    uint32_t count;
    unsigned thin_pages;
};

/* Slabs in a row, in both directions. */
struct slab_list {
    struct granule *first;
    struct granule *last;
    uint32_t count;
};

static inline void slab_list_push(struct slab_list *list, struct granule *slab)
{
    slab->prev = NULL;
    slab->next = list->first;
    *(list->first != NULL ? &list->first->prev : &list->last) = slab;
    list->first = slab;
    list->count++;
}

static inline void slab_list_append(struct slab_list *list, struct granule *slab)
{
    slab->next = NULL;
    slab->prev = list->last;
    *(list->last != NULL ? &list->last->next : &list->first) = slab;
    list->last = slab;
    list->count++;
}

static inline void slab_list_remove(struct slab_list *list, struct granule *slab)
{
    *(slab->prev != NULL ? &slab->prev->next : &list->first) = slab->next;
    *(slab->next != NULL ? &slab->next->prev : &list->last) = slab->prev;
    list->count--;
}

static inline unsigned slab_class(const struct granule *slab)
{
    return atomic_load_explicit(&slab->size_class, memory_order_relaxed);
}

static inline uint32_t class_capacity(unsigned size_class)
{
    return (uint32_t)(GRANULE_BYTES / class_bytes(size_class));
}

static inline uint32_t class_wake(unsigned size_class)
{
    uint32_t capacity = class_capacity(size_class);
    uint32_t wake = (uint32_t)size_max(capacity / WAKE_SHARE,
                                       size_min(capacity / WAKE_SHARE_OF_FEW, WAKE_SLOTS_MIN));
    return (uint32_t)size_min(wake, WAKE_SLOTS_MAX);
}

static inline uint32_t slab_carved(const struct granule *slab)
{
    return atomic_load_explicit(&slab->carved_slots, memory_order_relaxed);
}

/* Offsets in a granule have half as many bits as the product, so each has a product of its
 * own; and that of slot i is i, in the upper half, where the factor is the inverse of the
 * slots' odd part (Warren, Hacker's Delight, exact division), shifted up so that a remainder
 * shows in the lower half. */
enum { INDEX_SHIFT = 16 };

static inline uint32_t class_index_factor(unsigned size_class)
{
    unsigned even_shift = bit_lowest(class_bytes(size_class));
    uint32_t odd = (uint32_t)(class_bytes(size_class) >> even_shift);
    uint32_t inverse = odd; /* right in 3 bits, and in twice as many after each step */
    for (int bits = 3; bits < INDEX_SHIFT * 2; bits *= 2) {
        inverse *= 2 - odd * inverse;
    }
    return inverse << (INDEX_SHIFT - even_shift);
}

/* Of a pointer into the slab. Of one that is not the start of a slot: more than a
 * slab has slots. */
static inline uint32_t slab_index(const struct granule *slab, const void *ptr)
{
    uint32_t product = (uint32_t)((uintptr_t)ptr & (GRANULE_BYTES - 1)) * slab->index_factor;
    return product >> INDEX_SHIFT | product << INDEX_SHIFT;
}

/* One byte as a fraction of a slot, rounded up. The product of an offset and the fraction says in
 * its lower half how far into its slot the offset is (Lemire, Kaser and Kurz 2019: remainders
 * without division). The error is less than a byte because an offset and a slot's size have fewer
 * bits together than the fraction. */
enum { FRACTION_BITS = 32, SMALL_BYTES_SHIFT = 13 };

static_assert(SMALL_BYTES_MAX == 1 << SMALL_BYTES_SHIFT, "the largest slot");
static_assert(GRANULE_SHIFT + SMALL_BYTES_SHIFT <= FRACTION_BITS, "offsets in slots are exact");

static inline uint32_t class_slot_fraction(unsigned size_class)
{
    return UINT32_MAX / (uint32_t)class_bytes(size_class) + 1;
}

/* How many bytes behind the start of its slot a pointer into the slab is. */
static inline size_t slab_slot_offset(const struct granule *slab, const void *ptr)
{
    uint32_t part = (uint32_t)((uintptr_t)ptr & (GRANULE_BYTES - 1)) * slab->slot_fraction;
    return (size_t)((uint64_t)part * slab->slot_bytes >> FRACTION_BITS);
}

/* Whether a pointer into the slab is the start of a slot that has been carved. */
static inline bool slab_is_slot(const struct granule *slab, const void *ptr)
{
    return slab_index(slab, ptr) < slab_carved(slab);
}

/* What the second word of a free slot says. No address is as large as the sum of two, so no program
 * has it there by chance; and an old one, copied, is wrong anywhere else. */
static inline uintptr_t slot_free_mark(const struct granule *slab, const struct slot *slot)
{
    return (uintptr_t)slab + (uintptr_t)slot;
}

/* What follows a free slot of the slab; NULL: nothing, or what is no slot of it, because somebody
 * has written into the free one. Who hands that one out will say so. */
static inline struct slot *slab_next(const struct granule *slab, const struct slot *slot)
{
    struct slot *next = slot_next(slot);
    bool is_near = ((uintptr_t)next ^ (uintptr_t)slot) < GRANULE_BYTES;
    return is_near && slab_is_slot(slab, next) ? next : NULL;
}

/* How many slots can be in use. */
static inline uint32_t slab_slots(const struct granule *slab)
{
    return slab_carved(slab) - hmm_settings.slabs.first_slot;
}

static inline unsigned slab_away(const struct granule *slab)
{
    return atomic_load_explicit(&slab->away, memory_order_relaxed);
}

static inline bool slab_has_uncarved(const struct granule *slab)
{
    return (size_t)(slab_carved(slab) + 1) * class_bytes(slab_class(slab)) <= GRANULE_BYTES;
}

/* What is not carved yet, where nobody has touched that before: it has no memory. */
static inline size_t slab_untouched_bytes(const struct granule *slab)
{
    return slab->is_zero && !slab->is_populated
               ? GRANULE_BYTES - (size_t)slab_carved(slab) * slab->slot_bytes
               : 0;
}

/* Whether there is nothing left to carve, for the first time or again. */
static inline bool slab_is_carved(const struct granule *slab)
{
    return !slab_has_uncarved(slab) && slab_away(slab) == 0;
}

/* Whether nothing of it is free, nor to be carved. */
static inline bool slab_is_used_up(const struct granule *slab)
{
    return slab->free == NULL && slab_is_carved(slab);
}

/* What the `need` of a full slab leaves out (S1): nobody waits for these, once so many others
 * have come back. */
static inline uint32_t slab_unawaited_slots(const struct granule *slab)
{
    return slab_slots(slab) - class_wake(slab_class(slab));
}

static inline uint32_t slab_stage_slots(const struct granule *slab)
{
    const uint32_t bytes = slab->state == SLAB_CURRENT ? CURRENT_STAGE_BYTES : STAGE_BYTES;
    uint32_t slots = (uint32_t)((uint64_t)bytes * slab->slot_fraction >> FRACTION_BITS);
    return slots > STAGE_SLOTS_MIN ? slots : STAGE_SLOTS_MIN;
}

/* The next time that `need` comes to 0 is a stage further on. */
static inline void slab_set_stage(struct granule *slab)
{
    uint32_t stage_slots = slab_stage_slots(slab);
    slab->floor_slots = (uint16_t)(slab->need > stage_slots ? slab->need - stage_slots : 0);
    slab->need -= slab->floor_slots;
}

/* `need` counts all slots again. */
static inline void slab_clear_stage(struct granule *slab)
{
    slab->need += slab->floor_slots;
    slab->floor_slots = 0;
}

/* The slots that are in use, or freed by other threads. Not of a full slab. */
static inline uint32_t slab_used_slots(const struct granule *slab)
{
    return slab->need + slab->floor_slots;
}

/* A slab on a granule of its own, nothing carved. The owner's. NULL: no memory. */
HMM_HIDDEN struct granule *hmm_slab_create(unsigned size_class, uintptr_t owner);

/* Carves the next page, or one that was away, into a list of slots for the bin. NULL:
 * there is none. Where slabs of the class are used up one after the other, pages may be
 * touched in advance. */
HMM_HIDDEN struct slot *hmm_slab_carve(struct granule *slab, bool is_one_of_many);

/* In which unit of the granule a slot begins. */
static inline uint32_t slot_units(const struct slot *slot)
{
    return (uint32_t)(arena_offset(slot) & (GRANULE_BYTES - 1)) >> SLOT_UNIT_SHIFT;
}

/* All free slots as a list for the bin, NULL: there are none. For current slabs. */
HMM_HIDDEN struct slot *hmm_slab_take_free(struct granule *slab);

/* Puts a list of slots that were in the bin back. */
HMM_HIDDEN void hmm_slab_put_back(struct granule *slab, struct slot *first);

/* How many of the carved slots are away. */
HMM_HIDDEN uint32_t hmm_slab_away_slots(const struct granule *slab);

/* Gives the free pages of a slab back, if they are so many bytes at least. The caller has the
 * slab to itself, it is on no list, and nothing of it is in a bin. No lock may be held. How
 * many bytes went. */
HMM_HIDDEN size_t hmm_slab_purge(struct granule *slab, size_t least_bytes);

/* The same with slots that are in use, by the caller, of a slab that may be anybody's: the pages
 * that they fill, if they are a stage at least. */
HMM_HIDDEN HMM_COLD void hmm_slab_thin(struct granule *slab, struct slot_chain *chain);

/* Gives the granule of an empty slab back, which is on no list. */
HMM_HIDDEN void hmm_slab_release(struct granule *slab);

#endif
