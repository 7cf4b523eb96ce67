/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * icmp.h - ICMP errors about translated flows (RFC 5508 tells what a NAT has to
 * do). The quoted packet carries the tuple that we gave it. The reverse of that
 * tuple is the key of the entry that translates back, and so the quote gets the
 * tuple that its sender knows.
 */
#ifndef BLIXT_ICMP_H
#define BLIXT_ICMP_H

#include "forward.h"

/* Reports whether the message quotes a packet. RFC 792; RFC 4443, 2.1. */
static __always_inline bool is_icmp_error(const struct packet *p)
{
	if (p->version == 6)
		return p->icmp_type < ICMP6_INFORMATIONAL;
	return p->icmp_type == ICMP4_UNREACHABLE || p->icmp_type == ICMP4_SOURCE_QUENCH || p->icmp_type == ICMP4_REDIRECT ||
	       p->icmp_type == ICMP4_TIME_EXCEEDED || p->icmp_type == ICMP4_PARAMETER_PROBLEM;
}

/*
 * Reports whether the error stays where it is: a redirect is about the next hop
 * on that link, and source quenches are no more (RFC 6633, 5).
 */
static __always_inline bool is_local_error(const struct packet *p)
{
	return p->version == 4 && (p->icmp_type == ICMP4_SOURCE_QUENCH || p->icmp_type == ICMP4_REDIRECT);
}

/* A quoted packet. */
struct quote {
	struct flow_key reply; /* its tuple reversed: the key of the flow's entry for packets to its sender */
	__u16 l3, l4;	       /* offsets of its headers */
};

/* Parses the quote of an ICMP error. Returns false if it is not TCP or UDP with its ports. */
__noinline bool parse_quote(struct __sk_buff *ctx, const struct packet *p, struct quote *q)
{
	__be16 ports[2];

	if (!p || !q)
		return false;
	__u32 end = p->l3 + p->len;

	q->l3 = p->l4 + ICMP_HEADER_LEN;
	if (p->version == 4) {
		struct iphdr ip;
		if (!load(ctx, q->l3, &ip, sizeof(ip)) || ip.ihl < 5 || ip.frag_off & bpf_htons(IPV4_OFFSET))
			return false;
		map_ipv4(&q->reply.src, ip.daddr);
		map_ipv4(&q->reply.dst, ip.saddr);
		q->reply.protocol = ip.protocol;
		q->l4 = q->l3 + ip.ihl * 4;
	} else {
		struct ipv6hdr ip;
		struct extension fragment;
		if (!load(ctx, q->l3, &ip, sizeof(ip)))
			return false;
		__builtin_memcpy(&q->reply.src, &ip.daddr, sizeof(struct addr));
		__builtin_memcpy(&q->reply.dst, &ip.saddr, sizeof(struct addr));
		if (embeds_ipv4(&q->reply.src) || embeds_ipv4(&q->reply.dst))
			return false;
		__u8 next = ip.nexthdr;
		__u32 at = q->l3 + sizeof(ip), fragment_at;
		if (!skip_extensions(ctx, &at, &next, &fragment, &fragment_at) || fragment.offset & bpf_htons(IPV6_OFFSET))
			return false; /* a later fragment has no ports */
		q->reply.protocol = next;
		q->l4 = at;
	}
	if (q->reply.protocol != IPPROTO_TCP && q->reply.protocol != IPPROTO_UDP)
		return false;
	if (q->l4 + sizeof(ports) > end || !load(ctx, q->l4, ports, sizeof(ports)))
		return false;
	q->reply.sport = ports[1];
	q->reply.dport = ports[0];
	return true;
}

/* Adjusts a checksum in the quote by `diff`. What that changes in the sum of the message is added to *total. */
static __always_inline bool adjust_quoted_checksum(struct __sk_buff *ctx, __u32 at, __s64 diff, bool zero_is_none, __u64 *total)
{
	__be32 old = 0, new = 0; /* a checksum in the first 16 bits, at an even offset as in the message */
	if (!load(ctx, at, &old, 2))
		return false;
	if (zero_is_none && !old)
		return true;
	new = (__u16)~fold((__u64)(__u16)~old + (__u32)diff);
	if (zero_is_none && !new)
		new = 0xffff;
	*total += (__u32)bpf_csum_diff(&old, 4, &new, 4, 0);
	return bpf_skb_store_bytes(ctx, at, &new, 2, 0) == 0;
}

/* Gives the quote the tuple that its sender used, which is `to` reversed, and adjusts the checksums. */
__noinline bool rewrite_quote(struct __sk_buff *ctx, struct packet *p, struct quote *q, const struct flow *to)
{
	if (!p || !q || !to)
		return false;
	bool v4 = p->version == 4;
	bool udp = q->reply.protocol == IPPROTO_UDP;
	struct addr old[2] = { q->reply.dst, q->reply.src }, new[2] = { to->dst, to->src };
	__be16 old_ports[2] = { q->reply.dport, q->reply.sport }, new_ports[2] = { to->dport, to->sport };
	/* The constant part of a mapped IPv4 address does not change, so it adds nothing. */
	__u64 addresses = (__u32)bpf_csum_diff((__be32 *)old, sizeof(old), (__be32 *)new, sizeof(new), 0);
	__u64 ports = (__u32)bpf_csum_diff((__be32 *)old_ports, 4, (__be32 *)new_ports, 4, 0);
	__u64 total = addresses + ports;
	__be32 words[2] = { unmap_ipv4(&new[0]), unmap_ipv4(&new[1]) };

	if (v4 ? bpf_skb_store_bytes(ctx, q->l3 + IPV4_SADDR, words, sizeof(words), 0) ||
			 !adjust_quoted_checksum(ctx, q->l3 + IPV4_CHECK, addresses, false, &total)
	       : bpf_skb_store_bytes(ctx, q->l3 + IPV6_SADDR, new, sizeof(new), 0))
		return false;
	if (bpf_skb_store_bytes(ctx, q->l4, new_ports, sizeof(new_ports), 0))
		return false;
	__u32 check = q->l4 + (udp ? UDP_CHECK : TCP_CHECK);
	if (check + 2 <= p->l3 + p->len && /* a quote of 8 bytes of TCP ends before it */
	    !adjust_quoted_checksum(ctx, check, fold(addresses + ports), udp, &total))
		return false;
	return bpf_l4_csum_replace(ctx, p->l4 + ICMP_CHECK, 0, fold(total), 0) == 0;
}

/*
 * Counts a flow that the backend, or a router, refuses by an ICMP error before there was
 * an answer: once. f is the entry of its replies, `key` the key of that.
 */
static __noinline void record_refusal(struct __sk_buff *ctx, const struct packet *p, const struct flow_key *key, struct flow *f)
{
	struct flow_key k;
	__u8 code = 0;
	if (!p || !key || !f)
		return;
	__u32 in = ctx->ingress_ifindex;
	if (in && in != f->ifindex) /* who guesses the tuple elsewhere ejects no backend: see trust.h */
		return;
	bool v4 = p->version == 4;
	if (p->icmp_type != (v4 ? ICMP4_UNREACHABLE : ICMP6_UNREACHABLE) || !load(ctx, p->l4 + 1, &code, 1) || (v4 && code == ICMP4_FRAG_NEEDED))
		return;
	peer_key(key, f, &k);
	struct flow *answered = is_udp(key) ? f : bpf_map_lookup_elem(&new_flows, &k);
	if (!answered || answered->flags & (FLOW_ANSWERED | FLOW_UNDONE | FLOW_CLOSED) || f->frontend == NO_FRONTEND)
		return;
	if (!(__sync_fetch_and_or(&f->flags, FLOW_REFUSED) & FLOW_REFUSED)) {
		count_refused(f->ref, false);
		judge_failure(answered, &f->dst, key->sport, false);
	}
}

/*
 * Translates an ICMP error about a flow. Returns a verdict, or NO_FLOW if the
 * error is about none. The checksum is not verified, but adjusted by what
 * changes: a wrong one stays wrong, and the receiver drops the error.
 */
__noinline int serve_icmp_error(struct __sk_buff *ctx, struct packet *p)
{
	struct quote q = {};
	__u8 hop_limit;
	__u64 pseudo = 0;

	if (!p || p->fragment != WHOLE || !is_unicast(p, &p->key.src) || !parse_quote(ctx, p, &q))
		return NO_FLOW;
	struct flow *f = find_flow(&q.reply);
	if (!f || backend_gone(f))
		return NO_FLOW;
	if (!translates_here(p, f))
		return pass(COUNTER_NOT_OURS);

	if (is_local_error(p))
		return drop(COUNTER_DROP_UNSUPPORTED);

	p->to = *f;
	if (!same_flow(&q.reply, f))
		return NO_FLOW;
	bool reply = p->to.flags & FLOW_REPLY;
	/* Who sent it behind the address that the receiver knows, is hidden as that address hides the other side (RFC 5508, REQ-5). */
	struct addr src = reply || p->to.flags & FLOW_SNAT ? p->to.src : p->key.src;
	int verdict = route_flow(ctx, p, &hop_limit);
	if (verdict)
		return verdict;
	if (!reply && p->to.flags & FLOW_COMES_IN) { /* it comes in where its own source is expected */
		__u32 device = fib_device(ctx, p, ctx->ifindex, &p->to.dst, &src);
		p->to.ifindex = device;
		if (!device || device == UNKNOWN_DEVICE || device == ctx->ifindex)
			p->to.flags &= ~FLOW_COMES_IN;
	}
	if (!rewrite_quote(ctx, p, &q, &p->to) || !rewrite_ip(ctx, p, &src, &p->to.dst, hop_limit, &pseudo))
		return drop(COUNTER_DROP_ERROR);
	if (p->version == 6 && bpf_l4_csum_replace(ctx, p->l4 + ICMP_CHECK, 0, fold32(pseudo), BPF_F_PSEUDO_HDR))
		return drop(COUNTER_DROP_ERROR);
	if (reply)
		record_refusal(ctx, p, &q.reply, f);
	count(reply ? COUNTER_ICMP_REPLIED : COUNTER_ICMP_FORWARDED);
	return send_translated(ctx, p);
}

#endif /* BLIXT_ICMP_H */
