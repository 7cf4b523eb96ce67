/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * split.h - splits a packet that is larger than the MTU of its way, where a
 * router or the packet's own host would do that: RFC 791, 2.3, and RFC 8200,
 * 4.5. The kernel fragments what its own stack sends, but a redirected packet
 * bypasses the stack. The fragments, still with the tuple of the packet, are
 * put back where the packet was seen, one after the other. Then each of them is
 * treated like any fragment that a client sends.
 *
 * A fragment that was split off is as large in memory as the whole datagram was.
 * A receiver on the same machine is charged for that: for datagrams of more than
 * about 15 KB it needs a larger receive buffer.
 */
#ifndef BLIXT_SPLIT_H
#define BLIXT_SPLIT_H

#include "answer.h"

/* Bytes summed at once: the most that bpf_csum_diff takes before Linux 6.13. */
#define SUM_LEN 512
/* Bytes that forget_checksum removes: more than there are in front of a layer-4 header. */
#define FORGET_LEN 64

/*
 * Reports whether the datagram was put together from fragments, as a bridge with
 * br_netfilter does for conntrack. Then it is larger than what the device by
 * which it came in receives, and not in one piece.
 */
static __always_inline bool is_reassembled(struct __sk_buff *ctx, const struct packet *p)
{
	__u32 mtu = 0;
	return !p->egress && ctx->data_end - ctx->data < ctx->len && bpf_check_mtu(ctx, 0, &mtu, 0, 0) == BPF_MTU_CHK_RET_FRAG_NEEDED;
}

/*
 * Reports whether the packet may be split, and we can do it. A sender that
 * forbids fragmentation has to learn the MTU. But the host itself sets that bit
 * also in datagrams that it would fragment all the same, and does not expect an
 * answer. Those of sockets that forbid fragmentation look the same.
 */
static __always_inline bool may_split(struct __sk_buff *ctx, const struct packet *p)
{
	bool v4 = p->version == 4, udp = p->key.protocol == IPPROTO_UDP;

	if (ctx->gso_size || (!udp && p->key.protocol != IPPROTO_TCP))
		return false;
	if (p->l4 != p->l3 + (v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)))
		return false; /* options, or extension headers: not all of them belong into every fragment */
	return !p->dont_fragment || (udp && (p->host || is_reassembled(ctx, p)));
}

/* Sums bytes of the packet: those in front of `end`, from `at` on. */
struct summing {
	struct __sk_buff *ctx;
	__u8 *buffer; /* of SUM_LEN bytes */
	__u64 sum;    /* to be folded */
	__u32 at, end;
};

/* Adds SUM_LEN bytes, or those that are left. Returns 1 at the end, for bpf_loop. */
static long add_bytes(__u32 index __attribute__((unused)), struct summing *s)
{
	__s32 n = s->end - s->at;

	if (n < SUM_LEN)
		__builtin_memset(s->buffer, 0, SUM_LEN);
	else
		n = SUM_LEN;
	/* Two tests that the compiler can neither omit nor merge: the verifier of Linux 6.12 follows no other. */
	asm volatile("" : "+r"(n));
	if (n <= 0)
		return 1;
	asm volatile("" : "+r"(n));
	if (n > SUM_LEN || !load(s->ctx, s->at, s->buffer, n))
		return 1;
	s->sum += (__u32)bpf_csum_diff(NULL, 0, (__be32 *)s->buffer, SUM_LEN, 0);
	s->at += SUM_LEN;
	return 0;
}

/*
 * Stores the checksum of a TCP or UDP packet that a device was to sum. Returns
 * false if the kernel rejected a part.
 */
static __noinline bool complete_checksum(struct __sk_buff *ctx, struct packet *p)
{
	if (!p)
		return false;
	bool udp = p->key.protocol == IPPROTO_UDP;
	__u32 at = p->l4 + (udp ? UDP_CHECK : TCP_CHECK);
	struct summing s = { .ctx = ctx, .buffer = p->icmp.quote, .at = p->l4, .end = p->l3 + p->len };

	if (!checksum_partial(ctx, at))
		return true;
	bpf_loop(0xffff / SUM_LEN + 1, add_bytes, &s, 0);
	__u16 check = ~fold(s.sum);
	if (!check && udp)
		check = 0xffff; /* RFC 768: zero would mean "none" */
	return bpf_skb_store_bytes(ctx, at, &check, 2, 0) == 0;
}

/*
 * Has the kernel forget that a device is to sum the packet: it does when bytes
 * are removed beyond the place where that sum begins. They are put back behind
 * the IP header, which ends at `at`.
 */
static __always_inline bool forget_checksum(struct __sk_buff *ctx, __u32 at, __u8 *buffer)
{
	return load(ctx, at, buffer, FORGET_LEN) && !bpf_skb_adjust_room(ctx, -FORGET_LEN, BPF_ADJ_ROOM_NET, 0) &&
	       !bpf_skb_adjust_room(ctx, FORGET_LEN, BPF_ADJ_ROOM_NET, 0) &&
	       !bpf_skb_store_bytes(ctx, at, buffer, FORGET_LEN, BPF_F_RECOMPUTE_CSUM);
}

/*
 * Makes the packet end where its IP header says, as each fragment but the last
 * is followed by the data of the next ones.
 */
static __always_inline bool trim(struct __sk_buff *ctx, struct packet *p)
{
	if (ctx->len == p->l3 + p->len)
		return true;
	if (bpf_skb_change_tail(ctx, p->l3 + p->len, 0))
		return false;
	__u32 header = p->version == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	return p->fragment != FIRST_FRAGMENT || p->len < header + FORGET_LEN || forget_checksum(ctx, p->l3 + header, p->icmp.quote);
}

struct ipv6_fragment {
	struct ipv6hdr ip;
	struct extension fragment;
};

/* Stores the header of the next fragment, of `n` bytes, in front of the rest. */
static __always_inline bool store_header(struct __sk_buff *ctx, struct rest *r, __u32 n)
{
	bool more = r->more || n < r->left;

	if (r->v4) {
		struct iphdr *h = (struct iphdr *)r->header;
		h->tot_len = bpf_htons(sizeof(*h) + n);
		h->frag_off = bpf_htons(r->offset / 8 | (more ? IPV4_MF : 0));
		h->check = 0;
		h->check = ~fold((__u32)bpf_csum_diff(NULL, 0, (__be32 *)h, sizeof(*h), 0));
		return bpf_skb_store_bytes(ctx, r->l3, h, sizeof(*h), 0) == 0;
	}
	struct ipv6_fragment *h = (struct ipv6_fragment *)r->header;
	h->ip.payload_len = bpf_htons(sizeof(h->fragment) + n);
	h->fragment.offset = bpf_htons(r->offset | (more ? IPV6_MF : 0));
	return bpf_skb_store_bytes(ctx, r->l3, h, sizeof(*h), BPF_F_RECOMPUTE_CSUM) == 0;
}

/* Returns the identification of the fragments of an IPv6 packet: the same for all of them, and another one for other packets. */
static __always_inline __u32 piece_id(struct __sk_buff *ctx, __u32 l4)
{
	__u32 words[2] = {}; /* ports, and length and checksum or the sequence number */
	load(ctx, l4, words, sizeof(words));
	return words[0] ^ words[1];
}

/*
 * Sends the first fragment of an IPv6 packet, still without a fragment header,
 * and leaves room for that of the next one. The kernel does not let a packet of
 * more than 16 KB grow. So insert_fragment_header follows when the program sees
 * the fragment, and only that is left of it.
 */
static __always_inline bool send_first_ipv6(struct __sk_buff *ctx, struct rest *r)
{
	struct ipv6_fragment *h = (struct ipv6_fragment *)r->header;

	if (!load(ctx, r->l3, &h->ip, sizeof(h->ip)))
		return false;
	h->fragment.next = h->ip.nexthdr;
	h->fragment.len = 0;
	h->fragment.id = piece_id(ctx, r->l3 + sizeof(h->ip));
	h->ip.payload_len = bpf_htons(r->most);
	if (bpf_skb_store_bytes(ctx, r->l3, &h->ip, sizeof(h->ip), BPF_F_RECOMPUTE_CSUM))
		return false;
	set_mark(ctx, FIRST_PIECE);
	long rc = bpf_clone_redirect(ctx, r->ifindex, r->flags);
	set_mark(ctx, 0);
	h->ip.nexthdr = IPPROTO_FRAGMENT;
	r->left -= r->most;
	r->offset = r->most;
	r->more = false;
	return !rc && !bpf_skb_adjust_room(ctx, -(__s32)(r->most - sizeof(h->fragment)), BPF_ADJ_ROOM_NET, 0);
}

/* Makes the first fragment of a split IPv6 packet one. Returns false if the kernel rejected a part. */
static __noinline bool insert_fragment_header(struct __sk_buff *ctx, struct packet *p)
{
	struct ipv6_fragment h = {};
	__u8 version;
	int l3 = ip_offset(ctx, &version);

	set_mark(ctx, 0);
	if (!p || l3 < 0 || !load(ctx, l3, &h.ip, sizeof(h.ip)))
		return false;
	h.fragment.next = h.ip.nexthdr;
	h.fragment.offset = bpf_htons(IPV6_MF);
	h.fragment.id = piece_id(ctx, l3 + sizeof(h.ip));
	h.ip.nexthdr = IPPROTO_FRAGMENT;
	__u32 end = l3 + sizeof(h.ip) + bpf_ntohs(h.ip.payload_len);
	h.ip.payload_len = bpf_htons(bpf_ntohs(h.ip.payload_len) + sizeof(h.fragment));
	return !bpf_skb_change_tail(ctx, end, 0) && !bpf_skb_adjust_room(ctx, sizeof(h.fragment), BPF_ADJ_ROOM_NET, 0) &&
	       !bpf_skb_store_bytes(ctx, l3, &h, sizeof(h), BPF_F_RECOMPUTE_CSUM) &&
	       forget_checksum(ctx, l3 + sizeof(h.ip), p->icmp.quote);
}

/* Reads the header of an IPv4 packet, which may be a fragment itself. */
static __always_inline bool load_ipv4(struct __sk_buff *ctx, struct rest *r)
{
	struct iphdr *h = (struct iphdr *)r->header;

	if (!load(ctx, r->l3, h, sizeof(*h)))
		return false;
	r->offset = (bpf_ntohs(h->frag_off) & IPV4_OFFSET) * 8;
	r->more = h->frag_off & bpf_htons(IPV4_MF);
	return true;
}

/* What send_piece needs. */
struct splitting {
	struct __sk_buff *ctx;
	struct rest *rest;
	int verdict;
};

/*
 * Sends the next fragment: a copy of the packet, with a header that names the
 * first bytes of what is left. Then those bytes are removed. Returns 1 when no
 * other one follows, for bpf_loop.
 */
static long send_piece(__u32 index __attribute__((unused)), struct splitting *s)
{
	struct rest *r = s->rest;

	if (!store_header(s->ctx, r, r->left <= r->most ? r->left : r->most))
		return 1;
	if (r->left <= r->most) {
		s->verdict = bpf_redirect(r->ifindex, r->flags);
		return 1;
	}
	if (bpf_clone_redirect(s->ctx, r->ifindex, r->flags) || bpf_skb_adjust_room(s->ctx, -(__s32)r->most, BPF_ADJ_ROOM_NET, 0))
		return 1;
	r->left -= r->most;
	r->offset += r->most;
	return 0;
}

/*
 * Splits the packet into fragments that fit the MTU, and puts them back where
 * it was seen. At egress a copy passes this program before the call that sends
 * it returns. From then on all of *p but p->rest is about that copy. Returns the
 * verdict.
 */
__noinline int split(struct __sk_buff *ctx, struct packet *p, __u32 mtu)
{
	if (!p)
		return TC_ACT_SHOT;
	struct rest *r = &p->rest;
	struct splitting s = { .ctx = ctx, .rest = r, .verdict = TC_ACT_SHOT };

	r->v4 = p->version == 4;
	r->l3 = p->l3;
	r->left = p->len - (p->l4 - p->l3);
	r->ifindex = ctx->ifindex;
	r->flags = p->egress ? 0 : BPF_F_INGRESS;
	/* How large fragments were that a bridge has put together is not known. What every IPv6 link carries fits. */
	__u32 room = r->v4 ? mtu - sizeof(struct iphdr) : IPV6_MIN_MTU - sizeof(struct ipv6_fragment);
	r->most = (room < PIECE_MAX ? room : PIECE_MAX) & ~7;
	if (room < PIECE_MIN || (!r->v4 && mtu < IPV6_MIN_MTU) || r->left > MAX_PIECES * r->most)
		return drop(COUNTER_DROP_TOO_BIG);
	if (p->fragment == WHOLE && !complete_checksum(ctx, p))
		return drop(COUNTER_DROP_ERROR);
	/* What follows the packet in its frame would be part of each fragment's frame, and may be too much for the device. */
	if (ctx->len != p->l3 + p->len && bpf_skb_change_tail(ctx, p->l3 + p->len, 0))
		return drop(COUNTER_DROP_ERROR);
	count(COUNTER_FRAGMENTED);
	if (!(r->v4 ? load_ipv4(ctx, r) : send_first_ipv6(ctx, r)))
		return drop(COUNTER_DROP_ERROR);
	bpf_loop(MAX_PIECES, send_piece, &s, 0);
	return s.verdict == TC_ACT_SHOT ? drop(COUNTER_DROP_ERROR) : s.verdict;
}

#endif /* BLIXT_SPLIT_H */
