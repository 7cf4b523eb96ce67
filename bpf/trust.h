/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * trust.h - what is not believed about where a packet comes from. Nothing here
 * runs for packets of an established flow that come in as expected.
 */
#ifndef BLIXT_TRUST_H
#define BLIXT_TRUST_H

#include "flow.h"

/* Reports whether an IPv6 or a mapped IPv4 address never leaves its host: 127.0.0.0/8 (RFC 1122, 3.2.1.3), ::1. */
static __always_inline bool is_loopback(const struct packet *p, const struct addr *a)
{
	const __u32 *w = (const __u32 *)a;
	return p->version == 4 ? a->bytes[12] == 127 : !(w[0] | w[1] | w[2]);
}

/*
 * Reports whether the packet's source is one that no sender outside this host
 * can have (a "martian", RFC 1812, 5.3.7): such a packet begins no flow and
 * gets no answer. The stack would find out, but behind us.
 *
 * The host itself may use all of its addresses: one process calls another
 * from the frontend's own address, or from 127.0.0.1. An address that is
 * shared with the host is not only a frontend's, and may be a client's.
 */
__noinline bool is_martian(const struct packet *p)
{
	if (!p || !is_unicast(p, &p->key.src))
		return true;
	if (p->host)
		return false;
	if (is_loopback(p, &p->key.src) || same_addr(&p->key.src, &p->key.dst))
		return true;
	const struct address *own = bpf_map_lookup_elem(&addresses, &p->key.src);
	return own && own->flags & ADDRESS_EXCLUSIVE;
}

/* Reports whether the source is link-local (fe80::/10): nothing may forward its packets (RFC 4291, 2.5.6), and a backend is behind us. */
static __always_inline bool is_link_local(const struct packet *p)
{
	const __u8 *src = p->key.src.bytes;
	return p->version == 6 && src[0] == 0xfe && (src[1] & 0xc0) == 0x80;
}

#endif /* BLIXT_TRUST_H */
