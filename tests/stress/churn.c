/*
 * churn.c - threads of the process heap that come and go, swap blocks of all sizes, and free each
 * other's. Every block knows its own content.
 *
 * churn OPERATIONS [SEED [FORKS]], linked with the rooms: at the end, and in each forked child, the
 * invariants of all of them hold. In this form sanitizers can watch.
 */
#include "alloc.h"
#include "cases.h"
#include "content.h"
#include "hmm.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>

enum {
    THREADS = 8,
    SLOTS = 256,
    OWN = 32,
    LIVES = 10, /* threads that follow each other in one place */
    CHILD_SECONDS = 60,
    TRIM_STEPS = 3000,             /* a thread gives back what lies free after so many, about */
    SLACK_COUNT = 3 * CLASS_COUNT, /* granules that may stay taken at the end */
};

struct parcel {
    size_t bytes; /* of the content */
    uint32_t salt;
    unsigned char content[];
};

static _Atomic(struct parcel *) slots[SLOTS];
static unsigned long operation_count;
static uint64_t seed;

static void audit(void)
{
    const char *broken = hmm_alloc_audit();
    if (broken != NULL) {
        case_fail();
        case_say("# %s\n", broken);
    }
}

static struct parcel *parcel_allocate(size_t bytes, uint64_t draw)
{
    size_t whole_bytes = sizeof(struct parcel) + bytes;
    if (draw % 8 == 0) {
        struct parcel *parcel = HmmCalloc(1, whole_bytes);
        EXPECT(parcel != NULL && content_is_zero(parcel->content, bytes));
        return parcel;
    }
    return draw % 8 == 1 ? HmmAlignedAlloc((size_t)32 << draw / 8 % 12, whole_bytes)
                         : HmmAlloc(whole_bytes);
}

static struct parcel *parcel_new(uint64_t *random)
{
    size_t bytes = random_bytes(random);
    uint64_t draw = random_next(random) >> 8;
    struct parcel *parcel = parcel_allocate(bytes, draw);
    REQUIRE(parcel != NULL);
    EXPECT(HmmUsableSize(parcel) >= sizeof *parcel + bytes);
    parcel->bytes = bytes;
    parcel->salt = (uint32_t)draw;
    content_write(parcel->content, bytes, parcel->salt);
    return parcel;
}

static void parcel_drop(struct parcel *parcel)
{
    if (parcel != NULL) {
        EXPECT(content_is(parcel->content, parcel->bytes, parcel->salt));
        HmmFree(parcel);
    }
}

static struct parcel *parcel_resize(struct parcel *parcel, uint64_t *random)
{
    size_t bytes = random_bytes(random);
    parcel = HmmRealloc(parcel, sizeof *parcel + bytes);
    REQUIRE(parcel != NULL);
    EXPECT(content_is_kept(parcel->content, parcel->bytes, parcel->salt, bytes));
    parcel->bytes = bytes;
    content_write(parcel->content, bytes, parcel->salt);
    return parcel;
}

static void parcel_step(struct parcel **place, uint64_t *random)
{
    switch (random_below(random, 5)) {
    case 0:
    case 1:
        /* acquire and release: the block's content goes over with it */
        *place = atomic_exchange_explicit(&slots[random_below(random, SLOTS)], *place,
                                          memory_order_acq_rel);
        break;
    case 2:
        if (*place != NULL) {
            *place = parcel_resize(*place, random);
        }
        break;
    case 3:
        parcel_drop(*place);
        *place = NULL;
        break;
    default:
        parcel_drop(*place);
        *place = parcel_new(random);
        break;
    }
}

/* Some of what a thread has at its end it leaves in the slots, for others. */
static void *thread_run(void *salt)
{
    uint64_t random = seed + (uintptr_t)salt * 0x9e3779b97f4a7c15u + 1;
    struct parcel *own[OWN] = {NULL};
    for (unsigned long i = 0; i < operation_count / LIVES && case_failure_count == 0; i++) {
        parcel_step(&own[random_below(&random, OWN)], &random);
        if (random_below(&random, TRIM_STEPS) == 0) {
            (void)hmm_alloc_trim(0);
        }
    }
    for (size_t i = 0; i < OWN; i++) {
        parcel_drop(i % 2 == 0 ? own[i]
                               : atomic_exchange_explicit(&slots[random_below(&random, SLOTS)],
                                                          own[i], memory_order_acq_rel));
    }
    return NULL;
}

/* One place of the eight: threads one after the other, each with the next seed. */
static void *place_run(void *number)
{
    for (uintptr_t life = 0; life < LIVES; life++) {
        pthread_t thread;
        REQUIRE(pthread_create(&thread, NULL, thread_run,
                               (void *)((uintptr_t)number * LIVES + life)) == 0);
        pthread_join(thread, NULL);
    }
    return NULL;
}

static atomic_bool is_over;

/* What a scavenger does, but without its rest. It never allocates. */
static void *scavenge(void *unused)
{
    while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
        (void)hmm_alloc_scavenge();
        (void)usleep(100);
    }
    return unused;
}

static void slots_clear(void)
{
    for (int i = 0; i < SLOTS; i++) {
        parcel_drop(atomic_exchange_explicit(&slots[i], NULL, memory_order_acq_rel));
    }
}

static void fork_once(void)
{
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        uint64_t random = seed;
        struct parcel *own[OWN] = {NULL};
        alarm(CHILD_SECONDS);
        for (int i = 0; i < 1000; i++) {
            parcel_step(&own[random_below(&random, OWN)], &random);
        }
        slots_clear();
        audit();
        _exit(case_status());
    }
    REQUIRE(child > 0 && waitpid(child, &status, 0) == child);
    EXPECT_EQUAL(status, 0);
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    pthread_t scavenger;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    operation_count = argc > 1 ? strtoul(argv[1], NULL, 10) : 10000;
    seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    seed = seed != 0 ? seed : (uint64_t)now.tv_nsec * 1000003u + 1;
    unsigned long forks = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
    for (uintptr_t i = 0; i < THREADS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, place_run, (void *)i) == 0);
    }
    REQUIRE(pthread_create(&scavenger, NULL, scavenge, NULL) == 0);
    for (unsigned long i = 0; i < forks && case_failure_count == 0; i++) {
        fork_once();
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    atomic_store_explicit(&is_over, true, memory_order_relaxed);
    pthread_join(scavenger, NULL);
    slots_clear();
    audit();
    (void)hmm_alloc_trim(0);
    audit();
    EXPECT(atomic_load(&hmm_arena.taken_count) <= SLACK_COUNT);
    if (case_failure_count != 0) {
        case_say("# seed %llu\n", (unsigned long long)seed);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
