/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * probe.h - whether messages get to another node, and back. The agent sends a
 * packet to an endpoint there, from a socket like any other. It leaves as the first
 * packet of a flow would, from this node's address, with a message that asks for an
 * answer. The program at the other node answers in place of the endpoint, which
 * never sees it.
 */
#ifndef BLIXT_PROBE_H
#define BLIXT_PROBE_H

#include "announce.h"

/* Returns the agent's entry of the packets to or from an endpoint, at a port of ours. */
static __always_inline struct probe *find_probe(const struct packet *p, const struct addr *endpoint, __be16 sport, __be16 dport)
{
	struct flow_key k = { .dst = *endpoint, .sport = sport, .dport = dport, .protocol = p->key.protocol };
	return bpf_map_lookup_elem(&probes, &k);
}

/*
 * Turns a packet of the agent's, which leaves from a port of ours, into a probe.
 * Returns a verdict, or NO_FLOW if the packet is none of the agent's.
 */
__noinline int send_probe(struct __sk_buff *ctx, struct packet *p)
{
	struct addr any = {};
	if (!p)
		return NO_FLOW;
	const struct probe *probe = find_probe(p, &p->key.dst, p->key.sport, p->key.dport);
	bool tcp = p->key.protocol == IPPROTO_TCP;
	if (!probe || !same_addr(&probe->src, &p->key.src))
		return NO_FLOW;
	bool alone = probe->form == PROBE_ALONE;
	if (p->fragment != WHOLE || ctx->gso_size || p->surplus || (tcp && (!is_syn(p) || p->payload)))
		return drop(COUNTER_DROP_UNSUPPORTED);
	__builtin_memset(&p->to, 0, sizeof(p->to));
	p->to.dst = p->key.dst;
	p->to.sport = p->key.sport;
	p->to.dport = p->key.dport;
	if (find_route(ctx, p, &any, &p->to.dst, true) != ROUTED || is_zero(&p->route.src))
		return drop(COUNTER_DROP_NO_ROUTE);
	p->to.src = p->route.src;
	clear_message(p);
	set_carrier(p, &p->to.src, &p->to.dst, p->to.sport, p->to.dport);
	if (!complete_message(p, ANNOUNCEMENT_PROBE | (alone ? ANNOUNCEMENT_ALONE : 0), bpf_htonl(announcement_time())))
		return drop(COUNTER_DROP_ERROR);
	p->rst.seq = p->seq;
	p->rst.ack = 1;
	p->rst.flags = TCP_ACK;
	if (alone ? !write_alone(ctx, p) : !append_message(ctx, p) || !rewrite(ctx, p, &p->to, p->hop_limit))
		return drop(COUNTER_DROP_ERROR);
	return redirect(ctx, p);
}

/* Answers the probe p->told. Returns the verdict. */
static __always_inline int answer_probe(struct __sk_buff *ctx, struct packet *p)
{
	__be32 time = p->told.message.time;
	bool within = p->tcp_flags & TCP_SYN;

	if (draining())
		return pass(COUNTER_DRAINED);
	if (!may_answer(SHARE_QUESTIONS))
		return drop(COUNTER_DROP_ANSWER_LIMIT);
	clear_message(p);
	/* A reset, which firewalls that follow connections take for the end of this one. */
	p->rst.seq = within ? 0 : p->ack;
	p->rst.ack = p->seq + p->payload + within;
	p->rst.flags = TCP_RST | TCP_ACK;
	count(COUNTER_PROBE_ANSWERED);
	return send_message_back(ctx, p, ANNOUNCEMENT_PROBE | ANNOUNCEMENT_ANSWER, time);
}

/*
 * Records the answer p->told, which has come in. Returns the verdict.
 *
 * The answer has the time of the probe, so nobody has recorded it long ago. If a
 * peer sends it itself, its boot number is the one of now, whatever was known.
 */
static __always_inline int record_probe_answer(struct packet *p, struct peer *peer)
{
	const struct announcement *m = &p->told.message;
	struct probe *probe = find_probe(p, &p->key.src, p->key.dport, p->key.sport);

	if (!probe)
		return TCX_NEXT; /* perhaps it is for the program behind this one */
	if (announcement_time() - bpf_ntohl(m->time) >= REPLAY_WINDOW)
		return TC_ACT_SHOT;
	probe->answered = 1;
	if (peer && peer->boot != bpf_ntohs(m->boot)) {
		peer->boot = bpf_ntohs(m->boot);
		peer->heard = 0;
	}
	return TC_ACT_SHOT;
}

#endif /* BLIXT_PROBE_H */
