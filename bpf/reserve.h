/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * reserve.h - which ports are ours, and which of those the host itself uses.
 *
 * Reservations have tables of their own, where no flood of flows evicts them.
 * Pods can begin any number of connections from ports of their choice, which
 * the host masquerades. So the ports of what the host forwards are in another
 * table than those of what its own sockets send.
 */
#ifndef BLIXT_RESERVE_H
#define BLIXT_RESERVE_H

#include "flow.h"

/* Reports whether the port is one of those that we translate sources to. */
static __always_inline bool in_snat_range(__be16 port)
{
	const struct config *c = config();
	__u32 n = bpf_ntohs(port);
	if (n < PRIVILEGED_END)
		n = n < PRIVILEGED_MIN ? 0 : PRIVILEGED_END + (n - PRIVILEGED_MIN) * PRIVILEGED_SPREAD;
	return c && n && n >= c->snat_min && n <= c->snat_max;
}

/* Returns the reservation of the tuple that answers to the host have, or NULL. */
static __always_inline struct host_port *find_reservation(const struct flow_key *answer, bool socket)
{
	return socket ? bpf_map_lookup_elem(&host_ports, answer) : bpf_map_lookup_elem(&masqueraded_ports, answer);
}

/* Reports whether the reservation still keeps flows off the port. */
static __always_inline bool keeps(const struct host_port *r)
{
	__u32 limit = r->state == HOST_OPEN ? HOST_TCP_TICKS : HOST_TICKS;
	return (__s32)(now() - r->last_seen) <= (__s32)limit;
}

/* Reports whether the host uses the tuple. */
__noinline bool reserved(const struct flow_key *answer)
{
	if (!answer)
		return true;
	const struct host_port *r = find_reservation(answer, true);
	if (r && keeps(r))
		return true;
	r = find_reservation(answer, false);
	return r && keeps(r);
}

/*
 * Prolongs the reservation that an answer to the host meets. A RST or a FIN of
 * the other side changes nothing: anybody may have forged it.
 */
static __always_inline void refresh_reservations(const struct packet *p)
{
	for (int socket = 0; socket < 2; socket++) {
		struct host_port *r = find_reservation(&p->key, socket);
		if (!r)
			continue;
		r->last_seen = now();
		if (r->state == HOST_BEGUN && p->key.protocol == IPPROTO_TCP && !(p->tcp_flags & (TCP_FIN | TCP_RST)))
			r->state = HOST_OPEN;
	}
}

#endif /* BLIXT_RESERVE_H */
