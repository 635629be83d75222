/* Records every write and every sync of a process, in order, from calls of libc.
 *
 * Preloaded (LD_PRELOAD) into the service. Recorded are operations on files below $POWER_STORE, and bytes
 * sent into sockets, which show the acknowledged requests at every point of the record. The record is
 * written to $POWER_RECORD, as entries of
 *
 *     kind (1 byte)  file (u32)  offset (u64)  length (u64)  bytes
 *
 * kind O: a file was created or opened, its path follows   kind W: bytes were written
 *      T: a file was cut or grown to `offset`              kind S: the file's writes before entry
 *      R: a rename, both paths follow                              number `offset` are on disk
 *      U: an unlink, its path follows                      kind A: bytes were sent into a socket
 *      B: bytes were received from a socket
 *
 * sync_file_range is passed through without a record, because it guarantees nothing about power loss.
 * A lock is held during each write and its record, so the order of the record is that of the writes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_FD 4096

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int record = -1;
static const char *store;
static uint64_t entries;
static uint32_t file_of[MAX_FD]; /* 0: not recorded */
static char *paths[MAX_FD];
static uint32_t files;

static void start(void) {
    if (record >= 0) return;
    store = getenv("POWER_STORE");
    const char *path = getenv("POWER_RECORD");
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
    if (!store || !path || (record = real(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) < 0) abort();
}

static void put(char kind, uint32_t file, uint64_t offset, uint64_t length, const void *bytes) {
    ssize_t (*real)(int, const struct iovec *, int) = dlsym(RTLD_NEXT, "writev");
    char head[21] = {kind};
    memcpy(head + 1, &file, 4);
    memcpy(head + 5, &offset, 8);
    memcpy(head + 13, &length, 8);
    struct iovec parts[2] = {{head, sizeof head}, {(void *)bytes, length}};
    if (real(record, parts, 2) != (ssize_t)(sizeof head + length)) abort();
    entries++;
}

/* Returns the path below the store, or NULL. */
static const char *below(const char *path, char *buffer) {
    start();
    if (!realpath(path, buffer)) return NULL;
    size_t length = strlen(store);
    if (strncmp(buffer, store, length) != 0 || (buffer[length] != '/' && buffer[length] != 0)) return NULL;
    return buffer[length] ? buffer + length + 1 : ".";
}

static void opened(int fd, const char *path, int flags) {
    char buffer[PATH_MAX];
    int before = errno;
    if (fd < 0 || fd >= MAX_FD) return;
    pthread_mutex_lock(&lock);
    const char *name = below(path, buffer);
    file_of[fd] = 0;
    if (name) {
        uint32_t file = 0;
        for (uint32_t i = 1; i <= files; i++)
            if (paths[i] && strcmp(paths[i], name) == 0) file = i;
        if (!file && files + 1 < MAX_FD) {
            file = ++files;
            paths[file] = strdup(name);
            put('O', file, 0, strlen(name), name);
        }
        file_of[fd] = file;
        if (flags & O_TRUNC) put('T', file, 0, 0, NULL);
    }
    pthread_mutex_unlock(&lock);
    errno = before;
}

#define OPEN(name)                                                      \
    int name(const char *path, int flags, ...) {                        \
        va_list more;                                                   \
        va_start(more, flags);                                          \
        int mode = va_arg(more, int);                                   \
        va_end(more);                                                   \
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name);  \
        int fd = real(path, flags, mode);                               \
        opened(fd, path, flags);                                        \
        return fd;                                                      \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "close");
    if (fd >= 0 && fd < MAX_FD) file_of[fd] = 0;
    return real(fd);
}

static uint32_t file(int fd) { return fd >= 0 && fd < MAX_FD ? file_of[fd] : 0; }

#define PWRITE(name, offset_type)                                                        \
    ssize_t name(int fd, const void *bytes, size_t length, offset_type offset) {         \
        ssize_t (*real)(int, const void *, size_t, offset_type) = dlsym(RTLD_NEXT, #name); \
        if (!file(fd)) return real(fd, bytes, length, offset);                           \
        pthread_mutex_lock(&lock);                                                       \
        ssize_t written = real(fd, bytes, length, offset);                               \
        if (written > 0) put('W', file(fd), (uint64_t)offset, (uint64_t)written, bytes); \
        pthread_mutex_unlock(&lock);                                                     \
        return written;                                                                  \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

static int is_socket(int fd) {
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode);
}

/* Writes or sends with the lock held: entries before an answer in the record precede it in time. */
static void passed(int fd, const void *bytes, ssize_t length, off_t end) {
    if (length <= 0) return;
    if (file(fd)) put('W', file(fd), (uint64_t)(end - length), (uint64_t)length, bytes);
    else put('A', 0, 0, (uint64_t)length, bytes);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    if (!file(fd) && !is_socket(fd)) return real(fd, bytes, length);
    pthread_mutex_lock(&lock);
    start();
    ssize_t written = real(fd, bytes, length);
    passed(fd, bytes, written, file(fd) ? lseek(fd, 0, SEEK_CUR) : 0);
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t writev(int fd, const struct iovec *parts, int number) {
    ssize_t (*real)(int, const struct iovec *, int) = dlsym(RTLD_NEXT, "writev");
    if (!file(fd) && !is_socket(fd)) return real(fd, parts, number);
    /* Writes the first part only: callers write the rest themselves. */
    return number > 0 ? write(fd, parts[0].iov_base, parts[0].iov_len) : 0;
}

ssize_t send(int fd, const void *bytes, size_t length, int flags) {
    ssize_t (*real)(int, const void *, size_t, int) = dlsym(RTLD_NEXT, "send");
    pthread_mutex_lock(&lock);
    start();
    ssize_t sent = real(fd, bytes, length, flags | MSG_DONTWAIT);
    if (sent > 0) put('A', 0, 0, (uint64_t)sent, bytes);
    pthread_mutex_unlock(&lock);
    return sent;
}

ssize_t recv(int fd, void *bytes, size_t length, int flags) {
    ssize_t (*real)(int, void *, size_t, int) = dlsym(RTLD_NEXT, "recv");
    pthread_mutex_lock(&lock);
    start();
    ssize_t received = real(fd, bytes, length, flags | MSG_DONTWAIT);
    if (received > 0) put('B', 0, 0, (uint64_t)received, bytes);
    pthread_mutex_unlock(&lock);
    return received;
}

#define TRUNCATE(name, offset_type)                                     \
    int name(int fd, offset_type length) {                              \
        int (*real)(int, offset_type) = dlsym(RTLD_NEXT, #name);        \
        pthread_mutex_lock(&lock);                                      \
        int result = real(fd, length);                                  \
        if (result == 0 && file(fd)) put('T', file(fd), (uint64_t)length, 0, NULL); \
        pthread_mutex_unlock(&lock);                                    \
        return result;                                                  \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

/* After a sync, only writes from before its begin are on disk. */
#define SYNC(name)                                                      \
    int name(int fd) {                                                  \
        int (*real)(int) = dlsym(RTLD_NEXT, #name);                     \
        if (!file(fd)) return real(fd);                                 \
        pthread_mutex_lock(&lock);                                      \
        uint64_t before = entries;                                      \
        pthread_mutex_unlock(&lock);                                    \
        int result = getenv("POWER_NO_SYNC") ? 0 : real(fd);            \
        pthread_mutex_lock(&lock);                                      \
        if (result == 0 && !getenv("POWER_NO_SYNC")) put('S', file(fd), before, 0, NULL); \
        pthread_mutex_unlock(&lock);                                    \
        return result;                                                  \
    }
SYNC(fsync)
SYNC(fdatasync)

int rename(const char *from, const char *to) {
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
    char a[PATH_MAX], b[PATH_MAX], both[2 * PATH_MAX];
    pthread_mutex_lock(&lock);
    const char *old = below(from, a);
    int result = real(from, to);
    const char *new = result == 0 ? below(to, b) : NULL;
    if (old && new) {
        int length = snprintf(both, sizeof both, "%s\n%s", old, new);
        put('R', 0, 0, (uint64_t)length, both);
        for (uint32_t i = 1; i <= files; i++) {
            if (!paths[i]) continue;
            if (strcmp(paths[i], new) == 0) paths[i] = NULL;
            else if (strcmp(paths[i], old) == 0) paths[i] = strdup(new);
        }
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path) {
    int (*real)(const char *) = dlsym(RTLD_NEXT, "unlink");
    char buffer[PATH_MAX];
    pthread_mutex_lock(&lock);
    const char *name = below(path, buffer);
    int result = real(path);
    if (result == 0 && name) {
        put('U', 0, 0, strlen(name), name);
        for (uint32_t i = 1; i <= files; i++)
            if (paths[i] && strcmp(paths[i], name) == 0) paths[i] = NULL;
    }
    pthread_mutex_unlock(&lock);
    return result;
}
