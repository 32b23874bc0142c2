/*
 * threads.c - threads that come and go, and what they leave to do when they are nearly gone.
 */
#include "workers.h"

#include <limits.h>
#include <malloc.h>
#include <sys/syscall.h>

enum { STORM = 300, CROWD = 100, LIMIT_SECONDS = 25 };

static pthread_key_t key;
static atomic_int destructor_calls;

/* What the C library keeps for threads that are gone: the stacks that it may use again, and their
 * vectors. */
enum { SLACK_BYTES = 40000 };

static size_t used_bytes(void)
{
    free(malloc(1));
    return mallinfo2().uordblks;
}

static void *thread_leave_a_block(void *unused)
{
    (void)unused;
    worker_round(1);
    char *block = malloc(1000);
    REQUIRE(block != NULL);
    memset(block, 7, 1000);
    return block;
}

/* Each leaves a block, and somebody else frees it. */
static void threads_leave_blocks_to_others(void)
{
    alarm(LIMIT_SECONDS);
    workers_visit(WORKERS);
    size_t before = used_bytes();
    for (int i = 0; i < STORM; i++) {
        pthread_t thread;
        void *block = NULL;
        REQUIRE(pthread_create(&thread, NULL, thread_leave_a_block, NULL) == 0);
        REQUIRE(pthread_join(thread, &block) == 0);
        EXPECT(((char *)block)[0] == 7 && ((char *)block)[999] == 7);
        free(block);
    }
    EXPECT(used_bytes() < before + SLACK_BYTES);
}

static void a_crowd_at_once(void)
{
    pthread_t threads[CROWD];
    alarm(LIMIT_SECONDS);
    size_t before = used_bytes();
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < CROWD; i++) {
            REQUIRE(pthread_create(&threads[i], NULL, thread_leave_a_block, NULL) == 0);
        }
        for (int i = 0; i < CROWD; i++) {
            void *block = NULL;
            REQUIRE(pthread_join(threads[i], &block) == 0);
            free(block);
        }
    }
    EXPECT(used_bytes() < before + SLACK_BYTES);
}

static atomic_int detached_count;

static void *thread_count(void *unused)
{
    worker_run_once(unused);
    atomic_fetch_add(&detached_count, 1);
    return NULL;
}

static void detached_threads(void)
{
    pthread_attr_t detached;
    alarm(LIMIT_SECONDS);
    REQUIRE(pthread_attr_init(&detached) == 0);
    REQUIRE(pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED) == 0);
    for (int i = 0; i < STORM; i++) {
        pthread_t thread;
        REQUIRE(pthread_create(&thread, &detached, thread_count, NULL) == 0);
    }
    while (atomic_load(&detached_count) < STORM) {
        worker_round(1);
    }
}

/* Frees, allocates, and sets the key again, so that it is called until the system loses patience.
 */
static void destroy_and_begin_again(void *block)
{
    atomic_fetch_add(&destructor_calls, 1);
    free(block);
    worker_round(5);
    void *next = malloc(300);
    REQUIRE(next != NULL);
    pthread_setspecific(key, next);
}

static void destroy(void *block)
{
    atomic_fetch_add(&destructor_calls, 1);
    worker_round(5);
    free(block);
}

static void *thread_with_key(void *unused)
{
    (void)unused;
    pthread_setspecific(key, malloc(200));
    return NULL;
}

static void threads_with_key(int count)
{
    for (int i = 0; i < count; i++) {
        pthread_t thread;
        REQUIRE(pthread_create(&thread, NULL, thread_with_key, NULL) == 0);
        REQUIRE(pthread_join(thread, NULL) == 0);
    }
}

static void destructors_of_keys_use_the_heap(void)
{
    alarm(LIMIT_SECONDS);
    REQUIRE(pthread_key_create(&key, destroy) == 0);
    threads_with_key(1);
    size_t before = used_bytes();
    threads_with_key(STORM);
    EXPECT_EQUAL(destructor_calls, STORM + 1);
    EXPECT(used_bytes() < before + SLACK_BYTES);
}

static void destructors_of_keys_go_on_for_ever(void)
{
    alarm(LIMIT_SECONDS);
    REQUIRE(pthread_key_create(&key, destroy_and_begin_again) == 0);
    threads_with_key(STORM / 10);
    EXPECT(destructor_calls >= STORM / 10 * 2);
}

/* What C++ compiles thread_local destructors to. They run before the keys' own. */
int __cxa_thread_atexit_impl(void (*destructor)(void *object), void *object, void *library);
extern void *__dso_handle;

static void *thread_with_objects(void *unused)
{
    (void)unused;
    for (int i = 0; i < 3; i++) {
        REQUIRE(__cxa_thread_atexit_impl(destroy, malloc(100), &__dso_handle) == 0);
    }
    pthread_setspecific(key, malloc(200));
    return NULL;
}

static void destructors_of_thread_locals_use_the_heap(void)
{
    alarm(LIMIT_SECONDS);
    REQUIRE(pthread_key_create(&key, destroy) == 0);
    for (int i = 0; i < STORM / 3; i++) {
        pthread_t thread;
        REQUIRE(pthread_create(&thread, NULL, thread_with_objects, NULL) == 0);
        REQUIRE(pthread_join(thread, NULL) == 0);
    }
    EXPECT_EQUAL(destructor_calls, STORM / 3 * 4);
}

/* Calls of the heap are no points of cancellation, so a thread that is cancelled never keeps a
 * lock. */
static void *thread_until_cancelled(void *ready)
{
    for (unsigned long round = 0;; round++) {
        worker_round(round);
        atomic_fetch_add((atomic_int *)ready, 1);
        pthread_testcancel();
    }
    return NULL;
}

static void threads_are_cancelled(void)
{
    alarm(LIMIT_SECONDS);
    for (int i = 0; i < STORM / 10; i++) {
        pthread_t thread;
        atomic_int ready = 0;
        void *result = NULL;
        REQUIRE(pthread_create(&thread, NULL, thread_until_cancelled, &ready) == 0);
        while (atomic_load(&ready) == 0) {
            worker_round(1);
        }
        REQUIRE(pthread_cancel(thread) == 0);
        REQUIRE(pthread_join(thread, &result) == 0);
        EXPECT(result == PTHREAD_CANCELED);
    }
}

/* From one thread to two and back: what a lock does differently must not depend on when. */
static void one_thread_then_two_then_one(void)
{
    alarm(LIMIT_SECONDS);
    for (int i = 0; i < STORM; i++) {
        worker_round(1);
        pthread_t thread;
        REQUIRE(pthread_create(&thread, NULL, worker_run_once, NULL) == 0);
        worker_round(2);
        REQUIRE(pthread_join(thread, NULL) == 0);
    }
}

/* A detached thread that ends frees what stacks have left that the C library wants to keep no
 * longer: a block for each. It has called all destructors then, and nobody learns of what it does
 * after. */
enum {
    STACKS = 1000,
    BLOCKS_BESIDE = 3,
    BESIDE_BYTES = 280,           /* as the vectors of threads, in the same slabs */
    LARGE_STACK_BYTES = 64 << 20, /* more than glibc keeps of all stacks */
    LARGER_STACK_BYTES = 100 << 20,
    LAST_ROUNDS = 5,
};

static pthread_barrier_t all_are_here;

static void *thread_wait_for_all(void *unused)
{
    (void)pthread_barrier_wait(&all_are_here);
    return unused;
}

/* As many stacks as fit, and blocks in the slabs of the threads' vectors. */
static void leave_stacks(void *beside[])
{
    static pthread_t threads[STACKS];
    pthread_attr_t small;
    REQUIRE(pthread_attr_init(&small) == 0);
    REQUIRE(pthread_attr_setstacksize(&small, (size_t)PTHREAD_STACK_MIN) == 0);
    REQUIRE(pthread_barrier_init(&all_are_here, NULL, STACKS + 1) == 0);
    for (int i = 0; i < STACKS; i++) {
        REQUIRE(pthread_create(&threads[i], &small, thread_wait_for_all, NULL) == 0);
        for (int block = 0; block < BLOCKS_BESIDE; block++) {
            REQUIRE((*beside++ = malloc(BESIDE_BYTES)) != NULL);
        }
    }
    (void)pthread_barrier_wait(&all_are_here);
    for (int i = 0; i < STACKS; i++) {
        REQUIRE(pthread_join(threads[i], NULL) == 0);
    }
    (void)pthread_barrier_destroy(&all_are_here);
}

static atomic_int detached_id;

static void *thread_do_nothing(void *unused)
{
    atomic_store(&detached_id, (int)syscall(SYS_gettid));
    return unused;
}

/* With blocks of its own between them. */
static void *thread_free_beside(void *blocks)
{
    void **beside = blocks;
    unsigned char *own[STACKS];
    for (int i = 0; i < STACKS; i++) {
        REQUIRE((own[i] = malloc(BESIDE_BYTES)) != NULL);
        memset(own[i], i, BESIDE_BYTES);
    }
    for (int i = 0; i < STACKS * BLOCKS_BESIDE; i++) {
        free(beside[i]);
    }
    for (int i = 0; i < STACKS; i++) {
        EXPECT(own[i][0] == (unsigned char)i && own[i][BESIDE_BYTES - 1] == (unsigned char)i);
        free(own[i]);
    }
    return thread_do_nothing(NULL);
}

/* Comes back when the system has forgotten the thread. */
static void run_detached(size_t stack_bytes, void *(*run)(void *), void *argument)
{
    pthread_t thread;
    pthread_attr_t large;
    REQUIRE(pthread_attr_init(&large) == 0);
    REQUIRE(pthread_attr_setstacksize(&large, stack_bytes) == 0);
    REQUIRE(pthread_attr_setdetachstate(&large, PTHREAD_CREATE_DETACHED) == 0);
    atomic_store(&detached_id, 0);
    REQUIRE(pthread_create(&thread, &large, run, argument) == 0);
    while (atomic_load(&detached_id) == 0 ||
           syscall(SYS_tgkill, getpid(), atomic_load(&detached_id), 0) == 0) {
        (void)sched_yield();
    }
}

static void *beside_stacks[STACKS * BLOCKS_BESIDE];

/* With the stack goes what the thread's bins would lie in. */
static void last_frees_of_a_thread_whose_stack_goes(void)
{
    alarm(LIMIT_SECONDS);
    for (int round = 0; round < LAST_ROUNDS; round++) {
        leave_stacks(beside_stacks);
        run_detached(LARGE_STACK_BYTES, thread_do_nothing, NULL);
        run_detached(LARGER_STACK_BYTES, thread_do_nothing, NULL);
        thread_free_beside(beside_stacks);
        EXPECT(used_bytes() < SLACK_BYTES);
    }
}

/* Another thread has the stack, and the same thread pointer, with which slabs would be marked. */
static void last_frees_of_a_thread_whose_stack_is_used_again(void)
{
    alarm(LIMIT_SECONDS);
    for (int round = 0; round < LAST_ROUNDS; round++) {
        leave_stacks(beside_stacks);
        run_detached(LARGE_STACK_BYTES, thread_do_nothing, NULL);
        run_detached(LARGE_STACK_BYTES, thread_free_beside, beside_stacks);
        EXPECT(used_bytes() < SLACK_BYTES);
    }
}

CASES_MAIN(CASE(threads_leave_blocks_to_others), CASE(a_crowd_at_once), CASE(detached_threads),
           CASE(destructors_of_keys_use_the_heap), CASE(destructors_of_keys_go_on_for_ever),
           CASE(destructors_of_thread_locals_use_the_heap), CASE(threads_are_cancelled),
           CASE(one_thread_then_two_then_one), CASE(last_frees_of_a_thread_whose_stack_goes),
           CASE(last_frees_of_a_thread_whose_stack_is_used_again))
