/*
 * idle.c - a process that has become idle gives back what its heap kept for
 * its return (scavenger=1).
 */
#include "footprint.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

enum {
    MEBIBYTE = 1 << 20,
    BLOCK_BYTES = 100000,
    LARGE_BYTES = 1000000,
    BLOCKS = 1500,
    LARGE_BLOCKS = 100,
    KEPT_ONE_IN = 4,
    ROUNDS = 12,
    WAIT_SECONDS_MAX = 40,
    WAIT_MS = 200,
    CHILD_SECONDS = 20,
};

static char *blocks[BLOCKS];
static char *large_blocks[LARGE_BLOCKS];

/* The directory is read to its end before anything else is asked for. */
static int thread_count(void)
{
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    REQUIRE(tasks != NULL);
    for (struct dirent *entry = readdir(tasks); entry != NULL; entry = readdir(tasks)) {
        count += entry->d_name[0] != '.';
    }
    closedir(tasks);
    return count;
}

static void *wait_for_ever(void *unused)
{
    for (;;) {
        pause();
    }
    return unused;
}

static void start_thread(void *(*start)(void *))
{
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, start, NULL) == 0);
    REQUIRE(pthread_detach(thread) == 0);
}

static void fill(char **places, int count, size_t bytes)
{
    for (int i = 0; i < count; i++) {
        if (places[i] == NULL) {
            places[i] = malloc(bytes);
            REQUIRE(places[i] != NULL);
            memset(places[i], i, bytes);
        }
    }
}

static void thin(char **places, int count)
{
    for (int i = 0; i < count; i++) {
        if (i % KEPT_ONE_IN != 0) {
            free(places[i]);
            places[i] = NULL;
        }
    }
}

/* The heap goes up and down, so that it learns to keep what it will want again. What is
 * live is returned. */
static size_t go_up_and_down(void)
{
    for (int round = 0; round < ROUNDS; round++) {
        fill(blocks, BLOCKS, BLOCK_BYTES);
        fill(large_blocks, LARGE_BLOCKS, LARGE_BYTES);
        thin(blocks, BLOCKS);
        thin(large_blocks, LARGE_BLOCKS);
    }
    return ((size_t)BLOCKS * BLOCK_BYTES + (size_t)LARGE_BLOCKS * LARGE_BYTES) / KEPT_ONE_IN;
}

static void what_was_kept_goes_back(void)
{
    const size_t base_bytes = resident_bytes();
    const size_t live_bytes = go_up_and_down();
    const size_t bound_bytes = base_bytes + live_bytes + live_bytes / 4 + 4 * MEBIBYTE;
    case_skip_where(resident_bytes() <= bound_bytes, "nothing was kept: this machine is slow");
    for (int ms = 0; ms < WAIT_SECONDS_MAX * 1000 && resident_bytes() > bound_bytes;
         ms += WAIT_MS) {
        REQUIRE(usleep(WAIT_MS * 1000) == 0);
    }
    EXPECT(resident_bytes() <= bound_bytes);
}

/* And comes into its own again after it has slept. */
static void again_and_again(void)
{
    for (int time = 0; time < 2; time++) {
        what_was_kept_goes_back();
        REQUIRE(sleep(3) == 0);
    }
}

static void there_is_one(void)
{
    EXPECT_EQUAL(thread_count(), 2);
    start_thread(wait_for_ever);
    EXPECT_EQUAL(thread_count(), 3);
}

static void expect_child(int wanted_status)
{
    int status = -1;
    REQUIRE(wait(&status) > 0);
    EXPECT_EQUAL(status, wanted_status);
}

static void a_forked_child_gets_its_own(void)
{
    start_thread(wait_for_ever);
    if (fork() == 0) {
        alarm(CHILD_SECONDS);
        there_is_one();
        _exit(case_failure_count != 0);
    }
    expect_child(0);
    EXPECT_EQUAL(thread_count(), 3);
}

static void *end_last(void *unused)
{
    (void)usleep(100000);
    return unused;
}

/* The last thread's end is the process' end. */
static void ends_with_the_first_thread(void)
{
    if (fork() == 0) {
        alarm(CHILD_SECONDS);
        start_thread(end_last);
        pthread_exit(NULL);
    }
    expect_child(0);
}

static void *fork_and_end(void *unused)
{
    ends_with_the_first_thread();
    return unused;
}

static void ends_with_a_childs_first_thread(void)
{
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, fork_and_end, NULL) == 0);
    REQUIRE(pthread_join(thread, NULL) == 0);
}

/* A signal that all of the program's threads block waits for them. */
static void takes_no_signals(void)
{
    sigset_t signals, pending;
    REQUIRE(sigemptyset(&signals) == 0 && sigaddset(&signals, SIGUSR1) == 0);
    REQUIRE(pthread_sigmask(SIG_BLOCK, &signals, NULL) == 0);
    if (fork() == 0) {
        alarm(CHILD_SECONDS);
        start_thread(wait_for_ever);
        REQUIRE(kill(getpid(), SIGUSR1) == 0);
        (void)usleep(100000);
        EXPECT_EQUAL(setegid(getegid()), 0); /* the system asks every thread, by a signal */
        EXPECT(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1));
        _exit(case_failure_count != 0);
    }
    expect_child(0);
}

CASES_MAIN(CASE(what_was_kept_goes_back), CASE(again_and_again), CASE(there_is_one),
           CASE(a_forked_child_gets_its_own), CASE(ends_with_the_first_thread),
           CASE(ends_with_a_childs_first_thread), CASE(takes_no_signals))
