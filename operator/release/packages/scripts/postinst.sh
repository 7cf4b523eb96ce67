#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# dpkg calls it with "configure" and the version that was configured last, if any.
set -e
case $1 in
configure | abort-upgrade | abort-deconfigure | abort-remove)
	# The unit is enabled by who has configured it, never here. An earlier enabling is kept.
	deb-systemd-helper unmask blixt.service >/dev/null || true
	if deb-systemd-helper debian-installed blixt.service &&
		deb-systemd-helper --quiet was-enabled blixt.service; then
		deb-systemd-helper enable blixt.service >/dev/null || true
	fi
	deb-systemd-helper update-state blixt.service >/dev/null || true
	;;
esac
if [ "$1" = configure ] && [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload >/dev/null || true
	# A restart breaks no connection. If the new version does not start, the kernel goes on
	# serving with what the old one has left.
	if [ -n "$2" ]; then deb-systemd-invoke try-restart blixt.service || true; fi
fi
if [ "$1" = configure ] && [ -z "$2" ]; then
	echo "blixt: say in /etc/blixt what to serve, then run: systemctl enable --now blixt"
fi
