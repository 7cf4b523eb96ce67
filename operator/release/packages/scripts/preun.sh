# SPDX-License-Identifier: Apache-2.0
#
# rpm calls it with 0 for a removal, 1 for an upgrade, which stops nothing.
if [ "$1" = 0 ]; then
	if [ -d /run/systemd/system ]; then systemctl disable --now blixt.service || true; fi
@unload@
fi
