#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# dpkg calls it with "remove", or with "upgrade", which stops nothing.
set -e
if [ "$1" = remove ]; then
	if [ -d /run/systemd/system ]; then deb-systemd-invoke stop blixt.service || true; fi
@unload@
fi
