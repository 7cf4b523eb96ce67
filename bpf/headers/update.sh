#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Replaces the headers beside this script by those of the releases named
# below. They are vendored so that the C compiles to the same bytes on every
# distribution and architecture. Needs cargo and Debian's apt-get and dpkg-deb.
set -euo pipefail

# libbpf-sys is libbpf, complete and pinned. Its bpf.h must be that of Linux
# 6.7 or later (BPF_FIB_LOOKUP_SRC), which Debian 12's is not.
LIBBPF_SYS=1.7.0
# All else is from Debian's linux-libc-dev: any version from 6.1 on will do,
# because the layouts of protocol headers do not change.
FROM_LINUX=(
	asm-generic/{bitsperlong,errno,errno-base,int-ll64,posix_types,swab,types}.h
	linux/{const,errno,icmp,icmpv6,if_ether,in,in6,ip,ipv6,libc-compat}.h
	linux/{posix_types,socket,swab,tcp,types,udp}.h
	linux/byteorder/little_endian.h
)
FROM_LIBBPF=(linux/{bpf,bpf_common,pkt_cls,pkt_sched,stddef}.h)

cd "$(dirname "$0")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

mkdir -p "$tmp/crate/src"
touch "$tmp/crate/src/lib.rs"
printf '[package]\nname = "headers"\nedition = "2021"\n[dependencies]\nlibbpf-sys = "=%s"\n' \
	"$LIBBPF_SYS" >"$tmp/crate/Cargo.toml"
(cd "$tmp/crate" && cargo vendor --quiet vendor >/dev/null)
libbpf=$tmp/crate/vendor/libbpf-sys/libbpf

# apt's own downloader may not enter a directory made by mktemp.
(cd "$tmp" && apt-get -qq -o APT::Sandbox::User=root download linux-libc-dev &&
	dpkg-deb -x linux-libc-dev_*.deb linux)

rm -rf asm asm-generic bpf linux
mkdir -p asm asm-generic bpf linux/byteorder
cp "$libbpf"/src/bpf_{helpers,helper_defs,endian}.h bpf/
for h in "${FROM_LIBBPF[@]}"; do cp "$libbpf/include/uapi/$h" "$h"; done
for h in "${FROM_LINUX[@]}"; do cp "$tmp/linux/usr/include/$h" "$h"; done

# What an architecture would define, for bpfel: 64 bits, little-endian.
ours() { # file, content
	printf '/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */\n%s\n' "$2" >"$1"
}
for h in errno posix_types swab types; do
	ours "asm/$h.h" "#include <asm-generic/$h.h>"
done
ours asm/bitsperlong.h $'#define __BITS_PER_LONG 64\n#include <asm-generic/bitsperlong.h>'
ours asm/byteorder.h '#include <linux/byteorder/little_endian.h>'
# The real one needs libc's headers; icmp.h wants no more than this of it.
ours linux/if.h '#define IFNAMSIZ 16'

sed -i "s/^- libbpf .*/- libbpf $(sed -n 's/.*LIBBPF_\(MAJOR\|MINOR\)_VERSION \([0-9]*\)$/\2/p' \
	"$libbpf/src/libbpf_version.h" | paste -sd.)/
	s/^- linux-libc-dev .*/- linux-libc-dev $(dpkg-deb -f "$tmp"/linux-libc-dev_*.deb Version)/" README.md
