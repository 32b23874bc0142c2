/*
 * copy_heaps.c - copies the target's block heaps: the process's own and created ones, their
 * regions, and what hardened ones hold back. See copy.h.
 */
#include "copy.h"

#include <stdlib.h>

/* More than any heap has; a list that is longer is a loop. */
enum { REGIONS_MAX = 1 << 16 };

static bool region_is_sane(const struct region *region)
{
    return region->base <= region->brk && region->brk <= region->limit &&
           (region->first == 0 || (region->first > region->base && region->first < region->brk));
}

static bool is_in_other_heap(const struct copy *copy, uintptr_t address)
{
    for (size_t i = 0; i < copy->region_count; i++) {
        const struct region *region = &copy->regions[i].region;
        if (address > region->first && address < region->brk) {
            return true;
        }
    }
    return false;
}

static void heap_regions_copy(struct reader *reader, struct copy *copy, struct heap_copy *heap)
{
    uintptr_t address = (uintptr_t)heap->handle.heap.regions;
    heap->first_region = copy->region_count;
    heap->is_nested = is_in_other_heap(copy, heap->address);
    while (address != 0) {
        struct region_copy region = {.heap = copy->heap_count};
        if (heap->region_count == REGIONS_MAX ||
            !reader_copy(reader, address, &region.region, sizeof region.region) ||
            !region_is_sane(&region.region)) {
            copy_trouble(copy, "E1: base, first, break and limit of a region are in order");
            return;
        }
        copy->regions = must_grow(copy->regions, copy->region_count + 1, sizeof *copy->regions);
        copy->regions[copy->region_count++] = region;
        heap->region_count++;
        address = (uintptr_t)region.region.next;
    }
}

static bool is_heap(const HmmHeap *handle)
{
    return handle->magic == HANDLE_MAGIC || handle->magic == HANDLE_MAGIC_GUARDED;
}

/* What a hardened heap holds back. */
static void heap_places_copy(struct reader *reader, struct copy *copy, struct heap_copy *heap)
{
    const uintptr_t address = (uintptr_t)handle_guard((const HmmHeap *)heap->address);
    struct heap_guard guard;
    if (heap->handle.magic != HANDLE_MAGIC_GUARDED) {
        return;
    }
    if (!reader_copy(reader, address, &guard, sizeof guard) ||
        guard.place_count > GUARD_PLACES_MAX ||
        !reader_copy(reader, address + offsetof(struct heap_guard, places), heap->places,
                     guard.place_count * sizeof heap->places[0])) {
        copy_trouble(copy, "Q3: a hardened heap has a quarantine");
        return;
    }
    const struct heap *live = &heap->handle.heap;
    const size_t tag_bytes = guard.held_count * BLOCK_TAG_BYTES;
    heap->held_count = size_min(guard.held_count, live->live_count);
    heap->held_bytes = size_min(size_less(guard.held_bytes, tag_bytes), live->live_bytes);
    qsort(heap->places, GUARD_PLACES_MAX, sizeof heap->places[0], address_compare);
}

/* Returns the next created heap. `link`: what points to this one, 0: it is the process's. */
static uintptr_t heap_copy(struct reader *reader, struct copy *copy, uintptr_t address,
                           uintptr_t link)
{
    struct heap_copy heap = {.address = address, .is_process = link == 0};
    if (!reader_copy(reader, address, &heap.handle, sizeof heap.handle) || !is_heap(&heap.handle)) {
        copy_trouble(copy, "H1: a list of heaps leads to heaps");
        return 0;
    }
    /* In a ring something points to a heap that does not know of it. */
    if (link != 0 && (uintptr_t)heap.handle.registry_link != link) {
        copy_trouble(copy, "H1: a heap on the list knows what points to it");
        return 0;
    }
    heap_regions_copy(reader, copy, &heap);
    heap_places_copy(reader, copy, &heap);
    copy->heaps = must_grow(copy->heaps, copy->heap_count + 1, sizeof *copy->heaps);
    copy->heaps[copy->heap_count++] = heap;
    return (uintptr_t)heap.handle.registry_next;
}

bool copy_heaps(struct reader *reader, struct copy *copy)
{
    uintptr_t link = (uintptr_t)reader->root.created;
    uintptr_t address = 0;
    if (!reader_copy(reader, link, &address, sizeof address)) {
        return false;
    }
    if (copy->heap != 0) {
        (void)heap_copy(reader, copy, copy->heap, 0);
    }
    while (address != 0) {
        uintptr_t next = heap_copy(reader, copy, address, link);
        link = address + offsetof(HmmHeap, registry_next);
        address = next;
    }
    return true;
}

bool copy_refresh_heap(struct reader *reader, struct copy *copy, size_t heap)
{
    struct heap_copy *copied = &copy->heaps[heap];
    target_forget(reader);
    if (!reader_copy(reader, copied->address, &copied->handle, sizeof copied->handle)) {
        return false;
    }
    uintptr_t address = (uintptr_t)copied->handle.heap.regions;
    size_t count = 0;
    for (; address != 0 && count < copied->region_count; count++) {
        struct region *region = &copy->regions[copied->first_region + count].region;
        if (!reader_copy(reader, address, region, sizeof *region) || !region_is_sane(region)) {
            return false;
        }
        address = (uintptr_t)region->next;
    }
    return address == 0 && count == copied->region_count;
}
