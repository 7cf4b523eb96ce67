/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * way.h - the way of a flow: at which hook each direction is translated, what
 * is translated, and how the packets leave. select_way chooses it once, when
 * the flow begins, so that conntrack sees both directions or neither:
 * conntrack calls half a connection invalid, and firewalls drop that.
 */
#ifndef BLIXT_WAY_H
#define BLIXT_WAY_H

#include "announcement.h"
#include "split.h"

/* The two entries of a flow store its way as flags: these of the forward entry, those of the reply entry. */
#define WAY(forward, reply) ((forward) | (FLOW_REPLY | (reply)) << 16)

/*
 * All ways. No other combination of these flags is ever stored.
 *
 *   way            first packet     backend     forward packets               reply packets
 *   WAY_LOCAL      comes in         this node   ingress: DNAT, stack          egress: stack
 *   WAY_REMOTE     comes in         elsewhere   ingress: DNAT+SNAT, redirect  ingress: redirect
 *   WAY_STACK      comes in         elsewhere   ingress: DNAT, mark, stack    egress: stack
 *   WAY_REENTER    leaves           this node   egress: DNAT+SNAT, reflect    egress: reflect
 *   WAY_FORWARDED  leaves           elsewhere   egress: DNAT+SNAT, redirect   ingress: stack
 *   WAY_HOST       leaves a socket  any         egress: DNAT+SNAT, redirect   ingress: redirect to lo
 *   WAY_HOST_PORT  leaves           (none)      egress: SNAT, stack           ingress: stack
 *
 * The hook is the one at which the packet is seen and translated; replies get
 * the reverse translation. Then the packet continues through the stack, is
 * redirected to where the FIB says, or is reflected to ingress of its device.
 *
 * WAY_LOCAL translates replies at egress because there they are behind
 * conntrack. A backend on this node whose replies would not pass us, because
 * the device that leads to it is the one that the client's packet came in by,
 * counts as elsewhere. So does one whose replies leave by a device without
 * the program, as policy routing by source may decide, if the program sees them
 * where they come in. If it does not, the flow gets WAY_LOCAL all the same, and is
 * counted: its replies may leave untranslated.
 *
 * WAY_STACK is for a backend elsewhere to which the host's firewall and its IPsec
 * policies have to be obeyed. It is WAY_LOCAL with a mark, by which the host's own
 * NAT translates the source behind its firewall. Conntrack translates the answers
 * back before we see them leave.
 *
 * WAY_REENTER is for a pod or a socket of this node that sends to an address
 * which is not the node's, so that the packet leaves by this device. A backend
 * of this node would answer the client directly and bypass us. So the backend
 * sees the frontend's own address as its client: the route to that address
 * leads out by this device, too. A translated packet is reflected: it comes in
 * by the device as a stranger's packet would. So the backend's interface needs
 * no program, conntrack sees both directions of each connection, and the
 * reverse-path filter finds the source at the right device.
 *
 * WAY_HOST has a backend on this node only if the first packet is seen at lo.
 * WAY_HOST_PORT serves no frontend: see hostports.h.
 */
enum way {
	WAY_LOCAL = WAY(FLOW_STACK, FLOW_EGRESS | FLOW_STACK),
	WAY_REMOTE = WAY(FLOW_SNAT, FLOW_SNAT),
	WAY_STACK = WAY(FLOW_STACK | FLOW_MASQUERADE, FLOW_EGRESS | FLOW_STACK),
	WAY_REENTER = WAY(FLOW_SNAT | FLOW_REENTER, FLOW_EGRESS | FLOW_SNAT | FLOW_REENTER),
	WAY_FORWARDED = WAY(FLOW_SNAT, FLOW_SNAT | FLOW_STACK),
	WAY_HOST = WAY(FLOW_SNAT | FLOW_HOST, FLOW_SNAT | FLOW_HOST | FLOW_STACK),
	WAY_HOST_PORT = WAY(FLOW_SNAT | FLOW_STACK, FLOW_SNAT | FLOW_STACK),
};

static __always_inline __u32 forward_flags(enum way way)
{
	return way & 0xffff;
}

static __always_inline __u32 reply_flags(enum way way)
{
	return way >> 16;
}

/* Reports whether this hook is the one that translates the flow's packets. */
static __always_inline bool translates_here(const struct packet *p, const struct flow *f)
{
	return !(f->flags & FLOW_REPLY) || p->egress == !!(f->flags & FLOW_EGRESS);
}

/*
 * Ends a packet that is ours and has no route, with the ICMP error that a
 * router sends. Returns the verdict.
 *
 * A sender that allows fragmentation would ignore the MTU (RFC 1191). The MTU is
 * told to every packet of an established flow: such a packet is larger than its
 * answer, so nobody gains by forging it.
 */
static __always_inline int reject_unroutable(struct __sk_buff *ctx, struct packet *p, enum routed why)
{
	bool v4 = p->version == 4;
	__u32 share = SHARE_FRONTENDS + p->to.frontend;

	switch (why) {
	case ROUTE_TOO_BIG:
		if (may_split(ctx, p))
			return split(ctx, p, p->route.mtu);
		if (!p->dont_fragment || !may_get_error(p))
			return drop(COUNTER_DROP_TOO_BIG);
		if (v4)
			set_icmp(p, ICMP4_UNREACHABLE, ICMP4_FRAG_NEEDED, bpf_htonl(p->route.mtu & 0xffff));
		else
			set_icmp(p, ICMP6_TOO_BIG, 0, bpf_htonl(p->route.mtu));
		return answer_icmp(ctx, p, COUNTER_REJECT_TOO_BIG, p->to.flags & FLOW_ESTABLISHED ? UNLIMITED : share);
	case ROUTE_LOCAL:
		set_icmp(p, v4 ? ICMP4_UNREACHABLE : ICMP6_UNREACHABLE, v4 ? ICMP4_NET_UNREACHABLE : ICMP6_NO_ROUTE, 0);
		break;
	case ROUTE_UNREACHABLE:
		set_icmp(p, v4 ? ICMP4_UNREACHABLE : ICMP6_UNREACHABLE, v4 ? ICMP4_HOST_UNREACHABLE : ICMP6_NO_ROUTE, 0);
		break;
	case ROUTE_SILENT:
		set_icmp(p, v4 ? ICMP4_UNREACHABLE : ICMP6_UNREACHABLE, v4 ? ICMP4_HOST_UNREACHABLE : ICMP6_ADDRESS_UNREACHABLE, 0);
		break;
	case ROUTE_PROHIBITED:
		set_icmp(p, v4 ? ICMP4_UNREACHABLE : ICMP6_UNREACHABLE, v4 ? ICMP4_PROHIBITED : ICMP6_PROHIBITED, 0);
		break;
	case ROUTE_FORWARDING_OFF:
		return drop(COUNTER_DROP_FORWARDING_OFF);
	default:
		return drop(COUNTER_DROP_NO_ROUTE);
	}
	return may_get_error(p) ? answer_icmp(ctx, p, COUNTER_REJECT_UNREACHABLE, share) : drop(COUNTER_DROP_NO_ROUTE);
}

/*
 * Ends a packet that is ours with its hop limit used up, as a router does: the
 * stack would do it for the address of the frontend, for which it may have a
 * RST instead. Returns the verdict.
 */
static __always_inline int reject_hop_limit(struct __sk_buff *ctx, struct packet *p)
{
	if (!may_get_error(p))
		return drop(COUNTER_DROP_HOP_LIMIT);
	set_icmp(p, p->version == 4 ? ICMP4_TIME_EXCEEDED : ICMP6_TIME_EXCEEDED, 0, 0);
	return answer_icmp(ctx, p, COUNTER_REJECT_HOP_LIMIT, SHARE_FRONTENDS + p->to.frontend);
}

/* Ends a packet that would leave past the host's IPsec policies, which want its backend protected. Returns the verdict. */
static __always_inline int reject_protected(struct __sk_buff *ctx, struct packet *p)
{
	if (!may_get_error(p))
		return drop(COUNTER_REJECT_PROTECTED);
	if (p->version == 4)
		set_icmp(p, ICMP4_UNREACHABLE, ICMP4_PROHIBITED, 0);
	else
		set_icmp(p, ICMP6_UNREACHABLE, ICMP6_PROHIBITED, 0);
	return answer_icmp(ctx, p, COUNTER_REJECT_PROTECTED, SHARE_FRONTENDS + p->to.frontend);
}

/*
 * Selects the way of a new flow to the backend p->to.dst with these flags
 * (enum backend_flag), and sets p->to.src and p->to.ifindex. A flow does not begin
 * if its client cannot be reached: the source is a subnet's broadcast address, an
 * address of this node, or has no route. Returns 0, or a verdict.
 */
static __always_inline int select_way(struct __sk_buff *ctx, struct packet *p, __u32 backend_flags, enum way *way)
{
	bool local = backend_flags & BACKEND_LOCAL, protected = backend_flags & BACKEND_PROTECTED;
	bool by_stack = !p->egress && backend_flags & (BACKEND_STACK | BACKEND_PROTECTED);
	struct addr any = {};
	struct flow *to = &p->to;

	to->flags = 0;
	/* Most flows through the stack need no source, of which IPv6 has a choice that costs as much as the route. */
	bool named = !by_stack && (!local || (p->egress && ctx->ifindex == LOOPBACK_IFINDEX));
	enum routed rc = find_route(ctx, p, &any, &to->dst, named);
	to->ifindex = rc == ROUTED ? p->route.ifindex : 0;
	if (local && p->egress && ctx->ifindex != LOOPBACK_IFINDEX) {
		*way = WAY_REENTER;
		to->src = p->key.dst;
		return 0;
	}
	/* The backend is its own client, seen on a bridge's port: the FIB names the bridge, not the port. */
	bool hairpin = same_addr(&p->key.src, &to->dst) || (rc == ROUTED && p->route.ifindex == ctx->ifindex);
	bool through_stack = by_stack || (local && !p->egress && !hairpin);
	if (!p->egress) {
		__u32 back = find_device(ctx, p, to->ifindex ? to->ifindex : LOOPBACK_IFINDEX,
				       through_stack ? &to->dst : &p->key.dst, &p->key.src);
		if (!back)
			return drop(COUNTER_DROP_MARTIAN);
		if (through_stack && back != UNKNOWN_DEVICE && back != ctx->ifindex && !has_program(back)) {
			through_stack = by_stack || !to->ifindex || !has_program(to->ifindex);
			if (through_stack)
				count(COUNTER_FLOW_ANSWERED_ELSEWHERE);
		}
	}
	if (through_stack) {
		*way = local && !hairpin ? WAY_LOCAL : WAY_STACK;
		to->src = p->key.src;
		return 0;
	}
	if (!named)
		rc = find_route(ctx, p, &any, &to->dst, true);
	*way = p->host ? WAY_HOST : p->egress ? WAY_FORWARDED : WAY_REMOTE;
	if (rc == ROUTED && protected) {
		return reject_protected(ctx, p);
	} else if (rc == ROUTED) {
		to->src = p->route.src;
	} else if (rc == ROUTE_LOCAL && local && p->host) {
		to->src = to->dst;
		to->ifindex = LOOPBACK_IFINDEX; /* its answers come in by lo */
	} else {
		return reject_unroutable(ctx, p, rc);
	}
	return is_zero(&to->src) ? drop(COUNTER_DROP_NO_SOURCE) : 0;
}

/*
 * Finds the route of a packet that gets the tuple p->to. Returns 0, or a
 * verdict. *hop_limit gets the packet's hop limit: one less where we forward
 * in place of the stack, which a packet that leaves has passed already.
 */
static __always_inline int route_flow(struct __sk_buff *ctx, struct packet *p, __u8 *hop_limit)
{
	const struct flow *to = &p->to;

	*hop_limit = p->hop_limit;
	if (to->flags & (FLOW_STACK | FLOW_REENTER))
		return 0;
	if (!p->egress) {
		if (p->hop_limit <= 1)
			return reject_hop_limit(ctx, p);
		*hop_limit -= 1;
	}
	enum routed rc = find_route(ctx, p, &to->src, &to->dst, false);
	if (rc == ROUTE_TOO_BIG && p->announce == ANNOUNCE_WITHIN) { /* no room: then ahead of it */
		p->announce = p->hears_alone ? ANNOUNCE_AHEAD : ANNOUNCE_NOT;
		p->segment -= TAIL_LEN + 1;
		rc = find_route(ctx, p, &to->src, &to->dst, false);
	}
	if (rc == ROUTED && p->due && !p->egress && is_silent(p))
		rc = ROUTE_SILENT;
	if (rc == ROUTED)
		return 0;
	if (rc != ROUTE_LOCAL || !p->host)
		return reject_unroutable(ctx, p, rc);
	p->route.ifindex = LOOPBACK_IFINDEX; /* from one socket of this host to another */
	return 0;
}

/* Marks the packet for the host's NAT. Other bits of the mark stay as they are. */
static __always_inline void mark_for_masquerade(struct __sk_buff *ctx)
{
	const struct config *c = config();
	if (c)
		ctx->mark |= c->masquerade_mark;
}

/* Returns the interface by which packets of an entry with FLOW_COMES_IN come in. */
static __always_inline __u32 comes_in_by(const struct flow *f)
{
	return f->flags & FLOW_REPLY ? f->astray : f->ifindex;
}

/* Sends a translated packet the way of its flow. Returns the verdict. */
static __always_inline int send_translated(struct __sk_buff *ctx, struct packet *p)
{
	if (p->to.flags & FLOW_REENTER)
		return reflect(ctx, p);
	if (p->to.flags & FLOW_COMES_IN && !p->egress)
		return come_in(ctx, p, comes_in_by(&p->to));
	if (p->to.flags & FLOW_REPLY && p->to.flags & FLOW_HOST)
		return redirect_to_host(ctx, p);
	if (p->to.flags & FLOW_STACK) {
		if (p->egress)
			set_mark(ctx, LEAVING); /* it comes from a frontend's port now: see hostports.h */
		else if (p->to.flags & FLOW_MASQUERADE)
			mark_for_masquerade(ctx);
		return TCX_NEXT;
	}
	return p->route.ifindex == LOOPBACK_IFINDEX ? redirect_to_host(ctx, p) : redirect(ctx, p);
}

#endif /* BLIXT_WAY_H */
