/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ipsec.h - clients that the host's IPsec policies cover. What a client gets has
 * a frontend's address only behind the stack, which applies the policies. It would
 * leave in clear text where they want it encrypted or blocked, so such a client
 * gets nothing. Which way leads to a backend that policies cover: see way.h.
 */
#ifndef BLIXT_IPSEC_H
#define BLIXT_IPSEC_H

#include "count.h"
#include "packet.h"

/* Reports whether IPsec policies cover packets to this client. */
__noinline bool is_protected(const struct addr *client)
{
	struct client_prefix key = { .bits = 8 * sizeof(*client) };
	if (!client)
		return true;
	key.addr = *client;
	const __u32 *protected = bpf_map_lookup_elem(&protected_clients, &key);
	return protected && *protected;
}

/* Reports whether they cover packets to the sender of this one. A socket of this host gets them by lo. */
static __always_inline bool has_protected_sender(const struct packet *p)
{
	return !p->host && is_protected(&p->key.src);
}

/* Reports whether they cover packets to the client of this packet's flow f. Connections of the host itself have no client. */
static __always_inline bool has_protected_client(const struct packet *p, const struct flow *f)
{
	return f->frontend != NO_FRONTEND && !(f->flags & FLOW_HOST) && is_protected(f->flags & FLOW_REPLY ? &f->dst : &p->key.src);
}

#endif /* BLIXT_IPSEC_H */
