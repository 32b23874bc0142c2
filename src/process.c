/*
 * process.c - options, the engine, and the block heap, on first use. See process.h.
 */
#include "process.h"
#include "arena.h"
#include "ground.h"
#include "guard.h"
#include "operators.h"
#include "os.h"
#include "purge.h"
#include "random.h"
#include "root.h"
#include "scavenger.h"
#include "sites.h"
#include "stats.h"
#include "thread.h"

#include <unistd.h>

/* release by whoever opens the heap pairs with acquire by everybody else */
static _Atomic(HmmHeap *) process_heap;
static struct lock start_lock = LOCK_INITIALIZER(LOCK_RANK_START);
/* which engine, once it is known: release and acquire as above */
static _Atomic int engine;

/* written under start_lock, sealed once the engine is known */
struct settings hmm_settings;

const struct process hmm_process = {&process_heap, &engine, &hmm_settings.options};

/* Whether the options are known: release by whoever loads them, acquire without start_lock. */
static _Atomic bool has_options;

/* Under start_lock. A warning about options may be written here: it is one raw write, and whoever
 * waits could not go on without the options anyway. */
static void options_need(char *const *environment)
{
    if (!atomic_load_explicit(&has_options, memory_order_relaxed)) {
        hmm_options_load(&hmm_settings.options, environment);
        hmm_process_note_leaks_file();
        atomic_store_explicit(&has_options, true, memory_order_release);
    }
}

/* The lock is not held, or the options are known. */
static const struct options *options_known(void)
{
    if (!atomic_load_explicit(&has_options, memory_order_acquire)) {
        hmm_lock_acquire(&start_lock);
        options_need(environ);
        hmm_lock_release(&start_lock);
    }
    return &hmm_settings.options;
}

/* The level of a block heap, whose levels end below the fast engine's. */
static HmmHardening process_hardening(const struct options *options)
{
    return options->hardened == GUARD_OFF     ? HMM_HARDENING_NONE
           : options->hardened == GUARD_SEALS ? HMM_HARDENING_SEALS
                                              : HMM_HARDENING_QUARANTINE;
}

HmmHardening hmm_handle_hardening(void)
{
    return process_hardening(options_known());
}

bool hmm_handle_has_sites(void)
{
    return options_known()->has_sites;
}

uint32_t hmm_handle_site(void)
{
    return hmm_sites_capture();
}

bool hmm_handle_ignores_claims(void)
{
    return options_known()->ignores_claims;
}

bool hmm_handle_has_mixed_operators(void)
{
    return hmm_operators_are_mixed();
}

static HMM_COLD HmmHeap *heap_start(void)
{
    hmm_lock_acquire(&start_lock);
    HmmHeap *heap = atomic_load_explicit(&process_heap, memory_order_relaxed);
    if (heap == NULL) {
        options_need(environ);
        HmmHeapOptions heap_options = {.fit = hmm_settings.options.fit,
                                       .hardening = process_hardening(&hmm_settings.options)};
        if (hmm_settings.options.hardened != GUARD_OFF) {
            heap_options.integrity = HMM_INTEGRITY_NEIGHBOURS;
        }
        heap = hmm_ground_open(&hmm_settings.options, &heap_options);
        atomic_store_explicit(&process_heap, heap, memory_order_release);
    }
    hmm_lock_release(&start_lock);
    return heap;
}

/* The fast engine wants a reserved range and, in it, room for a granule of every class that a
 * program may use, and beside it a stack for a thread, of 8 MiB: under less than 12 MB of data
 * such programs failed. */
enum { FAST_DATA_BYTES_MIN = 32 << 20 };

static bool can_be_fast(void)
{
    return hmm_settings.options.engine == OPTION_ENGINE_FAST &&
           hmm_settings.options.region == OPTION_REGION_RESERVE && hmm_ground_is_system &&
           hmm_os_data_limit_bytes() >= FAST_DATA_BYTES_MIN &&
           hmm_arena_open(hmm_settings.options.limit_bytes);
}

/* Nobody is to change what was decided. It is no matter if that is not to be had. */
static void seal(void)
{
    if (is_aligned(SEALED_BYTES, hmm_os_page_bytes())) {
        (void)hmm_os_show(&hmm_settings, sizeof hmm_settings);
    }
}

static HMM_COLD enum engine engine_start(void)
{
    hmm_lock_acquire(&start_lock);
    enum engine found = (enum engine)atomic_load_explicit(&engine, memory_order_relaxed);
    if (found == ENGINE_NONE) {
        options_need(environ);
        hmm_purge_set(hmm_settings.options.purge, hmm_settings.options.purge_bytes);
        found = can_be_fast() ? ENGINE_FAST : ENGINE_BLOCK;
        if (found == ENGINE_FAST && (HMM_SECURE || hmm_settings.options.hardened != GUARD_OFF)) {
            hmm_guard_start((enum guard_level)hmm_settings.options.hardened,
                            hmm_settings.options.has_sites);
        }
        if (found == ENGINE_BLOCK) { /* so that the doors of C++ say who they are */
            hmm_settings.guard.level = (enum guard_level)hmm_settings.options.hardened;
        }
        seal();
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
    return hmm_settings.options.limit_bytes == 0;
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
    /* root.c becomes part of every program, which nothing here needs. */
    __asm__ volatile("" : : "r"(&hmm_root));
    hmm_fork_register();
    hmm_thread_register();
}

static void print_at_signal(int number)
{
    (void)number;
    hmm_stats_print_peeked();
}

/* What has to be there before the first call that it is wanted for. After the constructor of the
 * compiler's own that tells the unwinder, in a static program, where its tables are. A shared
 * library that is initialised first comes before glibc, which does not know the environment yet;
 * musl does, and tells nobody else. A program to which nobody has said anything may still do so
 * itself, before its first allocation. */
__attribute__((constructor)) static void process_watch(int argc, char **argv, char **environment)
{
    (void)argc;
    (void)argv;
    environment = LIBC_TELLS_CONSTRUCTORS ? environment : environ;
    if (!hmm_options_are_given(environment)) {
        return;
    }
    hmm_lock_acquire(&start_lock);
    options_need(environment);
    hmm_lock_release(&start_lock);
    if (hmm_settings.options.has_backtrace || hmm_settings.options.has_sites) {
        hmm_sites_prepare();
    }
    if (hmm_settings.options.has_backtrace) {
        hmm_fatal_show_stack();
    }
    if (hmm_settings.options.has_scavenger && hmm_process_engine() == ENGINE_FAST) {
        hmm_scavenger_start();
    }
    if (hmm_settings.options.stats_signal != 0) {
        hmm_os_on_signal(hmm_settings.options.stats_signal, print_at_signal);
    }
}

/* A library with libhmm.a in it can be closed while the process goes on; the shared ones
 * stay (-z nodelete). */
static bool can_be_unloaded(void)
{
    return hmm_malloc_is_replaced == NULL && !hmm_os_is_in_program();
}

/* After every other destructor that allocates, as far as a destructor can. */
__attribute__((destructor(101))) static void process_end(void)
{
    hmm_process_report();
    if (can_be_unloaded()) {
        hmm_thread_unregister();
    }
}
