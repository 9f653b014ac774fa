/* The limit: a C loop that only writes. What no hub on this machine can be better than.
 *
 *     limit SOURCE_PORT     prints its port, then serves until its standard input ends
 *
 * It takes WebSocket clients (reader.c, and no others), and on a "send_prompt" from one of them
 * reads a reply from the same source as the hub does. Whatever one read brings is made into
 * frames of the same shape as the hub's token events and written to each client with one
 * write(2): no rooms, no users, no storage, no checks. Sockets block, since a client that
 * stalls is not this program's business.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FDS = 65536, BUFFER = 1 << 16 };

static char shaken[MAX_FDS];
static int clients[MAX_FDS], client_count;
static int poll_fd, source_fd = -1, source_port;
static long offset = 123456;
static char pending[2 * BUFFER]; /* what has been read of the source, but not whole */
static size_t pending_len;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static struct sockaddr_in loopback(int port) {
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr = {htonl(INADDR_LOOPBACK)}};
}

static void watch(int fd) {
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &e))
        die("epoll_ctl");
}

/* Write one text frame's head and payload to `to`; returns its length. */
static size_t frame(char *to, const char *payload, size_t len) {
    size_t head = len < 126 ? 2 : 4;
    to[0] = (char)0x81;
    to[1] = (char)(len < 126 ? len : 126);
    if (len >= 126) {
        to[2] = (char)(len >> 8);
        to[3] = (char)len;
    }
    memcpy(to + head, payload, len);
    return head + len;
}

static void say(int fd, const char *payload) {
    char out[256];
    size_t n = frame(out, payload, strlen(payload));
    if (write(fd, out, n) != (ssize_t)n)
        perror("write");
}

static void ask_source(const char *prompt, size_t len) {
    struct sockaddr_in at = loopback(source_port);
    char head[128];
    int n = snprintf(head, sizeof head,
                     "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                     "Content-Length: %zu\r\n\r\n",
                     len);
    source_fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(source_fd, (struct sockaddr *)&at, sizeof at) ||
        write(source_fd, head, (size_t)n) != n || write(source_fd, prompt, len) != (ssize_t)len)
        die("source");
    pending_len = 0;
    watch(source_fd);
}

static void broadcast(const char *out, size_t len) {
    for (int i = 0; i < client_count; i++)
        if (write(clients[i], out, len) != (ssize_t)len)
            clients[i--] = clients[--client_count];
}

/* Turn the whole tokens of `pending` into frames, keep the rest. */
static void forward(void) {
    static char out[4 * BUFFER];
    static const char mark[] = "\"content\":\"";
    char *from = pending, *end = pending + pending_len, *at;
    size_t len = 0;
    while ((at = memmem(from, (size_t)(end - from), mark, sizeof mark - 1))) {
        char payload[512], *text = at + sizeof mark - 1;
        char *quote = memchr(text, '"', (size_t)(end - text));
        if (!quote)
            break;
        int n = snprintf(payload, sizeof payload,
                         "[\"token\",{\"room\":\"lobby\",\"offset\":%ld,\"id\":"
                         "\"0199a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b\",\"text\":\"%.*s\"},null]",
                         offset++, (int)(quote - text), text);
        len += frame(out + len, payload, (size_t)n);
        from = quote;
    }
    if (!at && end - from > (long)sizeof mark)
        from = end - sizeof mark; /* a mark that is cut in two must not be lost */
    pending_len = (size_t)(end - from);
    memmove(pending, from, pending_len);
    broadcast(out, len);
}

static void source_readable(void) {
    ssize_t n = read(source_fd, pending + pending_len, BUFFER);
    if (n <= 0) {
        close(source_fd);
        source_fd = -1;
        return;
    }
    pending_len += (size_t)n;
    forward();
}

static void client_says(int fd, unsigned char *in, size_t got) {
    for (unsigned char *p = in; p + 6 <= in + got;) {
        size_t len = p[1] & 0x7f, head = len == 126 ? 8 : 6;
        if (len == 126)
            len = (size_t)p[2] << 8 | p[3];
        unsigned char *mask = p + head - 4, *payload = p + head;
        if (payload + len > in + got)
            return;
        for (size_t i = 0; i < len; i++)
            payload[i] ^= mask[i % 4];
        if (len > 11 && !memcmp(payload, "[\"join_room\"", 12))
            say(fd, "[\"join_room\",{},\"1\"]");
        if (len > 13 && !memcmp(payload, "[\"send_prompt\"", 14))
            ask_source((char *)payload, len);
        p = payload + len;
    }
}

static void client_readable(int fd) {
    /* RFC 6455 section 1.3: the answer to its example key, which is the one that reader.c sends. */
    static const char upgrade[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                                  "Connection: Upgrade\r\nSec-WebSocket-Protocol: dm-rpc\r\n"
                                  "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    static unsigned char in[BUFFER];
    ssize_t n = read(fd, in, sizeof in);
    if (n <= 0) {
        for (int i = 0; i < client_count; i++)
            if (clients[i] == fd)
                clients[i] = clients[--client_count];
        shaken[fd] = 0;
        close(fd);
    } else if (shaken[fd]) {
        client_says(fd, in, (size_t)n);
    } else if (write(fd, upgrade, sizeof upgrade - 1) > 0) {
        shaken[fd] = 1;
        clients[client_count++] = fd;
        say(fd, "[\"welcome\",{},null]");
    }
}

static int listen_on_loopback(void) {
    struct sockaddr_in at = loopback(0);
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 1024) ||
        getsockname(fd, (struct sockaddr *)&at, &size))
        die("listen");
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    return fd;
}

static void accept_one(int listener) {
    int one = 1, fd = accept(listener, NULL, NULL);
    if (fd < 0 || fd >= MAX_FDS)
        die("accept");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    watch(fd);
}

int main(int argc, char **argv) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    source_port = argc > 1 ? atoi(argv[1]) : 0;
    poll_fd = epoll_create1(0);
    int listener = listen_on_loopback();
    watch(listener);
    watch(0);
    for (;;) {
        struct epoll_event events[256];
        int count = epoll_wait(poll_fd, events, 256, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == 0)
                return 0;
            if (fd == listener)
                accept_one(listener);
            else if (fd == source_fd)
                source_readable();
            else
                client_readable(fd);
        }
    }
}
