/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * close.h - how the connection of a TCP flow ends: by a RST or by the FINs of
 * both sides, and what counts as one.
 */
#ifndef BLIXT_CLOSE_H
#define BLIXT_CLOSE_H

#include "flow.h"

/* From now on the flow lives no longer without packets than one whose connection ends. */
static __always_inline void shorten(struct flow *own, struct flow *peer)
{
	if (own->idle_ticks > TRANSITORY_TICKS)
		own->idle_ticks = peer->idle_ticks = TRANSITORY_TICKS;
}

/*
 * Closes the flow of p->key, whose entries are `own` and `peer`, the latter
 * with the key k. Both stay in `new_flows`, or move there: they may be evicted
 * from now on. Uses p->reply.
 */
static __always_inline void close_flow(struct packet *p, struct flow *own, struct flow *peer, const struct flow_key *k)
{
	count(COUNTER_FLOW_CLOSED);
	p->ended = p->tcp_flags & TCP_RST ? RECORD_RESET : RECORD_FIN;
	shorten(own, peer);
	__sync_fetch_and_or(&own->flags, FLOW_CLOSED);
	__sync_fetch_and_or(&peer->flags, FLOW_CLOSED);
	if (!(own->flags & FLOW_ESTABLISHED))
		return;
	__u32 own_flags = own->flags, peer_flags = peer->flags; /* before somebody reuses the elements */
	p->reply = *peer;
	p->reply.flags &= ~(FLOW_ESTABLISHED | FLOW_BUSY | FLOW_CACHED);
	insert_evictable(k, &p->reply, BPF_ANY);
	p->reply = *own;
	p->reply.flags &= ~(FLOW_ESTABLISHED | FLOW_BUSY | FLOW_CACHED);
	insert_evictable(&p->key, &p->reply, BPF_ANY);
	bool reply = p->to.flags & FLOW_REPLY;
	forget_established(p, reply ? k : &p->key, reply ? &p->key : k, p->to.frontend);
	uncache_entry(k, peer_flags);
	uncache_entry(&p->key, own_flags);
}

/*
 * Reports whether the RST is one that its receiver obeys: RFC 5961, 3 wants the
 * very sequence number that the receiver expects. That is the next one of the
 * sender, or, if what the sender has sent was lost, the last one that the
 * receiver has acknowledged. A backend that refuses a SYN has no sequence
 * number yet, and acknowledges the SYN (RFC 9293, 3.10.7.3).
 */
static __always_inline bool obeyed(const struct packet *p, const struct flow *own, const struct flow *peer)
{
	if (p->tcp_flags & TCP_SYN)
		return false;
	bool answered = own->flags & (FLOW_ESTABLISHED | FLOW_ANSWERED) || !(own->flags & FLOW_REPLY) || peer->flags & FLOW_ANSWERED;
	if (answered)
		return p->seq == own->next || p->seq == peer->ack;
	return p->tcp_flags & TCP_ACK ? p->ack == peer->next || p->ack == own->ack : peer->ack && p->seq == peer->ack;
}

/*
 * Follows a connection that begins in place of one that its backend has lost
 * without a word, on the same ports: the backend answers a SYN of the client
 * with a SYN-ACK, where one that still has the connection would send a challenge
 * ACK. From then on the new connection's numbers count.
 */
static __always_inline void begin_anew(const struct packet *p, struct flow *own, struct flow *peer, const struct flow_key *k)
{
	if (is_syn(p) && !(own->flags & FLOW_REPLY)) {
		own->syn = segment_end(p);
		return;
	}
	if (!(own->flags & FLOW_REPLY) || !(p->tcp_flags & TCP_ACK) || !peer->syn || p->ack != peer->syn)
		return;
	own->next = peer->ack = segment_end(p);
	own->ack = peer->next = p->ack;
	__sync_fetch_and_and(&own->flags, ~(FLOW_FIN | FLOW_PEER_FIN));
	__sync_fetch_and_and(&peer->flags, ~(FLOW_FIN | FLOW_PEER_FIN));
	uncache_entry(&p->key, own->flags); /* slots have the previous numbers */
	uncache_entry(k, peer->flags);
}

/* Returns which side has sent the packet: enum record_by. */
static __always_inline __u8 sender_of(const struct packet *p)
{
	return p->to.flags & FLOW_REPLY ? RECORD_BY_BACKEND : RECORD_BY_CLIENT;
}

/* Reports whether record_end must see this packet of the flow p->to. */
static __always_inline bool may_end(const struct packet *p)
{
	if (p->to.flags & FLOW_CLOSED)
		return false;
	if (p->tcp_flags & TCP_SYN) /* it may begin another connection in place of an established one, no more */
		return p->to.flags & FLOW_ESTABLISHED;
	return p->tcp_flags & (TCP_FIN | TCP_RST) || p->to.flags & FLOW_PEER_FIN;
}

/*
 * Records what the segment says about the end of its connection: a RST, a FIN,
 * or the acknowledgement of the other side's FIN, with which that FIN counts; and
 * a SYN, as far as another connection begins. Uses p->reply.
 */
__noinline int record_end(struct packet *p)
{
	struct flow_key k;
	if (!p)
		return 0;
	peer_key(&p->key, &p->to, &k);
	bool established = p->to.flags & FLOW_ESTABLISHED;
	struct flow *own = find_tcp_flow(&p->key, established), *peer = find_tcp_flow(&k, established);
	if (!own || !peer)
		return 0;
	settle(&k, peer);
	if (p->tcp_flags & TCP_RST) {
		if (!obeyed(p, own, peer))
			return 0;
		bool refused = p->to.flags & FLOW_REPLY && !established && !(peer->flags & FLOW_ANSWERED);
		if (refused && !(peer->flags & FLOW_UNDONE)) {
			count_refused(peer->ref, true);
			judge_failure(peer, &p->to.dst, peer->dport, false);
		}
		__sync_fetch_and_or(&own->flags, FLOW_RST);
		close_flow(p, own, peer, &k);
		if (refused)
			p->ended = RECORD_REFUSED;
		p->ended_by = sender_of(p);
		return 1;
	}
	if (p->tcp_flags & TCP_SYN) {
		if (own->flags & FLOW_ESTABLISHED)
			begin_anew(p, own, peer, &k);
		return 0;
	}
	if (!in_sequence(p, own))
		return 0;
	if (p->tcp_flags & TCP_FIN && !(own->flags & FLOW_FIN)) {
		if (!(own->flags & FLOW_PEER_FIN) && !(peer->flags & (FLOW_PEER_FIN | FLOW_FIN)))
			p->ended_by = sender_of(p); /* it is the first one */
		peer->fin = segment_end(p);
		__sync_fetch_and_or(&peer->flags, FLOW_PEER_FIN);
		uncache_entry(&k, peer->flags); /* each packet of that side may acknowledge the FIN */
	}
	if (!(own->flags & FLOW_PEER_FIN) || p->ack != own->fin)
		return 0;
	__sync_fetch_and_or(&peer->flags, FLOW_FIN);
	__sync_fetch_and_and(&own->flags, ~FLOW_PEER_FIN);
	shorten(own, peer);
	if (own->flags & FLOW_FIN)
		close_flow(p, own, peer, &k);
	return 1;
}

#endif /* BLIXT_CLOSE_H */
