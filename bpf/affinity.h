/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * affinity.h - the same client gets the same backend (FRONTEND_AFFINITY).
 *
 * The slot of the ring depends on the first bits of the client's address alone. So
 * all nodes agree without a word, and so do frontends whose rings lead to the same
 * addresses: they are made from addresses alone, see operator/ring.
 *
 * A frontend with a group (frontend.affinity) also remembers: a client that has had a
 * backend gets it again, also when others have come and gone. Only what gets new flows
 * is in `affinity_backends`, so a client whose backend is gone, or is no longer ready,
 * gets what the ring has for it, and is remembered with that. The time counts from the
 * client's last new flow, as with kube-proxy: packets of flows cost nothing.
 *
 * A flow is remembered once it is proven, not when it begins: until then the ring's
 * choice is stable enough. So a flood of forged SYNs evicts nobody. An answer to a
 * datagram proves less, as the datagram may be forged. So clients of which nothing else
 * is known have a table of their own, `udp_affinities`.
 */
#ifndef BLIXT_AFFINITY_H
#define BLIXT_AFFINITY_H

#include "frontend.h"
#include "latency.h"
#include "ring.h"

/* Sets all but the first bits of an address to zero. Four words, as an address in a key is aligned to no more. */
static __always_inline void keep_bits(struct addr *a, __u32 bits)
{
	__u32 *w = (__u32 *)a;

	for (__u32 i = 0; i < 4; i++) {
		__u32 first = 32 * i;
		if (bits <= first)
			w[i] = 0;
		else if (bits < first + 32)
			w[i] &= bpf_htonl(~0U << (first + 32 - bits));
	}
}

/* Returns the hash of the first bits of the client's address. */
__noinline __u32 affinity_hash(const struct flow_key *key, const struct frontend *fe)
{
	if (!key || !fe)
		return 0;
	struct addr client = key->src;
	keep_bits(&client, fe->affinity_bits);
	return hash_client(&client, 0);
}

/* Returns the hash by which a client of the frontend has its slot. */
static __always_inline __u32 ring_hash(const struct flow_key *key, const struct frontend *fe)
{
	return fe->flags & FRONTEND_AFFINITY ? affinity_hash(key, fe) : client_hash(key);
}

/* Reports whether an entry of either table is there, and not too old. */
static __always_inline bool is_remembered(const struct affinity *a, const struct frontend *fe)
{
	return a && (__s32)(now() - a->last_new) <= (__s32)fe->affinity_ticks;
}

/*
 * Returns the backend that the client had before, if it still gets new flows, or the
 * one that the ring has selected.
 */
__noinline __u32 remembered_backend(const struct flow_key *key, const struct frontend *fe, __u32 selected)
{
	struct affinity_key k;
	struct affinity_backend_key b;

	if (!key || !fe)
		return selected;
	k.group = fe->affinity;
	k.client = key->src;
	keep_bits(&k.client, fe->affinity_bits);
	const struct affinity *a = bpf_map_lookup_elem(&affinities, &k);
	if (!is_remembered(a, fe))
		a = bpf_map_lookup_elem(&udp_affinities, &k);
	if (!is_remembered(a, fe))
		return selected;
	b.frontend = fe->index;
	b.addr = a->backend;
	const struct backend *ring = bpf_map_lookup_elem(&backends, &selected);
	if (ring && selected != BACKEND_REJECT && same_addr(&ring->addr, &b.addr))
		return selected; /* perhaps one of several ports of that address */
	const __u32 *id = bpf_map_lookup_elem(&affinity_backends, &b);
	__u32 known = id ? *id : BACKEND_REJECT;
	const struct backend *had = bpf_map_lookup_elem(&backends, &known);
	/* The id may be in use again by now. */
	bool serves = had && known != BACKEND_REJECT && had->generation & 1 && had->frontend == fe->index && same_addr(&had->addr, &b.addr);
	return serves ? known : selected;
}

/* Returns the id of the backend that a new flow of this client gets, or BACKEND_REJECT. */
static __always_inline __u32 select_backend(const struct flow_key *key, const struct frontend *fe)
{
	__u32 id = slot_backend(fe->index, ring_hash(key, fe));
	return fe->affinity ? remembered_backend(key, fe, id) : id;
}

/* Counts a new flow whose backend is the one that its client had before, and not that of the client's slot. */
static __always_inline void count_kept(const struct flow_key *key, const struct frontend *fe, __u32 id)
{
	if (!fe->affinity)
		return;
	__u32 slot = slot_backend(fe->index, ring_hash(key, fe));
	if (slot != id && remembered_backend(key, fe, slot) == id)
		count(COUNTER_AFFINITY_KEPT);
}

/*
 * Remembers the backend of a flow that is proven, of which r is the reply entry, with
 * FLOW_AFFINITY. `sure` tells that the client's address is not forged.
 */
__noinline int remember_client(const struct flow *r, const struct addr *backend, __u8 protocol, bool sure)
{
	struct affinity_key k;
	struct affinity a;
	struct frontend_key f = {};

	if (!r || !backend)
		return 0;
	f.addr = r->src;
	f.port = r->sport;
	f.protocol = protocol;
	const struct frontend *fe = find_frontend(&f);
	if (!fe || !fe->affinity || fe->index != r->frontend)
		return 0; /* another one has its port by now */
	k.group = fe->affinity;
	k.client = r->dst;
	keep_bits(&k.client, fe->affinity_bits);
	a.backend = *backend;
	a.last_new = now();
	struct affinity *known = bpf_map_lookup_elem(&affinities, &k);
	if (known && same_addr(&known->backend, backend)) {
		if (known->last_new != a.last_new) /* an unchanged cache line stays shared between CPUs */
			known->last_new = a.last_new;
	} else if (known || sure) {
		bpf_map_update_elem(&affinities, &k, &a, BPF_ANY);
	} else {
		bpf_map_update_elem(&udp_affinities, &k, &a, BPF_ANY);
	}
	return 0;
}

#endif /* BLIXT_AFFINITY_H */
