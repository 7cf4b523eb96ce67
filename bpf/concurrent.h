/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * concurrent.h - how many established flows each policy has, and each source of one that limits it.
 *
 * A TCP flow is counted while it is in `flows`: its source is not forged then. A UDP flow is from the
 * backend's first answer on, until it is forgotten: a forged source may have got that. Flows
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

/* A key of `limited_sources` in work, and a value of zeros: the stack has no room for them. */
struct source_in_work {
	struct limited_source_key key;
	struct limited_source none;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct source_in_work);
} source_in_work SEC(".maps");

/* Returns the key of the source in `limited_sources`: as many bits of it as count for the policy. */
static __always_inline struct limited_source_key *limited_source_key(__u32 id, const struct policy *y, const struct addr *src)
{
	__u32 zero = 0;
	struct source_in_work *work = bpf_map_lookup_elem(&source_in_work, &zero);
	if (!work)
		return NULL;
	struct limited_source_key *key = &work->key;
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
	return key;
}

/* Returns the counts of a source; those of a new one, if there are none. NULL if there is no room. */
static __always_inline struct limited_source *limited_source(const struct limited_source_key *key, struct policy_state *s, bool known)
{
	struct limited_source *l = bpf_map_lookup_elem(&limited_sources, key);
	if (l)
		return l;
	long failed = bpf_map_update_elem(&limited_sources, key, &((const struct source_in_work *)key)->none, BPF_NOEXIST);
	l = bpf_map_lookup_elem(&limited_sources, key);
	if (known || (failed && !l))
		__sync_fetch_and_add(&s->evicted, 1);
	return l;
}

/* Adds to a number of flows, and returns it. It stays above 0, except for a moment: whoever reads it takes it for signed. */
static __always_inline __s32 change_concurrent(__u32 *n, __s32 change)
{
	__s32 now = (__s32)__sync_fetch_and_add(n, change) + change;
	if (now < 0)
		__sync_fetch_and_sub(n, change);
	return now;
}

/*
 * Counts a flow of the client for one policy, if that limits the number of flows: 1, or -1
 * when it has gone. Returns false if it is one too many, and `limited` says that this
 * matters: then it is counted as refused.
 */
__noinline bool count_concurrent_of(const struct addr *client, __u32 id, __s32 change, __u32 limited)
{
	const struct policy *y = bpf_map_lookup_elem(&policies, &id);
	struct policy_state *s = bpf_map_lookup_elem(&policy_states, &id);
	struct policy_counters *c = bpf_map_lookup_elem(&policy_stats, &id);
	if (!client || !y || !s || !c)
		return true;
	bool enforced = limited && !(y->sources >> 32 & POLICY_DRY_RUN);
	__u32 total = y->total_concurrent, each = y->source_concurrent;
	if (total && change_concurrent(&s->concurrent, change) > (__s32)total && enforced) {
		change_concurrent(&s->concurrent, -change);
		c->refused[REFUSED_TOTAL_CONCURRENT] += 1;
		return false;
	}
	const struct limited_source_key *key = each ? limited_source_key(id, y, client) : NULL;
	if (!key)
		return true;
	struct limited_source *l = change > 0 ? limited_source(key, s, y->source_interval) : bpf_map_lookup_elem(&limited_sources, key);
	if (l && change_concurrent(&l->concurrent, change) > (__s32)each && enforced) {
		change_concurrent(&l->concurrent, -change);
		if (total)
			change_concurrent(&s->concurrent, -change);
		c->refused[REFUSED_SOURCE_CONCURRENT] += 1;
		return false;
	}
	return true;
}

/* Counts a flow of the client to the frontend that has gone, for its policies. */
static __always_inline void end_one(const struct addr *client, __u32 frontend)
{
	__u64 ids = policies_of(frontend);
	for (__u32 i = 0; i < FRONTEND_POLICIES; i++) {
		__u32 id = policy_id(ids, i);
		if (!id)
			break;
		count_concurrent_of(client, id, -1, false);
	}
}

/* Notes that such a flow has gone. It is counted last: whoever ends flows has no room for that on the stack. */
__noinline int note_end(struct packet *p, const struct addr *client, __u32 frontend)
{
	if (!p || !client || frontend == NO_FRONTEND || p->ends >= MAX_ENDS)
		return 0;
	__u32 i = p->ends & (MAX_ENDS - 1);
	__builtin_memcpy(&p->end[i].client, __builtin_assume_aligned(client, 4), sizeof(*client)); /* a key has it, or an entry */
	p->end[i].frontend = frontend;
	p->ends += 1;
	return 1;
}

/* Counts the flows that the packet has ended. */
__noinline int end_concurrent(const struct packet *p)
{
	if (!p)
		return 0;
	for (__u32 i = 0; i < MAX_ENDS && i < p->ends; i++)
		end_one(&p->end[i].client, p->end[i].frontend);
	return 0;
}

/*
 * Counts a flow of the client to the frontend that is established now. Returns false if
 * that is one too many for a policy, which counts the refusal: flows that begin at the
 * same time all see a number in which none of them is. An adopted flow is never one too many.
 */
__noinline bool begin_concurrent(struct packet *p, const struct addr *client, __u32 frontend, __u32 flags)
{
	if (!p)
		return true;
	__u64 ids = policies_of(frontend);
	for (__u32 i = 0; i < FRONTEND_POLICIES; i++) {
		__u32 id = policy_id(ids, i);
		if (!id)
			break;
		if (count_concurrent_of(client, id, 1, !(flags & FLOW_ADOPTED)))
			continue;
		for (__u32 n = 0; n < i; n++)
			count_concurrent_of(client, policy_id(ids, n), -1, false);
		p->refused = true;
		return false;
	}
	return true;
}

#endif /* BLIXT_CONCURRENT_H */
