/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * hostports.h - connections of the host itself from ports that our flows use.
 *
 * Masquerading (kube-proxy's, for one) chooses among all ports and does not
 * know our flows. Two connections with one tuple would receive each other's
 * answers, so the one that begins later gets another port:
 *
 * - If the host is first, avoid_port_clash reserves the port: claim_tuple then
 *   finds the reservation (reserve.h) and takes another port for the flow. The
 *   host's packets leave unchanged.
 * - If a flow is first, the host's connection becomes a flow of its own, with
 *   another source port (WAY_HOST_PORT) and without a frontend.
 *
 * Nor does it know frontends, on addresses that the host shares: answers to a
 * connection from a frontend's port would be taken for the frontend's clients.
 * Those to a socket find that (hostsockets.h). What is masqueraded, and begins from a
 * frontend's port, always becomes a flow of its own: pods cannot reserve what
 * clients of the frontend use, nor send them anything in the frontend's name.
 */
#ifndef BLIXT_HOSTPORTS_H
#define BLIXT_HOSTPORTS_H

#include "ports.h"

/* Reserves the tuple p->reply_key that the answers to a packet of the host have. */
static __always_inline void reserve(const struct packet *p, const struct host_port *r)
{
	if (p->host)
		bpf_map_update_elem(&host_ports, &p->reply_key, r, BPF_ANY);
	else
		bpf_map_update_elem(&masqueraded_ports, &p->reply_key, r, BPF_ANY);
}

static __always_inline void release(const struct packet *p)
{
	if (p->host)
		bpf_map_delete_elem(&host_ports, &p->reply_key);
	else
		bpf_map_delete_elem(&masqueraded_ports, &p->reply_key);
}

/* Reports whether the packet begins a connection from the port of a frontend, on an address that the host shares. */
static __always_inline bool leaves_frontend(const struct packet *p)
{
	const struct config *c = config();
	__u32 hash = PORT_HASH(p->key.sport);

	if (is_udp(&p->key) ? c && (c->flags & CONFIG_UPGRADING || c->unserved_udp[hash / 64] >> hash % 64 & 1) : !is_syn(p))
		return false;
	return is_shared_frontend(&p->key.src, p->key.sport, p->key.protocol);
}

/*
 * Reserves the port of a packet that the host sends from a port of ours, or
 * makes a flow that translates it. Returns 0 if it has inserted that flow,
 * NO_FLOW if the packet may leave unchanged, or a verdict.
 *
 * Of TCP it looks only at packets that begin or end a connection.
 */
__noinline int avoid_port_clash(struct __sk_buff *ctx, struct packet *p)
{
	if (!p)
		return TC_ACT_SHOT;
	bool tcp = p->key.protocol == IPPROTO_TCP;
	if (tcp && !(p->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST)))
		return NO_FLOW;
	bool begins = !tcp || is_syn(p);

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
	make_reply(p, WAY_HOST_PORT);

	struct host_port *mine = find_reservation(&p->reply_key, p->host);
	bool served = leaves_frontend(p);
	if (served && ((mine && keeps(mine)) || draining() || find_socket(ctx, p, true) != NO_SOCKET))
		return NO_FLOW; /* a connection older than the frontend; or the next program decides; or a socket */
	if (mine && (!tcp || !begins)) {
		mine->last_seen = to->last_seen;
		if (tcp)
			mine->state = HOST_ENDED;
		return NO_FLOW;
	}
	if (!begins)
		return NO_FLOW;
	struct flow *taken = find_flow(&p->reply_key);
	/* An entry that does not translate at ingress would not take the host's answer: this is a client's packet behind us. */
	if (taken && !served && (!(taken->flags & FLOW_REPLY) || taken->flags & FLOW_EGRESS))
		return NO_FLOW;
	if (!p->host && find_route(ctx, p, &p->key.dst, &p->key.src, false) == ROUTED)
		return NO_FLOW; /* not from an address of this host: forwarded as it is, of another node's flow perhaps */

	if (tcp)
		to->idle_ticks = reply->idle_ticks = HOST_TCP_TICKS;
	if (served)
		return insert_flow_pair(ctx, p, false);

	/* First the reservation, then the look: see claim_tuple. */
	struct host_port r = { .last_seen = to->last_seen, .state = HOST_BEGUN };
	reserve(p, &r);
	taken = find_flow(&p->reply_key);
	if (taken && holder_of(&p->reply_key, taken, reply) <= HOLDER_PAST) {
		forget(p, &p->reply_key, taken);
		taken = NULL;
	}
	if (!taken)
		return NO_FLOW;
	release(p);
	return insert_flow_pair(ctx, p, false);
}

#endif /* BLIXT_HOSTPORTS_H */
