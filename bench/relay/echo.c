// The backend: sends every datagram back where it came from, with the time at which it had it in hand.
//
//   echo ADDRESS PORT HEAD
//
// HEAD is how many bytes a relay puts in front of a datagram for itself. They come back as they are.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "datagram.h"

enum { BATCH = 64, ROOM = 2048, BUFFER_BYTES = 8 << 20 };

static uint8_t room[BATCH][ROOM];
static struct sockaddr_in names[BATCH];
static struct iovec vectors[BATCH];
static struct mmsghdr messages[BATCH];

int main(int argc, char **argv) {
    if (argc != 4) errx(2, "usage: echo ADDRESS PORT HEAD");
    size_t head = strtoul(argv[3], NULL, 10);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    if (inet_pton(AF_INET, argv[1], &here.sin_addr) != 1) errx(2, "%s: no IPv4 address", argv[1]);

    int sock = socket(AF_INET, SOCK_DGRAM, 0), bytes = BUFFER_BYTES;
    if (sock < 0) err(1, "socket");
    if (setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) ||
        setsockopt(sock, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes))
        err(1, "socket buffers");
    if (bind(sock, (struct sockaddr *)&here, sizeof here)) err(1, "bind %s port %s", argv[1], argv[2]);

    uint32_t run = 0;
    uint64_t arrived = 0;
    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            vectors[i] = (struct iovec){room[i], ROOM};
            messages[i].msg_hdr = (struct msghdr){
                .msg_name = &names[i], .msg_namelen = sizeof names[i], .msg_iov = &vectors[i], .msg_iovlen = 1};
        }
        int count = recvmmsg(sock, messages, BATCH, MSG_WAITFORONE, NULL);
        uint64_t now = monotonic_ns();
        for (int i = 0; i < count; i++) {
            vectors[i].iov_len = messages[i].msg_len;
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
            int sent = sendmmsg(sock, messages + done, (unsigned)(count - done), 0);
            done += sent > 0 ? sent : 1;
        }
    }
}
