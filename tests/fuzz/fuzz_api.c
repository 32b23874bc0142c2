/*
 * fuzz_api.c - a fuzzer chooses the calls on the process heap, and from which thread (libFuzzer).
 *
 * Every four bytes are one operation: what and by which of three threads, on which of the places
 * for blocks, and how much. Blocks know their content and are filled as far as they may be used.
 * Threads take turns, so that an input does the same each time: what they do to each other's slabs
 * is what matters here, not at which moment. While no helper is alive the library is told that
 * there is one thread. The system refuses memory where the input says so, call by call: then, and
 * only then, an operation may fail. After some of the operations, and at the end of all, every
 * invariant is checked.
 *
 * Run with -rss_limit_mb=0: the limit is watched by a thread of libFuzzer's.
 */
#include "alloc.h"
#include "content.h"
#include "os.h"
#include "os_call.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/single_threaded.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    PLACES = 64,
    HEAP_PLACES = 8,
    HELPERS = 2,
    OPERATION_BYTES = 4,
    WHOLE_BYTES = 32 * 1024, /* of larger blocks only the ends are written: faults are dear */
    END_BYTES = 1024,
    ZEROED_BYTES_MAX = 300 * 1024,
    AUDIT_EVERY = 16,
    CHILD_SECONDS = 20,
    HEAP_LIMIT_BYTES = 1 << 20,
};

struct place {
    unsigned char *ptr; /* NULL: empty */
    size_t bytes;
    uint32_t salt;
};

static struct place places[PLACES];
static HmmHeap *own_heap;
static struct place heap_places[HEAP_PLACES];
static uint32_t next_salt;
static bool has_forked;   /* once an input: it costs as much as a thousand other operations */
static uint32_t refusals; /* a bit for each of the system's next answers */
static bool was_refused;  /* in this operation */

static void demand(bool condition)
{
    if (!condition) {
        abort();
    }
}

/* ------------------------------------------------------------------------------------- refusals */

long __real_hmm_os_call(long number, const long given[OS_CALL_WORDS]);
long __wrap_hmm_os_call(long number, const long given[OS_CALL_WORDS]);

static bool is_refused(long number)
{
    bool is_about_memory = number == SYS_mmap || number == SYS_mprotect || number == SYS_madvise ||
                           number == SYS_mremap;
    bool is_next = (refusals & 1) != 0;
    if (is_about_memory) {
        refusals >>= 1;
        was_refused |= is_next;
    }
    return is_about_memory && is_next;
}

/* The rooms are linked so that their calls of the system come here. */
long __wrap_hmm_os_call(long number, const long given[OS_CALL_WORDS])
{
    if (is_refused(number)) {
        errno = ENOMEM;
        return -1;
    }
    return __real_hmm_os_call(number, given);
}

static void audit(void)
{
    const char *broken = hmm_alloc_audit();
    if (broken != NULL) {
        hmm_os_write_error(broken, strlen(broken));
        abort();
    }
}

/* -------------------------------------------------------------------------------------- content */

static void place_write(struct place *place, unsigned char *ptr, size_t bytes)
{
    *place = (struct place){ptr, bytes, ++next_salt};
    size_t head_bytes = bytes <= WHOLE_BYTES ? bytes : END_BYTES;
    content_write(ptr, head_bytes, place->salt);
    content_write(ptr + bytes - END_BYTES * (bytes > WHOLE_BYTES),
                  END_BYTES * (bytes > WHOLE_BYTES), place->salt);
}

/* Whether the first `kept_bytes` of what was written are there. */
static bool place_is_kept(const struct place *place, const unsigned char *ptr, size_t kept_bytes)
{
    bool is_large = place->bytes > WHOLE_BYTES;
    return content_is_kept(ptr, is_large ? END_BYTES : place->bytes, place->salt, kept_bytes) &&
           (!is_large || kept_bytes < place->bytes ||
            content_is(ptr + place->bytes - END_BYTES, END_BYTES, place->salt));
}

static void place_verify(const struct place *place)
{
    demand(place->ptr == NULL || place_is_kept(place, place->ptr, SIZE_MAX));
}

/* ----------------------------------------------------------------------------------- operations */

/* All octaves, their edges, and what no object can be. */
static size_t draw_bytes(const uint8_t *operation)
{
    size_t draw = (size_t)operation[2] | (size_t)operation[3] << 8;
    switch (operation[0] >> 3 & 7) {
    case 0:
    case 1:
    case 2:
        return draw % 600;
    case 3:
    case 4:
        return draw % 9000;
    case 5:
        return draw * 5;
    case 6:
        return draw * 40;
    default:
        return draw < 65000 ? ((size_t)1 << draw % 22) + (draw >> 8) % 5 - 2 : SIZE_MAX - draw;
    }
}

/* As much of a new block as may be used becomes its content. */
static void place_fill(struct place *place, void *ptr, size_t bytes, size_t alignment)
{
    if (ptr == NULL) {
        demand(errno == ENOMEM &&
               (was_refused || bytes > OBJECT_BYTES_MAX || alignment > GRANULE_BYTES));
        return;
    }
    size_t usable_bytes = HmmUsableSize(ptr);
    demand(errno == EDOM && usable_bytes >= bytes && (uintptr_t)ptr % alignment == 0);
    place_write(place, ptr, usable_bytes);
}

static void place_drop(struct place *place)
{
    place_verify(place);
    errno = EDOM;
    HmmFree(place->ptr);
    demand(errno == EDOM);
    place->ptr = NULL;
}

static void place_allocate(struct place *place, size_t bytes)
{
    place_drop(place);
    place_fill(place, HmmAlloc(bytes), bytes, BLOCK_UNIT_BYTES);
}

static void place_allocate_zeroed(struct place *place, size_t bytes, size_t count)
{
    place_drop(place);
    size_t each_bytes = bytes / count;
    unsigned char *ptr = HmmCalloc(count, each_bytes);
    demand(ptr == NULL || content_is_zero(ptr, count * each_bytes));
    place_fill(place, ptr, count * each_bytes, BLOCK_UNIT_BYTES);
}

static void place_allocate_aligned(struct place *place, size_t bytes, size_t alignment)
{
    place_drop(place);
    place_fill(place, HmmAlignedAlloc(alignment, bytes), bytes, alignment);
}

static void place_resize(struct place *place, size_t bytes)
{
    place_verify(place);
    errno = EDOM;
    unsigned char *ptr = HmmRealloc(place->ptr, bytes);
    if (place->ptr != NULL && bytes == 0) {
        demand(ptr == NULL && errno == EDOM);
        place->ptr = NULL;
    } else if (ptr == NULL) {
        demand(errno == ENOMEM && (was_refused || bytes > OBJECT_BYTES_MAX));
    } else {
        demand(place->ptr == NULL || place_is_kept(place, ptr, bytes));
        place_fill(place, ptr, bytes, BLOCK_UNIT_BYTES);
    }
}

static void places_drop(size_t step)
{
    for (size_t i = 0; i < PLACES; i += step) {
        place_drop(&places[i]);
    }
}

/* The child can use and free all there is. */
static void fork_once(void)
{
    int status = -1;
    if (has_forked) {
        return;
    }
    has_forked = true;
    pid_t child = fork();
    if (child == 0) {
        alarm(CHILD_SECONDS);
        refusals = 0;
        places_drop(2);
        for (size_t i = 0; i < PLACES; i++) {
            place_allocate(&places[i], i * i * 9);
        }
        places_drop(1);
        audit();
        _exit(EXIT_SUCCESS);
    }
    pid_t ended = waitpid(child, &status, 0);
    while (ended == -1 && errno == EINTR) {
        ended = waitpid(child, &status, 0);
    }
    demand(child > 0 && ended == child && status == 0);
}

/* -------------------------------------------------------------------------- a heap of one's own */

static void own_heap_open(unsigned how)
{
    const HmmHeapOptions options = {.fit = (HmmFit)(how % 4)};
    if (own_heap == NULL) {
        own_heap = HmmHeapCreate(how % 8 < 4 ? HEAP_LIMIT_BYTES : 0, &options);
        demand(own_heap != NULL || (errno == ENOMEM && was_refused));
    }
}

static void own_heap_close(void)
{
    HmmHeapDestroy(own_heap);
    own_heap = NULL;
    memset(heap_places, 0, sizeof heap_places);
}

static void own_heap_use(const uint8_t *operation)
{
    struct place *place = &heap_places[operation[1] % HEAP_PLACES];
    size_t bytes = (size_t)operation[2] << operation[3] % 11;
    own_heap_open(operation[3]);
    if (own_heap == NULL) {
        return;
    }
    place_verify(place);
    if (operation[3] % 3 == 0) {
        HmmHeapFree(own_heap, place->ptr);
        place->ptr = NULL;
        return;
    }
    void *ptr = HmmHeapRealloc(own_heap, place->ptr, bytes);
    if (ptr != NULL) {
        demand(place->ptr == NULL || place_is_kept(place, ptr, bytes));
        place_write(place, ptr, HmmHeapUsableSize(own_heap, ptr));
    } else if (bytes == 0) {
        place->ptr = NULL;
    }
    demand(HmmHeapCheck(own_heap));
}

/* -------------------------------------------------------------------------------------- threads */

static void operate(const uint8_t *operation)
{
    struct place *place = &places[operation[1] % PLACES];
    size_t bytes = draw_bytes(operation);
    errno = EDOM;
    was_refused = false;
    switch (operation[1] >> 6 | (operation[0] & 1) << 2) {
    case 0:
    case 1:
        place_allocate(place, bytes);
        break;
    case 2:
    case 3:
        place_drop(place);
        break;
    case 4:
        place_resize(place, bytes);
        break;
    case 5:
        place_allocate_zeroed(place, bytes % ZEROED_BYTES_MAX, 1 + operation[3] % 7);
        break;
    case 6:
        place_allocate_aligned(place, bytes, (size_t)BLOCK_UNIT_BYTES << operation[3] % 18);
        break;
    default:
        switch (operation[2] % 8) {
        case 0:
            (void)hmm_alloc_trim(0);
            break;
        case 1:
            fork_once();
            break;
        case 2:
            places_drop(1 + operation[3] % 4);
            break;
        case 3:
            own_heap_close();
            break;
        case 4:
            refusals = (uint32_t)operation[3] << (operation[0] >> 3 & 7) * 2;
            break;
        default:
            own_heap_use(operation);
            break;
        }
    }
}

/* libFuzzer's alarms interrupt. */
static void wait_for(sem_t *semaphore)
{
    while (sem_wait(semaphore) != 0) {
        demand(errno == EINTR);
    }
}

struct helper {
    pthread_t thread;
    bool is_alive;
    sem_t is_asked;
    sem_t is_done;
    const uint8_t *operation; /* NULL: end */
};

static struct helper helpers[HELPERS];

static void *helper_run(void *argument)
{
    struct helper *helper = argument;
    wait_for(&helper->is_asked);
    while (helper->operation != NULL) {
        operate(helper->operation);
        sem_post(&helper->is_done);
        wait_for(&helper->is_asked);
    }
    return NULL;
}

static void helper_operate(struct helper *helper, const uint8_t *operation)
{
    if (!helper->is_alive) {
        __libc_single_threaded = 0;
        demand(sem_init(&helper->is_asked, 0, 0) == 0 && sem_init(&helper->is_done, 0, 0) == 0);
        demand(pthread_create(&helper->thread, NULL, helper_run, helper) == 0);
        helper->is_alive = true;
    }
    helper->operation = operation;
    sem_post(&helper->is_asked);
    wait_for(&helper->is_done);
}

static void helper_end(struct helper *helper)
{
    if (helper->is_alive) {
        helper->operation = NULL;
        sem_post(&helper->is_asked);
        pthread_join(helper->thread, NULL);
        helper->is_alive = false;
    }
}

static void helpers_end(void)
{
    for (size_t i = 0; i < HELPERS; i++) {
        helper_end(&helpers[i]);
    }
}

/* The two low bits but one say who: mostly the first thread. */
static void step(const uint8_t *operation)
{
    switch (operation[0] >> 6) {
    case 2:
        helper_operate(&helpers[operation[0] >> 1 & 1], operation);
        break;
    case 3:
        if ((operation[0] >> 1 & 3) == 0) {
            helper_end(&helpers[operation[0] >> 3 & 1]);
        } else {
            helper_operate(&helpers[0], operation);
        }
        break;
    default:
        operate(operation);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    has_forked = false;
    size_t count = 0;
    for (size_t at = 0; at + OPERATION_BYTES <= bytes; at += OPERATION_BYTES) {
        step(data + at);
        if (++count % AUDIT_EVERY == 0) {
            audit();
        }
    }
    refusals = 0;
    own_heap_close();
    places_drop(1);
    helpers_end();
    __libc_single_threaded = 1;
    (void)hmm_alloc_trim(0);
    audit();
    demand(atomic_load(&hmm_arena.dirty_count) == 0);
    return 0;
}
