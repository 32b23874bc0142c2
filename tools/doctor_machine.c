/*
 * doctor_machine.c - what of the system matters to a heap. See doctor.h.
 */
#include "base.h"
#include "command.h"
#include "doctor.h"
#include "os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { TEXT_MAX = 256, FILE_PATH_MAX = 4096 };

/* Below these HMM has to do with less than it likes. */
enum { MAPPINGS_FEW = 4096 };
static const size_t address_space_small_bytes = (size_t)1 << 30;

/* The first line of a file, "" where there is none. */
static const char *file_line(const char *path, char text[TEXT_MAX])
{
    FILE *file = fopen(path, "r");
    text[0] = '\0';
    if (file != NULL) {
        if (fgets(text, TEXT_MAX, file) == NULL) {
            text[0] = '\0';
        }
        fclose(file);
    }
    text[strcspn(text, "\n")] = '\0';
    return text;
}

/* How high addresses go that a program gets: its stack lies at their top. */
static unsigned address_bits(void)
{
    char on_stack;
    return bit_highest((size_t)(uintptr_t)&on_stack) + 1;
}

static void examine_addresses(void)
{
    char text[BYTES_TEXT_MAX];
    size_t range_bytes = hmm_os_range_bytes();
    void *range = hmm_os_reserve(range_bytes, 0);
    finding("page size", "%zu bytes", hmm_os_page_bytes());
    finding("address bits", "%u", address_bits());
    finding("reservation", "%s: %s", bytes_text(text, range_bytes),
            range != NULL ? "granted" : "refused, less will do");
    if (range != NULL) {
        hmm_os_release(range, range_bytes);
    }
}

static void examine_huge_pages(void)
{
    char text[TEXT_MAX];
    const char *line = file_line("/sys/kernel/mm/transparent_hugepage/enabled", text);
    const char *start = strchr(line, '[');
    const char *end = start != NULL ? strchr(start, ']') : NULL;
    if (end == NULL) {
        finding("huge pages", "none");
        return;
    }
    finding("huge pages", "%.*s", (int)(end - start - 1), start + 1);
    if (strncmp(start, "[never]", strlen("[never]")) == 0) {
        advise("huge pages are off: large heaps gain some percent with madvise in "
               "/sys/kernel/mm/transparent_hugepage/enabled");
    }
}

static void examine_overcommit(void)
{
    static const char *const meanings[] = {"0, refuses what is obviously too much",
                                           "1, never refuses", "2, counts what is committed"};
    char text[TEXT_MAX];
    const char *line = file_line("/proc/sys/vm/overcommit_memory", text);
    size_t mode = (size_t)strtoul(line, NULL, 10);
    if (line[0] == '\0' || mode >= sizeof meanings / sizeof meanings[0]) {
        finding("overcommit", "not known");
        return;
    }
    finding("overcommit", "%s", meanings[mode]);
    if (mode == 1) {
        advise("the kernel grants all memory and ends processes when it runs out: limit=BYTES "
               "lets malloc say no before that");
    }
}

static void examine_mappings(void)
{
    char text[TEXT_MAX];
    const char *line = file_line("/proc/sys/vm/max_map_count", text);
    finding("mappings", "%s at most", line[0] != '\0' ? line : "not known how many");
    if (line[0] != '\0' && strtoul(line, NULL, 10) < MAPPINGS_FEW) {
        advise("vm.max_map_count is %s: HMM needs some hundreds, threads and libraries more", line);
    }
}

static const char *limit_text(const struct rlimit *limit, char text[BYTES_TEXT_MAX])
{
    return limit->rlim_cur == RLIM_INFINITY ? "no limit" : bytes_text(text, limit->rlim_cur);
}

static void examine_limits(void)
{
    struct rlimit space = {RLIM_INFINITY, RLIM_INFINITY};
    struct rlimit data = space;
    struct rlimit locked = space;
    char texts[3][BYTES_TEXT_MAX];
    (void)getrlimit(RLIMIT_AS, &space);
    (void)getrlimit(RLIMIT_DATA, &data);
    (void)getrlimit(RLIMIT_MEMLOCK, &locked);
    finding("limits", "addresses (-v): %s, data (-d): %s, locked (-l): %s",
            limit_text(&space, texts[0]), limit_text(&data, texts[1]),
            limit_text(&locked, texts[2]));
    if (space.rlim_cur < address_space_small_bytes) {
        advise("ulimit -v is small: HMM reserves less, and region=sbrk needs no reservation at "
               "all");
    }
}

/* --------------------------------------------------------------------------------------- cgroup */

/* The limit that a file of a cgroup tells; SIZE_MAX: none. */
static size_t cgroup_limit_in(const char *folder, const char *group, const char *file)
{
    char path[FILE_PATH_MAX];
    char text[TEXT_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s%s/%s", folder, group, file) >= sizeof path) {
        return SIZE_MAX;
    }
    const char *line = file_line(path, text);
    size_t bytes = line[0] >= '0' && line[0] <= '9' ? strtoull(line, NULL, 10) : SIZE_MAX;
    return bytes < (size_t)1 << 60 ? bytes : SIZE_MAX;
}

/* The smallest limit from the group up to the root. */
static size_t cgroup_limit(char *group, bool is_unified)
{
    size_t limit = SIZE_MAX;
    for (;;) {
        size_t here =
            is_unified ? cgroup_limit_in("/sys/fs/cgroup", group, "memory.max")
                       : cgroup_limit_in("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes");
        limit = size_min(limit, here);
        char *slash = strrchr(group, '/');
        if (slash == NULL) {
            return limit;
        }
        *slash = '\0';
    }
}

static void examine_cgroup(void)
{
    char line[FILE_PATH_MAX];
    char text[BYTES_TEXT_MAX];
    size_t limit = SIZE_MAX;
    FILE *file = fopen("/proc/self/cgroup", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        bool is_unified = group != NULL && group == controllers + 1;
        if (group != NULL && (is_unified || strstr(controllers, "memory") != NULL)) {
            limit = size_min(limit, cgroup_limit(group + 1, is_unified));
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    finding("cgroup", "%s", limit != SIZE_MAX ? bytes_text(text, limit) : "no limit of memory");
    if (limit != SIZE_MAX) {
        advise("the cgroup ends processes at %s: limit=BYTES below that lets malloc say no first",
               bytes_text(text, limit));
    }
}

static void examine_tracing(void)
{
    static const char *const meanings[] = {"one's own processes", "one's own children only",
                                           "root only", "nobody"};
    char text[TEXT_MAX];
    const char *line = file_line("/proc/sys/kernel/yama/ptrace_scope", text);
    size_t scope = (size_t)strtoul(line, NULL, 10);
    finding("readable", "%s (hmm stat PID and the like)",
            meanings[size_min(scope, sizeof meanings / sizeof meanings[0] - 1)]);
}

void machine_examine(void)
{
    examine_addresses();
    examine_huge_pages();
    examine_overcommit();
    examine_mappings();
    examine_limits();
    examine_cgroup();
    examine_tracing();
}
