/*
 * parts.c - what resident pages hold. See copy.h.
 *
 * Each mapping's resident bytes, as the kernel counts them, are shared out among the parts. Where
 * memory is HMM's its pages are looked at one by one: which are resident, and which slots, blocks
 * and free memory lie on them. Other mappings are one part each.
 *
 * The kernel's page of zeros is mapped but not counted as resident, and looks like a page that is
 * shared with another process. A mapping's own pages and such ones are added up apart, and the
 * latter count for as much as makes the sum right.
 */
#include "command.h"
#include "copy.h"

#include <stdlib.h>
#include <string.h>

enum {
    PAGES_A_PIECE = 8192,
    PAGES_A_GRANULE_MAX = 16, /* pages are 4 KiB at least */
};

/* Bytes by part. */
struct sums {
    double bytes[PART_KIND_COUNT];
};

struct survey {
    struct reader *reader;
    const struct copy *copy;
    struct snapshot *snapshot;
    size_t page_bytes;
    struct sums sums[PAGE_SHARED + 1]; /* of the mapping at hand, by state of pages */
    size_t piece_at;                   /* where the search for pieces goes on */
    size_t region_at;
    const size_t *piece_order; /* pieces by address */
    const size_t *region_order;
};

static void add(struct survey *survey, enum page_state state, enum part_kind part, double bytes)
{
    survey->sums[state].bytes[part] += bytes;
}

/* --------------------------------------------------------------------------- order of addresses */

/* qsort has no argument of its own. */
static const struct snapshot *ordered;

static int piece_compare(const void *a, const void *b)
{
    uintptr_t left = ordered->pieces[*(const size_t *)a].start;
    uintptr_t right = ordered->pieces[*(const size_t *)b].start;
    return (left > right) - (left < right);
}

static int region_compare(const void *a, const void *b)
{
    uintptr_t left = ordered->regions[*(const size_t *)a].base;
    uintptr_t right = ordered->regions[*(const size_t *)b].base;
    return (left > right) - (left < right);
}

static size_t *order_by(const struct snapshot *snapshot, size_t count,
                        int (*compare)(const void *, const void *))
{
    size_t *order = must_allocate(count, sizeof *order);
    for (size_t i = 0; i < count; i++) {
        order[i] = i;
    }
    ordered = snapshot;
    qsort(order, count, sizeof *order, compare);
    return order;
}

/* ---------------------------------------------------------------------------------------- slabs */

/* The bytes of [start, end) that lie in [low, high). */
static size_t overlap(size_t start, size_t end, size_t low, size_t high)
{
    start = size_max(start, low);
    end = size_min(end, high);
    return start < end ? end - start : 0;
}

/* Of slabs: what a page [low, high) of the granule holds, if which slots are free decides it. */
static void page_of_slots(const uint8_t *states, size_t slot_bytes, size_t low, size_t high,
                          struct sums *sums)
{
    static const enum part_kind parts[] = {[SLOT_UNCARVED] = PART_FREE_SLOTS,
                                           [SLOT_USED] = PART_LIVE_SMALL,
                                           [SLOT_FREE] = PART_FREE_SLOTS,
                                           [SLOT_CACHED] = PART_CACHES};
    for (size_t slot = low / slot_bytes; slot * slot_bytes < high; slot++) {
        sums->bytes[parts[states[slot]]] +=
            (double)overlap(slot * slot_bytes, (slot + 1) * slot_bytes, low, high);
    }
}

/* What lies behind the carved slots on a page [low, high): the last slots may end before the
 * granule does; a page that has no slot yet was brought along, or used before by another slab. */
static void page_of_tail(const struct granule *slab, size_t carved_bytes, size_t usable_bytes,
                         size_t low, size_t high, struct sums *sums)
{
    size_t room_bytes = overlap(carved_bytes, usable_bytes, low, high);
    bool is_brought = copy_flag(&slab->is_zero) && low >= carved_bytes;
    sums->bytes[PART_ROUNDING] += (double)overlap(usable_bytes, GRANULE_BYTES, low, high);
    sums->bytes[is_brought ? PART_HUGE : PART_FREE_SLOTS] += (double)room_bytes;
}

/* Pages without a walk: the shares of the whole slab. */
static void page_of_shares(const struct granule_view *view, size_t bytes, struct sums *sums)
{
    if (bytes == 0) {
        return;
    }
    const double carved = view->carved_slots;
    const double live = view->used_slots / carved;
    const double cached = view->cached_slots / carved;
    sums->bytes[PART_LIVE_SMALL] += (double)bytes * live;
    sums->bytes[PART_CACHES] += (double)bytes * cached;
    sums->bytes[PART_FREE_SLOTS] += (double)bytes * (1 - live - cached);
}

static void slab_survey(struct survey *survey, size_t index, const uint8_t *pages, size_t count)
{
    const struct granule *slab = &survey->copy->granules[index];
    const struct granule_view *view = &survey->snapshot->granules[index];
    const size_t slot_bytes = class_bytes(view->size_class);
    const size_t carved_bytes = copy_carved(slab) * slot_bytes;
    const size_t usable_bytes = GRANULE_BYTES / slot_bytes * slot_bytes;
    static uint8_t states[SLOTS_MAX];
    bool is_whole = true;
    for (size_t page = 0; page < count && page * survey->page_bytes < carved_bytes; page++) {
        is_whole &= pages[page] != PAGE_ABSENT;
    }
    bool has_states = !is_whole && view->used_slots != view->carved_slots &&
                      copy_slot_states(survey->reader, survey->copy, index, states, NULL);
    for (size_t page = 0; page < count; page++) {
        size_t low = page * survey->page_bytes;
        size_t high = low + survey->page_bytes;
        size_t slots_high = size_min(high, size_max(low, carved_bytes));
        struct sums *sums = &survey->sums[pages[page]];
        if (pages[page] == PAGE_ABSENT) {
            continue;
        }
        if (has_states) {
            page_of_slots(states, slot_bytes, low, slots_high, sums);
        } else {
            page_of_shares(view, slots_high - low, sums);
        }
        page_of_tail(slab, carved_bytes, usable_bytes, low, high, sums);
    }
}

/* -------------------------------------------------------------------------------- tagged blocks */

static enum part_kind piece_part(const struct snapshot *snapshot, const struct piece *piece)
{
    if (piece->kind == PIECE_GAP) {
        return PART_OTHER;
    }
    if (piece->kind == PIECE_HELD) {
        return PART_CACHES;
    }
    if (piece->kind != PIECE_USED) {
        return PART_FREE_BLOCKS;
    }
    if (piece->heap < 0) {
        return PART_LIVE_MEDIUM;
    }
    return snapshot->heaps[piece->heap].is_process ? PART_LIVE_BLOCKS : PART_LIVE_HEAPS;
}

static bool is_nested(const struct snapshot *snapshot, const struct piece *piece)
{
    return piece->heap >= 0 && snapshot->heaps[piece->heap].is_nested;
}

/* Shares [low, high) out among the pieces that lie there. What no piece covers is `rest`. */
static void pieces_survey(struct survey *survey, uintptr_t low, uintptr_t high, enum part_kind rest,
                          struct sums *sums)
{
    const struct snapshot *snapshot = survey->snapshot;
    double covered = 0;
    size_t at = survey->piece_at;
    for (; at < snapshot->piece_count; at++) {
        const struct piece *piece = &snapshot->pieces[survey->piece_order[at]];
        const uintptr_t end = piece->start + piece->bytes;
        if (piece->start >= high) {
            break;
        }
        if (end <= low || is_nested(snapshot, piece)) {
            survey->piece_at += at == survey->piece_at && end <= low;
            continue;
        }
        double bytes = (double)overlap(piece->start, end, low, high);
        bool has_tag = piece->kind == PIECE_USED || piece->kind == PIECE_HELD;
        double tag_bytes =
            has_tag ? (double)overlap(piece->start, piece->start + BLOCK_TAG_BYTES, low, high) : 0;
        sums->bytes[PART_ROUNDING] += tag_bytes;
        sums->bytes[piece_part(snapshot, piece)] += bytes - tag_bytes;
        covered += bytes;
    }
    sums->bytes[rest] += (double)(high - low) - covered;
}

/* ------------------------------------------------------------------------------------- granules */

static void granule_survey(struct survey *survey, size_t index, const uint8_t *pages, size_t count)
{
    struct granule_view *view = &survey->snapshot->granules[index];
    if (view->kind == VIEW_SLAB && view->carved_slots != 0) {
        slab_survey(survey, index, pages, count);
        return;
    }
    const uintptr_t start = copy_granule_start(survey->copy, index);
    for (size_t page = 0; page < count; page++) {
        struct sums *sums = &survey->sums[pages[page]];
        uintptr_t low = start + page * survey->page_bytes;
        size_t live_bytes = overlap(0, view->live_bytes, page * survey->page_bytes,
                                    (page + 1) * survey->page_bytes);
        if (pages[page] == PAGE_ABSENT) {
            continue;
        }
        switch (view->kind) {
        case VIEW_ZONE:
            pieces_survey(survey, low, low + survey->page_bytes, PART_ROUNDING, sums);
            break;
        case VIEW_LARGE:
            sums->bytes[PART_LIVE_LARGE] += (double)live_bytes;
            sums->bytes[PART_ROUNDING] += (double)(survey->page_bytes - live_bytes);
            break;
        case VIEW_BEYOND:
            sums->bytes[PART_HUGE] += (double)survey->page_bytes;
            break;
        case VIEW_SLAB:
            sums->bytes[PART_FREE_SLOTS] += (double)survey->page_bytes;
            break;
        default:
            sums->bytes[PART_DIRTY] += (double)survey->page_bytes;
            break;
        }
    }
}

/* Pages of the arena from `start` on, all in one granule. */
static void arena_survey(struct survey *survey, uintptr_t start, const uint8_t *pages, size_t count)
{
    const size_t index = (start - survey->copy->arena.base) >> GRANULE_SHIFT;
    size_t resident_count = 0;
    for (size_t page = 0; page < count; page++) {
        resident_count += pages[page] != PAGE_ABSENT;
    }
    if (index >= survey->snapshot->granule_count) {
        for (size_t page = 0; page < count; page++) {
            add(survey, pages[page], PART_HUGE, (double)survey->page_bytes);
        }
        return;
    }
    survey->snapshot->granules[index].resident_bytes +=
        (uint32_t)(resident_count * survey->page_bytes);
    if (resident_count == 0) {
        return;
    }
    /* A mapping may begin or end inside a granule. */
    uint8_t whole[PAGES_A_GRANULE_MAX] = {0};
    const size_t first = (start & (GRANULE_BYTES - 1)) / survey->page_bytes;
    memcpy(whole + first, pages, count);
    granule_survey(survey, index, whole, first + count);
}

/* ------------------------------------------------------------------------------------- mappings */

static const struct region *region_at(struct survey *survey, uintptr_t address)
{
    const struct copy *copy = survey->copy;
    for (; survey->region_at < copy->region_count; survey->region_at++) {
        const struct region_copy *found = &copy->regions[survey->region_order[survey->region_at]];
        if (address < region_end(&found->region) && !copy->heaps[found->heap].is_nested) {
            return address >= align_down(found->region.base, survey->page_bytes) ? &found->region
                                                                                 : NULL;
        }
    }
    return NULL;
}

/* One page that is not the arena's. */
static void page_survey(struct survey *survey, uintptr_t start, enum page_state state,
                        enum part_kind other)
{
    const struct address_range metadata = copy_metadata(survey->copy);
    const uintptr_t end = start + survey->page_bytes;
    const struct region *region = region_at(survey, start);
    if (state == PAGE_ABSENT) {
        return;
    }
    if (start >= metadata.start && start < metadata.end) {
        add(survey, state, PART_METADATA, (double)survey->page_bytes);
    } else if (region != NULL) {
        const uintptr_t first = size_max(region->first, region->base);
        const size_t before_bytes = overlap(0, region->base, start, end);
        const size_t header_bytes = overlap(region->base, first, start, end);
        const uintptr_t low = size_min(size_max(start, first), end);
        add(survey, state, other, (double)before_bytes);
        add(survey, state, PART_METADATA, (double)header_bytes);
        pieces_survey(survey, low, end, PART_FREE_BLOCKS, &survey->sums[state]);
    } else {
        add(survey, state, other, (double)survey->page_bytes);
    }
}

/* How many pages from `start` on lie in one granule; 0: not in the arena. */
static size_t pages_in_granule(const struct survey *survey, uintptr_t start, size_t count)
{
    const struct arena *arena = &survey->copy->arena;
    if (start - arena->base >= arena->bytes) {
        return 0;
    }
    size_t rest_bytes = GRANULE_BYTES - (start & (GRANULE_BYTES - 1));
    return size_min(count, size_max(1, rest_bytes / survey->page_bytes));
}

/* What a core does not hold is absent, however far a damaged one says that it reaches. */
static bool mapping_pages_survey(struct survey *survey, const struct mapping_view *mapping,
                                 enum part_kind other)
{
    static uint8_t pages[PAGES_A_PIECE];
    const uintptr_t end =
        size_min(mapping->end, mapping->start + align_up(mapping->held_bytes, survey->page_bytes));
    for (uintptr_t start = mapping->start; start < end;) {
        size_t count = size_min((end - start) / survey->page_bytes, PAGES_A_PIECE);
        if (count == 0 || !survey->reader->ops->pages(survey->reader, start, count, pages)) {
            return false;
        }
        for (size_t page = 0; page < count;) {
            uintptr_t at = start + page * survey->page_bytes;
            size_t in_granule = pages_in_granule(survey, at, count - page);
            if (in_granule != 0) {
                arena_survey(survey, at, pages + page, in_granule);
            } else {
                page_survey(survey, at, pages[page], other);
            }
            page += size_max(1, in_granule);
        }
        start += count * survey->page_bytes;
    }
    return true;
}

static double sum(const struct sums *sums)
{
    double bytes = 0;
    for (int part = 0; part < PART_KIND_COUNT; part++) {
        bytes += sums->bytes[part];
    }
    return bytes;
}

/* ---------------------------------------------------------------------------------------- parts */

static void part_add(struct snapshot *snapshot, enum part_kind kind, const char *detail,
                     size_t bytes)
{
    char *name = NULL;
    if (bytes == 0) {
        return;
    }
    if (asprintf(&name, "%s%s%s", part_kind_name(kind), detail[0] != '\0' ? ": " : "", detail) <
        0) {
        exit(EXIT_TROUBLE);
    }
    for (size_t i = 0; i < snapshot->part_count; i++) {
        if (strcmp(snapshot->parts[i].name, name) == 0) {
            snapshot->parts[i].bytes += bytes;
            free(name);
            return;
        }
    }
    snapshot->parts = must_grow(snapshot->parts, snapshot->part_count + 1, sizeof *snapshot->parts);
    snapshot->parts[snapshot->part_count++] = (struct part){kind, name, bytes};
}

/* What other memory is called: the file, or what the kernel says. */
static const char *other_name(const struct mapping_view *mapping)
{
    return mapping->name[0] != '\0' ? mapping->name : "anonymous memory";
}

/* Shares the kernel's count of the mapping out as the pages say. The remainder of rounding to whole
 * bytes goes to the largest, so that nothing is lost. */
static void mapping_share(struct survey *survey, const struct mapping_view *mapping,
                          enum part_kind other)
{
    const double resident = (double)mapping->resident_bytes;
    const double own = sum(&survey->sums[PAGE_OWN]);
    const double shared = sum(&survey->sums[PAGE_SHARED]);
    double weight = shared > 0 ? (resident - own) / shared : 0;
    weight = weight < 0 ? 0 : weight > 1 ? 1 : weight;
    const double counted = own + weight * shared;
    const double scale = counted > 0 ? resident / counted : 0;
    size_t bytes[PART_KIND_COUNT];
    size_t left_bytes = mapping->resident_bytes;
    size_t largest = other;
    for (size_t part = 0; part < PART_KIND_COUNT; part++) {
        double exact = scale * (survey->sums[PAGE_OWN].bytes[part] +
                                weight * survey->sums[PAGE_SHARED].bytes[part]);
        bytes[part] = size_min((size_t)exact, left_bytes);
        left_bytes -= bytes[part];
        largest = bytes[part] > bytes[largest] ? part : largest;
    }
    bytes[largest] += left_bytes;
    for (int part = 0; part < PART_KIND_COUNT; part++) {
        part_add(survey->snapshot, (enum part_kind)part,
                 part == PART_OTHER ? other_name(mapping) : "", bytes[part]);
    }
}

/* Whether something of HMM's lies in the mapping. */
static bool is_mixed(const struct survey *survey, const struct mapping_view *mapping)
{
    const struct copy *copy = survey->copy;
    const struct address_range metadata = copy_metadata(copy);
    if (mapping->start < metadata.end && mapping->end > metadata.start) {
        return true;
    }
    if (mapping->start < copy->arena.base + copy->arena.bytes && mapping->end > copy->arena.base) {
        return true;
    }
    for (size_t i = 0; i < copy->region_count; i++) {
        const struct region *region = &copy->regions[i].region;
        if (mapping->start < region_end(region) && mapping->end > region->base) {
            return true;
        }
    }
    return false;
}

static int part_compare(const void *a, const void *b)
{
    const struct part *left = a;
    const struct part *right = b;
    if (left->kind != right->kind) {
        return left->kind < right->kind ? -1 : 1;
    }
    return (left->bytes < right->bytes) - (left->bytes > right->bytes);
}

void snapshot_add_parts(struct reader *reader, const struct copy *copy, struct snapshot *snapshot)
{
    struct survey survey = {
        .reader = reader,
        .copy = copy,
        .snapshot = snapshot,
        .page_bytes = reader->page_bytes,
    };
    size_t *piece_order = order_by(snapshot, snapshot->piece_count, piece_compare);
    size_t *region_order = order_by(snapshot, snapshot->region_count, region_compare);
    survey.piece_order = piece_order;
    survey.region_order = region_order;
    for (size_t i = 0; i < snapshot->mapping_count; i++) {
        const struct mapping_view *mapping = &snapshot->mappings[i];
        const enum part_kind other = is_library_path(mapping->name) ? PART_LIBRARY : PART_OTHER;
        if (mapping->resident_bytes == 0) {
            continue;
        }
        memset(survey.sums, 0, sizeof survey.sums);
        if (is_mixed(&survey, mapping)) {
            snapshot->has_changed |= !mapping_pages_survey(&survey, mapping, other);
        }
        mapping_share(&survey, mapping, other);
    }
    free(piece_order);
    free(region_order);
    qsort(snapshot->parts, snapshot->part_count, sizeof *snapshot->parts, part_compare);
    for (size_t i = 0; i < snapshot->part_count; i++) {
        bool is_heap = snapshot->parts[i].kind < PART_LIBRARY;
        snapshot->totals.resident_heap_bytes += is_heap ? snapshot->parts[i].bytes : 0;
    }
}
