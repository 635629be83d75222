/* Makes sled 0.34 durable on Linux.
 *
 * After each write to its log sled calls sync_file_range, and takes what it wrote for stable: it
 * says so to those who wait, and writes over the places where older versions were. But
 * sync_file_range neither makes the device write its cache nor the file's length. This definition
 * stands before libc's, for this process alone, and keeps the promise that sled relies on.
 *
 * A failed sync is final. The system reports it once, to whoever syncs next, which may be a thread of
 * sled's that does not listen; and may then call pages clean that it did not write. So from the first
 * failure on every sync of the process fails, and always as EIO: it must not look like a full disk,
 * from which the service goes on.
 *
 * docs/decisions/0008-real-syncs.md; tests/faults/power_loss.rs and tests/faults/io.rs show that it is there.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

static int settled(int result) {
    static atomic_int failed;
    if (result != 0 && (errno == EIO || errno == ENOSPC || errno == EDQUOT))
        atomic_store(&failed, 1);
    if (!atomic_load(&failed)) return result;
    errno = EIO;
    return -1;
}

int sync_file_range(int fd, off_t offset, off_t length, unsigned int flags) {
    (void)offset;
    (void)length;
    (void)flags;
    return settled(fdatasync(fd));
}

int fsync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    /* A static program has no other than this one. */
    return settled(real ? real(fd) : (int)syscall(SYS_fsync, fd));
}
