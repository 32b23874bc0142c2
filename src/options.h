/*
 * options.h - the knobs: one table, read once.
 *
 * Defaults come from the table, then from the program's HmmOptions, then from the environment
 * variable HMM_OPTIONS, key by key. A set-uid program ignores the environment. What cannot be
 * understood is one line on standard error, and the value that stood before holds.
 */
#ifndef HMM_OPTIONS_H
#define HMM_OPTIONS_H

#include "base.h"
#include "hmm.h"
#include "purge.h"

enum option_engine { OPTION_ENGINE_FAST, OPTION_ENGINE_BLOCK };
enum option_region { OPTION_REGION_RESERVE, OPTION_REGION_SBRK };

struct options {
    enum option_engine engine;
    HmmFit fit;
    enum option_region region;
    size_t limit_bytes; /* of the process heap, 0: none */
    enum purge_mode purge;
    size_t purge_bytes; /* for PURGE_BYTES */
    unsigned hardened;  /* enum guard_level */
    bool has_sites;
    bool ignores_claims;
    bool has_stats_at_exit;
    int leaks_file;   /* where leaks are reported at exit, 0: nowhere */
    int stats_signal; /* that prints the numbers, 0: none */
    bool has_backtrace;
    bool has_scavenger;
};

/* One row of the table, for documentation. */
struct option_row {
    const char *name;
    const char *values; /* words and '|' between them; BYTES, SIGNAL, DESCRIPTOR stand for values */
    const char *preset;
    const char *help;
};

/* The table, and how many rows it has. */
HMM_HIDDEN const struct option_row *hmm_option_rows(size_t *row_count);

/* Whether a row of it takes the value. */
HMM_HIDDEN bool hmm_option_takes(size_t row, const char *value);

/* Presets, then `program`, then `environment`; both may be NULL. */
HMM_HIDDEN void hmm_options_parse(struct options *options, const char *program,
                                  const char *environment);

/* Whether anybody has said anything, so that loading could differ from the presets. */
HMM_HIDDEN bool hmm_options_are_given(char *const *environment);

/* hmm_options_parse with what this process has; `environment` as environ, which may be NULL. */
HMM_HIDDEN void hmm_options_load(struct options *options, char *const *environment);

#endif
