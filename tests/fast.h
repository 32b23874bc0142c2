/*
 * fast.h - what the tests of the fast engine share: processes of their own, blocks that know what
 * is in them, and threads.
 */
#ifndef HMM_TESTS_FAST_H
#define HMM_TESTS_FAST_H

#include "content.h"
#include "doors/footprint.h"
#include "forked.h"

#include <pthread.h>

enum { MEBIBYTE = 1 << 20 };

const char *HmmOptions;

static uint64_t seed;

static inline void in_a_process_with(const char *options, void (*run)(void))
{
    int status = status_with(options, run);
    if (status != 0) {
        print_message("# SEED=%llu\n", (unsigned long long)seed);
    }
    assert_int_equal(status, 0);
}

#define TEST(name) TEST_WITH(name, NULL)

static inline size_t taken_count(void)
{
    return atomic_load(&hmm_arena.taken_count);
}

/* How much of the arena has the flag, of those in smaps. */
static inline size_t flagged_bytes(const char *flag)
{
    char line[512];
    uintptr_t start = 0;
    uintptr_t end = 0;
    size_t bytes = 0;
    FILE *maps = fopen("/proc/self/smaps", "r");
    REQUIRE(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL) {
        char *rest;
        uintptr_t address = strtoul(line, &rest, 16);
        if (*rest == '-') {
            start = address;
            end = strtoul(rest + 1, NULL, 16);
        } else if (strncmp(line, "VmFlags:", 8) == 0 && strstr(line, flag) != NULL &&
                   arena_covers((void *)start)) {
            bytes += end - start;
        }
    }
    fclose(maps);
    return bytes;
}

/* -------------------------------------------------------------------------- blocks with content */

struct held {
    unsigned char *ptr; /* NULL: none */
    size_t bytes;
    uint32_t salt;
};

static inline void held_keep(struct held *held, void *ptr, size_t bytes, uint32_t salt)
{
    REQUIRE(ptr != NULL);
    *held = (struct held){ptr, bytes, salt};
    EXPECT(is_aligned((uintptr_t)ptr, SLOT_UNIT_BYTES));
    EXPECT(HmmUsableSize(ptr) >= bytes);
    content_write(held->ptr, bytes, salt);
}

static inline void held_drop(struct held *held)
{
    EXPECT(content_is(held->ptr, held->bytes, held->salt));
    HmmFree(held->ptr);
    held->ptr = NULL;
}

static inline void held_resize(struct held *held, size_t bytes, uint32_t salt)
{
    bytes = bytes != 0 ? bytes : 1;
    unsigned char *ptr = HmmRealloc(held->ptr, bytes);
    REQUIRE(ptr != NULL);
    EXPECT(content_is_kept(ptr, held->bytes, held->salt, bytes));
    held_keep(held, ptr, bytes, salt);
}

static inline void held_allocate(struct held *held, uint64_t *random)
{
    size_t bytes = random_bytes(random);
    uint32_t salt = (uint32_t)random_next(random);
    unsigned char *ptr;
    if (salt % 5 == 0) {
        ptr = HmmCalloc(1, bytes);
        EXPECT(ptr != NULL && content_is_zero(ptr, bytes));
    } else if (salt % 23 == 0) {
        size_t alignment = (size_t)1 << random_below(random, 18);
        ptr = HmmAlignedAlloc(alignment, bytes);
        EXPECT(is_aligned((uintptr_t)ptr, alignment));
    } else {
        ptr = HmmAlloc(bytes);
    }
    held_keep(held, ptr, bytes, salt);
    /* All that may be used is the block's own. */
    if (salt % 7 == 0 && ptr != NULL) {
        size_t usable_bytes = HmmUsableSize(ptr);
        memset(ptr + bytes, 0xee, usable_bytes - bytes);
    }
}

static inline void held_step(struct held *held, uint64_t *random)
{
    if (held->ptr == NULL) {
        held_allocate(held, random);
    } else if (random_below(random, 3) == 0) {
        held_resize(held, random_bytes(random), (uint32_t)random_next(random));
    } else {
        held_drop(held);
    }
}

/* A block that says itself what it holds, so that it can change hands by its address alone. */
struct parcel {
    size_t bytes; /* with this */
    uint32_t salt;
    unsigned char content[];
};

static inline struct parcel *parcel_new(size_t bytes, uint32_t salt)
{
    bytes += sizeof(struct parcel);
    struct parcel *parcel = HmmAlloc(bytes);
    REQUIRE(parcel != NULL);
    parcel->bytes = bytes;
    parcel->salt = salt;
    content_write(parcel->content, bytes - sizeof *parcel, salt);
    return parcel;
}

static inline void parcel_drop(struct parcel *parcel)
{
    if (parcel != NULL) {
        EXPECT(content_is(parcel->content, parcel->bytes - sizeof *parcel, parcel->salt));
        HmmFree(parcel);
    }
}

static inline void threads_run(int count, void *(*run)(void *))
{
    pthread_t threads[64];
    for (intptr_t i = 0; i < count; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, run, (void *)i) == 0);
    }
    for (int i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
    }
}

#endif
