/*
 * launch.c - Runs one program under one allocator, and reports what it used.
 *
 *     launch REPORT_FD PRELOAD PROGRAM [ARGUMENT...]
 *
 * The program and what it starts find PRELOAD in LD_PRELOAD; nobody else does. When it has ended,
 * one line goes to the file descriptor:
 *
 *     status=N wall_ns=N cpu_ns=N peak_bytes=N faults=N
 *
 * A program of its own, and a small one, because Linux counts what a process was before it executed
 * another program among its peak resident size: a script that ran the workloads itself would find
 * its own size in every figure.
 */
#include "measure.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_NOT_STARTED = 127, BYTES_PER_KIB = 1024 };

static uint64_t timeval_ns(struct timeval time)
{
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_usec * 1000;
}

static void program_start(int report, const char *preload, char **arguments)
{
    fcntl(report, F_SETFD, FD_CLOEXEC);
    setenv("LD_PRELOAD", preload, 1);
    execvp(arguments[0], arguments);
    dprintf(STDERR_FILENO, "%s: %s\n", arguments[0], strerror(errno));
    _exit(EXIT_NOT_STARTED);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fputs("usage: launch REPORT_FD PRELOAD PROGRAM [ARGUMENT...]\n", stderr);
        return EXIT_FAILURE;
    }
    int report = (int)strtol(argv[1], NULL, 10);
    uint64_t start_ns = clock_ns(CLOCK_MONOTONIC);
    pid_t pid = fork();
    if (pid == 0) {
        program_start(report, argv[2], argv + 3);
    }
    int status;
    struct rusage used;
    if (pid < 0 || wait4(pid, &status, 0, &used) != pid) {
        perror("launch");
        return EXIT_FAILURE;
    }
    uint64_t wall_ns = clock_ns(CLOCK_MONOTONIC) - start_ns;
    dprintf(report, "status=%d wall_ns=%llu cpu_ns=%llu peak_bytes=%llu faults=%llu\n",
            WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status),
            (unsigned long long)wall_ns,
            (unsigned long long)(timeval_ns(used.ru_utime) + timeval_ns(used.ru_stime)),
            (unsigned long long)used.ru_maxrss * BYTES_PER_KIB,
            (unsigned long long)(used.ru_minflt + used.ru_majflt));
    return EXIT_SUCCESS;
}
