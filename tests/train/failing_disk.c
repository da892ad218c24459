// Counts the calls that change files under a folder, and lets chosen ones fail. test_disk.py builds it and preloads it under failing_disk.py.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static long count, chosen;
static int manner, reason;
static char root[4096];

void disk_arm(long call, int how, int error, const char *folder) {
  snprintf(root, sizeof root, "%s", folder);
  manner = how; reason = error; count = 0; chosen = call;
}
long disk_count(void) { return count; }

// Whether this call fails. how: 1 only the chosen one, 2 it and all after it, 3 the process ends there.
static int fails(const char *path) {
  if (!root[0] || strncmp(path, root, strlen(root))) return 0;
  long now = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
  if (manner == 3 && now == chosen) _exit(9);
  if (!(manner == 1 ? now == chosen : manner == 2 && now >= chosen)) return 0;
  errno = reason;
  return 1;
}
static int fails_at(int folder, const char *path) {
  char link[64], whole[8192];
  if (path && path[0] == '/') return fails(path);
  snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
  ssize_t size = readlink(link, whole, 4096);
  if (size < 0) return 0;
  snprintf(whole + size, 4000, "/%s", path ? path : "");
  return fails(whole);
}
#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define ON_PATH(name, type, declared, given, path) type name declared { REAL(name); return fails(path) ? -1 : real given; }
#define ON_FILE(name, type, declared, given, file) type name declared { REAL(name); return fails_at(file, 0) ? -1 : real given; }
#define ON_OPEN(name) int name(const char *path, int flags, ...) { REAL(name); va_list rest; va_start(rest, flags); \
  mode_t mode = va_arg(rest, mode_t); va_end(rest); return (flags & O_CREAT) && fails(path) ? -1 : real(path, flags, mode); }
#define ON_OPENAT(name) int name(int at, const char *path, int flags, ...) { REAL(name); va_list rest; va_start(rest, flags); \
  mode_t mode = va_arg(rest, mode_t); va_end(rest); return (flags & O_CREAT) && fails_at(at, path) ? -1 : real(at, path, flags, mode); }
ON_OPEN(open) ON_OPEN(open64) ON_OPENAT(openat) ON_OPENAT(openat64)
ON_PATH(mkdir, int, (const char *path, mode_t mode), (path, mode), path)
ON_PATH(rename, int, (const char *path, const char *to), (path, to), path)
ON_PATH(unlink, int, (const char *path), (path), path)
ON_PATH(rmdir, int, (const char *path), (path), path)
ON_FILE(write, ssize_t, (int file, const void *data, size_t size), (file, data, size), file)
ON_FILE(pwrite, ssize_t, (int file, const void *data, size_t size, off_t at), (file, data, size, at), file)
ON_FILE(pwrite64, ssize_t, (int file, const void *data, size_t size, off64_t at), (file, data, size, at), file)
ON_FILE(writev, ssize_t, (int file, const struct iovec *parts, int number), (file, parts, number), file)
ON_FILE(fsync, int, (int file), (file), file)
ON_FILE(fdatasync, int, (int file), (file), file)
ON_FILE(ftruncate, int, (int file, off_t size), (file, size), file)
int mkdirat(int at, const char *path, mode_t mode) { REAL(mkdirat); return fails_at(at, path) ? -1 : real(at, path, mode); }
int unlinkat(int at, const char *path, int flags) { REAL(unlinkat); return fails_at(at, path) ? -1 : real(at, path, flags); }
int renameat(int at, const char *path, int into, const char *to) { REAL(renameat); return fails_at(at, path) ? -1 : real(at, path, into, to); }
