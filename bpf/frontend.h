/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * frontend.h - which frontend serves a port: the one that has the port itself or,
 * without one, the first range of the address that has it. Ranges cost packets to
 * addresses without any (no ADDRESS_RANGES) nothing.
 *
 * Flows keep the port that they began with, whatever becomes of the range.
 */
#ifndef BLIXT_FRONTEND_H
#define BLIXT_FRONTEND_H

#include "packet.h"

/* Returns the port of the frontend whose range has that of the key, in network byte order; 0: none has. Clears that of the key. */
static __always_inline int find_range_here(struct frontend_key *key)
{
	__u32 port = bpf_ntohs(key->port);

	key->port = 0;
	const struct port_ranges *ranges = bpf_map_lookup_elem(&port_ranges, key);
	if (!ranges)
		return 0;
	for (int i = 0; i < MAX_PORT_RANGES; i++) {
		const struct port_range *r = &ranges->of[i];
		if (!r->last)
			break;
		if (port >= r->first && port <= r->last)
			return r->port;
	}
	return 0;
}

__noinline int find_range(struct frontend_key *key)
{
	return key ? find_range_here(key) : 0;
}

/* Returns the frontend that serves the port *key of the address a, and sets the key to the frontend's own. */
static __always_inline const struct frontend *find_frontend_at(const struct address *a, struct frontend_key *key)
{
	const struct frontend *fe = bpf_map_lookup_elem(&frontends, key);
	if (fe || !a || !(a->flags & ADDRESS_RANGES))
		return fe;
	key->port = find_range(key);
	return key->port ? bpf_map_lookup_elem(&frontends, key) : NULL;
}

/* The same, of any address. */
static __always_inline const struct frontend *find_frontend(struct frontend_key *key)
{
	const struct frontend *fe = bpf_map_lookup_elem(&frontends, key);
	return fe ? fe : find_frontend_at(bpf_map_lookup_elem(&addresses, &key->addr), key);
}

/* The same without a call, where the stack has no room for one. */
static __always_inline const struct frontend *find_frontend_here(struct frontend_key *key)
{
	const struct frontend *fe = bpf_map_lookup_elem(&frontends, key);
	if (fe)
		return fe;
	key->port = find_range_here(key);
	return key->port ? bpf_map_lookup_elem(&frontends, key) : NULL;
}

/*
 * Returns the port at which a backend gets a new flow to this port of the frontend, in
 * network byte order; 0: it has no such port.
 */
static __always_inline __be16 port_at_backend(const struct frontend *fe, __be16 port, __be16 backend_port)
{
	if (fe->flags & FRONTEND_KEEP_PORT)
		return port;
	if (!(fe->flags & FRONTEND_SHIFT_PORT))
		return backend_port;
	__s32 shifted = (__s32)bpf_ntohs(backend_port) + bpf_ntohs(port) - fe->first_port;
	return shifted > 0 && shifted < 1 << 16 ? bpf_htons(shifted) : 0;
}

#endif /* BLIXT_FRONTEND_H */
