/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ping.h - echo requests to exclusive addresses are answered (RFC 1122,
 * 3.2.2.6), also in fragments (RFC 1122, 3.3.2). Nothing is put together: each
 * fragment is turned into that of the reply, in whatever order they come.
 */
#ifndef BLIXT_PING_H
#define BLIXT_PING_H

#include "icmp.h"

/*
 * Fragments of ICMP messages that must not be turned round: by offset the
 * later ones that were, and with offset 0 messages other than an echo request.
 *
 * Of a later fragment that comes before the first, nobody knows what message it
 * belongs to. It is turned round, but once. Otherwise a forged one would go to
 * and fro for ever between two addresses that do this, as an echo reply never
 * does.
 */
struct icmp_fragment {
	struct addr src;
	struct addr dst;
	__u32 id;
	__u32 offset; /* 0, or as on the wire */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_FRAGMENTS);
	__type(key, struct icmp_fragment);
	__type(value, __u32); /* tick */
} icmp_fragments SEC(".maps");

static __always_inline bool is_icmp(const struct packet *p)
{
	return p->key.protocol == (p->version == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
}

static __always_inline bool is_echo_request(const struct packet *p)
{
	return p->icmp_type == (p->version == 4 ? ICMP4_ECHO : ICMP6_ECHO);
}

/* Router and neighbour solicitations, advertisements and redirects. RFC 4861, 4. */
static __always_inline bool is_neighbour_discovery(const struct packet *p)
{
	return p->version == 6 && p->icmp_type >= ICMP6_ROUTER_SOLICITATION && p->icmp_type <= ICMP6_REDIRECT;
}

/* Reports whether the fragment was seen lately: an identification may be used anew. */
static __always_inline bool seen_lately(const struct icmp_fragment *key)
{
	const __u32 *seen = bpf_map_lookup_elem(&icmp_fragments, key);
	return seen && now() - *seen <= FRAGMENT_TICKS;
}

/* Reports whether this fragment of an ICMP message may be turned round, and notes what the ones after it have to know. */
__noinline bool may_turn_round(struct __sk_buff *ctx, const struct packet *p)
{
	struct icmp_fragment key = {};
	__u32 tick = now();
	__be16 offset = 0;

	if (!p)
		return false;
	key.src = p->key.src;
	key.dst = p->key.dst;
	key.id = p->fragment_id;
	if (p->fragment == FIRST_FRAGMENT) {
		if (is_echo_request(p))
			return true;
		bpf_map_update_elem(&icmp_fragments, &key, &tick, BPF_ANY);
		return false;
	}
	if (seen_lately(&key))
		return false;
	/* The data of a later fragment follows the IPv6 fragment header at once. */
	if (!load(ctx, p->version == 4 ? p->l3 + IPV4_FRAGMENT : p->l4 - IPV6_FRAGMENT_END, &offset, sizeof(offset)))
		return false;
	key.offset = offset & bpf_htons(p->version == 4 ? IPV4_OFFSET : IPV6_OFFSET);
	if (seen_lately(&key))
		return false;
	bpf_map_update_elem(&icmp_fragments, &key, &tick, BPF_ANY);
	return true;
}

/*
 * Turns an echo request, or a fragment of one, into that of its reply. In the
 * checksum only the type changes: swapped addresses have the same sum.
 */
static __always_inline int answer_ping(struct __sk_buff *ctx, struct packet *p)
{
	bool v4 = p->version == 4;
	/* Type and code are one 16-bit word of the checksum, the type its first byte. */
	__be16 from = p->icmp_type, to = v4 ? ICMP4_ECHO_REPLY : ICMP6_ECHO_REPLY;
	__u8 type = to;
	__u64 pseudo = 0;

	if (has_protected_sender(p))
		return drop(COUNTER_DROP_PROTECTED);
	if (!may_answer(SHARE_PINGS))
		return drop(COUNTER_DROP_ANSWER_LIMIT);
	if (!rewrite_ip(ctx, p, &p->key.dst, &p->key.src, ANSWER_HOP_LIMIT, &pseudo))
		return drop(COUNTER_DROP_ERROR);
	if (p->fragment != LATER_FRAGMENT && (bpf_l4_csum_replace(ctx, p->l4 + ICMP_CHECK, from, to, 2) ||
					      bpf_skb_store_bytes(ctx, p->l4, &type, 1, 0)))
		return drop(COUNTER_DROP_ERROR);
	count(COUNTER_PING_ANSWERED);
	return send_back(ctx, p);
}

/*
 * Handles ICMP to an exclusive address that is about no flow of this node. An
 * error may be about a flow of another node, if the network spreads packets
 * over several. The ring tells the backend of that flow, but not the source
 * that the other node gave it. So the error is dropped, not sent on.
 */
static __always_inline int handle_icmp(struct __sk_buff *ctx, struct packet *p)
{
	if (p->fragment != WHOLE)
		return may_turn_round(ctx, p) ? answer_ping(ctx, p) : drop(COUNTER_DROP_FRAGMENT);
	return is_echo_request(p) ? answer_ping(ctx, p) : drop(COUNTER_DROP_NO_FLOW);
}

#endif /* BLIXT_PING_H */
