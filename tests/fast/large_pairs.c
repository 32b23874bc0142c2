/*
 * large_pairs.c - blocks above 256 KiB that come and go one after the other, of sizes that differ
 * by less than a granule, all written to.
 *
 * large_pairs ROUNDS
 */
#include "cases.h"

enum { BYTES = 300000, SPREAD_BYTES = 20000, STEP_BYTES = 4099 };

static bool is_zero(const unsigned char *block, size_t bytes)
{
    return block[0] == 0 && memcmp(block, block + 1, bytes - 1) == 0;
}

int main(int argc, char **argv)
{
    REQUIRE(argc == 2);
    size_t count = strtoul(argv[1], NULL, 10);
    for (size_t round = 0; round < count; round++) {
        size_t bytes = BYTES + round * STEP_BYTES % SPREAD_BYTES;
        unsigned char *block = malloc(bytes);
        REQUIRE(block != NULL);
        REQUIRE(is_zero(block, bytes));
        memset(block, 1, bytes);
        free(block);
    }
    return EXIT_SUCCESS;
}
