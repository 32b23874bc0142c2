/*
 * doctor.h - findings: what `hmm doctor` prints, one line each. For cmd_doctor.c and its two
 * examinations.
 */
#ifndef HMM_DOCTOR_H
#define HMM_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>

/* "  name   value" on standard output. */
__attribute__((format(printf, 2, 3))) void finding(const char *name, const char *format, ...);

/* Kept, and printed at the end. */
__attribute__((format(printf, 1, 2))) void advise(const char *format, ...);

/* The system: prints findings, and advises. */
void machine_examine(void);

enum program_verdict {
    PROGRAM_RUNS,    /* it allocates from HMM when it is started on it */
    PROGRAM_IS_OURS, /* HMM is linked in */
    PROGRAM_MIXED,   /* some calls go elsewhere */
    PROGRAM_DOES_NOT_RUN,
    PROGRAM_NOT_FOUND,
};

/* The program that a shell would run: prints findings, and advises. Nothing of it is executed. */
enum program_verdict program_examine(const char *name);

#endif
