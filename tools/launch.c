/*
 * launch.c - programs that the command starts on the library beside it. See launch.h.
 */
#include "launch.h"
#include "command.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SIGNAL_STATUS_BASE = 128 };

bool library_find(char path[LAUNCH_PATH_BYTES])
{
    ssize_t length = readlink("/proc/self/exe", path, LAUNCH_PATH_BYTES - 1);
    if (length <= 0) {
        return false;
    }
    path[length] = '\0';
    for (int levels = 0; levels < 2; levels++) {
        char *slash = strrchr(path, '/');
        if (slash == NULL) {
            return false;
        }
        *slash = '\0';
    }
    size_t folder_length = strlen(path);
    size_t room = LAUNCH_PATH_BYTES - folder_length;
    return (size_t)snprintf(path + folder_length, room, "/lib/libhmm.so") < room &&
           access(path, R_OK) == 0;
}

/* `first`, and behind a separator what the variable held. A program must not run without what was
 * asked for. */
static void variable_join(const char *name, const char *first, char separator, const char *second)
{
    char *both = NULL;
    char between[2] = {first[0] != '\0' && second[0] != '\0' ? separator : '\0', '\0'};
    if (asprintf(&both, "%s%s%s", first, between, second) < 0 || setenv(name, both, 1) != 0) {
        command_error("%s", strerror(ENOMEM));
        exit(EXIT_TROUBLE);
    }
    free(both);
}

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value != NULL ? value : "";
}

/* Whether a file of the list, which spaces and colons divide, is called as a library of ours is. */
static bool has_library(const char *list)
{
    while (*list != '\0') {
        const size_t length = strcspn(list, " :");
        const char *slash = memrchr(list, '/', length);
        const char *name = slash != NULL ? slash + 1 : list;
        if (strncmp(name, "libhmm.so", strlen("libhmm.so")) == 0 ||
            strncmp(name, "libhmm-", strlen("libhmm-")) == 0) {
            return true;
        }
        list += length + (list[length] != '\0');
    }
    return false;
}

/* In LD_PRELOAD a path ends at a space, in LD_LIBRARY_PATH it does not. */
static void preload(char *path)
{
    char *slash = strrchr(path, '/');
    const char *name = path;
    if (strchr(path, ' ') != NULL) {
        *slash = '\0';
        variable_join("LD_LIBRARY_PATH", path, ':', variable("LD_LIBRARY_PATH"));
        name = slash + 1;
    }
    variable_join("LD_PRELOAD", name, ':', variable("LD_PRELOAD"));
}

bool library_preload(void)
{
    char path[LAUNCH_PATH_BYTES];
    if (has_library(variable("LD_PRELOAD"))) {
        return true;
    }
    if (!command_has_proc()) {
        return false;
    }
    if (!library_find(path)) {
        command_error("there is no ../lib/libhmm.so beside this command");
        return false;
    }
    if (strchr(path, ':') != NULL) {
        command_error("%s cannot be preloaded: its path has a colon", path);
        return false;
    }
    preload(path);
    return true;
}

void library_option(const char *key, const char *value)
{
    char *pair = NULL;
    if (asprintf(&pair, "%s=%s", key, value) >= 0) {
        variable_join("HMM_OPTIONS", variable("HMM_OPTIONS"), ',', pair);
        free(pair);
    }
}

/* false: errno says why it cannot be executed. */
static bool is_program(const char *path)
{
    struct stat status;
    if (stat(path, &status) != 0) {
        return false;
    }
    if (!S_ISREG(status.st_mode)) {
        errno = S_ISDIR(status.st_mode) ? EISDIR : EACCES;
        return false;
    }
    return access(path, X_OK) == 0;
}

bool program_find(const char *name, char path[LAUNCH_PATH_BYTES])
{
    if (strchr(name, '/') != NULL) {
        snprintf(path, LAUNCH_PATH_BYTES, "%s", name);
        return is_program(path);
    }
    const char *folders = getenv("PATH");
    int code = ENOENT;
    for (const char *folder = folders != NULL ? folders : "/bin:/usr/bin"; *folder != '\0';) {
        size_t length = strcspn(folder, ":");
        snprintf(path, LAUNCH_PATH_BYTES, "%.*s/%s", (int)length, length != 0 ? folder : ".", name);
        if (is_program(path)) {
            return true;
        }
        code = errno == EACCES ? EACCES : code;
        folder += length + (folder[length] == ':');
    }
    errno = code;
    return false;
}

/* Whether the end of children was ignored before. */
static bool has_ignored_children;

void children_expect(void)
{
    has_ignored_children |= signal(SIGCHLD, SIG_DFL) == SIG_IGN;
}

void children_forget(void)
{
    if (has_ignored_children) {
        signal(SIGCHLD, SIG_IGN);
    }
}

/* What a program may be told, or ended by. */
static const int passed_signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

enum { PASSED_SIGNAL_COUNT = sizeof passed_signals / sizeof passed_signals[0] };

/* Where signals are passed on to, 0: nowhere yet. */
static volatile pid_t program_id;

/* What a terminal sends its whole group gets, the program too; so it has what it sends itself. */
static void signal_pass(int number, siginfo_t *about, void *context)
{
    (void)context;
    const int saved = errno;
    const bool is_sent = about->si_code <= 0 && about->si_pid != program_id;
    if (is_sent && program_id > 0) {
        (void)kill(program_id, number);
    }
    errno = saved;
}

/* What the command ignores, as under nohup, the program ignores as well. */
static void signals_answer(void (*answer)(int number))
{
    for (size_t i = 0; i < PASSED_SIGNAL_COUNT; i++) {
        struct sigaction action;
        if (sigaction(passed_signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN) {
            answer(passed_signals[i]);
        }
    }
}

static void answer_pass(int number)
{
    const struct sigaction action = {.sa_sigaction = signal_pass,
                                     .sa_flags = SA_SIGINFO | SA_RESTART};
    (void)sigaction(number, &action, NULL);
}

static void answer_default(int number)
{
    signal(number, SIG_DFL);
}

/* Ctrl-C is for the program; what the command says at its end is still wanted. */
static void answer_end(int number)
{
    signal(number, number == SIGINT || number == SIGQUIT ? SIG_IGN : SIG_DFL);
}

pid_t program_fork(void)
{
    sigset_t all;
    sigset_t before;
    children_expect();
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    signals_answer(answer_pass);
    const pid_t process_id = fork();
    if (process_id == 0) {
        signals_answer(answer_default);
        children_forget();
    }
    program_id = process_id;
    sigprocmask(SIG_SETMASK, &before, NULL);
    return process_id;
}

void program_ended(void)
{
    signals_answer(answer_end);
    program_id = 0;
}

int program_become(char *const *arguments)
{
    execvp(arguments[0], arguments);
    int status = errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
    command_error("%s: %s", arguments[0], strerror(errno));
    return status;
}

int shell_status(int wait_status)
{
    return WIFSIGNALED(wait_status) ? SIGNAL_STATUS_BASE + WTERMSIG(wait_status)
                                    : WEXITSTATUS(wait_status);
}
