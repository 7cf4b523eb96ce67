/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * flow.h - the memory of flows: find, create, establish, forget.
 *
 * A flow begins in `new_flows`, an LRU table, and moves to `flows`, which
 * nothing evicts, once its backend has answered and its client has gone on:
 * for TCP with an acknowledgement that only somebody who saw the answer can
 * know. So neither forged SYNs nor forged datagrams cost an established flow.
 */
#ifndef BLIXT_FLOW_H
#define BLIXT_FLOW_H

#include "route.h"

/*
 * Source ports tried for a flow whose own is taken, and then again where ports
 * are scarce. With half of all ports taken, 32 fail once in 4 billion.
 */
#define PORT_TRIES 32
/* How far the client's first acknowledgement may be ahead of the answer: a window, and too few to guess. */
#define ACK_WINDOW (1 << 20)

static __always_inline __u32 now(void)
{
	return bpf_ktime_get_coarse_ns() >> TICK_SHIFT;
}

/* The key of the other direction's entry. */
static __always_inline void peer_key(const struct flow_key *key, const struct flow *f, struct flow_key *peer)
{
	__builtin_memset(peer, 0, sizeof(*peer));
	peer->src = f->dst;
	peer->dst = f->src;
	peer->sport = f->dport;
	peer->dport = f->sport;
	peer->protocol = key->protocol;
}

/* In this order: a flow that moves is written to `flows` before it leaves `new_flows`. */
static __always_inline struct flow *find_flow(const struct flow_key *key)
{
	struct flow *f = bpf_map_lookup_elem(&new_flows, key);
	return f ? f : bpf_map_lookup_elem(&flows, key);
}

static __noinline void forget(const struct flow_key *key, const struct flow *f)
{
	struct flow_key peer;
	if (!key || !f)
		return;
	peer_key(key, f, &peer);
	bpf_map_delete_elem(&flows, key);
	bpf_map_delete_elem(&new_flows, key);
	bpf_map_delete_elem(&flows, &peer);
	bpf_map_delete_elem(&new_flows, &peer);
}

/* Signed: another CPU may have seen a later tick than ours. */
static __always_inline bool idle(const struct flow *f, __u32 tick)
{
	return (__s32)(tick - f->last_seen) > (__s32)f->idle_ticks;
}

/* Idle in both directions. */
__noinline bool expired(const struct flow_key *key, const struct flow *f)
{
	struct flow_key k;
	__u32 tick = now();
	if (!key || !f || !idle(f, tick))
		return false;
	peer_key(key, f, &k);
	struct flow *peer = find_flow(&k);
	return !peer || idle(peer, tick);
}

/* The flags of the other direction's entry, or none. */
static __always_inline __u32 peer_flags(const struct flow_key *key, const struct flow *f)
{
	struct flow_key k;
	peer_key(key, f, &k);
	const struct flow *peer = find_flow(&k);
	return peer ? peer->flags : 0;
}

/* One of its sides has ended the connection. */
__noinline bool ended(const struct flow_key *key, const struct flow *f)
{
	if (!key || !f)
		return false;
	return (f->flags | peer_flags(key, f)) & (FLOW_FIN | FLOW_RST);
}

/* Only notes that the host itself uses this tuple: see keep_apart. */
static __always_inline bool is_note(const struct flow_key *key, const struct flow *f)
{
	return f->backend == BACKEND_REJECT && f->sport == key->sport && f->dport == key->dport;
}

/* The connection is over: either side has sent a RST, or both a FIN. */
static __always_inline bool over(const struct flow_key *key, const struct flow *f)
{
	__u32 other = peer_flags(key, f);
	return (f->flags | other) & FLOW_RST || f->flags & other & FLOW_FIN;
}

static __always_inline bool backend_gone(const struct flow *f)
{
	const struct backend *b = bpf_map_lookup_elem(&backends, &f->backend);
	return !b || b->generation != f->generation;
}

/* The first answer: from now on the client's next packet establishes the flow. */
static __noinline void note_answer(const struct packet *p, const struct flow *reply)
{
	struct flow_key key;
	if (!p || !reply)
		return;
	peer_key(&p->key, reply, &key);
	struct flow *forward = bpf_map_lookup_elem(&new_flows, &key);
	if (!forward || forward->flags & FLOW_ANSWERED)
		return;
	forward->ack = p->seq + !!(p->tcp_flags & TCP_SYN);
	__sync_fetch_and_or(&forward->flags, FLOW_ANSWERED);
}

/* Does this packet of an answered new flow show that its sender hears the backend? */
static __always_inline bool establishes(const struct packet *p, const struct flow *f)
{
	if (!(f->flags & FLOW_ANSWERED) || p->fragment == LATER_FRAGMENT)
		return false;
	if (p->key.protocol != IPPROTO_TCP)
		return true;
	return (p->tcp_flags & (TCP_ACK | TCP_SYN | TCP_RST)) == TCP_ACK && p->ack - f->ack < ACK_WINDOW;
}

/*
 * Moves both entries of the new flow that p->to is of to `flows`: written
 * there before they are deleted here, so that find_flow always finds one.
 */
__noinline int establish(struct packet *p)
{
	struct flow_key peer;
	if (!p)
		return 0;
	peer_key(&p->key, &p->to, &peer);
	const struct flow *reply = bpf_map_lookup_elem(&new_flows, &peer);
	if (!reply)
		return 0; /* evicted: the next packet makes the flow anew */
	p->reply = *reply;
	p->reply.flags |= FLOW_ESTABLISHED;
	p->to.flags |= FLOW_ESTABLISHED;
	if (bpf_map_update_elem(&flows, &peer, &p->reply, BPF_ANY)) {
		count(COUNTER_FLOW_TABLE_FULL);
		return 0;
	}
	if (bpf_map_update_elem(&flows, &p->key, &p->to, BPF_ANY)) {
		bpf_map_delete_elem(&flows, &peer);
		count(COUNTER_FLOW_TABLE_FULL);
		return 0;
	}
	bpf_map_delete_elem(&new_flows, &p->key);
	bpf_map_delete_elem(&new_flows, &peer);
	count(COUNTER_FLOW_ESTABLISHED);
	return 1;
}

/*
 * May `reply` have this flow's tuple? Yes, if nobody needs it any more: the same
 * client begins anew, it is idle, or its backend is gone. Where ports are
 * scarce also if nobody may need it: the connection is over, or was never
 * established, lest forged flows keep ports until they are idle.
 */
__noinline bool replaceable(const struct flow_key *key, const struct flow *f, const struct flow *reply, bool scarce)
{
	if (!key || !f || !reply)
		return false;
	bool same = same_addr(&f->dst, &reply->dst) && f->dport == reply->dport && same_addr(&f->src, &reply->src) &&
		    f->sport == reply->sport;
	if (same || backend_gone(f) || expired(key, f))
		return true;
	if (is_note(key, f))
		return scarce && f->flags & (FLOW_FIN | FLOW_RST);
	return scarce && (!bpf_map_lookup_elem(&flows, key) || over(key, f));
}

/*
 * Claims the reply tuple `key` for a new flow. Returns false if a live flow
 * has it. The order matters: an established flow is written to `flows` before
 * it leaves `new_flows`, so whoever inserts first and looks second cannot miss it.
 */
__noinline bool claim(const struct flow_key *key, const struct flow *reply, bool scarce)
{
	if (!key || !reply)
		return false;
	struct flow *taken = find_flow(key);
	if (taken) {
		if (!replaceable(key, taken, reply, scarce))
			return false;
		forget(key, taken);
	}
	if (bpf_map_update_elem(&new_flows, key, reply, BPF_NOEXIST))
		return false;
	if (!bpf_map_lookup_elem(&flows, key))
		return true;
	bpf_map_delete_elem(&new_flows, key);
	return false;
}

#endif /* BLIXT_FLOW_H */
