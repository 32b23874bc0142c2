/*
 * target_program.c - a program that is started on the library, and held at its end.
 *
 * It is traced for one thing: the kernel stops it at its exit, whatever the reason, before its
 * memory goes. From then on it is a process like others. Signals are passed on.
 */
#include "command.h"
#include "launch.h"
#include "target.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    EXEC_FAILED = 127, /* as shells have it */
    EVENT_SHIFT = 16,  /* in what waitpid says of a traced thread */
    FLAG_EXITING = 4,  /* of a thread, in /proc/ID/stat: PF_EXITING */
    TRACE_OPTIONS = PTRACE_O_TRACEEXIT | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL,
};

/* A process's, and the same but for the end. */
static const struct target_ops *process_ops;
static struct target_ops program_ops;

/* Begins once it is traced, as a byte from the command says. `line`: the two ends of what joins it
 * to the command; it is told there why there is no program. */
static void child_run(char *const *arguments, const int line[2])
{
    char byte;
    close(line[0]);
    if (read(line[1], &byte, sizeof byte) == (ssize_t)sizeof byte) {
        execvp(arguments[0], arguments);
        int code = errno;
        (void)!write(line[1], &code, sizeof code);
    }
    _exit(EXEC_FAILED);
}

/* Whether a thread that is held at its end ends alone, and not with its whole process. */
static bool thread_ends_alone(pid_t thread_id)
{
    FILE *file = proc_open(thread_id, "syscall");
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
    FILE *file = proc_open(thread_id, "stat");
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
    const long options = TRACE_OPTIONS | PTRACE_O_TRACECLONE;
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

/* A program's first thread may end before the others. From then on they are traced, too, because
 * one of them will be the last. */
static void threads_trace(pid_t process_id)
{
    bool is_more = true;
    while (is_more) {
        is_more = false;
        (void)threads_visit(process_id, thread_seize, &is_more);
    }
}

/* What a thread goes on with after waitpid has said that it is held: its signal; nothing after an
 * event. One that a signal has stopped stays so until another lets it go on. */
static void thread_continue(pid_t thread_id, int status)
{
    const int event = status >> EVENT_SHIFT;
    const bool is_stopped = event == PTRACE_EVENT_STOP && WSTOPSIG(status) != SIGTRAP;
    const int signal_number = event == 0 ? WSTOPSIG(status) : 0;
    (void)ptrace(is_stopped ? PTRACE_LISTEN : PTRACE_CONT, thread_id, NULL, (long)signal_number);
}

/* Runs the program until the kernel holds it at its end, by the thread *task_id. false: it ended
 * otherwise; *status. */
static bool program_run(pid_t process_id, pid_t *task_id, int *status)
{
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
        if (*status >> EVENT_SHIFT == PTRACE_EVENT_EXIT) {
            if (is_last_thread(process_id, *task_id)) {
                return true;
            }
            threads_trace(process_id);
        }
        thread_continue(*task_id, *status);
    }
}

static int program_close(struct reader *reader)
{
    int status = 0;
    (void)process_ops->close(reader);
    (void)ptrace(PTRACE_CONT, reader->task_id, NULL, 0L);
    for (;;) {
        pid_t task_id = waitpid(-1, &status, __WALL);
        if ((task_id < 0 && errno != EINTR) ||
            (task_id == reader->process_id && !WIFSTOPPED(status))) {
            return status;
        }
        if (task_id > 0 && WIFSTOPPED(status)) {
            thread_continue(task_id, status);
        }
    }
}

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

/* 0, or why it cannot be traced. Seized, and not traced from within: only so it can be stopped by
 * signals as if it were not. */
static int program_begin(pid_t process_id, int line)
{
    if (process_id < 0 || ptrace(PTRACE_SEIZE, process_id, NULL, (long)TRACE_OPTIONS) != 0) {
        int code = errno;
        (void)(process_id > 0 && kill(process_id, SIGKILL) == 0);
        return code;
    }
    (void)!write(line, "", 1);
    return 0;
}

bool target_open_program(struct reader *reader, char *const *arguments)
{
    int line[2];
    if (!library_preload()) {
        return false;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, line) != 0) {
        command_error("%s", strerror(errno));
        return false;
    }
    fflush(NULL);
    pid_t process_id = program_fork();
    if (process_id == 0) {
        child_run(arguments, line);
    }
    int status = 0;
    int code = program_begin(process_id, line[0]);
    pid_t task_id;
    bool is_held = process_id > 0 && program_run(process_id, &task_id, &status);
    program_ended();
    if (recv(line[0], &code, sizeof code, MSG_DONTWAIT) == (ssize_t)sizeof code && is_held) {
        (void)kill(process_id, SIGKILL);
        is_held = false;
    }
    if (!is_held) {
        complain_program(arguments[0], code, status);
        reader->wait_status = process_id > 0 && code == 0 ? status : reader->wait_status;
    }
    close(line[0]);
    close(line[1]);
    if (!is_held) {
        return false;
    }
    bool is_open = target_open_task(reader, process_id, task_id);
    process_ops = reader->ops;
    program_ops = *process_ops;
    program_ops.close = program_close;
    reader->kind = READER_PROGRAM;
    reader->ops = &program_ops;
    reader_set_name(reader, arguments[0]);
    return is_open;
}
