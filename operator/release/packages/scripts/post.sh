# SPDX-License-Identifier: Apache-2.0
#
# rpm calls it with 1 for an installation, 2 for an upgrade.
if [ "$1" = 1 ]; then
	echo "blixt: say in /etc/blixt what to serve, then run: systemctl enable --now blixt"
fi
