# SPDX-License-Identifier: Apache-2.0
#
# rpm calls it with 0 for a removal, 1 for an upgrade.
if [ "$1" = 0 ]; then
	if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
	rmdir /run/blixt 2>/dev/null || true # a process that somebody has started has files there
fi
