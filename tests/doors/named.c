/*
 * named.c - programs that know the library by name: its calls and the malloc family are one heap,
 * and they may bring options of their own.
 */
#include "cases.h"
#include "hmm.h"

#include <errno.h>
#include <malloc.h>
#include <stdint.h>

/* The environment overrides it key by key. */
const char *HmmOptions = "fit=best,limit=64M";

enum { MEBIBYTE = 1 << 20 };

static void both_names_are_one_heap(void)
{
    void *(*const allocate[])(size_t) = {malloc, HmmAlloc};
    void (*const release[])(void *) = {free, HmmFree};
    void *(*const resize[])(void *, size_t) = {realloc, HmmRealloc};
    for (int i = 0; i < 8; i++) {
        char *block = allocate[i & 1](100);
        REQUIRE(block != NULL);
        memset(block, i, 100);
        EXPECT_EQUAL(malloc_usable_size(block), HmmUsableSize(block));
        block = resize[i >> 1 & 1](block, 3000);
        REQUIRE(block != NULL);
        EXPECT(block[0] == i && block[99] == i);
        release[i >> 2 & 1](block);
    }
    void *aligned = HmmAlignedAlloc(4096, 10);
    EXPECT(aligned != NULL && (uintptr_t)aligned % 4096 == 0);
    free(aligned);
    unsigned char *zeroed = HmmCalloc(100, 3);
    REQUIRE(zeroed != NULL);
    EXPECT(zeroed[0] == 0 && zeroed[299] == 0);
    free(zeroed);
}

static void bad_requests_are_refused(void)
{
    errno = 0;
    EXPECT(HmmAlloc(SIZE_MAX) == NULL && errno == ENOMEM);
    errno = 0;
    EXPECT(HmmAlloc((size_t)PTRDIFF_MAX + 1) == NULL && errno == ENOMEM);
    errno = 0;
    EXPECT(HmmCalloc(SIZE_MAX / 2, 3) == NULL && errno == ENOMEM);
    for (size_t alignment = 0; alignment < 100; alignment += 3) {
        if ((alignment & (alignment - 1)) != 0 || alignment == 0) {
            errno = 0;
            EXPECT(HmmAlignedAlloc(alignment, 10) == NULL && errno == EINVAL);
        }
    }
    errno = EDOM;
    HmmFree(NULL);
    EXPECT_EQUAL(HmmUsableSize(NULL), 0);
    void *block = HmmAlloc(0);
    EXPECT(block != NULL);
    EXPECT(HmmRealloc(block, 0) == NULL);
    EXPECT_EQUAL(errno, EDOM);
}

static size_t most_bytes(void)
{
    size_t bytes = 0;
    for (size_t mebibytes = 1; mebibytes < 256; mebibytes++) {
        void *block = malloc(mebibytes * MEBIBYTE);
        bytes = block != NULL ? mebibytes * MEBIBYTE : bytes;
        free(block);
    }
    return bytes;
}

static void the_programs_limit_holds(void)
{
    EXPECT(most_bytes() <= (size_t)64 * MEBIBYTE);
    EXPECT(most_bytes() >= (size_t)60 * MEBIBYTE);
}

/* Run with HMM_OPTIONS=limit=128M. */
static void the_environments_limit_holds(void)
{
    EXPECT(most_bytes() <= (size_t)128 * MEBIBYTE);
    EXPECT(most_bytes() >= (size_t)124 * MEBIBYTE);
}

CASES_MAIN(CASE(both_names_are_one_heap), CASE(bad_requests_are_refused),
           CASE(the_programs_limit_holds), CASE(the_environments_limit_holds))
