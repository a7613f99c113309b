/*
 * Makes a program see an older kernel, or a device without checksum offload: the calls that these lack fail as they fail there.
 *
 *     gcc -shared -fPIC -o old-kernel.so old-kernel.c; LD_PRELOAD=old-kernel.so OLD_KERNEL=no-uso,no-udp-gro PROGRAM
 *
 * no-uso          TUNSETOFFLOAD doesn't know UDP segmentation (before Linux 6.2)
 * no-tso          nor TCP segmentation
 * no-offload      nor anything: the call itself is unknown (some sandboxes)
 * no-vnet         TUNSETIFF doesn't know virtio headers
 * no-udp-segment  a socket doesn't know UDP_SEGMENT (before Linux 4.18)
 * no-udp-gro      nor UDP_GRO (before Linux 5.0)
 * no-checksum     a train is refused when it is sent: the device that it leaves by can't compute checksums
 *
 * Each kind of refusal is told once on standard error, so that a test knows that it took place.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TUNSETIFF 0x400454caul
#define TUNSETOFFLOAD 0x400454d0ul
#define IFF_VNET_HDR 0x4000
#define TSO 0x0eul
#define USO 0x60ul
#define SOL_UDP 17
#define UDP_SEGMENT 103
#define UDP_GRO 104

static int lacks(const char *what)
{
  static const char *kinds[] = { "no-uso", "no-tso", "no-offload", "no-vnet", "no-udp-segment", "no-udp-gro", "no-checksum" };
  static int told[sizeof kinds / sizeof *kinds];
  const char *all = getenv("OLD_KERNEL");
  size_t len = strlen(what), i;
  const char *at;

  for (at = all ? strstr(all, what) : NULL; at; at = strstr(at + 1, what))
    if ((at == all || at[-1] == ',') && (at[len] == ',' || at[len] == '\0'))
      break;
  if (!at)
    return 0;
  for (i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (!strcmp(kinds[i], what) && !__atomic_exchange_n(&told[i], 1, __ATOMIC_RELAXED))
      dprintf(STDERR_FILENO, "old kernel: %s\n", what);
  return 1;
}

static int refuse(int error)
{
  errno = error;
  return -1;
}

int ioctl(int fd, unsigned long request, ...)
{
  static int (*real)(int, unsigned long, unsigned long);
  va_list args;
  unsigned long value;

  va_start(args, request);
  value = va_arg(args, unsigned long);
  va_end(args);
  if (!real)
    *(void **)&real = dlsym(RTLD_NEXT, "ioctl");
  if (request == TUNSETOFFLOAD) {
    if (lacks("no-offload"))
      return refuse(ENOTTY);
    if ((value & USO) && lacks("no-uso"))
      return refuse(EINVAL);
    if ((value & TSO) && lacks("no-tso"))
      return refuse(EINVAL);
  }
  if (request == TUNSETIFF && (((struct ifreq *)value)->ifr_flags & IFF_VNET_HDR) && lacks("no-vnet"))
    return refuse(EINVAL);
  return real(fd, request, value);
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
  static int (*real)(int, int, int, const void *, socklen_t);

  if (!real)
    *(void **)&real = dlsym(RTLD_NEXT, "setsockopt");
  if (level == SOL_UDP && ((name == UDP_SEGMENT && lacks("no-udp-segment")) || (name == UDP_GRO && lacks("no-udp-gro"))))
    return refuse(ENOPROTOOPT);
  return real(fd, level, name, value, len);
}

static int is_train(struct msghdr *message)
{
  struct cmsghdr *control;

  for (control = CMSG_FIRSTHDR(message); control; control = CMSG_NXTHDR(message, control))
    if (control->cmsg_level == SOL_UDP && control->cmsg_type == UDP_SEGMENT)
      return 1;
  return 0;
}

/* What the kernel says of a message before it is sent; 0 if nothing. */
static int refused(struct msghdr *message)
{
  if (!is_train(message))
    return 0;
  if (lacks("no-udp-segment"))
    return EINVAL;
  return lacks("no-checksum") ? EIO : 0;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
  static ssize_t (*real)(int, const struct msghdr *, int);
  int error = refused((struct msghdr *)message);

  if (!real)
    *(void **)&real = dlsym(RTLD_NEXT, "sendmsg");
  return error ? refuse(error) : real(fd, message, flags);
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags)
{
  static int (*real)(int, struct mmsghdr *, unsigned int, int);
  unsigned int good;
  int error = 0;

  if (!real)
    *(void **)&real = dlsym(RTLD_NEXT, "sendmmsg");
  for (good = 0; good < count; good++)
    if ((error = refused(&messages[good].msg_hdr)))
      break;
  /* As in the kernel: what stands before a refused message is sent, and the error comes with the next call. */
  return good == 0 && error ? refuse(error) : real(fd, messages, good, flags);
}

/* The addon makes this call itself, for musl's sendmmsg is not one call. */
long syscall(long number, ...)
{
  static long (*real)(long, long, long, long, long, long, long);
  long arg[6];
  va_list args;
  int i;

  va_start(args, number);
  for (i = 0; i < 6; i++)
    arg[i] = va_arg(args, long);
  va_end(args);
  if (!real)
    *(void **)&real = dlsym(RTLD_NEXT, "syscall");
  if (number == SYS_sendmmsg)
    return sendmmsg((int)arg[0], (struct mmsghdr *)arg[1], (unsigned int)arg[2], (int)arg[3]);
  return real(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
}
