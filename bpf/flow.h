/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * flow.h - the life of a flow in the tables: insert, refresh, establish,
 * expire, close, forget. Nothing here touches the packet itself.
 *
 * A flow begins in `new_flows`, an LRU table. It moves to `flows`, which
 * nothing evicts, once its backend has answered and its client has continued:
 * for TCP with an acknowledgement number that only a receiver of the answer
 * can know. So neither forged SYNs nor forged datagrams evict an established
 * flow.
 */
#ifndef BLIXT_FLOW_H
#define BLIXT_FLOW_H

#include "ring.h"
#include "way.h"

/* The time in ticks. */
static __always_inline __u32 now(void)
{
	return bpf_ktime_get_coarse_ns() >> TICK_SHIFT;
}

/* Sets *peer to the key of the other direction's entry. */
static __always_inline void peer_key(const struct flow_key *key, const struct flow *f, struct flow_key *peer)
{
	__builtin_memset(peer, 0, sizeof(*peer));
	peer->src = f->dst;
	peer->dst = f->src;
	peer->sport = f->dport;
	peer->dport = f->sport;
	peer->protocol = key->protocol;
}

/* Returns the entry of `key`, or NULL. `new_flows` comes first: a flow that moves is in `flows` before it leaves `new_flows`. */
static __always_inline struct flow *find_flow(const struct flow_key *key)
{
	struct flow *f = bpf_map_lookup_elem(&new_flows, key);
	return f ? f : bpf_map_lookup_elem(&flows, key);
}

/* Deletes both entries of the flow. */
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

/* Reports whether this direction is idle. The difference is signed: another CPU may have stored a later tick than ours. */
static __always_inline bool idle(const struct flow *f, __u32 tick)
{
	return (__s32)(tick - f->last_seen) > (__s32)f->idle_ticks;
}

/* Reports whether both directions are idle. */
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

/* Returns the flags of the other direction's entry, or 0. */
static __always_inline __u32 peer_flags(const struct flow_key *key, const struct flow *f)
{
	struct flow_key k;
	peer_key(key, f, &k);
	const struct flow *peer = find_flow(&k);
	return peer ? peer->flags : 0;
}

/* Reports whether one side at least has ended the connection, with a FIN or a RST. */
__noinline bool closing(const struct flow_key *key, const struct flow *f)
{
	if (!key || !f)
		return false;
	return (f->flags | peer_flags(key, f)) & (FLOW_FIN | FLOW_RST);
}

/* Reports whether the connection has ended: either side has sent a RST, or both a FIN. */
static __always_inline bool closed(const struct flow_key *key, const struct flow *f)
{
	__u32 peer = peer_flags(key, f);
	return (f->flags | peer) & FLOW_RST || f->flags & peer & FLOW_FIN;
}

/* Reports whether the entry only reserves a port that the host itself uses: see hostports.h. */
static __always_inline bool is_port_reservation(const struct flow_key *key, const struct flow *f)
{
	return f->backend == BACKEND_REJECT && f->sport == key->sport && f->dport == key->dport;
}

static __always_inline bool backend_gone(const struct flow *f)
{
	const struct backend *b = bpf_map_lookup_elem(&backends, &f->backend);
	return !b || b->generation != f->generation;
}

/* Updates the entry's age, and records a FIN or a RST. */
static __always_inline void refresh(const struct packet *p, struct flow *f, __u32 tick)
{
	if (f->last_seen != tick) /* an unchanged cache line stays shared between CPUs */
		f->last_seen = tick;
	__u32 end = (p->tcp_flags & TCP_FIN ? FLOW_FIN : 0) | (p->tcp_flags & TCP_RST ? FLOW_RST : 0);
	if (end & ~f->flags)
		__sync_fetch_and_or(&f->flags, end);
}

/*
 * Reports whether the reply entry of an unanswered flow was evicted, so that
 * answers of its backend would not be recognized. If the reply entry is missing
 * because another CPU is establishing the flow, both entries are in `flows`.
 */
__noinline bool half_evicted(const struct flow_key *key, const struct flow *f)
{
	struct flow_key k;
	if (!key || !f)
		return false;
	peer_key(key, f, &k);
	return !bpf_map_lookup_elem(&new_flows, &k) && !bpf_map_lookup_elem(&flows, key);
}

/* Records the backend's first answer. From now on the client's next packet may establish the flow. */
static __noinline void record_answer(const struct packet *p, const struct flow *reply)
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

/* Reports whether this packet of a new flow proves that its sender has received the backend's answer. */
static __always_inline bool establishes(const struct packet *p, const struct flow *f)
{
	if (!(f->flags & FLOW_ANSWERED) || p->fragment == LATER_FRAGMENT)
		return false;
	if (p->key.protocol != IPPROTO_TCP)
		return true;
	return (p->tcp_flags & (TCP_ACK | TCP_SYN | TCP_RST)) == TCP_ACK && p->ack - f->ack < ACK_WINDOW;
}

/*
 * Moves both entries of the new flow, whose forward entry p->to is a copy of,
 * to `flows`. They are inserted there before they are deleted from
 * `new_flows`, so that find_flow always finds them in one of the two.
 */
__noinline int establish(struct packet *p)
{
	struct flow_key peer;
	if (!p)
		return 0;
	peer_key(&p->key, &p->to, &peer);
	const struct flow *reply = bpf_map_lookup_elem(&new_flows, &peer);
	if (!reply)
		return 0; /* evicted: the next packet begins the flow again */
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

#endif /* BLIXT_FLOW_H */
