/*
 * atfork.c - handlers of pthread_atfork that use heaps, registered before the library's own and
 * after it, in all three moments of a fork, while other threads allocate.
 */
#include "early_handlers.h"
#include "hmm.h"
#include "workers.h"

#include <sys/wait.h>

enum { FORKS = 60, LIMIT_SECONDS = 20 };

static HmmHeap *created;  /* the library knows of it */
static HmmHeap *in_array; /* and not of this one */
static _Alignas(64) unsigned char array[1 << 16];
static int early_calls[3];
static int late_calls[3];

/* All that a handler might do with memory. */
static void use_malloc(void)
{
    static void *kept;
    worker_round(3);
    free(kept);
    kept = calloc(7, 100);
    REQUIRE(kept != NULL);
    kept = realloc(kept, 5000);
    REQUIRE(kept != NULL);
    void *large = aligned_alloc(4096, (size_t)3 << 20);
    REQUIRE(large != NULL);
    free(large);
}

static void use_heap(HmmHeap *heap)
{
    static HmmHeapStats stats;
    void *block = HmmHeapAlloc(heap, 300);
    REQUIRE(block != NULL);
    block = HmmHeapRealloc(heap, block, 600);
    REQUIRE(block != NULL);
    HmmHeapGetStats(heap, &stats);
    HmmHeapFree(heap, block);
}

static void early_malloc(enum fork_moment moment)
{
    early_calls[moment]++;
    use_malloc();
}

static void early_created(enum fork_moment moment)
{
    early_calls[moment]++;
    use_heap(created);
    HmmHeap *brief = HmmHeapCreate((size_t)1 << 20, NULL);
    REQUIRE(brief != NULL);
    use_heap(brief);
    HmmHeapDestroy(brief);
}

static void early_in_array(enum fork_moment moment)
{
    early_calls[moment]++;
    use_heap(in_array);
}

static void late_use(enum fork_moment moment)
{
    late_calls[moment]++;
    use_malloc();
    use_heap(created);
    use_heap(in_array);
}

static void late_prepare(void)
{
    late_use(FORK_PREPARE);
}

static void late_parent(void)
{
    late_use(FORK_PARENT);
}

static void late_child(void)
{
    late_use(FORK_CHILD);
}

static void heaps_make(void)
{
    alarm(LIMIT_SECONDS);
    created = HmmHeapCreate((size_t)1 << 20, NULL);
    in_array = HmmHeapInit(array, sizeof array, NULL);
    REQUIRE(created != NULL && in_array != NULL);
}

static void heaps_use(void)
{
    worker_round(1);
    use_heap(created);
    use_heap(in_array);
    EXPECT(HmmHeapCheck(created) && HmmHeapCheck(in_array));
}

static void fork_many_times(bool has_workers)
{
    if (has_workers) {
        workers_start();
    }
    for (int i = 0; i < FORKS; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(LIMIT_SECONDS);
            heaps_use();
            workers_visit(1);
            _exit(case_status());
        }
        int status = -1;
        heaps_use();
        REQUIRE(child > 0 && waitpid(child, &status, 0) == child);
        EXPECT_EQUAL(status, 0);
    }
    if (has_workers) {
        workers_stop();
    }
    EXPECT_EQUAL(early_calls[FORK_PREPARE], FORKS);
    EXPECT_EQUAL(early_calls[FORK_PARENT], FORKS);
}

static void early_handlers_allocate(void)
{
    heaps_make();
    early_handlers_set(early_malloc);
    fork_many_times(true);
}

static void early_handlers_use_a_created_heap(void)
{
    heaps_make();
    early_handlers_set(early_created);
    fork_many_times(true);
}

static void early_handlers_use_a_heap_in_an_array(void)
{
    heaps_make();
    early_handlers_set(early_in_array);
    fork_many_times(true);
}

static void early_handlers_with_one_thread(void)
{
    heaps_make();
    early_handlers_set(early_malloc);
    fork_many_times(false);
    early_calls[FORK_PREPARE] = early_calls[FORK_PARENT] = 0;
    early_handlers_set(early_in_array);
    fork_many_times(false);
}

static void late_handlers_allocate(void)
{
    heaps_make();
    early_handlers_set(early_malloc);
    REQUIRE(pthread_atfork(late_prepare, late_parent, late_child) == 0);
    fork_many_times(true);
    EXPECT_EQUAL(late_calls[FORK_PREPARE], FORKS);
    EXPECT_EQUAL(late_calls[FORK_PARENT], FORKS);
}

/* The very first allocation comes from within a fork. */
static void a_handler_allocates_first(void)
{
    early_handlers_set(early_malloc);
    alarm(LIMIT_SECONDS);
    pid_t child = fork();
    if (child == 0) {
        worker_round(1);
        _exit(early_calls[FORK_CHILD] == 1 ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    int status = -1;
    REQUIRE(child > 0 && waitpid(child, &status, 0) == child);
    EXPECT_EQUAL(status, 0);
    EXPECT(early_calls[FORK_PREPARE] == 1 && early_calls[FORK_PARENT] == 1);
}

CASES_MAIN(CASE(early_handlers_allocate), CASE(early_handlers_use_a_created_heap),
           CASE(early_handlers_use_a_heap_in_an_array), CASE(early_handlers_with_one_thread),
           CASE(late_handlers_allocate), CASE(a_handler_allocates_first))
