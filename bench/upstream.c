// A cheap OpenAI-shaped upstream for measurements: one thread, epoll, HTTP/1.1 keep-alive, loopback only.
// usage: upstream PORT
//
// The request's model name says how it answers:
//   mock             one JSON completion at once, about 700 bytes
//   mock-wMS         the same after MS milliseconds
//   mock-nN-iUS      with "stream": true: N deltas, the first at once and then one each US microseconds (0: all at
//                    once, each written by itself), then the finish event, usage if asked for, and [DONE]
// Timed streams are spread evenly over the interval, so that every run sees the same pattern of arrivals.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 20000
#define WORDS "The quick brown fox jumps over the lazy dog. "
#define CHUNK "data: {\"id\":\"chatcmpl-mock123456789\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,\"model\":\"%s\","
#define FINGERPRINT "\"system_fingerprint\":\"fp_mock\","

typedef struct {
    int fd, timer;  // timer: a timerfd made on first need, -1 before
    char *in;
    size_t length, capacity;
    int streaming, waiting;  // what the timer is for, if either
    int total, left;         // deltas
    long interval_us;
    int include_usage;
    char model[128];
} Connection;

static Connection *owner[MAX_FD];  // by descriptor, of sockets and timers alike
static int poller;

static void watch(int fd, Connection *connection) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    owner[fd] = connection;
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
}

static void drop(Connection *c) {
    owner[c->fd] = NULL;
    close(c->fd);
    if (c->timer >= 0) {
        owner[c->timer] = NULL;
        close(c->timer);
    }
    free(c->in);
    free(c);
}

// Fires first `after_us` from now and then each `every_us`; 0 and 0 stop it.
static int set_timer(Connection *c, long after_us, long every_us) {
    struct itimerspec spec = {{every_us / 1000000, every_us % 1000000 * 1000}, {after_us / 1000000, after_us % 1000000 * 1000}};
    if (c->timer < 0) {
        c->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
        if (c->timer < 0 || c->timer >= MAX_FD) return -1;
        watch(c->timer, c);
    }
    return timerfd_settime(c->timer, 0, &spec, NULL);
}

static int put(Connection *c, const char *bytes, size_t size) {
    while (size) {
        ssize_t sent = send(c->fd, bytes, size, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN) return -1;
            usleep(200);
            continue;
        }
        bytes += sent;
        size -= sent;
    }
    return 0;
}

static int put_chunk(Connection *c, const char *text) {
    char out[2048];
    return put(c, out, snprintf(out, sizeof out, "%zx\r\n%s\r\n", strlen(text), text));
}

static int put_completion(Connection *c) {
    char body[2048], out[3072];
    int size = snprintf(body, sizeof body,
        "{\"id\":\"chatcmpl-mock123456789\",\"object\":\"chat.completion\",\"created\":1760000000,\"model\":\"%s\"," FINGERPRINT
        "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"" WORDS WORDS WORDS WORDS WORDS
        "\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":24,"
        "\"completion_tokens\":50,\"total_tokens\":74,\"prompt_tokens_details\":{\"cached_tokens\":0},"
        "\"completion_tokens_details\":{\"reasoning_tokens\":0}}}", c->model);
    return put(c, out, snprintf(out, sizeof out,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: req_mock\r\nContent-Length: %d\r\n\r\n%s", size, body));
}

static int put_delta(Connection *c) {
    char text[1024];
    int index = c->total - c->left--;
    snprintf(text, sizeof text,
        CHUNK FINGERPRINT "\"choices\":[{\"index\":0,\"delta\":{%s\"content\":\" token%d\"},\"logprobs\":null,"
        "\"finish_reason\":null}]}\n\n", c->model, index ? "" : "\"role\":\"assistant\",", index);
    return put_chunk(c, text);
}

static int put_end(Connection *c) {
    char text[1024];
    snprintf(text, sizeof text,
        CHUNK FINGERPRINT "\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n", c->model);
    if (put_chunk(c, text)) return -1;
    if (c->include_usage) {
        snprintf(text, sizeof text,
            CHUNK "\"choices\":[],\"usage\":{\"prompt_tokens\":24,\"completion_tokens\":%d,\"total_tokens\":%d}}\n\n",
            c->model, c->total, c->total + 24);
        if (put_chunk(c, text)) return -1;
    }
    c->streaming = 0;
    return put_chunk(c, "data: [DONE]\n\n") || put(c, "0\r\n\r\n", 5) ? -1 : 0;
}

static int start_stream(Connection *c) {
    static const char head[] =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nx-request-id: req_mock\r\n"
        "Transfer-Encoding: chunked\r\n\r\n";
    static unsigned long streams;
    struct timespec now;
    if (put(c, head, sizeof head - 1)) return -1;
    c->streaming = 1;
    if (c->interval_us == 0) {
        while (c->left) {
            if (put_delta(c)) return -1;
        }
        return put_end(c);
    }
    if (c->left && put_delta(c)) return -1;
    clock_gettime(CLOCK_MONOTONIC, &now);
    // The golden ratio spreads any number of streams evenly over the interval.
    long phase = fmod(streams++ * 0.6180339887, 1.0) * c->interval_us;
    long passed = (now.tv_sec * 1000000L + now.tv_nsec / 1000 - phase) % c->interval_us;
    return set_timer(c, c->interval_us - passed, c->interval_us);
}

static int on_timer(Connection *c) {
    uint64_t times;
    if (read(c->timer, &times, sizeof times) != sizeof times) return 0;
    if (c->waiting) {
        c->waiting = 0;
        return put_completion(c);
    }
    for (; times && c->streaming; times--) {
        if (c->left ? put_delta(c) : put_end(c)) return -1;
    }
    return c->streaming ? 0 : set_timer(c, 0, 0);
}

// Returns what follows `"name":`, or NULL. Good enough for the benchmark's own requests.
static const char *member(const char *body, const char *name) {
    const char *at = strstr(body, name);
    return at ? at + strlen(name) + strspn(at + strlen(name), " :") : NULL;
}

static int on_request(Connection *c, const char *body) {
    const char *stream = member(body, "\"stream\""), *usage = member(body, "\"include_usage\"");
    const char *model = member(body, "\"model\""), *option;
    sscanf(model ? model : "", "\"%127[^\"]", c->model);
    c->include_usage = usage && !strncmp(usage, "true", 4);
    if (stream && !strncmp(stream, "true", 4)) {
        c->total = c->left = (option = strstr(c->model, "-n")) ? atoi(option + 2) : 16;
        c->interval_us = (option = strstr(c->model, "-i")) ? atol(option + 2) : 0;
        return start_stream(c);
    }
    if ((option = strstr(c->model, "-w"))) {
        c->waiting = 1;
        return set_timer(c, atol(option + 2) * 1000, 0);
    }
    return put_completion(c);
}

// Answers the requests that have arrived whole.
static int serve(Connection *c) {
    while (c->length && !c->streaming && !c->waiting) {
        c->in[c->length] = 0;
        char *end = strstr(c->in, "\r\n\r\n"), *field = strcasestr(c->in, "\r\ncontent-length:");
        if (!end) return 0;
        size_t size = end + 4 - c->in + (field && field < end ? strtoul(field + 17, NULL, 10) : 0);
        if (c->length < size) return 0;
        char after = c->in[size];
        c->in[size] = 0;
        if (on_request(c, end + 4)) return -1;
        c->in[size] = after;
        c->length -= size;
        memmove(c->in, c->in + size, c->length);
    }
    return 0;
}

static int on_bytes(Connection *c) {
    if (c->capacity - c->length < 32768) c->in = realloc(c->in, c->capacity *= 2);
    ssize_t size = recv(c->fd, c->in + c->length, c->capacity - c->length - 1, 0);
    if (size <= 0) return size < 0 && errno == EAGAIN ? 0 : -1;
    c->length += size;
    return serve(c);
}

static void on_connect(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MAX_FD) {
            close(fd);
            continue;
        }
        Connection *c = calloc(1, sizeof *c);
        *c = (Connection){.fd = fd, .timer = -1, .capacity = 65536, .in = malloc(65536)};
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        watch(fd, c);
    }
}

int main(int count, char **arguments) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    address.sin_port = htons(count > 1 ? atoi(arguments[1]) : 0);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) {
        perror("upstream");
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    poller = epoll_create1(0);
    watch(listener, NULL);
    for (struct epoll_event events[256];;) {
        int ready = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            Connection *c = owner[fd];
            if (fd == listener) on_connect(listener);
            else if (c && (fd == c->fd ? on_bytes(c) : on_timer(c) || serve(c))) drop(c);
        }
    }
}
