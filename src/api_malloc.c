/*
 * api_malloc.c - the door for programs that do not know us: the malloc family.
 *
 * Every name that hands out or takes back memory is here, because half a family is worse than
 * none: a block of one allocator would reach the free of another. No policy: each call is one of
 * the Hmm calls and what the manual pages say about its arguments.
 */
#include "alloc.h"
#include "os.h"
#include "purge.h"
#include "stats.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

void *malloc(size_t bytes)
{
    return alloc_fast(bytes);
}

void free(void *ptr)
{
    free_fast(ptr);
}

void *calloc(size_t count, size_t bytes)
{
    return HmmCalloc(count, bytes);
}

void *realloc(void *ptr, size_t bytes)
{
    return HmmRealloc(ptr, bytes);
}

/* Not the one above but the process's: a program, another library before ours, or valgrind may have
 * its own in that one's place, and none in that of reallocarray. */
extern void *realloc_of_process(void *ptr, size_t bytes) __asm__("realloc");

void *reallocarray(void *ptr, size_t count, size_t bytes)
{
    size_t total_bytes;
    if (!size_multiply(count, bytes, &total_bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc_of_process(ptr, total_bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    return HmmAlignedAlloc(alignment, bytes);
}

/* Any alignment is rounded up to the next power of two, as glibc does. */
void *memalign(size_t alignment, size_t bytes)
{
    const size_t alignment_max = SIZE_MAX / 2 + 1;
    if (alignment > alignment_max) {
        errno = EINVAL;
        return NULL;
    }
    if (!is_power_of_two(alignment)) {
        alignment = alignment == 0 ? 1 : (size_t)2 << bit_highest(alignment);
    }
    return HmmAlignedAlloc(alignment, bytes);
}

/* Says how it went by its result, and leaves errno and, on failure, *ptr alone. */
int posix_memalign(void **ptr, size_t alignment, size_t bytes)
{
    if (!is_power_of_two(alignment) || alignment < sizeof(void *)) {
        return EINVAL;
    }
    int saved = errno;
    void *got = HmmAlignedAlloc(alignment, bytes);
    errno = saved;
    if (got == NULL) {
        return ENOMEM;
    }
    *ptr = got;
    return 0;
}

void *valloc(size_t bytes)
{
    return HmmAlignedAlloc(hmm_os_page_bytes(), bytes);
}

size_t malloc_usable_size(void *ptr)
{
    return HmmUsableSize(ptr);
}

void free_sized(void *ptr, size_t bytes);
void free_sized(void *ptr, size_t bytes)
{
    const struct claim claim = {.call = "free_sized", .bytes = bytes, .has_bytes = true};
    if (!free_try(ptr, &claim)) {
        hmm_free_claimed(ptr, &claim);
    }
}

void free_aligned_sized(void *ptr, size_t alignment, size_t bytes);
void free_aligned_sized(void *ptr, size_t alignment, size_t bytes)
{
    const struct claim claim = {
        .call = "free_aligned_sized", .bytes = bytes, .alignment = alignment, .has_bytes = true};
    if (!free_try(ptr, &claim)) {
        hmm_free_claimed(ptr, &claim);
    }
}

/* ------------------------------------------------------------------------- what glibc alone has */

#ifdef __GLIBC__

void *pvalloc(size_t bytes)
{
    size_t page_bytes = hmm_os_page_bytes();
    if (!can_align_up(bytes, page_bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return HmmAlignedAlloc(page_bytes, align_up(size_max(bytes, 1), page_bytes));
}

void cfree(void *ptr);
void cfree(void *ptr)
{
    HmmFree(ptr);
}

/* The names under which glibc itself offers the family. */
void *__libc_malloc(size_t bytes) HMM_ALIAS_OF(malloc);
void __libc_free(void *ptr) HMM_ALIAS_OF(free);
void *__libc_calloc(size_t count, size_t bytes) HMM_ALIAS_OF(calloc);
void *__libc_realloc(void *ptr, size_t bytes) HMM_ALIAS_OF(realloc);
void *__libc_memalign(size_t alignment, size_t bytes) HMM_ALIAS_OF(memalign);
void *__libc_valloc(size_t bytes) HMM_ALIAS_OF(valloc);
void *__libc_pvalloc(size_t bytes) HMM_ALIAS_OF(pvalloc);
void __libc_cfree(void *ptr) HMM_ALIAS_OF(cfree);
int __posix_memalign(void **ptr, size_t alignment, size_t bytes) HMM_ALIAS_OF(posix_memalign);

/* So much free memory may stay; a negative number: all of it. What is to spare memory or time in
 * another malloc's ways is agreed to, because there are programs that do not start without. The
 * others promise something that is not kept here, as M_MMAP_MAX does that the pages of a block
 * never change, which drivers for networks rely on: 0 says so. */
int mallopt(int parameter, int value)
{
    switch (parameter) {
    case M_TRIM_THRESHOLD:
        return hmm_alloc_keep(value < 0 ? SIZE_MAX : (size_t)value);
    case M_MXFAST:
    case M_TOP_PAD:
    case M_MMAP_THRESHOLD:
    case M_ARENA_TEST:
    case M_ARENA_MAX:
        return 1;
    default:
        return 0;
    }
}

int __libc_mallopt(int parameter, int value) HMM_ALIAS_OF(mallopt);

int malloc_trim(size_t pad_bytes)
{
    return hmm_alloc_trim(pad_bytes);
}

#if !__GLIBC_PREREQ(2, 33)
struct mallinfo2 {
    size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};
struct mallinfo2 mallinfo2(void);
#endif

struct mallinfo2 mallinfo2(void)
{
    HmmHeapStats heap;
    hmm_stats_get(&heap);
    return (struct mallinfo2){
        .arena = heap.break_bytes,
        .ordblks = heap.free_count,
        .usmblks = heap.peak_live_bytes,
        .uordblks = heap.live_bytes + heap.overhead_bytes,
        .fordblks = heap.free_bytes,
        .keepcost = hmm_purge_dirty_bytes(),
    };
}

static int clamp_to_int(size_t value)
{
    return value < INT_MAX ? (int)value : INT_MAX;
}

static struct mallinfo process_mallinfo(void)
{
    struct mallinfo2 info = mallinfo2();
    return (struct mallinfo){
        .arena = clamp_to_int(info.arena),
        .ordblks = clamp_to_int(info.ordblks),
        .usmblks = clamp_to_int(info.usmblks),
        .uordblks = clamp_to_int(info.uordblks),
        .fordblks = clamp_to_int(info.fordblks),
        .keepcost = clamp_to_int(info.keepcost),
    };
}

struct mallinfo mallinfo(void)
{
    return process_mallinfo();
}

struct mallinfo __libc_mallinfo(void);
struct mallinfo __libc_mallinfo(void)
{
    return process_mallinfo();
}

/* The free slots of one class as glibc shows free chunks: from the smallest request
 * that they serve. */
static int info_write_sizes(FILE *stream, const HmmStats *stats)
{
    size_t from_bytes = 0;
    int written = fputs("<sizes>\n", stream);
    for (size_t i = 0; written >= 0 && i < stats->class_count; i++) {
        const HmmClassStats *class = &stats->classes[i];
        size_t count = class->cached_count + class->free_count;
        if (count != 0) {
            written =
                fprintf(stream, "  <size from=\"%zu\" to=\"%zu\" total=\"%zu\" count=\"%zu\"/>\n",
                        from_bytes, class->slot_bytes, count * class->slot_bytes, count);
        }
        from_bytes = class->slot_bytes + 1;
    }
    return written < 0 ? written : fputs("</sizes>\n", stream);
}

/* fast: what threads keep for themselves; rest: all else that is free. */
static int info_write_totals(FILE *stream, const HmmStats *stats, const HmmHeapStats *heap)
{
    size_t cached_count = 0;
    for (size_t i = 0; i < stats->class_count; i++) {
        cached_count += stats->classes[i].cached_count;
    }
    size_t cached_bytes = size_min(stats->cached_bytes, heap->free_bytes);
    return fprintf(stream,
                   "<total type=\"fast\" count=\"%zu\" size=\"%zu\"/>\n"
                   "<total type=\"rest\" count=\"%zu\" size=\"%zu\"/>\n",
                   cached_count, cached_bytes, size_less(heap->free_count, cached_count),
                   heap->free_bytes - cached_bytes);
}

static int info_write_system(FILE *stream, const HmmStats *stats, const HmmHeapStats *heap)
{
    return fprintf(stream,
                   "<system type=\"current\" size=\"%zu\"/>\n"
                   "<system type=\"max\" size=\"%zu\"/>\n"
                   "<aspace type=\"total\" size=\"%zu\"/>\n"
                   "<aspace type=\"mprotect\" size=\"%zu\"/>\n",
                   heap->break_bytes, size_max(heap->break_bytes, stats->peak_bytes),
                   stats->mapped_bytes, stats->mapped_bytes);
}

/* The schema of glibc, version 1, with one arena, in which the large blocks lie too. */
int malloc_info(int options, FILE *stream)
{
    if (options != 0 || stream == NULL) {
        errno = EINVAL;
        return -1;
    }
    HmmStats stats;
    HmmHeapStats heap;
    HmmGetStats(&stats);
    hmm_stats_get(&heap);
    bool is_failed =
        fputs("<malloc version=\"1\">\n<heap nr=\"0\">\n", stream) < 0 ||
        info_write_sizes(stream, &stats) < 0 || info_write_totals(stream, &stats, &heap) < 0 ||
        info_write_system(stream, &stats, &heap) < 0 || fputs("</heap>\n", stream) < 0 ||
        info_write_totals(stream, &stats, &heap) < 0 ||
        fputs("<total type=\"mmap\" count=\"0\" size=\"0\"/>\n", stream) < 0 ||
        info_write_system(stream, &stats, &heap) < 0 || fputs("</malloc>\n", stream) < 0;
    return is_failed ? -1 : 0;
}

void malloc_stats(void)
{
    hmm_stats_print();
}

#endif
