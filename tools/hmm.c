/*
 * hmm.c - the command: tells what the library can be told.
 */
#include "hmm.h"
#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_USAGE = 2 };

static void print_usage(FILE *stream)
{
    fputs("usage: hmm options | version | help\n"
          "  options   every key of HMM_OPTIONS, its values, its default and what it does\n"
          "  version   the version of the library\n"
          "  help      this text\n",
          stream);
}

static void print_options(void)
{
    size_t row_count;
    const struct option_row *rows = hmm_option_rows(&row_count);
    puts("HMM_OPTIONS=\"key=value,key=value\"");
    for (size_t row = 0; row < row_count; row++) {
        printf("  %s=%s (default %s)\n      %s\n", rows[row].name, rows[row].values,
               rows[row].preset, rows[row].help);
    }
}

/* Output that nobody got is a failure. */
static int finish(void)
{
    if (fflush(stdout) != 0) {
        perror("hmm: standard output");
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    const char *command = argc == 2 ? argv[1] : "";
    if (strcmp(command, "options") == 0) {
        print_options();
    } else if (strcmp(command, "version") == 0) {
        puts("hmm " HMM_VERSION);
    } else if (strcmp(command, "help") == 0 || strcmp(command, "--help") == 0) {
        print_usage(stdout);
    } else {
        fputs("hmm: wants one of: options, version, help\n", stderr);
        return EXIT_USAGE;
    }
    return finish();
}
