/* Copyright: (c) 2026, trafficshift.istio maintainers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The server that the benchmark probes: a line echo that replies a given time after the line came in.
 *
 * Usage: server MICROSECONDS...
 * Listens on a free port of all of 127.0.0.0/8 for each delay and prints the ports. A reply is a word ("one" four times
 * in five, else "two", drawn by a seeded generator), a space and the line. Only replies are delayed: connecting over
 * loopback takes no time. Ends when its standard input does, so that it does not outlive the benchmark.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { DESCRIPTORS = 20000, LINE = 4097, BACKLOG = 4096, EVENTS = 256 };

struct service {
    int64_t delay; /* nanoseconds */
    int timer;
    struct place *first, *last; /* lines that wait for their reply; the oldest is due first, for the delay is fixed */
};
/* What a descriptor is for. */
struct place {
    enum { INPUT, LISTENER, TIMER, CONNECTION } what;
    int fd;
    struct service *service;
    struct place *next;
    int64_t due; /* when the reply goes out, 0 while none waits */
    int length;
    char line[LINE];
};
static struct place *places[DESCRIPTORS]; /* made when first needed, kept for the next of the same number */
static int epoll;

static int check(int result, const char *what) {
    if (result < 0) {
        fprintf(stderr, "server: %s: %s\n", what, strerror(errno));
        exit(1);
    }
    return result;
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static struct place *watch(int fd, int what, struct service *service, int events) {
    errno = EMFILE;
    check(fd < DESCRIPTORS ? 0 : -1, "watch");
    if (!places[fd] && !(places[fd] = malloc(sizeof(struct place))))
        check(-1, "malloc");
    struct place *place = places[fd];
    place->what = what;
    place->fd = fd;
    place->service = service;
    place->due = place->length = 0;
    struct epoll_event event = {.events = events, .data.ptr = place};
    check(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
    return place;
}

static void alarm_at(struct service *service) {
    int64_t due = service->first ? service->first->due : 0;
    struct itimerspec when = {.it_value = {due / 1000000000, due % 1000000000}};
    check(timerfd_settime(service->timer, TFD_TIMER_ABSTIME, &when, NULL), "timerfd_settime");
}

static void reply(struct place *place) {
    static uint64_t state = 88172645463325252;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    char message[LINE + 4];
    memcpy(message, state % 5 < 4 ? "one " : "two ", 4);
    memcpy(message + 4, place->line, place->length);
    send(place->fd, message, place->length + 4, MSG_NOSIGNAL);
    place->due = place->length = 0;
}

/* Read until nothing is left, a line waits for its reply (what comes after is read then), or the client is gone. */
static void receive(struct place *place) {
    struct service *service = place->service;
    while (!place->due) {
        ssize_t got = recv(place->fd, place->line + place->length, LINE - place->length, 0);
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0) {
            close(place->fd);
            return;
        }
        place->length += got;
        if (place->line[place->length - 1] != '\n')
            continue;
        if (!service->delay) {
            reply(place);
            continue;
        }
        place->due = now() + service->delay;
        place->next = NULL;
        if (service->first) {
            service->last = service->last->next = place;
        } else {
            service->first = service->last = place;
            alarm_at(service);
        }
    }
}

static void send_due(struct service *service) {
    int64_t time = now();
    while (service->first && service->first->due <= time) {
        struct place *place = service->first;
        service->first = place->next;
        reply(place);
        receive(place);
    }
    alarm_at(service);
}

static void accept_all(struct place *listener) {
    int fd;
    while ((fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
        watch(fd, CONNECTION, listener->service, EPOLLIN | EPOLLRDHUP | EPOLLET);
    if (errno != EAGAIN && errno != ECONNABORTED)
        check(-1, "accept4");
}

int main(int argc, char **argv) {
    epoll = check(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    for (int i = 1; i < argc; i++) {
        struct service *service = calloc(1, sizeof *service);
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
        socklen_t size = sizeof address;
        service->delay = atoll(argv[i]) * 1000;
        service->timer = check(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), "timerfd_create");
        watch(service->timer, TIMER, service, EPOLLIN | EPOLLET);
        int fd = check(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket");
        /* All of 127.0.0.0/8, but nothing that comes in from outside. */
        check(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3), "setsockopt SO_BINDTODEVICE");
        check(bind(fd, (struct sockaddr *)&address, size), "bind");
        check(listen(fd, BACKLOG), "listen");
        check(getsockname(fd, (struct sockaddr *)&address, &size), "getsockname");
        watch(fd, LISTENER, service, EPOLLIN);
        printf("%d ", ntohs(address.sin_port));
    }
    printf("\n");
    fflush(stdout);
    watch(STDIN_FILENO, INPUT, NULL, EPOLLIN);
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct place *place = events[i].data.ptr;
            if (place->what == LISTENER)
                accept_all(place);
            else if (place->what == TIMER)
                send_due(place->service);
            else if (place->what == CONNECTION)
                receive(place);
            else
                return 0;
        }
    }
}
