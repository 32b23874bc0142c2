/*
 * os_linux_files.c - the system calls for files, on Linux. See os.h.
 *
 * Not open(), read() and write(), which others may wrap, and at which a thread can be cancelled.
 */
#include "os.h"
#include "os_call.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

void hmm_os_write_error(const char *text, size_t bytes)
{
    int saved = errno;
    while (OS_CALL(SYS_write, STDERR_FILENO, (long)text, (long)bytes) < 0 && errno == EINTR) {
    }
    errno = saved;
}

bool hmm_os_write_all(int file, const char *text, size_t bytes)
{
    int saved = errno;
    while (bytes > 0) {
        long written = OS_CALL(SYS_write, file, (long)text, (long)bytes);
        if (written < 0 && errno != EINTR) {
            return false;
        }
        text += written > 0 ? written : 0;
        bytes -= written > 0 ? (size_t)written : 0;
    }
    errno = saved;
    return true;
}

void hmm_os_program_path(char *path, size_t bytes)
{
    int saved = errno;
    long length =
        OS_CALL(SYS_readlinkat, AT_FDCWD, (long)"/proc/self/exe", (long)path, (long)bytes - 1);
    path[length > 0 ? length : 0] = '\0';
    errno = saved;
}

enum { FILE_TEXT_BYTES = 64 };

/* The start of a file, "" where there is none. */
static void file_read(const char *path, char text[FILE_TEXT_BYTES])
{
    int saved = errno;
    long length = 0;
    long file = OS_CALL(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        length = OS_CALL(SYS_read, file, (long)text, FILE_TEXT_BYTES - 1);
        (void)OS_CALL(SYS_close, file);
    }
    text[length > 0 ? length : 0] = '\0';
    errno = saved;
}

/* The second number of the file, in pages. */
size_t hmm_os_resident_bytes(void)
{
    char text[FILE_TEXT_BYTES];
    file_read("/proc/self/statm", text);
    size_t pages = 0;
    for (const char *digit = text + strcspn(text, " ") + (strchr(text, ' ') != NULL);
         *digit >= '0' && *digit <= '9'; digit++) {
        pages = pages * 10 + (size_t)(*digit - '0');
    }
    return pages * hmm_os_page_bytes();
}

bool hmm_os_file_open(struct os_file *file, const char *path)
{
    int saved = errno;
    file->descriptor = OS_CALL(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC);
    file->at = file->length = 0;
    errno = saved;
    return file->descriptor >= 0;
}

bool hmm_os_file_open_surely(struct os_file *file, const char *path)
{
    struct rlimit64 limit;
    int saved = errno;
    if (hmm_os_file_open(file, path)) {
        return true;
    }
    if (OS_CALL(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&limit) == 0) {
        const struct rlimit64 raised = {limit.rlim_max, limit.rlim_max};
        (void)OS_CALL(SYS_prlimit64, 0, RLIMIT_NOFILE, (long)&raised);
        (void)hmm_os_file_open(file, path);
        (void)OS_CALL(SYS_prlimit64, 0, RLIMIT_NOFILE, (long)&limit);
    }
    errno = saved;
    return file->descriptor >= 0;
}

bool hmm_os_file_next(struct os_file *file, char *byte)
{
    if (file->at == file->length) {
        int saved = errno;
        long length = OS_CALL(SYS_read, file->descriptor, (long)file->bytes, OS_FILE_BYTES);
        errno = saved;
        file->at = 0;
        file->length = length > 0 ? (size_t)length : 0;
    }
    if (file->length == 0) {
        return false;
    }
    *byte = file->bytes[file->at++];
    return true;
}

void hmm_os_file_close(struct os_file *file)
{
    int saved = errno;
    (void)OS_CALL(SYS_close, file->descriptor);
    errno = saved;
}

bool hmm_os_file_identify(int file, struct os_file_identity *identity)
{
    int saved = errno;
    struct stat found;
    bool is_open = fstat(file, &found) == 0;
    *identity = is_open ? (struct os_file_identity){found.st_dev, found.st_ino}
                        : (struct os_file_identity){0, 0};
    errno = saved;
    return is_open;
}

static void file_set_lock(int file, short type)
{
    int saved = errno;
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET};
    while (fcntl(file, F_SETLKW, &lock) != 0 && errno == EINTR) {
    }
    errno = saved;
}

void hmm_os_file_lock(int file)
{
    file_set_lock(file, F_WRLCK);
}

void hmm_os_file_unlock(int file)
{
    file_set_lock(file, F_UNLCK);
}
