/*
 * remote.h - slots freed by threads that do not own their slab, and slabs that nobody owns.
 *
 * One word a slab says all of it, and is changed as a whole:
 *
 *     [ state : 8 | thin : 16 | tail : 12 | count : 13 | head : 13 ]
 *
 * head and tail are slot offsets in units from the granule's start, head one more than that; the
 * list runs from head to tail through the slots themselves. A free pushes a batch in front;
 * whoever may, takes the whole list and splices it to the slab's own in O(1), for which the tail
 * is there. Pages in `thin`, a bit each, have been given back. `count` has the slots on the list,
 * and those on thin pages, which are not.
 *
 *     owned     a thread owns the slab, or somebody has it to himself
 *     asleep    nobody owns it. All slots but a few are in use; it is on no list
 *     woken     nobody owns it. It is on one of two lists of its class, of slabs with loose slots
 *               (slab.h), or of others with free slots
 *
 * R1  In state owned, the descriptor but for this word, and the state in it, belong to the owner.
 *     In asleep, nobody touches the descriptor. In woken, it and the links belong to whoever holds
 *     the class's lock.
 * R2  owned -> asleep, owned -> woken: by the owner, releasing what it wrote there. The latter
 *     under the class's lock, with the push on the class's list.
 * R3  asleep -> owned: by a thread whose exchange of the word, which must show `asleep` and at
 *     least `threshold` slots, also takes the list. It acquires what the last owner released, and
 *     owns the slab. Who trims does the same however many they are, and lets it sleep again if
 *     nothing of it can go back.
 * R4  woken -> owned: under the class's lock, with the removal from the class's list,
 *     taking the slots.
 * R5  Slots enter the list by a push (release) and leave it all at once (acquire), and thin pages
 *     with them. A push reads the head only to link to it; as slots never leave singly, a head that
 *     is the same again is the right one.
 * R6  `threshold` is written before the word says asleep or woken, and is read after: asleep, it is
 *     what is missing to class_wake; woken, it is a stage of slots, and `need` at most, so that
 *     nobody's push makes count == need, which means that all slots are free, without reaching it.
 *     Whoever's push reaches it acts: it claims the sleeper (R3), or takes the class's lock, looks
 *     again, and releases the granule, or sets the next stage. While a slab is woken its threshold
 *     only grows, so an old value makes for a look too many, never for one too few.
 * R7  A slab is released only by its owner, or under the class's lock out of woken, with every
 *     carved slot in its free list or its remote list. So nobody can push to a released slab: a
 *     push is a free of a slot that is in use.
 * R8  After a push to a slab that is not asleep and not complete, the pusher does not touch the
 *     slab. Before the lock in R6 is taken the granule may have been released and taken again for
 *     anything, even for woken slabs of other classes: so a woken word names its class as well, and
 *     under the lock only a word that says woken, of the lock's class, is believed.
 * R9  Who gives free pages of a woken slab back takes it first (R4), and publishes it again (R2).
 *     It is nobody's meanwhile, but owned to all who look at the word.
 *
 * R10 Who pushes to an owned slab may *thin* it: he takes the list and the thin pages first, under
 *     the class's lock, and has them as a program has its blocks, in use to all others: what
 *     becomes of the slab meanwhile is no matter, but that it is not released (R7). The pages that
 *     these slots fill he gives back, and then pushes all, with what is thin now. The lock is not
 *     for the word: a forked child must not find slots in the hands of somebody who is no more.
 * R11 Who takes thin pages out of the word adds them to `away`, which is his (R1), and what of the
 *     slab is on them was in `count`. So a page is in the word's `thin` or in `away`, or in
 *     nobody's but a thinner's.
 * R12 What the word's list holds counts as loose while the slab is owned, once it is half of it:
 *     whoever changes the word tells the difference.
 *
 * While the process has one thread the same steps are plain loads and stores.
 */
#ifndef HMM_REMOTE_H
#define HMM_REMOTE_H

#include "slab.h"

/* Woken slabs have their class on top of the state (R8). */
enum remote_state { REMOTE_OWNED, REMOTE_ASLEEP, REMOTE_WOKEN };

enum {
    REMOTE_HEAD_BITS = 13,
    REMOTE_COUNT_BITS = 13,
    REMOTE_TAIL_BITS = 12,
    REMOTE_THIN_BITS = 16,
    REMOTE_COUNT_SHIFT = REMOTE_HEAD_BITS,
    REMOTE_TAIL_SHIFT = REMOTE_COUNT_SHIFT + REMOTE_COUNT_BITS,
    REMOTE_THIN_SHIFT = REMOTE_TAIL_SHIFT + REMOTE_TAIL_BITS,
    REMOTE_STATE_SHIFT = REMOTE_THIN_SHIFT + REMOTE_THIN_BITS,
    /* So many slabs with loose slots are looked at in a call, a thread's or woken ones; and when
     * larger blocks have gone, after which much may be too much. */
    LOOSE_LOOKS_MAX = 8,
    LOOSE_LOOKS_MANY = 256,
    /* Where a sparse slab is wanted so many of a list are looked at: each may be a cache miss. */
    LOOSE_PROBES = 8,
};

/* The slabs of a class with free slots that nobody owns. Lists: written under the lock, looked at
 * without. */
struct woken {
    struct lock lock;
    _Atomic(struct granule *) loose; /* slabs with loose slots */
    _Atomic(struct granule *) first; /* the others */
};

extern HMM_HIDDEN struct woken hmm_woken_slabs[CLASS_COUNT];

static_assert(GRANULE_BYTES / SLOT_UNIT_BYTES < 1 << REMOTE_HEAD_BITS &&
                  GRANULE_BYTES / SLOT_UNIT_BYTES < 1 << REMOTE_COUNT_BITS &&
                  GRANULE_BYTES / SLOT_UNIT_BYTES <= 1 << REMOTE_TAIL_BITS,
              "every slot has its number in the word");

/* What a push made necessary. */
enum remote_event {
    REMOTE_NOTHING,
    REMOTE_CLAIMED, /* the slab was asleep and is the caller's now: hmm_thread_adopt */
    REMOTE_LOOSE,   /* a woken slab has got emptier by a stage: hmm_remote_purge */
    REMOTE_DORMANT, /* a dormant thread's slab has as much to offer as a sleeper that wakes */
};

static inline uint32_t remote_field(uint64_t word, int shift, int bits)
{
    return (uint32_t)(word >> shift) & ((1u << bits) - 1);
}

/* One more than the unit in which the list's first slot begins; 0: the list is empty. */
static inline uint32_t remote_head(uint64_t word)
{
    return remote_field(word, 0, REMOTE_HEAD_BITS);
}

static inline uint32_t remote_count(uint64_t word)
{
    return remote_field(word, REMOTE_COUNT_SHIFT, REMOTE_COUNT_BITS);
}

static inline uint32_t remote_tail(uint64_t word)
{
    return remote_field(word, REMOTE_TAIL_SHIFT, REMOTE_TAIL_BITS);
}

static inline unsigned remote_thin(uint64_t word)
{
    return remote_field(word, REMOTE_THIN_SHIFT, REMOTE_THIN_BITS);
}

static inline enum remote_state remote_state(uint64_t word)
{
    uint64_t state = word >> REMOTE_STATE_SHIFT;
    return state < REMOTE_WOKEN ? (enum remote_state)state : REMOTE_WOKEN;
}

static inline uint32_t slab_remote_count(const struct granule *slab)
{
    return remote_count(atomic_load_explicit(&slab->remote, memory_order_relaxed));
}

/* The mark of slabs whose thread has gone, kept whole for the next one. No thread
 * pointer is odd. */
#define OWNER_DORMANT ((uintptr_t)1)

/* Added to a thread pointer: its slabs are not the doors' business. */
#define OWNER_GUARDED ((uintptr_t)2)

/* Gives slots that are in use to their slab, whoever has it. */
HMM_HIDDEN enum remote_event hmm_remote_push(struct granule *slab, struct slot_chain chain);

/* fork(), in the child: what a push of a thread that has vanished asked for, and did not get. Of a
 * slab that is asleep or woken. */
HMM_HIDDEN enum remote_event hmm_remote_settle(struct granule *slab);

/* The owner takes what others freed onto the slab's own list. Of one that has been thinned pages
 * are away. */
HMM_HIDDEN void hmm_remote_collect(struct granule *slab);

/* The owner of a full slab, which is on no list any more, lets it go. false: enough has come back
 * meanwhile; the slab is still the caller's, its slots are on its free list or on pages that are
 * away, and it counts as partial. */
HMM_HIDDEN bool hmm_remote_sleep(struct granule *slab);

/* The owner of a partial slab, which is on no list any more, lets everybody have it. So many of its
 * free slots are loose. */
HMM_HIDDEN void hmm_remote_publish(struct granule *slab, uint32_t loose_slots);

/* Whether a quarter of the slab at most is in use, by slots of which few lie on a page: most of its
 * pages are likely to be free, and it does not take long to see which. For its owner, or under the
 * lock of its list. */
static inline bool slab_is_sparse(const struct granule *slab)
{
    enum { SPARSE_SHARE = 4, SPARSE_SLOT_BYTES_MIN = 128 };
    return slab->slot_bytes >= SPARSE_SLOT_BYTES_MIN &&
           (slab->need - slab_remote_count(slab)) * slab->slot_bytes <=
               GRANULE_BYTES / SPARSE_SHARE;
}

/* Gives free pages of a sparse woken slab of the class back of which something is loose. false:
 * there is none at the front of the list. No lock may be held. */
HMM_HIDDEN bool hmm_remote_purge_sparse(unsigned size_class);

/* Gives what exceeds the bound back, as far as woken slabs have it: so many slabs at most, those of
 * the class first. No lock may be held. */
HMM_HIDDEN void hmm_remote_purge(unsigned size_class, int looks_max);

/* Gives the free pages of slabs that nobody owns back, however few, until it is so much. How many
 * bytes went. No lock may be held. */
HMM_HIDDEN HMM_COLD size_t hmm_remote_trim(size_t budget_bytes);

/* A woken slab of the class, the caller's now, with its free slots on its free list. NULL: none. */
HMM_HIDDEN struct granule *hmm_remote_adopt(unsigned size_class, uintptr_t owner);

/* Whether the word says that somebody has the slab to himself. */
static inline bool slab_is_to_itself(const struct granule *slab)
{
    uint64_t word = atomic_load_explicit(&slab->remote, memory_order_relaxed);
    return remote_state(word) == REMOTE_OWNED;
}

/* fork(): the classes' locks. */
HMM_HIDDEN void hmm_remote_lock_all(void);
HMM_HIDDEN void hmm_remote_unlock_all(void);

/* The first invariant that does not hold for woken slabs; NULL: all do. No other thread may run. */
HMM_HIDDEN const char *hmm_remote_audit(void);

#endif
