/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * rewrite.h - gives a packet the tuple of its flow.
 *
 * Headers are written in place: a helper call costs as much as a map look-up,
 * and five calls would be needed. Checksums are adjusted by what changed, never
 * computed anew. Two kinds of skb need more than that. With CHECKSUM_PARTIAL (a
 * local sender) the checksum so far covers the pseudo header only. With
 * CHECKSUM_COMPLETE (the driver has summed the whole packet) skb->csum has to
 * follow every change.
 */
#ifndef BLIXT_REWRITE_H
#define BLIXT_REWRITE_H

#include "packet.h"

#define IPV4_TOT_LEN 2 /* offsets in the headers */
#define IPV4_FRAGMENT 6
#define IPV4_CHECK 10
#define IPV4_SADDR 12
#define IPV6_SADDR 8
#define IPV6_FRAGMENT_END 6 /* from the offset in a fragment header to the end of the header */
#define TCP_CHECK 16
#define UDP_CHECK 6
#define ICMP_CHECK 2

/* Returns a pointer to write `len` bytes at offset `at`, or NULL. It is valid until a helper changes the packet. */
static __always_inline void *writable(struct __sk_buff *ctx, __u32 at, const __u32 len)
{
	void *from = (void *)(long)ctx->data + at;
	if (at >= MAX_DIRECT_OFFSET)
		return NULL;
	if (from + len <= (void *)(long)ctx->data_end)
		return from;
	if (bpf_skb_pull_data(ctx, at + len)) /* not linear */
		return NULL;
	from = (void *)(long)ctx->data + at;
	return from + len <= (void *)(long)ctx->data_end ? from : NULL;
}

/* Reports whether skb->csum is the sum of the whole packet from the IP header on (CHECKSUM_COMPLETE). */
static __always_inline bool checksum_complete(struct __sk_buff *ctx)
{
	return bpf_csum_update(ctx, 0) >= 0; /* fails otherwise */
}

/*
 * Returns by how much a change of words changes a ones' complement sum, to be
 * folded. The helper bpf_csum_diff costs more than these few additions.
 */
static __always_inline __u64 difference(const void *old, const void *new, int words)
{
	const __u32 *o = old, *n = new;
	__u64 sum = 0;
	for (int i = 0; i < words; i++)
		sum += (__u64)(__u32)~o[i] + n[i];
	return sum;
}

/* Folds a ones' complement sum to 16 bits. */
static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Folds a ones' complement sum to the 32 bits that the kernel's checksum helpers take. */
static __always_inline __u32 fold32(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (sum & 0xffffffff) + (sum >> 32);
}

/*
 * Reports whether the device still has to sum this packet (CHECKSUM_PARTIAL).
 * No helper tells. But bpf_l4_csum_replace leaves a partial checksum alone when
 * data changes: so it is called for a change that does not happen, and its
 * effect, if any, is undone.
 */
static __always_inline bool checksum_partial(struct __sk_buff *ctx, __u32 at)
{
	__u16 before = 0, after = 0;
	if (!load(ctx, at, &before, 2) || bpf_l4_csum_replace(ctx, at, 0, 1, 0) || !load(ctx, at, &after, 2))
		return false;
	if (before == after)
		return true;
	bpf_skb_store_bytes(ctx, at, &before, 2, 0);
	return false;
}

/* Returns the sum of the pseudo header, to be folded. RFC 9293, 3.1 and RFC 8200, 8.1. */
static __always_inline __u64 pseudo_sum(const struct packet *p, const struct addr *src, const struct addr *dst, __u8 protocol,
					__u32 len)
{
	const __u32 *s = (const __u32 *)src, *d = (const __u32 *)dst;
	__u64 sum = (__u64)bpf_htonl(len) + bpf_htonl(protocol) + s[3] + d[3];
	if (p->version == 6) /* for IPv4 the words before the last are no part of the address */
		sum += (__u64)s[0] + s[1] + s[2] + d[0] + d[1] + d[2];
	return sum;
}

enum checksum {
	NO_CHECKSUM, /* UDP: the sender has computed none */
	PARTIAL_CHECKSUM,
	FULL_CHECKSUM,
};

/*
 * Returns which kind of checksum the packet has. A partial checksum equals the
 * folded sum of the pseudo header; a full one equals it once in 65,536 packets.
 * Only then checksum_partial decides. A UDP checksum of zero means "none",
 * unless it is partial. Here 0 and 0xffff are the same number.
 */
static __always_inline enum checksum checksum_kind(struct __sk_buff *ctx, const struct packet *p)
{
	bool tcp = p->key.protocol == IPPROTO_TCP;
	__u16 pseudo = fold(pseudo_sum(p, &p->key.src, &p->key.dst, p->key.protocol, p->len - (p->l4 - p->l3)));
	bool none = !tcp && !p->l4_check;

	if (p->l4_check != pseudo && !none && (p->l4_check || pseudo != 0xffff) && (pseudo || p->l4_check != 0xffff))
		return FULL_CHECKSUM;
	if (checksum_partial(ctx, p->l4 + (tcp ? TCP_CHECK : UDP_CHECK)))
		return PARTIAL_CHECKSUM;
	return none ? NO_CHECKSUM : FULL_CHECKSUM;
}

/* Stores the ports and the checksum of a layer-4 header. */
static __always_inline bool write_l4(struct __sk_buff *ctx, __u32 at, const __u32 len, const int check_at,
				     const struct flow *to, __u16 check)
{
	void *h = writable(ctx, at, len);
	if (!h)
		return false;
	*(__u32 *)h = *(const __u32 *)&to->sport;
	*(__u16 *)(h + check_at) = check;
	return true;
}

/* Sets the ports. Adjusts the checksum to them, and to the new addresses by their difference `pseudo`. */
static __always_inline bool rewrite_l4(struct __sk_buff *ctx, const struct packet *p, __u64 pseudo, const struct flow *to)
{
	bool tcp = p->key.protocol == IPPROTO_TCP;
	__u64 ports = difference(&p->key.sport, &to->sport, 1);
	enum checksum kind = checksum_kind(ctx, p);
	__u16 check = p->l4_check;

	if (kind == FULL_CHECKSUM)
		check = ~fold((__u16)~check + pseudo + ports);
	else if (kind == PARTIAL_CHECKSUM)
		check = fold(check + pseudo);
	if (kind == FULL_CHECKSUM && !tcp && !check)
		check = 0xffff; /* RFC 768: zero would mean "none" */

	if (!(tcp ? write_l4(ctx, p->l4, sizeof(struct tcphdr), TCP_CHECK, to, check)
		  : write_l4(ctx, p->l4, sizeof(struct udphdr), UDP_CHECK, to, check)))
		return false;
	if (p->complete)
		bpf_csum_update(ctx, fold32(ports + (__u16)~p->l4_check + check));
	return true;
}

/* Sets the addresses and the hop limit. *pseudo gets the difference of the addresses, to be folded. */
static __always_inline bool rewrite_ip(struct __sk_buff *ctx, struct packet *p, const struct addr *src,
				       const struct addr *dst, __u8 hop_limit, __u64 *pseudo)
{
	p->complete = checksum_complete(ctx);
	if (p->version == 4) {
		__be32 old[2] = { unmap_ipv4(&p->key.src), unmap_ipv4(&p->key.dst) };
		__be32 new[2] = { unmap_ipv4(src), unmap_ipv4(dst) };
		struct iphdr *ip = writable(ctx, p->l3, sizeof(*ip));
		if (!ip)
			return false;
		*pseudo = difference(old, new, 2);
		/* The TTL is the first byte of its 16-bit word. */
		ip->check = ~fold((__u16)~p->ip_check + *pseudo + (__u16)~p->hop_limit + hop_limit);
		ip->ttl = hop_limit;
		ip->saddr = new[0];
		ip->daddr = new[1];
		return true; /* the sum of an IPv4 header never changes: its checksum sees to that */
	}
	struct ipv6hdr *ip = writable(ctx, p->l3, sizeof(*ip));
	if (!ip)
		return false;
	*pseudo = difference(&p->key.src, src, 4) + difference(&p->key.dst, dst, 4);
	ip->hop_limit = hop_limit;
	__builtin_memcpy(&ip->saddr, src, sizeof(*src));
	__builtin_memcpy(&ip->daddr, dst, sizeof(*dst));
	if (p->complete) /* the hop limit is the second byte of its word */
		bpf_csum_update(ctx, fold32(*pseudo + (__u16)~(p->hop_limit << 8) + (hop_limit << 8)));
	return true;
}

/* Gives the packet the tuple `to`. Returns false if the kernel rejected a part: then the packet must be dropped. */
static __always_inline bool rewrite(struct __sk_buff *ctx, struct packet *p, const struct flow *to, __u8 hop_limit)
{
	__u64 pseudo = 0;
	return rewrite_ip(ctx, p, &to->src, &to->dst, hop_limit, &pseudo) &&
	       (p->fragment == LATER_FRAGMENT || rewrite_l4(ctx, p, pseudo, to));
}

#endif /* BLIXT_REWRITE_H */
