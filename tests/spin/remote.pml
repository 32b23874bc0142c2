/*
 * remote.pml - the life of one slab between threads: remote.c, and what the files of threads do with it.
 *
 * The word is changed as a whole where the C code exchanges it. Threshold, owner, class, kind, locks and
 * the list of woken slabs are steps of their own, in the order of the C code. Adjacent accesses to the
 * descriptor are one step, because each asserts that the thread may touch it (R1), so nobody could come between. Of
 * a list of slots only the length is kept: an exchange may succeed here where another head would make it
 * fail in C. Each slot is a page of its own. Memory is sequentially consistent: the model says nothing about orders of loads and stores.
 *
 * An owner takes the granule, carves, allocates, frees, retires, lets go, adopts and ends. An adopter
 * takes woken slabs, or with -DTRIMMING sleepers, and lets them go, or gives pages of them back. Freers push slots singly or in batches, and do what a push asks
 * for, or thin the slab. All in one model has too many states: run.sh checks several configurations. -DMUTANT=n breaks the
 * protocol (run.sh names the ways).
 */
#ifndef MUTANT
#define MUTANT 0
#endif

#ifndef FREERS
#define FREERS 2
#endif
#ifndef CAPACITY
#define CAPACITY 3
#endif
#define WAKE (CAPACITY - 1)
#ifndef OWNERS
#define OWNERS 1
#endif
#ifndef ADOPTERS
#define ADOPTERS 0
#endif

/* -DRETAKE: the granule is taken again and again, for slabs of two classes. Else once. */
#ifdef RETAKE
#define MAY_TAKE is_in_arena
#else
#define MAY_TAKE (is_in_arena && !was_taken)
#endif

/* -DDORMANCY: threads that end leave their slab to the next one, else to everybody. */
#ifdef DORMANCY
#define CAN_REST true
#else
#define CAN_REST false
#endif

/* -DTHINNING_ALLOWED: there is too much. */
#ifdef THINNING_ALLOWED
#define CAN_THIN true
#else
#define CAN_THIN false
#endif

#define NOBODY 0
#define DORMANT 9 /* the mark in `owner`; as holder: parked */

mtype = { NONE, CURRENT, PARTIAL, FULL };  /* what the owner has the slab as */
mtype = { OWNED, ASLEEP, WOKEN };          /* the state in the word */

/* The word. */
mtype word_state = OWNED;
byte word_count; /* with those on thin pages */
byte word_thin;  /* so many pages */
bit word_class; /* of a woken slab */

/* The descriptor. */
byte owner;
byte free_count;
byte need;
byte carved;
byte away; /* pages */
byte threshold;
bit class;
bit is_slab;
bit is_in_arena = 1; /* free, to be taken */
bit was_taken;

/* The class's lock and list, and the dormant thread's slab. */
byte lock[2];
bit is_listed[2];
bit is_dormant;

/* Slots: in the owner's bin; in use by the program; in use, or on their way in a batch. */
byte bin;
byte used;
byte live;

/* Who may touch the descriptor, as R1-R4 and the arena say. 0: whoever has the class's lock if the slab is woken,
 * else nobody. */
byte holder;
bit holder_class;

bit is_stopping;
byte running;
byte owners;

/* R1 */
#define LINE_0(me) assert(holder == me || \
    (holder == NOBODY && word_state == WOKEN && lock[holder_class] == me))

inline acquire(which, me) { atomic { lock[which] == 0 -> lock[which] = me } }
inline release_lock(which, me) { atomic { assert(lock[which] == me); lock[which] = 0 } }

/* hmm_slab_release and hmm_arena_give */
inline slab_release(me)
{
    atomic { LINE_0(me); assert(is_slab && holder == me && !is_in_arena); /* once */
             assert(live == 0 && bin == 0); owner = NOBODY }              /* R7 */
    is_slab = 0;
    d_step { word_state = OWNED; word_count = 0; word_thin = 0; }
    d_step { holder = NOBODY; is_in_arena = 1; mine = NONE; free_count = 0; need = 0; carved = 0; away = 0; }
}

/* word_take */
#define TAKE taken = word_count; gone = word_thin; word_count = 0; word_thin = 0; word_state = OWNED

/* word_splice */
inline splice(me)
{
    if
    :: taken != 0 ->
        atomic { LINE_0(me); assert(need >= taken && taken >= gone);
                 free_count = free_count + taken - gone; need = need - taken; away = away + gone;
                 taken = 0; gone = 0 }
    :: else
    fi
}

/* hmm_remote_collect: the exchange is a loop in C that ends where this begins. */
inline collect(me)
{
    if
    :: word_count != 0 ->
        atomic { LINE_0(me); TAKE }
        splice(me)
    :: else
    fi
}

#ifndef STAGE
#define STAGE 1
#endif

/* set_stage */
inline set_stage(me, count)
{
    atomic { LINE_0(me); threshold = (count + STAGE < need -> count + STAGE : need) }
}

/* woken_look. Under the lock of `which`. */
inline look(me, which)
{
    is_complete = 0;
#if MUTANT == 5
    atomic { new_state = word_state; new_count = word_count }
    seen = (class == which);
#else
    atomic { new_state = word_state; new_count = word_count; seen = (word_class == which) }
#endif
    if
#if MUTANT == 2
    :: seen || !seen -> /* what the push saw is believed */
#else
    :: new_state == WOKEN && seen && new_count == need ->
#endif
        atomic { LINE_0(me); assert(is_listed[which] && class == which); is_listed[which] = 0 }
        d_step { TAKE; holder = me; }
        splice(me);
        threshold = WAKE;
        is_complete = 1
#if MUTANT == 6
    :: new_state == WOKEN && seen && new_count != need && new_count >= threshold ->
        threshold = need + 1 /* nobody is to look again */
#else
    :: new_state == WOKEN && seen && new_count != need && new_count >= threshold ->
        set_stage(me, new_count)
#endif
    :: else
    fi
    new_count = 0; new_state = OWNED; seen = 0
}

/* hmm_remote_publish */
inline publish(me)
{
    which = class;
    acquire(which, me);
    atomic { LINE_0(me); owner = NOBODY }
    set_stage(me, 0);
    atomic { LINE_0(me); assert(!is_listed[which]); is_listed[which] = 1 }
    d_step { word_state = WOKEN; holder = NOBODY; holder_class = which; word_class = which; }
    mine = NONE;
    is_complete = 0;
#if MUTANT != 3
    look(me, which);
#endif
    release_lock(which, me);
    which = 0;
    if
    :: is_complete -> is_complete = 0; slab_release(me)
    :: else
    fi
}

/* hmm_remote_sleep. mine == NONE: it sleeps. */
inline sleep(me)
{
    thr = need; /* wake - free_count */
    atomic { LINE_0(me); need = carved - (WAKE - thr); owner = NOBODY }
#if MUTANT != 4
    threshold = thr;
#endif
    do
    :: atomic { word_count < thr ->
                assert(holder == me); word_state = ASLEEP; holder = NOBODY; mine = NONE } ->
#if MUTANT == 4
        threshold = thr;
#endif
        break
    :: atomic { word_count >= thr -> skip } ->
        threshold = WAKE;
        atomic { LINE_0(me); owner = me }
        mine = PARTIAL;
        collect(me);
        break
    od;
    thr = 0
}

/* keep_partial */
inline keep_partial(me)
{
    if
    :: need == 0 -> slab_release(me)
    :: else -> mine = PARTIAL
    fi
}

/* disown */
inline disown(me)
{
    collect(me);
    if
    :: need == 0 -> slab_release(me)
    :: else ->
        if
        :: free_count == 0 && carved == CAPACITY && away == 0 ->
            atomic { LINE_0(me); need = WAKE }
            mine = FULL;
            sleep(me)
        :: else
        fi;
        if
        :: mine != NONE -> publish(me)
        :: else
        fi
    fi
}

/* remote_claim and adopt_claimed; a thread that has ended publishes. */
inline claim(me)
{
    do
    :: new_state == ASLEEP && new_count >= threshold ->
        if
        :: atomic { word_state == new_state && word_count == new_count ->
                    assert(holder == NOBODY); holder = me; TAKE } ->
            mine = PARTIAL;
            splice(me);
            threshold = WAKE;
            if
            :: need == 0 -> slab_release(me)
            :: else ->
                if
                :: atomic { LINE_0(me); owner = me }
                :: publish(me)
                fi
            fi;
            break
        :: atomic { !(word_state == new_state && word_count == new_count) ->
                    new_state = word_state; new_count = word_count }
        fi
    :: !(new_state == ASLEEP && new_count >= threshold) -> break
    od;
    new_count = 0; new_state = OWNED
}

inline woken_respond(me)
{
    new_count = 0; new_state = OWNED;
    which = class;
    acquire(which, me);
    look(me, which);
    release_lock(which, me);
    which = 0;
    if
    :: is_complete -> is_complete = 0; slab_release(me)
    :: else
    fi
}

inline put_back(me)
{
    atomic { LINE_0(me); free_count = free_count + bin; need = need - bin; bin = 0 }
}

inline break_up_dormant(me)
{
    if
    :: atomic { is_dormant -> is_dormant = 0; assert(holder == DORMANT); holder = me; mine = PARTIAL }
        put_back(me); disown(me)
    :: atomic { !is_dormant -> skip }
    fi
}

/* push_thinning: any of the slots may be alone on their pages, and the system may refuse. Those that were
 * in the word are in use meanwhile. */
inline thin(me)
{
    which = class;
    acquire(which, me);
    if
    :: atomic { word_state == OWNED ->
                assert(is_slab && live >= batch);
                batch = batch + word_count; gone = word_thin;
#if MUTANT != 7
                live = live + word_count; word_count = 0;
#endif
                word_thin = 0 }
    :: atomic { word_state != OWNED -> skip }
    fi;
    do
    :: gone < batch -> gone++;
        atomic { assert(is_slab && !is_in_arena && live >= batch) } /* the memory goes */
    :: break
    od;
    atomic { assert(is_slab && live >= batch);
#if MUTANT == 8
             word_count = word_count + batch - gone;
#else
             word_count = word_count + batch;
#endif
             word_thin = word_thin + gone; new_state = word_state; new_count = word_count;
             live = live - batch; batch = 0; gone = 0 }
    release_lock(which, me);
    which = 0
}

/* hmm_remote_push of `batch` */
inline push(me)
{
#if MUTANT == 1
    thr = threshold;
#endif
    atomic { new_state = word_state; new_count = word_count }
    do
    :: CAN_THIN && new_state == OWNED && owner != DORMANT -> thin(me); break
    :: atomic { word_state == new_state && word_count == new_count ->
                assert(is_slab && live >= batch);
                word_count = word_count + batch; new_count = word_count;
                live = live - batch; batch = 0 } -> break
    :: atomic { !(word_state == new_state && word_count == new_count) ->
                new_state = word_state; new_count = word_count }
    od;
#if MUTANT != 1
    thr = threshold;
#endif
    if
    :: new_count < thr -> thr = 0; new_count = 0; new_state = OWNED
    :: else ->
        thr = 0;
        if
        :: new_state == ASLEEP -> claim(me)
        :: new_state == WOKEN -> woken_respond(me)
        :: new_state == OWNED && owner == DORMANT ->
            new_count = 0; break_up_dormant(me)
        :: else -> new_count = 0
        fi
    fi
}

/* The program frees slots that the thread does not own. */
inline some_used()
{
    if
    :: atomic { used >= 1 -> used--; batch = 1 }
    :: atomic { used >= 2 -> used = used - 2; batch = 2 }
    fi
}

/* free_fast and hmm_thread_slab_event */
inline free_own(me)
{
    atomic { used > 0 -> used-- }
    atomic { LINE_0(me); assert(owner == me && need > 0); free_count = free_count + 1;
             live = live - 1; need = need - 1 }
    if
    :: need == 0 && mine == FULL ->
        atomic { LINE_0(me); need = CAPACITY - WAKE }
        keep_partial(me)
    :: need == 0 && mine == PARTIAL -> slab_release(me)
    :: else
    fi
}

/* use: a slab becomes current, and its free slots the bin. */
inline use(me)
{
    mine = CURRENT;
    if
    :: free_count != 0 ->
        atomic { LINE_0(me); bin = free_count; free_count = 0; need = carved - away }
    :: else
    fi
}

/* hmm_slab_carve: one slot first, and then the rest; or a page that was away. */
inline carve(me)
{
    if
    :: atomic { carved < CAPACITY -> LINE_0(me); bin = (carved == 0 -> 1 : CAPACITY - 1);
                carved = carved + bin; need = need + bin }
    :: atomic { carved == CAPACITY -> LINE_0(me); assert(away != 0);
                away--; bin = 1; need = need + 1 }
    fi
}

inline slab_create(me, its_class)
{
    atomic { is_in_arena -> assert(holder == NOBODY && live == 0 && bin == 0);
             is_in_arena = 0; was_taken = 1; holder = me; mine = CURRENT }
    class = its_class;
    d_step { word_state = OWNED; word_count = 0; word_thin = 0; }
    threshold = WAKE;
    is_slab = 1;
    owner = me;
    carve(me)
}

/* hmm_thread_refill of an empty bin, as far as the current slab goes. */
inline refill(me)
{
    collect(me);
    if
    :: free_count != 0 -> use(me)
    :: free_count == 0 && (carved < CAPACITY || away != 0) ->
        if
        :: carve(me)
        :: keep_partial(me) /* another slab had touched memory: retire_current */
        fi
    :: else ->
        atomic { LINE_0(me); need = WAKE }
        mine = FULL
    fi
}

inline let_go_full(me)
{
    sleep(me);
    if
    :: mine == PARTIAL -> keep_partial(me)
    :: else
    fi
}

/* wake_full, refill_from_full */
inline wake_full(me)
{
    atomic { LINE_0(me); need = need + CAPACITY - WAKE }
    collect(me);
    keep_partial(me)
}

/* thread_end, of the class. What is in the bin may stay there, and is put back when the slab goes on. */
inline end(me)
{
    if
    :: mine == CURRENT ->
        if
        :: put_back(me)
        :: skip
        fi;
        collect(me);
        if
        :: need == 0 -> slab_release(me)
        :: else
        fi
    :: mine == FULL -> let_go_full(me)
    :: else
    fi;
    if
    :: mine != NONE ->
        atomic { LINE_0(me); owner = DORMANT }
        if
        :: atomic { CAN_REST -> holder = DORMANT; is_dormant = 1; mine = NONE }
        :: put_back(me); disown(me) /* there are enough dormant threads */
        fi
    :: else
    fi
}

/* hmm_remote_adopt, refill_from_woken */
inline adopt(me, its_class)
{
    acquire(its_class, me);
    if
    :: is_listed[its_class] ->
        atomic { LINE_0(me); assert(word_state == WOKEN && class == its_class);
                 is_listed[its_class] = 0 }
        atomic { TAKE; holder = me }
        splice(me);
        threshold = WAKE;
        atomic { LINE_0(me); owner = me }
        mine = PARTIAL
    :: else
    fi;
    release_lock(its_class, me);
    if
    :: mine == PARTIAL && free_count != 0 -> use(me)
    :: else
    fi
}

/* purge_woken: as adopt, but nobody's name is on the slab, and it is let go at once. */
inline purge(me, its_class)
{
    acquire(its_class, me);
    if
    :: is_listed[its_class] ->
        atomic { LINE_0(me); assert(word_state == WOKEN && class == its_class);
                 is_listed[its_class] = 0 }
        atomic { TAKE; holder = me }
        splice(me);
        threshold = WAKE;
        mine = PARTIAL
    :: else
    fi;
    release_lock(its_class, me);
    if
    :: mine == PARTIAL ->
        if
        :: need == 0 -> slab_release(me)
        :: else -> publish(me)
        fi
    :: else
    fi
}

/* trim_sleepers: a sleeper of which anything is free. If pages go it is woken, else it may sleep again. */
inline trim(me)
{
    atomic { new_state = word_state; new_count = word_count }
    do
    :: new_state == ASLEEP && (new_count != 0 || threshold < WAKE) ->
        if
        :: atomic { word_state == new_state && word_count == new_count ->
                    assert(holder == NOBODY); holder = me; TAKE } ->
            mine = PARTIAL;
            splice(me);
            threshold = WAKE;
            if
            :: need == 0 -> slab_release(me)
            :: need != 0 -> publish(me)
            :: need > CAPACITY - WAKE && away == 0 ->
                atomic { LINE_0(me); need = need - (CAPACITY - WAKE) }
                sleep(me);
                if
                :: mine == NONE
                :: mine != NONE && need == 0 -> slab_release(me)
                :: mine != NONE && need != 0 -> publish(me)
                fi
            fi;
            break
        :: atomic { !(word_state == new_state && word_count == new_count) ->
                    new_state = word_state; new_count = word_count }
        fi
    :: !(new_state == ASLEEP && (new_count != 0 || threshold < WAKE)) -> break
    od;
    new_count = 0; new_state = OWNED
}

/* refill_from_dormant, or hmm_thread_claim_slabs: then the bin is the new thread's. */
inline inherit(me)
{
    atomic { is_dormant -> is_dormant = 0; holder = me; mine = PARTIAL }
    atomic { LINE_0(me); owner = me }
    if
    :: bin != 0 -> mine = CURRENT
    :: put_back(me); collect(me); keep_partial(me)
    fi
}

/* What a thread does with a slab that it owns. */
#define OWNER_STEPS(me) \
    :: atomic { mine == CURRENT && bin != 0 && !is_stopping -> bin--; used++; live++ } \
    :: mine == CURRENT && bin == 0 && !is_stopping -> refill(me) \
    :: mine == FULL -> let_go_full(me) \
    :: mine == FULL && word_count != 0 -> wake_full(me) \
    :: mine == PARTIAL -> disown(me) \
    :: mine == PARTIAL && !is_stopping -> collect(me); keep_partial(me); \
        if :: mine == PARTIAL && free_count != 0 -> use(me) :: else fi

#ifdef RETAKE
#define ADOPTER_STEPS(me) \
    :: mine == NONE && is_listed[0] && !is_stopping -> adopt(me, 0) /* looked at without the lock */ \
    :: mine == NONE && is_listed[1] && !is_stopping -> adopt(me, 1)
#elif defined TRIMMING
#define ADOPTER_STEPS(me) \
    :: mine == NONE && word_state == ASLEEP && !is_stopping -> trim(me) \
    :: mine == NONE && is_listed[0] && !is_stopping -> purge(me, 0)
#else
#define ADOPTER_STEPS(me) \
    :: mine == NONE && is_listed[0] && !is_stopping -> adopt(me, 0) \
    :: mine == NONE && is_listed[0] && !is_stopping -> purge(me, 0)
#endif

#define LOCALS \
    mtype mine = NONE; mtype new_state = OWNED; \
    byte new_count; byte taken; byte gone; byte batch; byte thr; bit which; bit seen; bit is_complete

proctype Owner(byte me)
{
    LOCALS;
    do
    :: mine == NONE && MAY_TAKE && !is_stopping ->
        if
        :: slab_create(me, 0)
#ifdef RETAKE
        :: slab_create(me, 1)
#endif
        :: atomic { !is_in_arena -> skip }
        fi
    OWNER_STEPS(me)
    :: mine != NONE && used != 0 ->
        if
        :: free_own(me)
        :: atomic { used == 0 -> skip }
        fi
    :: mine != NONE -> end(me)
    :: mine == NONE && is_dormant && !is_stopping ->
        if
        :: inherit(me)
        :: atomic { !is_dormant -> skip }
        fi
    ADOPTER_STEPS(me)
    :: mine == NONE && is_stopping -> break
    od;
    atomic { owners--; running-- }
}

proctype Adopter(byte me)
{
    LOCALS;
    do
    ADOPTER_STEPS(me)
    :: mine == CURRENT -> end(me)
    :: mine == PARTIAL -> disown(me)
    :: mine == NONE && is_stopping -> break
    od;
    atomic { owners--; running-- }
}

proctype Freer(byte me)
{
    LOCALS;
    do
    :: mine == NONE && used != 0 ->
        if
        :: some_used(); push(me)
        :: atomic { used == 0 -> skip }
        fi
    :: mine == PARTIAL -> disown(me)
    :: mine == NONE && owners == 0 && used == 0 -> break
    od;
    running--
}

init
{
    atomic {
        owners = OWNERS + ADOPTERS;
        running = owners + FREERS;
        run Owner(1);
#if OWNERS == 2
        run Owner(2);
#endif
#if ADOPTERS == 1
        run Adopter(3);
#endif
        run Freer(4);
#if FREERS == 2
        run Freer(5)
#endif
    }
    is_stopping = 1;
    running == 0;
    /* All slots were freed, so nobody's slab is complete, and gone, but for what a dormant thread keeps. */
    assert(used == 0 && live == 0);
    assert(is_in_arena || is_dormant);
    assert(!is_listed[0] && !is_listed[1] && lock[0] == 0 && lock[1] == 0)
}
