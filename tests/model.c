/*
 * model.c - random operations on a heap, against a model that tells the truth.
 *
 * The model is an array of what should be alive: pointer, size, and the seed of the bytes in it.
 * After every step the heap is audited (every invariant), and the model's counts are compared with
 * the heap's. Content is checked whenever a block is touched, so an overlap shows as a wrong byte.
 * In an array the prediction of largest_free_bytes is held against what then happens.
 *
 * Hardened heaps do the same with fewer steps, because an audit reads all of their memory. Their
 * numbers are asked for now and then only: asking empties the quarantine.
 *
 * usage: model [STEPS [SEED [HARDENING]]] Each combination of hardening, region and policy runs in
 * a child, because there is one program break. HARDENING, 0 to 2, leaves the others out. The same
 * source is built for 64 and for 32 bits. Output is TAP.
 */
#include "ground.h"
#include "hmm.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    SLOTS = 160,
    ARRAY_BYTES = 192 * 1024,
    PIECE_BYTES = 24 * 1024,
    PIECES = 3,
    CREATE_BYTES = 3 * 1024 * 1024,
    STEPS_DEFAULT = 50000,
    HARDENED_SHARE = 5, /* of the steps */
    LOOKED_AT_SHARE = 16,
    HARDENINGS = 3,
};

enum ground { GROUND_ARRAY, GROUND_RESERVE, GROUND_SBRK, GROUND_COUNT };

static const char *const ground_names[] = {"array", "reserve", "sbrk"};
static const HmmHardening hardenings[HARDENINGS] = {HMM_HARDENING_NONE, HMM_HARDENING_SEALS,
                                                    HMM_HARDENING_QUARANTINE};
static const char *const fit_names[] = {"good", "first", "next", "best"};

struct place {
    unsigned char *ptr; /* NULL: empty */
    size_t bytes;
    unsigned char seed;
};

struct model {
    HmmHeap *heap;
    enum ground ground;
    HmmHardening hardening;
    bool is_looking; /* at what the heap says of itself, in this step */
    uint64_t random;
    size_t live_count;
    size_t pieces_added;
    struct place slots[SLOTS];
};

static _Alignas(4096) unsigned char array[ARRAY_BYTES];
static _Alignas(4096) unsigned char pieces[PIECES][PIECE_BYTES];

static size_t step_now; /* for messages */

static void fail(const struct model *model, const char *what)
{
    printf("# step %zu, %s: %s: %s\n", step_now, ground_names[model->ground], what,
           model->heap != NULL && !HmmHeapCheck(model->heap) ? hmm_heap_audit(&model->heap->heap)
                                                             : "audit holds");
    fflush(stdout);
    _exit(1);
}

static uint64_t model_random(struct model *model)
{
    model->random += 0x9e3779b97f4a7c15u;
    uint64_t mixed = model->random;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebu;
    return mixed ^ mixed >> 31;
}

static size_t model_below(struct model *model, size_t bound)
{
    return (size_t)(model_random(model) % bound);
}

/* Mostly small, some medium, a few that strain the heap. */
static size_t model_bytes(struct model *model)
{
    size_t scale = model->ground == GROUND_ARRAY ? 1 : 8;
    switch (model_below(model, 16)) {
    case 0:
        return model_below(model, 8);
    case 1:
        return model_below(model, 12000 * scale);
    case 2:
    case 3:
    case 4:
        return model_below(model, 3000);
    default:
        return model_below(model, 300);
    }
}

static unsigned char slot_byte(const struct place *slot, size_t index)
{
    return (unsigned char)(slot->seed + index * 7);
}

static void slot_fill(struct place *slot, size_t from)
{
    for (size_t i = from; i < slot->bytes; i++) {
        slot->ptr[i] = slot_byte(slot, i);
    }
}

static void slot_verify(const struct model *model, const struct place *slot, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (slot->ptr[i] != slot_byte(slot, i)) {
            fail(model, "a byte has changed");
        }
    }
}

/* In an array a request fails if and only if it is larger than the heap said. */
static void model_expect(const struct model *model, size_t largest_bytes, size_t bytes,
                         const void *ptr)
{
    if (model->ground == GROUND_ARRAY && model->is_looking &&
        (ptr != NULL) != (size_max(bytes, 1) <= largest_bytes)) {
        printf("# %zu bytes asked, largest %zu, got %p\n", bytes, largest_bytes, ptr);
        fail(model, "largest_free_bytes was wrong");
    }
}

static void model_expect_usable(const struct model *model, const void *ptr, size_t bytes)
{
    size_t usable_bytes = HmmHeapUsableSize(model->heap, ptr);
    if (usable_bytes < bytes) {
        fail(model, "usable size below the request");
    }
    if (usable_bytes > bytes && model->hardening != HMM_HARDENING_NONE) {
        fail(model, "usable size above the request");
    }
}

static void slot_use(struct model *model, struct place *slot, void *ptr, size_t bytes,
                     size_t alignment)
{
    if (ptr == NULL) {
        return;
    }
    if ((uintptr_t)ptr % alignment != 0) {
        fail(model, "misaligned");
    }
    model_expect_usable(model, ptr, bytes);
    slot->ptr = ptr;
    slot->bytes = HmmHeapUsableSize(model->heap, ptr);
    slot->seed = (unsigned char)model_random(model);
    slot_fill(slot, 0);
    model->live_count++;
}

static void step_alloc(struct model *model, struct place *slot)
{
    HmmHeapStats stats = {0};
    if (model->is_looking) {
        HmmHeapGetStats(model->heap, &stats);
    }
    size_t bytes = model_bytes(model);
    void *ptr = HmmHeapAlloc(model->heap, bytes);
    model_expect(model, stats.largest_free_bytes, bytes, ptr);
    slot_use(model, slot, ptr, bytes, REGION_ALIGN_BYTES);
}

static void step_calloc(struct model *model, struct place *slot)
{
    size_t count = 1 + model_below(model, 20);
    size_t bytes = 1 + model_below(model, 100);
    unsigned char *ptr = HmmHeapCalloc(model->heap, count, bytes);
    for (size_t i = 0; ptr != NULL && i < count * bytes; i++) {
        if (ptr[i] != 0) {
            fail(model, "calloc is not zero");
        }
    }
    slot_use(model, slot, ptr, count * bytes, REGION_ALIGN_BYTES);
}

static void step_aligned(struct model *model, struct place *slot)
{
    size_t alignment = (size_t)1 << model_below(model, 15);
    size_t bytes = model_bytes(model);
    slot_use(model, slot, HmmHeapAlignedAlloc(model->heap, alignment, bytes), bytes, alignment);
}

static void step_free(struct model *model, struct place *slot)
{
    slot_verify(model, slot, slot->bytes);
    HmmHeapFree(model->heap, slot->ptr);
    slot->ptr = NULL;
    model->live_count--;
}

static void step_realloc(struct model *model, struct place *slot)
{
    size_t bytes = 1 + model_bytes(model);
    slot_verify(model, slot, slot->bytes);
    unsigned char *ptr = HmmHeapRealloc(model->heap, slot->ptr, bytes);
    if (ptr == NULL) {
        if (bytes <= slot->bytes) {
            fail(model, "realloc to less failed");
        }
        slot_verify(model, slot, slot->bytes);
        return;
    }
    slot->ptr = ptr;
    size_t kept = bytes < slot->bytes ? bytes : slot->bytes;
    slot_verify(model, slot, kept);
    model_expect_usable(model, ptr, bytes);
    slot->bytes = HmmHeapUsableSize(model->heap, ptr);
    slot_fill(slot, kept);
}

static void step_on_slot(struct model *model)
{
    struct place *slot = &model->slots[model_below(model, SLOTS)];
    size_t dice = model_below(model, 8);
    if (slot->ptr != NULL && dice < 3) {
        step_realloc(model, slot);
    } else if (slot->ptr != NULL) {
        step_free(model, slot);
    } else if (dice == 0) {
        step_aligned(model, slot);
    } else if (dice == 1) {
        step_calloc(model, slot);
    } else {
        step_alloc(model, slot);
    }
}

/* Somebody else takes from the program break, or the heap gets one more piece of memory. */
static void step_on_ground(struct model *model)
{
    if (model->ground == GROUND_SBRK && model_below(model, 4) == 0) {
        (void)sbrk((intptr_t)model_below(model, 10000));
    } else if (model->ground != GROUND_SBRK && model->pieces_added < PIECES) {
        unsigned char *piece = pieces[model->pieces_added++];
        if (!HmmHeapAdd(model->heap, piece, PIECE_BYTES)) {
            fail(model, "a piece was refused");
        }
        if (HmmHeapAdd(model->heap, piece + 4096, 4096)) {
            fail(model, "an overlapping piece was taken");
        }
    }
}

static void step_all_free(struct model *model)
{
    for (size_t i = 0; i < SLOTS; i++) {
        if (model->slots[i].ptr != NULL) {
            step_free(model, &model->slots[i]);
        }
    }
}

static bool see_block(void *ptr, size_t usable_bytes, bool is_used, void *context)
{
    size_t *seen = context;
    (void)ptr;
    (void)usable_bytes;
    *seen += is_used ? 1 : 0;
    return true;
}

static void model_verify(struct model *model)
{
    if (!HmmHeapCheck(model->heap)) {
        fail(model, "broken heap");
    }
    size_t seen = 0;
    if (!HmmHeapWalk(model->heap, see_block, &seen) || seen != model->live_count) {
        fail(model, "live blocks not seen");
    }
    if (!model->is_looking) {
        return;
    }
    HmmHeapStats stats;
    HmmHeapGetStats(model->heap, &stats);
    if (stats.live_count != model->live_count || !HmmHeapCheck(model->heap)) {
        fail(model, "live blocks miscounted");
    }
    if (stats.break_bytes != stats.live_bytes + stats.free_bytes + stats.overhead_bytes ||
        stats.break_bytes > stats.capacity_bytes) {
        fail(model, "bytes do not add up");
    }
}

static HmmHeap *heap_open(enum ground ground, const HmmHeapOptions *options)
{
    switch (ground) {
    case GROUND_ARRAY:
        return HmmHeapInit(array, sizeof array, options);
    case GROUND_RESERVE:
        return HmmHeapCreate(CREATE_BYTES, options);
    case GROUND_SBRK:
    case GROUND_COUNT:
        break;
    }
    const struct heap_grant grant = {.quota_bytes = 2 * CREATE_BYTES};
    return hmm_handle_open(hmm_region_sbrk(), options, &grant, LOCK_RANK_HEAP);
}

static void model_run(enum ground ground, HmmFit fit, HmmHardening hardening, size_t steps,
                      uint64_t seed)
{
    static const HmmIntegrity integrities[] = {HMM_INTEGRITY_TAG, HMM_INTEGRITY_NONE,
                                               HMM_INTEGRITY_NEIGHBOURS};
    const HmmHeapOptions options = {
        .fit = fit, .integrity = integrities[seed % 3], .hardening = hardening};
    static struct model model;
    model = (struct model){.heap = heap_open(ground, &options),
                           .ground = ground,
                           .hardening = hardening,
                           .random = seed};
    if (model.heap == NULL) {
        fail(&model, "no heap");
    }
    for (step_now = 0; step_now < steps; step_now++) {
        size_t dice = model_below(&model, 3000);
        model.is_looking =
            hardening == HMM_HARDENING_NONE || model_below(&model, LOOKED_AT_SHARE) == 0;
        if (dice == 0) {
            step_all_free(&model);
        } else if (dice < 4) {
            step_on_ground(&model);
        } else {
            step_on_slot(&model);
        }
        model_verify(&model);
    }
    step_all_free(&model);
    model.is_looking = true;
    model_verify(&model);
}

static bool run_in_child(enum ground ground, HmmFit fit, HmmHardening hardening, size_t steps,
                         uint64_t seed)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        model_run(ground, fit, hardening, steps, seed);
        fflush(stdout);
        _exit(0);
    }
    int status = 0;
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool run_all(int hardening, size_t steps, uint64_t seed, int *number)
{
    bool is_all_good = true;
    for (int ground = 0; ground < GROUND_COUNT; ground++) {
        for (int fit = HMM_FIT_GOOD; fit <= HMM_FIT_BEST; fit++) {
            bool is_good = run_in_child((enum ground)ground, (HmmFit)fit, hardenings[hardening],
                                        steps, seed + (uint64_t)fit);
            is_all_good &= is_good;
            printf("%sok %d - hardening %d, %s, fit=%s\n", is_good ? "" : "not ", ++*number,
                   hardening, ground_names[ground], fit_names[fit]);
        }
    }
    return is_all_good;
}

int main(int argc, char **argv)
{
    size_t steps = argc > 1 ? strtoul(argv[1], NULL, 10) : STEPS_DEFAULT;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)time(NULL);
    int first = argc > 3 ? (int)strtol(argv[3], NULL, 10) % HARDENINGS : 0;
    int last = argc > 3 ? first : HARDENINGS - 1;
    int number = 0;
    bool is_all_good = true;
    printf("1..%d\n# seed %llu, %zu steps each, %zu bits\n", GROUND_COUNT * 4 * (last - first + 1),
           (unsigned long long)seed, steps, sizeof(void *) * 8);
    for (int hardening = first; hardening <= last; hardening++) {
        is_all_good &=
            run_all(hardening, hardening == 0 ? steps : steps / HARDENED_SHARE, seed, &number);
    }
    return is_all_good ? 0 : 1;
}
