// The backend: sends every datagram back where it came from, with the time at which it had it in hand.
//
//   echo ADDRESS PORT HEAD
//   echo --sockets IN OUT
//
// HEAD is how many bytes a relay puts in front of a datagram for itself. They come back as they are. IN and OUT are
// descriptors of sockets that another process has made: one to read, of IPv6 for both versions, and one of IPv4 to send by.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "datagram.h"

enum { BATCH = 64, ROOM = 2048, BUFFER_BYTES = 8 << 20 };

static uint8_t room[BATCH][ROOM];
static union {
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} names[BATCH];
static struct iovec vectors[BATCH];
static struct mmsghdr messages[BATCH];

static void enlarge(int sock) {
    int bytes = BUFFER_BYTES;
    if (setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) ||
        setsockopt(sock, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes))
        err(1, "socket buffers");
}

static int bound(const char *address, const char *port) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, address, &here.sin_addr) != 1) errx(2, "%s: no IPv4 address", address);
    int sock = socket(AF_INET, SOCK_DGRAM, 0);
    if (sock < 0) err(1, "socket");
    enlarge(sock);
    int shared = 1;  // with whoever has a socket there for what one neighbour says
    if (setsockopt(sock, SOL_SOCKET, SO_REUSEPORT, &shared, sizeof shared)) err(1, "SO_REUSEPORT");
    if (bind(sock, (struct sockaddr *)&here, sizeof here)) err(1, "bind %s port %s", address, port);
    return sock;
}

// A descriptor from another process, which may not have wanted to wait for it.
static int given(const char *number) {
    int sock = atoi(number);
    if (fcntl(sock, F_SETFL, fcntl(sock, F_GETFL) & ~O_NONBLOCK)) err(1, "descriptor %s", number);
    return sock;
}

static void as_ipv4(int at) {
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = names[at].v6.sin6_port};
    memcpy(&v4.sin_addr, &names[at].v6.sin6_addr.s6_addr[12], 4);
    names[at].v4 = v4;
    messages[at].msg_hdr.msg_namelen = sizeof v4;
}

int main(int argc, char **argv) {
    if (argc != 4) errx(2, "usage: echo ADDRESS PORT HEAD, or echo --sockets IN OUT");
    bool apart = strcmp(argv[1], "--sockets") == 0;
    size_t head = apart ? 0 : strtoul(argv[3], NULL, 10);
    int in = apart ? given(argv[2]) : bound(argv[1], argv[2]), out = apart ? given(argv[3]) : in;
    if (apart) enlarge(in);

    uint32_t run = 0;
    uint64_t arrived = 0;
    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            vectors[i] = (struct iovec){room[i], ROOM};
            messages[i].msg_hdr = (struct msghdr){
                .msg_name = &names[i], .msg_namelen = sizeof names[i], .msg_iov = &vectors[i], .msg_iovlen = 1};
        }
        int count = recvmmsg(in, messages, BATCH, MSG_WAITFORONE, NULL);
        uint64_t now = monotonic_ns();
        for (int i = 0; i < count; i++) {
            vectors[i].iov_len = messages[i].msg_len;
            if (apart) as_ipv4(i);
            if (messages[i].msg_len != head + DATAGRAM_BYTES) continue;
            struct datagram *datagram = (struct datagram *)(room[i] + head);
            datagram->echoed_ns = now;
            if (datagram->run == 0) continue;  // the warm-up, which nobody counts
            if (datagram->run != run) {
                run = datagram->run;
                arrived = 0;
            }
            datagram->arrived = ++arrived;
        }
        // What cannot be sent (a relay that is gone) is skipped: the load counts it as lost.
        for (int done = 0; done < count;) {
            int sent = sendmmsg(out, messages + done, (unsigned)(count - done), 0);
            done += sent > 0 ? sent : 1;
        }
    }
}
