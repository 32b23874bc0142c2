/*
 * handle.h - struct HmmHeap: a block heap with a lock, a way to ask for room, and a name for
 * errors.
 *
 * It lies inside the first region of the heap that it describes. The public HmmHeap calls and the
 * process heap are thin doors to the functions here, which take the lock, look at crimes once the
 * lock is free again, and set errno.
 *
 * Freestanding, like everything below it.
 */
#ifndef HMM_HANDLE_H
#define HMM_HANDLE_H

#include "heap.h"
#include "lock.h"
#include "seal.h"

enum handle_locking { HANDLE_UNLOCKED, HANDLE_LOCK_OWN, HANDLE_LOCK_CALLER };

struct HmmHeap {
    /* immutable after init, but for magic, which HmmHeapDestroy clears */
    uintptr_t magic;
    enum handle_locking locking;
    void (*lock_take)(void *context);
    void (*lock_give)(void *context);
    bool (*on_full)(HmmHeap *heap, size_t bytes, void *context); /* NULL: full is full */
    void *context;
    void (*unregister)(HmmHeap *handle); /* NULL: it is on no list */
    /* As on_full, and before it: the system's, with the lock held. NULL: the heap has no more
     * than its regions. */
    bool (*add_range)(HmmHeap *handle, size_t bytes);

    struct lock lock; /* HANDLE_LOCK_OWN: guards `heap`; else it says whether a thread is inside */
    struct heap heap;

    /* guarded by the registry's lock */
    HmmHeap *registry_next;
    HmmHeap **registry_link; /* what points here */
};

/* Also says whether the heap is hardened, so that the calls of one that is not have
 * nothing to ask. */
enum {
    HANDLE_MAGIC = 0x484d4d48,
    HANDLE_MAGIC_GUARDED = 0x484d4d47,
    HANDLE_MAGIC_DEAD = 0x64656164
};

static inline bool handle_is_plain(const HmmHeap *handle)
{
    return LIKELY(handle != NULL && handle->magic == HANDLE_MAGIC);
}

/* Makes a heap in the region, its header first. NULL: an option out of range, or too little room.
 * `grant` may be NULL: a first-class heap that has no more than its regions. */
HMM_HIDDEN HmmHeap *hmm_handle_open(struct region *region, const HmmHeapOptions *options,
                                    const struct heap_grant *grant, enum lock_rank rank);

/* Whether every option is in range; NULL: they are all the defaults. */
HMM_HIDDEN bool hmm_handle_can_open(const HmmHeapOptions *options);

/* `call` is the name that an error message shows. They set errno as hmm.h says. */
HMM_HIDDEN void *hmm_handle_allocate(HmmHeap *handle, const char *call, size_t alignment,
                                     size_t bytes);
HMM_HIDDEN void *hmm_handle_zeroed(HmmHeap *handle, const char *call, size_t count, size_t bytes);
HMM_HIDDEN void *hmm_handle_resize(HmmHeap *handle, const char *call, void *ptr, size_t bytes);
HMM_HIDDEN void hmm_handle_free(HmmHeap *handle, void *ptr, const struct claim *claim);
HMM_HIDDEN size_t hmm_handle_usable(const HmmHeap *handle, const char *call, const void *ptr);

/* As hmm_handle_allocate, for a call that its counterpart must match in a hardened heap. */
HMM_HIDDEN void *hmm_handle_allocate_as(HmmHeap *handle, const char *call, size_t alignment,
                                        size_t bytes, enum origin origin);

/* Gives back what lies free at the breaks. Whether a break moved. */
HMM_HIDDEN bool hmm_handle_trim(HmmHeap *handle, const char *call, size_t keep_bytes);

/* Whether the pointer lies among the heap's blocks. For messages about crimes: it never waits, and
 * says no where the lock is not to be had. */
HMM_HIDDEN bool hmm_handle_covers(HmmHeap *handle, const void *ptr);

/* The heap among whose blocks a pointer lies, NULL: none that is known. */
HMM_HIDDEN const HmmHeap *hmm_handle_owner(const void *ptr);

/* A lock is taken through a const heap too: reading needs it as much as writing. */
static inline void hmm_handle_lock_to_read(const HmmHeap *handle)
{
    if (handle->locking == HANDLE_LOCK_OWN) {
        hmm_lock_acquire((struct lock *)&handle->lock);
    } else if (handle->locking == HANDLE_LOCK_CALLER) {
        handle->lock_take(handle->context);
    }
}

static inline void hmm_handle_unlock_read(const HmmHeap *handle)
{
    if (handle->locking == HANDLE_LOCK_OWN) {
        hmm_lock_release((struct lock *)&handle->lock);
    } else if (handle->locking == HANDLE_LOCK_CALLER) {
        handle->lock_give(handle->context);
    }
}

/* Before a change. Where the lock is not its own the heap notes that a thread is inside, for those
 * who look at it from without; only reading calls do with memory that cannot be written. */
static inline void hmm_handle_lock(HmmHeap *handle)
{
    hmm_handle_lock_to_read(handle);
    if (handle->locking != HANDLE_LOCK_OWN) {
        hmm_lock_note_inside(&handle->lock);
    }
}

static inline void hmm_handle_unlock(HmmHeap *handle)
{
    if (handle->locking != HANDLE_LOCK_OWN) {
        hmm_lock_note_outside(&handle->lock);
    }
    hmm_handle_unlock_read(handle);
}

/* Ends the program. A crime without a tag as evidence may be that the pointer is another heap's.
 * `handle` NULL: a call of malloc's family. No lock is held. */
HMM_HIDDEN HMM_NORETURN void hmm_handle_accuse(const HmmHeap *handle, const char *call,
                                               const void *ptr, struct crime *crime);

/* What handle.c and handle_guarded.c share. The first two end the program if there is cause. */
HMM_HIDDEN void hmm_handle_check(const HmmHeap *handle, const char *call, const void *ptr);
static inline void hmm_handle_judge(const HmmHeap *handle, const char *call, const void *ptr,
                                    struct crime *crime)
{
    if (UNLIKELY(crime->what != NULL)) {
        hmm_handle_accuse(handle, call, ptr, crime);
    }
}
/* The system's further range, with the lock that the request which failed was made under: else
 * others may have made room meanwhile, and it would look as if the system had refused it. False:
 * there is none, or none is needed. */
HMM_HIDDEN bool hmm_handle_grow(HmmHeap *handle, size_t alignment, size_t bytes);
/* Asks the heap's owner for room, without the lock, because the callback may use the heap. */
HMM_HIDDEN bool hmm_handle_make_room(HmmHeap *handle, size_t alignment, size_t bytes);
/* A request has failed for good. Returns NULL. */
HMM_HIDDEN void *hmm_handle_fail(HmmHeap *handle, size_t bytes);

/* What the process's options say, where there are such; else none. No lock is held. */
HMM_HIDDEN HmmHardening hmm_handle_hardening(void);

/* Whether hardened heaps keep sites, as the process's options say, where there are such. No lock is
 * held, or the process's own heap is being opened. */
HMM_HIDDEN bool hmm_handle_has_sites(void);

/* The calling thread's site (sites.h), 0: unknown. No lock is held. */
HMM_HIDDEN uint32_t hmm_handle_site(void);

/* Whether claims need not be right, as the process's options say, where there are such. No lock is
 * held. */
HMM_HIDDEN bool hmm_handle_ignores_claims(void);

/* As hmm_operators_are_mixed, where there is C++; else false. No lock is held. */
HMM_HIDDEN bool hmm_handle_has_mixed_operators(void);

/* A secret for a new heap: hosted from the kernel, freestanding from where and how often. */
HMM_HIDDEN uint64_t hmm_handle_secret(const void *memory);

#endif
