/*
 * refused.c - each system call that the library makes is refused at every point: the first, the
 * second, the n-th alone, and all from the n-th on, with each error that a kernel or a sandbox may
 * give. Allocation may then fail with ENOMEM, and nothing else may happen: content stays, free()
 * leaves errno alone, and once the system is kind again everything can be had again.
 *
 * A filter of system calls (seccomp) hands the call in question over to the parent, which counts
 * and decides. Each point is tried in a process of its own, whose heap is fresh. Linked with the
 * rooms instead of the library, the invariants of all of them are checked at the end as well.
 */
#include "cases.h"
#include "content.h"
#include "hmm.h"

#include <errno.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum {
    BLOCKS = 64,
    THREADS = 2,
    LIMIT_SECONDS = 20, /* a scenario takes some milliseconds */
    ERRORS_MAX = 4,
    CALLS_MAX = 12,
    LARGE_BYTES_MAX = 5 << 20,
    NEVER = 0,
    KIBIBYTE = 1 << 10,
    MEBIBYTE = 1 << 20,
};

/* Where the rooms are linked in. */
__attribute__((weak)) const char *hmm_alloc_audit(void);

/* What the processes tell each other. */
static struct {
    _Atomic unsigned long seen_count;    /* calls that the parent was asked about */
    _Atomic unsigned long refused_count; /* of those */
    _Atomic bool is_calm;                /* from now on nothing is refused */
    _Atomic uintptr_t brk;               /* what the kernel would answer */
    _Atomic bool is_forked;              /* another process moves a break of its own */
} * shared;

/* --------------------------------------------------------------------------------- the scenario */

static struct {
    unsigned char *ptr;
    size_t bytes;
} blocks[THREADS + 1][BLOCKS];

static bool may_fail = true;

/* Where pages could not be moved while there are threads, their new place is given up, once. */
static size_t lost_bytes_max;

static bool was_refused(void)
{
    return atomic_load(&shared->refused_count) != 0;
}

/* Success leaves errno alone; there is one way to fail, and a reason for it. */
static bool is_had(const void *ptr)
{
    EXPECT_EQUAL(errno, ptr != NULL ? EDOM : ENOMEM);
    EXPECT(ptr != NULL || (may_fail && was_refused() && !atomic_load(&shared->is_calm)));
    return ptr != NULL;
}

/* Of large blocks only the ends, because faults cost more than all the rest. */
static void fill(unsigned char *ptr, size_t bytes, size_t salt)
{
    size_t end_bytes = bytes < CONTENT_WHOLE_BYTES ? bytes : CONTENT_WHOLE_BYTES;
    content_write(ptr, end_bytes, (uint32_t)salt);
    content_write(ptr + bytes - end_bytes, end_bytes, (uint32_t)salt);
}

static bool is_filled(const unsigned char *ptr, size_t bytes, size_t salt, size_t kept_bytes)
{
    size_t end_bytes = bytes < CONTENT_WHOLE_BYTES ? bytes : CONTENT_WHOLE_BYTES;
    bool is_end_kept = bytes <= kept_bytes && bytes >= 2 * end_bytes;
    return (bytes < 2 * CONTENT_WHOLE_BYTES && bytes != end_bytes) ||
           (content_is_kept(ptr, end_bytes, (uint32_t)salt, kept_bytes) &&
            (!is_end_kept || content_is(ptr + bytes - end_bytes, end_bytes, (uint32_t)salt)));
}

static void drop(int row, size_t place)
{
    unsigned char *ptr = blocks[row][place].ptr;
    EXPECT(ptr == NULL || is_filled(ptr, blocks[row][place].bytes, place, SIZE_MAX));
    errno = EDOM;
    HmmFree(ptr);
    EXPECT_EQUAL(errno, EDOM);
    blocks[row][place].ptr = NULL;
}

static void keep(int row, size_t place, void *ptr, size_t bytes)
{
    if (is_had(ptr)) {
        EXPECT(HmmUsableSize(ptr) >= bytes);
        fill(ptr, bytes, place);
        blocks[row][place].ptr = ptr;
        blocks[row][place].bytes = bytes;
    }
}

static void take(int row, size_t place, size_t bytes)
{
    drop(row, place);
    errno = EDOM;
    keep(row, place, HmmAlloc(bytes), bytes);
}

static void take_zeroed(int row, size_t place, size_t bytes)
{
    drop(row, place);
    errno = EDOM;
    void *ptr = HmmCalloc(1, bytes);
    EXPECT(ptr == NULL || content_is_zero(ptr, bytes));
    keep(row, place, ptr, bytes);
}

static void take_aligned(int row, size_t place, size_t alignment, size_t bytes)
{
    drop(row, place);
    errno = EDOM;
    void *ptr = HmmAlignedAlloc(alignment, bytes);
    EXPECT((uintptr_t)ptr % alignment == 0);
    keep(row, place, ptr, bytes);
}

static void resize(int row, size_t place, size_t bytes)
{
    unsigned char *ptr = blocks[row][place].ptr;
    size_t old_bytes = blocks[row][place].bytes;
    errno = EDOM;
    unsigned char *resized = HmmRealloc(ptr, bytes);
    if (is_had(resized)) {
        EXPECT(ptr == NULL || is_filled(resized, old_bytes, place, bytes));
        fill(resized, bytes, place);
        blocks[row][place].ptr = resized;
        blocks[row][place].bytes = bytes;
    }
}

static void drop_all(int row)
{
    for (size_t place = 0; place < BLOCKS; place++) {
        drop(row, place);
    }
}

/* Each room, and each way from one to the next. */
static void use_the_rooms(int row)
{
    for (size_t place = 0; place < BLOCKS; place++) {
        take(row, place, 1 + place * place * 2);
    }
    for (size_t place = 0; place < BLOCKS; place += 3) {
        take_zeroed(row, place, 10 * KIBIBYTE + place * KIBIBYTE);
        resize(row, place + 1 < BLOCKS ? place + 1 : 0, 20 * KIBIBYTE + place * 3 * KIBIBYTE);
    }
    for (size_t place = 0; place < 8; place++) {
        take(row, place, 300 * KIBIBYTE + place * 200 * KIBIBYTE);
    }
    for (size_t place = 0; place < 4; place++) {
        resize(row, place, 2 * MEBIBYTE + place * MEBIBYTE);
    }
    take_zeroed(row, 4, 600 * KIBIBYTE);
    take_aligned(row, 5, 64 * KIBIBYTE, 100 * KIBIBYTE);
    take_aligned(row, 6, 4 * MEBIBYTE, 10);
    take_aligned(row, 7, 128, 1000);
    for (size_t place = 0; place < 12; place++) {
        resize(row, place, 400 * KIBIBYTE - place * 30 * KIBIBYTE);
    }
    /* A peak, all of which goes at once. */
    for (size_t place = 16; place < 28; place++) {
        take(row, place, MEBIBYTE);
    }
    drop_all(row);
}

/* Pages between blocks go, or they do not. What is left knows nothing of it, and what comes there
 * is zero where it should be. */
static void use_trim(void)
{
    for (size_t place = 0; place < BLOCKS; place++) {
        take(0, place, place < 24 ? 20 * KIBIBYTE + place * 100 : 4 * KIBIBYTE);
    }
    for (size_t place = 0; place < BLOCKS; place += place < 24 ? 3 : 5) {
        drop(0, place);
    }
    errno = EDOM;
    (void)malloc_trim(0);
    EXPECT_EQUAL(errno, EDOM);
    for (size_t place = 0; place < BLOCKS; place += place < 24 ? 6 : 5) {
        take_zeroed(0, place, place < 24 ? 20 * KIBIBYTE : 4 * KIBIBYTE);
    }
    drop_all(0);
}

static void use_a_created_heap(void)
{
    void *held[16] = {NULL};
    errno = EDOM;
    HmmHeap *heap = HmmHeapCreate(16 * MEBIBYTE, NULL);
    if (!is_had(heap)) {
        return;
    }
    for (size_t i = 0; i < 16; i++) {
        errno = EDOM;
        held[i] = HmmHeapAlloc(heap, i * 50 * KIBIBYTE);
        (void)is_had(held[i]);
    }
    EXPECT(HmmHeapCheck(heap));
    errno = EDOM;
    for (size_t i = 0; i < 16; i++) {
        HmmHeapFree(heap, held[i]);
    }
    EXPECT(HmmHeapCheck(heap));
    HmmHeapDestroy(heap);
    EXPECT_EQUAL(errno, EDOM);
}

/* Frees what the first thread has, while that one frees what this one has. */
static void *thread_run(void *number)
{
    int row = (int)(uintptr_t)number;
    use_the_rooms(row);
    for (size_t place = 0; place < BLOCKS; place++) {
        take(row, place, 1 + place * 40);
    }
    return NULL;
}

/* The C library's own part in a thread may be refused too: then there is none. */
static void use_threads(void)
{
    pthread_t threads[THREADS];
    bool is_there[THREADS];
    for (int i = 0; i < THREADS; i++) {
        is_there[i] =
            pthread_create(&threads[i], NULL, thread_run, (void *)(uintptr_t)(i + 1)) == 0;
        EXPECT(is_there[i] || was_refused());
    }
    use_the_rooms(0);
    for (int i = 0; i < THREADS; i++) {
        if (is_there[i]) {
            pthread_join(threads[i], NULL);
            drop_all(i + 1);
        }
    }
}

static void use_fork(void)
{
    int status = -1;
    take(0, 0, 100);
    take(0, 1, 20 * KIBIBYTE);
    pid_t child = fork();
    if (child == 0) {
        atomic_store(&shared->is_forked, true);
        use_the_rooms(0);
        _exit(case_status());
    }
    EXPECT(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    atomic_store(&shared->is_forked, false);
    drop_all(0);
}

static void use_everything(void)
{
    use_the_rooms(0);
    use_a_created_heap();
    use_threads();
    use_fork();
    use_trim();
    errno = EDOM;
    (void)malloc_trim(0);
    EXPECT_EQUAL(errno, EDOM);
    use_the_rooms(0);
}

/* ----------------------------------------------------------------------------------- the filter */

struct refusal {
    const int *calls; /* numbers of system calls */
    size_t call_count;
    uint32_t futex_operation; /* with SYS_futex: the operation that is meant */
    int error;
    unsigned long first; /* counted from 1; NEVER: only counting */
    unsigned long last;
    uint64_t random; /* 0: all in between; else every second of them, by chance */
};

static void filter_skip_unless(struct sock_filter *filter, size_t *length, uint32_t value)
{
    filter[(*length)++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
}

/* The calls in question are handed over, all others go their way. Returns where they
 * are handed to. */
static int filter_install(const struct refusal *refusal)
{
    struct sock_filter filter[2 * CALLS_MAX + 8];
    size_t length = 0;
    filter[length++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    if (refusal->futex_operation != 0) {
        filter_skip_unless(filter, &length, SYS_futex);
        filter[length++] = (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, 1);
        filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
        filter[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                                        offsetof(struct seccomp_data, args[1]));
        filter_skip_unless(filter, &length, refusal->futex_operation);
        filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    }
    for (size_t i = 0; refusal->futex_operation == 0 && i < refusal->call_count; i++) {
        filter_skip_unless(filter, &length, (uint32_t)refusal->calls[i]);
        filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    }
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    const struct sock_fprog program = {(unsigned short)length, filter};
    REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
                        &program);
}

union control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
};

static void descriptor_send(int socket, int descriptor)
{
    char byte = 0;
    union control control = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes,
    };
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.header), &descriptor, sizeof descriptor);
    REQUIRE(sendmsg(socket, &message, 0) == 1);
}

static int descriptor_receive(int socket)
{
    char byte;
    int descriptor = -1;
    union control control = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes,
    };
    REQUIRE(recvmsg(socket, &message, 0) == 1 && CMSG_FIRSTHDR(&message) != NULL);
    memcpy(&descriptor, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof descriptor);
    return descriptor;
}

/* ----------------------------------------------------------------------------------- the parent */

static bool is_to_refuse(const struct refusal *refusal, uint64_t *random)
{
    unsigned long count = atomic_fetch_add(&shared->seen_count, 1) + 1;
    bool is_meant = count >= refusal->first && count <= refusal->last;
    return is_meant && (*random == 0 || random_below(random, 2) == 0);
}

/* A refused brk has no error: the kernel answers with where the break is. */
static void answer(int listener, const struct refusal *refusal, uint64_t *random)
{
    struct seccomp_notif question = {0};
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &question) != 0) {
        return; /* whoever asked is gone */
    }
    struct seccomp_notif_resp response = {.id = question.id,
                                          .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
    bool is_break = question.data.nr == SYS_brk;
    bool is_question_only =
        is_break && (question.data.args[0] == 0 || atomic_load(&shared->is_forked));
    if (!is_question_only && !atomic_load(&shared->is_calm) && is_to_refuse(refusal, random)) {
        atomic_fetch_add(&shared->refused_count, 1);
        response.flags = 0;
        response.error = is_break ? 0 : -refusal->error;
        response.val = is_break ? (int64_t)atomic_load(&shared->brk) : 0;
    } else if (is_break && !is_question_only) {
        atomic_store(&shared->brk, (uintptr_t)question.data.args[0]);
    }
    (void)ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
}

static void supervise(int listener, const struct refusal *refusal)
{
    struct pollfd watched = {.fd = listener, .events = POLLIN};
    uint64_t random = refusal->random;
    while (poll(&watched, 1, -1) > 0 && (watched.revents & POLLIN) != 0) {
        answer(listener, refusal, &random);
    }
    close(listener);
}

/* The C library keeps some blocks for its threads; a quarantine, what LEFT_KIBIBYTES says. */
static size_t left_bytes_max(void)
{
    const char *kibibytes = getenv("LEFT_KIBIBYTES");
    return (kibibytes != NULL ? strtoul(kibibytes, NULL, 10) : 64) * KIBIBYTE;
}

static void child_run(int socket, const struct refusal *refusal, void (*run)(void))
{
    alarm(LIMIT_SECONDS);
    atomic_store(&shared->brk, (uintptr_t)sbrk(0));
    int listener = filter_install(refusal);
    REQUIRE(listener >= 0);
    descriptor_send(socket, listener);
    close(listener);
    close(socket);
    run();
    /* Full recovery. */
    drop_all(0);
    atomic_store(&shared->is_calm, true);
    use_everything();
    (void)malloc_trim(0);
    EXPECT(mallinfo2().uordblks <= left_bytes_max() + lost_bytes_max);
    const char *broken = hmm_alloc_audit != NULL ? hmm_alloc_audit() : NULL;
    if (broken != NULL) {
        case_say("# %s\n", broken);
    }
    _exit(broken == NULL ? case_status() : EXIT_FAILURE);
}

/* Runs the scenario in a process of its own. Returns how many of the calls it made
 * until the calm. */
static unsigned long try_once(const struct refusal *refusal, void (*run)(void))
{
    int sockets[2];
    int status = -1;
    atomic_store(&shared->seen_count, 0);
    atomic_store(&shared->refused_count, 0);
    atomic_store(&shared->is_calm, false);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0);
    pid_t child = fork();
    if (child == 0) {
        close(sockets[0]);
        child_run(sockets[1], refusal, run);
    }
    close(sockets[1]);
    supervise(descriptor_receive(sockets[0]), refusal);
    close(sockets[0]);
    REQUIRE(child > 0 && waitpid(child, &status, 0) == child);
    if (status != 0 && case_fail()) {
        case_say("# system call %d, calls %lu to %lu of %lu refused with error %d, draw %llu: "
                 "status 0x%x\n",
                 refusal->calls[0], refusal->first, refusal->last, atomic_load(&shared->seen_count),
                 refusal->error, (unsigned long long)refusal->random, (unsigned)status);
    }
    return atomic_load(&shared->seen_count);
}

/* How far the points are apart that are tried; 1, also with each error at each. */
static unsigned long point_step(void)
{
    const char *step = getenv("POINT_STEP");
    return step != NULL ? strtoul(step, NULL, 10) : 1;
}

/* The n-th alone with each error, or with the errors in turn; and all from the n-th on. */
static void refuse_at_every_point(struct refusal refusal, const int *errors)
{
    unsigned long count = try_once(&refusal, use_everything);
    unsigned long step = point_step();
    size_t error_count = 0;
    size_t turn = 0;
    EXPECT(count > 0);
    while (error_count < ERRORS_MAX && errors[error_count] != 0) {
        error_count++;
    }
    for (unsigned long n = 1; n <= count && case_failure_count == 0; n += step) {
        refusal.first = refusal.last = n;
        for (size_t i = 0; i < (step == 1 ? error_count : 1); i++) {
            refusal.error = errors[turn++ % error_count];
            (void)try_once(&refusal, use_everything);
        }
        refusal.last = ULONG_MAX;
        (void)try_once(&refusal, use_everything);
    }
}

static void refuse_call(int call, const int *errors)
{
    refuse_at_every_point((struct refusal){.calls = &call, .call_count = 1}, errors);
}

/* ------------------------------------------------------------------------------------ the cases */

static void mmap_is_refused(void)
{
    refuse_call(SYS_mmap, (const int[ERRORS_MAX]){ENOMEM, EAGAIN, EPERM});
}

static void mprotect_is_refused(void)
{
    refuse_call(SYS_mprotect, (const int[ERRORS_MAX]){ENOMEM, EACCES});
}

static void munmap_is_refused(void)
{
    refuse_call(SYS_munmap, (const int[ERRORS_MAX]){ENOMEM, EINVAL});
}

static void madvise_is_refused(void)
{
    refuse_call(SYS_madvise, (const int[ERRORS_MAX]){EINVAL, EAGAIN, ENOMEM, ENOSYS});
}

static void mremap_is_refused(void)
{
    lost_bytes_max = (THREADS + 1) * LARGE_BYTES_MAX;
    refuse_call(SYS_mremap, (const int[ERRORS_MAX]){ENOMEM, EINVAL, EFAULT, ENOSYS});
}

static void brk_is_refused(void)
{
    refuse_call(SYS_brk, (const int[ERRORS_MAX]){ENOMEM});
}

/* Sleepers wake for nothing, and look again. */
static void futex_wait_is_refused(void)
{
    const int call = SYS_futex;
    const uint32_t wait_private = 128;
    struct refusal refusal = {
        .calls = &call, .call_count = 1, .futex_operation = wait_private, .last = ULONG_MAX};
    for (refusal.first = 1; refusal.first <= 20 && case_failure_count == 0; refusal.first++) {
        refusal.error = refusal.first % 2 == 0 ? EAGAIN : EINTR;
        (void)try_once(&refusal, use_everything);
    }
}

/* All that has to do with memory, each call by chance. */
static void half_of_all_calls_are_refused(void)
{
    const uint64_t draws = point_step() == 1 ? 100 : 24;
    static const int calls[] = {SYS_mmap,    SYS_mprotect, SYS_munmap,
                                SYS_madvise, SYS_mremap,   SYS_brk};
    struct refusal refusal = {.calls = calls,
                              .call_count = sizeof calls / sizeof calls[0],
                              .error = ENOMEM,
                              .last = ULONG_MAX};
    lost_bytes_max = (THREADS + 1) * LARGE_BYTES_MAX;
    for (uint64_t draw = 1; draw <= draws && case_failure_count == 0; draw++) {
        refusal.random = draw * 0x9e3779b97f4a7c15u;
        refusal.first = draw % 4 == 0 ? draw : 1;
        (void)try_once(&refusal, use_everything);
    }
}

/* The system tells nothing about itself and takes nothing back: no request may fail by that. */
static void must_all_be_had(void)
{
    may_fail = false;
    use_everything();
    EXPECT(was_refused());
}

static void nothing_more_is_needed(void)
{
    static const int calls[] = {
        SYS_sysinfo,       SYS_sched_getaffinity, SYS_openat, SYS_read,   SYS_close,  SYS_getrandom,
        SYS_clock_gettime, SYS_madvise,           SYS_munmap, SYS_mremap, SYS_gettid, SYS_getpid};
    static const int errors[] = {ENOSYS, EPERM};
    for (size_t i = 0; i < 2; i++) {
        struct refusal refusal = {.calls = calls,
                                  .call_count = sizeof calls / sizeof calls[0],
                                  .error = errors[i],
                                  .first = 1,
                                  .last = ULONG_MAX};
        (void)try_once(&refusal, must_all_be_had);
    }
}

/* Whether the kernel can hand a system call over, and we may ask it to. */
static void can_be_tried(void)
{
    const int call = SYS_sysinfo;
    const struct refusal refusal = {.calls = &call, .call_count = 1};
    EXPECT(filter_install(&refusal) >= 0);
}

static const struct test_case cases[] = {
    CASE(mmap_is_refused),        CASE(mprotect_is_refused),
    CASE(munmap_is_refused),      CASE(madvise_is_refused),
    CASE(mremap_is_refused),      CASE(brk_is_refused),
    CASE(futex_wait_is_refused),  CASE(half_of_all_calls_are_refused),
    CASE(nothing_more_is_needed), CASE(can_be_tried),
};

int main(int argc, char **argv)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(shared != MAP_FAILED);
    return cases_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
