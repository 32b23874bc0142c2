/*
 * policies.c - the four placement policies, on six workloads: how long a call takes, and how much
 * memory it all needs.
 *
 * Time: each workload is replayed in a heap inside an array of ample size whose pages are there, so
 * no system call and no page fault is measured. The policies take turns, so that a slow spell of
 * the machine hits all of them, and the median of the rounds counts. The clock is the thread's own
 * processor time. The bench writes two words into each block and reads them again; that is in the
 * figure, as it would be in a program's.
 *
 * Memory, over the most that the workload ever holds as it asked for it, in two ways; each is the
 * median over several seeds, because whether the largest request still finds its place is chance:
 *   smallest array   the smallest one in which the whole workload succeeds. This is what
 *                    fragmentation, tags and headers cost.
 *   break            the highest break in an array of ample size. A heap with room moves its break
 *                    by 64 KiB or an eighth of itself, whichever is more, so this has up to an
 *                    eighth of slack that says nothing of the policy; but it is what a heap that
 *                    may grow will use.
 *
 * Prints tables as tab-separated values with a `#` line each, two blank lines between them, which
 * is what gnuplot calls an index. `policies [OPERATIONS [ROUNDS]]`
 */
#include "hmm.h"
#include "measure.h"
#include "workload.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    OPERATIONS = 200000,
    ROUNDS = 7,
    ROUNDS_MAX = 101,
    SEEDS = 5,
    ARRAY_BYTES = 32 << 20,    /* fifteen times what the largest workload holds */
    SAMPLE_EVERY = 16,         /* allocations from one look at the break to the next */
    PRECISION_PER_LIVE = 1000, /* smallest arrays are found to a thousandth of the live bytes */
    POLICY_COUNT = HMM_FIT_BEST + 1,
};

static const char *const policy_names[POLICY_COUNT] = {
    [HMM_FIT_GOOD] = "good",
    [HMM_FIT_FIRST] = "first",
    [HMM_FIT_NEXT] = "next",
    [HMM_FIT_BEST] = "best",
};

/* A figure for each workload under each policy. */
typedef double figures[WORKLOAD_COUNT][POLICY_COUNT];

/* The heap under test; the allocators below know no other. */
static struct {
    void *array;
    HmmHeap *heap;
    size_t allocation_count;
    size_t peak_break_bytes;
} bench;

/* ----------------------------------------------------------------------------- the heap's doors */

static void *heap_allocate(size_t bytes)
{
    return HmmHeapAlloc(bench.heap, bytes);
}

static void *heap_resize(void *ptr, size_t bytes)
{
    return HmmHeapRealloc(bench.heap, ptr, bytes);
}

static void heap_release(void *ptr)
{
    HmmHeapFree(bench.heap, ptr);
}

static void *break_sampled(void *ptr)
{
    if (bench.allocation_count++ % SAMPLE_EVERY == 0) {
        HmmHeapStats stats;
        HmmHeapGetStats(bench.heap, &stats);
        if (stats.break_bytes > bench.peak_break_bytes) {
            bench.peak_break_bytes = stats.break_bytes;
        }
    }
    return ptr;
}

static void *heap_allocate_sampled(size_t bytes)
{
    return break_sampled(HmmHeapAlloc(bench.heap, bytes));
}

static void *heap_resize_sampled(void *ptr, size_t bytes)
{
    return break_sampled(HmmHeapRealloc(bench.heap, ptr, bytes));
}

static const struct allocator plain = {heap_allocate, heap_resize, heap_release};
static const struct allocator sampled = {heap_allocate_sampled, heap_resize_sampled, heap_release};

static bool heap_begin(HmmFit policy, size_t array_bytes)
{
    const HmmHeapOptions options = {.fit = policy, .unlocked = true};
    bench.heap = HmmHeapInit(bench.array, array_bytes, &options);
    return bench.heap != NULL;
}

/* ------------------------------------------------------------------------------------ measuring */

/* How long the replay took; nothing else is inside the clock. */
static uint64_t replay_or_exit(const struct workload *workload, HmmFit policy,
                               const struct allocator *allocator)
{
    bool is_good = heap_begin(policy, ARRAY_BYTES);
    uint64_t start_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    is_good = is_good && workload_replay(workload, allocator);
    uint64_t elapsed_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - start_ns;
    if (!is_good || !HmmHeapCheck(bench.heap)) {
        fprintf(stderr, "policies: %s fails with fit=%s\n", workload->name, policy_names[policy]);
        exit(EXIT_FAILURE);
    }
    return elapsed_ns;
}

static void measure_times(enum workload_kind kind, size_t operation_count, size_t rounds,
                          figures ns_per_operation)
{
    struct workload workload = workload_write(kind, operation_count, 0);
    double ns[POLICY_COUNT][ROUNDS_MAX];
    for (size_t round = 0; round < rounds; round++) {
        for (size_t policy = 0; policy < POLICY_COUNT; policy++) {
            uint64_t elapsed_ns = replay_or_exit(&workload, (HmmFit)policy, &plain);
            ns[policy][round] = (double)elapsed_ns / (double)operation_count;
        }
    }
    for (size_t policy = 0; policy < POLICY_COUNT; policy++) {
        ns_per_operation[kind][policy] = median_of(ns[policy], rounds);
    }
    workload_discard(&workload);
}

struct fit_trial {
    const struct workload *workload;
    HmmFit policy;
};

static bool fits_in_array(size_t array_bytes, void *context)
{
    const struct fit_trial *trial = context;
    return heap_begin(trial->policy, array_bytes) && workload_replay(trial->workload, &plain);
}

static size_t smallest_array(const struct workload *workload, HmmFit policy)
{
    struct fit_trial trial = {workload, policy};
    return array_smallest(workload->peak_live_bytes, ARRAY_BYTES,
                          workload->peak_live_bytes / PRECISION_PER_LIVE, fits_in_array, &trial);
}

static size_t peak_break(const struct workload *workload, HmmFit policy)
{
    bench.peak_break_bytes = 0;
    (void)replay_or_exit(workload, policy, &sampled);
    return bench.peak_break_bytes;
}

static void measure_memory(enum workload_kind kind, size_t operation_count, figures arrays,
                           figures breaks)
{
    double array_by_seed[POLICY_COUNT][SEEDS];
    double break_by_seed[POLICY_COUNT][SEEDS];
    for (size_t seed = 0; seed < SEEDS; seed++) {
        struct workload workload = workload_write(kind, operation_count, seed);
        double live_bytes = (double)workload.peak_live_bytes;
        for (size_t policy = 0; policy < POLICY_COUNT; policy++) {
            array_by_seed[policy][seed] =
                (double)smallest_array(&workload, (HmmFit)policy) / live_bytes;
            break_by_seed[policy][seed] =
                (double)peak_break(&workload, (HmmFit)policy) / live_bytes;
        }
        workload_discard(&workload);
    }
    for (size_t policy = 0; policy < POLICY_COUNT; policy++) {
        arrays[kind][policy] = median_of(array_by_seed[policy], SEEDS);
        breaks[kind][policy] = median_of(break_by_seed[policy], SEEDS);
    }
}

/* ------------------------------------------------------------------------------------- printing */

static void print_table(const char *title, int decimals, figures values)
{
    printf("# %s\nworkload", title);
    for (size_t policy = 0; policy < POLICY_COUNT; policy++) {
        printf("\t%s", policy_names[policy]);
    }
    for (size_t kind = 0; kind < WORKLOAD_COUNT; kind++) {
        printf("\n%s", workload_name((enum workload_kind)kind));
        for (size_t policy = 0; policy < POLICY_COUNT; policy++) {
            printf("\t%.*f", decimals, values[kind][policy]);
        }
    }
    printf("\n\n\n");
}

static void print_workloads(size_t operation_count)
{
    printf("# The workloads, %zu calls each\nworkload\trequests\tmost live KiB", operation_count);
    for (size_t kind = 0; kind < WORKLOAD_COUNT; kind++) {
        struct workload workload = workload_write((enum workload_kind)kind, operation_count, 0);
        printf("\n%s\t%s\t%zu", workload.name, workload.story, workload.peak_live_bytes / 1024);
        workload_discard(&workload);
    }
    printf("\n");
}

int main(int argc, char **argv)
{
    static figures ns_per_operation;
    static figures arrays;
    static figures breaks;
    size_t operation_count = argc > 1 ? strtoul(argv[1], NULL, 10) : OPERATIONS;
    size_t rounds = argc > 2 ? strtoul(argv[2], NULL, 10) : ROUNDS;
    if (operation_count == 0 || rounds == 0 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "usage: policies [OPERATIONS [ROUNDS]]\n");
        return EXIT_FAILURE;
    }
    bench.array = array_map(ARRAY_BYTES);
    for (size_t i = 0; i < WORKLOAD_COUNT; i++) {
        enum workload_kind kind = (enum workload_kind)i;
        measure_times(kind, operation_count, rounds, ns_per_operation);
        measure_memory(kind, operation_count, arrays, breaks);
    }
    print_table("Nanoseconds a call", 0, ns_per_operation);
    print_table("Smallest array, over the most live bytes", 2, arrays);
    print_table("Highest break, over the most live bytes", 2, breaks);
    print_workloads(operation_count);
    return EXIT_SUCCESS;
}
