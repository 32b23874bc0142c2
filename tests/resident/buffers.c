/*
 * buffers.c - a process whose buffers grow, shrink and go, of all sizes up to some MiB, until
 * memory has to be given back. Answers each line with a line.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PLACES = 64, STEPS = 20000, DOUBLINGS = 19, BYTES_MIN = 8, CALLOC_ONE_IN = 5 };

static unsigned random_next(void)
{
    static unsigned state = 1;
    state = state * 1664525 + 1013904223;
    return state >> 8;
}

static void step(char **place)
{
    size_t bytes = (size_t)BYTES_MIN << random_next() % DOUBLINGS;
    bytes += random_next() % bytes;
    if (*place == NULL) {
        *place = random_next() % CALLOC_ONE_IN == 0 ? calloc(1, bytes) : malloc(bytes);
    } else if (random_next() % 2 == 0) {
        free(*place);
        *place = NULL;
    } else {
        char *moved = realloc(*place, bytes);
        *place = moved != NULL ? moved : *place;
    }
    if (*place != NULL) {
        memset(*place, 1, BYTES_MIN);
    }
}

int main(void)
{
    static char *places[PLACES];
    for (int i = 0; i < STEPS; i++) {
        step(&places[random_next() % PLACES]);
    }
    for (int i = 0; i < PLACES; i++) {
        free(places[i]);
    }
    char line[128];
    while (fgets(line, sizeof line, stdin) != NULL) {
        fputs(line, stdout);
        fflush(stdout);
    }
    return EXIT_SUCCESS;
}
