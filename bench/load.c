// Closed-loop HTTP/1.1 load on loopback: keep-alive connections that send the same POST again and again.
// usage: load PORT PATH CONNECTIONS REQUESTS SECONDS BODYFILE [HEADER ...]
// REQUESTS are shared by all connections; after SECONDS it stops, and what is open counts as unfinished.
// Prints one JSON line: requests that went well, failures by kind, latency and time to the first body byte in
// milliseconds, events, and of each stream the largest gap between two events.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef enum { SIZE, DATA, AFTER_DATA, TRAILER } ChunkState;
typedef struct {
    int fd;
    char buffer[131072];
    size_t length;
    int in_head, status, chunked, close, stream;
    long left;  // of a body with Content-Length, or of the chunk; -1: until the connection ends
    ChunkState state;
    int newline;      // the last byte was one: two in a row end an event
    size_t matched;   // bytes of [DONE] seen so far; all of them: the stream said it was complete
    long events;
    double started, first_byte, last_event, largest_gap;
} Connection;

typedef struct { double *values; long count; } Sample;

static int port, poller, live;
static char *request;
static size_t request_size;
static long sent, total, ok, events;
static long failed_connect, failed_status, failed_cut, failed_done, last_failed_status;
static Sample latency, first_byte, gap;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void hang_up(Connection *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
}

static int dial(Connection *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    int one = 1;
    address.sin_port = htons(port);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (void *)&address, sizeof address)) return hang_up(c), -1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event);
}

// Sends the next request, or closes the connection when there is none left.
static void begin(Connection *c) {
    while (sent < total) {
        sent++;
        if (c->fd < 0 && dial(c)) {
            failed_connect++;
            usleep(1000);
            continue;
        }
        c->length = c->matched = 0;
        c->in_head = 1;
        c->left = -1;
        c->status = c->chunked = c->close = c->stream = c->newline = 0;
        c->state = SIZE;
        c->events = 0;
        c->first_byte = c->last_event = c->largest_gap = 0;
        c->started = now();
        for (size_t done = 0; done < request_size;) {
            ssize_t size = send(c->fd, request + done, request_size - done, MSG_NOSIGNAL);
            if (size <= 0) break;  // the answer, or its absence, will tell
            done += size;
        }
        return;
    }
    hang_up(c);
    live--;
}

static void on_body(Connection *c, const char *bytes, size_t size) {
    static const char done[] = "[DONE]";
    double time = now();
    if (!c->first_byte) c->first_byte = time;
    if (!c->stream) return;
    for (size_t i = 0; i < size; i++) {
        int newline = bytes[i] == '\n';
        if (newline && c->newline) {
            if (c->last_event && time - c->last_event > c->largest_gap) c->largest_gap = time - c->last_event;
            c->last_event = time;
            c->events++;
            newline = 0;
        }
        c->newline = newline;
        if (c->matched < sizeof done - 1) c->matched = bytes[i] == done[c->matched] ? c->matched + 1 : bytes[i] == '[';
    }
}

static void on_end(Connection *c, int whole) {
    double time = now();
    if (!whole) failed_cut++;
    else if (c->status != 200) failed_status++, last_failed_status = c->status;
    else if (c->stream && c->matched < 6) failed_done++;
    else {
        ok++;
        events += c->events;
        latency.values[latency.count++] = (time - c->started) * 1e3;
        first_byte.values[first_byte.count++] = ((c->first_byte ? c->first_byte : time) - c->started) * 1e3;
        if (c->stream) gap.values[gap.count++] = c->largest_gap * 1e3;
    }
    if (!whole || c->close) hang_up(c);
    begin(c);
}

static void consume(Connection *c, size_t size) {
    c->length -= size;
    memmove(c->buffer, c->buffer + size, c->length);
}

// Takes the chunked body that has arrived; returns whether it is over.
static int on_chunks(Connection *c) {
    size_t at = 0, size;
    while (at < c->length) {
        char *from = c->buffer + at, *line = memmem(from, c->length - at, "\r\n", 2);
        if (c->state == DATA) {
            size = c->length - at < (size_t)c->left ? c->length - at : (size_t)c->left;
            on_body(c, from, size);
            at += size;
            c->left -= size;
            if (c->left == 0) c->state = AFTER_DATA;
        } else if (!line) {
            break;
        } else {
            at = line + 2 - c->buffer;
            if (c->state == TRAILER) return 1;
            if (c->state == SIZE) c->left = strtol(from, NULL, 16);
            c->state = c->state == AFTER_DATA ? SIZE : c->left ? DATA : TRAILER;
        }
    }
    consume(c, at);
    return 0;
}

static int on_head(Connection *c) {
    char *end = strstr(c->buffer, "\r\n\r\n"), *field;
    if (!end) return 0;
    *end = 0;
    c->status = atoi(c->buffer + strlen("HTTP/1.1 "));
    if ((field = strcasestr(c->buffer, "\r\ncontent-length:"))) c->left = atol(field + 17);
    c->chunked = strcasestr(c->buffer, "\r\ntransfer-encoding: chunked") != NULL;
    c->close = strcasestr(c->buffer, "\r\nconnection: close") != NULL;
    c->stream = strcasestr(c->buffer, "text/event-stream") != NULL;
    c->in_head = 0;
    consume(c, end + 4 - c->buffer);
    return 1;
}

static void on_bytes(Connection *c) {
    ssize_t size = recv(c->fd, c->buffer + c->length, sizeof c->buffer - 1 - c->length, 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size <= 0) {
        c->close = 1;
        on_end(c, size == 0 && !c->in_head && !c->chunked && c->left < 0);
        return;
    }
    c->length += size;
    c->buffer[c->length] = 0;
    if (c->in_head && !on_head(c)) return;
    if (c->chunked) {
        if (on_chunks(c)) on_end(c, 1);
    } else {
        if (c->length) on_body(c, c->buffer, c->length);
        if (c->left >= 0 && (c->left -= c->length) <= 0) on_end(c, 1);
        else c->length = 0;
    }
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_sample(const char *name, Sample *sample) {
    long last = sample->count - 1;
    double *v = sample->values;
    if (last < 0) return;
    qsort(v, sample->count, sizeof *v, ascending);
    printf(",\"%s\":{\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"max\":%.3f}", name, v[(long)(.5 * last + .5)],
           v[(long)(.9 * last + .5)], v[(long)(.99 * last + .5)], v[last]);
}

static int read_request(int count, char **arguments) {
    FILE *file = fopen(arguments[6], "rb");
    char *body = malloc(1 << 24);
    if (!file) return -1;
    size_t size = fread(body, 1, 1 << 24, file);
    request = malloc(size + 16384);
    int at = sprintf(request, "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n", arguments[2], port);
    at += sprintf(request + at, "Content-Type: application/json\r\nContent-Length: %zu\r\n", size);
    for (int i = 7; i < count; i++) at += snprintf(request + at, 1024, "%s\r\n", arguments[i]);
    at += sprintf(request + at, "\r\n");
    memcpy(request + at, body, size);
    request_size = at + size;
    return 0;
}

int main(int count, char **arguments) {
    if (count < 7 || count > 15) return fprintf(stderr, "usage: load PORT PATH CONNECTIONS REQUESTS SECONDS BODYFILE [HEADER ...]\n"), 2;
    port = atoi(arguments[1]);
    live = atoi(arguments[3]);
    total = atol(arguments[4]);
    if (read_request(count, arguments)) return perror(arguments[6]), 2;
    signal(SIGPIPE, SIG_IGN);
    latency.values = calloc(3 * total, sizeof(double));
    first_byte.values = latency.values + total;
    gap.values = first_byte.values + total;
    poller = epoll_create1(0);
    double started = now(), limit = started + atof(arguments[5]);
    Connection *connections = calloc(live, sizeof *connections);
    for (int i = live - 1; i >= 0; i--) {
        connections[i].fd = -1;
        begin(&connections[i]);
    }
    for (struct epoll_event events[256]; live > 0 && now() < limit;) {
        int ready = epoll_wait(poller, events, 256, 200);
        for (int i = 0; i < ready; i++) {
            Connection *c = events[i].data.ptr;
            if (c->fd >= 0) on_bytes(c);
        }
    }
    printf("{\"ok\":%ld,\"failed\":{\"connect\":%ld,\"status\":%ld,\"cut\":%ld,\"no_done\":%ld,\"unfinished\":%d},"
           "\"last_failed_status\":%ld,\"seconds\":%.3f,\"events\":%ld", ok, failed_connect, failed_status, failed_cut, failed_done,
           live, last_failed_status, now() - started, events);
    print_sample("latency_ms", &latency);
    print_sample("first_byte_ms", &first_byte);
    print_sample("gap_ms", &gap);
    printf("}\n");
}
