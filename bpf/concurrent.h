/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * concurrent.h - how many established flows each policy has, and each source of one that limits it.
 *
 * A TCP flow is counted while it is in `flows`, a UDP flow from the backend's first answer
 * until it is forgotten: before that nothing proves that the source is not forged. They
 * are counted for the policies that their frontend has at that moment. So the numbers go
 * wrong when a frontend gets other policies, and when an LRU table evicts a UDP flow
 * or a source. Whoever sweeps the flows counts them and corrects the numbers.
 */
#ifndef BLIXT_CONCURRENT_H
#define BLIXT_CONCURRENT_H

#include "count.h"
#include "packet.h"

/* Returns the id of a frontend's policy, counted from 0, or 0. */
static __always_inline __u32 policy_id(__u64 ids, __u32 i)
{
	return ids >> i * POLICY_ID_BITS & ((1 << POLICY_ID_BITS) - 1);
}

/* Returns the ids of the policies of a frontend: one word, read once. */
static __always_inline __u64 policies_of(__u32 frontend)
{
	const volatile __u64 *ids = bpf_map_lookup_elem(&frontend_policies, &frontend);
	return ids ? *ids : 0;
}

/* Sets *key to that of the source: to as many bits of it as count for the policy. */
static __always_inline void limited_source_key(struct limited_source_key *key, __u32 id, const struct policy *y, const struct addr *src)
{
	const __u32 *from = (const __u32 *)src;
	__u32 *to = (__u32 *)&key->addr;
	bool v4 = !(from[0] | from[1]) && from[2] == bpf_htonl(0xffff);
	__u32 bits = v4 ? y->source_bits4 : y->source_bits6;

	key->policy = id;
	for (__u32 i = 0; i < 4; i++) {
		__u32 n = bits > 32 * i ? bits - 32 * i : 0;
		__u32 rest = n < 32 ? 0xffffffffU >> (n & 31) : 0; /* the bits that do not count */
		to[i] = from[i] & bpf_htonl(~rest);
	}
}

/* Returns the counts of a source; those of a new one, if there are none. NULL if there is no room. */
static __always_inline struct limited_source *limited_source(const struct limited_source_key *key, struct policy_state *s, bool known)
{
	struct limited_source *l = bpf_map_lookup_elem(&limited_sources, key);
	if (l)
		return l;
	struct limited_source none = {};
	long failed = bpf_map_update_elem(&limited_sources, key, &none, BPF_NOEXIST);
	l = bpf_map_lookup_elem(&limited_sources, key);
	if (known || (failed && !l))
		__sync_fetch_and_add(&s->evicted, 1);
	return l;
}

/* Adds to a number of flows. It stays above 0, except for a moment: whoever reads it takes it for signed. */
static __always_inline void change_concurrent(__u32 *n, __s32 change)
{
	if ((__s32)__sync_fetch_and_add(n, change) + change < 0)
		__sync_fetch_and_sub(n, change);
}

/* Counts a flow of the client for one policy, if that limits the number of flows. */
static __noinline int count_concurrent_of(const struct addr *client, __u32 id, __s32 change)
{
	struct limited_source_key key;
	const struct policy *y = bpf_map_lookup_elem(&policies, &id);
	struct policy_state *s = bpf_map_lookup_elem(&policy_states, &id);
	if (!client || !y || !s)
		return 0;
	if (y->total_concurrent)
		change_concurrent(&s->concurrent, change);
	if (!y->source_concurrent)
		return 0;
	limited_source_key(&key, id, y, client);
	struct limited_source *l = change > 0 ? limited_source(&key, s, y->source_interval) : bpf_map_lookup_elem(&limited_sources, &key);
	if (l)
		change_concurrent(&l->concurrent, change);
	return 0;
}

/* Counts an established flow of the client to the frontend: 1, or -1 when it has gone. */
static __always_inline void count_concurrent(const struct addr *client, __u32 frontend, __s32 change)
{
	__u64 ids = policies_of(frontend);
	for (__u32 i = 0; i < FRONTEND_POLICIES; i++) {
		__u32 id = policy_id(ids, i);
		if (!id)
			break;
		count_concurrent_of(client, id, change);
	}
}

#endif /* BLIXT_CONCURRENT_H */
