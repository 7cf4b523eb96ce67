/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * trust.h - what is not believed about where a packet comes from. A packet of
 * an established flow pays one comparison for it.
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

/* Reports whether an address is link-local (fe80::/10): nothing may forward its packets (RFC 4291, 2.5.6), and a backend is behind us. */
static __always_inline bool is_link_local(const struct packet *p, const struct addr *a)
{
	return p->version == 6 && a->bytes[0] == 0xfe && (a->bytes[1] & 0xc0) == 0x80;
}

/*
 * Reports whether a packet proves that it is the answer of the reply entry f:
 *
 * - TCP that acknowledges exactly what the client has sent, which the sender
 *   has seen then. It has to be the first answer: later numbers can be guessed.
 * - At egress, the first answer of UDP: network plugins may deliver packets of
 *   pods by devices of which the FIB does not know.
 */
static __always_inline bool is_first_answer(const struct packet *p, const struct flow *f)
{
	struct flow_key key;

	if (is_udp(&p->key))
		return p->egress && !(f->flags & FLOW_ANSWERED);
	peer_key(&p->key, f, &key);
	const struct flow *forward = bpf_map_lookup_elem(&new_flows, &key);
	return forward && p->tcp_flags & TCP_ACK && (p->ack == forward->next || p->ack == f->ack);
}

/*
 * Reports whether the FIB leads to the backend of the reply entry f by the
 * device `in`, or by one that is stacked on it. Some of several equal next hops
 * are found only by a hash of other addresses than this flow's.
 *
 * At ingress any device is good if the one that the FIB names has no program:
 * it is stacked on this one in a way that does not show, or we would not see
 * replies at all.
 */
static __always_inline bool fib_leads_by(struct __sk_buff *ctx, struct packet *p, const struct flow *f, __u32 in)
{
	__u32 device = UNKNOWN_DEVICE;
	struct addr src = p->key.dst;

	for (int i = 0; i < FIB_TRIES; i++) {
		device = find_device(ctx, p, f->ifindex ? f->ifindex : LOOPBACK_IFINDEX, &src, &p->key.src);
		if (device == UNKNOWN_DEVICE) /* the device of the flow is gone */
			device = find_device(ctx, p, in, &src, &p->key.src);
		if (device == in)
			return true;
		src.bytes[15] ^= bpf_get_prandom_u32();
	}
	return !p->egress && device && device != UNKNOWN_DEVICE && !has_program(device);
}

/*
 * Reports whether a packet with the tuple of the reply entry f may be the
 * backend's, though it comes into this host by another device than the last one
 * did. If so, the device is stored: the next packet is not asked about. The FIB
 * is asked about a limited number of packets, as each costs more than many that
 * are believed: forged ones shall not use up the CPU.
 *
 * The host itself is believed, and its device never stored: IPv6 fragments that it
 * makes of a forwarded packet look like its own. Of one that a bridge has put
 * together the later ones name the bridge's port: at egress they are believed as
 * their first one was. A flow with device 0 at ingress is a connection of the host
 * (hostports.h), whose packets may come in by any device.
 * A tombstone ends packets from any device.
 *
 * ICMP errors are believed from any device: any router of the path may report. The
 * sender of the quoted packet checks what they quote (RFC 5927, 4.1). Of our own state
 * only the health of backends depends on them, and those alone count that come in by the device
 * of the flow.
 */
__noinline bool believe_device(struct __sk_buff *ctx, struct packet *p, struct flow *f)
{
	if (!p || !f)
		return false;
	__u32 in = ctx->ingress_ifindex;
	bool refragmented = p->egress && p->version == 6 && p->fragment == LATER_FRAGMENT;
	if (!in || refragmented || (!p->egress && !f->ifindex) || f->flags & FLOW_GONE)
		return true;
	if (!is_first_answer(p, f) && !(may_answer(SHARE_DEVICES) && fib_leads_by(ctx, p, f, in)))
		return false;
	f->ifindex = in;
	return true;
}

/*
 * Reports whether a packet with the tuple of f is believed to be its sender's.
 * At ingress ingress_ifindex is this device; at egress it is the one that the
 * packet came in by, and 0 for a packet of the host itself.
 */
static __always_inline bool comes_as_expected(struct __sk_buff *ctx, struct packet *p, struct flow *f)
{
	return !(f->flags & FLOW_REPLY) || ctx->ingress_ifindex == f->ifindex || believe_device(ctx, p, f);
}

#endif /* BLIXT_TRUST_H */
