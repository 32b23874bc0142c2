/*
 * stats.c - counts what the process heap holds. See stats.h.
 *
 * The table of descriptors is readable from end to end at any time, so whoever counts needs no lock
 * for it. A thread's bins are lists through free slots; while the lock of the threads and the
 * arena's are held no thread's bins and no memory of the arena can vanish, and a list that changes
 * meanwhile may lead astray but not out of the slab that it began in.
 */
#include "stats.h"
#include "alloc.h"
#include "handle_guarded.h"
#include "medium.h"
#include "os.h"
#include "purge.h"
#include "thread_lists.h"

static_assert((int)HMM_CLASS_COUNT_MAX >= CLASS_COUNT, "every class has its line");

/* What HmmStats leaves out. */
struct apart {
    struct medium_stats medium;
    size_t slab_bytes; /* from end to end */
    size_t held_bytes; /* of medium blocks in quarantine: freed, and in use to their zones */
    size_t held_count;
};

/* ------------------------------------------------------------------------------------ the arena */

/* Slots in bins and batches count as live here; the bins are taken off later. */
HMM_RACY static void count_slab(const struct granule *slab, HmmClassStats *class)
{
    unsigned size_class = atomic_load_explicit(&slab->size_class, memory_order_relaxed);
    uint64_t remote = atomic_load_explicit(&slab->remote, memory_order_relaxed);
    size_t carved = atomic_load_explicit(&slab->carved_slots, memory_order_relaxed);
    size_t here = size_less(carved, hmm_settings.slabs.first_slot + hmm_slab_away_slots(slab));
    size_t counted =
        slab->state == SLAB_FULL ? class_wake(size_class) : size_less(here, slab->floor_slots);
    size_t free_count = size_min(size_less(counted, slab->need) + remote_count(remote), here);
    class->slab_count++;
    class->live_count += here - free_count;
    class->free_count += free_count;
}

HMM_RACY static void count_granules(HmmStats *stats, struct apart *apart)
{
    size_t frontier_count = size_min(hmm_arena.frontier_count, hmm_arena.granule_count);
    for (size_t index = 0; index < frontier_count; index++) {
        const struct granule *granule = &hmm_arena.table[index];
        unsigned size_class = atomic_load_explicit(&granule->size_class, memory_order_relaxed);
        switch (granule_kind(granule)) {
        case GRANULE_SLAB:
            count_slab(granule, &stats->classes[size_class % HMM_CLASS_COUNT_MAX]);
            apart->slab_bytes += GRANULE_BYTES;
            break;
        case GRANULE_LARGE:
            stats->live_count += granule->run.start != 0; /* 0: lost to a move that failed */
            stats->large_bytes += granule->run.start != 0 ? granule->run.bytes : 0;
            break;
        case GRANULE_EMPTY:
            stats->live_count += granule->empty.live_count;
            break;
        default:
            break;
        }
    }
}

/* How many slots the list holds, as far as it stays within one slab. */
HMM_RACY static size_t bin_count(const struct slot *slot)
{
    if (slot == NULL || !arena_covers(slot)) {
        return 0;
    }
    const struct granule *slab = granule_of(slot);
    size_t count = 0;
    while (slot != NULL && arena_covers(slot) && granule_of(slot) == slab &&
           granule_index(slab) < hmm_arena.committed_count &&
           is_aligned((uintptr_t)slot, SLOT_UNIT_BYTES) &&
           count < GRANULE_BYTES / SLOT_UNIT_BYTES) {
        slot = slot_next(slot);
        count++;
    }
    return count;
}

static void cache(HmmClassStats *class, size_t count)
{
    count = size_min(count, class->live_count);
    class->live_count -= count;
    class->cached_count += count;
}

/* A slot, or a medium block of so many bytes. */
HMM_RACY static void count_held(const void *ptr, size_t bytes, HmmStats *stats, struct apart *apart)
{
    if (ptr == NULL || !arena_covers(ptr)) {
        return;
    }
    const struct granule *granule = granule_of(ptr);
    unsigned size_class = atomic_load_explicit(&granule->size_class, memory_order_relaxed);
    if (granule_kind(granule) == GRANULE_SLAB) {
        cache(&stats->classes[size_class % CLASS_COUNT], 1);
    } else if (granule_kind(granule) == GRANULE_ZONE) {
        apart->held_bytes += bytes;
        apart->held_count++;
    }
}

HMM_RACY static void count_quarantine(const struct quarantine *quarantine, HmmStats *stats,
                                      struct apart *apart)
{
    for (size_t i = 0; i < QUARANTINE_COUNT_MAX; i++) {
        count_held(quarantine->slots[i].slot, 0, stats, apart);
        count_held(quarantine->blocks[i].ptr, quarantine->blocks[i].bytes, stats, apart);
    }
}

/* Nobody's memory may vanish meanwhile. */
HMM_RACY static void count_thread(const struct thread *thread, HmmStats *stats, struct apart *apart)
{
    if (thread->guarded != NULL) {
        count_quarantine(&thread->guarded->quarantine, stats, apart);
    }
    for (unsigned size_class = 0; thread->bins != NULL && size_class < CLASS_COUNT; size_class++) {
        cache(&stats->classes[size_class], bin_count(thread->bins[size_class]));
    }
    for (size_t i = 0; i < BATCH_COUNT; i++) {
        const struct granule *slab = thread->batches[i].slab;
        if (slab != NULL) {
            unsigned size_class = atomic_load_explicit(&slab->size_class, memory_order_relaxed);
            cache(&stats->classes[size_class % CLASS_COUNT], thread->batches[i].chain.count);
        }
    }
}

/* The calling thread's own, unless a signal interrupted it where it was about to change them. */
static void count_own_thread(HmmStats *stats, struct apart *apart)
{
    const struct thread *thread = hmm_thread.thread;
    if (thread_is_open(thread) && !atomic_load_explicit(&thread->is_busy, memory_order_relaxed)) {
        count_thread(thread, stats, apart);
    }
}

/* Under both locks. */
static void count_all_threads(HmmStats *stats, struct apart *apart)
{
    count_own_thread(stats, apart);
    for (const struct thread *thread = hmm_threads.live; thread != NULL; thread = thread->next) {
        if (thread != hmm_thread.thread) {
            count_thread(thread, stats, apart);
        }
    }
    for (const struct thread *thread = hmm_threads.dormant; thread != NULL; thread = thread->next) {
        count_thread(thread, stats, apart);
    }
}

static void count_threads(HmmStats *stats, struct apart *apart)
{
    hmm_lock_acquire(&hmm_threads.lock);
    hmm_lock_acquire(&hmm_arena.lock);
    count_all_threads(stats, apart);
    hmm_lock_release(&hmm_arena.lock);
    hmm_lock_release(&hmm_threads.lock);
}

/* In a signal handler: of other threads if the locks are to be had, which the interrupted thread
 * may hold itself. */
static void peek_threads(HmmStats *stats, struct apart *apart)
{
    const bool has_lists = hmm_lock_try(&hmm_threads.lock);
    if (has_lists && hmm_lock_try(&hmm_arena.lock)) {
        count_all_threads(stats, apart);
        hmm_lock_release(&hmm_arena.lock);
    } else {
        count_own_thread(stats, apart);
    }
    if (has_lists) {
        hmm_lock_release(&hmm_threads.lock);
    }
}

/* From live to cached, as slots. */
static void sum_held(HmmStats *stats, struct apart *apart)
{
    apart->held_bytes = size_min(apart->held_bytes, stats->medium_bytes);
    apart->held_count = size_min(apart->held_count, stats->live_count);
    stats->medium_bytes -= apart->held_bytes;
    stats->live_count -= apart->held_count;
    stats->cached_bytes += apart->held_bytes;
}

static void sum_classes(HmmStats *stats)
{
    stats->class_count = CLASS_COUNT;
    for (unsigned size_class = 0; size_class < CLASS_COUNT; size_class++) {
        HmmClassStats *class = &stats->classes[size_class];
        class->slot_bytes = class_bytes(size_class);
        stats->live_count += class->live_count;
        stats->small_bytes += class->live_count * class->slot_bytes;
        stats->cached_bytes += class->cached_count * class->slot_bytes;
        stats->free_bytes += class->free_count * class->slot_bytes;
    }
}

/* The library's own: descriptors up to the frontier, bit sets, threads. */
HMM_RACY static size_t metadata_bytes(void)
{
    size_t words = (hmm_arena.frontier_count + WORD_BITS - 1) / WORD_BITS;
    return hmm_arena.frontier_count * sizeof(struct granule) + words * sizeof(struct set_words) +
           ((uintptr_t)hmm_arena.sets - hmm_arena.metadata);
}

HMM_RACY static size_t arena_mapped_bytes(void)
{
    return ((hmm_arena.committed_count - hmm_arena.hidden_count) << GRANULE_SHIFT) +
           hmm_arena.table_committed_count * sizeof(struct granule) +
           ((uintptr_t)hmm_arena.table - hmm_arena.metadata_committed);
}

static void add_arena(HmmStats *stats, struct apart *apart)
{
    hmm_medium_get_stats(&apart->medium);
    count_granules(stats, apart);
    stats->medium_bytes = apart->medium.live_bytes;
    stats->live_count += apart->medium.live_count;
    stats->free_bytes += apart->medium.free_bytes;
    stats->held_bytes = hmm_purge_held_bytes();
    stats->peak_bytes = atomic_load_explicit(&hmm_arena.taken_count_max, memory_order_relaxed)
                        << GRANULE_SHIFT;
    stats->dirty_bytes = hmm_purge_dirty_bytes();
    stats->metadata_bytes = metadata_bytes();
    stats->mapped_bytes = arena_mapped_bytes();
    stats->reserved_bytes = hmm_arena.bytes;
}

/* --------------------------------------------------------------------------------- both engines */

/* What lies on the program break ends where addresses do, which is farther than any reservation
 * reaches: what is held counts. */
static size_t block_reserved_bytes(const HmmHeapStats *block)
{
    bool is_open_ended = block->capacity_bytes > SIZE_MAX / 2;
    return is_open_ended ? block->break_bytes : block->capacity_bytes;
}

static void add_block(const HmmHeapStats *block, HmmStats *stats)
{
    stats->other_bytes = block->live_bytes;
    stats->live_count += block->live_count;
    stats->free_bytes += block->free_bytes;
    stats->held_bytes += block->break_bytes;
    stats->peak_bytes += block->peak_live_bytes;
    stats->mapped_bytes += block->break_bytes;
    stats->reserved_bytes += block_reserved_bytes(block);
    stats->failed_count = block->failed_count;
    stats->live_bytes =
        stats->small_bytes + stats->medium_bytes + stats->large_bytes + stats->other_bytes;
    stats->resident_bytes = hmm_os_resident_bytes();
}

static HmmHeapStats block_stats(void)
{
    HmmHeapStats block = {0};
    const HmmHeap *heap = hmm_process_heap_if_open();
    if (heap != NULL) {
        HmmHeapGetStats(heap, &block);
    }
    return block;
}

/* Counters only: regions and free blocks are linked. */
HMM_RACY static HmmHeapStats block_peek(void)
{
    const HmmHeap *handle = hmm_process_heap_if_open();
    if (handle == NULL) {
        return (HmmHeapStats){0};
    }
    const struct heap *heap = &handle->heap;
    const struct heap_guard *guard = handle_is_guarded(handle) ? handle_guard(handle) : NULL;
    size_t tag_bytes = (heap->live_count + heap->fit.count) * BLOCK_TAG_BYTES;
    size_t break_bytes = heap->live_bytes + heap->free_bytes + tag_bytes;
    return (HmmHeapStats){
        .capacity_bytes = break_bytes,
        .break_bytes = break_bytes,
        .live_bytes = guard != NULL ? guard->live_bytes : heap->live_bytes,
        .live_count = heap->live_count - (guard != NULL ? guard->held_count : 0),
        .free_bytes = heap->free_bytes,
        .free_count = heap->fit.count,
        .peak_live_bytes = guard != NULL ? guard->peak_live_bytes : heap->peak_live_bytes,
        .failed_count = heap->failed_count,
    };
}

/* Whether what others hold may be waited for. */
enum reach { REACH_WAITING, REACH_AT_HAND };

static void stats_read(HmmStats *stats, struct apart *apart, const HmmHeapStats *block,
                       enum reach reach)
{
    *stats = (HmmStats){0};
    *apart = (struct apart){0};
    if (hmm_process_engine_if_started() == ENGINE_FAST) {
        add_arena(stats, apart);
        if (reach == REACH_WAITING) {
            count_threads(stats, apart);
        } else {
            peek_threads(stats, apart);
        }
        sum_held(stats, apart);
        sum_classes(stats);
    }
    add_block(block, stats);
}

void HmmGetStats(HmmStats *stats)
{
    struct apart apart;
    HmmHeapStats block = block_stats();
    stats_read(stats, &apart, &block, REACH_WAITING);
}

void hmm_stats_peek(HmmStats *stats)
{
    struct apart apart;
    HmmHeapStats block = block_peek();
    stats_read(stats, &apart, &block, REACH_AT_HAND);
}

static size_t free_slot_count(const HmmStats *stats)
{
    size_t count = 0;
    for (size_t i = 0; i < stats->class_count; i++) {
        count += stats->classes[i].free_count + stats->classes[i].cached_count;
    }
    return count;
}

/* What is neither taken nor dirty is the system's, so the break counts it as little as what was
 * never used. What lies free in slabs and zones, carved or not, is free; the rest is overhead. */
void hmm_stats_get(HmmHeapStats *heap)
{
    HmmStats stats;
    struct apart apart;
    const HmmHeapStats block = block_stats();
    *heap = block;
    if (hmm_process_engine_if_started() != ENGINE_FAST) {
        return;
    }
    stats_read(&stats, &apart, &block, REACH_WAITING);
    size_t dirty_bytes = atomic_load_explicit(&hmm_arena.dirty_count, memory_order_relaxed)
                         << GRANULE_SHIFT;
    size_t arena_bytes = size_less(stats.held_bytes, block.break_bytes) + dirty_bytes;
    size_t idle_bytes = size_less(arena_bytes, size_less(stats.live_bytes, block.live_bytes));
    size_t slab_bytes =
        size_less(apart.slab_bytes, hmm_purge_away_bytes() + hmm_purge_untouched_bytes());
    size_t free_bytes = size_less(slab_bytes, stats.small_bytes) + apart.medium.free_bytes +
                        size_less(apart.medium.held_bytes, apart.medium.zone_bytes) +
                        apart.held_bytes + dirty_bytes;
    free_bytes = size_min(free_bytes, idle_bytes);
    heap->capacity_bytes = size_max(hmm_arena.bytes, block.capacity_bytes);
    heap->largest_free_bytes = size_max(hmm_arena.bytes, block.largest_free_bytes);
    heap->peak_live_bytes = stats.peak_bytes;
    heap->break_bytes += arena_bytes;
    heap->live_bytes = stats.live_bytes;
    heap->live_count = stats.live_count;
    heap->free_bytes += free_bytes;
    heap->free_count += free_slot_count(&stats) + apart.medium.free_count + apart.held_count;
    heap->overhead_bytes += idle_bytes - free_bytes;
}
