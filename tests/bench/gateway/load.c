/* A load generator: keep-alive clients that ask as fast as they are answered, or streams that are read once each.
 *
 *     load requests ADDRESS BODY_FILE KEY CLIENTS SECONDS
 *     load streams  ADDRESS BODY_FILE KEY STREAMS SPREAD_MS
 *
 * Prints one line of JSON. Times are in microseconds. A request fails when its answer is not 200 or breaks off; a stream
 * also when it does not end with [DONE].
 */
#include "net.h"

#define SPACE 262144
#define EVENTS 256
#define PATIENCE 60 /* seconds without any event */

struct client {
    int fd;
    bool connected, headed, chunked, closes, done, begun;
    size_t sent, length;
    long expected; /* bytes of the body still to come */
    uint64_t started;
    char data[SPACE + 1];
};

struct samples {
    uint64_t *values;
    size_t count, space;
};

static int poller;
static bool streaming;
static const char *request;
static size_t request_length;
static struct sockaddr_storage address;
static socklen_t address_size;
static struct samples latency, first, delay;
static uint64_t failed, fresh, stop_at;
static int running;
static char complaint[200];

static void note(struct samples *s, uint64_t value) {
    if (s->count == s->space) s->values = realloc(s->values, (s->space = s->space ? 2 * s->space : 4096) * sizeof value);
    s->values[s->count++] = value;
}

static int ascending(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static double at(struct samples *s, double share) {
    return s->count ? s->values[(size_t)((s->count - 1) * share)] / 1e3 : 0;
}

static void begin(struct client *c);

static void watch(struct client *c, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(poller, operation, c->fd, &event);
}

static void hang_up(struct client *c) {
    if (c->connected) close(c->fd);
    c->connected = false;
}

static void finish(struct client *c) {
    hang_up(c);
    if (!c->done) c->done = true, running--;
}

static void fail(struct client *c, const char *why) {
    failed++;
    if (!*complaint)
        for (size_t n = 0; n < sizeof complaint - 1 && why[n] && why[n] != '\r'; n++)
            complaint[n] = why[n] == '"' || why[n] == '\\' ? '\'' : why[n] < 32 ? ' ' : why[n];
    hang_up(c);
    if (streaming || now_ns() >= stop_at) finish(c);
    else begin(c);
}

static void push(struct client *c) {
    while (c->sent < request_length) {
        ssize_t n = send(c->fd, request + c->sent, request_length - c->sent, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINPROGRESS)) {
            watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            return;
        }
        if (n < 0) return; /* what it says may still be read */
        c->sent += n;
    }
    watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

static void begin(struct client *c) {
    c->sent = c->length = 0, c->headed = c->begun = false, c->expected = 0;
    c->started = now_ns();
    if (!c->connected) {
        c->fd = open_socket(address.ss_family);
        fresh++, c->connected = true;
        int result = connect(c->fd, (void *)&address, address_size);
        watch(c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
        if (result && errno == EINPROGRESS) return;
        if (result) {
            finish(c), failed++, snprintf(complaint, sizeof complaint, "cannot connect");
            return;
        }
    }
    push(c);
}

static void complete(struct client *c) {
    note(&latency, now_ns() - c->started);
    if (c->closes) hang_up(c);
    if (now_ns() < stop_at) begin(c);
    else finish(c);
}

/* Reads status and length; false while the header is not whole. */
static bool head(struct client *c) {
    c->data[c->length] = 0;
    char *end = strstr(c->data, "\r\n\r\n");
    if (!end) return false;
    const char *length = header(c->data, end, "Content-Length"), *connection = header(c->data, end, "Connection");
    c->headed = true;
    c->chunked = !length && header(c->data, end, "Transfer-Encoding");
    c->closes = connection && !strncasecmp(connection, "close", 5);
    c->expected = length ? strtol(length, NULL, 10) - (long)(c->length - (end + 4 - c->data)) : 0;
    return true;
}

static void tokens(struct client *c) {
    uint64_t now = now_ns();
    char *from = c->data, *mark, *end;
    while ((mark = memchr(from, MARK, c->data + c->length - from))) {
        end = memchr(mark + 1, MARK, c->data + c->length - mark - 1);
        if (!end) break;
        if (!c->begun) note(&first, now - c->started), c->begun = true;
        note(&delay, now - strtoull(mark + 1, NULL, 10));
        from = end + 1;
    }
    if (strstr(from, "[DONE]")) {
        finish(c);
        return;
    }
    char *keep = mark ? mark : c->length > 8 && c->data + c->length - 8 > from ? c->data + c->length - 8 : from;
    c->length -= keep - c->data;
    memmove(c->data, keep, c->length + 1);
}

static void received(struct client *c, size_t got) {
    bool begins = !c->headed;
    if (begins && !head(c)) return;
    if (begins && strncmp(c->data + 9, "200", 3)) {
        char *body = strstr(c->data, "\r\n\r\n") + 4;
        fail(c, *body ? body : c->data);
        return;
    }
    if (streaming) {
        tokens(c);
        return;
    }
    if (!begins) c->expected -= got;
    if (c->chunked ? c->length > 5 && !memcmp(c->data + c->length - 5, "0\r\n\r\n", 5) : c->expected <= 0) complete(c);
}

static void readable(struct client *c) {
    if (c->length >= SPACE) c->length = 0;
    ssize_t n = recv(c->fd, c->data + c->length, SPACE - c->length, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        fail(c, n ? strerror(errno) : "the answer breaks off");
        return;
    }
    c->length += n, c->data[c->length] = 0;
    received(c, n);
}

static void prepare(const char *path, const char *key) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *text = malloc(size + 1024);
    int n = snprintf(text, 1024,
                     "POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nUser-Agent: load/1\r\nAccept: */*\r\n"
                     "Authorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %ld\r\n\r\n", key, size);
    if (fread(text + n, 1, size, file) != (size_t)size) die(path);
    fclose(file);
    request = text, request_length = n + size;
}

static void run(struct client **clients, int count, uint64_t spread) {
    uint64_t began = now_ns(), heard = began;
    struct epoll_event events[EVENTS];
    int next = 0;
    while (running) {
        while (next < count && now_ns() - began >= spread * next / count) begin(clients[next++]);
        int n = wait_awake(poller, events, EVENTS, next < count ? 1 : 1000);
        if (n) heard = now_ns();
        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;
            if (c->connected && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) readable(c);
            else if (c->connected && (events[i].events & EPOLLOUT)) push(c);
        }
        if (now_ns() - heard > PATIENCE * 1000000000ull)
            for (int i = 0; i < count; i++)
                if (!clients[i]->done) failed++, snprintf(complaint, sizeof complaint, "no answer"), finish(clients[i]);
    }
}

static void print_samples(const char *name, struct samples *s) {
    qsort(s->values, s->count, sizeof *s->values, ascending);
    printf("\"%s\":{\"count\":%zu,\"p50\":%.1f,\"p99\":%.1f,\"max\":%.1f},", name, s->count, at(s, .5), at(s, .99), at(s, 1));
}

int main(int count, char **words) {
    if (count != 7) return fprintf(stderr, "load requests|streams ADDRESS BODY_FILE KEY CLIENTS SECONDS|SPREAD_MS\n"), 2;
    signal(SIGPIPE, SIG_IGN);
    allow_many_files();
    streaming = !strcmp(words[1], "streams");
    address_size = parse_address(words[2], &address);
    prepare(words[3], words[4]);
    running = atoi(words[5]);
    poller = epoll_create1(0);
    struct client **clients = calloc(running, sizeof *clients);
    int clients_count = running;
    for (int i = 0; i < clients_count; i++) {
        clients[i] = malloc(sizeof **clients);
        memset(clients[i], 0, offsetof(struct client, data));
    }
    uint64_t began = now_ns();
    stop_at = began + (uint64_t)(atof(words[6]) * 1e9);
    run(clients, clients_count, streaming ? strtoull(words[6], NULL, 10) * 1000000 : 0);
    printf("{");
    print_samples("latency", &latency);
    print_samples("first", &first);
    print_samples("delay", &delay);
    printf("\"seconds\":%.4f,\"failed\":%llu,\"connections\":%llu,\"complaint\":\"%s\"}\n", (now_ns() - began) / 1e9,
           (unsigned long long)failed, (unsigned long long)fresh, complaint);
}
