/* Stands before the C library's getrandom: while the file $NO_RANDOMNESS_WHILE is there, the thread that keeps the
 * records gets no randomness. The relay panics where it has none to seal with, with a client's address at hand. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

ssize_t getrandom(void *out, size_t length, unsigned int flags)
{
    const char *file = getenv("NO_RANDOMNESS_WHILE");
    char thread[16] = "";
    prctl(PR_GET_NAME, thread);
    if (file != NULL && strcmp(thread, "store") == 0 && access(file, F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_getrandom, out, length, flags);
}
