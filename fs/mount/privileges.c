/* SPDX-License-Identifier: MIT */
/* Drops capabilities, through the kernel's own interface: libcap would be one more library for three calls. */
#include "fs/mount/privileges.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t kept_capabilities(enum wcx_privileges keep)
{
	const uint64_t read = UINT64_C(1) << CAP_DAC_READ_SEARCH, mount = UINT64_C(1) << CAP_SYS_ADMIN;

	return keep == WCX_PRIVILEGES_UNMOUNT ? read | mount : read;
}

/* Without CAP_SETPCAP the set stays as it is, but with no-new-privileges it gives nothing to programs that are executed. */
static int limit_bounding_set(uint64_t kept)
{
	for (unsigned long i = 0; prctl(PR_CAPBSET_READ, i, 0, 0, 0) >= 0; i++)
		if (!(kept >> i & 1) && prctl(PR_CAPBSET_DROP, i, 0, 0, 0))
			return errno == EPERM ? 0 : -errno;
	return 0;
}

static int limit_capabilities(uint64_t kept)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	if (syscall(SYS_capget, &header, data))
		return -errno;
	for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
		data[i].permitted &= (uint32_t)(kept >> (32 * i));
		data[i].effective &= data[i].permitted;
		data[i].inheritable = 0; /* which empties the ambient set, too */
	}
	return syscall(SYS_capset, &header, data) ? -errno : 0;
}

int wcx_privileges_drop(enum wcx_privileges keep)
{
	const uint64_t kept = kept_capabilities(keep);
	const bool unmounts_itself = geteuid() == 0 || keep == WCX_PRIVILEGES_READ;
	int r = 0;

	if (unmounts_itself && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		r = -errno;
	if (!r && unmounts_itself)
		r = limit_bounding_set(kept);
	return r ? r : limit_capabilities(kept);
}
