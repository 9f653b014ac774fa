/* A loopback OpenAI-style source of tokens: POST .../chat/completions answers with chunked SSE.
 *
 *     source            prints its port, then serves until its standard input ends
 *
 * A line on standard input is answered by {"made": tokens so far, of all streams}.
 *
 * The last "rate=R tokens=N" in the request's body says how many tokens a second, and how many.
 * Each token is the text " @NS", the CLOCK_MONOTONIC time in nanoseconds at which it was made;
 * those of one stream strictly rise. A token that can't be sent at once keeps its time, so
 * that a reader which lags is seen to. One line of JSON on standard output ends each stream:
 * the tokens sent and how late, at most, the source itself was.
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
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_STREAMS = 4096, HEAD_AND_BODY = 1 << 22, DEFAULT_RATE = 50, DEFAULT_TOKENS = 5 };

struct stream {
    int fd;
    char *in;
    size_t in_len;
    char *out;
    size_t out_len, out_sent, out_cap;
    int64_t start, period, late, last;
    long sent, total; /* total 0: no request is being answered */
};

static struct stream *streams[MAX_STREAMS];
static int highest; /* one above the highest fd in use */
static int poll_fd;
static long made;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void hang_up(struct stream *s) {
    close(s->fd);
    streams[s->fd] = NULL;
    free(s->in);
    free(s->out);
    free(s);
}

/* 0, or -1 if the stream is gone. */
static int flush(struct stream *s) {
    while (s->out_sent < s->out_len) {
        ssize_t n = write(s->fd, s->out + s->out_sent, s->out_len - s->out_sent);
        if (n < 0 && errno == EAGAIN)
            return 0; /* every stream is tried again when its next token is due, or by EPOLLOUT */
        if (n < 0) {
            hang_up(s);
            return -1;
        }
        s->out_sent += (size_t)n;
    }
    s->out_sent = s->out_len = 0;
    return 0;
}

static void put(struct stream *s, const char *data, size_t len) {
    if (s->out_len + len > s->out_cap) {
        s->out_cap = 2 * (s->out_len + len) + 4096;
        s->out = realloc(s->out, s->out_cap);
        if (!s->out)
            die("realloc");
    }
    memcpy(s->out + s->out_len, data, len);
    s->out_len += len;
}

static void put_chunk(struct stream *s, const char *delta, const char *finish) {
    char event[512], head[32];
    int n = snprintf(event, sizeof event,
                     "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\","
                     "\"created\":1700000000,\"model\":\"bench\",\"choices\":[{\"index\":0,"
                     "\"delta\":{%s},\"finish_reason\":%s}]}\n\n",
                     delta, finish);
    int h = snprintf(head, sizeof head, "%x\r\n", (unsigned)n);
    put(s, head, (size_t)h);
    put(s, event, (size_t)n);
    put(s, "\r\n", 2);
}

static void put_token(struct stream *s, int64_t now) {
    char delta[64];
    int64_t stamp = now > s->last ? now : s->last + 1;
    s->last = stamp;
    snprintf(delta, sizeof delta, "\"content\":\" @%lld\"", (long long)stamp);
    put_chunk(s, delta, "null");
    made++;
}

static void put_end(struct stream *s) {
    static const char done[] = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
    put_chunk(s, "", "\"stop\"");
    put(s, done, sizeof done - 1);
    printf("{\"tokens\":%ld,\"late_ms\":%.3f}\n", s->sent, (double)s->late / 1e6);
    fflush(stdout);
    s->total = 0;
}

static int64_t due(const struct stream *s) { return s->start + s->sent * s->period; }

/* Send what is due; 0, or -1 if the stream is gone. */
static int advance(struct stream *s, int64_t now) {
    while (s->total && due(s) <= now) {
        if (now - due(s) > s->late)
            s->late = now - due(s);
        put_token(s, now);
        if (++s->sent == s->total)
            put_end(s);
    }
    return flush(s);
}

static void answer(struct stream *s, const char *body) {
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                               "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
    long rate = DEFAULT_RATE, tokens = DEFAULT_TOKENS;
    for (const char *p = body; (p = strstr(p, "rate=")); p++)
        sscanf(p, "rate=%ld tokens=%ld", &rate, &tokens);
    put(s, head, sizeof head - 1);
    s->sent = s->late = s->last = 0;
    s->total = tokens > 0 ? tokens : 1;
    s->period = INT64_C(1000000000) / (rate > 0 ? rate : 1);
    s->start = now_ns();
}

/* Take a whole request from s->in, if there is one. */
static void take_request(struct stream *s) {
    static const char unknown[] = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    char *end = strstr(s->in, "\r\n\r\n");
    if (!end || s->total)
        return;
    char *length = strcasestr(s->in, "\r\nContent-Length:");
    size_t head = (size_t)(end + 4 - s->in);
    size_t body = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
    if (s->in_len < head + body)
        return;
    char after = s->in[head + body];
    s->in[head + body] = 0;
    if (strncmp(s->in, "POST ", 5) == 0 && strstr(s->in, "/chat/completions "))
        answer(s, s->in + head);
    else
        put(s, unknown, sizeof unknown - 1);
    s->in[head + body] = after;
    s->in_len -= head + body;
    memmove(s->in, s->in + head + body, s->in_len + 1);
}

static void readable(struct stream *s) {
    ssize_t n = read(s->fd, s->in + s->in_len, HEAD_AND_BODY - s->in_len - 1);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        hang_up(s);
        return;
    }
    s->in_len += (size_t)n;
    s->in[s->in_len] = 0;
    take_request(s);
    advance(s, now_ns());
}

static void welcome(int listener) {
    int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0)
        return;
    struct stream *s = calloc(1, sizeof *s);
    if (fd >= MAX_STREAMS || !s || !(s->in = malloc(HEAD_AND_BODY)))
        die("too many streams");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    s->fd = fd;
    s->in[0] = 0;
    streams[fd] = s;
    if (fd >= highest)
        highest = fd + 1;
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.fd = fd};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &e))
        die("epoll_ctl");
}

static int64_t next_due(void) {
    int64_t next = INT64_MAX;
    for (int i = 0; i < highest; i++)
        if (streams[i] && streams[i]->total && due(streams[i]) < next)
            next = due(streams[i]);
    return next;
}

static void wait_until(int64_t next, struct epoll_event *events, int max, int *count) {
    struct timespec pause, *limit = NULL;
    if (next != INT64_MAX) {
        int64_t left = next - now_ns();
        left = left > 0 ? left : 0;
        pause = (struct timespec){left / 1000000000, left % 1000000000};
        limit = &pause;
    }
    *count = epoll_pwait2(poll_fd, events, max, limit, NULL);
}

static void tell_count(void) {
    char line[64];
    if (read(0, line, sizeof line) <= 0)
        exit(0);
    printf("{\"made\":%ld}\n", made);
    fflush(stdout);
}

int main(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 1024) ||
        getsockname(listener, (struct sockaddr *)&at, &size))
        die("listen");
    poll_fd = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener}, events[256];
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &e);
    e.data.fd = 0;
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, 0, &e);
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    signal(SIGPIPE, SIG_IGN);
    for (int count;;) {
        wait_until(next_due(), events, 256, &count);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == 0)
                tell_count();
            if (fd == listener)
                welcome(listener);
            else if (fd && streams[fd] && events[i].events & EPOLLOUT && flush(streams[fd]))
                continue;
            if (fd != 0 && fd != listener && streams[fd] && events[i].events & ~(unsigned)EPOLLOUT)
                readable(streams[fd]);
        }
        int64_t now = now_ns();
        for (int i = 0; i < highest; i++)
            if (streams[i] && streams[i]->total)
                advance(streams[i], now);
    }
}
