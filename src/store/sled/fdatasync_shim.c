/* Durable syncs for sled 0.34 on Linux.
 *
 * After each write to its log sled calls sync_file_range, and treats the written data as durable: it wakes the
 * waiters, and overwrites the places of older versions. But sync_file_range flushes neither the write cache of the
 * device nor the length of the file. This definition takes precedence over that of libc, in this process alone, and
 * calls fdatasync instead.
 *
 * A failed sync is final. The system reports the failure only once, to the next sync of the file, which may be that of
 * a thread of sled that ignores errors; and the system may then mark pages clean that were not written. So after the
 * first failure every sync of the process fails, always with EIO: the failure must not look like a full disk, after
 * which the service continues.
 *
 * docs/decisions/0008-real-syncs.md; tests/faults/power_loss.rs and tests/faults/io.rs test the definition.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

static int sticky_failure(int result) {
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
    return sticky_failure(fdatasync(fd));
}

int fsync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    /* A static program has no other fsync. */
    return sticky_failure(real ? real(fd) : (int)syscall(SYS_fsync, fd));
}
