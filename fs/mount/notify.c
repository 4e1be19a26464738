/* SPDX-License-Identifier: MIT */
/* Sends state to a service manager: one datagram of VARIABLE=VALUE lines to a socket of the file system, or an abstract one.
 */
#include "fs/mount/notify.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "codec/arith.h"

enum { MESSAGE_BYTES = 4096 };

int wcx_notify(const char *format, ...)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const size_t path_bytes = path ? strlen(path) : 0;
	char message[MESSAGE_BYTES];
	socklen_t address_bytes;
	va_list args;
	int fd, n, r;

	if (!path_bytes)
		return 0;
	if ((path[0] != '/' && path[0] != '@') || path_bytes >= sizeof address.sun_path)
		return -EINVAL;
	memcpy(address.sun_path, path, path_bytes);
	if (path[0] == '@') /* an abstract name, which begins with a null byte and has no other end than its length */
		address.sun_path[0] = '\0';
	address_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_bytes + (path[0] == '/'));
	va_start(args, format);
	n = vsnprintf(message, sizeof message, format, args);
	va_end(args);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (n < 0 || fd < 0)
		return -errno;
	r = sendto(fd, message, WCX_MIN((size_t)n, sizeof message - 1), MSG_NOSIGNAL, (const struct sockaddr *)&address,
		   address_bytes) < 0
		    ? -errno
		    : 0;
	close(fd);
	return r;
}
