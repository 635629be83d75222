/* Injects disk failures and clock jumps into calls of libc.
 *
 * Preloaded (LD_PRELOAD) into the service. While the file $FAULT exists, writes to files named `db` fail
 * as on a full disk. With the content "sync", syncs of these files fail instead; with "space", syncs fail
 * with ENOSPC; with "at" and a number, the write or sync of this number fails once, counted from the
 * creation of the file. The file $FAULT.clock has the seconds by which the time of day is shifted.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum operation { WRITE, SYNC };

static int is_store(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    return length > 3 && memcmp(path + length - 3, "/db", 3) == 0;
}

/* Reads a file; returns its length, or -1 if it does not exist. */
static ssize_t said(const char *ending, char *word, size_t size) {
    char path[4096];
    snprintf(path, sizeof path, "%s%s", getenv("FAULT"), ending);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return -1;
    ssize_t length = read(file, word, size - 1);
    close(file);
    word[length < 0 ? 0 : length] = 0;
    return length;
}

/* Returns the errno with which an operation fails, or 0. */
static int failure(int fd, enum operation operation) {
    static atomic_long counted;
    char word[32];
    if (!is_store(fd) || said("", word, sizeof word) < 0) return 0;
    if (strncmp(word, "at ", 3) == 0) return atomic_fetch_add(&counted, 1) + 1 == atol(word + 3) ? EIO : 0;
    if (strncmp(word, "sync", 4) == 0) return operation == SYNC ? EIO : 0;
    if (strncmp(word, "space", 5) == 0) return operation == SYNC ? ENOSPC : 0;
    return operation == WRITE ? ENOSPC : 0;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    ssize_t (*real)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pwrite64");
    int error = failure(fd, WRITE);
    if (error) {
        errno = error;
        return -1;
    }
    return real(fd, bytes, length, offset);
}

int fdatasync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    int error = failure(fd, SYNC);
    if (error) {
        errno = error;
        return -1;
    }
    return real(fd);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    char seconds[32];
    if (result == 0 && clock == CLOCK_REALTIME && said(".clock", seconds, sizeof seconds) > 0)
        time->tv_sec += atol(seconds);
    return result;
}
