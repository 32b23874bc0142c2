/*
 * printing.c - prints the numbers of its heap in the form that is asked for.
 */
#include <hmm.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    const char *form = argc > 1 ? argv[1] : "";
    void *kept = malloc(100000);
    for (size_t bytes = 1; bytes < 5000; bytes += 100) {
        free(malloc(bytes));
    }
    if (strcmp(form, "json") == 0) {
        return HmmPrintStats(STDOUT_FILENO, HMM_STATS_JSON) ? 0 : 1;
    }
    if (strcmp(form, "xml") == 0) {
        return malloc_info(0, stdout);
    }
    if (strcmp(form, "signal") == 0) {
        return raise(SIGUSR2);
    }
    malloc_stats();
    free(kept);
    return 0;
}
