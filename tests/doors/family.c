/*
 * family.c - the malloc family as any program sees it: good requests, and requests that cannot be
 * met.
 *
 * It knows nothing of the library, and is run with it preloaded, linked statically, and on its
 * array.
 */
#include "cases.h"
#include "names.h"
#include "seed.h"

#include <dlfcn.h>
#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <malloc.h>
#include <regex.h>
#include <search.h>
#include <stdint.h>
#include <wchar.h>

enum { SIZES_AT_THE_END = 200000, FILL = 0xa5 };

/* The C library may not have these yet, so a program that must start without us asks for them by
 * name. */
#ifdef LINKED
void free_sized(void *ptr, size_t bytes);
void free_aligned_sized(void *ptr, size_t alignment, size_t bytes);
void cfree(void *ptr);
#define DOOR(type, name) ((type)name)
#else
#define DOOR(type, name) ((type)(uintptr_t)dlsym(RTLD_DEFAULT, #name))
#endif

typedef void (*free_door)(void *ptr);
typedef void (*free_sized_door)(void *ptr, size_t bytes);
typedef void (*free_aligned_sized_door)(void *ptr, size_t alignment, size_t bytes);

/* Whether a request was refused as it should be: no block, and errno says why. */
static bool is_refused(const void *ptr, int reason)
{
    bool is_good = ptr == NULL && errno == reason;
    errno = 0;
    return is_good;
}

static bool is_multiple(const void *ptr, size_t alignment)
{
    return ((uintptr_t)ptr & (alignment - 1)) == 0;
}

static bool is_filled(const void *ptr, int byte, size_t bytes)
{
    const unsigned char *content = ptr;
    size_t i = 0;
    while (i < bytes && content[i] == (unsigned char)byte) {
        i++;
    }
    return i == bytes;
}

static int mapping_count(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    int count = 0;
    for (int letter = 0; maps != NULL && letter != EOF; letter = getc(maps)) {
        count += letter == '\n';
    }
    if (maps != NULL) {
        fclose(maps);
    }
    return count;
}

/* The bytes that the process heap counts as used, once it is open. */
static size_t used_bytes(void)
{
    free(malloc(1));
    return mallinfo2().uordblks;
}

/* What is used counts the tags of free blocks too, and their number changes. */
static bool is_all_freed_since(size_t used_before)
{
    const size_t tags_bytes = 100;
    return used_bytes() < used_before + tags_bytes;
}

/* A block whose neighbour, never freed, keeps it away from the break, where things differ. */
static unsigned char *block_amid(size_t bytes)
{
    unsigned char *ptr = malloc(bytes);
    REQUIRE(ptr != NULL && malloc(16) != NULL);
    return ptr;
}

/* --------------------------------------------------------------------------- requests of nothing
 */

static void zero_bytes_get_a_block_of_their_own(void)
{
    enum { ROUNDS = 200, KINDS = 9 };
    static void *blocks[ROUNDS * KINDS];
    size_t count = 0;
    for (int round = 0; round < ROUNDS; round++) {
        blocks[count++] = malloc(0);
        blocks[count++] = calloc(0, 0);
        blocks[count++] = calloc(0, SIZE_MAX);
        blocks[count++] = calloc(SIZE_MAX, 0);
        blocks[count++] = realloc(NULL, 0);
        blocks[count++] = reallocarray(NULL, 0, SIZE_MAX);
        blocks[count++] = aligned_alloc(64, 0);
        blocks[count++] = memalign(4096, 0);
        blocks[count] = NULL;
        EXPECT_EQUAL(posix_memalign(&blocks[count], 16, 0), 0);
        count++;
    }
    for (size_t i = 0; i < count; i++) {
        REQUIRE(blocks[i] != NULL);
        memset(blocks[i], (int)(i % UCHAR_MAX), malloc_usable_size(blocks[i]));
    }
    /* Two that were the same block, or that overlap, would have written over each other. */
    for (size_t i = 0; i < count; i++) {
        EXPECT(is_filled(blocks[i], (int)(i % UCHAR_MAX), malloc_usable_size(blocks[i])));
        free(blocks[i]);
    }
}

static void nothing_may_be_freed(void)
{
    size_t before = used_bytes();
    errno = EDOM;
    free(NULL);
    DOOR(free_door, cfree)(NULL);
    DOOR(free_sized_door, free_sized)(NULL, 0);
    DOOR(free_sized_door, free_sized)(NULL, 17);
    DOOR(free_aligned_sized_door, free_aligned_sized)(NULL, 0, 0);
    DOOR(free_aligned_sized_door, free_aligned_sized)(NULL, 4096, 17);
    EXPECT_EQUAL(malloc_usable_size(NULL), 0);
    EXPECT_EQUAL(errno, EDOM);
    EXPECT(is_all_freed_since(before));
    void *ptr = realloc(NULL, 100);
    EXPECT(ptr != NULL && malloc_usable_size(ptr) >= 100);
    free(ptr);
}

/* ------------------------------------------------------------------------ requests beyond all
 * sizes */

/* One size that no block can have, asked for in every way. */
static void refuse_everywhere(size_t bytes)
{
    static char untouched;
    void *ptr = &untouched;
    errno = 0;
    REQUIRE(is_refused(malloc(bytes), ENOMEM));
    REQUIRE(is_refused(calloc(1, bytes), ENOMEM));
    REQUIRE(is_refused(calloc(bytes, 1), ENOMEM));
    REQUIRE(is_refused(realloc(NULL, bytes), ENOMEM));
    REQUIRE(is_refused(reallocarray(NULL, 1, bytes), ENOMEM));
    REQUIRE(is_refused(memalign(64, bytes), ENOMEM));
    REQUIRE(is_refused(aligned_alloc(64, bytes), ENOMEM));
    REQUIRE(is_refused(valloc(bytes), ENOMEM));
    REQUIRE(is_refused(pvalloc(bytes), ENOMEM));
    errno = EDOM;
    REQUIRE(posix_memalign(&ptr, 64, bytes) == ENOMEM);
    REQUIRE(ptr == &untouched && errno == EDOM);
}

static void sizes_near_size_max_are_refused(void)
{
    int mappings_before = mapping_count();
    size_t before = used_bytes();
    for (size_t less = 0; less <= SIZES_AT_THE_END; less++) {
        refuse_everywhere(SIZE_MAX - less);
    }
    EXPECT(is_all_freed_since(before));
    EXPECT(mapping_count() <= mappings_before);
}

static void sizes_near_ptrdiff_max_are_refused(void)
{
    for (size_t step = 0; step <= SIZES_AT_THE_END; step++) {
        refuse_everywhere((size_t)PTRDIFF_MAX + step);
        refuse_everywhere((size_t)PTRDIFF_MAX - step);
    }
}

/* Each power of two that is more than the address space, and what rounding could make of its
 * neighbours. */
static void rounding_edges_are_refused(void)
{
    const size_t edges[] = {8, 16, 32, 64, 4096, 65536, (size_t)1 << 20, (size_t)1 << 32};
    for (int shift = 48; shift < 64; shift++) {
        size_t power = (size_t)1 << shift;
        for (size_t around = 0; around <= 80; around++) {
            refuse_everywhere(power + around);
            refuse_everywhere(shift > 48 ? power - around : power);
        }
        for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++) {
            refuse_everywhere(power + edges[i] - 1);
            refuse_everywhere(SIZE_MAX - edges[i] + 1);
            refuse_everywhere(SIZE_MAX - edges[i]);
        }
    }
    for (int shift = 0; shift < 64; shift++) {
        refuse_everywhere(SIZE_MAX - ((size_t)1 << shift) + 1);
    }
}

/* Whether the machine has that much is its own affair. What counts is a clear answer, and that
 * asking leaves nothing behind. */
static void sizes_beyond_the_machine_get_an_answer(void)
{
    int mappings_before = mapping_count();
    for (int round = 0; round < 3; round++) {
        for (int shift = 36; shift < 48; shift++) {
            errno = 0;
            char *ptr = malloc((size_t)1 << shift);
            if (ptr != NULL) {
                ptr[0] = ptr[((size_t)1 << shift) - 1] = 1;
            } else {
                EXPECT_EQUAL(errno, ENOMEM);
            }
            free(ptr);
        }
    }
    EXPECT(mapping_count() < mappings_before + 64);
    void *ptr = malloc(1000);
    EXPECT(ptr != NULL);
    free(ptr);
}

static void products_that_overflow_are_refused(void)
{
    const size_t half = SIZE_MAX / 2 + 1;
    const size_t root = (size_t)1 << 32;
    const size_t pairs[][2] = {
        {half, 2},     {2, half},        {root, root},  {SIZE_MAX, SIZE_MAX}, {3, SIZE_MAX / 2},
        {SIZE_MAX, 2}, {root + 1, root}, {half + 8, 2}, {SIZE_MAX / 3, 4},    {root, root + 1}};
    unsigned char *block = malloc(100);
    REQUIRE(block != NULL);
    memset(block, FILL, 100);
    errno = 0;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        EXPECT(is_refused(calloc(pairs[i][0], pairs[i][1]), ENOMEM));
        EXPECT(is_refused(reallocarray(NULL, pairs[i][0], pairs[i][1]), ENOMEM));
        EXPECT(is_refused(reallocarray(block, pairs[i][0], pairs[i][1]), ENOMEM));
    }
    EXPECT(is_filled(block, FILL, 100));
    free(block);
}

/* ------------------------------------------------------------------------------------- alignment
 */

static void posix_memalign_refuses_bad_alignments(void)
{
    const size_t bad[] = {0, 1, 2, 3, 4, 7, 12, 24, 48, 4095, SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2};
    static char untouched;
    void *ptr = &untouched;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        errno = EDOM;
        EXPECT_EQUAL(posix_memalign(&ptr, bad[i], 100), EINVAL);
        EXPECT_EQUAL(posix_memalign(&ptr, bad[i], SIZE_MAX), EINVAL);
        EXPECT(ptr == &untouched);
        EXPECT_EQUAL(errno, EDOM);
    }
}

static void aligned_alloc_refuses_bad_alignments(void)
{
    const size_t bad[] = {0, 3, 7, 12, 24, 48, 4095, SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2};
    errno = 0;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        EXPECT(is_refused(aligned_alloc(bad[i], 100), EINVAL));
        EXPECT(is_refused(aligned_alloc(bad[i], SIZE_MAX), EINVAL));
    }
}

/* As glibc does it: what is no power of two counts as the next one. */
static void memalign_rounds_alignments_up(void)
{
    const size_t pairs[][2] = {{0, 1},     {1, 1},       {3, 4},       {5, 8},
                               {17, 32},   {24, 32},     {33, 64},     {48, 64},
                               {100, 128}, {1000, 1024}, {4097, 8192}, {65535, 65536}};
    errno = EDOM;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        void *blocks[8];
        for (size_t k = 0; k < 8; k++) {
            blocks[k] = memalign(pairs[i][0], 40);
            EXPECT(blocks[k] != NULL && is_multiple(blocks[k], pairs[i][1]));
        }
        for (size_t k = 0; k < 8; k++) {
            free(blocks[k]);
        }
    }
    EXPECT_EQUAL(errno, EDOM);
    volatile size_t half = SIZE_MAX / 2 + 1; /* a compiler that knew it would speak up */
    errno = 0;
    EXPECT(is_refused(memalign(half + (half - 1), 1), EINVAL));
    EXPECT(is_refused(memalign(half + 1, 1), EINVAL));
    EXPECT(is_refused(memalign(half, 1), ENOMEM));
}

static void sizes_that_wrap_with_their_alignment_are_refused(void)
{
    for (int shift = 4; shift < 63; shift++) {
        size_t alignment = (size_t)1 << shift;
        const size_t sizes[] = {SIZE_MAX,
                                SIZE_MAX - alignment,
                                SIZE_MAX - alignment + 1,
                                SIZE_MAX - alignment - 1,
                                (size_t)0 - alignment - 32,
                                (size_t)PTRDIFF_MAX - alignment + 64};
        static char untouched;
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            /* The last ones need not wrap: where they could be had, they are not asked for. */
            if (sizes[i] < (size_t)1 << 48) {
                continue;
            }
            void *ptr = &untouched;
            errno = 0;
            EXPECT(is_refused(aligned_alloc(alignment, sizes[i]), ENOMEM));
            EXPECT(is_refused(memalign(alignment, sizes[i]), ENOMEM));
            EXPECT(is_refused(memalign(alignment - 1, sizes[i]), ENOMEM));
            EXPECT_EQUAL(posix_memalign(&ptr, alignment, sizes[i]), ENOMEM);
            EXPECT(ptr == &untouched && errno == 0);
        }
    }
}

static void expect_aligned(void *ptr, size_t alignment, size_t bytes)
{
    if (ptr != NULL) {
        EXPECT(is_multiple(ptr, alignment));
        EXPECT(malloc_usable_size(ptr) >= bytes);
        memset(ptr, FILL, bytes);
        free(ptr);
    } else {
        EXPECT_EQUAL(errno, ENOMEM);
    }
}

static void huge_alignments_get_an_answer(void)
{
    const size_t sizes[] = {1, 24, 5000, (size_t)1 << 20};
    int mappings_before = mapping_count();
    for (int shift = 0; shift < 63; shift++) {
        size_t alignment = (size_t)1 << shift;
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            errno = 0;
            expect_aligned(aligned_alloc(alignment, sizes[i]), alignment, sizes[i]);
            errno = 0;
            expect_aligned(memalign(alignment, sizes[i]), alignment, sizes[i]);
            void *ptr = NULL;
            if (alignment >= sizeof(void *)) {
                errno = posix_memalign(&ptr, alignment, sizes[i]);
                expect_aligned(ptr, alignment, sizes[i]);
            }
        }
    }
    EXPECT(mapping_count() < mappings_before + 64);
    /* Up to a huge page everything fits everywhere, so there is no excuse. */
    void *ptr = aligned_alloc((size_t)1 << 21, 1);
    EXPECT(ptr != NULL);
    free(ptr);
}

static void pages_are_aligned_and_whole(void)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    const size_t sizes[] = {0, 1, page_bytes - 1, page_bytes, page_bytes + 1, 10 * page_bytes};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        void *ptr = valloc(sizes[i]);
        void *whole = pvalloc(sizes[i]);
        REQUIRE(ptr != NULL && whole != NULL);
        EXPECT(is_multiple(ptr, page_bytes) && is_multiple(whole, page_bytes));
        size_t whole_bytes = (sizes[i] + page_bytes - 1) / page_bytes * page_bytes;
        whole_bytes = whole_bytes != 0 ? whole_bytes : page_bytes;
        EXPECT(malloc_usable_size(whole) >= whole_bytes);
        memset(whole, FILL, whole_bytes);
        free(ptr);
        free(whole);
    }
    errno = 0;
    EXPECT(is_refused(pvalloc(SIZE_MAX - page_bytes + 1), ENOMEM));
    EXPECT(is_refused(pvalloc(SIZE_MAX - page_bytes + 2), ENOMEM));
    EXPECT(is_refused(valloc(SIZE_MAX - 1), ENOMEM));
}

static void every_block_is_aligned_for_anything(void)
{
    for (size_t bytes = 0; bytes < 3000; bytes++) {
        void *blocks[] = {malloc(bytes), calloc(1, bytes), realloc(NULL, bytes)};
        for (size_t i = 0; i < 3; i++) {
            REQUIRE(blocks[i] != NULL && is_multiple(blocks[i], _Alignof(max_align_t)));
            blocks[i] = realloc(blocks[i], bytes * 2 + 1);
            REQUIRE(blocks[i] != NULL && is_multiple(blocks[i], _Alignof(max_align_t)));
        }
        for (size_t i = 0; i < 3; i++) {
            free(blocks[i]);
        }
    }
}

/* --------------------------------------------------------------------------------------- realloc
 */

static void realloc_to_nothing_frees(void)
{
    size_t before = used_bytes();
    for (int round = 0; round < 1000; round++) {
        errno = EDOM;
        void *ptr = malloc(1000);
        REQUIRE(ptr != NULL);
        EXPECT(realloc(ptr, 0) == NULL);
        ptr = malloc(1000);
        REQUIRE(ptr != NULL);
        EXPECT(reallocarray(ptr, 0, 7) == NULL);
        EXPECT_EQUAL(errno, EDOM);
    }
    EXPECT(is_all_freed_since(before));
}

static void a_failed_realloc_leaves_the_block(void)
{
    const size_t sizes[] = {1, 24, 100, 5000, 200000, (size_t)2 << 20};
    const size_t too_much[] = {SIZE_MAX, SIZE_MAX - 64, PTRDIFF_MAX, (size_t)1 << 48};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        unsigned char *block = block_amid(sizes[i]);
        size_t usable_bytes = malloc_usable_size(block);
        memset(block, FILL, usable_bytes);
        /* The first one of all may cost something, once. */
        EXPECT(is_refused(realloc(block, SIZE_MAX / 2), ENOMEM));
        size_t before = used_bytes();
        for (size_t k = 0; k < sizeof too_much / sizeof too_much[0]; k++) {
            errno = 0;
            EXPECT(is_refused(realloc(block, too_much[k]), ENOMEM));
            EXPECT(is_refused(reallocarray(block, too_much[k], 1), ENOMEM));
            EXPECT_EQUAL(malloc_usable_size(block), usable_bytes);
        }
        EXPECT(is_filled(block, FILL, usable_bytes));
        EXPECT(is_all_freed_since(before));
        unsigned char *grown = realloc(block, sizes[i] * 2);
        REQUIRE(grown != NULL);
        EXPECT(is_filled(grown, FILL, sizes[i]));
        free(grown);
    }
}

/* Byte i of a block holds a value of i, so that content that moved by a byte is seen. */
static void content_write(unsigned char *block, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        block[i] = (unsigned char)(i * 7 + i / 251);
    }
}

static bool content_is_good(const unsigned char *block, size_t bytes)
{
    size_t i = 0;
    while (i < bytes && block[i] == (unsigned char)(i * 7 + i / 251)) {
        i++;
    }
    return i == bytes;
}

/* Random sizes, with neighbours that come and go: in place, down into the free block before, up
 * into the one behind, at the break, and by moving. */
static void realloc_keeps_the_content(void)
{
    enum { BLOCKS = 24, STEPS = 20000 };
    unsigned char *blocks[BLOCKS] = {NULL};
    size_t sizes[BLOCKS] = {0};
    uint64_t random = 88172645463325252u;
    for (int step = 0; step < STEPS; step++) {
        (void)random_next(&random);
        size_t i = random % BLOCKS;
        size_t bytes = (random >> 8) % ((random >> 40) % 16 == 0 ? 200000 : 900) + 1;
        EXPECT(content_is_good(blocks[i], sizes[i]));
        if ((random >> 60) < 3) {
            free(blocks[i]);
            blocks[i] = NULL;
            sizes[i] = 0;
            continue;
        }
        blocks[i] = realloc(blocks[i], bytes);
        REQUIRE(blocks[i] != NULL);
        size_t kept = sizes[i] < bytes ? sizes[i] : bytes;
        if (!EXPECT(content_is_good(blocks[i], kept))) {
            break;
        }
        content_write(blocks[i], kept, bytes);
        sizes[i] = bytes;
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        free(blocks[i]);
    }
}

/* ----------------------------------------------------------------------------------------- errno
 */

static void success_leaves_errno_alone(void)
{
    errno = EDOM;
    for (size_t bytes = 1; bytes <= (size_t)64 << 20; bytes *= 2) {
        void *block = malloc(bytes);
        void *zeroed = calloc(1, bytes);
        void *aligned = aligned_alloc(4096, bytes);
        REQUIRE(block != NULL && zeroed != NULL && aligned != NULL);
        EXPECT_EQUAL(errno, EDOM);
        block = realloc(block, bytes * 3 / 2 + 1);
        REQUIRE(block != NULL);
        EXPECT_EQUAL(errno, EDOM);
        free(zeroed);
        EXPECT_EQUAL(errno, EDOM);
        free(block);
        EXPECT_EQUAL(errno, EDOM);
        free(aligned);
        EXPECT_EQUAL(errno, EDOM);
        EXPECT(malloc_trim(0) == 0 || malloc_trim(0) == 0);
        EXPECT_EQUAL(errno, EDOM);
    }
}

/* -------------------------------------------------------------------------------- what a block
 * holds */

static void every_usable_byte_is_the_blocks_own(void)
{
    for (size_t bytes = 0; bytes <= 4000; bytes = bytes < 600 ? bytes + 1 : bytes + 37) {
        unsigned char *blocks[3];
        for (int i = 0; i < 3; i++) {
            blocks[i] = malloc(bytes);
            REQUIRE(blocks[i] != NULL && malloc_usable_size(blocks[i]) >= bytes);
            memset(blocks[i], i + 1, malloc_usable_size(blocks[i]));
        }
        for (int i = 0; i < 3; i++) {
            EXPECT(is_filled(blocks[i], i + 1, malloc_usable_size(blocks[i])));
        }
        for (int i = 0; i < 3; i++) {
            free(blocks[i]);
        }
    }
    for (size_t bytes = 4096; bytes <= (size_t)16 << 20; bytes = bytes * 2 + 13) {
        unsigned char *block = block_amid(bytes);
        REQUIRE(malloc_usable_size(block) >= bytes);
        memset(block, FILL, malloc_usable_size(block));
        free(block);
    }
}

static void calloc_zeroes_dirty_memory(void)
{
    for (size_t bytes = 1; bytes <= (size_t)8 << 20; bytes = bytes * 3 / 2 + 1) {
        unsigned char *dirty = block_amid(bytes);
        memset(dirty, 0xff, malloc_usable_size(dirty));
        free(dirty);
        unsigned char *zeroed = calloc(bytes % 7 == 0 ? bytes / 7 : bytes, bytes % 7 == 0 ? 7 : 1);
        REQUIRE(zeroed != NULL);
        EXPECT(is_filled(zeroed, 0, bytes));
        memset(zeroed, 0xff, malloc_usable_size(zeroed));
        free(zeroed);
    }
    /* At the break, after it went down and came back. */
    for (int round = 0; round < 3; round++) {
        unsigned char *zeroed = calloc(3, (size_t)1 << 20);
        REQUIRE(zeroed != NULL);
        EXPECT(is_filled(zeroed, 0, (size_t)3 << 20));
        memset(zeroed, 0xff, (size_t)3 << 20);
        free(zeroed);
        (void)malloc_trim(0);
    }
}

/* ----------------------------------------------------------------------------------- one family */

/* Whatever door a block came through, every other takes it. */
static void any_door_takes_any_block(void)
{
    size_t before = used_bytes();
    for (int taker = 0; taker < 6; taker++) {
        void *blocks[] = {malloc(200),
                          calloc(10, 20),
                          realloc(NULL, 200),
                          reallocarray(NULL, 20, 10),
                          aligned_alloc(64, 200),
                          memalign(64, 200),
                          valloc(200),
                          pvalloc(200),
                          __libc_malloc(200),
                          __libc_calloc(20, 10),
                          __libc_realloc(NULL, 200),
                          __libc_memalign(64, 200),
                          __libc_valloc(200),
                          __libc_pvalloc(200),
                          strndup("of the C library's own", 10)};
        const size_t last = sizeof blocks / sizeof blocks[0] - 1;
        for (size_t i = 0; i <= last; i++) {
            const size_t bytes = i < last ? 200 : 11;
            REQUIRE(blocks[i] != NULL);
            if (taker == 0) {
                free(blocks[i]);
            } else if (taker == 1) {
                __libc_free(blocks[i]);
            } else if (taker == 2) {
                DOOR(free_door, cfree)(blocks[i]);
            } else if (taker == 3) {
                DOOR(free_sized_door, free_sized)(blocks[i], bytes);
            } else if (taker == 4) {
                DOOR(free_aligned_sized_door, free_aligned_sized)(blocks[i], 64, bytes);
            } else {
                EXPECT(__libc_realloc(realloc(blocks[i], 3000), 0) == NULL);
            }
        }
    }
    EXPECT(is_all_freed_since(before));
}

/* A realloc, and then the sized free that C23 allows with the new size. */
static void sized_frees_take_what_realloc_gave(void)
{
    for (size_t bytes = 1; bytes < 100000; bytes = bytes * 2 + 1) {
        void *ptr = realloc(malloc(bytes), bytes + 100);
        REQUIRE(ptr != NULL);
        DOOR(free_sized_door, free_sized)(ptr, bytes + 100);
    }
}

static void the_c_librarys_blocks_are_ours(void)
{
    size_t before = used_bytes();
    char *copy = strdup("a line");
    wchar_t *wide = wcsdup(L"a wide line");
    char *printed = NULL;
    REQUIRE(copy != NULL && wide != NULL && asprintf(&printed, "%d of %s", 7, copy) == 11);
    EXPECT(malloc_usable_size(copy) >= 7 && malloc_usable_size(wide) >= 12 * sizeof *wide);
    copy = realloc(copy, 100);
    REQUIRE(copy != NULL);
    EXPECT_EQUAL(strcmp(copy, "a line"), 0);

    char *folder = getcwd(NULL, 0);
    char *path = realpath("/proc/self/../self", NULL);
    REQUIRE(folder != NULL && path != NULL);
    EXPECT(used_bytes() >= before + 8 * 5);
    free(copy);
    free(wide);
    free(printed);
    free(folder);
    free(path);
    EXPECT(is_all_freed_since(before));
}

/* getline enlarges a block that we allocated, and we free one that it did. */
static void getline_and_we_share_blocks(void)
{
    static char text[20000];
    memset(text, 'x', sizeof text - 1);
    size_t capacity = 4;
    char *line = malloc(capacity);
    FILE *stream = fmemopen(text, sizeof text - 1, "r");
    REQUIRE(line != NULL && stream != NULL);
    EXPECT_EQUAL(getline(&line, &capacity, stream), sizeof text - 1);
    EXPECT(capacity >= sizeof text && malloc_usable_size(line) >= capacity);
    line = realloc(line, 2 * capacity);
    REQUIRE(line != NULL);
    EXPECT_EQUAL(strcmp(line, text), 0);
    free(line);
    fclose(stream);
}

static void memory_streams_grow(void)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *stream = open_memstream(&text, &bytes);
    REQUIRE(stream != NULL);
    for (int i = 0; i < 20000; i++) {
        fprintf(stream, "%05d", i);
    }
    fclose(stream);
    EXPECT_EQUAL(bytes, 100000);
    EXPECT(text != NULL && memcmp(text + bytes - 10, "1999819999", 10) == 0);
    free(text);
}

static int integers_compare(const void *a, const void *b)
{
    int left = *(const int *)a;
    int right = *(const int *)b;
    return (left > right) - (left < right);
}

/* Parts of the C library that allocate and free by themselves, some of them in large pieces. */
static void the_c_library_works(void)
{
    size_t before = used_bytes();
    for (int round = 0; round < 20; round++) {
        regex_t pattern;
        EXPECT_EQUAL(regcomp(&pattern, "^(a|b)*c{2,5}[[:alpha:]]+(x|yz)?$", REG_EXTENDED), 0);
        EXPECT_EQUAL(regexec(&pattern, "ababccdyz", 0, NULL, 0), 0);
        regfree(&pattern);
        glob_t found;
        EXPECT_EQUAL(glob("/proc/self/[a-m]*", 0, NULL, &found), 0);
        globfree(&found);
        int *numbers = malloc(100000 * sizeof *numbers);
        REQUIRE(numbers != NULL);
        for (int i = 0; i < 100000; i++) {
            numbers[i] = (int)((unsigned)i * 7919u % 100003u);
        }
        qsort(numbers, 100000, sizeof *numbers, integers_compare);
        EXPECT(numbers[0] <= numbers[1] && numbers[99998] <= numbers[99999]);
        free(numbers);
        void *root = NULL;
        int keys[50];
        for (int i = 0; i < 50; i++) {
            keys[i] = i;
            EXPECT(tsearch(&keys[i], &root, integers_compare) != NULL);
        }
        for (int i = 0; i < 50; i++) {
            tdelete(&keys[i], &root, integers_compare);
        }
        EXPECT_EQUAL(hcreate(500), 1);
        hdestroy();
    }
    /* Buffers that the C library keeps for good. */
    EXPECT(used_bytes() < before + 100000);
}

/* ---------------------------------------------------------------------------- knobs and numbers */

static void expect_answers(const int *parameters, size_t count, int answer)
{
    const int values[] = {0, 1, -1, INT_MAX, INT_MIN};
    errno = EDOM;
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < sizeof values / sizeof values[0]; k++) {
            EXPECT_EQUAL(mallopt(parameters[i], values[k]), answer);
        }
    }
    EXPECT_EQUAL(errno, EDOM);
}

static void what_only_tunes_another_malloc_is_agreed_to(void)
{
    const int parameters[] = {M_MXFAST, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_TEST, M_ARENA_MAX};
    expect_answers(parameters, sizeof parameters / sizeof parameters[0], 1);
}

static void other_parameters_are_declined(void)
{
    const int parameters[] = {M_MMAP_MAX, M_PERTURB, M_CHECK_ACTION, 0, -1000, INT_MAX, INT_MIN};
    expect_answers(parameters, sizeof parameters / sizeof parameters[0], 0);
}

/* Whether the engine has it or not: nothing happens to blocks, or to errno. */
static void a_trim_threshold_may_be_anything(void)
{
    const int values[] = {0, 1, -1, INT_MAX, INT_MIN, 128 << 10};
    int answer = mallopt(M_TRIM_THRESHOLD, 1 << 20);
    EXPECT(answer == 0 || answer == 1);
    errno = EDOM;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        EXPECT_EQUAL(mallopt(M_TRIM_THRESHOLD, values[i]), answer);
        char *block = malloc(3000000);
        REQUIRE(block != NULL);
        memset(block, 1, 3000000);
        free(block);
    }
    EXPECT_EQUAL(errno, EDOM);
}

static void numbers_follow_the_blocks(void)
{
    free(malloc(1));
    struct mallinfo2 before = mallinfo2();
    EXPECT_EQUAL(before.arena, before.uordblks + before.fordblks);
    void *blocks[100];
    for (size_t i = 0; i < 100; i++) {
        blocks[i] = malloc(1000);
        REQUIRE(blocks[i] != NULL);
    }
    struct mallinfo2 after = mallinfo2();
    EXPECT_EQUAL(after.arena, after.uordblks + after.fordblks);
    EXPECT(after.uordblks >= before.uordblks + 100 * 1000);
    EXPECT(after.uordblks < before.uordblks + 100 * 1100);
    EXPECT(after.arena >= before.arena);
    EXPECT_EQUAL(mallinfo().uordblks, after.uordblks);
    for (size_t i = 0; i < 100; i++) {
        free(blocks[i]);
    }
    EXPECT(is_all_freed_since(before.uordblks));
    EXPECT(mallinfo2().usmblks >= 100 * 1000);
}

static void malloc_info_writes_xml(void)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *stream = open_memstream(&text, &bytes);
    REQUIRE(stream != NULL);
    EXPECT_EQUAL(malloc_info(0, stream), 0);
    fclose(stream);
    REQUIRE(text != NULL);
    const char *start = "<malloc version=\"1\">\n";
    const char *end = "</malloc>\n";
    EXPECT_EQUAL(strncmp(text, start, strlen(start)), 0);
    EXPECT(bytes > strlen(end) && strcmp(text + bytes - strlen(end), end) == 0);
    EXPECT(strstr(text, "<system type=\"current\" size=\"") != NULL);
    int depth = 0;
    for (const char *tag = strchr(text, '<'); tag != NULL; tag = strchr(tag + 1, '<')) {
        const char *closed = strchr(tag, '>');
        REQUIRE(closed != NULL);
        depth += tag[1] == '/' ? -1 : closed[-1] == '/' ? 0 : 1;
        EXPECT(depth >= 0);
    }
    EXPECT_EQUAL(depth, 0);
    free(text);
}

static void malloc_info_refuses_odd_arguments(void)
{
    const int odd[] = {1, -1, INT_MAX, INT_MIN};
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        errno = 0;
        EXPECT_EQUAL(malloc_info(odd[i], stdout), -1);
        EXPECT_EQUAL(errno, EINVAL);
    }
    errno = 0;
    EXPECT_EQUAL(malloc_info(0, NULL), -1);
    EXPECT_EQUAL(errno, EINVAL);
    FILE *full = fopen("/dev/full", "w");
    REQUIRE(full != NULL && setvbuf(full, NULL, _IONBF, 0) == 0);
    EXPECT_EQUAL(malloc_info(0, full), -1);
    fclose(full);
}

/* What stands free at the break, and 4 MiB more that were just freed. */
static void top_make(void)
{
    void *block = malloc((size_t)4 << 20);
    REQUIRE(block != NULL);
    memset(block, FILL, (size_t)4 << 20);
    free(block);
}

/* What is to be kept can be more than there is: then nothing moves. Sixteen bytes short of SIZE_MAX
 * rounding would wrap to nothing. */
static void malloc_trim_takes_any_padding(void)
{
    void *keeper = malloc(100);
    for (size_t less = 0; less < 64; less++) {
        top_make();
        size_t before = mallinfo2().arena;
        EXPECT_EQUAL(malloc_trim(SIZE_MAX - less), 0);
        EXPECT_EQUAL(mallinfo2().arena, before);
    }
    EXPECT_EQUAL(malloc_trim((size_t)PTRDIFF_MAX), 0);
    /* Blocks of odd sizes put the top at every place within a page. */
    void *blocks[600];
    for (size_t i = 0; i < 600; i++) {
        (void)malloc_trim(i % 3 == 0 ? SIZE_MAX : i % 3 == 1 ? 0 : i);
        blocks[i] = malloc(16 * (i % 50) + 8);
        REQUIRE(blocks[i] != NULL);
        memset(blocks[i], FILL, malloc_usable_size(blocks[i]));
    }
    for (size_t i = 0; i < 600; i++) {
        EXPECT(is_filled(blocks[i], FILL, malloc_usable_size(blocks[i])));
        free(blocks[i]);
    }
    free(keeper);
}

static void malloc_trim_gives_the_top_back(void)
{
    void *block = malloc((size_t)64 << 20);
    REQUIRE(block != NULL);
    free(block);
    top_make();
    (void)malloc_trim(0);
    size_t after = mallinfo2().arena;
    EXPECT(after < (size_t)2 << 20);
    EXPECT_EQUAL(malloc_trim(0), 0);
    EXPECT_EQUAL(mallinfo2().arena, after);
}

static void malloc_stats_writes_to_standard_error(void)
{
    int ends[2];
    int saved = dup(STDERR_FILENO);
    REQUIRE(saved >= 0 && pipe(ends) == 0 && dup2(ends[1], STDERR_FILENO) >= 0);
    malloc_stats();
    REQUIRE(dup2(saved, STDERR_FILENO) >= 0);
    char text[2000];
    ssize_t bytes = read(ends[0], text, sizeof text - 1);
    REQUIRE(bytes > 0);
    text[bytes] = '\0';
    EXPECT(strstr(text, "live bytes") != NULL && text[bytes - 1] == '\n');
}

CASES_MAIN(CASE(zero_bytes_get_a_block_of_their_own), CASE(nothing_may_be_freed),
           CASE(sizes_near_size_max_are_refused), CASE(sizes_near_ptrdiff_max_are_refused),
           CASE(rounding_edges_are_refused), CASE(sizes_beyond_the_machine_get_an_answer),
           CASE(products_that_overflow_are_refused), CASE(posix_memalign_refuses_bad_alignments),
           CASE(aligned_alloc_refuses_bad_alignments), CASE(memalign_rounds_alignments_up),
           CASE(sizes_that_wrap_with_their_alignment_are_refused),
           CASE(huge_alignments_get_an_answer), CASE(pages_are_aligned_and_whole),
           CASE(every_block_is_aligned_for_anything), CASE(realloc_to_nothing_frees),
           CASE(a_failed_realloc_leaves_the_block), CASE(realloc_keeps_the_content),
           CASE(success_leaves_errno_alone), CASE(every_usable_byte_is_the_blocks_own),
           CASE(calloc_zeroes_dirty_memory), CASE(any_door_takes_any_block),
           CASE(sized_frees_take_what_realloc_gave), CASE(the_c_librarys_blocks_are_ours),
           CASE(getline_and_we_share_blocks), CASE(memory_streams_grow), CASE(the_c_library_works),
           CASE(what_only_tunes_another_malloc_is_agreed_to), CASE(other_parameters_are_declined),
           CASE(a_trim_threshold_may_be_anything), CASE(numbers_follow_the_blocks),
           CASE(malloc_info_writes_xml), CASE(malloc_info_refuses_odd_arguments),
           CASE(malloc_trim_takes_any_padding), CASE(malloc_trim_gives_the_top_back),
           CASE(malloc_stats_writes_to_standard_error))
