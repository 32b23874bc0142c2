/*
 * target_process.c - a process that runs, and a program that was started and is held at its end.
 *
 * Memory is copied by process_vm_readv, which does not stop the process. What is resident is asked of
 * /proc/PID/pagemap, whose bits for it are shown to whoever may read the memory.
 *
 * A program is traced for one thing: the kernel stops it at its exit, whatever the reason, before
 * its memory goes. Signals are passed on.
 */
#include "command.h"
#include "launch.h"
#include "target.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    PATH_BYTES = 4096,
    KIBIBYTE = 1024,
    PAGEMAP_COUNT = 8192, /* entries a read */
    PAGEMAP_OWN_BIT = 56,
    PAGEMAP_PRESENT_BIT = 63,
    EXEC_FAILED = 127, /* as shells have it */
    EVENT_SHIFT = 16,  /* in what waitpid says of a traced thread */
    FLAG_EXITING = 4,  /* of a thread, in /proc/ID/stat: PF_EXITING */
};

/* ------------------------------------------------------------------------------------ /proc */

static FILE *proc_open(const struct reader *reader, const char *file)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)reader->task_id, file);
    return fopen(path, "re");
}

/* One line about why the process cannot be read. */
static void complain(const struct reader *reader, int code)
{
    int process_id = (int)reader->process_id;
    if (code == ENOENT || code == ESRCH) {
        command_error("there is no process %d", process_id);
    } else if (code == EACCES || code == EPERM) {
        command_error("no permission to read process %d: be its user or root, and where "
                      "/proc/sys/kernel/yama/ptrace_scope is not 0, be root or its parent "
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
    FILE *file = proc_open(reader, detail == MAPPINGS_WITH_SIZES ? "smaps" : "maps");
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
        if (code != 0) {
            complain(reader, code);
        } else {
            command_error("process %d has no memory: it has ended, or is the kernel's",
                          (int)reader->process_id);
        }
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

static size_t process_resident_bytes(struct reader *reader)
{
    FILE *file = proc_open(reader, "statm");
    unsigned long page_count = 0;
    if (file != NULL) {
        if (fscanf(file, "%*u %lu", &page_count) != 1) {
            page_count = 0;
        }
        fclose(file);
    }
    return page_count * reader->page_bytes;
}

static int process_close(struct reader *reader)
{
    if (reader->memory_map_file >= 0) {
        close(reader->memory_map_file);
    }
    return 0;
}

static const struct target_ops process_ops = {process_copy,  process_copy_pieces,    process_list,
                                              process_pages, process_resident_bytes, process_close};

static void name_load(struct reader *reader)
{
    FILE *file = proc_open(reader, "comm");
    char name[64] = "";
    if (file != NULL) {
        if (fgets(name, sizeof name, file) != NULL) {
            name[strcspn(name, "\n")] = '\0';
        }
        fclose(file);
    }
    snprintf(reader->name, sizeof reader->name, "process %d (%s)", (int)reader->process_id, name);
}

/* Whether its memory can be copied: the first page of the first mapping is always readable. */
static bool process_probe(struct reader *reader)
{
    struct mapping_list list = {0};
    bool is_done = process_list(reader, MAPPINGS_PLAIN, &list);
    if (is_done) {
        char byte;
        struct iovec here = {&byte, 1};
        struct iovec there = {(void *)list.entries[0].start, 1};
        is_done = process_vm_readv(reader->task_id, &here, 1, &there, 1, 0) == 1;
        if (!is_done) {
            complain(reader, errno);
        }
    }
    mapping_list_free(&list);
    return is_done;
}

/* Opens the memory of the process by one of its threads. */
static bool task_open(struct reader *reader, pid_t process_id, pid_t task_id)
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

/* A process may go on after its first thread has ended, but then only another one leads to its memory. */
static bool has_memory(pid_t task_id)
{
    const struct reader task = {.task_id = task_id};
    FILE *file = proc_open(&task, "statm");
    unsigned long page_count = 0;
    if (file != NULL) {
        if (fscanf(file, "%lu", &page_count) != 1) {
            page_count = 0;
        }
        fclose(file);
    }
    return page_count != 0;
}

/* Shows a process's other threads, until `visit` says no. Whether it did. */
static bool threads_visit(pid_t process_id, bool (*visit)(pid_t thread_id, void *context),
                          void *context)
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
    return task_open(reader, process_id, task_id);
}

/* ------------------------------------------------------------------------------------ a program */

static void child_run(char *const *arguments, int report_file)
{
    signal(SIGINT, SIG_DFL);
    signal(SIGQUIT, SIG_DFL);
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0 && raise(SIGSTOP) == 0) {
        execvp(arguments[0], arguments);
    }
    int code = errno;
    (void)!write(report_file, &code, sizeof code);
    _exit(EXEC_FAILED);
}

enum { PROGRAM_OPTIONS = PTRACE_O_TRACEEXIT | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL };

/* Whether a thread that is held at its end ends alone, and not with its whole process. */
static bool thread_ends_alone(pid_t thread_id)
{
    const struct reader task = {.task_id = thread_id};
    FILE *file = proc_open(&task, "syscall");
    long call = -1;
    if (file != NULL) {
        if (fscanf(file, "%ld", &call) != 1) {
            call = -1;
        }
        fclose(file);
    }
    return call == SYS_exit;
}

/* "ID (NAME) STATE PARENT GROUP SESSION TERMINAL GROUP FLAGS ...". */
static bool thread_has_ended(pid_t thread_id)
{
    const struct reader task = {.task_id = thread_id};
    FILE *file = proc_open(&task, "stat");
    char text[512] = "";
    char state = 'X';
    unsigned flags = 0;
    if (file != NULL) {
        text[fread(text, 1, sizeof text - 1, file)] = '\0';
        fclose(file);
    }
    const char *after_name = strrchr(text, ')');
    bool is_known = after_name != NULL &&
                    sscanf(after_name, ") %c %*d %*d %*d %*d %*d %u", &state, &flags) == 2;
    return !is_known || state == 'X' || state == 'Z' || (flags & FLAG_EXITING) != 0;
}

/* Goes on as long as there is none that lives. */
static bool thread_note_ended(pid_t thread_id, void *context)
{
    return thread_id == *(pid_t *)context || thread_has_ended(thread_id);
}

/* Traces a thread as well; those that it starts, too. */
static bool thread_seize(pid_t thread_id, void *context)
{
    const long options = PROGRAM_OPTIONS | PTRACE_O_TRACECLONE;
    *(bool *)context |= ptrace(PTRACE_SEIZE, thread_id, NULL, options) == 0;
    return true;
}

/* Whether the process ends with this thread, which is held at its end. */
static bool is_last_thread(pid_t process_id, pid_t thread_id)
{
    return !thread_ends_alone(thread_id) ||
           ((thread_id == process_id || thread_has_ended(process_id)) &&
            !threads_visit(process_id, thread_note_ended, &thread_id));
}

/* A program's first thread may end before the others. From then on they are traced, too, because one of
 * them will be the last. */
static void threads_trace(pid_t process_id)
{
    bool is_more = true;
    while (is_more) {
        is_more = false;
        (void)threads_visit(process_id, thread_seize, &is_more);
    }
}

/* Runs the program until the kernel holds it at its end, by the thread *task_id. false: it ended
 * otherwise; *status. */
static bool program_run(pid_t process_id, pid_t *task_id, int *status)
{
    bool is_first = true;
    for (;;) {
        *task_id = waitpid(-1, status, __WALL);
        if (*task_id < 0 && errno != EINTR) {
            return false;
        }
        if (*task_id < 0 || !WIFSTOPPED(*status)) {
            if (*task_id == process_id) {
                return false;
            }
            continue;
        }
        const int event = *status >> EVENT_SHIFT;
        int signal_number = event == 0 ? WSTOPSIG(*status) : 0;
        if (is_first) {
            (void)ptrace(PTRACE_SETOPTIONS, process_id, NULL, (long)PROGRAM_OPTIONS);
            signal_number = 0;
            is_first = false;
        } else if (event == PTRACE_EVENT_EXIT) {
            if (is_last_thread(process_id, *task_id)) {
                return true;
            }
            threads_trace(process_id);
        }
        (void)ptrace(PTRACE_CONT, *task_id, NULL, (long)signal_number);
    }
}

static int program_close(struct reader *reader)
{
    int status = 0;
    (void)process_close(reader);
    (void)ptrace(PTRACE_CONT, reader->task_id, NULL, 0L);
    for (;;) {
        pid_t task_id = waitpid(-1, &status, __WALL);
        if ((task_id < 0 && errno != EINTR) ||
            (task_id == reader->process_id && !WIFSTOPPED(status))) {
            return status;
        }
        if (task_id > 0 && WIFSTOPPED(status)) {
            bool is_event = status >> EVENT_SHIFT != 0;
            (void)ptrace(PTRACE_CONT, task_id, NULL, is_event ? 0L : (long)WSTOPSIG(status));
        }
    }
}

static const struct target_ops program_ops = {process_copy,  process_copy_pieces,    process_list,
                                              process_pages, process_resident_bytes, program_close};

/* The program ended before its heap could be read, or, with a `code`, never began. */
static void complain_program(const char *program, int code, int status)
{
    if (code != 0) {
        command_error("%s: %s", program, code == EPERM ? "cannot be traced here" : strerror(code));
    } else if (WIFSIGNALED(status)) {
        command_error("%s was killed by signal %d (%s) before its heap could be read", program,
                      WTERMSIG(status), strsignal(WTERMSIG(status)));
    } else {
        command_error("%s ended before its heap could be read", program);
    }
}

bool target_open_program(struct reader *reader, char *const *arguments)
{
    int report[2];
    if (!library_preload()) {
        return false;
    }
    if (pipe2(report, O_CLOEXEC | O_NONBLOCK) != 0) {
        command_error("%s", strerror(errno));
        return false;
    }
    fflush(NULL);
    /* What a terminal sends is for the program; its heap is shown then. */
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    pid_t process_id = fork();
    if (process_id == 0) {
        child_run(arguments, report[1]);
    }
    int status = 0;
    int code = 0;
    pid_t task_id;
    bool is_held = process_id > 0 && program_run(process_id, &task_id, &status);
    if (read(report[0], &code, sizeof code) == (ssize_t)sizeof code && is_held) {
        (void)kill(process_id, SIGKILL);
        is_held = false;
    }
    if (!is_held) {
        complain_program(arguments[0], code, status);
    }
    close(report[0]);
    close(report[1]);
    if (!is_held || !task_open(reader, process_id, task_id)) {
        return false;
    }
    reader->kind = READER_PROGRAM;
    reader->ops = &program_ops;
    snprintf(reader->name, sizeof reader->name, "%s", arguments[0]);
    return true;
}
