/*
 * pending.pml - the stack of pending frees of a shard: P1-P3 of shard.c.
 *
 * Who frees takes the lock if nobody has it, else pushes and tries once more. Whoever releases the lock
 * looks at the stack once more. An allocating thread waits for the lock; a purging one takes it twice,
 * without a look, and looks at the end. Of the stack only the length is kept. At the end nothing may be
 * pending: P3. All steps are sequentially consistent, as they are in C.
 *
 * -DMUTANT=n breaks the protocol (run.sh names the ways).
 */
#ifndef MUTANT
#define MUTANT 0
#endif

#define FREERS 3
#define FREES 1 /* of each */

bit lock;
byte pending;
byte freed;
byte running = FREERS + 2;

inline acquire() { atomic { !lock -> lock = 1 } }

inline try(has)
{
    atomic {
        if
        :: !lock -> lock = 1; has = 1
        :: else -> has = 0
        fi
    }
}

/* hmm_lock_release */
inline release() { atomic { assert(lock); lock = 0 } }

/* pending_take, and a free for each; the steps of a free are the lock's holder's. */
inline drain()
{
    if
    :: pending != 0 ->
        atomic { taken = pending; pending = 0 }
        atomic { assert(lock); freed = freed + taken; taken = 0 }
    :: else
    fi
}

/* shard_leave */
inline leave()
{
    do
    :: drain();
       release();
#if MUTANT == 2
       break
#else
       if
       :: pending != 0 -> try(has)
       :: else -> has = 0
       fi;
       if
       :: has
       :: else -> break
       fi
#endif
    od;
    has = 0
}

/* shard_leave_shelf: the short way looks only after the release */
inline leave_shelf()
{
    release();
    if
    :: pending != 0 -> try(has)
    :: else -> has = 0
    fi;
    if
    :: has -> leave()
    :: else
    fi
}

/* hmm_medium_free */
proctype Freer()
{
    byte taken, frees;
    bit has;
    do
    :: frees < FREES ->
        frees++;
        try(has);
        if
        :: has ->
            freed++;
            if
            :: leave()
            :: leave_shelf()
            fi
        :: else ->
            pending++; /* pending_push */
#if MUTANT != 1
            try(has);
            if
            :: has -> leave()
            :: else
            fi
#endif
        fi
    :: else -> break
    od;
    running--
}

/* shard_allocate */
proctype Allocator()
{
    byte taken;
    bit has;
    acquire();
    drain();
    leave();
    running--
}

/* shard_purge_excess */
proctype Purger()
{
    byte taken;
    bit has;
    acquire();
    release();
    acquire();
    release();
#if MUTANT != 3
    if
    :: pending != 0 -> try(has)
    :: else
    fi;
    if
    :: has -> leave()
    :: else
    fi;
#endif
    running--
}

init
{
    atomic {
        run Freer(); run Freer(); run Freer();
        run Allocator(); run Purger()
    }
    running == 0;
    assert(pending == 0 && freed == FREERS * FREES && !lock)
}
