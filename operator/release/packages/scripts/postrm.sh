#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# dpkg calls it with "remove", and with "purge" when what was configured is to go, too.
set -e
case $1 in
remove)
	if [ -d /run/systemd/system ]; then systemctl --system daemon-reload >/dev/null || true; fi
	rmdir /run/blixt 2>/dev/null || true # a process that somebody has started has files there
	;;
purge)
	# What another file system is mounted on is only emptied: that is no reason to fail.
	rm -rf /etc/blixt /var/lib/blixt || true
	deb-systemd-helper purge blixt.service >/dev/null || true
	;;
esac
