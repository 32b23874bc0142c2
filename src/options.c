/*
 * options.c - the table of options, and reading it. See options.h.
 */
#include "options.h"
#include "os.h"
#include "text.h"

#include <signal.h>
#include <unistd.h>

/* Absent in most programs: then its address is NULL. */
extern const char *HmmOptions __attribute__((weak));

/* The order of words is that of the enums. */
static const struct option_row rows[] = {
    {"engine", "fast|block", "fast",
     "what malloc runs on: fast = slabs and threads' bins; block = boundary tags, coalescing"},
    {"fit", "good|first|next|best", "good", "block: which free block serves a request"},
    {"region", "reserve|sbrk", "reserve",
     "where the heap lies: a reserved range, or the program break, on which only the block engine "
     "runs (libhmm-array.so: its array, block engine)"},
    {"limit", "BYTES", "0",
     "the most memory that malloc may use, in whole pages, with K, M, G or T; 0: no limit. Below "
     "32M the block engine runs"},
    {"purge", "live|peak|BYTES", "live",
     "fast: how much free memory is kept: a share of what is live, up to the peak of it, or BYTES"},
    {"hardened", "0|1|2|3", HMM_SECURE ? "2" : "0",
     "what is added to each block. 1: a seal, and nothing is left in free blocks; 2: and "
     "quarantine, "
     "random order, fences; 3: each block ends at a fence. Block heaps: 1 and 2, without fences"},
    {"sites", "0|1", "0",
     "hardened: where each block was allocated and freed, for messages and hmm leaks"},
    {"claims", "0|1", "1",
     "hardened: 0: what free_sized and delete say of a block is not looked at, nor whether malloc "
     "or new made it: for programs that are wrong there"},
    {"leaks", "none|exit|DESCRIPTOR", "none",
     "exit: blocks that were never freed, by where they were allocated, on standard error at exit; "
     "DESCRIPTOR: to that open file. Sets hardened=1 at least, and sites"},
    {"stats", "none|exit", "none", "exit: the numbers of the heap on standard error at exit"},
    {"stats_signal", "none|SIGNAL", "none",
     "a signal, by name or number, at which the numbers of the heap come on standard error"},
    {"backtrace", "0|1", "0", "1: after the line about a crime, the call stack"},
    {"scavenger", "0|1", "0",
     "fast: 1: a thread of ours gives back what an idle process keeps; it is there from the "
     "start: unshare(CLONE_NEWUSER) fails, and so does setuid after a capset"},
};

enum option_index {
    OPTION_ENGINE,
    OPTION_FIT,
    OPTION_REGION,
    OPTION_LIMIT,
    OPTION_PURGE,
    OPTION_HARDENED,
    OPTION_SITES,
    OPTION_CLAIMS,
    OPTION_LEAKS,
    OPTION_STATS,
    OPTION_STATS_SIGNAL,
    OPTION_BACKTRACE,
    OPTION_SCAVENGER,
    OPTION_COUNT
};

static_assert(sizeof rows / sizeof rows[0] == OPTION_COUNT, "a row for each option");

/* A piece of the text that is being read. */
struct span {
    const char *start;
    size_t length;
};

const struct option_row *hmm_option_rows(size_t *row_count)
{
    *row_count = OPTION_COUNT;
    return rows;
}

static bool span_is(struct span span, const char *word)
{
    return strlen(word) == span.length && memcmp(word, span.start, span.length) == 0;
}

/* The piece up to `separator`, which is skipped. */
static struct span span_cut(struct span *rest, char separator)
{
    const char *found = memchr(rest->start, separator, rest->length);
    struct span piece = {rest->start, found != NULL ? (size_t)(found - rest->start) : rest->length};
    size_t skipped = piece.length + (found != NULL ? 1 : 0);
    rest->start += skipped;
    rest->length -= skipped;
    return piece;
}

/* The index of the word among `values`; false: none of them. */
static bool words_find(const char *values, struct span word, size_t *index)
{
    struct span rest = {values, strlen(values)};
    for (*index = 0; rest.length > 0; *index += 1) {
        struct span value = span_cut(&rest, '|');
        if (value.length == word.length && memcmp(value.start, word.start, word.length) == 0) {
            return true;
        }
    }
    return false;
}

static unsigned unit_shift(char unit)
{
    switch (unit) {
    case 'k':
    case 'K':
        return 10;
    case 'm':
    case 'M':
        return 20;
    case 'g':
    case 'G':
        return 30;
    case 't':
    case 'T':
        return 40;
    default:
        return 0;
    }
}

/* How many decimal digits it begins with; 0: none, or a number that is too large. */
static size_t digits_parse(struct span text, size_t *number)
{
    size_t value = 0;
    size_t digits = 0;
    while (digits < text.length && text.start[digits] >= '0' && text.start[digits] <= '9') {
        if (!size_multiply(value, 10, &value) ||
            !size_add(value, (size_t)(text.start[digits] - '0'), &value)) {
            return 0;
        }
        digits++;
    }
    *number = value;
    return digits;
}

/* Digits, and nothing else. */
static bool number_parse(struct span text, size_t *number)
{
    size_t digits = digits_parse(text, number);
    return digits != 0 && digits == text.length;
}

/* Digits, and at most one unit. */
static bool bytes_parse(struct span text, size_t *bytes)
{
    size_t value = 0;
    size_t digits = digits_parse(text, &value);
    if (digits == 0 || text.length - digits > 1) {
        return false;
    }
    if (digits < text.length) {
        unsigned shift = unit_shift(text.start[digits]);
        if (shift == 0 || shift >= sizeof value * CHAR_BIT ||
            !size_multiply(value, (size_t)1 << shift, &value)) {
            return false;
        }
    }
    *bytes = value;
    return true;
}

/* The last of the system's own. Those from SIGRTMIN on have no names. */
enum { SIGNAL_NAMED_MAX = 31 };

/* Signals that a program can handle, as they are called. */
static const struct {
    char name[7];
    unsigned char number;
} signals[] = {
    {"HUP", SIGHUP},     {"INT", SIGINT},   {"QUIT", SIGQUIT},     {"ILL", SIGILL},
    {"TRAP", SIGTRAP},   {"ABRT", SIGABRT}, {"BUS", SIGBUS},       {"FPE", SIGFPE},
    {"USR1", SIGUSR1},   {"SEGV", SIGSEGV}, {"USR2", SIGUSR2},     {"PIPE", SIGPIPE},
    {"ALRM", SIGALRM},   {"TERM", SIGTERM}, {"CHLD", SIGCHLD},     {"CONT", SIGCONT},
    {"TSTP", SIGTSTP},   {"TTIN", SIGTTIN}, {"TTOU", SIGTTOU},     {"URG", SIGURG},
    {"XCPU", SIGXCPU},   {"XFSZ", SIGXFSZ}, {"VTALRM", SIGVTALRM}, {"PROF", SIGPROF},
    {"WINCH", SIGWINCH}, {"POLL", SIGPOLL}, {"PWR", SIGPWR},       {"SYS", SIGSYS},
};

static int signal_named(struct span name)
{
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        if (span_is(name, signals[i].name)) {
            return signals[i].number;
        }
    }
    return 0;
}

/* Not those that nobody can handle, nor those that the C library keeps for itself. */
static bool is_for_programs(int number)
{
    return number > 0 && number < NSIG && number != SIGKILL && number != SIGSTOP &&
           (number <= SIGNAL_NAMED_MAX || number >= SIGRTMIN);
}

/* USR1, SIGUSR1 or 10. */
static bool signal_parse(struct span text, int *number)
{
    static const char prefix[] = "SIG";
    size_t value = 0;
    struct span name = text;
    if (text.length > sizeof prefix - 1 && memcmp(text.start, prefix, sizeof prefix - 1) == 0) {
        name.start += sizeof prefix - 1;
        name.length -= sizeof prefix - 1;
    }
    int found = number_parse(text, &value) ? (int)size_min(value, NSIG) : signal_named(name);
    bool is_right = is_for_programs(found);
    *number = is_right ? found : *number;
    return is_right;
}

/* The number of a descriptor, but for standard input. */
static bool file_parse(struct span text, int *file)
{
    size_t value = 0;
    if (!number_parse(text, &value) || value == 0 || value > INT_MAX) {
        return false;
    }
    *file = (int)value;
    return true;
}

/* A word of the table that stands for values. */
static bool is_placeholder(struct span word)
{
    return span_is(word, "BYTES") || span_is(word, "SIGNAL") || span_is(word, "DESCRIPTOR");
}

/* A word of the row, by its index. There is no default: compilers complain about a row that is
 * missing. */
static void word_set(struct options *options, enum option_index row, size_t word)
{
    switch (row) {
    case OPTION_ENGINE:
        options->engine = (enum option_engine)word;
        break;
    case OPTION_FIT:
        options->fit = (HmmFit)word;
        break;
    case OPTION_REGION:
        options->region = (enum option_region)word;
        break;
    case OPTION_PURGE:
        options->purge = (enum purge_mode)word;
        break;
    case OPTION_HARDENED:
        options->hardened = (unsigned)word;
        break;
    case OPTION_SITES:
        options->has_sites = word != 0;
        break;
    case OPTION_CLAIMS:
        options->ignores_claims = word == 0;
        break;
    case OPTION_LEAKS:
        options->leaks_file = word != 0 ? STDERR_FILENO : 0;
        break;
    case OPTION_STATS:
        options->has_stats_at_exit = word != 0;
        break;
    case OPTION_STATS_SIGNAL:
        options->stats_signal = 0;
        break;
    case OPTION_BACKTRACE:
        options->has_backtrace = word != 0;
        break;
    case OPTION_SCAVENGER:
        options->has_scavenger = word != 0;
        break;
    case OPTION_LIMIT: /* has no words */
    case OPTION_COUNT:
        break;
    }
}

/* A value that is no word. */
static bool value_set(struct options *options, enum option_index row, struct span value)
{
    switch (row) {
    case OPTION_LIMIT:
        return bytes_parse(value, &options->limit_bytes);
    case OPTION_PURGE:
        if (!bytes_parse(value, &options->purge_bytes)) {
            return false;
        }
        options->purge = PURGE_BYTES;
        return true;
    case OPTION_STATS_SIGNAL:
        return signal_parse(value, &options->stats_signal);
    case OPTION_LEAKS:
        return file_parse(value, &options->leaks_file);
    default:
        return false;
    }
}

/* false: the value is none of the row's, and nothing has changed. */
static bool option_set(struct options *options, size_t row, struct span value)
{
    size_t word = 0;
    if (!words_find(rows[row].values, value, &word) || is_placeholder(value)) {
        return value_set(options, (enum option_index)row, value);
    }
    word_set(options, (enum option_index)row, word);
    return true;
}

bool hmm_option_takes(size_t row, const char *value)
{
    struct options options = {0};
    return option_set(&options, row, (struct span){value, strlen(value)});
}

/* Everything that a terminal would obey becomes a question mark. */
static void complain(const char *source, struct span item, const char *why, const char *allowed)
{
    struct text line;
    hmm_text_clear(&line);
    hmm_text_add(&line, "hmm: ");
    hmm_text_add(&line, source);
    hmm_text_add(&line, ": ");
    enum { SHOWN_MAX = 60 };
    for (size_t i = 0; i < item.length && i < SHOWN_MAX; i++) {
        unsigned char letter = (unsigned char)item.start[i];
        hmm_text_add_bytes(&line, letter >= ' ' && letter < 127 ? item.start + i : "?", 1);
    }
    hmm_text_add(&line, item.length > SHOWN_MAX ? "...: " : ": ");
    hmm_text_add(&line, why);
    hmm_text_add(&line, allowed);
    hmm_text_add(&line, "\n");
    hmm_os_write_error(line.bytes, line.length);
}

static void item_parse(struct options *options, const char *source, struct span item)
{
    struct span value = item;
    struct span name = span_cut(&value, '=');
    size_t row = 0;
    while (row < OPTION_COUNT && !span_is(name, rows[row].name)) {
        row++;
    }
    if (row == OPTION_COUNT) {
        complain(source, item, "unknown option, ignored", "");
    } else if (!option_set(options, row, value)) {
        complain(source, item, "ignored, wants ", rows[row].values);
    }
}

static void text_parse(struct options *options, const char *source, const char *text)
{
    struct span rest = {text, text != NULL ? strlen(text) : 0};
    while (rest.length > 0) {
        struct span item = span_cut(&rest, ',');
        if (item.length > 0) {
            item_parse(options, source, item);
        }
    }
}

void hmm_options_parse(struct options *options, const char *program, const char *environment)
{
    *options = (struct options){0};
    for (size_t row = 0; row < OPTION_COUNT; row++) {
        struct span preset = {rows[row].preset, strlen(rows[row].preset)};
        (void)option_set(options, row, preset);
    }
    text_parse(options, "HmmOptions", program);
    text_parse(options, "HMM_OPTIONS", environment);
    if (options->leaks_file != 0) {
        options->has_sites = true;
        options->hardened = options->hardened != 0 ? options->hardened : 1;
    }
}

/* As getenv, which finds nothing before libc is initialised. */
static const char *environment_find(char *const *environment, const char *name)
{
    size_t length = strlen(name);
    for (; environment != NULL && *environment != NULL; environment++) {
        if (strncmp(*environment, name, length) == 0 && (*environment)[length] == '=') {
            return *environment + length + 1;
        }
    }
    return NULL;
}

static const char *program_options(void)
{
    return &HmmOptions != NULL ? HmmOptions : NULL;
}

static const char *environment_options(char *const *environment)
{
    return hmm_os_is_privileged() ? NULL : environment_find(environment, "HMM_OPTIONS");
}

bool hmm_options_are_given(char *const *environment)
{
    return program_options() != NULL || environment_options(environment) != NULL;
}

void hmm_options_load(struct options *options, char *const *environment)
{
    hmm_options_parse(options, program_options(), environment_options(environment));
}
