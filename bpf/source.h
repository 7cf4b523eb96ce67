/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * source.h - flows whose translated source, or whose way, is gone. A flow keeps
 * the address of this host that the FIB named when it began. That address may
 * go (the host is renumbered), or the FIB may send by another device from then
 * on (a link is down). Packets with the previous source get no answer, and a
 * client that never stops would be lost for ever.
 *
 * So once a tick each flow asks the FIB again which source it names now:
 *
 * - A flow without a connection (UDP, or TCP that nobody has answered) takes
 *   that source at once. Its backend stays.
 * - A TCP connection has no other source. It is kept: the address may be back in
 *   a moment. Its client gets a RST when the backend has not been heard of for
 *   SOURCE_GRACE_TICKS, in all of which the FIB named another source.
 */
#ifndef BLIXT_SOURCE_H
#define BLIXT_SOURCE_H

#include "ports.h"

enum source {
	SOURCE_STAYS,
	SOURCE_CHANGES, /* to that of p->route */
	SOURCE_LOST,	/* for so long that the connection ends */
};

/* Reports whether packets of this forward entry leave by the FIB, with a source that the FIB has named. */
static __always_inline bool has_fib_source(const struct flow *f)
{
	return (f->flags & (FLOW_REPLY | FLOW_SNAT | FLOW_STACK | FLOW_REENTER)) == FLOW_SNAT;
}

/* Reports whether the flow can take another source: no connection depends on the one that it has. */
static __always_inline bool is_connectionless(const struct packet *p, const struct flow *f)
{
	return is_udp(&p->key) || !(f->flags & (FLOW_ESTABLISHED | FLOW_ANSWERED | FLOW_CLOSED));
}

/* Returns for how many ticks the backend of the forward entry f has sent nothing. */
static __always_inline __u32 backend_silent(const struct packet *p, const struct flow *f)
{
	struct flow_key k;
	peer_key(&p->key, f, &k);
	const struct flow *reply = find_flow(&k);
	return reply ? silent(reply) : ~0U;
}

static __always_inline bool has_route(struct __sk_buff *ctx, struct packet *p, const struct addr *a)
{
	__u32 device = find_device(ctx, p, ctx->ifindex, &p->to.dst, a);
	return device && device != UNKNOWN_DEVICE;
}

/*
 * Reports whether the address is surely one of this host. The FIB returns the
 * same for such an address as for one without a route. But if addresses next to
 * it have a route, it would have that one, too.
 */
static __always_inline bool is_own(struct __sk_buff *ctx, struct packet *p, const struct addr *a)
{
	if (has_route(ctx, p, a))
		return false;
	for (int bit = 1; bit <= 4; bit <<= 1) {
		struct addr next = *a;
		next.bytes[15] ^= bit;
		if (has_route(ctx, p, &next))
			return true;
	}
	return false;
}

/*
 * Reports whether the flow p->to still has a way with its source, though the
 * FIB would choose another one for a new flow: the address is the host's, the
 * way has not moved to another device, and the backend answers.
 */
static __always_inline bool keeps_way(struct __sk_buff *ctx, struct packet *p)
{
	return backend_silent(p, &p->to) <= 2 && is_own(ctx, p, &p->to.src) &&
	       find_route(ctx, p, &p->to.src, &p->to.dst, false) == ROUTED && p->route.ifindex == p->to.ifindex;
}

/*
 * Asks the FIB which source the flow of the forward entry f would get now, and
 * decides what becomes of the one that it has.
 *
 * The question is the one of select_way, with the client's port: of equal paths
 * the FIB names the same one again. The length is no part of it.
 */
__noinline int check_source(struct __sk_buff *ctx, struct packet *p, struct flow *f)
{
	if (!p || !f)
		return SOURCE_STAYS;
	p->to = *f;
	if (!same_flow(&p->key, f))
		return SOURCE_STAYS; /* serve finds out */
	struct flow *named = &p->reply; /* with the source and the device that the FIB names */
	__be16 sport = p->to.sport;
	__u32 segment = p->segment;
	__builtin_memset(&named->src, 0, sizeof(named->src));
	p->to.sport = p->key.sport;
	p->segment = 0;
	enum routed rc = find_route(ctx, p, &named->src, &p->to.dst, true);
	p->segment = segment;
	p->to.sport = sport;
	if (rc != ROUTED || is_zero(&p->route.src))
		return SOURCE_STAYS; /* no way at all: route_flow tells the client */
	if (same_addr(&p->route.src, &p->to.src)) {
		f->astray = 0;
		return SOURCE_STAYS;
	}
	if (is_connectionless(p, &p->to)) {
		named->src = p->route.src;
		named->ifindex = p->route.ifindex;
		if (keeps_way(ctx, p))
			return SOURCE_STAYS;
		p->route.src = named->src;
		p->route.ifindex = named->ifindex;
		return SOURCE_CHANGES;
	}

	__u32 tick = now();
	if (!f->astray || silent(&p->to) > SOURCE_GRACE_TICKS) { /* nobody knows what was while the client was silent */
		f->astray = tick ? tick : 1;
		return SOURCE_STAYS;
	}
	bool lost = tick - f->astray > SOURCE_GRACE_TICKS && backend_silent(p, &p->to) > SOURCE_GRACE_TICKS;
	return lost ? SOURCE_LOST : SOURCE_STAYS;
}

#endif /* BLIXT_SOURCE_H */
