/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ring.h - from a client and a frontend to a backend: the frontend's ring, and the client's slot in it. */
#ifndef BLIXT_RING_H
#define BLIXT_RING_H

#include "maps.h"

/*
 * The hash that selects a slot, and the first source port to try. It depends on
 * the client's address and port and on the cluster's seed alone: rings of
 * different frontends are permuted differently. Whoever does not know the seed
 * cannot choose a port for a slot. The seed goes into every step, so that no two
 * inputs collide for all seeds. Every node must compute the same hash, so a
 * change needs a new BLIXT_LAYOUT. The mixing steps are those of MurmurHash3.
 */
static __always_inline __u32 hash_client(const struct addr *client, __be16 port)
{
	const struct config *c = config();
	const __u64 *src = (const __u64 *)client;
	__u64 seed = c ? c->seed : 0, h = (src[0] ^ seed) * 0xff51afd7ed558ccdULL;
	h ^= h >> 33;
	h = ((h + seed) ^ src[1]) * 0xc4ceb9fe1a85ec53ULL;
	h ^= h >> 33;
	h = ((h + seed) ^ port) * 0xff51afd7ed558ccdULL;
	h ^= h >> 33;
	h = (h + seed) * 0xc4ceb9fe1a85ec53ULL;
	return h >> 32;
}

static __always_inline __u32 client_hash(const struct flow_key *key)
{
	return hash_client(&key->src, key->sport);
}

/* Returns the id of the backend in the slot of the frontend's ring that clients with this hash have, or BACKEND_REJECT. */
static __always_inline __u32 slot_backend(__u32 frontend, __u32 hash)
{
	const volatile __u64 *word = bpf_map_lookup_elem(&published, &frontend);
	if (!word)
		return BACKEND_REJECT;
	__u64 ring = *word; /* read once: a second load may see another ring */
	__u64 offset = ring & ((1 << RING_OFFSET_BITS) - 1);
	__u64 size = ring >> RING_OFFSET_BITS & ((1 << RING_SIZE_BITS) - 1);
	__u32 slot = offset + (hash * size >> 32);
	__u32 element = slot / 2;
	const __u64 *two = size ? bpf_map_lookup_elem(&rings, &element) : NULL;
	return two ? *two >> (slot & 1) * 32 : BACKEND_REJECT;
}

#endif /* BLIXT_RING_H */
