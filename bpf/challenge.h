/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * challenge.h - a client proves that its address is not forged, before it gets a flow.
 *
 * Its SYN is answered with an acknowledgement of what it has not sent: a cookie. A client
 * answers that with a RST whose sequence number is the cookie (RFC 9293, 3.10.7.3), and repeats
 * its SYN: Linux after 2 ticks of its timer, others after a second. Who forges
 * an address does not see the cookie. Nothing is stored until the client has proven
 * itself; the answer is no larger than the SYN, so it amplifies nothing.
 *
 * The cookie is a keyed hash of our own. The kernel's helpers for SYN cookies
 * are newer than the kernels that we support, and make numbers for SYN-ACKs:
 * then this node would have to take part in the connection until its end.
 *
 * The key is this node's: the RST and the next SYN have the tuple of the first, so whatever
 * spreads packets over nodes sends them here. If it does not, the client is challenged
 * again by the other node. A client behind a firewall that swallows the
 * acknowledgement or the RST gets no connection while clients are challenged.
 */
#ifndef BLIXT_CHALLENGE_H
#define BLIXT_CHALLENGE_H

#include "answer.h"
#include "siphash.h"

/* The key of cookies, which the program itself makes. Zero: it has not yet. */
struct cookie_key {
	__u64 words[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cookie_key);
} cookie_keys SEC(".maps");

/* SYNs that would have begun a flow, by frontend index. CPUs may overwrite each other: it need not be exact. */
struct syn_count {
	__u32 tick;
	__u32 number; /* in this tick */
	__u32 flood;  /* the last tick with more than frontend.challenge; 0: none */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_FRONTENDS);
	__type(key, __u32);
	__type(value, struct syn_count);
} syn_counts SEC(".maps");

/* Returns a word of the key, and makes it if nobody has. */
static __always_inline __u64 key_word(__u64 *word)
{
	__u64 now = *(volatile __u64 *)word;
	if (now)
		return now;
	__u64 random = (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32() | 1;
	now = __sync_val_compare_and_swap(word, 0, random);
	return now ? now : random;
}

/* Returns the cookie of the packet's tuple in a slice of time. */
__noinline __u32 cookie(const struct packet *p, __u32 slice)
{
	__u32 zero = 0;
	struct cookie_key *k = bpf_map_lookup_elem(&cookie_keys, &zero);
	if (!p || !k)
		return 0;
	struct sip_state s = sip_begin(key_word(&k->words[0]), key_word(&k->words[1]));
	const __u64 *words = (const __u64 *)&p->key;
	for (__u32 i = 0; i < sizeof(p->key) / 8; i++)
		sip_word(&s, words[i]);
	sip_word(&s, slice);
	return sip_end(&s, sizeof(p->key) + 8);
}

static __always_inline __u32 cookie_slice(void)
{
	return now() / COOKIE_TICKS;
}

/* An acknowledgement number that the client takes for its own SYN's, or data's behind it, would not be answered with a RST. */
#define OTHER_HALF 0x80000000U

/* Reports whether the packet is the RST with which a client answers its challenge, and notes so. */
static __always_inline bool proves(const struct packet *p)
{
	__u32 slice = cookie_slice(), tick = now();
	__u32 expected = cookie(p, slice), before = cookie(p, slice - 1);
	if ((p->seq ^ expected) & ~OTHER_HALF && (p->seq ^ before) & ~OTHER_HALF)
		return false;
	bpf_map_update_elem(&proven, &p->key.src, &tick, BPF_ANY);
	count(COUNTER_CLIENT_PROVEN);
	return true;
}

/* Counts a SYN to the frontend. Reports whether there are so many that clients are challenged. */
static __always_inline bool is_flooded(const struct frontend *fe)
{
	__u32 tick = now();
	struct syn_count *n = bpf_map_lookup_elem(&syn_counts, &fe->index);
	if (!n)
		return false;
	if (n->tick != tick) {
		n->tick = tick;
		n->number = 0;
	}
	if (__sync_fetch_and_add(&n->number, 1) >= fe->challenge && n->flood != tick)
		n->flood = tick;
	return n->flood && tick - n->flood <= FLOOD_TICKS;
}

/*
 * Challenges the client of a packet that would begin a flow to a frontend with
 * frontend.challenge. Returns 0 if it may begin, or a verdict. Sockets of this host forge
 * nothing. What is like a SYN and no SYN is no beginning that a client means.
 */
__noinline int challenge(struct __sk_buff *ctx, struct packet *p, const struct frontend *fe)
{
	if (!p || !fe)
		return TC_ACT_SHOT;
	if (p->key.protocol != IPPROTO_TCP || !(p->tcp_flags & TCP_SYN) || p->host)
		return 0;
	if (fe->challenge > 1 && !is_flooded(fe))
		return 0;
	const __u32 *tick = bpf_map_lookup_elem(&proven, &p->key.src);
	if (tick && now() - *tick <= PROVEN_TICKS)
		return 0;
	if ((p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_FIN)) != TCP_SYN || p->fragment != WHOLE)
		return drop(COUNTER_REJECT_UNPROVEN);
	if (has_protected_sender(p))
		return drop(COUNTER_DROP_PROTECTED);
	if (!may_challenge())
		return drop(COUNTER_DROP_ANSWER_LIMIT);
	p->rst.seq = 0;
	p->rst.ack = cookie(p, cookie_slice());
	if (p->rst.ack - p->seq < OTHER_HALF)
		p->rst.ack ^= OTHER_HALF;
	p->rst.flags = TCP_ACK;
	return answer_segment(ctx, p, COUNTER_REJECT_UNPROVEN);
}

#endif /* BLIXT_CHALLENGE_H */
