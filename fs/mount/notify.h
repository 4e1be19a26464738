/* SPDX-License-Identifier: MIT */
/* Tells a service manager how the daemon is, by systemd's protocol (sd_notify(3)). */
#ifndef WCX_NOTIFY_H
#define WCX_NOTIFY_H

/*
 * wcx_notify - send lines such as "READY=1\nSTATUS=..." to the socket that the environment variable NOTIFY_SOCKET names
 *
 * Returns 0, also if there is no such variable; or -errno.
 */
int wcx_notify(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
