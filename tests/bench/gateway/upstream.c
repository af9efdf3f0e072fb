/* An engine that costs next to nothing: answers chat completions and embeddings with fixed bytes, streams tokens.
 *
 *     upstream TOKENS INTERVAL_MS ADDRESS...
 *
 * A body with `"stream":true` gets TOKENS events (or its max_tokens, if that is less), the first at once, then one each
 * INTERVAL_MS. The text of each token is the moment at which it was sent, so whoever reads it knows how long it was under
 * way.
 * It also speaks as FastChat's controller and worker do, whose streams repeat the whole text with each token.
 */
#include "net.h"

#define KEPT 65536 /* of a body; what is larger is counted and thrown away */
#define EVENTS 256

struct connection {
    int fd;
    bool listener, headed, chunked, streaming, repeats;
    size_t length, body, expected; /* bytes in `data`, bytes of the body so far, bytes of the whole body */
    int left;                      /* tokens still to send */
    uint64_t due;
    struct connection *next; /* of those that stream */
    size_t said;             /* bytes in `text`, of a stream that repeats itself */
    char text[8192];
    char data[2 * KEPT + 1];
};

static int poller, tokens;
static uint64_t interval;
static struct connection *streams;

static const char CHAT[] =
    "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"m\",\"choices\":[{\"index\":0,"
    "\"message\":{\"role\":\"assistant\",\"content\":\"An answer of a few words, as long as it takes.\"},\"logprobs\":null,"
    "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":11,\"total_tokens\":22}}";
static const char EMBEDDING[] =
    "{\"object\":\"list\",\"model\":\"m\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":[0.1,0.2,0.3,0.4]}],"
    "\"usage\":{\"prompt_tokens\":4,\"total_tokens\":4}}";
static const char MODELS[] =
    "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\",\"created\":1700000000,\"owned_by\":\"upstream\"}]}";
static const char OK[] = "{\"status\":\"ok\"}";
static const char EVENT[] =
    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\",\"choices\":"
    "[{\"index\":0,\"delta\":{\"content\":\"%c%llu%c \"},\"logprobs\":null,\"finish_reason\":%s}]}\n\n";

static const char TEXT[] =
    "{\"text\":\"An answer of a few words, as long as it takes.\",\"error_code\":0,\"finish_reason\":\"stop\","
    "\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":11,\"total_tokens\":22}}";

static const struct {
    const char *path, *body;
} FIXED[] = {
    {" /v1/chat/completions", CHAT},
    {" /v1/completions", CHAT},
    {" /v1/embeddings", EMBEDDING},
    {" /v1/models", MODELS},
    {" /health", OK},
    {" /list_models", "{\"models\":[\"m\"]}"},
    {" /refresh_all_workers", "{}"},
    {" /model_details", "{\"context_length\":4000000}"},
    {" /count_token", "{\"count\":11,\"error_code\":0}"},
    {" /worker_get_conv_template",
     "{\"conv\":{\"name\":\"m\",\"system_template\":\"{system_message}\",\"system_message\":\"\",\"roles\":[\"USER\",\"ASSISTANT\"],"
     "\"messages\":[],\"offset\":0,\"sep_style\":1,\"sep\":\" \",\"sep2\":null,\"stop_str\":null,\"stop_token_ids\":null}}"},
    {" /worker_generate ", TEXT},
};

static void put(struct connection *c, const char *text, size_t length) {
    while (length) {
        ssize_t n = send(c->fd, text, length, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) continue; /* answers are small: the peer reads at once */
        if (n < 0) return;                      /* the next read tells that it is gone */
        text += n, length -= n;
    }
}

static void answer(struct connection *c, int status, const char *body) {
    char text[2048];
    int n = snprintf(text, sizeof text, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                     status, status == 200 ? "OK" : "Not Found", strlen(body), body);
    put(c, text, n);
}

static void repeat(struct connection *c, bool last) {
    char chunk[sizeof c->text + 512], event[sizeof c->text + 256];
    if (c->said < sizeof c->text - 64)
        c->said += snprintf(c->text + c->said, 64, "%c%llu%c ", MARK, (unsigned long long)now_ns(), MARK);
    int n = snprintf(event, sizeof event, "{\"text\":\"%s\",\"error_code\":0,\"finish_reason\":%s}", c->text,
                     last ? "\"stop\"" : "null");
    int m = snprintf(chunk, sizeof chunk, "%x\r\n%s", n + 1, event) + 1; /* its events end with a zero byte */
    put(c, chunk, m);
    put(c, "\r\n0\r\n\r\n", last ? 7 : 2);
}

static void token(struct connection *c, uint64_t now) {
    char event[512], chunk[1024];
    bool last = --c->left == 0;
    c->streaming = !last;
    c->due += interval;
    if (c->due < now) c->due = now;
    if (c->repeats) {
        repeat(c, last);
        return;
    }
    int n = snprintf(event, sizeof event, EVENT, MARK, (unsigned long long)now_ns(), MARK, last ? "\"stop\"" : "null");
    int m = snprintf(chunk, sizeof chunk, "%x\r\n%s\r\n%s", n, event, last ? "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n" : "");
    put(c, chunk, m);
}

static void stream(struct connection *c) {
    static const char HEAD[] =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
    put(c, HEAD, sizeof HEAD - 1);
    const char *most = strstr(c->data, "_tokens\":"); /* max_tokens, max_new_tokens */
    int wanted = most ? atoi(most + 9) : tokens;
    c->left = wanted > 0 && wanted < tokens ? wanted : tokens, c->due = now_ns(), c->streaming = true;
    token(c, c->due);
    if (c->streaming) c->next = streams, streams = c;
}

static void worker_address(struct connection *c) {
    char body[64];
    struct sockaddr_in own = {0};
    socklen_t size = sizeof own;
    getsockname(c->fd, (void *)&own, &size);
    snprintf(body, sizeof body, "{\"address\":\"http://127.0.0.1:%d\"}", ntohs(own.sin_port));
    answer(c, 200, body);
}

static void fixed(struct connection *c, const char *path) {
    for (size_t i = 0; i < sizeof FIXED / sizeof *FIXED; i++)
        if (!strncmp(path, FIXED[i].path, strlen(FIXED[i].path))) {
            answer(c, 200, FIXED[i].body);
            return;
        }
    answer(c, 404, "{}");
}

static void serve(struct connection *c) {
    c->data[c->length] = 0;
    const char *path = strchr(c->data, ' ');
    if (!path) path = "";
    c->repeats = !strncmp(path, " /worker_generate_stream", 24), c->said = 0;
    if (c->repeats || ((strstr(path, "\"stream\":true") || strstr(path, "\"stream\": true")) && !strncmp(path, " /v1", 4)))
        stream(c);
    else if (!strncmp(path, " /get_worker_address", 20)) worker_address(c);
    else fixed(c, path);
    c->length = c->body = 0, c->headed = false;
}

static void drop(struct connection *c) {
    for (struct connection **at = &streams; *at; at = &(*at)->next)
        if (*at == c) {
            *at = c->next;
            break;
        }
    close(c->fd);
    free(c);
}

/* True when the request is whole. */
static bool whole(struct connection *c, size_t got) {
    if (!c->headed) {
        c->data[c->length] = 0;
        char *end = strstr(c->data, "\r\n\r\n");
        if (!end) return false;
        const char *length = header(c->data, end, "Content-Length");
        c->headed = true, c->chunked = header(c->data, end, "Transfer-Encoding") != NULL;
        c->expected = length ? strtoull(length, NULL, 10) : 0;
        c->body = c->length - (end + 4 - c->data);
    } else {
        c->body += got;
    }
    if (c->chunked) return c->length >= 5 && !memcmp(c->data + c->length - 5, "0\r\n\r\n", 5);
    return c->body >= c->expected;
}

static void readable(struct connection *c) {
    for (;;) {
        if (c->length > KEPT) { /* a large body: keep its head, and its last bytes for the end of a chunked one */
            memmove(c->data + KEPT - 8, c->data + c->length - 8, 8);
            c->length = KEPT;
        }
        ssize_t n = recv(c->fd, c->data + c->length, KEPT, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            drop(c);
            return;
        }
        c->length += n;
        if (whole(c, n)) serve(c);
    }
}

static void watch(int fd, bool listener) {
    struct connection *c = malloc(sizeof *c);
    memset(c, 0, offsetof(struct connection, data));
    c->fd = fd, c->listener = listener;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
}

static void listen_at(const char *text) {
    struct sockaddr_storage address;
    socklen_t size = parse_address(text, &address);
    int fd = open_socket(address.ss_family), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (address.ss_family == AF_UNIX) unlink(text + 5), umask(0);
    if (bind(fd, (void *)&address, size) || listen(fd, 4096)) die(text);
    watch(fd, true);
}

static void accept_all(struct connection *c) {
    int fd, one = 1;
    while ((fd = accept4(c->fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        watch(fd, false);
    }
}

/* Milliseconds until the next token is due; sends those that are. */
static int send_due(void) {
    uint64_t now = now_ns(), next = UINT64_MAX;
    for (struct connection **at = &streams; *at;) {
        struct connection *c = *at;
        if (c->due <= now) token(c, now);
        if (!c->streaming) {
            *at = c->next;
            continue;
        }
        if (c->due < next) next = c->due;
        at = &c->next;
    }
    return next == UINT64_MAX ? -1 : next <= now ? 0 : (int)((next - now + 999999) / 1000000);
}

int main(int count, char **words) {
    if (count < 4) return fprintf(stderr, "upstream TOKENS INTERVAL_MS ADDRESS...\n"), 2;
    signal(SIGPIPE, SIG_IGN);
    allow_many_files();
    tokens = atoi(words[1]), interval = strtoull(words[2], NULL, 10) * 1000000;
    poller = epoll_create1(0);
    for (int i = 3; i < count; i++) listen_at(words[i]);
    struct epoll_event events[EVENTS];
    for (;;) {
        int n = wait_awake(poller, events, EVENTS, send_due());
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            c->listener ? accept_all(c) : readable(c);
        }
    }
}
