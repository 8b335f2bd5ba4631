/*
 * Shows the loopback interface as an ordinary one to a server that is preloaded with this. Janus skips loopback
 * when it looks for addresses to offer, even where its configuration names it. Not on the path of media.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <ifaddrs.h>
#include <net/if.h>

int getifaddrs(struct ifaddrs **list) {
  int (*next)(struct ifaddrs **) = (int (*)(struct ifaddrs **))dlsym(RTLD_NEXT, "getifaddrs");
  if (!next) return -1;
  int result = next(list);
  if (result == 0)
    for (struct ifaddrs *one = *list; one; one = one->ifa_next) one->ifa_flags &= ~IFF_LOOPBACK;
  return result;
}
