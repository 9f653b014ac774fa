/* Many WebSocket clients in one process, which count and time the tokens that they are sent.
 *
 *     reader PORT CONNECTIONS [-p PATH] [-j FRAME READY] [-s STALLED] [-n TOKENS] [-w WARM_MS]
 *
 * Opens the connections (subprotocol dm-rpc), sends each the text frame FRAME if there is one,
 * and holds it for ready when a frame comes that begins with READY (by default the welcome).
 * The first STALLED connections stop reading then; their buffers are small, so that they fill.
 *
 * It is driven by lines on standard input and answers in lines of JSON on standard output:
 *
 *     (all are ready)     {"ready": N, "seconds": S}
 *     first TEXT          the first connection that reads sends TEXT
 *     each TEXT           every connection that reads does, its number in the place of a #
 *     count               {"delivered": tokens so far, to all}
 *     (all have TOKENS)   the result, then again from zero
 *     result              the result so far, then again from zero
 *     (end of input)      it exits
 *
 * A token is "@NS" in the text of a token event, NS being the CLOCK_MONOTONIC time at which the
 * source made it. Tokens of one connection must rise: one that does not was out of order or
 * came twice. Those of the first WARM_MS after the first are counted but not timed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    IN_BUFFER = 1 << 20,
    OPENING_AT_ONCE = 64,
    HISTOGRAM = 64 * 64, /* 64 buckets for each power of two: off by at most 1.6 % */
    SMALL_SEGMENT = 536, /* keeps the other side's send buffer for a stalled client small */
    SMALL_BUFFER = 2048,
};

enum state { CONNECTING, SHAKING, WAITING, READY, CLOSED };

struct client {
    int fd;
    enum state state;
    int stalled;
    char *rest; /* the begun frame or head that the last read ended with */
    size_t rest_len;
    uint64_t skip; /* bytes still to come of a frame that doesn't matter */
    int64_t last;  /* the latest token */
    long tokens;
};

static struct client *clients;
static int wanted, opened, ready, closed, close_code, stalled, poll_fd, port;
static const char *path = "/ws", *join, *ready_mark = "[\"welcome\"";
static long goal;
static int64_t warm = 0;

static uint32_t histogram[HISTOGRAM];
static int64_t timed, worst, first_seen, first_made, last_made, last_seen, last_delay;
static long delivered, disorder, complete;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* ---- the measured times ---- */

static int bucket(uint64_t ns) {
    if (ns < 64)
        return (int)ns;
    int shift = 57 - __builtin_clzll(ns);
    return (shift + 1) * 64 + (int)((ns >> shift) & 63);
}

static double bucket_ms(int b) {
    if (b < 64)
        return b / 1e6;
    return (double)((uint64_t)(64 + b % 64) << (b / 64 - 1)) / 1e6;
}

static double percentile(double part) {
    int64_t seen = 0, wish = (int64_t)(part * (double)timed);
    for (int b = 0; b < HISTOGRAM; b++)
        if ((seen += histogram[b]) > wish)
            return bucket_ms(b);
    return 0;
}

static void token(struct client *c, int64_t made, int64_t now) {
    if (!first_seen)
        first_seen = now, first_made = made;
    if (made <= c->last)
        disorder++;
    c->last = made;
    last_seen = now;
    if (made > last_made)
        last_made = made, last_delay = 0;
    int64_t delay = now - made;
    if (made == last_made && delay > last_delay)
        last_delay = delay;
    if (now - first_seen >= warm) {
        histogram[bucket((uint64_t)(delay > 0 ? delay : 0))]++;
        timed++;
        if (delay > worst)
            worst = delay;
    }
    delivered++;
    if (++c->tokens == goal)
        complete++;
}

static void print_result(void) {
    long reading = wanted - stalled, missing = 0;
    for (int i = stalled; i < wanted; i++)
        missing += goal > clients[i].tokens ? goal - clients[i].tokens : 0;
    double span = (double)(last_seen - first_seen) / 1e9, made = (double)(last_made - first_made) / 1e9;
    printf("{\"reading\":%ld,\"tokens\":%ld,\"missing\":%ld,\"disorder\":%ld,\"closed\":%d,"
           "\"code\":%d,\"p50_ms\":%.4f,\"p99_ms\":%.4f,\"max_ms\":%.4f,\"lag_ms\":%.4f,"
           "\"seconds\":%.4f,\"source_seconds\":%.4f}\n",
           reading, delivered, missing, disorder, closed, close_code, percentile(.5), percentile(.99),
           (double)worst / 1e6, (double)last_delay / 1e6, span, made);
    fflush(stdout);
    memset(histogram, 0, sizeof histogram);
    timed = worst = first_seen = first_made = last_made = last_seen = last_delay = 0;
    delivered = disorder = complete = 0;
    for (int i = 0; i < wanted; i++)
        clients[i].tokens = clients[i].last = 0;
}

/* ---- one connection ---- */

static void say(struct client *c, int opcode, const char *payload, size_t len) {
    char out[4096 + 8] = {(char)(0x80 | opcode)};
    size_t head = len < 126 ? 6 : 8; /* the mask is zero: the payload goes as it is */
    if (len > 4096)
        return;
    out[1] = (char)(0x80 | (len < 126 ? len : 126));
    if (len >= 126) {
        out[2] = (char)(len >> 8);
        out[3] = (char)len;
    }
    memset(out + head - 4, 0, 4);
    memcpy(out + head, payload, len);
    if (write(c->fd, out, head + len) != (ssize_t)(head + len))
        fprintf(stderr, "reader: a frame was not sent\n");
}

static void lose(struct client *c) {
    close(c->fd);
    c->state = CLOSED;
    closed++;
}

static void become_ready(struct client *c) {
    c->state = READY;
    ready++;
    if (c->stalled)
        epoll_ctl(poll_fd, EPOLL_CTL_DEL, c->fd, NULL);
}

static int begins(const char *payload, size_t len, const char *with) {
    return len >= strlen(with) && !memcmp(payload, with, strlen(with));
}

static int is_token(const char *payload, size_t len) {
    return begins(payload, len, "[\"token\"") || begins(payload, len, "[\"llm_token\"");
}

static void text(struct client *c, const char *payload, size_t len, int64_t now) {
    if (c->state == READY && is_token(payload, len)) {
        const char *at = payload, *end = payload + len;
        while ((at = memchr(at, '@', (size_t)(end - at)))) {
            int64_t made = 0;
            for (at++; at < end && *at >= '0' && *at <= '9'; at++)
                made = made * 10 + (*at - '0');
            token(c, made, now);
        }
    } else if (c->state == WAITING && begins(payload, len, ready_mark)) {
        become_ready(c);
    }
}

/* Take one frame of at least `need` known bytes; returns how many were used, 0 for "more". */
static size_t frame(struct client *c, char *in, size_t len, int64_t now) {
    unsigned char *p = (unsigned char *)in;
    size_t head = 2;
    if (len < 2)
        return 0;
    uint64_t size = p[1];
    if (size >= 126) {
        head = size == 126 ? 4 : 10;
        if (len < head)
            return 0;
        size = 0;
        for (size_t i = 2; i < head; i++)
            size = size << 8 | p[i];
    }
    char *payload = in + head;
    size_t here = len - head;
    int opcode = p[0] & 15;
    if (here < size) {
        /* Only tokens are needed whole; of others the first bytes say all. */
        if (here < 64 || opcode > 2 || is_token(payload, here))
            return 0;
        text(c, payload, here, now);
        c->skip = size - here;
        return len;
    }
    if (opcode == 1)
        text(c, payload, size, now);
    else if (opcode == 9)
        say(c, 10, payload, size);
    else if (opcode == 8)
        close_code = size >= 2 ? p[head] << 8 | p[head + 1] : 1005;
    return head + size;
}

static size_t handshake_answer(struct client *c, char *in, size_t len) {
    char *end = memmem(in, len, "\r\n\r\n", 4);
    if (!end)
        return 0;
    if (memcmp(in, "HTTP/1.1 101", 12)) {
        fprintf(stderr, "reader: refused: %.*s\n", (int)(len < 400 ? len : 400), in);
        exit(1);
    }
    c->state = WAITING;
    if (join)
        say(c, 1, join, strlen(join));
    return (size_t)(end + 4 - in);
}

static void take(struct client *c, char *in, size_t len, int64_t now) {
    while (len && c->state != CLOSED) {
        size_t used;
        if (c->skip) {
            used = c->skip < len ? c->skip : len;
            c->skip -= used;
        } else if (c->state == SHAKING) {
            used = handshake_answer(c, in, len);
        } else {
            used = frame(c, in, len, now);
        }
        if (!used)
            break;
        in += used;
        len -= used;
    }
    free(c->rest);
    c->rest = len ? malloc(len) : NULL;
    c->rest_len = len;
    if (len)
        memcpy(c->rest, in, len);
}

static void readable(struct client *c) {
    static char in[IN_BUFFER];
    if (c->rest_len >= IN_BUFFER / 2) {
        fprintf(stderr, "reader: a frame is too big\n");
        exit(1);
    }
    memcpy(in, c->rest, c->rest_len);
    ssize_t n = read(c->fd, in + c->rest_len, IN_BUFFER - c->rest_len);
    if (n > 0)
        take(c, in, c->rest_len + (size_t)n, now_ns());
    else if (n == 0 || errno != EAGAIN)
        lose(c);
}

static void open_one(void) {
    struct client *c = &clients[opened];
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int segment = SMALL_SEGMENT, small = SMALL_BUFFER, one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        die("socket");
    c->stalled = opened++ < stalled;
    if (c->stalled) {
        setsockopt(c->fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&at, sizeof at) && errno != EINPROGRESS)
        die("connect");
    struct epoll_event e = {.events = EPOLLOUT, .data.ptr = c};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &e))
        die("epoll_ctl");
}

static void connected(struct client *c) {
    char head[1024];
    int failed = 0;
    socklen_t size = sizeof failed;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &failed, &size);
    if (failed) {
        errno = failed;
        die("connect");
    }
    int n = snprintf(head, sizeof head,
                     "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                     "Sec-WebSocket-Protocol: dm-rpc\r\n\r\n",
                     path, port);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, c->fd, &e);
    c->state = SHAKING;
    if (write(c->fd, head, (size_t)n) != n)
        die("write");
}

/* ---- the whole ---- */

static void ask(int number, const char *text) {
    char frame[8192];
    const char *mark = strchr(text, '#');
    int n = mark ? snprintf(frame, sizeof frame, "%.*s%d%s", (int)(mark - text), text, number,
                            mark + 1)
                 : snprintf(frame, sizeof frame, "%s", text);
    say(&clients[number], 1, frame, (size_t)n);
}

static void obey(char *line) {
    int all = !strncmp(line, "each ", 5);
    if (!strcmp(line, "count"))
        printf("{\"delivered\":%ld}\n", delivered), fflush(stdout);
    else if (!strcmp(line, "result"))
        print_result();
    else if (all || !strncmp(line, "first ", 6))
        for (int i = stalled; i < (all ? wanted : stalled + 1); i++)
            ask(i, strchr(line, ' ') + 1);
}

static void commands(void) {
    static char in[8192];
    static size_t len;
    ssize_t n = read(0, in + len, sizeof in - len - 1);
    if (n <= 0)
        exit(0);
    in[len += (size_t)n] = 0;
    for (char *end; (end = strchr(in, '\n'));) {
        *end = 0;
        obey(in);
        len -= (size_t)(end + 1 - in);
        memmove(in, end + 1, len + 1);
    }
}

static void options(int argc, char **argv) {
    if (argc < 3)
        fprintf(stderr, "usage: reader PORT CONNECTIONS [options]\n"), exit(2);
    port = atoi(argv[1]);
    wanted = atoi(argv[2]);
    for (int i = 3; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "-p"))
            path = argv[i + 1];
        else if (!strcmp(argv[i], "-s"))
            stalled = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "-n"))
            goal = atol(argv[i + 1]);
        else if (!strcmp(argv[i], "-w"))
            warm = atol(argv[i + 1]) * INT64_C(1000000);
        else if (!strcmp(argv[i], "-j") && i + 2 < argc)
            join = argv[i + 1], ready_mark = argv[i + 2], i++;
        else
            fprintf(stderr, "reader: what is %s?\n", argv[i]), exit(2);
    }
}

int main(int argc, char **argv) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    options(argc, argv);
    clients = calloc((size_t)wanted, sizeof *clients);
    poll_fd = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}, events[512];
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, 0, &e))
        die("standard input");
    int64_t begun = now_ns();
    int told = 0;
    for (;;) {
        while (opened < wanted && opened - ready - closed < OPENING_AT_ONCE)
            open_one();
        if (!told && ready + closed == wanted) {
            told = 1;
            printf("{\"ready\":%d,\"seconds\":%.3f}\n", ready, (double)(now_ns() - begun) / 1e9);
            fflush(stdout);
        }
        int count = epoll_wait(poll_fd, events, 512, -1);
        for (int i = 0; i < count; i++) {
            struct client *c = events[i].data.ptr;
            if (!c)
                commands();
            else if (c->state == CONNECTING)
                connected(c);
            else if (c->state != CLOSED)
                readable(c);
        }
        if (goal && complete == wanted - stalled)
            print_result();
    }
}
