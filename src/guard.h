/*
 * guard.h - hardening: what HMM_OPTIONS=hardened=1..3 and libhmm-secure.so add to every block.
 *
 * It sits between the doors and the rooms that hold blocks, and changes none of their fast paths: a
 * guarded thread's bins are not those of the doors, and no slab says that it is the thread's own,
 * so every call comes here by itself.
 *
 *      +---------------------------+----------+-----------------+------+
 *      | what was asked for        | slack, 0 | sites, if asked | seal |  a slot, or a medium block
 *      +---------------------------+----------+-----------------+------+
 *      ptr                         ptr + request_bytes          end - 8
 *
 * The seal is a word that nobody can guess: a product of its address with the secret, and beside it
 * what must be known when the block comes back: the slack, the alignment, and which call made it.
 * So a block that is live has its seal, one that is free has 0 there, and anything else is damage.
 *
 *     level 1   the seal; free blocks are zero, and a slot is looked through before it is handed
 *               out
 *           2   quarantine; slots in random order; fences (fence.h) around large blocks and
 *               between slabs; a block of 0 bytes has no memory
 *           3   each block ends at a fence
 *
 * G1  A live block's seal is right, and its slack is 0.
 * G2  A free slot is 0 but for its link, from the seal on to the first byte: whoever frees writes
 *     that, and nothing else may. In a forked child neither holds for the medium block that a
 *     thread, which vanished, had in its hands.
 * G3  The first slot of a slab is never handed out, so that each slot has a seal, or 0, before it.
 * G4  A block in quarantine is live for the room that it came from, and its seal says that
 *     it is free.
 */
#ifndef HMM_GUARD_H
#define HMM_GUARD_H

#include "os.h"
#include "settings.h"
#include "thread.h"

enum content { CONTENT_ANY, CONTENT_ZERO };

/* What a call asks for. */
struct request {
    const char *call;
    size_t alignment;
    size_t bytes;
    enum content content;
    enum origin origin;
};

/* In the secure library always, so the compiler knows. */
static inline bool guard_is_on(void)
{
    return HMM_SECURE || UNLIKELY(hmm_settings.guard.level != GUARD_OFF);
}

/* Before any thread is opened. */
HMM_HIDDEN void hmm_guard_start(enum guard_level level, bool has_sites);

/* As the doors promise; NULL: no memory, errno is the caller's. Up to OBJECT_BYTES_MAX. Slots and
 * large blocks are always zero. */
HMM_HIDDEN void *hmm_guard_allocate(const struct request *request);

/* The same, when what is held back has been let go. */
HMM_HIDDEN HMM_COLD void *hmm_guard_allocate_last(const struct request *request);

/* What the thread's bin has, all of it 0; NULL: nothing, or it is a matter for hmm_guard_allocate.
 * Short requests have been tried before, where there is guard_fast.h. */
HMM_HIDDEN void *hmm_guard_malloc(size_t bytes, enum origin origin);
/* The block with another size where it is, NULL: that cannot be. *old_bytes is what it had. */
HMM_HIDDEN void *hmm_guard_resize(void *ptr, size_t bytes, const struct claim *claim,
                                  size_t *old_bytes);
/* Where a block of old_bytes can move to become so large: of two blocks before fences the second
 * begins elsewhere and has to be copied, so one that grows by little gets room to grow. NULL: it
 * gets none, or there is none. */
HMM_HIDDEN void *hmm_guard_large_allocate_roomy(size_t bytes, size_t old_bytes, enum origin origin);
HMM_HIDDEN void hmm_guard_free(void *ptr, const struct claim *claim);
HMM_HIDDEN size_t hmm_guard_usable(const char *call, const void *ptr);

/* What the calling thread holds back goes on its way, and the links in its bins are followed:
 * hmm_thread_flush may empty those. */
HMM_HIDDEN void hmm_guard_flush(const char *call, struct thread *thread);

/* fork(), in the child: what is drawn at random from now on is not what the parent draws. */
HMM_HIDDEN void hmm_guard_renew(void);

/* fork(), in the child, with no lock held: what the threads that vanished held back is free. */
HMM_HIDDEN void hmm_guard_inherit(void);

/* Every live block, with the site that made it, until `visit` says no. Others may be at work: what
 * they do meanwhile may be seen or not. */
typedef bool (*guard_visitor)(void *ptr, size_t request_bytes, uint32_t site, void *context);
HMM_HIDDEN void hmm_guard_walk(guard_visitor visit, void *context);

/* The first of G1-G4 that does not hold, for all slots and medium blocks and for what the calling
 * thread holds back; NULL: all do. No other thread may run. */
HMM_HIDDEN const char *hmm_guard_audit(void);

#endif
