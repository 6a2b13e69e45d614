/* Preloaded into a node under test: notes how to undo each change of a file under KVNODE_UNDO_DIR before it is made, and
 * each fsync(2) after it is done, in KVNODE_UNDO_LOG/log. After a SIGKILL tests/durable/undo.rs undoes what was not
 * synced: what is left is what a power cut would leave at worst.
 *
 * fsync of a file makes its name durable where it was created, as it is on ext4, XFS and btrfs; any other change of a
 * folder is undone unless the folder itself was synced. One change at a time, so the notes stand in the order of the
 * changes. Renames by bare system calls pass by, and count as made. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

/* kind, bytes that follow, inode of what changes, and two numbers; tests/durable/undo.rs reads the same. */
struct note {
  uint32_t kind, len;
  uint64_t inode, a, b;
};
enum { WRITE = 1, TRUNCATE, SYNC, CREATE, UNLINK, RENAME, MKDIR, RMDIR };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t saved;

static const char *watched(void) { return getenv("KVNODE_UNDO_DIR"); }

static int inside(const char *path) {
  const char *dir = watched();
  return dir && path && strncmp(path, dir, strlen(dir)) == 0;
}

/* The inode of a file or folder that is watched, or 0. */
static uint64_t of_fd(int fd, struct stat *found) {
  char link[64], path[4096];
  if (fd < 3 || !watched())
    return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t len = readlink(link, path, sizeof path - 1);
  if (len <= 0)
    return 0;
  path[len] = 0;
  return inside(path) && fstat(fd, found) == 0 ? found->st_ino : 0;
}

static uint64_t parent(const char *path) {
  char dir[4096];
  struct stat found;
  snprintf(dir, sizeof dir, "%s", path);
  char *slash = strrchr(dir, '/');
  if (!slash)
    return 0;
  *slash = 0;
  return stat(dir, &found) == 0 ? found.st_ino : 0;
}

static void put(const void *bytes, size_t len) {
  static int fd = -1;
  if (fd < 0) {
    char path[4096];
    snprintf(path, sizeof path, "%s/log", getenv("KVNODE_UNDO_LOG"));
    fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  }
  while (len > 0) {
    ssize_t some = syscall(SYS_write, fd, bytes, len);
    if (some <= 0)
      abort();
    bytes = (const char *)bytes + some;
    len -= some;
  }
}

static void note(uint32_t kind, uint64_t inode, uint64_t a, uint64_t b, const void *bytes, size_t len) {
  struct note head = {kind, len, inode, a, b};
  put(&head, sizeof head);
  put(bytes, len);
}

/* Notes a range of a file as it is, up to its end; of what is cut off, without the zeros at the end. */
static void note_range(uint32_t kind, int fd, const struct stat *found, uint64_t from, uint64_t to) {
  uint64_t size = found->st_size;
  size_t len = from < size ? (to < size ? to : size) - from : 0;
  char *old = malloc(len + 1);
  ssize_t got = len ? pread(fd, old, len, from) : 0;
  if (got < 0) {
    /* Opened for writing only. */
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int again = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC);
    got = pread(again, old, len, from);
    close(again);
    if (got < 0)
      abort();
  }
  while (kind == TRUNCATE && got > 0 && old[got - 1] == 0)
    got--;
  note(kind, found->st_ino, from, size, old, got);
  free(old);
}

/* A second name for a file that is about to lose its own: its number, or 0. */
static uint64_t save(const char *path) {
  char name[4096];
  snprintf(name, sizeof name, "%s/%lu", getenv("KVNODE_UNDO_LOG"), (unsigned long)++saved);
  return syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, name, 0) == 0 ? saved : 0;
}

static void before_write(int fd, int64_t at, size_t len) {
  struct stat found;
  if (!of_fd(fd, &found) || !S_ISREG(found.st_mode))
    return;
  if (at < 0)
    at = fcntl(fd, F_GETFL) & O_APPEND ? found.st_size : lseek(fd, 0, SEEK_CUR);
  note_range(WRITE, fd, &found, at, at + len);
}

ssize_t write(int fd, const void *bytes, size_t len) {
  ssize_t (*real)(int, const void *, size_t) = REAL(ssize_t, write, int, const void *, size_t);
  pthread_mutex_lock(&lock);
  before_write(fd, -1, len);
  ssize_t done = real(fd, bytes, len);
  pthread_mutex_unlock(&lock);
  return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  ssize_t (*real)(int, const struct iovec *, int) = REAL(ssize_t, writev, int, const struct iovec *, int);
  size_t len = 0;
  for (int part = 0; part < count; part++)
    len += parts[part].iov_len;
  pthread_mutex_lock(&lock);
  before_write(fd, -1, len);
  ssize_t done = real(fd, parts, count);
  pthread_mutex_unlock(&lock);
  return done;
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t at) {
  ssize_t (*real)(int, const void *, size_t, off64_t) = REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
  pthread_mutex_lock(&lock);
  before_write(fd, at, len);
  ssize_t done = real(fd, bytes, len, at);
  pthread_mutex_unlock(&lock);
  return done;
}

int ftruncate64(int fd, off64_t len) {
  int (*real)(int, off64_t) = REAL(int, ftruncate64, int, off64_t);
  struct stat found;
  pthread_mutex_lock(&lock);
  if (of_fd(fd, &found))
    note_range(TRUNCATE, fd, &found, len, found.st_size);
  int done = real(fd, len);
  pthread_mutex_unlock(&lock);
  return done;
}

static int sync_and_note(int (*real)(int), int fd) {
  struct stat found;
  pthread_mutex_lock(&lock);
  int done = real(fd);
  int error = errno;
  if (done == 0 && of_fd(fd, &found))
    note(SYNC, found.st_ino, 0, 0, "", 0);
  errno = error;
  pthread_mutex_unlock(&lock);
  return done;
}

int fsync(int fd) { return sync_and_note(REAL(int, fsync, int), fd); }
int fdatasync(int fd) { return sync_and_note(REAL(int, fdatasync, int), fd); }

static int open_and_note(const char *path, int flags, mode_t mode) {
  struct stat found;
  pthread_mutex_lock(&lock);
  int there = stat(path, &found) == 0;
  if (there && flags & O_TRUNC && S_ISREG(found.st_mode)) {
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    note_range(TRUNCATE, fd, &found, 0, found.st_size);
    close(fd);
  }
  int fd = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
  int error = errno;
  if (fd >= 0 && !there && fstat(fd, &found) == 0)
    note(CREATE, found.st_ino, parent(path), 0, path, strlen(path));
  errno = error;
  pthread_mutex_unlock(&lock);
  return fd;
}

#define OPEN(name)                                                                                                      \
  int name(const char *path, int flags, ...) {                                                                          \
    mode_t mode = 0;                                                                                                    \
    va_list rest;                                                                                                       \
    va_start(rest, flags);                                                                                              \
    if (flags & O_CREAT)                                                                                                \
      mode = va_arg(rest, mode_t);                                                                                      \
    va_end(rest);                                                                                                       \
    if (inside(path) && flags & (O_CREAT | O_TRUNC))                                                                    \
      return open_and_note(path, flags, mode);                                                                          \
    return syscall(SYS_openat, AT_FDCWD, path, flags, mode);                                                            \
  }
OPEN(open)
OPEN(open64)

int unlink(const char *path) {
  int (*real)(const char *) = REAL(int, unlink, const char *);
  struct stat found;
  if (!inside(path))
    return real(path);
  pthread_mutex_lock(&lock);
  if (lstat(path, &found) == 0)
    note(UNLINK, found.st_ino, parent(path), save(path), path, strlen(path));
  int done = real(path);
  pthread_mutex_unlock(&lock);
  return done;
}

/* As folders are removed with all that is in them: by the names in a folder that is open. */
int unlinkat(int dir, const char *name, int flags) {
  int (*real)(int, const char *, int) = REAL(int, unlinkat, int, const char *, int);
  char link[64], path[8192];
  struct stat found;
  ssize_t len = 0;
  if (name[0] != '/' && dir >= 0) {
    snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    len = readlink(link, path, 4095);
    if (len < 0)
      return real(dir, name, flags);
    path[len++] = '/';
  }
  snprintf(path + len, sizeof path - len, "%s", name);
  if (!inside(path))
    return real(dir, name, flags);
  pthread_mutex_lock(&lock);
  int is_there = lstat(path, &found) == 0;
  if (is_there && !(flags & AT_REMOVEDIR))
    note(UNLINK, found.st_ino, parent(path), save(path), path, strlen(path));
  int done = real(dir, name, flags);
  int error = errno;
  if (done == 0 && is_there && flags & AT_REMOVEDIR)
    note(RMDIR, found.st_ino, parent(path), 0, path, strlen(path));
  errno = error;
  pthread_mutex_unlock(&lock);
  return done;
}

int rename(const char *from, const char *to) {
  int (*real)(const char *, const char *) = REAL(int, rename, const char *, const char *);
  struct stat found;
  if (!inside(to))
    return real(from, to);
  pthread_mutex_lock(&lock);
  if (lstat(from, &found) == 0) {
    char both[8192];
    int len = snprintf(both, sizeof both, "%s%c%s", from, 0, to);
    note(RENAME, found.st_ino, parent(to), save(to), both, len);
  }
  int done = real(from, to);
  pthread_mutex_unlock(&lock);
  return done;
}

int mkdir(const char *path, mode_t mode) {
  int (*real)(const char *, mode_t) = REAL(int, mkdir, const char *, mode_t);
  struct stat found;
  pthread_mutex_lock(&lock);
  int done = real(path, mode);
  int error = errno;
  if (done == 0 && inside(path) && stat(path, &found) == 0)
    note(MKDIR, found.st_ino, parent(path), 0, path, strlen(path));
  errno = error;
  pthread_mutex_unlock(&lock);
  return done;
}
