/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * route.h - how a translated packet leaves that does not continue through the
 * stack. The stack would drop a packet that comes in with an address of this
 * node as its source ("martian"). So we look up the FIB and redirect the
 * packet; the kernel resolves the neighbour.
 */
#ifndef BLIXT_ROUTE_H
#define BLIXT_ROUTE_H

#include "count.h"
#include "rewrite.h"

#define PACKET_HOST 0
#define AF_INET 2
#define AF_INET6 10
#define LOOPBACK_IFINDEX 1
#define UNKNOWN_DEVICE 0xffffffff
#define IPV6_FLOW_LABEL 0xfffff

enum routed {
	ROUTED,
	ROUTE_LOCAL, /* an address of this node, or no route at all: the FIB returns the same for both */
	ROUTE_UNREACHABLE,
	ROUTE_PROHIBITED,
	ROUTE_SILENT, /* the next hop does not answer: see is_silent */
	ROUTE_TOO_BIG,
	ROUTE_FORWARDING_OFF,
	ROUTE_NONE, /* the packet is to vanish (blackhole), or the FIB cannot tell */
};

static __always_inline bool is_zero(const struct addr *a)
{
	const __u64 *w = (const __u64 *)a;
	return (w[0] | w[1]) == 0;
}

/* Sets *src to the node's address from the config map: a kernel before 6.7 cannot name it. */
static __always_inline void configured_source(const struct packet *p, struct addr *src)
{
	const struct config *c = config();
	if (c)
		*src = p->version == 4 ? c->node4 : c->node6;
}

static __always_inline void set_addresses(struct bpf_fib_lookup *fib, const struct packet *p, const struct addr *src, const struct addr *dst)
{
	fib->l4_protocol = p->key.protocol;
	if (p->version == 4) {
		fib->family = AF_INET;
		fib->ipv4_src = unmap_ipv4(src);
		fib->ipv4_dst = unmap_ipv4(dst);
	} else {
		fib->family = AF_INET6;
		__builtin_memcpy(fib->ipv6_src, src, sizeof(*src));
		__builtin_memcpy(fib->ipv6_dst, dst, sizeof(*dst));
	}
}

/* Reports whether the kernel itself would send a packet of this host to the next hop of p->route. Overwrites *fib. */
static __always_inline bool same_from_host(struct __sk_buff *ctx, const struct packet *p, struct bpf_fib_lookup *fib,
					   const struct addr *src, const struct addr *dst)
{
	const struct bpf_redir_neigh *via = &p->route.via;

	fib->ifindex = p->route.ifindex;
	fib->tot_len = 0; /* whatever the MTU */
	fib->rt_metric = 0;
	set_addresses(fib, p, src, dst);
	long rc = bpf_fib_lookup(ctx, fib, sizeof(*fib), BPF_FIB_LOOKUP_OUTPUT);
	if ((rc != BPF_FIB_LKUP_RET_NO_NEIGH && rc != BPF_FIB_LKUP_RET_SUCCESS) || fib->family != via->nh_family)
		return false;
	return fib->family == AF_INET ? fib->ipv4_dst == via->ipv4_nh : !__builtin_memcmp(fib->ipv6_dst, via->ipv6_nh, sizeof(via->ipv6_nh));
}

/*
 * Reports whether the next hop p->route, whose hardware address is not known, has
 * been silent for so long that its packets are to be answered: one of a flow in
 * each tick, but not its first, for the neighbour may have answered others since.
 * Once in a while it reports false all the same: the kernel asks again only for a
 * packet to send. A next hop whose hardware address is known is silent no more.
 *
 * The kernel itself reports such a neighbour to the source, which is this host
 * (see redirect), and lo is where that is translated for the client. So this is for
 * hosts where the program is not attached to lo.
 */
__noinline bool is_silent(const struct packet *p)
{
	struct next_hop key = {};
	__u32 tick = bpf_ktime_get_coarse_ns() >> TICK_SHIFT;

	if (!p || has_program(LOOPBACK_IFINDEX))
		return false;
	key.ifindex = p->route.ifindex;
	if (p->route.via.nh_family == AF_INET)
		map_ipv4(&key.addr, p->route.via.ipv4_nh);
	else
		__builtin_memcpy(&key.addr, p->route.via.ipv6_nh, sizeof(key.addr));
	struct silence *s = bpf_map_lookup_elem(&silent_neighbours, &key);
	if (!p->route.no_neighbour) {
		if (s)
			bpf_map_delete_elem(&silent_neighbours, &key);
		return false;
	}
	if (!s || tick - s->last > SILENCE_FORGOTTEN_TICKS) {
		struct silence begun = { .first = tick, .last = tick, .asked = tick };
		bpf_map_update_elem(&silent_neighbours, &key, &begun, BPF_ANY);
		return false;
	}
	s->last = tick;
	__u32 since = tick - s->asked;
	if (!p->checked && tick - s->first >= SILENT_TICKS && (since <= SILENT_TICKS || (!s->answered && since <= SILENCE_FORGOTTEN_TICKS))) {
		s->answered = 1;
		return true;
	}
	s->asked = tick;
	s->answered = 0;
	return false;
}

/*
 * Looks up the route p->route from src to dst. If src is zero, any source will
 * do. If `want_source`, p->route.src gets the node's address on that route.
 *
 * The ports are those of p->to, which a flow's packets have in common, fragments
 * included. By them the kernel chooses among equal paths where
 * net.ipv4.fib_multipath_hash_policy is 1, and by addresses alone where it is 0.
 * So a flow keeps its path, and rules that name ports or the type of service are
 * heeded.
 */
__noinline int find_route(struct __sk_buff *ctx, struct packet *p, const struct addr *src, const struct addr *dst, bool want_source)
{
	if (!p || !src || !dst)
		return ROUTE_NONE;
	struct route *r = &p->route;
	struct bpf_fib_lookup fib = {};

	fib.tot_len = p->segment > 0xffff ? 0xffff : p->segment;
	fib.ifindex = ctx->ifindex;
	fib.sport = p->to.sport;
	fib.dport = p->to.dport;
	fib.flowinfo = p->flow_info;
	set_addresses(&fib, p, src, dst);
	long rc = bpf_fib_lookup(ctx, &fib, sizeof(fib), want_source ? BPF_FIB_LOOKUP_SRC : 0);
	/* A kernel before 6.7 returns a negative number. For IPv4 a missing source has no return code: the address is zero. */
	bool source_known = rc >= 0 && rc != BPF_FIB_LKUP_RET_NO_SRC_ADDR && (p->version == 6 || fib.ipv4_src);
	if (want_source && (rc < 0 || rc == BPF_FIB_LKUP_RET_NO_SRC_ADDR)) {
		fib.ifindex = ctx->ifindex; /* the first call has overwritten these three */
		fib.tot_len = p->segment > 0xffff ? 0xffff : p->segment;
		fib.flowinfo = p->flow_info;
		rc = bpf_fib_lookup(ctx, &fib, sizeof(fib), 0);
	}

	switch (rc) {
	case BPF_FIB_LKUP_RET_SUCCESS:
	case BPF_FIB_LKUP_RET_NO_NEIGH: /* bpf_redirect_neigh resolves the neighbour */
		break;
	case BPF_FIB_LKUP_RET_NOT_FWDED:
		return ROUTE_LOCAL;
	case BPF_FIB_LKUP_RET_UNREACHABLE:
		return ROUTE_UNREACHABLE;
	case BPF_FIB_LKUP_RET_PROHIBIT:
		return ROUTE_PROHIBITED;
	case BPF_FIB_LKUP_RET_FWD_DISABLED:
		return ROUTE_FORWARDING_OFF;
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		r->mtu = fib.mtu_result;
		return ROUTE_TOO_BIG;
	default:
		return ROUTE_NONE;
	}

	r->ifindex = fib.ifindex;
	r->via.nh_family = fib.family;
	if (fib.family == AF_INET)
		r->via.ipv4_nh = fib.ipv4_dst;
	else
		__builtin_memcpy(r->via.ipv6_nh, fib.ipv6_dst, sizeof(r->via.ipv6_nh));
	r->no_neighbour = rc == BPF_FIB_LKUP_RET_NO_NEIGH;
	r->has_macs = !r->no_neighbour;
	if (r->has_macs) {
		__builtin_memcpy(r->macs, fib.dmac, 6);
		__builtin_memcpy(r->macs + 6, fib.smac, 6);
		r->mtu = fib.mtu_result;
	}
	r->by_kernel = p->egress;
	if (!want_source) {
		if (rc == BPF_FIB_LKUP_RET_NO_NEIGH && !p->egress && p->due)
			r->by_kernel = same_from_host(ctx, p, &fib, src, dst);
		return ROUTED;
	}
	if (!source_known)
		configured_source(p, &r->src);
	else if (p->version == 4)
		map_ipv4(&r->src, fib.ipv4_src);
	else
		__builtin_memcpy(&r->src, fib.ipv6_src, sizeof(r->src));
	return ROUTED;
}

/*
 * Returns the device that the FIB names for a packet from src to dst that comes in by
 * the device `in`. Returns 0 if src cannot reach dst, or dst is this host, and
 * UNKNOWN_DEVICE if the FIB does not tell. Sets p->for_its_mac.
 *
 * Of several next hops the FIB names one by a hash. Ports and flow label are
 * random here, so each call may return another.
 */
__noinline __u32 fib_device(struct __sk_buff *ctx, struct packet *p, __u32 in, const struct addr *src, const struct addr *dst)
{
	if (!p || !src || !dst)
		return UNKNOWN_DEVICE;
	struct bpf_fib_lookup fib = {};
	__u8 mac[6];

	p->for_its_mac = false;
	fib.ifindex = in;
	set_addresses(&fib, p, src, dst);
	__u32 random = bpf_get_prandom_u32();
	fib.sport = random;
	fib.dport = random >> 16;
	if (p->version == 6)
		fib.flowinfo = bpf_htonl(random & IPV6_FLOW_LABEL);
	switch (bpf_fib_lookup(ctx, &fib, sizeof(fib), 0)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		p->for_its_mac = !p->egress && p->l3 && load(ctx, 0, mac, sizeof(mac)) && !__builtin_memcmp(mac, fib.smac, sizeof(mac));
		return fib.ifindex;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		return fib.ifindex;
	case BPF_FIB_LKUP_RET_NOT_FWDED:
	case BPF_FIB_LKUP_RET_BLACKHOLE:
	case BPF_FIB_LKUP_RET_UNREACHABLE:
	case BPF_FIB_LKUP_RET_PROHIBIT:
		return 0;
	}
	return UNKNOWN_DEVICE;
}

/*
 * Returns the same, but this device if the FIB names one that is stacked on it (a
 * bridge, a bond, a VLAN). That is the case if the packet in work has come in for
 * the MAC address of the named device.
 */
static __always_inline __u32 find_device(struct __sk_buff *ctx, struct packet *p, __u32 in, const struct addr *src, const struct addr *dst)
{
	__u32 device = fib_device(ctx, p, in, src, dst);
	return p->for_its_mac ? ctx->ifindex : device;
}

/*
 * For an skb with CHECKSUM_COMPLETE: bpf_redirect_neigh adds the link header to
 * the packet's sum, then removes the header without subtracting it. A packet
 * that leaves by a cable does not need its sum, but one that goes through lo or
 * a veth keeps it. So the previous header, which is not needed any more, is
 * changed to one whose sum is zero.
 */
static __always_inline bool blank_link_header(struct __sk_buff *ctx)
{
	__be32 words[4] = {};

	if (!load(ctx, 0, words, ETH_HLEN))
		return false;
	__u16 *last = (__u16 *)words + 5; /* the last 16 bits of the source address */
	*last = 0;
	*last = ~fold((__u32)bpf_csum_diff(NULL, 0, words, sizeof(words), 0));
	return bpf_skb_store_bytes(ctx, 10, last, 2, 0) == 0;
}

/* The other end of a veth subtracts the link header from the sum. Here, where the new header is known, it is added. */
static __always_inline void sum_link_header(struct __sk_buff *ctx)
{
	__be32 words[4] = {};

	if (checksum_complete(ctx) && load(ctx, 0, words, ETH_HLEN))
		bpf_csum_update(ctx, bpf_csum_diff(NULL, 0, words, sizeof(words), 0));
}

/*
 * Values of skb->tc_index that mark a packet which we have sent, so that the
 * next hook leaves it alone. The tuple does not tell: a translated packet may
 * match another flow, as a client on this host may have the frontend's own
 * address. Nothing else uses tc_index since Linux 6.3 removed the last
 * scheduler that did.
 */
#define TRANSLATED 0xb117
#define TRANSLATED_HERE 0xb118 /* redirected to its own device: at that egress hook the packet looks as if it came in */
#define FIRST_PIECE 0xb11b /* not sent yet: the first fragment of an IPv6 packet, see split.h */
#define REFLECTED 0xb119 /* the same, but bpf_redirect has kept the link header in the sum */
#define SENT_BACK 0xb11c /* as REFLECTED, of a packet that leaves: LEAVING from there on */
#define AHEAD 0xb11d /* not sent yet: the copy of a packet, which becomes the message that goes ahead of it, see announce.h */
#define COMING_IN 0xb11e /* translated, and put back at ingress of another device, by which it comes in: see come_in */
#define LEAVING 0xb11a /* TRANSLATED, and seen at egress: our other programs there, and on devices below, leave it alone too */

/* Marks the packet. Without the barrier clang may add the offset to ctx once for several stores, which the verifier refuses. */
static __always_inline void set_mark(struct __sk_buff *ctx, __u32 mark)
{
	asm volatile("" : "+r"(ctx));
	ctx->tc_index = mark;
}

static __always_inline __u32 mark_of(struct __sk_buff *ctx)
{
	asm volatile("" : "+r"(ctx));
	return ctx->tc_index;
}

static __always_inline void mark_translated(struct __sk_buff *ctx, __u32 ifindex)
{
	set_mark(ctx, ifindex == ctx->ifindex ? TRANSLATED_HERE : TRANSLATED);
}

/*
 * Reports whether the packet was translated already and must be left alone.
 * The mark ends here, except on a packet that is on its way out, or to a socket by
 * way of lo: there both hooks see it, and each of our programs.
 */
static __always_inline bool take_mark(struct __sk_buff *ctx, const struct packet *p)
{
	__u32 mark = mark_of(ctx);

	if (mark == LEAVING && p->egress)
		return true;
	if (mark == 0 || (mark != TRANSLATED && mark != TRANSLATED_HERE && mark != REFLECTED && mark != SENT_BACK && mark != LEAVING))
		return false;
	if (mark == TRANSLATED && ctx->ifindex == LOOPBACK_IFINDEX)
		return true;
	bool summed = mark == TRANSLATED_HERE || (mark == TRANSLATED && p->egress), leaving = summed || mark == SENT_BACK;
	set_mark(ctx, leaving ? LEAVING : 0);
	if (summed)
		sum_link_header(ctx);
	if (mark == TRANSLATED || mark == LEAVING) /* at ingress it is a new packet, unless by lo */
		return p->egress || ctx->ifindex == LOOPBACK_IFINDEX;
	return true;
}

/*
 * Reports whether the packet comes in by lo. It has left by lo, where it was decided
 * what becomes of it. It is not decided again: a previous program that serves its flows
 * may have translated the packet since, and one of layout 1 takes the mark away.
 */
static __always_inline bool is_decided(struct __sk_buff *ctx, const struct packet *p)
{
	return !p->egress && ctx->ifindex == LOOPBACK_IFINDEX;
}

/* Prepares the packet for bpf_redirect_neigh, which needs a link header, without the VLAN tag that the packet came with. */
static __always_inline bool untag(struct __sk_buff *ctx, const struct packet *p)
{
	if (p->l3 == 0) {
		__be16 proto = ctx->protocol;
		return bpf_skb_change_head(ctx, ETH_HLEN, 0) == 0 && bpf_skb_store_bytes(ctx, 12, &proto, 2, 0) == 0;
	}
	return (!ctx->vlan_present && p->l3 == ETH_HLEN) || bpf_skb_vlan_pop(ctx) == 0;
}

/* Redirects the packet to p->route. Returns the verdict. */
static __always_inline int redirect(struct __sk_buff *ctx, struct packet *p)
{
	if (!untag(ctx, p) || (p->complete && !blank_link_header(ctx)))
		return drop(COUNTER_DROP_ERROR);
	mark_translated(ctx, p->route.ifindex);
	/*
	 * A packet that leaves has a route already: that of its previous
	 * destination. If it had to wait for the neighbour, the kernel would send it
	 * by that route in the end, and it would be lost. So the kernel has to
	 * route it again. It can, as the source is the node's by now.
	 *
	 * A packet that comes in has no route. If the neighbour does not answer, the
	 * kernel reports that, to the source, only of a packet that has one. The
	 * source is this host, and at lo the report is translated for the client.
	 */
	if (p->route.by_kernel)
		return bpf_redirect_neigh(p->route.ifindex, NULL, 0, 0);
	return bpf_redirect_neigh(p->route.ifindex, &p->route.via, sizeof(p->route.via), 0);
}

/*
 * Redirects the packet to a socket of this host, through lo. There it comes in
 * with its route, so that neither the check for martian sources nor the
 * reverse-path filter drops it. Returns the verdict.
 */
static __always_inline int redirect_to_host(struct __sk_buff *ctx, const struct packet *p)
{
	if (ctx->ifindex == LOOPBACK_IFINDEX && !p->egress)
		return TCX_NEXT; /* it is at lo, and came with its route */
	if (!untag(ctx, p) || (checksum_complete(ctx) && !blank_link_header(ctx)))
		return drop(COUNTER_DROP_ERROR);
	set_mark(ctx, TRANSLATED); /* both hooks of lo will see it */
	return bpf_redirect_neigh(LOOPBACK_IFINDEX, NULL, 0, 0);
}

/*
 * Has the packet come in by another device: the one that leads to its source. There
 * the reverse-path filter expects it, and the host's firewall sees it as a stranger's.
 */
static __always_inline int come_in(struct __sk_buff *ctx, const struct packet *p, __u32 ifindex)
{
	if (!untag(ctx, p) || (checksum_complete(ctx) && !blank_link_header(ctx)))
		return drop(COUNTER_DROP_ERROR);
	set_mark(ctx, COMING_IN);
	return bpf_redirect(ifindex, BPF_F_INGRESS);
}

/*
 * Turns the packet around at its device, with its MAC addresses swapped: one
 * that was leaving comes in, as if from the next hop; one that came in leaves.
 */
static __noinline int reflect(struct __sk_buff *ctx, const struct packet *p)
{
	__u8 macs[12], swapped[12];

	if (p->l3) {
		if (!load(ctx, 0, macs, sizeof(macs)))
			return drop(COUNTER_DROP_ERROR);
		__builtin_memcpy(swapped, macs + 6, 6);
		__builtin_memcpy(swapped + 6, macs, 6);
		if (bpf_skb_store_bytes(ctx, 0, swapped, sizeof(swapped), 0))
			return drop(COUNTER_DROP_ERROR);
	}
	set_mark(ctx, REFLECTED);
	return bpf_redirect(ctx->ifindex, p->egress ? BPF_F_INGRESS : 0);
}

#endif /* BLIXT_ROUTE_H */
