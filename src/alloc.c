/*
 * alloc.c - opens the process heap on first use. See alloc.h.
 */
#include "alloc.h"
#include "ground.h"
#include "options.h"
#include "random.h"
#include "stats.h"

/* release by whoever opens the heap pairs with acquire by everybody else */
static _Atomic(HmmHeap *) process_heap;
static struct lock start_lock = LOCK_INITIALIZER(LOCK_RANK_START);
static struct options options; /* written under start_lock, immutable once the heap is open */

/* A warning about options may be written here under the lock: it is one raw write, and whoever
 * waits could not go on without the options anyway. */
static HmmHeap *alloc_open(void)
{
    static bool is_loaded;
    if (!is_loaded) {
        hmm_options_load(&options);
        is_loaded = true;
    }
    HmmHeapOptions heap_options = {.fit = options.fit, .on_full = hmm_ground_more};
    return hmm_ground_open(&options, &heap_options);
}

static HMM_COLD HmmHeap *alloc_start(void)
{
    hmm_lock_acquire(&start_lock);
    HmmHeap *heap = atomic_load_explicit(&process_heap, memory_order_relaxed);
    if (heap == NULL) {
        heap = alloc_open();
        atomic_store_explicit(&process_heap, heap, memory_order_release);
    }
    hmm_lock_release(&start_lock);
    return heap;
}

HmmHeap *hmm_alloc_heap_if_open(void)
{
    return atomic_load_explicit(&process_heap, memory_order_acquire);
}

HmmHeap *hmm_alloc_heap(void)
{
    HmmHeap *heap = hmm_alloc_heap_if_open();
    return LIKELY(heap != NULL) ? heap : alloc_start();
}

uint64_t hmm_handle_secret(const void *memory)
{
    (void)memory;
    return hmm_random_secret();
}

void hmm_alloc_lock_start(void)
{
    hmm_lock_acquire_for_fork(&start_lock);
}

void hmm_alloc_unlock_start(void)
{
    hmm_lock_release_after_fork(&start_lock);
}

/* Before most constructors, so that our handlers run next to the fork itself. The first allocation
 * is too early: libc is not ready for handlers then. */
__attribute__((constructor(101))) static void alloc_init(void)
{
    hmm_fork_register();
}

/* After every other destructor that allocates, as far as a destructor can. */
__attribute__((destructor(101))) static void alloc_report(void)
{
    if (hmm_alloc_heap_if_open() != NULL && options.has_stats_at_exit) {
        hmm_stats_print();
    }
}
