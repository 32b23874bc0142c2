/*
 * run_options.c - the library's options on the command line. See run_options.h.
 */
#include "run_options.h"
#include "launch.h"
#include "options.h"

#include <string.h>

enum { NAME_BYTES_MAX = 32 };

/* What is switched on by its name alone. */
static bool is_switch(const struct option_row *row)
{
    return strcmp(row->values, "0|1") == 0 && strcmp(row->preset, "0") == 0;
}

/* Flags have dashes where keys have underlines. */
static const char *flag_name(size_t row, const char *key)
{
    static char names[COMMAND_OPTIONS_MAX][NAME_BYTES_MAX];
    char *name = names[row];
    for (size_t i = 0; key[i] != '\0' && i < NAME_BYTES_MAX - 1; i++) {
        name[i] = (char)(key[i] == '_' ? '-' : key[i]);
    }
    return name;
}

static bool is_among(const char *key, const char *const *keys)
{
    while (keys != NULL && *keys != NULL && strcmp(*keys, key) != 0) {
        keys++;
    }
    return keys != NULL && *keys != NULL;
}

void run_options_append(struct command_option options[COMMAND_OPTIONS_MAX + 1],
                        const char *const *keys_out)
{
    size_t row_count;
    const struct option_row *rows = hmm_option_rows(&row_count);
    size_t count = 0;
    while (options[count].name != NULL) {
        count++;
    }
    for (size_t row = 0; row < row_count && count < COMMAND_OPTIONS_MAX; row++) {
        if (!is_among(rows[row].name, keys_out)) {
            options[count++] = (struct command_option){
                .name = flag_name(row, rows[row].name),
                .value = is_switch(&rows[row]) ? NULL : rows[row].values,
                .help = rows[row].help,
            };
        }
    }
    options[count] = (struct command_option){0};
}

/* The library would only say so and go on as before, which in the case of `hardened`
 * nobody must overlook. */
static bool option_pass(const struct option_row *rows, size_t row, const char *flag,
                        const char *given)
{
    const char *value = is_switch(&rows[row]) ? "1" : given;
    if (!hmm_option_takes(row, value)) {
        command_error("--%s wants %s, not %s", flag, rows[row].values, value);
        return false;
    }
    library_option(rows[row].name, value);
    return true;
}

bool run_options_pass(const struct command_option *options, const struct command_line *line)
{
    size_t row_count;
    const struct option_row *rows = hmm_option_rows(&row_count);
    for (size_t i = 0; options[i].name != NULL; i++) {
        for (size_t row = 0; line->options[i] != NULL && row < row_count; row++) {
            if (strcmp(options[i].name, flag_name(row, rows[row].name)) == 0 &&
                !option_pass(rows, row, options[i].name, line->options[i])) {
                return false;
            }
        }
    }
    return true;
}
