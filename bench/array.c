/*
 * array.c - heaps in an array, side by side: how long the slowest call takes, and how much of the
 * array is left for the caller.
 *
 *     array [OPERATIONS] NAME=PATH.so...
 *
 * A peer is a shared object that exports three functions, and is called NAME in the tables:
 *
 *     size_t peer_init(void *memory, size_t bytes);   an empty heap in the memory, which may have
 *                                                     held another; 0: refused, it is too small
 *     void *peer_alloc(size_t bytes);                 NULL: no room
 *     void peer_free(void *ptr);
 *
 * Built with -O2 -shared -fPIC. peer_hmm.c, which is HMM's own, shows how little it takes; with
 * other names it will do for any heap that has an init, an alloc and a free. HMM coming as a
 * plug-in too, a call costs the same to make. All peers get the same requests in the same memory,
 * which is aligned to a page.
 *
 * Time: one long workload, sizes from 16 bytes to 64 KiB, and a clock around every call. All pages
 * of the array are there before. The machine is shared: an interrupt, or another program on our
 * core, adds thousands of cycles to whichever call it hits, and would be taken for the worst one.
 * So the same sequence runs several times, the peers taking turns, and each call counts as the
 * fastest of its runs. An empty heap in the same memory goes through the same states each time,
 * hence what a call has to do is still in its minimum, and so are the cache misses that it cannot
 * avoid; a chance event would have to hit the same call in every run. Percentile and worst are
 * taken over these minima. The blocks are not touched, so a call finds the lines that it needs as
 * the heap left them. A short replay before each run brings the code into the caches: a program's
 * first call is not what is meant here.
 *
 * Memory: the bytes that a block takes beyond what was asked for, from how many more blocks fit in
 * an array that is 4 MiB larger; and the smallest array in which a workload succeeds, over the most
 * that it ever holds as it asked for it, the median over several seeds. Blocks are written to and
 * checked there.
 *
 * Prints tables as policies.c does.
 */
#include "measure.h"
#include "workload.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    OPERATIONS = 10000000,
    RUNS = 5,
    WARM_OPERATIONS = 10000,
    SEEDS = 5,
    MEMORY_OPERATIONS = 200000, /* of the workloads whose smallest array is looked for */
    ARRAY_BYTES = 32 << 20,
    SMALL_ARRAY_BYTES = 1 << 20,
    ARRAY_STEP_BYTES = 4 << 20,
    PRECISION_PER_LIVE = 1000, /* smallest arrays are found to a thousandth of the live bytes */
    TINY_BYTES = 16,
    PERCENTILE_PER = 10000, /* one call in so many is slower than the percentile */
    PEERS_MAX = 16,
};

struct peer {
    const char *name;
    size_t (*init)(void *memory, size_t bytes);
    struct allocator allocator;
    uint32_t *least_ticks; /* by operation */
};

/* Ticks of one kind of call. */
struct latency {
    double mean;
    uint32_t percentile;
    uint32_t worst;
};

static struct {
    void *array;
    uint64_t clock_ticks; /* what reading the clock costs */
    struct peer peers[PEERS_MAX];
    size_t peer_count;
} bench;

/* ---------------------------------------------------------------------------------------- peers */

static void exit_with(const char *what, const char *name)
{
    fprintf(stderr, "array: %s: %s\n", what, name);
    exit(EXIT_FAILURE);
}

/* C has no cast from an object's address to a function's, and POSIX promises that the bits will do.
 */
static void peer_resolve(void *library, const char *symbol, void *function)
{
    void *address = dlsym(library, symbol);
    if (address == NULL) {
        exit_with("a peer lacks a function", dlerror());
    }
    memcpy(function, &address, sizeof address);
}

/* NAME=PATH; the name lies in the argument, which is cut in two. */
static void peer_load(struct peer *peer, char *argument)
{
    char *equals = strchr(argument, '=');
    if (equals == NULL) {
        exit_with("not NAME=PATH.so", argument);
    }
    *equals = '\0';
    void *library = dlopen(equals + 1, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        exit_with("cannot load a peer", dlerror());
    }
    peer->name = argument;
    peer_resolve(library, "peer_init", &peer->init);
    peer_resolve(library, "peer_alloc", &peer->allocator.allocate);
    peer_resolve(library, "peer_free", &peer->allocator.release);
}

static bool peer_begin(const struct peer *peer, size_t array_bytes)
{
    return peer->init(bench.array, array_bytes) != 0;
}

static void peer_begin_or_exit(const struct peer *peer, size_t array_bytes)
{
    if (!peer_begin(peer, array_bytes)) {
        exit_with("refuses the array", peer->name);
    }
}

/* ----------------------------------------------------------------------------------------- time */

static uint64_t timed_allocate(const struct peer *peer, size_t bytes, char **ptr)
{
    uint64_t start = ticks_now();
    *ptr = peer->allocator.allocate(bytes);
    return ticks_now() - start;
}

static uint64_t timed_release(const struct peer *peer, char *ptr)
{
    uint64_t start = ticks_now();
    peer->allocator.release(ptr);
    return ticks_now() - start;
}

static uint32_t ticks_less_clock(uint64_t ticks)
{
    ticks -= ticks < bench.clock_ticks ? ticks : bench.clock_ticks;
    return ticks < UINT32_MAX ? (uint32_t)ticks : UINT32_MAX;
}

static void run_warm(const struct peer *peer, const struct workload *workload)
{
    struct workload beginning = *workload;
    beginning.operation_count = WARM_OPERATIONS;
    peer_begin_or_exit(peer, ARRAY_BYTES);
    if (!workload_replay(&beginning, &peer->allocator)) {
        exit_with("the array is too small for the timed workload", peer->name);
    }
}

/* One run: each call's time, where it is less than before. */
static void run_timed(const struct peer *peer, const struct workload *workload)
{
    run_warm(peer, workload);
    peer_begin_or_exit(peer, ARRAY_BYTES);
    for (size_t i = 0; i < workload->operation_count; i++) {
        struct operation operation = workload->operations[i];
        char **ptr = &workload->held[operation.slot].ptr;
        uint32_t ticks =
            ticks_less_clock(operation.bytes != 0 ? timed_allocate(peer, operation.bytes, ptr)
                                                  : timed_release(peer, *ptr));
        if (*ptr == NULL) {
            exit_with("the array is too small for the timed workload", peer->name);
        }
        if (ticks < peer->least_ticks[i]) {
            peer->least_ticks[i] = ticks;
        }
    }
}

/* Gathers the calls of one kind in `ticks`, room for all of them. */
static size_t ticks_gather(const struct peer *peer, const struct workload *workload,
                           bool is_allocation, uint32_t *ticks)
{
    size_t count = 0;
    for (size_t i = 0; i < workload->operation_count; i++) {
        if ((workload->operations[i].bytes != 0) == is_allocation) {
            ticks[count++] = peer->least_ticks[i];
        }
    }
    return count;
}

static struct latency latency_of(uint32_t *ticks, size_t count)
{
    ticks_sort(ticks, count);
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += ticks[i];
    }
    return (struct latency){
        .mean = sum / (double)count,
        .percentile = ticks[count - 1 - count / PERCENTILE_PER],
        .worst = ticks[count - 1],
    };
}

static void print_latency(const struct latency *latency)
{
    printf("\t%.0f\t%u\t%u", latency->mean, latency->percentile, latency->worst);
}

static uint32_t *ticks_make(size_t count)
{
    uint32_t *ticks = malloc(count * sizeof *ticks);
    if (ticks == NULL) {
        exit_with("no memory", "figures");
    }
    return memset(ticks, UINT8_MAX, count * sizeof *ticks);
}

static void measure_time(size_t operation_count)
{
    struct workload workload = workload_write(WORKLOAD_HEAVY_TAIL, operation_count, 0);
    uint32_t *ticks = ticks_make(operation_count);
    for (size_t i = 0; i < bench.peer_count; i++) {
        bench.peers[i].least_ticks = ticks_make(operation_count);
    }
    for (int run = 0; run < RUNS; run++) {
        for (size_t i = 0; i < bench.peer_count; i++) {
            run_timed(&bench.peers[i], &workload);
        }
    }
    printf("# Time of a call, %zu calls, in " TICK_NAME " (%.2f a ns)\n", operation_count,
           ticks_per_ns());
    printf("heap\talloc mean\talloc 99.99 %%\talloc worst\tfree mean\tfree 99.99 %%\tfree worst");
    for (size_t i = 0; i < bench.peer_count; i++) {
        struct peer *peer = &bench.peers[i];
        printf("\n%s", peer->name);
        for (int is_allocation = 1; is_allocation >= 0; is_allocation--) {
            size_t count = ticks_gather(peer, &workload, is_allocation != 0, ticks);
            struct latency latency = latency_of(ticks, count);
            print_latency(&latency);
        }
        free(peer->least_ticks);
    }
    printf("\n\n\n");
    free(ticks);
    workload_discard(&workload);
}

/* --------------------------------------------------------------------------------------- memory */

static void print_heading(const char *title, const char *first_column)
{
    printf("# %s\n%s", title, first_column);
    for (size_t i = 0; i < bench.peer_count; i++) {
        printf("\t%s", bench.peers[i].name);
    }
}

static size_t blocks_that_fit(const struct peer *peer, size_t array_bytes, size_t block_bytes)
{
    size_t count = 0;
    peer_begin_or_exit(peer, array_bytes);
    while (peer->allocator.allocate(block_bytes) != NULL) {
        count++;
    }
    return count;
}

/* What is there once, whatever the array's size, cancels out. */
static double overhead_a_block(const struct peer *peer, size_t block_bytes)
{
    size_t more_count = blocks_that_fit(peer, SMALL_ARRAY_BYTES + ARRAY_STEP_BYTES, block_bytes) -
                        blocks_that_fit(peer, SMALL_ARRAY_BYTES, block_bytes);
    return (double)ARRAY_STEP_BYTES / (double)more_count - (double)block_bytes;
}

static void measure_overhead(void)
{
    static const size_t block_bytes[] = {16, 24, 64, 100, 1000, 4096};
    print_heading("Bytes a block beyond what was asked for", "block");
    for (size_t size = 0; size < sizeof block_bytes / sizeof *block_bytes; size++) {
        printf("\n%zu", block_bytes[size]);
        for (size_t i = 0; i < bench.peer_count; i++) {
            printf("\t%.1f", overhead_a_block(&bench.peers[i], block_bytes[size]));
        }
    }
    printf("\n\n\n");
}

struct fit_trial {
    const struct peer *peer;
    const struct workload *workload;
};

static bool fits_workload(size_t array_bytes, void *context)
{
    const struct fit_trial *trial = context;
    return peer_begin(trial->peer, array_bytes) &&
           workload_replay(trial->workload, &trial->peer->allocator);
}

static double smallest_over_live(const struct peer *peer, const struct workload *workload)
{
    struct fit_trial trial = {peer, workload};
    size_t bytes =
        array_smallest(workload->peak_live_bytes, ARRAY_BYTES,
                       workload->peak_live_bytes / PRECISION_PER_LIVE, fits_workload, &trial);
    return (double)bytes / (double)workload->peak_live_bytes;
}

static void print_smallest_arrays(enum workload_kind kind)
{
    double by_seed[PEERS_MAX][SEEDS];
    for (size_t seed = 0; seed < SEEDS; seed++) {
        struct workload workload = workload_write(kind, MEMORY_OPERATIONS, seed);
        for (size_t i = 0; i < bench.peer_count; i++) {
            by_seed[i][seed] = smallest_over_live(&bench.peers[i], &workload);
        }
        workload_discard(&workload);
    }
    printf("\n%s", workload_name(kind));
    for (size_t i = 0; i < bench.peer_count; i++) {
        printf("\t%.2f", median_of(by_seed[i], SEEDS));
    }
}

static void measure_smallest_arrays(void)
{
    print_heading("Smallest array, over the most live bytes", "workload");
    for (size_t kind = 0; kind < WORKLOAD_GROWING; kind++) {
        print_smallest_arrays((enum workload_kind)kind);
    }
    printf("\n\n\n");
}

static bool fits_tiny_block(size_t array_bytes, void *context)
{
    const struct peer *peer = context;
    return peer_begin(peer, array_bytes) && peer->allocator.allocate(TINY_BYTES) != NULL;
}

/* The lowest bit that any of the addresses has, which is what the heap seems to promise. */
static size_t alignment_seen(const struct peer *peer)
{
    uintptr_t bits = 0;
    peer_begin_or_exit(peer, SMALL_ARRAY_BYTES);
    for (size_t bytes = 1; bytes < SMALL_ARRAY_BYTES / 1024; bytes++) {
        bits |= (uintptr_t)peer->allocator.allocate(bytes);
    }
    return bits & (~bits + 1);
}

/* Blocks of the smallest stride there is leave less than one of them at the end. */
static size_t fixed_bytes(const struct peer *peer, size_t array_bytes)
{
    double stride_bytes = overhead_a_block(peer, TINY_BYTES) + TINY_BYTES;
    double blocks_bytes = (double)blocks_that_fit(peer, array_bytes, TINY_BYTES) * stride_bytes;
    return array_bytes - (size_t)blocks_bytes;
}

static void measure_fixed(void)
{
    print_heading("Bytes that are there once", "");
    printf("\nsmallest array for one block of %d bytes", TINY_BYTES);
    for (size_t i = 0; i < bench.peer_count; i++) {
        printf("\t%zu", array_smallest(0, SMALL_ARRAY_BYTES, 1, fits_tiny_block, &bench.peers[i]));
    }
    printf("\nheader of a 1 MiB array, to a block");
    for (size_t i = 0; i < bench.peer_count; i++) {
        printf("\t%zu", fixed_bytes(&bench.peers[i], SMALL_ARRAY_BYTES));
    }
    printf("\nalignment of every block");
    for (size_t i = 0; i < bench.peer_count; i++) {
        printf("\t%zu", alignment_seen(&bench.peers[i]));
    }
    printf("\n");
}

int main(int argc, char **argv)
{
    char *end = NULL;
    size_t operation_count = argc > 1 ? strtoul(argv[1], &end, 10) : 0;
    int first = end != NULL && *end == '\0' ? 2 : 1;
    operation_count = first == 2 ? operation_count : OPERATIONS;
    if (argc <= first || argc - first > PEERS_MAX || operation_count < WARM_OPERATIONS) {
        fprintf(stderr, "usage: array [OPERATIONS] NAME=PATH.so...\n");
        return EXIT_FAILURE;
    }
    bench.array = array_map(ARRAY_BYTES);
    bench.clock_ticks = ticks_cost();
    for (int i = first; i < argc; i++) {
        peer_load(&bench.peers[bench.peer_count++], argv[i]);
    }
    measure_time(operation_count);
    measure_overhead();
    measure_smallest_arrays();
    measure_fixed();
    return EXIT_SUCCESS;
}
