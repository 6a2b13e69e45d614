/* Preloaded into a node under test: while the file named by KVNODE_TEST_FAULT exists, what the disk is asked for fails
 * with the error number that stands in it: "sync 5" each fsync(2) and fdatasync(2), "write 28" each write(2) to a regular
 * file, "tables 28" those alone that are to a file in a folder named tables or blobs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fault(const char *what) {
  const char *path = getenv("KVNODE_TEST_FAULT");
  char text[64] = {0}, word[32] = {0};
  int number = 0, fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (fd < 0)
    return 0;
  ssize_t len = read(fd, text, sizeof text - 1);
  close(fd);
  if (len <= 0 || sscanf(text, "%31s %d", word, &number) != 2 || strcmp(word, what) != 0)
    return 0;
  return number;
}

static int sync_or_fail(const char *name, int fd) {
  int number = fault("sync");
  if (number) {
    errno = number;
    return -1;
  }
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
  return real(fd);
}

int fsync(int fd) { return sync_or_fail("fsync", fd); }
int fdatasync(int fd) { return sync_or_fail("fdatasync", fd); }

ssize_t write(int fd, const void *bytes, size_t len) {
  ssize_t (*real)(int, const void *, size_t) = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
  struct stat found;
  if (fd > 2 && fstat(fd, &found) == 0 && S_ISREG(found.st_mode)) {
    int number = fault("write");
    char link[64], path[4096] = {0};
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof path - 1) > 0 && (strstr(path, "/tables/") || strstr(path, "/blobs/")))
      number = number ? number : fault("tables");
    if (number) {
      errno = number;
      return -1;
    }
  }
  return real(fd, bytes, len);
}
