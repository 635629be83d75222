/* Makes the disk fail at the border of libc.
 *
 * Preloaded (LD_PRELOAD) into the service. While the file $FAULT exists, what is written to files named
 * `db` fails as on a full disk; if the file says "sync", syncing them fails instead.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_store(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    return length > 3 && memcmp(path + length - 3, "/db", 3) == 0;
}

static int fails(int fd, int at_sync) {
    char word[5] = "";
    int file = open(getenv("FAULT"), O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t length = read(file, word, 4);
    close(file);
    return (length == 4 && strcmp(word, "sync") == 0) == at_sync && is_store(fd);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    ssize_t (*real)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pwrite64");
    if (fails(fd, 0)) {
        errno = ENOSPC;
        return -1;
    }
    return real(fd, bytes, length, offset);
}

int fdatasync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    if (fails(fd, 1)) {
        errno = EIO;
        return -1;
    }
    return real(fd);
}
