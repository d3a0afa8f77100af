/* The other end of every server: quick enough not to be the bottleneck.

       load ROLE CONNECTIONS OUTSTANDING SIZE MESSAGES WARM_UP PORT

   echo     keeps OUTSTANDING messages in flight on each of CONNECTIONS, and compares the answers
   connect  opens connections, CONNECTIONS of them at a time, each greeted and closed by the server
   idle     opens connections in the same way, lets each echo one message, and keeps it

   It does WARM_UP of these, then MESSAGES, then ends all connections: three steps, after each of which it writes a line
   of JSON, and before the second and third of which it waits for a line on its standard input. A wrong or a missing
   answer ends it with a reason on its standard error. `_load_many.py` does the same in Python.

   Compiled with -DTLS it uses TLS 1.3, and has one role more:

   resume   as connect, and every connection that is measured resumes a session */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 256 * 1024, EVENTS = 256, PATIENCE_MS = 10000, PATTERN = 128 * 1024, GREETING = 64, OPENING = 64 };

static void die(const char *format, ...) {
    va_list words;
    va_start(words, format);
    vfprintf(stderr, format, words);
    fputc('\n', stderr);
    exit(1);
}

static void demand(int is_so, const char *what) {
    if (!is_so) die("%s: %s", what, strerror(errno));
}

#ifdef TLS
#include "tls.h"
#else
#include "plain.h"
#endif

struct connection {
    int fd;                           /* -1 where it has ended */
    struct transport transport;
    size_t start;                     /* where in the pattern its bytes begin */
    uint64_t granted, sent, received; /* bytes: that it may send, has sent, got back */
    int waits_to_send;
};

struct role {
    const char *name;
    void (*begin)(void);
    void (*serve)(struct connection *, uint32_t events);
};

static struct connection *all;
static unsigned opened, at_a_time;
static size_t size, outstanding, period;
static char *pattern; /* the period twice, so that a message that begins in the first is in one piece */
static char chunk[CHUNK], greeting[GREETING];
static uint64_t left, done;
static int poller, port, resuming;

/* Messages that differ, each a line that begins with its number. */
static void make_pattern(void) {
    size_t messages = PATTERN / size < 5 ? 5 : (PATTERN / size) | 1; /* odd: the period fits no buffer */
    uint32_t noise = 1;
    period = messages * size;
    demand((pattern = malloc(2 * period)) != NULL, "malloc");
    for (size_t i = 0; i < period; i++) {
        noise ^= noise << 13, noise ^= noise >> 17, noise ^= noise << 5;
        pattern[i] = 'a' + noise % 26;
    }
    for (size_t number = 0; number < messages; number++) {
        char digits[32];
        int length = snprintf(digits, sizeof digits, "%zu ", number);
        memcpy(pattern + number * size, digits, length);
        pattern[(number + 1) * size - 1] = '\n';
    }
    memcpy(pattern + period, pattern, period);
    memset(greeting, 'w', GREETING - 1);
    greeting[GREETING - 1] = '\n';
}

static void watch(struct connection *c, int operation) {
    struct epoll_event event = {.events = c->waits_to_send ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
    demand(epoll_ctl(poller, operation, c->fd, &event) == 0, "epoll_ctl");
}

static void open_connection(struct connection *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int yes = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memset(c, 0, sizeof *c);
    c->start = (c - all) * 31 % (period / size) * size;
    demand((c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0, "socket");
    demand(connect(c->fd, (struct sockaddr *)&address, sizeof address) == 0, "connect");
    demand(setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) == 0, "setsockopt");
    open_transport(&c->transport, c->fd, resuming);
    watch(c, EPOLL_CTL_ADD);
}

/* Let a connection send as many messages as it may have in flight. */
static void grant(struct connection *c, size_t in_flight) {
    while (left > 0 && c->granted - c->received / size * size < in_flight * size) {
        c->granted += size;
        left--;
    }
    while (c->sent < c->granted) {
        size_t length = c->granted - c->sent < period ? c->granted - c->sent : period;
        ssize_t sent = transmit(&c->transport, c->fd, pattern + (c->start + c->sent) % period, length);
        if (sent < 0 && errno != EAGAIN) die("connection %td: send: %s", c - all, strerror(errno));
        if (sent > 0) c->sent += sent;
        if (sent < 0) break;
    }
    int waits_to_send = c->sent < c->granted && !must_receive(&c->transport);
    if (c->waits_to_send != waits_to_send) {
        c->waits_to_send = waits_to_send;
        watch(c, EPOLL_CTL_MOD);
    }
}

static ssize_t receive(struct connection *c) {
    ssize_t count = collect(&c->transport, c->fd, chunk, CHUNK);
    if (count < 0 && errno != EAGAIN) die("connection %td: recv: %s", c - all, strerror(errno));
    return count;
}

static void compare(struct connection *c, const char *came, const char *expected, size_t count) {
    if (memcmp(came, expected, count) == 0) return;
    size_t same = 0;
    while (came[same] == expected[same]) same++;
    die("connection %td is wrong from byte %llu on", c - all, (unsigned long long)(c->received + same));
}

static void take(struct connection *c) {
    ssize_t count = receive(c);
    if (count < 0) return;
    if (count == 0)
        die("connection %td was closed after %llu bytes, %llu were sent", c - all, (unsigned long long)c->received,
            (unsigned long long)c->sent);
    if ((uint64_t)count > c->sent - c->received) die("connection %td brought more bytes than were sent", c - all);
    uint64_t before = c->received / size;
    for (size_t seen = 0; seen < (size_t)count;) {
        size_t some = count - seen < period ? count - seen : period;
        compare(c, chunk + seen, pattern + (c->start + c->received) % period, some);
        seen += some;
        c->received += some;
    }
    done += c->received / size - before;
}

static void open_idle(void) {
    struct connection *c = &all[opened++];
    open_connection(c);
    grant(c, 1);
}

static void begin_echo(void) {
    while (opened < at_a_time && opened < OPENING) open_idle();
    if (opened == at_a_time)
        for (unsigned i = 0; i < opened; i++) grant(&all[i], outstanding);
}

/* While there are connections to open, each has one message, and then the next is opened: a server with more of them
   to accept than its backlog holds would let them wait for a second. */
static void serve_echo(struct connection *c, uint32_t events) {
    int is_first = c->received < size;
    if (events & ~EPOLLOUT) take(c);
    int opening = opened < at_a_time;
    if (opening && is_first && c->received >= size) open_idle();
    grant(c, opening ? 0 : outstanding);
}

static void begin_idle(void) {
    for (unsigned i = 0; i < at_a_time && left > 0; i++) open_idle();
}

static void serve_idle(struct connection *c, uint32_t events) {
    if (events & ~EPOLLOUT) take(c);
    if (c->received == size && left > 0) open_idle();
}

static void begin_connect(void) {
    for (unsigned i = 0; i < at_a_time && left > 0; i++, left--) open_connection(&all[i]);
}

static void serve_connect(struct connection *c, uint32_t events) {
    (void)events;
    ssize_t count = receive(c);
    if (count < 0) return;
    if (c->received + count > GREETING) die("connection %td brought more than the greeting", c - all);
    compare(c, chunk, greeting + c->received, count);
    c->received += count;
    if (count > 0) return;
    if (c->received < GREETING)
        die("connection %td was closed after %llu bytes of the greeting", c - all, (unsigned long long)c->received);
    if (resuming > 1 && !was_resumed(&c->transport)) die("connection %td resumed no session", c - all);
    close_transport(&c->transport, c->fd);
    c->fd = -1;
    done++;
    if (left > 0) left--, open_connection(c);
}

/* After our end the server must end too, without further data. */
static void serve_end(struct connection *c, uint32_t events) {
    (void)events;
    ssize_t count = receive(c);
    if (count < 0) return;
    if (count > 0) die("connection %td brought more bytes than were sent", c - all);
    close_transport(&c->transport, c->fd);
    c->fd = -1;
    done++;
}

static void begin_end(void) {
    for (unsigned i = 0; i < opened; i++) demand(end_transport(&all[i].transport, all[i].fd) == 0, "shutdown");
}

static const struct role ROLES[] = {
    {"echo", begin_echo, serve_echo},
    {"connect", begin_connect, serve_connect},
    {"idle", begin_idle, serve_idle},
    {"resume", begin_connect, serve_connect}};
static const struct role END = {"end", begin_end, serve_end};

static void run(const struct role *role, uint64_t quota) {
    struct epoll_event events[EVENTS];
    left = quota;
    done = 0;
    if (quota) role->begin();
    while (done < quota) {
        int count = epoll_wait(poller, events, EVENTS, PATIENCE_MS);
        if (count == 0)
            die("%llu of %llu came, and then nothing for %d s", (unsigned long long)done, (unsigned long long)quota,
                PATIENCE_MS / 1000);
        if (count < 0 && errno != EINTR) die("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            role->serve(c, events[i].events);
            while (c->fd >= 0 && holds_more(&c->transport)) role->serve(c, EPOLLIN);
        }
    }
}

static double seconds(struct timeval time) { return time.tv_sec + 1e-6 * time.tv_usec; }

static void report(uint64_t checked, struct timespec began, struct rusage before) {
    struct timespec now;
    struct rusage usage;
    clock_gettime(CLOCK_MONOTONIC, &now);
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"seconds\": %.9f, \"busy\": %.6f, \"checked\": %llu}\n",
           now.tv_sec - began.tv_sec + 1e-9 * (now.tv_nsec - began.tv_nsec),
           seconds(usage.ru_utime) + seconds(usage.ru_stime) - seconds(before.ru_utime) - seconds(before.ru_stime),
           (unsigned long long)checked);
    fflush(stdout);
}

static void step(const struct role *role, uint64_t quota) {
    static uint64_t checked;
    struct timespec began;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    clock_gettime(CLOCK_MONOTONIC, &began);
    run(role, quota);
    if (role != &END) checked += done;
    report(checked, began, usage);
}

static void wait_for_a_line(void) {
    int c;
    while ((c = getchar()) != '\n')
        if (c == EOF) exit(1);
}

int main(int count, char **words) {
    const struct role *role = NULL;
    if (count != 8) die("usage: load ROLE CONNECTIONS OUTSTANDING SIZE MESSAGES WARM_UP PORT");
    for (unsigned i = 0; i < sizeof ROLES / sizeof *ROLES - !RESUMES; i++)
        if (strcmp(words[1], ROLES[i].name) == 0) role = &ROLES[i];
    if (role == NULL) die("no role has the name %s", words[1]);
    at_a_time = atoi(words[2]), outstanding = atoi(words[3]), size = atoi(words[4]), port = atoi(words[7]);
    uint64_t messages = strtoull(words[5], NULL, 10), warm_up = strtoull(words[6], NULL, 10);
    make_pattern();
    demand((all = calloc(at_a_time + messages + warm_up, sizeof *all)) != NULL, "calloc");
    demand((poller = epoll_create1(EPOLL_CLOEXEC)) >= 0, "epoll_create1");
    prepare_transport();
    resuming = strcmp(role->name, "resume") == 0;
    step(role, warm_up);
    resuming *= 2; /* from here on every connection has a session */
    wait_for_a_line();
    step(role, messages);
    wait_for_a_line();
    step(&END, opened);
    return 0;
}
