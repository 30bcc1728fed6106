// The least that a relay on sockets can cost: one shared port, one backend, a batch a system call, and no table.
//
//   floor ADDRESS PORT BACKEND_ADDRESS BACKEND_PORT ROUND_US
//
// It sleeps ROUND_US before it looks for the next batch; with 0 it takes what comes as it comes.
// A client's address travels to the backend and back in front of its datagram (HEAD bytes), so nothing is looked up
// and nothing is copied: the kernel writes it there, and reads it from there.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 256, ROOM = 2048, HEAD = sizeof(struct sockaddr_in), BUFFER_BYTES = 8 << 20 };

struct direction {
    uint8_t room[BATCH][ROOM];
    struct iovec vectors[BATCH];
    struct mmsghdr messages[BATCH];
};

static struct direction up, down;

static struct sockaddr_in address(const char *host, const char *port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, host, &a.sin_addr) != 1) errx(2, "%s: no IPv4 address", host);
    return a;
}

static int udp(void) {
    int sock = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), bytes = BUFFER_BYTES;
    if (sock < 0) err(1, "socket");
    if (setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) ||
        setsockopt(sock, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes))
        err(1, "socket buffers");
    return sock;
}

static void send_all(int sock, struct mmsghdr *messages, int count) {
    for (int done = 0; done < count;) {
        int sent = sendmmsg(sock, messages + done, (unsigned)(count - done), 0);
        done += sent > 0 ? sent : 1;
    }
}

static void client_to_backend(int front, int back) {
    for (int i = 0; i < BATCH; i++) {
        up.vectors[i] = (struct iovec){up.room[i] + HEAD, ROOM - HEAD};
        up.messages[i].msg_hdr = (struct msghdr){
            .msg_name = up.room[i], .msg_namelen = HEAD, .msg_iov = &up.vectors[i], .msg_iovlen = 1};
    }
    int count = recvmmsg(front, up.messages, BATCH, 0, NULL);
    for (int i = 0; i < count; i++) {
        up.vectors[i] = (struct iovec){up.room[i], HEAD + up.messages[i].msg_len};
        up.messages[i].msg_hdr = (struct msghdr){.msg_iov = &up.vectors[i], .msg_iovlen = 1};
    }
    send_all(back, up.messages, count);
}

static void backend_to_client(int back, int front) {
    for (int i = 0; i < BATCH; i++) {
        down.vectors[i] = (struct iovec){down.room[i], ROOM};
        down.messages[i].msg_hdr = (struct msghdr){.msg_iov = &down.vectors[i], .msg_iovlen = 1};
    }
    int count = recvmmsg(back, down.messages, BATCH, 0, NULL);
    for (int i = 0; i < count; i++) {
        if (down.messages[i].msg_len < HEAD) errx(1, "the backend lost an address");
        down.vectors[i] = (struct iovec){down.room[i] + HEAD, down.messages[i].msg_len - HEAD};
        down.messages[i].msg_hdr = (struct msghdr){
            .msg_name = down.room[i], .msg_namelen = HEAD, .msg_iov = &down.vectors[i], .msg_iovlen = 1};
    }
    send_all(front, down.messages, count);
}

int main(int argc, char **argv) {
    if (argc != 6) errx(2, "usage: floor ADDRESS PORT BACKEND_ADDRESS BACKEND_PORT ROUND_US");
    useconds_t round_us = (useconds_t)atoi(argv[5]);
    struct sockaddr_in here = address(argv[1], argv[2]), there = address(argv[3], argv[4]);
    int front = udp(), back = udp();
    if (bind(front, (struct sockaddr *)&here, sizeof here)) err(1, "bind %s port %s", argv[1], argv[2]);
    if (connect(back, (struct sockaddr *)&there, sizeof there)) err(1, "connect");

    struct pollfd sockets[] = {{.fd = front, .events = POLLIN}, {.fd = back, .events = POLLIN}};
    for (;;) {
        if (round_us) usleep(round_us);
        if (poll(sockets, 2, -1) < 0) err(1, "poll");
        if (sockets[0].revents) client_to_backend(front, back);
        if (sockets[1].revents) backend_to_client(back, front);
    }
}
