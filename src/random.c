/*
 * random.c - secrets from the kernel's gift to every process. See random.h.
 */
#include "random.h"
#include "os.h"

#include <stdatomic.h>
#include <sys/auxv.h>

/* The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): every bit of the result depends on
 * every bit of the state. */
static uint64_t random_mix(uint64_t state)
{
    state = (state ^ state >> 30) * 0xbf58476d1ce4e5b9u;
    state = (state ^ state >> 27) * 0x94d049bb133111ebu;
    return state ^ state >> 31;
}

static uint64_t fork_seed; /* written while there is one thread */

uint64_t hmm_random_secret(void)
{
    static atomic_uint_fast64_t calls;
    uint64_t seeds[2] = {0, 0};
    const void *gift = (const void *)getauxval(AT_RANDOM);
    if (gift != NULL) {
        memcpy(seeds, gift, sizeof seeds);
    }
    seeds[1] ^= fork_seed;
    uint64_t turn = atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed) + 1;
    return random_mix(random_mix(seeds[0] + turn * 0x9e3779b97f4a7c15u) ^ seeds[1]);
}

/* The kernel's own, where it may be asked; else the time, which differs at each fork. */
void hmm_random_renew(void)
{
    uint64_t fresh = 0;
    if (!hmm_os_random(&fresh, sizeof fresh)) {
        fresh = hmm_os_clock_ns();
    }
    fork_seed = random_mix(fork_seed ^ fresh);
}
