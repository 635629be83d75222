/* Makes sled 0.34 durable on Linux.
 *
 * After each write to its log sled calls sync_file_range, and takes what it wrote for stable: it
 * says so to those who wait, and writes over the places where older versions were. But
 * sync_file_range neither makes the device write its cache nor the file's length. This definition
 * stands before libc's, for this process alone, and keeps the promise that sled relies on.
 *
 * Whatever the reason of a failed sync, it is reported as EIO: after one nothing is known of what the
 * system holds, so it must not look like a full disk, from which the service goes on.
 *
 * docs/decisions/0008-real-syncs.md; tests/it/power.rs shows that it is there and that it is enough.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int sync_file_range(int fd, off64_t offset, off64_t length, unsigned int flags) {
    (void)offset;
    (void)length;
    (void)flags;
    int result = fdatasync(fd);
    if (result != 0)
        errno = EIO;
    return result;
}
