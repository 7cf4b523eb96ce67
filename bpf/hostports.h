/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * hostports.h - connections of the host itself from ports that our flows use.
 *
 * Masquerading (kube-proxy's, for one) chooses among all ports and does not
 * know our flows. Two connections with one tuple would receive each other's
 * answers, so the one that begins later gets another port:
 *
 * - If the host is first, avoid_port_clash reserves the port: claim_tuple then
 *   finds the reservation and takes another port for the flow. The host's
 *   packets leave unchanged.
 * - If a flow is first, the host's connection becomes a flow of its own, with
 *   another source port (WAY_HOST_PORT) and without a frontend.
 */
#ifndef BLIXT_HOSTPORTS_H
#define BLIXT_HOSTPORTS_H

#include "ports.h"

/* Prolongs a reservation that an answer to the host has met. The answer is not ours. */
static __always_inline int refresh_reservation(const struct packet *p, struct flow *reservation, __u32 tick)
{
	reservation->last_seen = tick;
	if (p->tcp_flags & (TCP_FIN | TCP_RST))
		__sync_fetch_and_or(&reservation->flags, FLOW_FIN);
	if (p->key.protocol == IPPROTO_TCP)
		reservation->idle_ticks = reservation->flags & FLOW_FIN ? HOST_TICKS : HOST_TCP_TICKS;
	return pass(COUNTER_NOT_OURS);
}

/*
 * Reserves the port of a packet that the host sends from a port of ours, or
 * makes a flow that translates it. Returns 0 if it has inserted that flow,
 * NO_FLOW if the packet may leave unchanged, or a verdict.
 *
 * Of TCP it looks only at packets that begin or end a connection.
 */
__noinline int avoid_port_clash(struct packet *p)
{
	struct flow_key answer;

	if (!p)
		return TC_ACT_SHOT;
	bool tcp = p->key.protocol == IPPROTO_TCP;
	if (tcp && !(p->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST)))
		return NO_FLOW;

	struct flow *to = &p->to, *reply = &p->reply;
	__builtin_memset(to, 0, sizeof(*to));
	to->src = p->key.src;
	to->sport = p->key.sport;
	to->dst = p->key.dst;
	to->dport = p->key.dport;
	to->frontend = NO_FRONTEND;
	to->last_seen = now();
	to->idle_ticks = HOST_TICKS;
	to->next = segment_end(p);
	make_reply(p, WAY_HOST_PORT, &answer);

	bool begins = !tcp || (p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_FIN | TCP_RST)) == TCP_SYN;
	struct flow *taken = find_flow(&answer);
	if (taken && is_port_reservation(&answer, taken) && !(tcp && begins)) {
		taken->last_seen = to->last_seen;
		if (tcp) { /* it ends */
			__sync_fetch_and_or(&taken->flags, FLOW_FIN);
			taken->idle_ticks = HOST_TICKS;
		}
		return NO_FLOW;
	}
	if (!begins)
		return NO_FLOW;
	/* An entry that does not translate at ingress would not take the host's answer: this is a client's packet behind us. */
	if (taken && (!(taken->flags & FLOW_REPLY) || taken->flags & FLOW_EGRESS))
		return NO_FLOW;
	struct frontend_key own = { .addr = p->key.src, .port = p->key.sport, .protocol = p->key.protocol };
	if (bpf_map_lookup_elem(&frontends, &own))
		return NO_FLOW; /* an answer that another program translated: it serves this frontend, too, and comes before us */
	if (claim_tuple(&answer, reply, false))
		return NO_FLOW;
	if (tcp)
		to->idle_ticks = reply->idle_ticks = HOST_TCP_TICKS;
	return insert_flow_pair(p, &answer, false);
}

#endif /* BLIXT_HOSTPORTS_H */
