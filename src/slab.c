/*
 * slab.c - slots of one size in a granule. See slab.h.
 */
#include "slab.h"
#include "fence.h"
#include "huge.h"
#include "medium.h"
#include "os.h"
#include "purge.h"
#include "random.h"

enum {
    /* Guarded: after so many slabs a fence. */
    SLABS_BETWEEN_FENCES = 16,
    /* What is looked at before a slot. */
    BEFORE_FIRST_BYTES = 64,
    PAGE_BYTES_MIN = 4096,
    /* Where so much is taken, so many bytes are touched at once: docs/experiments.md. */
    AHEAD_COUNT_MIN = (8 << 20) / GRANULE_BYTES,
    AHEAD_BYTES = 16 << 10,
    SLOTS_MAX = GRANULE_BYTES / SLOT_UNIT_BYTES,
    /* So many neighbours are shuffled, or all of a page; in the secure library, where what a
     * program makes together lies together: docs/experiments.md. */
    SHUFFLED_SLOTS = HMM_SECURE ? 4 : SLOTS_MAX,
};

static _Atomic bool is_not_ahead; /* the system cannot */

static void build_fence_now_and_then(void)
{
    static _Atomic size_t slab_count;
    size_t count = atomic_fetch_add_explicit(&slab_count, 1, memory_order_relaxed);
    size_t taken_count = atomic_load_explicit(&hmm_arena.taken_count, memory_order_relaxed);
    if (count % SLABS_BETWEEN_FENCES == 0) {
        hmm_fence_build(1 + taken_count / SLABS_BETWEEN_FENCES);
    }
}

struct granule *hmm_slab_create(unsigned size_class, uintptr_t owner)
{
    if (UNLIKELY(hmm_settings.slabs.is_shuffled)) {
        build_fence_now_and_then();
    }
    struct granule *slab = hmm_arena_take(1, 1);
    if (slab == NULL) {
        return NULL;
    }
    slab->free = NULL;
    slab->need = 0;
    atomic_store_explicit(&slab->carved_slots, hmm_settings.slabs.first_slot, memory_order_relaxed);
    slab->index_factor = class_index_factor(size_class);
    slab->slot_bytes = (uint32_t)class_bytes(size_class);
    slab->slot_fraction = class_slot_fraction(size_class);
    slab->virgin_units = VIRGIN_NONE;
    slab->next = slab->prev = NULL;
    slab->state = SLAB_CURRENT;
    slab->floor_slots = slab->loose_slots = 0;
    atomic_store_explicit(&slab->away, 0, memory_order_relaxed);
    slab->is_zero = !granule_is_touched(slab);
    atomic_store_explicit(&slab->size_class, (uint8_t)size_class, memory_order_relaxed);
    atomic_store_explicit(&slab->remote, 0, memory_order_relaxed);
    atomic_store_explicit(&slab->threshold, class_wake(size_class), memory_order_relaxed);
    hmm_purge_count_untouched((ptrdiff_t)slab_untouched_bytes(slab));
    granule_set_kind(slab, GRANULE_SLAB);
    granule_set_owner(slab, owner);
    return slab;
}

/* So many slots that the page in which the first one ends is used up. */
static uint32_t carve_count(size_t offset, size_t slot_bytes)
{
    size_t page = size_min(hmm_os_page_bytes(), GRANULE_BYTES);
    size_t end = size_min(align_up(offset + slot_bytes, page), GRANULE_BYTES);
    return (uint32_t)((end - offset) / slot_bytes);
}

/* A slot that nobody has had counts as freed (S5). Where there is a guard, seals tell. */
static void mark_free(const struct granule *slab, struct slot *slot)
{
    if (HMM_FREE_CHECKS && hmm_settings.slabs.link_key == 0) {
        slot->mark = slot_free_mark(slab, slot);
    }
}

/* Links the slots in the order of their addresses. */
static struct slot *carve_in_order(const struct granule *slab, uintptr_t start, uint32_t count,
                                   size_t slot_bytes)
{
    struct slot *slot = (struct slot *)start;
    mark_free(slab, slot);
    for (uint32_t carved = 1; carved < count; carved++) {
        slot->next = (struct slot *)((uintptr_t)slot + slot_bytes);
        slot = slot->next;
        mark_free(slab, slot);
    }
    slot->next = NULL;
    return (struct slot *)start;
}

/* In any order, each as likely (Durstenfeld's shuffle), or so among a few neighbours. What granules
 * held before is gone. The order is noted in the slots' second words, which are 0 again in the end:
 * coroutines have little stack. */
static HMM_NOINLINE struct slot *carve_guarded(const struct granule *slab, uintptr_t start,
                                               uint32_t count, size_t slot_bytes)
{
    uint64_t random = hmm_random_secret();
    if (!slab->is_zero) {
        bool is_first = slab_carved(slab) == hmm_settings.slabs.first_slot;
        size_t before_bytes = is_first ? size_min(slot_bytes, BEFORE_FIRST_BYTES) : 0;
        memset((char *)start - before_bytes, 0, count * slot_bytes + before_bytes);
    }
    for (uint32_t i = 0; i < count; i++) {
        struct slot *slot = (struct slot *)(start + i * slot_bytes);
        slot->mark = i;
        if (hmm_settings.slabs.is_shuffled) {
            uint32_t other = i - (uint32_t)((random >> 32) * (i % SHUFFLED_SLOTS + 1) >> 32);
            struct slot *other_slot = (struct slot *)(start + other * slot_bytes);
            slot->mark = other_slot->mark;
            other_slot->mark = i;
            random = random_step(random);
        }
    }
    struct slot *next = NULL;
    for (uint32_t i = count; i > 0; i--) {
        struct slot *note = (struct slot *)(start + (i - 1) * slot_bytes);
        struct slot *slot = (struct slot *)(start + note->mark * slot_bytes);
        note->mark = 0;
        slot_link(slot, next);
        next = slot;
    }
    return next;
}

/* A large heap will soon touch the pages that follow, too: one call instead of a fault for each.
 * Slots of [offset, offset + bytes) are about to be carved. */
static void touch_ahead(const struct granule *slab, size_t offset, size_t bytes)
{
    size_t ahead = align_up(offset, AHEAD_BYTES);
    bool is_wanted = slab->is_zero && ahead < offset + bytes && ahead < GRANULE_BYTES &&
                     hmm_os_page_bytes() < AHEAD_BYTES;
    if (!is_wanted || atomic_load_explicit(&is_not_ahead, memory_order_relaxed) ||
        atomic_load_explicit(&hmm_arena.taken_count, memory_order_relaxed) < AHEAD_COUNT_MIN ||
        slab->is_populated) {
        return;
    }
    if (!hmm_huge_touch_small((void *)(granule_start(slab) + ahead), AHEAD_BYTES)) {
        atomic_store_explicit(&is_not_ahead, true, memory_order_relaxed);
    }
}

static struct slot *carve_next(struct granule *slab, bool is_one_of_many)
{
    size_t slot_bytes = class_bytes(slab_class(slab));
    size_t offset = slab_carved(slab) * slot_bytes;
    uint32_t count = carve_count(offset, slot_bytes);
    uintptr_t start = granule_start(slab) + offset;
    if (is_one_of_many) {
        touch_ahead(slab, offset, count * slot_bytes);
    }
    struct slot *first = UNLIKELY(hmm_settings.slabs.link_key != 0)
                             ? carve_guarded(slab, start, count, slot_bytes)
                             : carve_in_order(slab, start, count, slot_bytes);
    if (slab_untouched_bytes(slab) != 0) {
        hmm_purge_count_untouched(-(ptrdiff_t)(count * slot_bytes));
    }
    atomic_store_explicit(&slab->carved_slots, slab_carved(slab) + count, memory_order_relaxed);
    slab->need += count;
    slab->virgin_units = slab->is_zero ? (uint32_t)(offset >> SLOT_UNIT_SHIFT) : VIRGIN_NONE;
    return first;
}

/* ----------------------------------------------------------------------------------- pages away */

/* Slots, or pages: from first to before end. */
struct stretch {
    uint32_t first;
    uint32_t end;
};

/* Every thread finds the same. */
static size_t page_bytes(void)
{
    static _Atomic size_t found_bytes;
    size_t bytes = atomic_load_explicit(&found_bytes, memory_order_relaxed);
    if (UNLIKELY(bytes == 0)) {
        bytes = hmm_os_page_bytes();
        atomic_store_explicit(&found_bytes, bytes, memory_order_relaxed);
    }
    return bytes;
}

static struct stretch span_widen(size_t start_bytes, size_t end_bytes, size_t unit_bytes)
{
    return (struct stretch){(uint32_t)(start_bytes / unit_bytes),
                            (uint32_t)((end_bytes + unit_bytes - 1) / unit_bytes)};
}

/* The carved slots that lie on the pages, wholly or in part. */
static struct stretch slots_on(const struct granule *slab, struct stretch pages)
{
    struct stretch slots = span_widen(pages.first * page_bytes(), pages.end * page_bytes(),
                                      class_bytes(slab_class(slab)));
    slots.end = slots.end < slab_carved(slab) ? slots.end : slab_carved(slab);
    return slots;
}

/* A bit for each of the pages. */
static unsigned pages_set(struct stretch pages)
{
    return (1u << pages.end) - (1u << pages.first);
}

/* A bit for each page on which the slot lies. */
static unsigned pages_under(const struct granule *slab, uint32_t slot)
{
    size_t slot_bytes = class_bytes(slab_class(slab));
    return pages_set(span_widen(slot * slot_bytes, (slot + 1) * slot_bytes, page_bytes()));
}

/* Takes the lowest pages that are adjacent out of the set, which is not empty. */
static struct stretch next_pages(unsigned *set)
{
    struct stretch pages = {bit_lowest(*set), 0};
    pages.end = pages.first + bit_lowest(~(*set >> pages.first));
    *set &= ~pages_set(pages);
    return pages;
}

static struct slot *slot_number(const struct granule *slab, uint32_t slot)
{
    return (struct slot *)(granule_start(slab) + slot * class_bytes(slab_class(slab)));
}

/* No slot is on two of the stretches: what lies between them is not free, so a slot
 * ends there (S6). */
uint32_t hmm_slab_away_slots(const struct granule *slab)
{
    uint32_t count = 0;
    unsigned away = slab_away(slab);
    while (away != 0) {
        struct stretch slots = slots_on(slab, next_pages(&away));
        count += slots.end - slots.first;
    }
    return count;
}

static void set_away(struct granule *slab, unsigned away)
{
    ptrdiff_t more = (ptrdiff_t)bit_count(away) - (ptrdiff_t)bit_count(slab_away(slab));
    atomic_store_explicit(&slab->away, (uint16_t)away, memory_order_relaxed);
    if (more != 0) {
        hmm_purge_count_away(more * (ptrdiff_t)page_bytes());
    }
}

/* The slots on the pages, but for those that reach into pages which are away, in front of the
 * list. */
static struct slot *relink(struct granule *slab, struct stretch pages, unsigned away,
                           struct slot *list, uint32_t *count)
{
    struct stretch slots = slots_on(slab, pages);
    for (uint32_t slot = slots.end; slot > slots.first; slot--) {
        if ((pages_under(slab, slot - 1) & away) == 0) {
            struct slot *back = slot_number(slab, slot - 1);
            slot_link(back, list);
            mark_free(slab, back);
            list = back;
            (*count)++;
        }
    }
    return list;
}

static HMM_COLD bool is_all_away(const struct granule *slab)
{
    return bit_count(slab_away(slab)) * page_bytes() == GRANULE_BYTES;
}

/* The pages are not away any more, and their slots in front of the list. */
static struct slot *recall(struct granule *slab, struct stretch pages, struct slot *list,
                           uint32_t *count)
{
    set_away(slab, slab_away(slab) & ~pages_set(pages));
    return relink(slab, pages, slab_away(slab), list, count);
}

/* The lowest page that is away, or more where a slot needs more. */
static struct slot *carve_again(struct granule *slab)
{
    struct slot *list = NULL;
    uint32_t count = 0;
    size_t bytes = 0;
    while (list == NULL && slab_away(slab) != 0) {
        uint32_t page = bit_lowest(slab_away(slab));
        list = recall(slab, (struct stretch){page, page + 1}, NULL, &count);
        bytes += page_bytes();
    }
    slab->need += count;
    slab->virgin_units = VIRGIN_NONE;
    hmm_purge_regret(bytes);
    return list;
}

struct slot *hmm_slab_carve(struct granule *slab, bool is_one_of_many)
{
    return slab_has_uncarved(slab) ? carve_next(slab, is_one_of_many) : carve_again(slab);
}

/* Adds the slot's bytes to those that are free of its pages. */
static void add_free(uint32_t *free_bytes, size_t start, size_t end)
{
    while (start < end) {
        size_t part_end = size_min(end, align_down(start, page_bytes()) + page_bytes());
        free_bytes[start / page_bytes()] += (uint32_t)(part_end - start);
        start = part_end;
    }
}

/* The pages on which everything is on the list, or on pages that are away, and those. Memory that
 * is not carved yet does not count, but behind the last slot that there is room for. */
static unsigned free_pages(const struct granule *slab, const struct slot *list, unsigned away)
{
    uint32_t free_bytes[GRANULE_BYTES / PAGE_BYTES_MIN] = {0};
    const size_t slot_bytes = class_bytes(slab_class(slab));
    for (const struct slot *slot = list; slot != NULL; slot = slab_next(slab, slot)) {
        size_t start = (uintptr_t)slot - granule_start(slab);
        add_free(free_bytes, start, start + slot_bytes);
    }
    while (away != 0) {
        struct stretch slots = slots_on(slab, next_pages(&away));
        add_free(free_bytes, slots.first * slot_bytes, slots.end * slot_bytes);
    }
    if (!slab_has_uncarved(slab)) {
        add_free(free_bytes, slab_carved(slab) * slot_bytes, GRANULE_BYTES);
    }
    unsigned pages = 0;
    for (size_t page = 0; page < GRANULE_BYTES / page_bytes(); page++) {
        pages |= (unsigned)(free_bytes[page] == page_bytes()) << page;
    }
    return pages;
}

/* By its mark, or under guard by its seal, which is 0. Of somebody's slot, or one on its way, an
 * opinion. */
HMM_RACY static bool looks_free(const struct granule *slab, const struct slot *slot)
{
    if (hmm_settings.slabs.link_key == 0) {
        return *(const volatile uintptr_t *)&slot->mark == slot_free_mark(slab, slot);
    }
    const uintptr_t end = (uintptr_t)slot + class_bytes(slab_class(slab));
    return *(const volatile uint64_t *)(end - sizeof(uint64_t)) == 0;
}

/* Slots that are away count as free, and are not touched. */
static bool page_looks_free(const struct granule *slab, unsigned away, uint32_t page)
{
    const size_t carved_bytes = slab_carved(slab) * class_bytes(slab_class(slab));
    const struct stretch slots = slots_on(slab, (struct stretch){page, page + 1});
    bool is_free = !slab_has_uncarved(slab) || (page + 1) * page_bytes() <= carved_bytes;
    for (uint32_t slot = slots.first; is_free && slot < slots.end; slot++) {
        is_free = (away != 0 && (pages_under(slab, slot) & away) != 0) ||
                  looks_free(slab, slot_number(slab, slot));
    }
    return is_free;
}

/* Whether so much may go. The list says surely which slots are free, but in the order in which they
 * were freed: to follow it is a cache miss a slot. A page that is not free mostly shows that by the
 * first slot or the second. */
static bool looks_worth_purging(const struct granule *slab, unsigned away, size_t least_bytes)
{
    if (!HMM_FREE_CHECKS) {
        return true;
    }
    size_t bytes = 0;
    for (uint32_t page = 0; page < GRANULE_BYTES / page_bytes() && bytes < least_bytes; page++) {
        const bool is_away = (away >> page & 1) != 0;
        bytes += !is_away && page_looks_free(slab, away, page) ? page_bytes() : 0;
    }
    return bytes >= least_bytes;
}

/* Takes the slots on the pages off the list, which is whole at any moment (S6). Returns the last of
 * those that stay. */
static struct slot *unlink_slots(const struct granule *slab, struct slot **list, unsigned pages)
{
    struct slot *last = NULL;
    for (struct slot *slot = *list; slot != NULL; slot = slab_next(slab, slot)) {
        if ((pages_under(slab, slab_index(slab, slot)) & pages) == 0) {
            last = slot;
        } else if (last != NULL) {
            slot_link(last, slab_next(slab, slot));
        } else {
            *list = slab_next(slab, slot);
        }
    }
    return last;
}

/* false: the system has refused. */
static bool purge_stretch(const struct granule *slab, struct stretch pages)
{
    return hmm_purge_pages(granule_start(slab) + pages.first * page_bytes(),
                           (pages.end - pages.first) * page_bytes());
}

size_t hmm_slab_purge(struct granule *slab, size_t least_bytes)
{
    if (page_bytes() >= GRANULE_BYTES || !looks_worth_purging(slab, slab_away(slab), least_bytes)) {
        return 0;
    }
    unsigned pages = free_pages(slab, slab->free, slab_away(slab)) & ~slab_away(slab);
    if (pages == 0 || bit_count(pages) * page_bytes() < least_bytes) {
        return 0;
    }
    size_t purged_bytes = 0;
    hmm_huge_withdraw();
    (void)unlink_slots(slab, &slab->free, pages);
    atomic_signal_fence(memory_order_seq_cst);
    set_away(slab, slab_away(slab) | pages);
    while (pages != 0) {
        struct stretch span = next_pages(&pages);
        if (purge_stretch(slab, span)) {
            purged_bytes += (span.end - span.first) * page_bytes();
        } else {
            uint32_t count = 0;
            slab->free = recall(slab, span, slab->free, &count);
        }
    }
    return purged_bytes;
}

/* The last of a list of so many slots at most. NULL: there is none, or the list is longer, because
 * somebody has damaged it. */
static struct slot *list_last(const struct granule *slab, struct slot *slot, uint32_t most_count)
{
    struct slot *last = NULL;
    for (uint32_t count = 0; slot != NULL && count < most_count; count++) {
        last = slot;
        slot = slab_next(slab, slot);
    }
    return slot == NULL ? last : NULL;
}

void hmm_slab_thin(struct granule *slab, struct slot_chain *chain)
{
    const unsigned away = slab_away(slab) | chain->thin_pages; /* an opinion of the former */
    if (page_bytes() > GRANULE_BYTES || !looks_worth_purging(slab, away, STAGE_BYTES)) {
        return;
    }
    if (list_last(slab, chain->head, chain->count) != chain->tail) {
        return;
    }
    unsigned pages = free_pages(slab, chain->head, chain->thin_pages) & ~chain->thin_pages;
    if (bit_count(pages) * page_bytes() < STAGE_BYTES) {
        return;
    }
    unsigned refused = 0;
    chain->tail = unlink_slots(slab, &chain->head, pages);
    chain->thin_pages |= pages;
    hmm_purge_count_away((ptrdiff_t)(bit_count(pages) * page_bytes()));
    while (pages != 0) {
        struct stretch span = next_pages(&pages);
        refused |= purge_stretch(slab, span) ? 0 : pages_set(span);
    }
    if (refused == 0) {
        return;
    }
    uint32_t count = 0;
    chain->thin_pages &= ~refused;
    hmm_purge_count_away(-(ptrdiff_t)(bit_count(refused) * page_bytes()));
    while (refused != 0) {
        chain->head = relink(slab, next_pages(&refused), chain->thin_pages, chain->head, &count);
    }
    chain->tail = list_last(slab, chain->head, chain->count);
}

/* ------------------------------------------------------------------------------------- the rest */

struct slot *hmm_slab_take_free(struct granule *slab)
{
    struct slot *first = slab->free;
    if (first != NULL) {
        slab->free = NULL;
        slab->need = slab_slots(slab) - hmm_slab_away_slots(slab);
        slab->virgin_units = VIRGIN_NONE;
    }
    return first;
}

void hmm_slab_put_back(struct granule *slab, struct slot *first)
{
    uint32_t count = 1;
    struct slot *last = first;
    for (struct slot *next = slab_next(slab, first); next != NULL; next = slab_next(slab, next)) {
        last = next;
        count++;
    }
    slot_link(last, slab->free);
    slab->free = first;
    slab->need -= count;
    slab->virgin_units = VIRGIN_NONE;
}

void hmm_slab_release(struct granule *slab)
{
    const bool has_memory = LIKELY(slab_away(slab) == 0) || !is_all_away(slab);
    set_away(slab, 0);
    hmm_purge_count_untouched(-(ptrdiff_t)slab_untouched_bytes(slab));
    granule_set_owner(slab, 0);
    granule_set_kind(slab, GRANULE_FREE);
    atomic_store_explicit(&slab->remote, 0, memory_order_relaxed);
    bool is_touched =
        has_memory && (!slab->is_zero || slab_carved(slab) != hmm_settings.slabs.first_slot);
    if (hmm_settings.slabs.link_key != 0) {
        atomic_store_explicit(&slab->carved_slots, 0, memory_order_relaxed);
    }
    hmm_arena_give(slab, 1, is_touched);
    hmm_medium_purge_excess(ZONES_BYTES_WITH_SLAB);
}
