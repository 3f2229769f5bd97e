/* Copyright: (c) 2026, trafficshift.istio maintainers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What the probe engine is measured against: the same work, written in C with epoll.
 *
 * Usage: client ADDRESS PORT PROBES CONCURRENCY SECONDS TOLERANCE [eager]
 * Each probe is a new connection, a line with the date, the reply up to its newline and an ordinary close, under one
 * deadline. Outcomes are taken in launch order: counted by destination, timed into a histogram, looked at by the
 * sequential test after every whole wave. Prints one line of JSON with what it counted and the CPU time of the run.
 *
 * The plain client waits until a connection is there before it sends. With `eager` it tries to send at once, as the
 * engine does; over loopback, where the connection is there at once, that saves waiting for it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { REPLY = 8192, AHEAD = 16384, EVENTS = 256, WAVE = 50, DESTINATIONS = 2, BUCKETS = 4096 };
enum kind { ANSWER, UNEXPECTED, OVERSIZE, TRUNCATED, EMPTY, REFUSED, RESET, TIMEOUT, UNREACHABLE, OTHER, KINDS };

static const char *words[DESTINATIONS] = {"one", "two"};
static const double shares[DESTINATIONS] = {0.8, 0.2};
static const double alpha = 0.001, beta = 0.001;

/* A connection under way, in a list in launch order, which is the order of deadlines too. */
struct flight {
    int fd, sent, length;
    long number;
    double began;
    struct flight *before, *after;
    char reply[REPLY];
};
struct outcome {
    int done;
    enum kind kind;
    int destination;
    double seconds;
};

static struct sockaddr_in address;
static double timeout, tolerance;
static int epoll, eager;
static struct flight ends = {.before = &ends, .after = &ends}, *spare;
static int flying;
static struct outcome outcomes[AHEAD];
static long launched, delivered, counts[DESTINATIONS], errors[KINDS], histogram[BUCKETS];
static double fastest = HUGE_VAL, slowest;
static const char *verdict = "";
static char payload[64];
static size_t payload_size;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static enum kind kind_of(int code) {
    switch (code) {
    case ECONNREFUSED:
        return REFUSED;
    case ETIMEDOUT:
        return TIMEOUT;
    case ECONNRESET:
    case ECONNABORTED:
    case EPIPE:
        return RESET;
    case EHOSTUNREACH:
    case ENETUNREACH:
        return UNREACHABLE;
    default:
        return OTHER;
    }
}

static void note(long number, enum kind kind, int destination, double seconds) {
    outcomes[number % AHEAD] = (struct outcome){1, kind, destination, seconds};
}

static void finish(struct flight *flight, enum kind kind, int destination) {
    note(flight->number, kind, destination, now() - flight->began);
    close(flight->fd);
    flight->before->after = flight->after;
    flight->after->before = flight->before;
    flight->after = spare;
    spare = flight;
    flying--;
}

static int send_line(struct flight *flight) {
    if (send(flight->fd, payload, payload_size, MSG_NOSIGNAL) < 0)
        return -1;
    flight->sent = 1;
    return 0;
}

static void write_payload(void) {
    time_t date = time(NULL);
    payload_size = strftime(payload, sizeof payload, "%a %b %e %H:%M:%S %Z %Y\n", localtime(&date));
}

static void start(void) {
    struct flight *flight = spare;
    if (flight)
        spare = flight->after;
    else if (!(flight = malloc(sizeof *flight)))
        exit(1);
    flight->number = launched;
    flight->sent = flight->length = 0;
    flight->began = now();
    flight->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    flight->after = &ends;
    flight->before = ends.before;
    ends.before = ends.before->after = flight;
    flying++;
    if (flight->fd < 0 || (connect(flight->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)) {
        finish(flight, kind_of(errno), 0);
        return;
    }
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = flight};
    if (eager) {
        if (!send_line(flight))
            event.events = EPOLLIN | EPOLLET;
        else if (errno != EAGAIN) {
            finish(flight, kind_of(errno), 0);
            return;
        } else
            eager = 0;
    }
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, flight->fd, &event))
        finish(flight, OTHER, 0);
}

static void advance(struct flight *flight, unsigned events) {
    if (!flight->sent) {
        if (send_line(flight)) {
            int code = errno;
            socklen_t size = sizeof code;
            if (code == ENOTCONN || code == EPIPE)
                getsockopt(flight->fd, SOL_SOCKET, SO_ERROR, &code, &size);
            finish(flight, kind_of(code), 0);
            return;
        }
        if (!(events & EPOLLIN))
            return;
    }
    for (;;) {
        char *fresh = flight->reply + flight->length;
        ssize_t got = recv(flight->fd, fresh, REPLY - flight->length, 0);
        if (got < 0) {
            if (errno != EAGAIN)
                finish(flight, kind_of(errno), 0);
            return;
        }
        if (got == 0) {
            finish(flight, flight->length ? TRUNCATED : EMPTY, 0);
            return;
        }
        flight->length += got;
        char *newline = memchr(fresh, '\n', got);
        if (newline) {
            char *word = flight->reply;
            word += strspn(word, " \t\r\v\f");
            size_t size = strcspn(word, " \t\r\v\f\n");
            for (int i = 0; i < DESTINATIONS; i++)
                if (strlen(words[i]) == size && !memcmp(word, words[i], size)) {
                    finish(flight, ANSWER, i);
                    return;
                }
            finish(flight, UNEXPECTED, 0);
            return;
        }
        if (flight->length == REPLY) {
            finish(flight, OVERSIZE, 0);
            return;
        }
    }
}

/* Return ln E(edge), the evidence against a share of `edge`: half a mixture's, half that of the wanted share. */
static double evidence(double hits, double misses, double wanted, double edge) {
    double plain = hits * log(wanted / edge) + misses * log((1 - wanted) / (1 - edge));
    double mixed = lgamma(hits + 0.5) + lgamma(misses + 0.5) - lgamma(hits + misses + 1) - log(M_PI) -
                   hits * log(edge) - misses * log(1 - edge);
    double greater = fmax(plain, mixed);
    return greater + log(0.5 * (exp(plain - greater) + exp(mixed - greater)));
}

static const char *look(void) {
    long total = 0;
    int good = 1;
    for (int i = 0; i < DESTINATIONS; i++)
        total += counts[i];
    if (!total)
        return "";
    for (int i = 0; i < DESTINATIONS; i++) {
        double low = shares[i] - tolerance, high = shares[i] + tolerance, share = (double)counts[i] / total;
        double below = evidence(counts[i], total - counts[i], shares[i], low);
        double above = evidence(counts[i], total - counts[i], shares[i], high);
        if ((share < low && below >= -log(alpha)) || (share > high && above >= -log(alpha)))
            return "fail";
        if (share <= low || share >= high || below < -log(beta) || above < -log(beta))
            good = 0;
    }
    return good ? "pass" : "";
}

static void deliver(void) {
    for (struct outcome *outcome; (outcome = &outcomes[delivered % AHEAD])->done; delivered++) {
        outcome->done = 0;
        if (outcome->kind == ANSWER) {
            double seconds = outcome->seconds;
            int bucket = seconds > 1e-6 ? log(seconds / 1e-6) / log(1.01) : 0;
            counts[outcome->destination]++;
            histogram[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
            fastest = fmin(fastest, seconds);
            slowest = fmax(slowest, seconds);
        } else
            errors[outcome->kind]++;
        if ((delivered + 1) % WAVE == 0) {
            const char *seen = look();
            if (!*verdict)
                verdict = seen;
        }
    }
}

static double cpu(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

int main(int argc, char **argv) {
    if (argc < 7)
        return 2;
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    inet_pton(AF_INET, argv[1], &address.sin_addr);
    long probes = atol(argv[3]), concurrency = atol(argv[4]);
    timeout = atof(argv[5]);
    tolerance = atof(argv[6]);
    eager = argc > 7;
    double cpu_before = cpu(), time_before = now(), clock = time_before, payload_until = clock;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    while (delivered < probes) {
        if (clock >= payload_until) {
            write_payload();
            payload_until = clock + 0.5;
        }
        while (launched < probes && launched < delivered + AHEAD && flying < concurrency) {
            start();
            launched++;
        }
        if (flying) {
            struct epoll_event events[EVENTS];
            double wait = (ends.after->began + timeout - clock) * 1e3;
            int count = epoll_wait(epoll, events, EVENTS, wait > 0 ? (int)wait + 1 : 0);
            for (int i = 0; i < count; i++)
                advance(events[i].data.ptr, events[i].events);
        }
        clock = now();
        while (flying && ends.after->began + timeout <= clock)
            finish(ends.after, TIMEOUT, 0);
        deliver();
    }
    double wall = now() - time_before, used = cpu() - cpu_before;
    long failed = 0;
    for (int i = 0; i < KINDS; i++)
        failed += errors[i];
    printf("{\"cpu\": %.6f, \"wall\": %.6f, \"probes\": %ld, \"errors\": %ld, \"verdict\": \"%s\"}\n", used, wall,
           delivered, failed, verdict);
    return 0;
}
