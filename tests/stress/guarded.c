/*
 * guarded.c - forks while guarded_library.c works; each child waits until its own worker has
 * allocated.
 */
#include <sched.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

long guarded_turns(void);

enum { FORKS = 200, TURNS = 10 };

int main(void)
{
    for (int i = 0; i < FORKS; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            while (guarded_turns() < TURNS) {
                sched_yield();
            }
            _exit(0);
        }
        int status = 0;
        if (waitpid(pid, &status, 0) != pid || status != 0) {
            fprintf(stderr, "# fork %d: status %d\n", i, status);
            return 1;
        }
    }
    return 0;
}
