/* How `load.c` sends and receives with TLS 1.3. The server's certificate is not verified. */

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>

enum { RESUMES = 1, READ_AHEAD = 128 * 1024 };

struct transport {
    SSL *ssl;
    int holds_more;
};

static SSL_CTX *context;
static SSL_SESSION *session; /* the newest ticket */

static void demand_tls(int is_so, const char *what) {
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : strerror(errno);
    if (!is_so) die("%s: %s", what, reason ? reason : "no reason was given");
}

/* OpenSSL marks the session of a handshake that is done as used. Each connection offers a copy, so that others may
   begin with the same one before the next ticket arrives. */
static void offer_session(SSL *ssl) {
    SSL_SESSION *copy;
    demand_tls((copy = SSL_SESSION_dup(session)) != NULL, "SSL_SESSION_dup");
    demand_tls(SSL_set_session(ssl, copy), "SSL_set_session");
    SSL_SESSION_free(copy);
}

static int keep_session(SSL *ssl, SSL_SESSION *came) {
    (void)ssl;
    SSL_SESSION_free(session);
    session = came;
    return 1;
}

static void prepare_transport(void) {
    signal(SIGPIPE, SIG_IGN);
    demand_tls((context = SSL_CTX_new(TLS_client_method())) != NULL, "SSL_CTX_new");
    demand_tls(SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION), "SSL_CTX_set_min_proto_version");
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, READ_AHEAD);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, keep_session);
}

/* OpenSSL's result, in the form of send(2) and recv(2). */
static ssize_t translated(SSL *ssl, int count, const char *what) {
    if (count > 0) return count;
    switch (SSL_get_error(ssl, count)) {
    case SSL_ERROR_ZERO_RETURN: return 0;
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: errno = EAGAIN; return -1;
    case SSL_ERROR_SYSCALL: if (errno == 0) errno = ECONNRESET; /* fall through */
    default: demand_tls(0, what);
    }
    return -1;
}

static void open_transport(struct transport *t, int fd, int resuming) {
    demand(fcntl(fd, F_SETFL, O_NONBLOCK) == 0, "fcntl");
    demand_tls((t->ssl = SSL_new(context)) != NULL, "SSL_new");
    demand_tls(SSL_set_fd(t->ssl, fd), "SSL_set_fd");
    if (resuming && session) offer_session(t->ssl);
    t->holds_more = 0;
    translated(t->ssl, SSL_connect(t->ssl), "SSL_connect");
}

static ssize_t transmit(struct transport *t, int fd, const char *data, size_t length) {
    (void)fd;
    ERR_clear_error();
    return translated(t->ssl, SSL_write(t->ssl, data, length), "SSL_write");
}

static ssize_t collect(struct transport *t, int fd, char *data, size_t room) {
    size_t came = 0;
    (void)fd;
    ERR_clear_error();
    do {
        ssize_t count = translated(t->ssl, SSL_read(t->ssl, data + came, room - came), "SSL_read");
        t->holds_more = 0;
        if (count <= 0) {
            /* An end after data is reported next time: SSL_read repeats it. */
            t->holds_more = count == 0 && came > 0;
            return came ? (ssize_t)came : count;
        }
        came += count;
    } while (came < room && SSL_has_pending(t->ssl));
    t->holds_more = SSL_has_pending(t->ssl);
    return came;
}

static int holds_more(struct transport *t) { return t->holds_more; }

static int must_receive(struct transport *t) { return SSL_in_init(t->ssl); }

static int was_resumed(struct transport *t) { return SSL_session_reused(t->ssl); }

static int end_transport(struct transport *t, int fd) {
    (void)fd;
    return SSL_shutdown(t->ssl) < 0 ? -1 : 0;
}

static void close_transport(struct transport *t, int fd) {
    SSL_shutdown(t->ssl);
    ERR_clear_error();
    SSL_free(t->ssl);
    close(fd);
}
