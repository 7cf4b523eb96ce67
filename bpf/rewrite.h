/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * rewrite.h - a packet gets the tuple of its flow.
 *
 * Checksums are only ever adjusted by what changed, with the helpers that know
 * about CHECKSUM_PARTIAL (a local sender: only the pseudo header is summed) and
 * CHECKSUM_COMPLETE (the driver summed the whole packet). For the latter, a
 * change of IPv4 addresses and header checksum adds up to nothing; IPv6 has no
 * header checksum, so its addresses are stored with BPF_F_RECOMPUTE_CSUM, which
 * evens out what BPF_F_PSEUDO_HDR takes off.
 */
#ifndef BLIXT_REWRITE_H
#define BLIXT_REWRITE_H

#include "packet.h"

#define IPV4_TTL 8   /* offsets in the IPv4 header */
#define IPV4_CHECK 10
#define IPV4_SADDR 12
#define IPV4_TOT_LEN 2
#define IPV6_HOP_LIMIT 7 /* and in the IPv6 header */
#define IPV6_SADDR 8
#define TCP_CHECK 16 /* offsets in the layer-4 headers */
#define UDP_CHECK 6
#define ICMP_CHECK 2

/*
 * What a change of words does to a ones' complement sum, to be folded. In
 * place of bpf_csum_diff: a call costs more than these few additions.
 */
static __always_inline __u64 difference(const void *old, const void *new, int words)
{
	const __u32 *o = old, *n = new;
	__u64 sum = 0;
	for (int i = 0; i < words; i++)
		sum += (__u64)(__u32)~o[i] + n[i];
	return sum;
}

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Folded to what bpf_l4_csum_replace takes. */
static __always_inline __u32 fold32(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (sum & 0xffffffff) + (sum >> 32);
}

/*
 * Does the device still have to sum this packet (CHECKSUM_PARTIAL)? The helper
 * leaves such a checksum alone when data changes, so it is asked to count a
 * change that never happens, and what it did is undone.
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

/* UDP without a checksum stays without; a partial one that happens to be zero is none of these. */
static __always_inline bool has_checksum(struct __sk_buff *ctx, const struct packet *p)
{
	return !p->zero_checksum || checksum_partial(ctx, p->l4 + UDP_CHECK);
}

/* Adjusts the layer-4 checksum for new addresses (pseudo header) and ports, and stores the ports. */
static __always_inline bool rewrite_l4(struct __sk_buff *ctx, const struct packet *p, __u32 pseudo, const struct flow *to)
{
	bool tcp = p->key.protocol == IPPROTO_TCP;
	__u32 check = p->l4 + (tcp ? TCP_CHECK : UDP_CHECK);
	/* A partial sum of zero is not "none": no MARK_MANGLED_0, which would skip it. */
	__u64 mangled = tcp || p->zero_checksum ? 0 : BPF_F_MARK_MANGLED_0;
	bool summed = tcp || has_checksum(ctx, p);

	if (summed) {
		__u32 ports = fold32(difference(&p->key.sport, &to->sport, 1));
		if (bpf_l4_csum_replace(ctx, check, 0, pseudo, BPF_F_PSEUDO_HDR | mangled) ||
		    bpf_l4_csum_replace(ctx, check, 0, ports, mangled))
			return false;
	}
	/* Nothing in the packet evens out ports that it has no checksum of: the sum of the whole changes with them. */
	return bpf_skb_store_bytes(ctx, p->l4, &to->sport, 4, summed ? 0 : BPF_F_RECOMPUTE_CSUM) == 0;
}

/* Sets addresses and hop limit. `pseudo` gets the difference of the addresses. */
static __always_inline bool rewrite_ip(struct __sk_buff *ctx, const struct packet *p, const struct addr *src,
				       const struct addr *dst, __u8 hop_limit, __u32 *pseudo)
{
	if (p->version == 4) {
		/* The TTL's 16-bit word last: it is in the header checksum, but not in the pseudo header. */
		__be32 old[3] = { unmap_ipv4(&p->key.src), unmap_ipv4(&p->key.dst), p->hop_limit };
		__be32 new[3] = { unmap_ipv4(src), unmap_ipv4(dst), hop_limit };
		*pseudo = fold32(difference(old, new, 2));
		struct {
			__u8 ttl, protocol;
			__u16 check;
			__be32 src, dst;
		} rest = { hop_limit, p->key.protocol, ~fold((__u16)~p->ip_check + difference(old, new, 3)), new[0], new[1] };
		return bpf_skb_store_bytes(ctx, p->l3 + IPV4_TTL, &rest, sizeof(rest), 0) == 0;
	}
	struct {
		__u8 pad[7], hop_limit; /* so that the addresses are aligned */
		struct addr src, dst;
	} rest = { .hop_limit = hop_limit, .src = *src, .dst = *dst };
	*pseudo = fold32(difference(&p->key.src, &rest.src, 8));
	return bpf_skb_store_bytes(ctx, p->l3 + IPV6_HOP_LIMIT, &rest.hop_limit, 1 + 2 * sizeof(struct addr),
				   BPF_F_RECOMPUTE_CSUM) == 0;
}

/* The packet gets the tuple `to`. Returns false if the kernel refused a part: the packet must be dropped. */
static __always_inline bool rewrite(struct __sk_buff *ctx, const struct packet *p, const struct flow *to, __u8 hop_limit)
{
	__u32 pseudo = 0;
	return rewrite_ip(ctx, p, &to->src, &to->dst, hop_limit, &pseudo) &&
	       (p->fragment == LATER_FRAGMENT || rewrite_l4(ctx, p, pseudo, to));
}

#endif /* BLIXT_REWRITE_H */
