/*
 * scavenger.h - a thread of our own that gives back what an idle process keeps.
 *
 * Memory goes back as other memory is freed, so what regret keeps (purge.h) stays in a process that
 * makes no call any more. With scavenger=1 a thread gives it back as regret fades, within some
 * seconds. It is started when the library is, and in forked children. It sleeps until somebody who
 * frees meets more than the bound without regret, wakes once a second while there is regret, and
 * then sleeps again. It takes no signals.
 *
 * It ends when the thread ends that loaded the library, because a process whose first thread has
 * ended goes on until the last of the others ends.
 */
#ifndef HMM_SCAVENGER_H
#define HMM_SCAVENGER_H

#include "base.h"

/* Starts it; if that fails there is none. By the thread at whose end it ends. */
HMM_HIDDEN HMM_COLD void hmm_scavenger_start(void);

/* In a forked child, with no lock held, where one was started. */
extern HMM_HIDDEN bool hmm_scavenger_is_wanted;
HMM_HIDDEN HMM_COLD void hmm_scavenger_forked(void);

#endif
