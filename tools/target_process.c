/*
 * target_process.c - a process that runs.
 *
 * Memory is copied by process_vm_readv, which does not stop the process. What is resident is asked
 * of /proc/PID/pagemap, whose bits for it are shown to whoever may read the memory.
 */
#include "command.h"
#include "target.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    KIBIBYTE = 1024,
    PAGEMAP_COUNT = 8192, /* entries a read */
    PAGEMAP_OWN_BIT = 56,
    PAGEMAP_PRESENT_BIT = 63,
};

/* ---------------------------------------------------------------------------------------- /proc */

FILE *proc_open(pid_t task_id, const char *file)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)task_id, file);
    return fopen(path, "re");
}

/* One line about why the process cannot be read. `code` 0: it has no mappings. */
static void complain(const struct reader *reader, int code)
{
    int process_id = (int)reader->process_id;
    bool was_read = reader->root.self != NULL;
    if (was_read && (code == 0 || code == ENOENT || code == ESRCH)) {
        command_error("%s has ended", reader->name);
    } else if (code == 0) {
        command_error("process %d has no memory: it has ended, or is the kernel's", process_id);
    } else if (code == ENOENT || code == ESRCH) {
        command_error("there is no process %d", process_id);
    } else if (code == EACCES || code == EPERM) {
        command_error(
            "no permission to read process %d: be root, or its user if it is not set-uid; "
            "where /proc/sys/kernel/yama/ptrace_scope is not 0, be root or its parent "
            "(hmm COMMAND -- PROGRAM)",
            process_id);
    } else {
        command_error("process %d: %s", process_id, strerror(code));
    }
}

/* "start-end access offset device inode   name". NULL: it is no such line. */
static struct mapping_view *mapping_parse(const char *line, struct mapping_list *list)
{
    unsigned long start, end;
    char access[5];
    int name_at = 0;
    if (!isxdigit((unsigned char)line[0]) || isupper((unsigned char)line[0]) ||
        sscanf(line, "%lx-%lx %4s %*x %*x:%*x %*u %n", &start, &end, access, &name_at) < 3) {
        return NULL;
    }
    const char *name = name_at != 0 ? line + name_at : "";
    return mapping_add(list, start, end, access, name);
}

/* "Rss:      12 kB" of the mapping before. */
static void size_parse(const char *line, struct mapping_view *mapping)
{
    static const struct {
        const char *key;
        size_t offset_bytes;
    } keys[] = {
        {"Rss:", offsetof(struct mapping_view, resident_bytes)},
        {"AnonHugePages:", offsetof(struct mapping_view, huge_bytes)},
        {"Swap:", offsetof(struct mapping_view, swapped_bytes)},
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        size_t length = strlen(keys[i].key);
        if (strncmp(line, keys[i].key, length) == 0) {
            *(size_t *)((char *)mapping + keys[i].offset_bytes) =
                strtoul(line + length, NULL, 10) * KIBIBYTE;
        }
    }
}

static bool process_list(struct reader *reader, enum mapping_detail detail,
                         struct mapping_list *list)
{
    FILE *file = proc_open(reader->task_id, detail == MAPPINGS_WITH_SIZES ? "smaps" : "maps");
    if (file == NULL) {
        complain(reader, errno);
        return false;
    }
    char *line = NULL;
    size_t room = 0;
    struct mapping_view *mapping = NULL;
    errno = 0;
    while (getline(&line, &room, file) > 0) {
        line[strcspn(line, "\n")] = '\0';
        struct mapping_view *next = mapping_parse(line, list);
        mapping = next != NULL ? next : mapping;
        if (next == NULL && mapping != NULL) {
            size_parse(line, mapping);
        }
    }
    int code = errno;
    free(line);
    fclose(file);
    /* A zombie and a thread of the kernel have files, but no mappings. */
    if (list->count == 0) {
        complain(reader, code);
    }
    if (detail == MAPPINGS_WITH_SIZES) {
        mappings_name_zeroed(reader, list);
    }
    return list->count != 0;
}

static bool process_copy(struct reader *reader, uintptr_t address, void *to, size_t bytes)
{
    while (bytes > 0) {
        struct iovec here = {to, bytes};
        struct iovec there = {(void *)address, bytes};
        ssize_t count = process_vm_readv(reader->task_id, &here, 1, &there, 1, 0);
        if (count <= 0) {
            return false;
        }
        to = (char *)to + count;
        address += (size_t)count;
        bytes -= (size_t)count;
    }
    return true;
}

static bool process_copy_pieces(struct reader *reader, const struct memory_piece *pieces,
                                size_t count)
{
    struct iovec here[MEMORY_PIECES_MAX];
    struct iovec there[MEMORY_PIECES_MAX];
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        here[i] = (struct iovec){pieces[i].to, pieces[i].bytes};
        there[i] = (struct iovec){(void *)pieces[i].address, pieces[i].bytes};
        bytes += pieces[i].bytes;
    }
    return process_vm_readv(reader->task_id, here, count, there, count, 0) == (ssize_t)bytes;
}

static bool process_pages(struct reader *reader, uintptr_t start, size_t page_count,
                          uint8_t *states)
{
    static uint64_t entries[PAGEMAP_COUNT];
    for (size_t done = 0; done < page_count;) {
        size_t count = size_min(page_count - done, PAGEMAP_COUNT);
        off_t offset = (off_t)((start / reader->page_bytes + done) * sizeof entries[0]);
        ssize_t bytes = pread(reader->memory_map_file, entries, count * sizeof entries[0], offset);
        if (bytes < (ssize_t)(count * sizeof entries[0])) {
            return false;
        }
        for (size_t i = 0; i < count; i++) {
            bool is_present = (entries[i] >> PAGEMAP_PRESENT_BIT & 1) != 0;
            bool is_own = (entries[i] >> PAGEMAP_OWN_BIT & 1) != 0;
            states[done + i] = (uint8_t)(!is_present ? PAGE_ABSENT
                                         : is_own    ? PAGE_OWN
                                                     : PAGE_SHARED);
        }
        done += count;
    }
    return true;
}

struct page_counts {
    unsigned long mapped;
    unsigned long resident;
};

/* Of a task; 0 where it has ended. */
static struct page_counts pages_count(pid_t task_id)
{
    FILE *file = proc_open(task_id, "statm");
    struct page_counts counts = {0, 0};
    if (file != NULL) {
        if (fscanf(file, "%lu %lu", &counts.mapped, &counts.resident) != 2) {
            counts = (struct page_counts){0, 0};
        }
        fclose(file);
    }
    return counts;
}

static size_t process_resident_bytes(struct reader *reader)
{
    return pages_count(reader->task_id).resident * reader->page_bytes;
}

/* "VmSwap:      12 kB". Of a task that has ended there is no such line. */
static size_t process_swapped_bytes(struct reader *reader)
{
    FILE *file = proc_open(reader->task_id, "status");
    unsigned long kibibytes = 0;
    char line[256];
    bool is_found = false;
    while (file != NULL && !is_found && fgets(line, sizeof line, file) != NULL) {
        is_found = sscanf(line, "VmSwap: %lu kB", &kibibytes) == 1;
    }
    if (file != NULL) {
        fclose(file);
    }
    return kibibytes * KIBIBYTE;
}

static int process_close(struct reader *reader)
{
    if (reader->memory_map_file >= 0) {
        close(reader->memory_map_file);
    }
    return 0;
}

static const struct target_ops process_ops = {
    process_copy,           process_copy_pieces, process_list,          process_pages,
    process_resident_bytes, process_close,       process_swapped_bytes,
};

static void name_load(struct reader *reader)
{
    FILE *file = proc_open(reader->task_id, "comm");
    char name[64] = "";
    char title[READER_NAME_MAX];
    if (file != NULL) {
        if (fgets(name, sizeof name, file) != NULL) {
            name[strcspn(name, "\n")] = '\0';
        }
        fclose(file);
    }
    snprintf(title, sizeof title, "process %d (%s)", (int)reader->process_id, name);
    reader_set_name(reader, title);
}

/* Whether its memory can be copied: the first page of a mapping that it may read itself. */
static bool process_probe(struct reader *reader)
{
    struct mapping_list list = {0};
    bool is_done = process_list(reader, MAPPINGS_PLAIN, &list);
    size_t index = 0;
    while (index < list.count && list.entries[index].access[0] != 'r') {
        index++;
    }
    if (is_done && index < list.count) {
        char byte;
        struct iovec here = {&byte, 1};
        struct iovec there = {(void *)list.entries[index].start, 1};
        is_done = process_vm_readv(reader->task_id, &here, 1, &there, 1, 0) == 1;
        if (!is_done) {
            complain(reader, errno);
        }
    }
    mapping_list_free(&list);
    return is_done;
}

bool target_open_task(struct reader *reader, pid_t process_id, pid_t task_id)
{
    char path[64];
    reader->kind = READER_PROCESS;
    reader->ops = &process_ops;
    reader->process_id = process_id;
    reader->task_id = task_id;
    reader->page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    name_load(reader);
    if (!process_probe(reader)) {
        return false;
    }
    snprintf(path, sizeof path, "/proc/%d/pagemap", (int)reader->task_id);
    reader->memory_map_file = open(path, O_RDONLY | O_CLOEXEC);
    if (reader->memory_map_file < 0) {
        complain(reader, errno);
    }
    return reader->memory_map_file >= 0;
}

/* A process may go on after its first thread has ended, but then only another one leads
 * to its memory. */
static bool has_memory(pid_t task_id)
{
    return pages_count(task_id).mapped != 0;
}

bool threads_visit(pid_t process_id, bool (*visit)(pid_t thread_id, void *context), void *context)
{
    char path[64];
    bool goes_on = true;
    snprintf(path, sizeof path, "/proc/%d/task", (int)process_id);
    DIR *folder = opendir(path);
    for (struct dirent *entry; goes_on && folder != NULL && (entry = readdir(folder)) != NULL;) {
        pid_t thread_id = (pid_t)strtol(entry->d_name, NULL, 10);
        goes_on = thread_id <= 0 || thread_id == process_id || visit(thread_id, context);
    }
    if (folder != NULL) {
        closedir(folder);
    }
    return !goes_on;
}

static bool thread_note_memory(pid_t thread_id, void *context)
{
    *(pid_t *)context = thread_id;
    return !has_memory(thread_id);
}

bool target_open_process(struct reader *reader, pid_t process_id)
{
    pid_t task_id = process_id;
    if (!has_memory(process_id) && !threads_visit(process_id, thread_note_memory, &task_id)) {
        task_id = process_id;
    }
    return target_open_task(reader, process_id, task_id);
}
