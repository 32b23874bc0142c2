/*
 * process.c - options, the engine, and the block heap, on first use. See process.h.
 */
#include "process.h"
#include "arena.h"
#include "ground.h"
#include "guard.h"
#include "purge.h"
#include "random.h"
#include "root.h"
#include "sites.h"
#include "stats.h"
#include "thread.h"

/* release by whoever opens the heap pairs with acquire by everybody else */
static _Atomic(HmmHeap *) process_heap;
static struct lock start_lock = LOCK_INITIALIZER(LOCK_RANK_START);
/* which engine, once it is known: release and acquire as above */
static _Atomic int engine;
/* written under start_lock, sealed once the engine is known */
static struct {
    _Alignas(SEALED_BYTES) struct options options;
} settings;

const struct process hmm_process = {&process_heap, &engine, &settings.options};

/* So that root.c becomes part of every program, which nothing here needs. */
__attribute__((used)) static const struct hmm_root *const root = &hmm_root;

/* Under start_lock. A warning about options may be written here: it is one raw write, and whoever
 * waits could not go on without the options anyway. */
static void options_need(void)
{
    static bool is_loaded;
    if (!is_loaded) {
        hmm_options_load(&settings.options);
        is_loaded = true;
    }
}

static HMM_COLD HmmHeap *heap_start(void)
{
    hmm_lock_acquire(&start_lock);
    HmmHeap *heap = atomic_load_explicit(&process_heap, memory_order_relaxed);
    if (heap == NULL) {
        options_need();
        HmmHeapOptions heap_options = {.fit = settings.options.fit, .on_full = hmm_ground_more};
        if (settings.options.hardened != GUARD_OFF) {
            heap_options.integrity = HMM_INTEGRITY_NEIGHBOURS;
        }
        heap = hmm_ground_open(&settings.options, &heap_options);
        atomic_store_explicit(&process_heap, heap, memory_order_release);
    }
    hmm_lock_release(&start_lock);
    return heap;
}

/* The fast engine wants a reserved range and, in it, room for a granule of every class. */
static bool can_be_fast(void)
{
    return settings.options.engine == OPTION_ENGINE_FAST &&
           settings.options.region == OPTION_REGION_RESERVE && hmm_ground_is_system &&
           hmm_arena_open(settings.options.limit_bytes);
}

/* Nobody is to change what was decided. It is no matter if that is not to be had. */
static void seal(void *start, size_t bytes)
{
    if (is_aligned((uintptr_t)start, hmm_os_page_bytes()) &&
        is_aligned(bytes, hmm_os_page_bytes())) {
        (void)hmm_os_show(start, bytes);
    }
}

static HMM_COLD enum engine engine_start(void)
{
    hmm_lock_acquire(&start_lock);
    enum engine found = (enum engine)atomic_load_explicit(&engine, memory_order_relaxed);
    if (found == ENGINE_NONE) {
        options_need();
        hmm_purge_set(settings.options.purge, settings.options.purge_bytes);
        found = can_be_fast() ? ENGINE_FAST : ENGINE_BLOCK;
        if (found == ENGINE_FAST && (HMM_SECURE || settings.options.hardened != GUARD_OFF)) {
            hmm_guard_start((enum guard_level)settings.options.hardened, settings.options.has_sites);
        }
        seal(&settings, sizeof settings);
        seal(&hmm_guard, sizeof hmm_guard);
        seal(&hmm_slab_guard, sizeof hmm_slab_guard);
        atomic_store_explicit(&engine, found, memory_order_release);
    }
    hmm_lock_release(&start_lock);
    return found;
}

enum engine hmm_process_engine_if_started(void)
{
    return (enum engine)atomic_load_explicit(&engine, memory_order_acquire);
}

enum engine hmm_process_engine(void)
{
    enum engine found = hmm_process_engine_if_started();
    return LIKELY(found != ENGINE_NONE) ? found : engine_start();
}

bool hmm_process_can_overflow(void)
{
    return settings.options.limit_bytes == 0;
}

HmmHeap *hmm_process_heap_if_open(void)
{
    return atomic_load_explicit(&process_heap, memory_order_acquire);
}

HmmHeap *hmm_process_heap(void)
{
    HmmHeap *heap = hmm_process_heap_if_open();
    return LIKELY(heap != NULL) ? heap : heap_start();
}

uint64_t hmm_handle_secret(const void *memory)
{
    (void)memory;
    return hmm_random_secret();
}

void hmm_process_lock_start(void)
{
    hmm_lock_acquire_for_fork(&start_lock);
}

void hmm_process_unlock_start(void)
{
    hmm_lock_release_after_fork(&start_lock);
}

/* Before most constructors, so that our handlers run next to the fork itself. The first allocation
 * is too early: libc is not ready for handlers then. */
__attribute__((constructor(101))) static void process_init(void)
{
    hmm_fork_register();
    if (settings.options.has_sites) {
        hmm_sites_prepare();
    }
    hmm_thread_register();
}

/* After every other destructor that allocates, as far as a destructor can. */
__attribute__((destructor(101))) static void process_report(void)
{
    if (hmm_process_engine_if_started() != ENGINE_NONE && settings.options.has_stats_at_exit) {
        hmm_stats_print();
    }
}
