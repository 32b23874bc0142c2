/*
 * footprint.h - what the kernel says of this process: resident bytes, and mappings.
 */
#ifndef HMM_TESTS_FOOTPRINT_H
#define HMM_TESTS_FOOTPRINT_H

#include "cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* The first numbers of the kernel's line: pages that are mapped, and those of them
 * that are resident. */
static inline size_t footprint_bytes(bool of_resident)
{
    char text[200];
    FILE *statm = fopen("/proc/self/statm", "r");
    REQUIRE(statm != NULL && fgets(text, sizeof text, statm) != NULL);
    fclose(statm);
    char *end;
    size_t pages = strtoul(text, &end, 10);
    pages = of_resident ? strtoul(end, NULL, 10) : pages;
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static inline size_t mapped_bytes(void)
{
    return footprint_bytes(false);
}

static inline size_t resident_bytes(void)
{
    return footprint_bytes(true);
}

static inline size_t mapping_count(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    size_t count = 0;
    REQUIRE(maps != NULL);
    for (int letter = getc(maps); letter != EOF; letter = getc(maps)) {
        count += letter == '\n';
    }
    fclose(maps);
    return count;
}

#endif
