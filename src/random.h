/*
 * random.h - secrets for the checksums of tags.
 *
 * The kernel leaves 16 random bytes in the auxiliary vector of every process, so a secret costs no
 * system call and is there before main and inside any sandbox.
 */
#ifndef HMM_RANDOM_H
#define HMM_RANDOM_H

#include "base.h"

/* A number that differs from call to call and from process to process. Any thread. */
HMM_HIDDEN uint64_t hmm_random_secret(void);

/* fork(), in the child: secrets from now on are not those that the parent draws. */
HMM_HIDDEN void hmm_random_renew(void);

#endif
