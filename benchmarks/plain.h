/* How `load.c` sends and receives without TLS. */

enum { RESUMES = 0 };

struct transport {
    char nothing;
};

static void prepare_transport(void) {}

static void open_transport(struct transport *t, int fd, int resuming) { (void)t, (void)fd, (void)resuming; }

/* As send(2) and recv(2), which do not wait. */
static ssize_t transmit(struct transport *t, int fd, const char *data, size_t length) {
    (void)t;
    return send(fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static ssize_t collect(struct transport *t, int fd, char *data, size_t room) {
    (void)t;
    return recv(fd, data, room, MSG_DONTWAIT);
}

/* Whether data is buffered outside the kernel. */
static int holds_more(struct transport *t) { return (void)t, 0; }

/* Whether data must be received before more can be sent. */
static int must_receive(struct transport *t) { return (void)t, 0; }

static int was_resumed(struct transport *t) { return (void)t, 0; }

static int end_transport(struct transport *t, int fd) { return (void)t, shutdown(fd, SHUT_WR); }

static void close_transport(struct transport *t, int fd) { (void)t, close(fd); }
