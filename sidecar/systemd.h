/*
 * systemd.h - one line for `systemctl status`: what the sidecar is about.
 *
 *   systemd_status("filling from %s: %d %%", topic, percent);
 *
 * Without $NOTIFY_SOCKET, or where nobody listens, nothing happens.  The protocol
 * is a datagram of text, sd_notify(3); a library is not needed for it.
 *
 * Threads: any.
 */
#ifndef SYSTEMD_H
#define SYSTEMD_H

/** The line; a newline in it ends it. */
void systemd_status(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
