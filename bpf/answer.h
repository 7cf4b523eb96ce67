/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * answer.h - packets that the data plane itself sends back: RST (RFC 9293,
 * 3.5.2), ICMP errors (RFC 792, RFC 4443). The packet in work is turned into the
 * answer and sent back to where it came from.
 */
#ifndef BLIXT_ANSWER_H
#define BLIXT_ANSWER_H

#include "ipsec.h"
#include "log.h"
#include "ratelimit.h"
#include "rewrite.h"
#include "route.h"

#define ICMP4_ECHO_REPLY 0
#define ICMP4_UNREACHABLE 3
#define ICMP4_SOURCE_QUENCH 4
#define ICMP4_REDIRECT 5
#define ICMP4_ECHO 8
#define ICMP4_TIME_EXCEEDED 11
#define ICMP4_PARAMETER_PROBLEM 12
#define ICMP4_NET_UNREACHABLE 0	 /* code */
#define ICMP4_HOST_UNREACHABLE 1 /* code */
#define ICMP4_PORT_UNREACHABLE 3 /* code */
#define ICMP4_FRAG_NEEDED 4	 /* code */
#define ICMP4_PROHIBITED 13	 /* code */
#define ICMP6_UNREACHABLE 1
#define ICMP6_TOO_BIG 2
#define ICMP6_TIME_EXCEEDED 3
#define ICMP6_INFORMATIONAL 128 /* from here on */
#define ICMP6_ECHO 128
#define ICMP6_ECHO_REPLY 129
#define ICMP6_NO_ROUTE 0	 /* code */
#define ICMP6_PROHIBITED 1	 /* code */
#define ICMP6_ADDRESS_UNREACHABLE 3 /* code */
#define ICMP6_PORT_UNREACHABLE 4 /* code */
#define ICMP6_ROUTER_SOLICITATION 133
#define ICMP6_REDIRECT 137

#define IPV4_TOS 0x1c /* of the type of service: all but precedence and ECN */
#define IPV4_INTERNETWORK_CONTROL 0xc0

/* Sends the packet back to where it came from. Returns the verdict. */
static __always_inline int send_back(struct __sk_buff *ctx, const struct packet *p)
{
	return p->egress && p->host && p->l3 ? redirect_to_host(ctx, p) : reflect(ctx, p);
}

/* Resizes the IP packet to `len` bytes and sets the length in its header. rewrite_ip must follow: it stores IPv4's checksum. */
static __always_inline bool resize(struct __sk_buff *ctx, struct packet *p, __u32 len)
{
	if (bpf_skb_change_tail(ctx, p->l3 + len, 0))
		return false;
	if (p->version == 4) {
		__be16 old = 0, new = bpf_htons(len);
		if (!load(ctx, p->l3 + IPV4_TOT_LEN, &old, 2))
			return false;
		p->ip_check = ~fold((__u64)(__u16)~p->ip_check + (__u16)~old + new);
		return bpf_skb_store_bytes(ctx, p->l3 + IPV4_TOT_LEN, &new, 2, 0) == 0;
	}
	__be16 payload = bpf_htons(len - sizeof(struct ipv6hdr));
	return bpf_skb_store_bytes(ctx, p->l3 + 4, &payload, 2, BPF_F_RECOMPUTE_CSUM) == 0;
}

/*
 * Turns the packet into the RST p->rst with the tuple p->to. IP options and
 * extension headers stay, so that the layer-4 header does not move: a partial
 * checksum refers to its place. Returns false if the kernel rejected a part.
 */
__noinline bool make_rst(struct __sk_buff *ctx, struct packet *p)
{
	if (!p)
		return false;
	const struct flow *to = &p->to;
	bool partial = checksum_partial(ctx, p->l4 + TCP_CHECK);
	__u64 pseudo;
	struct tcphdr tcp = {};

	tcp.source = to->sport;
	tcp.dest = to->dport;
	tcp.seq = bpf_htonl(p->rst.seq);
	tcp.ack_seq = bpf_htonl(p->rst.ack);
	tcp.doff = sizeof(tcp) / 4;
	((__u8 *)&tcp)[13] = p->rst.flags;
	__u64 sum = pseudo_sum(p, &to->src, &to->dst, IPPROTO_TCP, sizeof(tcp));
	if (!partial)
		sum += (__u32)bpf_csum_diff(NULL, 0, (__be32 *)&tcp, sizeof(tcp), 0);
	tcp.check = partial ? fold(sum) : ~fold(sum);

	return resize(ctx, p, p->l4 - p->l3 + sizeof(tcp)) && rewrite_ip(ctx, p, &to->src, &to->dst, ANSWER_HOP_LIMIT, &pseudo) &&
	       bpf_skb_store_bytes(ctx, p->l4, &tcp, sizeof(tcp), BPF_F_RECOMPUTE_CSUM) == 0;
}

/* Answers a TCP packet with the segment p->rst from its destination. Returns the verdict. */
static __always_inline int answer_segment(struct __sk_buff *ctx, struct packet *p, __u32 counter)
{
	p->to.src = p->key.dst;
	p->to.dst = p->key.src;
	p->to.sport = p->key.dport;
	p->to.dport = p->key.sport;
	sample(ctx, p, counter);
	if (!make_rst(ctx, p))
		return drop(COUNTER_DROP_ERROR);
	count(counter);
	return send_back(ctx, p);
}

/* Answers a TCP packet with a RST from its destination. Returns the verdict. */
__noinline int answer_rst(struct __sk_buff *ctx, struct packet *p, __u32 counter, __u32 share)
{
	if (!p)
		return TC_ACT_SHOT;
	p->rst.seq = p->ack;
	p->rst.ack = 0;
	p->rst.flags = TCP_RST;
	if (!(p->tcp_flags & TCP_ACK)) {
		p->rst.seq = 0;
		p->rst.ack = p->seq + p->payload + !!(p->tcp_flags & TCP_SYN) + !!(p->tcp_flags & TCP_FIN);
		p->rst.flags = TCP_RST | TCP_ACK;
	}

	if (p->tcp_flags & TCP_RST)
		return drop(COUNTER_DROP_NO_FLOW);
	if (has_protected_sender(p))
		return drop(COUNTER_DROP_PROTECTED);
	if (!may_answer(share))
		return drop(COUNTER_DROP_ANSWER_LIMIT);
	return answer_segment(ctx, p, counter);
}

/* Returns the sum of `len` bytes of p->icmp, to be folded. Up to three zeros follow them. Before Linux 6.13 bpf_csum_diff takes 512 bytes. */
static __always_inline __u64 icmp_sum(struct packet *p, __s32 len)
{
	__u64 sum = 0;
	for (__u32 at = 0; at < sizeof(p->icmp); at += 512) {
		__u32 room = sizeof(p->icmp) - at < 512 ? sizeof(p->icmp) - at : 512;
		__s32 n = (len + 3 & ~3) - (__s32)at;
		asm volatile("" : "+r"(n)); /* the verifier has to see the bounds of this register */
		if (n <= 0)
			break;
		sum += (__u32)bpf_csum_diff(NULL, 0, (__be32 *)((void *)&p->icmp + at), (__u32)n < room ? (__u32)n : room, 0);
	}
	return sum;
}

/*
 * Makes room for the message of an ICMP error.
 *
 * If the checksum is left to the device (CHECKSUM_PARTIAL), no helper changes
 * that: whoever sums the answer will write into it, as far behind skb's
 * csum_start as the checksum was; and if it stays on this host, nobody will. It
 * must be right in both cases. So its headers are placed such that csum_start
 * is where the padding behind the quote begins: that is zero, and the
 * sum of zeros is 0xffff, which in ones' complement is zero, too.
 */
static __always_inline bool resize_for_icmp(struct __sk_buff *ctx, const struct packet *p, __u32 ip, __u32 message, bool partial)
{
	if (!partial)
		return bpf_skb_change_tail(ctx, p->l3 + ip + message, 0) == 0;
	__s32 growth = p->l3 + ip + message - (p->l4 + PARTIAL_PADDING);
	return bpf_skb_change_tail(ctx, p->l4 + PARTIAL_PADDING, 0) == 0 &&
	       bpf_skb_adjust_room(ctx, growth, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_NO_CSUM_RESET) == 0;
}

/*
 * Answers with the ICMP error p->icmp from the packet's destination, which
 * quotes as much of the packet as RFC 1812, 4.3.2.3, and RFC 4443, 2.4, allow.
 * Its precedence is that of RFC 1812, 4.3.2.5. It is never fragmented, so that
 * its identification may be zero (RFC 6864, 4.1).
 */
__noinline int answer_icmp(struct __sk_buff *ctx, struct packet *p, __u32 counter, __u32 share)
{
	if (!p)
		return TC_ACT_SHOT;
	if (has_protected_sender(p))
		return drop(COUNTER_DROP_PROTECTED);
	if (!may_answer(share))
		return drop(COUNTER_DROP_ANSWER_LIMIT);
	bool v4 = p->version == 4;
	bool tcp = p->key.protocol == IPPROTO_TCP;
	bool partial = (tcp || p->key.protocol == IPPROTO_UDP) && p->fragment != LATER_FRAGMENT &&
		       checksum_partial(ctx, p->l4 + (tcp ? TCP_CHECK : UDP_CHECK));
	__u32 ip = v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	__u32 padding = partial ? PARTIAL_PADDING : 0;
	__u32 most = (v4 ? ICMP4_ERROR_MAX - sizeof(struct iphdr) : ICMP6_ERROR_MAX - sizeof(struct ipv6hdr)) - ICMP_HEADER_LEN - padding;
	__u32 quoted = p->len < most ? p->len : most;

	if (quoted < sizeof(struct iphdr) || quoted > QUOTE_MAX || !load(ctx, p->l3, p->icmp.quote, quoted))
		return drop(COUNTER_DROP_ERROR);
	__builtin_memset(p->icmp.quote + quoted, 0, sizeof(p->icmp.quote) - QUOTE_MAX);
	sample(ctx, p, counter);
	__u32 message = ICMP_HEADER_LEN + quoted + padding;
	p->icmp.check = 0;
	__u64 sum = icmp_sum(p, message);
	if (!v4)
		sum += pseudo_sum(p, &p->key.dst, &p->key.src, IPPROTO_ICMPV6, message);
	p->icmp.check = ~fold(sum);

	if (!resize_for_icmp(ctx, p, ip, message, partial))
		return drop(COUNTER_DROP_ERROR);
	if (v4) {
		struct iphdr h = { .version = 4, .ihl = 5, .ttl = ANSWER_HOP_LIMIT, .protocol = IPPROTO_ICMP };
		h.tos = IPV4_INTERNETWORK_CONTROL | (p->icmp.quote[1] & IPV4_TOS);
		h.tot_len = bpf_htons(ip + message);
		h.frag_off = bpf_htons(IPV4_DF);
		h.saddr = unmap_ipv4(&p->key.dst);
		h.daddr = unmap_ipv4(&p->key.src);
		h.check = ~fold((__u32)bpf_csum_diff(NULL, 0, (__be32 *)&h, sizeof(h), 0));
		if (bpf_skb_store_bytes(ctx, p->l3, &h, sizeof(h), BPF_F_RECOMPUTE_CSUM))
			return drop(COUNTER_DROP_ERROR);
	} else {
		struct ipv6hdr h = { .version = 6, .hop_limit = ANSWER_HOP_LIMIT, .nexthdr = IPPROTO_ICMPV6 };
		h.payload_len = bpf_htons(message);
		__builtin_memcpy(&h.saddr, &p->key.dst, sizeof(h.saddr));
		__builtin_memcpy(&h.daddr, &p->key.src, sizeof(h.daddr));
		if (bpf_skb_store_bytes(ctx, p->l3, &h, sizeof(h), BPF_F_RECOMPUTE_CSUM))
			return drop(COUNTER_DROP_ERROR);
	}
	if (bpf_skb_store_bytes(ctx, p->l3 + ip, &p->icmp, message, BPF_F_RECOMPUTE_CSUM))
		return drop(COUNTER_DROP_ERROR);
	count(counter);
	return send_back(ctx, p);
}

/* Sets the ICMP error to answer with. `rest` is the second word of its header. */
static __always_inline void set_icmp(struct packet *p, __u8 type, __u8 code, __be32 rest)
{
	p->icmp.type = type;
	p->icmp.code = code;
	p->icmp.rest = rest;
}

/*
 * Reports whether an ICMP error may answer the packet. It must not be an error
 * itself, nor in IPv4 a fragment other than the first (RFC 1122, 3.2.2). In IPv6
 * (RFC 4443, 2.4) such a fragment may be the only one that is too big.
 */
static __always_inline bool may_get_error(const struct packet *p)
{
	if (p->key.protocol != IPPROTO_TCP && p->key.protocol != IPPROTO_UDP)
		return false; /* an ICMP error: other ICMP belongs to no flow */
	return p->fragment != LATER_FRAGMENT || p->version == 6;
}

/* Answers a UDP packet to a port that nobody serves. */
static __always_inline int answer_port_unreachable(struct __sk_buff *ctx, struct packet *p, __u32 counter, __u32 share)
{
	if (p->version == 4)
		set_icmp(p, ICMP4_UNREACHABLE, ICMP4_PORT_UNREACHABLE, 0);
	else
		set_icmp(p, ICMP6_UNREACHABLE, ICMP6_PORT_UNREACHABLE, 0);
	return answer_icmp(ctx, p, counter, share);
}

#endif /* BLIXT_ANSWER_H */
