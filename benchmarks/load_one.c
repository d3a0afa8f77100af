/* The work of `_load.py`, in C and with TLS 1.3: the other end of a contestant with one connection.

       load_one ROLE FILE SIZE PIECES WARM_UP PORT

   FILE has the pieces of SIZE bytes, which are sent or expected one after the other, over and over. At the end it
   writes a line of JSON: the number of pieces that it has checked, and the part of the time in which it was busy.

   It sends 64 KiB of ciphertext at a time, and receives up to 256 KiB. Record by record, as OpenSSL would do it, the
   load would be slower than the contestants. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { READ_AHEAD = 256 * 1024 };

static SSL *ssl;
static BIO *outgoing;
static char *pieces, *room;
static size_t size, period;
static int fd;

static void die(const char *format, ...) {
    va_list words;
    va_start(words, format);
    vfprintf(stderr, format, words);
    fputc('\n', stderr);
    exit(1);
}

static void demand(int is_so, const char *what) {
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    if (!is_so) die("%s: %s", what, reason ? reason : strerror(errno));
}

static void load_pieces(const char *path) {
    FILE *file = fopen(path, "rb");
    demand(file != NULL, path);
    demand(fseek(file, 0, SEEK_END) == 0, "fseek");
    period = ftell(file);
    rewind(file);
    demand((pieces = malloc(period)) != NULL && (room = malloc(size)) != NULL, "malloc");
    demand(fread(pieces, 1, period, file) == period, "fread");
    fclose(file);
}

static const char *piece(size_t number) { return pieces + number * size % period; }

/* Encrypt and send; 0 if the peer has left. */
static int offer(const char *data, size_t length) {
    char *ciphertext;
    demand(SSL_write(ssl, data, length) == (int)length, "SSL_write");
    size_t left = BIO_get_mem_data(outgoing, &ciphertext);
    while (left > 0) {
        ssize_t sent = send(fd, ciphertext, left, MSG_NOSIGNAL);
        if (sent < 0) return 0;
        ciphertext += sent, left -= sent;
    }
    (void)BIO_reset(outgoing);
    return 1;
}

static void put(const char *data, size_t length) { demand(offer(data, length), "send"); }

static void begin(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    int yes = 1;
    signal(SIGPIPE, SIG_IGN);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    demand((fd = socket(AF_INET, SOCK_STREAM, 0)) >= 0, "socket");
    demand(connect(fd, (struct sockaddr *)&address, sizeof address) == 0, "connect");
    demand(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) == 0, "setsockopt");
    demand(context && SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION), "SSL_CTX");
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, READ_AHEAD);
    demand((ssl = SSL_new(context)) != NULL && SSL_set_fd(ssl, fd), "SSL_new");
    demand(SSL_connect(ssl) == 1, "SSL_connect");
    demand((outgoing = BIO_new(BIO_s_mem())) != NULL, "BIO_new");
    SSL_set0_wbio(ssl, outgoing);
}

/* Receive a piece and compare it; 0 if it is the end instead. */
static void get(size_t number) {
    for (size_t came = 0; came < size;) {
        int count = SSL_read(ssl, room + came, size - came);
        /* Also without close_notify: SSLSocket's `close` sends none. */
        if (count <= 0) die("piece %zu has %zu bytes, %zu were sent", number, came, size);
        came += count;
    }
    const char *expected = piece(number);
    size_t same = 0;
    if (memcmp(room, expected, size) == 0) return;
    while (room[same] == expected[same]) same++;
    die("piece %zu is wrong from byte %zu on", number, same);
}

static size_t echo(size_t warm_up, size_t measured) {
    for (size_t number = 0; number < warm_up + measured; number++) {
        put(piece(number), size);
        get(number);
    }
    return warm_up + measured;
}

/* Until the contestant has enough and closes: at the end, uvloop's streams lose data that they have not delivered. */
static size_t feed(size_t warm_up, size_t measured) {
    size_t number = 0;
    while (offer(piece(number), size)) number++;
    if (number < warm_up + measured) die("the contestant left after %zu pieces: %s", number, strerror(errno));
    return 0;
}

static size_t drain(size_t warm_up, size_t measured) {
    for (size_t number = 0; number < warm_up + measured; number++) {
        get(number);
        if (number + 1 == warm_up || number + 1 == warm_up + measured) put("\6", 1);
    }
    return warm_up + measured;
}

static double busy_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + 1e-6 * (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

int main(int count, char **words) {
    struct timespec began, ended;
    size_t (*role)(size_t, size_t) = NULL;
    if (count != 7) die("usage: load_one ROLE FILE SIZE PIECES WARM_UP PORT");
    if (strcmp(words[1], "echo") == 0) role = echo;
    if (strcmp(words[1], "feed") == 0) role = feed;
    if (strcmp(words[1], "drain") == 0) role = drain;
    if (role == NULL) die("no role has the name %s", words[1]);
    size = atoi(words[3]);
    load_pieces(words[2]);
    begin(atoi(words[6]));
    double busy = busy_seconds();
    clock_gettime(CLOCK_MONOTONIC, &began);
    size_t checked = role(atoi(words[5]), atoi(words[4]));
    clock_gettime(CLOCK_MONOTONIC, &ended);
    double seconds = ended.tv_sec - began.tv_sec + 1e-9 * (ended.tv_nsec - began.tv_nsec);
    printf("{\"checked\": %zu, \"busy\": %.6f}\n", checked, (busy_seconds() - busy) / seconds);
    return 0;
}
