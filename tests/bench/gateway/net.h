/* What the two programs share: addresses, the clock, a growing buffer. Linux only. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MARK '@' /* stands around the moment at which a token was sent, inside its text */

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static inline void die(const char *what) {
    perror(what);
    exit(1);
}

static inline void allow_many_files(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* "unix:PATH" or "127.0.0.1:PORT" */
static inline socklen_t parse_address(const char *text, struct sockaddr_storage *out) {
    memset(out, 0, sizeof *out);
    if (!strncmp(text, "unix:", 5)) {
        struct sockaddr_un *un = (void *)out;
        un->sun_family = AF_UNIX;
        strncpy(un->sun_path, text + 5, sizeof un->sun_path - 1);
        return sizeof *un;
    }
    struct sockaddr_in *in = (void *)out;
    const char *colon = strrchr(text, ':');
    in->sin_family = AF_INET;
    in->sin_port = htons(colon ? atoi(colon + 1) : 0);
    in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return sizeof *in;
}

static inline int open_socket(int family) {
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    if (fd < 0) die("socket");
    if (family == AF_INET) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* The value of a header in a block of lines, or NULL. */
static inline const char *header(const char *head, const char *end, const char *name) {
    size_t length = strlen(name);
    for (const char *line = memchr(head, '\n', end - head); line && line + 1 + length < end;
         line = memchr(line + 1, '\n', end - line - 1))
        if (!strncasecmp(line + 1, name, length) && line[1 + length] == ':') {
            const char *value = line + 2 + length;
            while (*value == ' ') value++;
            return value;
        }
    return NULL;
}

#define AWAKE 200000000ull /* ns without any event after which a program sleeps */

/* epoll_wait that asks again and again while there is work. Waking a program that sleeps is paid by whoever sends to it:
   the slower a gateway, the more often these two would sleep, and the more it would be charged for waking them. */
static inline int wait_awake(int poller, struct epoll_event *events, int most, int timeout) {
    static uint64_t worked;
    uint64_t began = now_ns();
    for (;;) {
        int n = epoll_wait(poller, events, most, 0);
        uint64_t now = now_ns();
        if (n) return worked = now, n;
        if (now - worked > AWAKE) return epoll_wait(poller, events, most, timeout);
        if (timeout >= 0 && now - began >= timeout * 1000000ull) return 0;
        sched_yield();
    }
}
