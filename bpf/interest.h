/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * interest.h - which addresses concern the program. Most packets of a host do
 * not: they cost one look at a byte of the destination at ingress, and two at
 * egress.
 *
 * A byte is for all addresses with one hash. So a bit too many costs its
 * packets time and nothing else, while a bit too few would let packets of a flow
 * pass untranslated. Hence the order of all writers: the bit first, then what it
 * is for. The program sets the bits of a flow when it inserts an entry, a writer
 * those of frontends. Only a writer clears bits:
 *
 * 1. It clears FRESH in all bytes.
 * 2. A sweep later it walks through all entries. What no entry and no frontend
 *    needs, in a byte that is not FRESH again, it replaces by a compare-and-swap
 *    of the word: if a flow has set a bit meanwhile, that fails.
 */
#ifndef BLIXT_INTEREST_H
#define BLIXT_INTEREST_H

#include "maps.h"

/* Returns the index of an address's byte, by its two halves. */
static __always_inline __u32 interest_hash(__u64 first, __u64 second)
{
	return (first * 0x9e3779b97f4a7c15ULL + second * 0xd6e8feb86659fd93ULL) >> 47;
}

_Static_assert(INTEREST_SIZE == 1 << (64 - 47), "the hash has as many values as there are bytes");

/* The second half of an IPv4 address, whose first half is 0. */
#define MAPPED(v4) ((__u64)(v4) << 32 | 0xffff0000)

static __always_inline __u32 interest_of(const struct addr *a)
{
	const __u64 *w = (const __u64 *)a;
	return interest_hash(w[0], w[1]);
}

/* Sets bits of the byte with this index, and that it is fresh. */
static __always_inline void set_interest(__u32 hash, __u8 bits)
{
	__u32 zero = 0;
	struct interest_bytes *all = bpf_map_lookup_elem(&interest, &zero);
	bits |= INTEREST_FRESH;
	if (!all || hash >= INTEREST_SIZE || (all->of[hash] & bits) == bits)
		return; /* an unchanged cache line stays shared between CPUs */
	__u32 *word = (__u32 *)(all->of + (hash & ~3U));
	__sync_fetch_and_or(word, (__u32)bits << (hash & 3) * 8);
}

/* Sets the bits without which packets would not find an entry with this key and these values. Whoever inserts the entry calls it first. */
static __always_inline void announce_entry(const struct flow_key *key, __u32 flags, __u32 frontend)
{
	if (!(flags & FLOW_REPLY) && flags & (FLOW_UNDONE | FLOW_PLAIN))
		set_interest(interest_of(&key->src), INTEREST_PEER);
	else if (flags & FLOW_REPLY ? flags & FLOW_EGRESS : frontend == NO_FRONTEND)
		set_interest(interest_of(&key->src), INTEREST_FROM);
	else
		set_interest(interest_of(&key->dst), flags & FLOW_REPLY ? INTEREST_HOST : INTEREST_VIP);
}

#endif /* BLIXT_INTEREST_H */
