/*
 * harness.c - see harness.h.
 */
#include "harness.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    THREADS = 2,
    THREADS_MAX = 64,
    THREADS_EACH_MAX = 8,
    WORKERS_MAX = THREADS_MAX * THREADS_EACH_MAX,
    TABLES_MAX = 8,
    IDLE_SECONDS = 1,
};

static struct {
    const struct workload *workload;
    size_t scale_percent;
    unsigned worker_count;
    pthread_barrier_t meeting; /* the workers */
    pthread_barrier_t end;     /* the workers, and the main thread */
    struct worker workers[WORKERS_MAX];
    struct {
        void *memory;
        size_t bytes;
    } tables[TABLES_MAX];
    unsigned table_count;
} harness = {.scale_percent = 100, .worker_count = THREADS};

void harness_fail(const char *reason)
{
    dprintf(STDERR_FILENO, "%s\n", reason);
    abort();
}

unsigned worker_count(void)
{
    return harness.worker_count;
}

void worker_meet(void)
{
    pthread_barrier_wait(&harness.meeting);
}

size_t scaled(size_t count)
{
    size_t scaled_count = count * harness.scale_percent / 100;
    return scaled_count ? scaled_count : 1;
}

/* ---------------------------------------------------------------------------- tables and places */

void *table_map(size_t bytes)
{
    if (harness.table_count == TABLES_MAX) {
        harness_fail("too many tables");
    }
    void *memory = array_map(bytes);
    harness.tables[harness.table_count].memory = memory;
    harness.tables[harness.table_count++].bytes = bytes;
    return memory;
}

static size_t tables_unmap(void)
{
    size_t table_bytes = 0;
    while (harness.table_count) {
        harness.table_count--;
        size_t bytes = harness.tables[harness.table_count].bytes;
        munmap(harness.tables[harness.table_count].memory, bytes);
        table_bytes += bytes;
    }
    return table_bytes;
}

void places_empty(struct worker *worker, struct block **places, size_t count)
{
    for (size_t index = 0; index < count; index++) {
        if (places[index]) {
            place_empty(worker, &places[index]);
        }
    }
}

/* ----------------------------------------------------------------------------------- the report */

#ifdef MEASURE_CALLS

/* Steps 0 to 15 are those ticks; from there on a doubling has 16 steps. */
static unsigned step_of(uint64_t ticks)
{
    if (ticks < 1u << STEP_SHIFT) {
        return (unsigned)ticks;
    }
    unsigned shift = 63 - STEP_SHIFT - (unsigned)__builtin_clzll(ticks);
    return ((shift + 1) << STEP_SHIFT) + ((unsigned)(ticks >> shift) & ((1u << STEP_SHIFT) - 1));
}

/* The least that belongs to the step. */
static uint64_t step_ticks(unsigned step)
{
    unsigned doubling = step >> STEP_SHIFT;
    uint64_t within = step & ((1u << STEP_SHIFT) - 1);
    return doubling ? ((1u << STEP_SHIFT) + within) << (doubling - 1) : within;
}

void worker_count_call(struct worker *worker, uint64_t ticks)
{
    worker->calls_by_step[step_of(ticks)]++;
    worker->worst_ticks = ticks > worker->worst_ticks ? ticks : worker->worst_ticks;
}

static unsigned long long ns_of(uint64_t ticks, uint64_t cost_ticks, double per_ns)
{
    return ticks <= cost_ticks ? 0 : (unsigned long long)((double)(ticks - cost_ticks) / per_ns);
}

/* Prints nothing where no call was made. */
static void report(size_t table_bytes)
{
    (void)table_bytes;
    static uint64_t calls_by_step[STEP_COUNT];
    uint64_t call_count = 0;
    uint64_t worst_ticks = 0;
    for (unsigned index = 0; index < harness.worker_count; index++) {
        const struct worker *worker = &harness.workers[index];
        for (unsigned step = 0; step < STEP_COUNT; step++) {
            calls_by_step[step] += worker->calls_by_step[step];
            call_count += worker->calls_by_step[step];
        }
        worst_ticks = worker->worst_ticks > worst_ticks ? worker->worst_ticks : worst_ticks;
    }
    if (!call_count) {
        return;
    }
    uint64_t cost_ticks = ticks_cost();
    double per_ns = ticks_per_ns();
    const struct {
        const char *name;
        uint64_t one_in;
    } percentiles[] = {{"p99.9", 1000}, {"p99.99", 10000}};
    for (size_t index = 0; index < sizeof percentiles / sizeof *percentiles; index++) {
        uint64_t slower_count = call_count / percentiles[index].one_in;
        unsigned step = STEP_COUNT - 1;
        for (uint64_t seen_count = calls_by_step[step]; step && seen_count <= slower_count;) {
            seen_count += calls_by_step[--step];
        }
        dprintf(STDOUT_FILENO, "%s_ns=%llu ", percentiles[index].name,
                ns_of(step_ticks(step), cost_ticks, per_ns));
    }
    dprintf(STDOUT_FILENO, "p100_ns=%llu\n", ns_of(worst_ticks, cost_ticks, per_ns));
}

#else

/* From /proc/self/statm, whose second number is in pages. */
static size_t resident_bytes(void)
{
    char text[128] = "";
    int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (file < 0 || read(file, text, sizeof text - 1) <= 0) {
        harness_fail("/proc/self/statm cannot be read");
    }
    close(file);
    const char *second = strchr(text, ' ');
    return second ? (size_t)strtoul(second, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE) : 0;
}

static void report(size_t table_bytes)
{
    uint64_t start_ns = UINT64_MAX;
    uint64_t end_ns = 0;
    size_t live_bytes = 0;
    for (unsigned index = 0; index < harness.worker_count; index++) {
        const struct worker *worker = &harness.workers[index];
        start_ns = worker->start_ns < start_ns ? worker->start_ns : start_ns;
        end_ns = worker->end_ns > end_ns ? worker->end_ns : end_ns;
        live_bytes += worker->live_bytes;
    }
    sleep(IDLE_SECONDS);
    dprintf(STDOUT_FILENO, "wall_ns=%llu live_bytes=%zu after_bytes=%zu table_bytes=%zu\n",
            (unsigned long long)(end_ns - start_ns), live_bytes, resident_bytes(), table_bytes);
}

#endif

/* ---------------------------------------------------------------------------------------- a run */

static void worker_work(struct worker *worker)
{
    worker->start_ns = clock_ns(CLOCK_MONOTONIC);
    harness.workload->work(worker);
    worker->end_ns = clock_ns(CLOCK_MONOTONIC);
}

static void *thread_main(void *argument)
{
    worker_meet();
    worker_work(argument);
    pthread_barrier_wait(&harness.end);
    for (;;) {
        pause();
    }
    return NULL;
}

static void threads_start(void)
{
    unsigned count = harness.worker_count;
    if (pthread_barrier_init(&harness.meeting, NULL, count) ||
        pthread_barrier_init(&harness.end, NULL, count + 1)) {
        harness_fail("no barrier");
    }
    for (unsigned index = 0; index < count; index++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, thread_main, &harness.workers[index])) {
            harness_fail("no thread");
        }
    }
}

static bool arguments_read(int argc, char **argv)
{
    if (argc > 1) {
        harness.scale_percent = strtoul(argv[1], NULL, 10);
    }
    if (argc > 2) {
        harness.worker_count = (unsigned)strtoul(argv[2], NULL, 10);
    }
    return argc <= 3 && harness.scale_percent && harness.worker_count &&
           harness.worker_count <= THREADS_MAX;
}

int workload_run(const struct workload *workload, int argc, char **argv)
{
    if (!arguments_read(argc, argv)) {
        dprintf(STDERR_FILENO, "usage: %s [SCALE_PERCENT [THREADS, up to %d]]\n", argv[0],
                THREADS_MAX);
        return EXIT_FAILURE;
    }
    harness.workload = workload;
    harness.worker_count = workload->is_threaded ? harness.worker_count : 1;
    harness.worker_count += workload->is_paired & harness.worker_count;
    harness.worker_count *= workload->threads_each ? workload->threads_each : 1;
    for (unsigned index = 0; index < harness.worker_count; index++) {
        harness.workers[index].index = index;
        harness.workers[index].random = index;
    }
    if (workload->prepare) {
        workload->prepare();
    }
    if (workload->is_threaded) {
        threads_start();
        pthread_barrier_wait(&harness.end);
    } else {
        worker_work(&harness.workers[0]);
    }
    report(tables_unmap());
    return EXIT_SUCCESS;
}
