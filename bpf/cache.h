/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * cache.h - flows that are in use, one slot for each direction. A slot holds all
 * that a packet needs: its tuple before and after the translation, where it
 * leaves, its numbers. So a packet costs the two neighbouring cache lines of a
 * slot, where its entry and the FIB would cost many more.
 *
 * A slot is filled by the first packet of its direction in a tick, behind all that
 * serve() checks, and is valid for that tick. So whatever serve() does once a tick
 * is done as often as without the cache. What ends a flow, or changes what its
 * packets get, empties the slot: whoever deletes or replaces an entry does so
 * first, and calls uncache() then. Whoever fills a slot looks the entry up again
 * afterwards. So one of the two always sees the other. The generation of the
 * backend is compared for each packet.
 *
 * All CPUs share the slots. A writer makes the version odd first, by an atomic
 * operation, and even again at the end. A reader copies what it needs, and uses
 * it only if it finds the same even version before and after.
 *
 * Slots follow the numbers of TCP connections, see refresh() in flow.h. Entries
 * get them with the next packet that is served from the table: the first one of
 * a tick, each one that may change the flow's state, and each one that passes a
 * multiple of NUMBERS_BEHIND. So what a lost slot knew is lost without harm.
 */
#ifndef BLIXT_CACHE_H
#define BLIXT_CACHE_H

#include "interest.h"

/*
 * Returns the index of the set of a tuple, by the halves of its addresses and by
 * its ports and protocol. Whoever does not know the seed cannot choose tuples of one
 * set. The mixing steps are those of MurmurHash3.
 */
static __always_inline __u32 cache_index(__u64 src0, __u64 src1, __u64 dst0, __u64 dst1, __u32 ports, __u8 protocol)
{
	const struct config *c = config();
	__u64 seed = c ? c->seed : 0;
	__u64 h = (((__u64)protocol << 32 | ports) ^ seed) * 0xff51afd7ed558ccdULL;
	h ^= h >> 32;
	h = (h + src1 + src0 * 0x9e3779b97f4a7c15ULL) * 0xc4ceb9fe1a85ec53ULL;
	h ^= h >> 32;
	h = (h + dst1 + dst0 * 0x9e3779b97f4a7c15ULL + seed) * 0xff51afd7ed558ccdULL;
	return h >> 47;
}

_Static_assert(CACHE_SETS == 1 << (64 - 47), "the index has as many values as there are sets");

/* Returns what a slot of this moment is stamped with. Two moments with one stamp are 2^32 ticks or some 600 million epochs apart. */
static __always_inline __u32 cache_stamp(const struct config *c)
{
	return (__u32)(bpf_ktime_get_coarse_ns() >> TICK_SHIFT) + c->cache_epoch * 0x9e3779b1;
}

/* Returns the index of the set of a key. */
static __always_inline __u32 set_of(const struct flow_key *key)
{
	const __u64 *src = (const __u64 *)&key->src, *dst = (const __u64 *)&key->dst;
	return cache_index(src[0], src[1], dst[0], dst[1], *(const __u32 *)&key->sport, key->protocol);
}

/* Returns what a slot's hook is. */
static __always_inline __u8 hook_of(__u8 version, bool egress)
{
	return version | egress << 7;
}

/* Reports whether the slot is one of this key, or was before it was emptied. It may change at any time. */
static __always_inline bool slot_had(const struct cached_flow *s, const struct flow_key *key)
{
	const __u64 *a = (const __u64 *)&s->src, *b = (const __u64 *)&key->src;
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3] && *(const __u32 *)&s->sport == *(const __u32 *)&key->sport;
}

/* Reports whether the slot is one of this key. */
static __always_inline bool slot_has(const struct cached_flow *s, const struct flow_key *key)
{
	return slot_had(s, key) && s->protocol == key->protocol;
}

/* Returns the slot of a key in the set with this index, or NULL. A key has at most one. */
static __always_inline struct cached_flow *slot_in(__u32 index, const struct flow_key *key)
{
	struct cache_set *set = bpf_map_lookup_elem(&flow_cache, &index);
	if (!set)
		return NULL;
	if (slot_has(&set->ways[0], key))
		return &set->ways[0];
	return slot_has(&set->ways[1], key) ? &set->ways[1] : NULL;
}

/* Begins to write the slot. Returns false if another CPU does so: then it looks the entry up again afterwards. */
static __always_inline bool lock_slot(struct cached_flow *s)
{
	__u32 version = *(volatile __u32 *)&s->version;
	return !(version & 1) && __sync_val_compare_and_swap(&s->version, version, version + 1) == version;
}

static __always_inline void unlock_slot(struct cached_flow *s)
{
	__sync_fetch_and_add(&s->version, 1);
}

/* Counts a packet beside the slot that has served it: see struct slot_count. */
static __always_inline void count_beside(__u32 set, bool second, __u32 bytes)
{
	struct slot_count *c = bpf_map_lookup_elem(&slot_counts, &set);
	if (c)
		__sync_fetch_and_add(second ? &c->ways[1] : &c->ways[0], 1ULL << SLOT_PACKETS_SHIFT | bytes);
}

/* Adds to the record what was counted beside a slot of its set, in this direction. */
static __always_inline void take_counts(struct flow_record *r, struct slot_count *c, bool second, __u32 reply)
{
	__u64 n = __sync_lock_test_and_set(second ? &c->ways[1] : &c->ways[0], 0);
	if (!r || !n)
		return;
	__sync_fetch_and_add(&r->packets[reply], n >> SLOT_PACKETS_SHIFT);
	__sync_fetch_and_add(&r->bytes[reply], n & ((1ULL << SLOT_PACKETS_SHIFT) - 1));
}

/* The same, of the slot that the key has, or had until it was emptied a moment ago. */
static __always_inline void take_counts_of(const struct flow_key *key, struct flow_record *r, __u32 reply)
{
	__u32 i = set_of(key);
	const struct cache_set *set = bpf_map_lookup_elem(&flow_cache, &i);
	struct slot_count *c = bpf_map_lookup_elem(&slot_counts, &i);
	if (!set || !c)
		return;
	if (slot_had(&set->ways[0], key))
		take_counts(r, c, false, reply);
	else if (slot_had(&set->ways[1], key))
		take_counts(r, c, true, reply);
}

/* Has nobody use the slot of the key any more. What it says about an entry is wrong from now on. */
__noinline int uncache(const struct flow_key *key)
{
	if (!key)
		return 0;
	struct cached_flow *s = slot_in(set_of(key), key);
	if (!s || !lock_slot(s))
		return 0;
	if (slot_has(s, key))
		s->protocol = 0;
	unlock_slot(s);
	return 0;
}

/* Gives the entry of an established TCP flow the numbers that a slot has, as far as they are later ones. */
static __always_inline void take_numbers(struct flow *f, __u64 numbers)
{
	__u32 next = numbers, ack = numbers >> 32;
	if (next - f->next <= SEQUENCE_WINDOW)
		f->next = next;
	if (ack - f->ack <= SEQUENCE_WINDOW)
		f->ack = ack;
}

/* Gives the entry of an established TCP flow the numbers of its slot. */
__noinline int take_slots_numbers(const struct flow_key *key, struct flow *f)
{
	if (!key || !f)
		return 0;
	const struct cached_flow *s = slot_in(set_of(key), key);
	if (!s)
		return 0;
	__u32 version = *(const volatile __u32 *)&s->version;
	__u64 numbers = *(const volatile __u64 *)&s->numbers;
	if (!slot_has(s, key) || s->generation != f->generation)
		return 0;
	asm volatile("" ::: "memory"); /* the copy comes first */
	if (!(version & 1) && *(const volatile __u32 *)&s->version == version)
		take_numbers(f, numbers);
	return 0;
}

#endif /* BLIXT_CACHE_H */
