/* The first thread ends, and another one keeps a large block. It says so, and then returns, exits
 * with 3, crashes, or waits, as the argument says. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *kept;

static void *go_on(void *argument)
{
    const size_t bytes = 5 << 20;
    const char *how = argument;
    usleep(100000);
    kept = malloc(bytes);
    memset(kept, 'k', bytes);
    puts("ready");
    fflush(stdout);
    if (strcmp(how, "exit") == 0) {
        exit(3);
    } else if (strcmp(how, "crash") == 0) {
        abort();
    } else if (strcmp(how, "wait") == 0) {
        pause();
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    if (argc < 2 || pthread_create(&thread, NULL, go_on, argv[1]) != 0) {
        return 2;
    }
    pthread_exit(NULL);
}
