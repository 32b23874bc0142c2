/*
 * one_write.c - the last line arrives in one piece, and a program without standard error dies all
 * the same.
 */
#include "cases.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

static _Noreturn void free_twice(void)
{
    char *volatile block = malloc(24);
    free(block);
    free(block);
    _exit(EXIT_FAILURE);
}

static bool is_aborted(pid_t child)
{
    int status = 0;
    return waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
           WTERMSIG(status) == SIGABRT;
}

/* Datagrams keep the bounds of what was written: the first holds the whole line, and there is no
 * second. */
static void the_line_is_one_write(void)
{
    int ends[2];
    char line[1000];
    REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        REQUIRE(dup2(ends[1], STDERR_FILENO) >= 0);
        free_twice();
    }
    EXPECT(is_aborted(child));
    ssize_t bytes = recv(ends[0], line, sizeof line - 1, MSG_DONTWAIT);
    REQUIRE(bytes > 0);
    line[bytes] = '\0';
    EXPECT_EQUAL(strncmp(line, "hmm: free(0x", 12), 0);
    EXPECT(strstr(line, "): double free: block of ") != NULL);
    EXPECT(strchr(line, '\n') == line + bytes - 1);
    EXPECT(recv(ends[0], line, sizeof line, MSG_DONTWAIT) == -1);
}

static void without_standard_error_it_dies_silently(void)
{
    int ends[2];
    char byte;
    pid_t child = fork();
    if (child == 0) {
        close(STDERR_FILENO);
        close(STDOUT_FILENO);
        free_twice();
    }
    EXPECT(is_aborted(child));
    /* Nor does the line go to whatever else is open. */
    REQUIRE(pipe2(ends, O_NONBLOCK) == 0);
    child = fork();
    if (child == 0) {
        close(STDERR_FILENO);
        free_twice();
    }
    EXPECT(is_aborted(child));
    EXPECT(read(ends[0], &byte, 1) == -1);
}

/* Nobody reads the pipe any more: then it is SIGPIPE or SIGABRT, but never a program that goes on.
 */
static void a_closed_pipe_does_not_save_it(void)
{
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGPIPE, SIG_IGN);
        close(ends[0]);
        REQUIRE(dup2(ends[1], STDERR_FILENO) >= 0);
        free_twice();
    }
    EXPECT(is_aborted(child));
}

/* A program may block SIGABRT. abort sees to it that this does not help. */
static void a_blocked_signal_does_not_save_it(void)
{
    pid_t child = fork();
    if (child == 0) {
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_BLOCK, &all, NULL);
        close(STDERR_FILENO);
        free_twice();
    }
    EXPECT(is_aborted(child));
}

CASES_MAIN(CASE(the_line_is_one_write), CASE(without_standard_error_it_dies_silently),
           CASE(a_closed_pipe_does_not_save_it), CASE(a_blocked_signal_does_not_save_it))
