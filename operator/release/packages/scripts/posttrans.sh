# SPDX-License-Identifier: Apache-2.0
#
# rpm calls it when all else is done: after an upgrade the files are the new version's alone. A
# restart breaks no connection. If the new version does not start, the kernel goes on serving
# with what the old one has left.
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
	systemctl try-restart blixt.service || true
fi
