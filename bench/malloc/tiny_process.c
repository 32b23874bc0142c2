/*
 * tiny_process.c - What does an allocator cost a process that hardly needs one?
 *
 * Scripts start thousands of small programs. This one starts itself over and over, and waits each
 * time; the child takes 200 blocks of 16 to 1024 bytes, gives half of them back and ends. The time
 * is that of all, and the peak resident size that of one: the allocator's own start and its floor.
 */
#include "harness.h"

#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROCESSES = 400, BLOCKS = 200, BYTES_MIN = 16, BYTES_MAX = 1024 };

#define CHILD_ARGUMENT "child"

static void child(void)
{
    static struct block *places[BLOCKS];
    struct worker worker = {.index = 0};
    for (size_t index = 0; index < BLOCKS; index++) {
        place_fill(&worker, &places[index], random_between(&worker, BYTES_MIN, BYTES_MAX));
    }
    places_empty(&worker, places, BLOCKS / 2);
}

static void work(struct worker *worker)
{
    (void)worker;
    char name[] = "tiny_process";
    char argument[] = CHILD_ARGUMENT;
    char *const arguments[] = {name, argument, NULL};
    for (size_t process = scaled(PROCESSES); process; process--) {
        pid_t pid;
        int status;
        if (posix_spawn(&pid, "/proc/self/exe", NULL, NULL, arguments, environ) ||
            waitpid(pid, &status, 0) != pid || status != 0) {
            harness_fail("a child failed");
        }
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], CHILD_ARGUMENT) == 0) {
        child();
        return EXIT_SUCCESS;
    }
    return workload_run(&(struct workload){.work = work}, argc, argv);
}
