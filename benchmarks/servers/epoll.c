/* C with epoll: the limit for a server on this machine. One thread, level-triggered, one buffer for all connections;
   data that the kernel does not take at once waits in the connection, which is not read meanwhile. See `__init__.py`
   for its arguments and output. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK = 64 * 1024, EVENTS = 256, BACKLOG = 1024, GREETING = 64 };

struct connection {
    int fd;
    char *rest; /* an incomplete line, or data that the kernel did not take */
    size_t length;
    int waits_to_send;
};

static char chunk[CHUNK], greeting[GREETING];
static int poller;

static void demand(int is_so, const char *what) {
    if (!is_so) perror(what), exit(1);
}

static void watch(struct connection *c, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    demand(epoll_ctl(poller, operation, c->fd, &event) == 0, "epoll_ctl");
}

static void end(struct connection *c) {
    close(c->fd);
    free(c->rest);
    free(c);
}

/* Keep data in the connection. */
static void keep(struct connection *c, const char *data, size_t length) {
    if (length == 0) return;
    demand((c->rest = realloc(c->rest, c->length + length)) != NULL, "realloc");
    memcpy(c->rest + c->length, data, length);
    c->length += length;
}

/* Send, and keep the rest; 0 if the connection has ended. */
static int answer(struct connection *c, const char *data, size_t length) {
    ssize_t sent = send(c->fd, data, length, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return 0;
    if (sent < 0) sent = 0;
    if ((size_t)sent == length) return 1;
    keep(c, data + sent, length - sent);
    c->waits_to_send = 1;
    watch(c, EPOLL_CTL_MOD, EPOLLOUT);
    return 1;
}

static int send_kept(struct connection *c) {
    ssize_t sent = send(c->fd, c->rest, c->length, MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN;
    c->length -= sent;
    memmove(c->rest, c->rest + sent, c->length);
    if (c->length > 0) return 1;
    c->waits_to_send = 0;
    watch(c, EPOLL_CTL_MOD, EPOLLIN);
    return 1;
}

static int echo(struct connection *c, size_t length) { return answer(c, chunk, length); }

/* Return all whole lines of one receive; keep the rest. */
static int lines(struct connection *c, size_t length) {
    char *end_of_line = memrchr(chunk, '\n', length);
    if (end_of_line == NULL) return keep(c, chunk, length), 1;
    size_t whole = end_of_line + 1 - chunk;
    if (c->length == 0 && whole == length) return answer(c, chunk, length);
    keep(c, chunk, whole);
    char *ready = c->rest;
    size_t ready_length = c->length;
    c->rest = NULL, c->length = 0;
    int going_on = answer(c, ready, ready_length);
    free(ready);
    if (going_on) keep(c, chunk + whole, length - whole);
    return going_on;
}

static int (*role)(struct connection *, size_t);

static void serve(struct connection *c) {
    int going_on;
    if (c->waits_to_send) {
        going_on = send_kept(c);
    } else {
        ssize_t count = recv(c->fd, chunk, CHUNK, 0);
        going_on = count > 0 ? role(c, count) : count < 0 && errno == EAGAIN;
    }
    if (!going_on) end(c);
}

static void accept_all(int listener) {
    int fd, yes = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        demand(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) == 0, "setsockopt");
        if (role == NULL) {
            send(fd, greeting, GREETING, MSG_NOSIGNAL);
            close(fd);
            continue;
        }
        struct connection *c = calloc(1, sizeof *c);
        demand(c != NULL, "calloc");
        c->fd = fd;
        watch(c, EPOLL_CTL_ADD, EPOLLIN);
    }
    demand(errno == EAGAIN || errno == ECONNABORTED, "accept4");
}

static void obey(void) {
    char words[64];
    struct rusage usage;
    if (read(0, words, sizeof words) <= 0) exit(0);
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"user\": %ld.%06ld, \"system\": %ld.%06ld}\n", usage.ru_utime.tv_sec, usage.ru_utime.tv_usec,
           usage.ru_stime.tv_sec, usage.ru_stime.tv_usec);
    fflush(stdout);
}

static int listen_anywhere(void) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    demand(listener >= 0, "socket");
    demand(bind(listener, (struct sockaddr *)&address, sizeof address) == 0, "bind");
    demand(listen(listener, BACKLOG) == 0, "listen");
    demand(getsockname(listener, (struct sockaddr *)&address, &length) == 0, "getsockname");
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

int main(int count, char **words) {
    struct connection listening = {.fd = -1}, control = {.fd = 0};
    struct epoll_event events[EVENTS];
    if (count != 2) return fprintf(stderr, "usage: epoll ROLE\n"), 2;
    role = strcmp(words[1], "echo") == 0 ? echo : strcmp(words[1], "lines") == 0 ? lines : NULL;
    memset(greeting, 'w', GREETING - 1);
    greeting[GREETING - 1] = '\n';
    demand((poller = epoll_create1(EPOLL_CLOEXEC)) >= 0, "epoll_create1");
    listening.fd = listen_anywhere();
    watch(&listening, EPOLL_CTL_ADD, EPOLLIN);
    watch(&control, EPOLL_CTL_ADD, EPOLLIN);
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (c == &listening) accept_all(c->fd);
            else if (c == &control) obey();
            else serve(c);
        }
    }
}
