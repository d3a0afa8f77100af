/* Makes one system call of a process fail, once, with an errno of choice; preloaded (LD_PRELOAD), see shim.py.

   The control block is a file that both sides map. While it is armed every call of the kinds below is counted, and call
   number `fail_number` of kind `fail_kind` fails with `fail_errno` without being made, but for close(2), which closes
   first, as Linux does, and an interrupted connect(2), which goes on. Errors of a network do not befall Unix sockets,
   which is how the tested library wakes itself. Calls on immune descriptors, and those that libuv makes itself (it aborts the process when
   epoll_ctl fails), pass uncounted. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    RECV, SEND, SENDMSG, RECVMSG, ACCEPT, CONNECT, POLL, EPOLL_CTL, EPOLL_WAIT, SETSOCKOPT, GETSOCKOPT, GETSOCKNAME,
    SHUTDOWN, CLOSE, SOCKETPAIR, SOCKET, SENDFILE, KINDS
};

struct control {
    atomic_int armed, fail_kind, fail_number, fail_errno, fired, immune_count;
    atomic_int counts[KINDS];
    atomic_int immune[64];
};

static struct control *control;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("WIRELINE_SHIM");
    if (!path) return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *at = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at != MAP_FAILED) control = at;
}

static int of_libuv(void *caller) {
    Dl_info info;
    return dladdr(caller, &info) && info.dli_fname && strstr(info.dli_fname, "uvloop");
}

static int is_network_error(int code) {
    return code == ECONNRESET || code == EPIPE || code == ETIMEDOUT || code == EHOSTUNREACH || code == ECONNREFUSED;
}

static int is_unix(int fd) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    return syscall(SYS_getsockname, fd, &address, &length) == 0 && address.ss_family == AF_UNIX;
}

/* Whether this call is the one that fails; errno is set then. */
static int fails(int kind, int fd, void *caller) {
    if (!control || !control->armed) return 0;
    int saved = errno;
    for (int i = 0; i < control->immune_count; i++)
        if (control->immune[i] == fd) return 0;
    if (of_libuv(caller)) {
        errno = saved;
        return 0;
    }
    int number = atomic_fetch_add(&control->counts[kind], 1) + 1;
    errno = saved;
    if (kind != control->fail_kind || number != control->fail_number) return 0;
    if (is_network_error(control->fail_errno) && is_unix(fd)) {
        errno = saved;
        return 0;
    }
    control->fired = 1;
    errno = control->fail_errno;
    return 1;
}

#define CALLER __builtin_return_address(0)
#define REAL(name, ...) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name); \
    return real(__VA_ARGS__)

ssize_t recv(int fd, void *to, size_t size, int flags) {
    if (fails(RECV, fd, CALLER)) return -1;
    REAL(recv, fd, to, size, flags);
}
ssize_t recvfrom(int fd, void *to, size_t size, int flags, __SOCKADDR_ARG from, socklen_t *length) {
    if (fails(RECV, fd, CALLER)) return -1;
    REAL(recvfrom, fd, to, size, flags, from, length);
}
/* What a build with _FORTIFY_SOURCE calls instead. */
ssize_t __recv_chk(int fd, void *to, size_t size, size_t room, int flags) {
    if (size > room) abort();
    if (fails(RECV, fd, CALLER)) return -1;
    REAL(recv, fd, to, size, flags);
}
ssize_t __recvfrom_chk(int fd, void *to, size_t size, size_t room, int flags, __SOCKADDR_ARG from, socklen_t *length) {
    if (size > room) abort();
    if (fails(RECV, fd, CALLER)) return -1;
    REAL(recvfrom, fd, to, size, flags, from, length);
}
ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    if (fails(RECVMSG, fd, CALLER)) return -1;
    REAL(recvmsg, fd, message, flags);
}
ssize_t send(int fd, const void *from, size_t size, int flags) {
    if (fails(SEND, fd, CALLER)) return -1;
    REAL(send, fd, from, size, flags);
}
ssize_t sendto(int fd, const void *from, size_t size, int flags, __CONST_SOCKADDR_ARG to, socklen_t length) {
    if (fails(SEND, fd, CALLER)) return -1;
    REAL(sendto, fd, from, size, flags, to, length);
}
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    if (fails(SENDMSG, fd, CALLER)) return -1;
    REAL(sendmsg, fd, message, flags);
}
int accept(int fd, __SOCKADDR_ARG from, socklen_t *length) {
    if (fails(ACCEPT, fd, CALLER)) return -1;
    REAL(accept, fd, from, length);
}
int accept4(int fd, __SOCKADDR_ARG from, socklen_t *length, int flags) {
    if (fails(ACCEPT, fd, CALLER)) return -1;
    REAL(accept4, fd, from, length, flags);
}
int connect(int fd, __CONST_SOCKADDR_ARG to, socklen_t length) {
    static int (*real)(int, __CONST_SOCKADDR_ARG, socklen_t);
    if (!real) real = (int (*)(int, __CONST_SOCKADDR_ARG, socklen_t))dlsym(RTLD_NEXT, "connect");
    if (fails(CONNECT, fd, CALLER)) {
        int code = errno;
        if (code == EINTR) real(fd, to, length);
        errno = code;
        return -1;
    }
    return real(fd, to, length);
}
int poll(struct pollfd *fds, nfds_t count, int milliseconds) {
    if (fails(POLL, count ? fds[0].fd : -1, CALLER)) return -1;
    REAL(poll, fds, count, milliseconds);
}
int __poll_chk(struct pollfd *fds, nfds_t count, int milliseconds, size_t room) {
    if (count * sizeof(*fds) > room) abort();
    if (fails(POLL, count ? fds[0].fd : -1, CALLER)) return -1;
    REAL(poll, fds, count, milliseconds);
}
int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event) {
    /* Only what allocates can lack memory: a removal does not, see epoll_ctl(2). */
    if (operation != EPOLL_CTL_DEL && fails(EPOLL_CTL, fd, CALLER)) return -1;
    REAL(epoll_ctl, epoll, operation, fd, event);
}
int epoll_wait(int epoll, struct epoll_event *events, int most, int milliseconds) {
    if (fails(EPOLL_WAIT, epoll, CALLER)) return -1;
    REAL(epoll_wait, epoll, events, most, milliseconds);
}
int epoll_pwait(int epoll, struct epoll_event *events, int most, int milliseconds, const sigset_t *mask) {
    if (fails(EPOLL_WAIT, epoll, CALLER)) return -1;
    REAL(epoll_pwait, epoll, events, most, milliseconds, mask);
}
int setsockopt(int fd, int level, int option, const void *value, socklen_t length) {
    if (fails(SETSOCKOPT, fd, CALLER)) return -1;
    REAL(setsockopt, fd, level, option, value, length);
}
int getsockopt(int fd, int level, int option, void *value, socklen_t *length) {
    if (fails(GETSOCKOPT, fd, CALLER)) return -1;
    REAL(getsockopt, fd, level, option, value, length);
}
int getsockname(int fd, __SOCKADDR_ARG address, socklen_t *length) {
    if (fails(GETSOCKNAME, fd, CALLER)) return -1;
    REAL(getsockname, fd, address, length);
}
int shutdown(int fd, int how) {
    static int (*real)(int, int);
    if (!real) real = (int (*)(int, int))dlsym(RTLD_NEXT, "shutdown");
    if (fails(SHUTDOWN, fd, CALLER)) {
        int code = errno;
        if (code == ENOTCONN) real(fd, SHUT_RDWR); /* what is not connected any more is read to its end */
        errno = code;
        return -1;
    }
    return real(fd, how);
}
int socketpair(int domain, int type, int protocol, int fds[2]) {
    if (fails(SOCKETPAIR, -1, CALLER)) return -1;
    REAL(socketpair, domain, type, protocol, fds);
}
int socket(int domain, int type, int protocol) {
    if (fails(SOCKET, -1, CALLER)) return -1;
    REAL(socket, domain, type, protocol);
}
ssize_t sendfile(int out, int in, off_t *offset, size_t size) {
    if (fails(SENDFILE, out, CALLER)) return -1;
    REAL(sendfile, out, in, offset, size);
}
/* Where offsets have 64 bits in any case, its other name. */
ssize_t sendfile64(int out, int in, off64_t *offset, size_t size) {
    if (fails(SENDFILE, out, CALLER)) return -1;
    REAL(sendfile64, out, in, offset, size);
}
int close(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "close");
    struct stat status;
    int saved = errno;
    /* Files that the interpreter opens and closes by itself (modules, sources for tracebacks) are not ours. */
    int ours = control && control->armed && fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode);
    errno = saved;
    if (ours && fails(CLOSE, fd, CALLER)) {
        saved = errno;
        real(fd);
        errno = saved;
        return -1;
    }
    return real(fd);
}
