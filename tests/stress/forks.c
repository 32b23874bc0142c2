/*
 * forks.c - fork in the middle of everything: the child finds every heap whole, and nobody waits
 * for a thread that is not there.
 */
#include "hmm.h"
#include "workers.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <sys/time.h>
#include <sys/wait.h>

extern char **environ;

enum { FORKS = 200, CHILD_SECONDS = 20 };

static HmmHeap *heap; /* used by all threads */
static pthread_t heap_worker;

static void heap_round(HmmHeap *used)
{
    void *blocks[32];
    for (unsigned i = 0; i < 32; i++) {
        blocks[i] = HmmHeapAlloc(used, 24 + 40 * i);
        REQUIRE(blocks[i] != NULL);
        memset(blocks[i], 1, 24 + 40 * i);
    }
    for (unsigned i = 0; i < 32; i++) {
        HmmHeapFree(used, blocks[i]);
    }
}

static void *heap_worker_run(void *unused)
{
    (void)unused;
    while (!atomic_load(&workers_must_stop)) {
        heap_round(heap);
        HmmHeap *brief = HmmHeapCreate((size_t)1 << 20, NULL);
        REQUIRE(brief != NULL);
        heap_round(brief);
        HmmHeapDestroy(brief);
    }
    return NULL;
}

static void everyone_starts(void)
{
    heap = HmmHeapCreate((size_t)64 << 20, NULL);
    REQUIRE(heap != NULL);
    workers_start();
    REQUIRE(pthread_create(&heap_worker, NULL, heap_worker_run, NULL) == 0);
}

static void everyone_stops(void)
{
    workers_stop();
    pthread_join(heap_worker, NULL);
    EXPECT(HmmHeapCheck(heap));
    HmmHeapDestroy(heap);
}

/* Waits for a child that must have done well. */
static void child_join(pid_t child)
{
    int status = -1;
    REQUIRE(child > 0 && waitpid(child, &status, 0) == child);
    EXPECT_EQUAL(status, 0);
}

/* What a child does at once. A child that hangs is ended by its own clock, and shows by how it
 * ended. */
static void child_begin(void)
{
    alarm(CHILD_SECONDS);
    worker_round(7);
    EXPECT(HmmHeapCheck(heap));
    heap_round(heap);
}

static _Noreturn void child_end(void)
{
    _exit(case_status());
}

static _Noreturn void child_run(bool has_family)
{
    child_begin();
    if (has_family) {
        workers_visit(2);
        pid_t grandchild = fork();
        if (grandchild == 0) {
            child_begin();
            workers_visit(1);
            child_end();
        }
        child_join(grandchild);
        HmmHeap *own = HmmHeapCreate((size_t)1 << 20, NULL);
        REQUIRE(own != NULL);
        heap_round(own);
        HmmHeapDestroy(own);
    }
    EXPECT(HmmHeapCheck(heap));
    child_end();
}

static void forks_among_busy_threads(void)
{
    everyone_starts();
    for (int i = 0; i < FORKS; i++) {
        pid_t child = fork();
        if (child == 0) {
            child_run(i % 4 == 0);
        }
        worker_round((unsigned long)i);
        child_join(child);
    }
    everyone_stops();
}

/* Its handlers of atexit run, and the C library's own teardown. */
static void children_that_exit_properly(void)
{
    everyone_starts();
    for (int i = 0; i < FORKS / 10; i++) {
        pid_t child = fork();
        if (child == 0) {
            child_begin();
            exit(case_status());
        }
        child_join(child);
    }
    everyone_stops();
}

static void *fork_several(void *unused)
{
    (void)unused;
    for (int i = 0; i < FORKS / 10; i++) {
        pid_t child = fork();
        if (child == 0) {
            child_run(false);
        }
        child_join(child);
    }
    return NULL;
}

static void forks_from_several_threads(void)
{
    pthread_t threads[4];
    everyone_starts();
    for (int i = 0; i < 4; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, fork_several, NULL) == 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    everyone_stops();
}

/* A child whose own children have children, each allocating before and after. */
static void forks_within_forks(void)
{
    enum { DEPTH = 30 };
    heap = HmmHeapCreate((size_t)64 << 20, NULL);
    REQUIRE(heap != NULL);
    alarm(CHILD_SECONDS);
    for (int depth = 0; depth < DEPTH; depth++) {
        worker_round((unsigned long)depth);
        heap_round(heap);
        pid_t child = fork();
        if (child != 0) {
            int status = -1;
            REQUIRE(child > 0 && waitpid(child, &status, 0) == child);
            EXPECT_EQUAL(status, 0);
            worker_round((unsigned long)depth);
            if (depth != 0) {
                child_end();
            }
            return;
        }
        alarm(CHILD_SECONDS);
    }
    child_end();
}

/* The parent sleeps while the child runs in its memory, and goes on where it was. */
static void vforks_among_busy_threads(void)
{
    char *const arguments[] = {"true", NULL};
    everyone_starts();
    for (int i = 0; i < FORKS / 4; i++) {
        char *kept = malloc(100);
        REQUIRE(kept != NULL);
        memset(kept, i, 100);
        pid_t child = vfork();
        if (child == 0) {
            execv("/bin/true", arguments);
            _exit(EXIT_FAILURE);
        }
        child_join(child);
        EXPECT(kept[0] == (char)i && kept[99] == (char)i);
        free(kept);
        worker_round((unsigned long)i);
    }
    everyone_stops();
}

static void programs_are_started_in_every_way(void)
{
    char *const arguments[] = {"true", NULL};
    everyone_starts();
    for (int i = 0; i < 10; i++) {
        pid_t child = -1;
        EXPECT_EQUAL(posix_spawn(&child, "/bin/true", NULL, NULL, arguments, environ), 0);
        child_join(child);
        EXPECT_EQUAL(system("exit 7"), 7 << 8);
        FILE *pipe = popen("echo word", "r");
        char word[10] = "";
        REQUIRE(pipe != NULL);
        EXPECT(fgets(word, sizeof word, pipe) != NULL && strcmp(word, "word\n") == 0);
        EXPECT_EQUAL(pclose(pipe), 0);
        child = fork();
        if (child == 0) {
            worker_round(1);
            execv("/bin/true", arguments);
            _exit(EXIT_FAILURE);
        }
        child_join(child);
    }
    everyone_stops();
}

/* Nothing has been allocated yet; the process has one thread. */
static void fork_before_the_first_allocation(void)
{
    pid_t child = fork();
    if (child == 0) {
        alarm(CHILD_SECONDS);
        worker_round(1);
        workers_visit(2);
        child_end();
    }
    worker_round(1);
    child_join(child);
}

enum { READERS = 6, LINE_BYTES = 50000, STREAM_PAUSE_US = 100 };

static char line_path[32];

/* Allocates, and takes locks of the heap, while it has a stream's. Who waits for that would
 * not get it for long without a pause. */
static void *read_lines(void *unused)
{
    FILE *stream = fopen(line_path, "r");
    REQUIRE(stream != NULL);
    while (!atomic_load(&workers_must_stop)) {
        char *line = NULL;
        size_t line_bytes = 0;
        rewind(stream);
        EXPECT_EQUAL(getline(&line, &line_bytes, stream), LINE_BYTES);
        free(line);
        usleep(STREAM_PAUSE_US);
    }
    fclose(stream);
    return unused;
}

/* Waits for one stream after the other, and has the lock of all streams. */
static void *flush_streams(void *unused)
{
    while (!atomic_load(&workers_must_stop)) {
        EXPECT_EQUAL(fflush(NULL), 0);
        usleep(STREAM_PAUSE_US);
    }
    return unused;
}

/* With musl nobody else can take the lock of all streams. */
#ifdef __GLIBC__
enum { STREAMS_MAY_BE_FLUSHED = true };
#else
enum { STREAMS_MAY_BE_FLUSHED = false };
#endif

static void forks_while_streams_are_flushed(void)
{
    if (!STREAMS_MAY_BE_FLUSHED) {
        return;
    }
    pthread_t threads[READERS + 1];
    FILE *file = tmpfile();
    REQUIRE(file != NULL && fprintf(file, "%*s\n", LINE_BYTES - 1, "") == LINE_BYTES);
    REQUIRE(fflush(file) == 0);
    snprintf(line_path, sizeof line_path, "/proc/self/fd/%d", fileno(file));
    alarm(CHILD_SECONDS);
    for (int i = 0; i < READERS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, read_lines, NULL) == 0);
    }
    REQUIRE(pthread_create(&threads[READERS], NULL, flush_streams, NULL) == 0);
    for (int i = 0; i < FORKS; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(CHILD_SECONDS);
            worker_round(1);
            EXPECT(fflush(NULL) == 0 && fclose(fopen("/dev/null", "r")) == 0);
            _exit(case_status());
        }
        child_join(child);
    }
    atomic_store(&workers_must_stop, true);
    for (int i = 0; i <= READERS; i++) {
        pthread_join(threads[i], NULL);
    }
    alarm(0);
    fclose(file);
}

/* What the handler does while there is one thread, and the C library says so. */
#if defined(__GLIBC__) && __has_include(<sys/single_threaded.h>)
enum { HANDLERS_MAY_FORK = true };
#else
enum { HANDLERS_MAY_FORK = false };
#endif

enum { HANDLER_FORKS = 400, HANDLER_PAUSE_US = 50 };

static volatile sig_atomic_t handler_forks;
static volatile sig_atomic_t handler_failures;
static volatile sig_atomic_t is_child_of_handler;

/* The signal comes at any moment from now on, and once. */
static void handler_arm(void)
{
    const struct itimerval soon = {.it_value.tv_usec = HANDLER_PAUSE_US};
    setitimer(ITIMER_REAL, &soon, NULL);
}

/* Every other child goes on where its parent was interrupted. */
static void fork_in_handler(int signal_number)
{
    (void)signal_number;
    const int saved_errno = errno;
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        is_child_of_handler = true;
        if (handler_forks % 2 == 0) {
            _exit(EXIT_SUCCESS);
        }
        signal(SIGALRM, SIG_DFL);
        alarm(CHILD_SECONDS);
        errno = saved_errno;
        return;
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
        handler_failures++;
    }
    handler_forks++;
    handler_arm();
    errno = saved_errno;
}

/* POSIX had fork() among what a handler may call until 2024. It meets blocks of a thread, a heap
 * that is locked, the first call of all, and other forks. */
static void forks_in_a_signal_handler(void)
{
    if (!HANDLERS_MAY_FORK) {
        return;
    }
    signal(SIGALRM, fork_in_handler);
    handler_arm();
    heap = HmmHeapCreate((size_t)64 << 20, NULL);
    REQUIRE(heap != NULL);
    for (unsigned long round = 0; handler_forks < HANDLER_FORKS && !is_child_of_handler; round++) {
        worker_round(round);
        heap_round(heap);
        if (round % 64 == 0) {
            pid_t child = fork();
            if (child == 0) {
                signal(SIGALRM, SIG_DFL);
                child_run(false);
            }
            int status = -1;
            pid_t joined = waitpid(child, &status, 0);
            EXPECT(is_child_of_handler || (joined == child && status == 0));
        }
    }
    if (is_child_of_handler) {
        worker_round(1);
        heap_round(heap);
        EXPECT(HmmHeapCheck(heap));
        child_end();
    }
    signal(SIGALRM, SIG_IGN);
    EXPECT_EQUAL(handler_failures, 0);
    EXPECT(HmmHeapCheck(heap));
    HmmHeapDestroy(heap);
}

CASES_MAIN(CASE(forks_among_busy_threads), CASE(children_that_exit_properly),
           CASE(forks_from_several_threads), CASE(forks_within_forks),
           CASE(vforks_among_busy_threads), CASE(programs_are_started_in_every_way),
           CASE(fork_before_the_first_allocation), CASE(forks_while_streams_are_flushed),
           CASE(forks_in_a_signal_handler))
