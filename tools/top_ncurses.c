/*
 * top_ncurses.c - the screen of `hmm top`. See top.h.
 *
 *     name and process, engine                             interval, paused
 *     live 9.3 MiB in 120,000 blocks   bins ...   dirty ...   resident ...
 *      12.0 MiB |        ░░░░░                    memory: live below, resident above
 *               |   ▄▆████████
 *      1.2 M/s  | ▁▂▄▇█▇▄▂▁▁▁▁                    calls a second
 *     SLOT   IN USE   BYTES ...                   classes, or threads
 *     q quit  s sort ...
 */
#include "top.h"

#include <langinfo.h>
#include <locale.h>
#include <ncurses.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
    ROW_SUMMARY = 1,
    ROW_GRAPH = 3,
    GRAPH_ROWS_MAX = 8,
    GRAPH_ROWS_MIN = 3,
    GRAPH_SHARE = 4, /* of the screen's rows */
    RATE_ROWS = 2,
    COLUMNS_MIN = 50, /* less would break lines in two */
    ROWS_MIN = 10,
    AXIS_COLUMNS = 12,
    LEVEL_COUNT = 8,
    BAR_COLUMNS = 14,
    INTERVAL_FACTOR = 2,
    INTERVAL_MS_MIN = 50,
    INTERVAL_MS_MAX = 60 * 1000,
    MS_PER_SECOND = 1000,
    NS_PER_MS = 1000 * 1000,
    ENDING_MS_MAX = 2000,
    ENDING_STEP_MS = 10,
    COLOURS_MANY = 256,
    TEXT_MAX = 256,
};

enum pair { PAIR_LIVE = 1, PAIR_RESIDENT, PAIR_RATE, PAIR_FAINT, PAIR_WARNING };

enum screen_table { TABLE_CLASSES, TABLE_THREADS };

struct screen {
    struct reader *reader;
    struct top *top;
    int interval_ms;
    enum screen_table table;
    int scroll; /* rows of the table that are above the screen */
    bool is_paused;
    bool has_help;
    bool has_blocks; /* characters beyond ASCII */
    int errors;      /* a file that stands in for standard error, -1: none */
    int error_output;
};

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / ((double)NS_PER_MS * MS_PER_SECOND);
}

/* --------------------------------------------------------------------------------------- graphs */

/* A column's character where the value fills `eighths` of it. */
static const char *level_text(const struct screen *screen, int eighths)
{
    static const char *const levels[LEVEL_COUNT + 1] = {" ", "▁", "▂", "▃", "▄",
                                                        "▅", "▆", "▇", "█"};
    static const char *const plain[LEVEL_COUNT + 1] = {" ", " ", ".", ".", ":", ":", "|", "#", "#"};
    return (screen->has_blocks ? levels : plain)[eighths];
}

static int eighths_at(double value, double most, int rows, int row_from_below)
{
    double eighths = most > 0 ? value / most * rows * LEVEL_COUNT : 0;
    double here = eighths - (double)row_from_below * LEVEL_COUNT;
    return here <= 0 ? 0 : here >= LEVEL_COUNT ? LEVEL_COUNT : (int)(here + 0.5);
}

static size_t graph_width(const struct screen *screen)
{
    size_t width = COLS > AXIS_COLUMNS + 2 ? (size_t)(COLS - AXIS_COLUMNS - 2) : 0;
    return size_min(width, screen->top->history_count);
}

static void draw_axis(int row, const char *label)
{
    attron(COLOR_PAIR(PAIR_FAINT));
    mvprintw(row, 0, "%*s ", AXIS_COLUMNS - 1, label);
    attroff(COLOR_PAIR(PAIR_FAINT));
}

/* Live memory filled, resident memory in a lighter shade behind it. */
static void draw_memory(const struct screen *screen, int top_row, int rows)
{
    size_t width = graph_width(screen);
    double most = 1;
    for (size_t age = 0; age < width; age++) {
        const struct top_sample *sample = top_sample_at(screen->top, age);
        most = (double)size_max((size_t)most, size_max(sample->live_bytes, sample->resident_bytes));
    }
    char text[BYTES_TEXT_MAX];
    draw_axis(top_row, bytes_text(text, (size_t)most));
    draw_axis(top_row + rows - 1, "0");
    for (size_t age = 0; age < width; age++) {
        const struct top_sample *sample = top_sample_at(screen->top, age);
        int column = COLS - 2 - (int)age;
        for (int row = 0; row < rows; row++) {
            int live = eighths_at((double)sample->live_bytes, most, rows, row);
            int resident = eighths_at((double)sample->resident_bytes, most, rows, row);
            enum pair pair = live > 0 ? PAIR_LIVE : PAIR_RESIDENT;
            const char *shade = screen->has_blocks ? "░" : "-";
            attron(COLOR_PAIR(pair));
            mvaddstr(top_row + rows - 1 - row, column,
                     live > 0                      ? level_text(screen, live)
                     : resident >= LEVEL_COUNT / 2 ? shade
                                                   : " ");
            attroff(COLOR_PAIR(pair));
        }
    }
}

static void draw_rate(const struct screen *screen, int top_row)
{
    size_t width = graph_width(screen);
    double most = 1;
    for (size_t age = 0; age < width; age++) {
        double rate = top_sample_at(screen->top, age)->calls_per_second;
        most = rate > most ? rate : most;
    }
    char text[BYTES_TEXT_MAX];
    char label[BYTES_TEXT_MAX + 2];
    snprintf(label, sizeof label, "%s/s", count_text(text, most));
    draw_axis(top_row, label);
    draw_axis(top_row + RATE_ROWS - 1, "calls");
    attron(COLOR_PAIR(PAIR_RATE));
    for (size_t age = 0; age < width; age++) {
        double rate = top_sample_at(screen->top, age)->calls_per_second;
        for (int row = 0; row < RATE_ROWS; row++) {
            int eighths = eighths_at(rate, most, RATE_ROWS, row);
            mvaddstr(top_row + RATE_ROWS - 1 - row, COLS - 2 - (int)age,
                     level_text(screen, eighths));
        }
    }
    attroff(COLOR_PAIR(PAIR_RATE));
}

/* ----------------------------------------------------------------------------- lines and tables */

static void draw_title(const struct screen *screen)
{
    static const char *const engines[] = {"no heap yet", "fast engine", "block engine"};
    char text[TEXT_MAX];
    attron(A_BOLD);
    mvprintw(0, 0, "%s", reader_name(screen->reader));
    attroff(A_BOLD);
    printw("  %s", engines[screen->top->engine % 3]);
    snprintf(text, sizeof text, "%severy %.3g s", screen->is_paused ? "paused, " : "",
             (double)screen->interval_ms / MS_PER_SECOND);
    mvaddstr(0, COLS - (int)strlen(text) - 1, text);
}

/* Where there is room for it. */
static void draw_amount(const char *name, size_t bytes)
{
    char text[BYTES_TEXT_MAX];
    bytes_text(text, bytes);
    if (getcurx(stdscr) + (int)(strlen(name) + strlen(text)) + 1 >= COLS) {
        return;
    }
    attron(COLOR_PAIR(PAIR_FAINT));
    printw("%s ", name);
    attroff(COLOR_PAIR(PAIR_FAINT));
    printw("%s   ", text);
}

static void draw_summary(const struct screen *screen)
{
    const struct totals *totals = &screen->top->totals;
    char text[BYTES_TEXT_MAX];
    move(ROW_SUMMARY, 0);
    draw_amount("live", totals->live_bytes);
    printw("in %s blocks   ", count_text(text, (double)totals->live_count));
    draw_amount("resident", totals->resident_bytes);
    draw_amount("dirty", totals->dirty_bytes);
    draw_amount("free", totals->free_bytes);
    draw_amount("bins", totals->cached_bytes);
    if (screen->top->has_changed) {
        attron(COLOR_PAIR(PAIR_WARNING));
        mvaddstr(ROW_SUMMARY + 1, 0, "it changed while it was read");
        attroff(COLOR_PAIR(PAIR_WARNING));
    }
}

static void draw_bar(const struct screen *screen, size_t part, size_t whole)
{
    int eighths = whole > 0 ? (int)((double)part / (double)whole * BAR_COLUMNS * LEVEL_COUNT) : 0;
    attron(COLOR_PAIR(PAIR_LIVE));
    for (int i = 0; i < BAR_COLUMNS; i++) {
        bool is_full = eighths >= (i + 1) * LEVEL_COUNT - LEVEL_COUNT / 2;
        const char *full = screen->has_blocks ? "█" : "#";
        const char *rest = screen->has_blocks ? "░" : ".";
        addstr(is_full ? full : rest);
    }
    attroff(COLOR_PAIR(PAIR_LIVE));
}

static void draw_header(int row, const char *text)
{
    attron(A_REVERSE);
    mvhline(row, 0, ' ', COLS);
    mvaddnstr(row, 0, text, COLS);
    attroff(A_REVERSE);
}

static int draw_classes(const struct screen *screen, int first_row, int last_row)
{
    static const char *const sorts[TOP_SORT_COUNT] = {"bytes", "idle", "calls", "size"};
    const struct top *top = screen->top;
    char text[TEXT_MAX];
    /* No wider than 80 columns. */
    snprintf(text, sizeof text, "%6s %9s %10s %10s %10s %8s  FULL      by %s", "SLOT", "IN USE",
             "BYTES", "IN BINS", "IDLE", "CALLS/S", sorts[top->sort]);
    draw_header(first_row, text);
    int row = first_row + 1;
    for (size_t i = (size_t)screen->scroll; i < top->row_count && row <= last_row; i++, row++) {
        const struct top_row *line = &top->rows[i];
        char used[BYTES_TEXT_MAX], cached[BYTES_TEXT_MAX], idle[BYTES_TEXT_MAX];
        char calls[BYTES_TEXT_MAX];
        mvprintw(row, 0, "%6s %9zu %10s %10s %10s %8s  ", line->name, line->used_count,
                 bytes_text(used, line->used_bytes), bytes_text(cached, line->cached_bytes),
                 bytes_text(idle, line->idle_bytes), count_text(calls, line->calls_per_second));
        draw_bar(screen, line->used_bytes,
                 line->used_bytes + line->cached_bytes + line->idle_bytes);
    }
    return row;
}

static int draw_threads(const struct screen *screen, int first_row, int last_row)
{
    const struct top *top = screen->top;
    char text[TEXT_MAX];
    snprintf(text, sizeof text, "%16s %10s %11s %14s %10s %10s", "THREAD", "SLABS", "IN BINS",
             "ON THEIR WAY", "CALLS/S", "REFILLS/S");
    draw_header(first_row, text);
    int row = first_row + 1;
    for (size_t i = (size_t)screen->scroll; i < top->thread_count && row <= last_row; i++, row++) {
        const struct top_thread_row *line = &top->threads[i];
        char cached[BYTES_TEXT_MAX], calls[BYTES_TEXT_MAX], refills[BYTES_TEXT_MAX];
        mvprintw(row, 0, "%16s %10zu %11s %14zu %10s %10s", line->name, line->slab_count,
                 bytes_text(cached, line->cached_bytes), line->batched_slots,
                 count_text(calls, line->calls_per_second),
                 count_text(refills, line->refills_per_second));
    }
    return row;
}

static void draw_help(void)
{
    static const char *const lines[] = {
        "live      usable bytes of all blocks in use; the filled part of the graph",
        "resident  memory of the process, as the kernel counts it; the shade behind",
        "bins      slots that threads keep at hand, free for their next calls",
        "free      free slots and blocks inside slabs, zones and heaps",
        "dirty     free memory that was not given back to the system",
        "idle      of a class: free slots, and room for slots, in its slabs",
        "calls/s   blocks handed out a second, late by what a bin holds",
        "",
        "q  quit                    s  sort by the next column",
        "p  pause, as does space    t  threads, or classes",
        "+  more often              -  less often",
        "arrows scroll the table    h  this text, or no longer",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        mvaddstr(ROW_GRAPH + (int)i, 2, lines[i]);
    }
}

static void draw_keys(const struct screen *screen)
{
    attron(COLOR_PAIR(PAIR_FAINT));
    mvprintw(LINES - 1, 0, "q quit  s sort  t %s  p %s  + - interval  h help",
             screen->table == TABLE_CLASSES ? "threads" : "classes",
             screen->is_paused ? "go on" : "pause");
    attroff(COLOR_PAIR(PAIR_FAINT));
}

/* false: the screen says so, and there is nothing more on it. */
static bool has_room(void)
{
    if (COLS < COLUMNS_MIN || LINES < ROWS_MIN) {
        char text[TEXT_MAX];
        snprintf(text, sizeof text, "too small: %d columns and %d rows", COLUMNS_MIN, ROWS_MIN);
        mvaddnstr(0, 0, text, COLS);
        refresh();
        return false;
    }
    return true;
}

static void draw(const struct screen *screen)
{
    erase();
    if (!has_room()) {
        return;
    }
    draw_title(screen);
    draw_summary(screen);
    if (screen->has_help) {
        draw_help();
    } else {
        int rows = LINES / GRAPH_SHARE;
        rows = rows > GRAPH_ROWS_MAX   ? GRAPH_ROWS_MAX
               : rows < GRAPH_ROWS_MIN ? GRAPH_ROWS_MIN
                                       : rows;
        draw_memory(screen, ROW_GRAPH, rows);
        draw_rate(screen, ROW_GRAPH + rows);
        int first = ROW_GRAPH + rows + RATE_ROWS + 1;
        if (screen->table == TABLE_CLASSES) {
            draw_classes(screen, first, LINES - 2);
        } else {
            draw_threads(screen, first, LINES - 2);
        }
    }
    draw_keys(screen);
    refresh();
}

/* ----------------------------------------------------------------------------- samples and keys */

/* false: there is nothing more to sample. */
static bool sample(struct screen *screen)
{
    struct snapshot *snapshot = reader_read(screen->reader, READ_COUNTERS);
    return snapshot != NULL && top_take(screen->top, snapshot, seconds_now());
}

static void interval_change(struct screen *screen, int interval_ms)
{
    if (interval_ms >= INTERVAL_MS_MIN && interval_ms <= INTERVAL_MS_MAX) {
        screen->interval_ms = interval_ms;
    }
}

static void scroll_by(struct screen *screen, int rows)
{
    const struct top *top = screen->top;
    int count = (int)(screen->table == TABLE_CLASSES ? top->row_count : top->thread_count);
    int next = screen->scroll + rows;
    screen->scroll = next >= count ? count - 1 : next;
    screen->scroll = screen->scroll < 0 ? 0 : screen->scroll;
}

/* false: the reader of the screen has enough. */
static bool answer(struct screen *screen, int key)
{
    switch (key) {
    case 'q':
    case 'Q':
        return false;
    case 's':
        screen->top->sort = (screen->top->sort + 1) % TOP_SORT_COUNT;
        top_order(screen->top);
        break;
    case 't':
        screen->table = screen->table == TABLE_CLASSES ? TABLE_THREADS : TABLE_CLASSES;
        screen->scroll = 0;
        break;
    case 'p':
    case ' ':
        screen->is_paused = !screen->is_paused;
        break;
    case 'h':
    case '?':
        screen->has_help = !screen->has_help;
        break;
    case '+':
        interval_change(screen, screen->interval_ms / INTERVAL_FACTOR);
        break;
    case '-':
        interval_change(screen, screen->interval_ms * INTERVAL_FACTOR);
        break;
    case KEY_DOWN:
        scroll_by(screen, 1);
        break;
    case KEY_UP:
        scroll_by(screen, -1);
        break;
    default:
        break;
    }
    return true;
}

/* Then no key comes any more, and no time is spent on waiting for one. */
static bool terminal_has_gone(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&input, 1, 0) > 0 && (input.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
}

/* Until a key says so, or nobody is there to press one, or there is nothing more to sample;
 * then false. */
static bool watch(struct screen *screen)
{
    double due = seconds_now();
    for (;;) {
        if (!screen->is_paused && seconds_now() >= due) {
            if (!sample(screen)) {
                return false;
            }
            due = seconds_now() + (double)screen->interval_ms / MS_PER_SECOND;
        }
        draw(screen);
        double wait = screen->is_paused ? -1 : (due - seconds_now()) * MS_PER_SECOND;
        timeout(screen->is_paused ? -1 : wait > 0 ? (int)wait + 1 : 0);
        int key = getch();
        if (key == ERR ? terminal_has_gone() : !answer(screen, key)) {
            return true;
        }
    }
}

/* ------------------------------------------------------------------------------- open and close */

/* What the reader says on standard error must not fall on the screen: it is kept,
 * and said after. */
static void errors_hold(struct screen *screen)
{
    screen->errors = memfd_create("errors", MFD_CLOEXEC);
    screen->error_output = dup(STDERR_FILENO);
    if (screen->errors >= 0 && screen->error_output >= 0) {
        dup2(screen->errors, STDERR_FILENO);
    }
}

/* Says what was kept if `is_wanted`. */
static void errors_release(struct screen *screen, bool is_wanted)
{
    if (screen->errors < 0 || screen->error_output < 0) {
        return;
    }
    fflush(stderr);
    dup2(screen->error_output, STDERR_FILENO);
    char text[TEXT_MAX];
    lseek(screen->errors, 0, SEEK_SET);
    ssize_t length = read(screen->errors, text, sizeof text);
    if (is_wanted && length > 0) {
        fwrite(text, 1, (size_t)length, stderr);
    }
    close(screen->errors);
    close(screen->error_output);
}

/* Blue, orange and grey, which no kind of colour blindness joins. */
static void colours_start(void)
{
    const char *no_colour = getenv("NO_COLOR");
    if (!has_colors() || (no_colour != NULL && no_colour[0] != '\0')) {
        return;
    }
    start_color();
    use_default_colors();
    bool has_many = COLORS >= COLOURS_MANY;
    init_pair(PAIR_LIVE, has_many ? 32 : COLOR_BLUE, -1);
    init_pair(PAIR_RESIDENT, has_many ? 245 : -1, -1);
    init_pair(PAIR_RATE, has_many ? 214 : COLOR_YELLOW, -1);
    init_pair(PAIR_FAINT, has_many ? 245 : -1, -1);
    init_pair(PAIR_WARNING, has_many ? 214 : COLOR_YELLOW, -1);
}

bool top_screen_can_open(void)
{
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
        command_error("wants a terminal; hmm stat --watch does not");
        return false;
    }
    return true;
}

/* Also of a process that its parent has not asked about yet: it is there, but has no memory. */
static bool process_has_ended(pid_t process)
{
    char path[BYTES_TEXT_MAX];
    char line[TEXT_MAX] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)process);
    FILE *stream = fopen(path, "re");
    if (stream == NULL) {
        return true;
    }
    size_t length = fread(line, 1, sizeof line - 1, stream);
    fclose(stream);
    /* The state follows the name, which may itself hold anything. */
    const char *name_end = length > 0 ? strrchr(line, ')') : NULL;
    return name_end == NULL || strncmp(name_end, ") Z", strlen(") Z")) == 0 ||
           strncmp(name_end, ") X", strlen(") X")) == 0;
}

/* A process on its way out loses its memory some time before it has ended. */
static bool process_ends_soon(pid_t process)
{
    for (int waited_ms = 0; waited_ms < ENDING_MS_MAX; waited_ms += ENDING_STEP_MS) {
        if (process_has_ended(process)) {
            return true;
        }
        napms(ENDING_STEP_MS);
    }
    return false;
}

int top_screen_run(struct reader *reader, struct top *top, int interval_ms)
{
    setlocale(LC_CTYPE, "");
    struct screen screen = {
        .reader = reader,
        .top = top,
        .interval_ms = interval_ms,
        .has_blocks = strcmp(nl_langinfo(CODESET), "UTF-8") == 0,
    };
    const char *name = getenv("TERM");
    name = name != NULL ? name : "";
    /* The one that is known, and has no cursor to move. */
    SCREEN *terminal = strcmp(name, "dumb") != 0 ? newterm(NULL, stdout, stdin) : NULL;
    if (terminal == NULL) {
        return COMMAND_TROUBLE("cannot draw on this terminal (TERM=%s)", name);
    }
    colours_start();
    cbreak();
    noecho();
    keypad(stdscr, TRUE);
    curs_set(0);
    errors_hold(&screen);
    bool is_enough = watch(&screen);
    endwin();
    delscreen(terminal);
    pid_t process = reader_process_id(reader);
    bool has_ended = !is_enough && process_ends_soon(process);
    errors_release(&screen, !is_enough && !has_ended);
    if (has_ended) {
        printf("process %d has ended\n", (int)process);
    }
    return is_enough || has_ended ? EXIT_SUCCESS : EXIT_TROUBLE;
}
