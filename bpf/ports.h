/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ports.h - the tuple of a new flow: which reply tuple it may take, and which
 * source port it gets where its own is taken or its source is translated.
 */
#ifndef BLIXT_PORTS_H
#define BLIXT_PORTS_H

#include "flow.h"

/*
 * Reports whether `reply`, of a new flow, may replace f, which has the same
 * key. It may if nobody needs f any more: the same client begins again, f has
 * expired, or its backend is gone. Where ports are scarce, it may also if f has
 * closed or was never established, so that forged flows do not keep ports
 * until they expire.
 */
__noinline bool replaceable(const struct flow_key *key, const struct flow *f, const struct flow *reply, bool scarce)
{
	if (!key || !f || !reply)
		return false;
	bool same = same_addr(&f->dst, &reply->dst) && f->dport == reply->dport && same_addr(&f->src, &reply->src) &&
		    f->sport == reply->sport;
	if (same || backend_gone(f) || expired(key, f))
		return true;
	if (is_port_reservation(key, f))
		return scarce && f->flags & (FLOW_FIN | FLOW_RST);
	if (!scarce)
		return false;
	return is_udp(key) ? !(f->flags & FLOW_ANSWERED) : f->flags & FLOW_CLOSED || !bpf_map_lookup_elem(&flows, key);
}

/*
 * Inserts the reply entry of a new flow under `key`. Returns false if a live
 * flow has that key. TCP: it inserts into `new_flows` before it looks into `flows`:
 * a flow that another CPU establishes meanwhile is in `flows` before it leaves
 * `new_flows`, so it cannot be missed.
 */
__noinline bool claim_tuple(const struct flow_key *key, struct flow *reply, bool scarce)
{
	if (!key || !reply)
		return false;
	struct flow *taken = find_flow(key);
	if (taken) {
		if (!replaceable(key, taken, reply, scarce))
			return false;
		forget(key, taken);
	}
	reply->tag = flow_tag(key);
	if (insert_evictable(key, reply, BPF_NOEXIST))
		return false;
	if (is_udp(key) || !bpf_map_lookup_elem(&flows, key))
		return true;
	delete_evictable(key);
	return false;
}

/* Reports whether the port is one of those that we translate sources to. */
static __always_inline bool in_snat_range(__be16 port)
{
	const struct config *c = config();
	return c && bpf_ntohs(port) >= c->snat_min && bpf_ntohs(port) <= c->snat_max;
}

/*
 * Claims a reply tuple with a source port of ours, and sets that port in both
 * entries. It tries ports from the one that the client's hash points to, so
 * that clients rarely try the same. Returns false if no port is free.
 */
static __always_inline bool claim_port(struct packet *p, struct flow_key *reply_key)
{
	const struct config *c = config();
	__u32 ports = c && c->snat_max >= c->snat_min ? c->snat_max - c->snat_min + 1 : 0;
	if (!ports)
		return false;
	__u32 start = client_hash(&p->key) % ports;
	for (int i = 0; i < 2 * PORT_TRIES; i++) {
		/* Without a branch, which the verifier would follow both ways in each round. */
		p->to.sport = reply_key->dport = bpf_htons(c->snat_min + (start + i) % ports);
		if (claim_tuple(reply_key, &p->reply, i >= PORT_TRIES))
			return true;
	}
	return false;
}

/* Sets the way of a new flow, and makes p->reply and its key from p->to. */
static __always_inline void make_reply(struct packet *p, enum way way, struct flow_key *key)
{
	struct flow *to = &p->to, *reply = &p->reply;

	to->flags = forward_flags(way);
	*reply = *to;
	reply->src = p->key.dst;
	reply->sport = p->key.dport;
	reply->dst = p->key.src;
	reply->dport = p->key.sport;
	reply->flags = reply_flags(way);
	reply->next = 0;
	reply->ack = to->next; /* what the first answer acknowledges */
	peer_key(&p->key, to, key);
}

/*
 * Inserts both entries of a new flow, p->to and p->reply. The flow gets a
 * source port of ours, unless `keep_port` and its own port is free. Returns 0,
 * or a verdict with no entry inserted.
 */
static __always_inline int insert_flow_pair(struct packet *p, struct flow_key *reply_key, bool keep_port)
{
	if (!(keep_port && claim_tuple(reply_key, &p->reply, false))) {
		if (!claim_port(p, reply_key))
			return drop(COUNTER_DROP_PORTS_EXHAUSTED);
		if (keep_port)
			count(COUNTER_FLOW_PORT_CHANGED);
	}
	p->to.tag = flow_tag(&p->key);
	if (!insert_evictable(&p->key, &p->to, BPF_ANY))
		return 0;
	delete_evictable(reply_key);
	return drop(COUNTER_DROP_NEW_FLOW);
}

#endif /* BLIXT_PORTS_H */
