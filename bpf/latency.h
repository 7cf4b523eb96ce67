/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * latency.h - how fast backends and clients answer, and what backendRefs have come to.
 * Only packets that begin a connection pay for it.
 */
#ifndef BLIXT_LATENCY_H
#define BLIXT_LATENCY_H

#include "count.h"

/* The time in ticks. */
static __always_inline __u32 now(void)
{
	return bpf_ktime_get_coarse_ns() >> TICK_SHIFT;
}

/* Returns a time in units of 2^-20 s, never 0. Only differences below 2^32 of them (4,096 s) mean something. */
static __always_inline __u32 time_in_units(void)
{
	__u32 units = NS_TO_UNITS(bpf_ktime_get_ns()); /* what overflows is above the bits that stay */
	return units ? units : 1;
}

/* Returns the slot of a histogram: see struct latency. */
static __always_inline __u32 latency_slot(__u32 units)
{
	__u32 bits = 0, rest = units ? units - 1 : 0;
	for (__u32 half = 16; half; half >>= 1) {
		if (rest >> half) {
			rest >>= half;
			bits += half;
		}
	}
	bits += rest; /* as many as units - 1 has */
	__u32 slot = bits > LATENCY_FIRST ? bits - LATENCY_FIRST : 0;
	return slot < LATENCY_SLOTS ? slot : LATENCY_SLOTS - 1;
}

static __always_inline void add_latency(struct latency *l, __u32 units)
{
	__sync_fetch_and_add(&l->sum, units);
	__sync_fetch_and_add(&l->counts[latency_slot(units)], 1);
}

/* Counts a flow of the backendRef that its backend has answered: TCP: so many units after its first SYN. */
__noinline int count_answered(__u32 ref, __u32 units, __u32 tcp)
{
	struct ref_counters *c = bpf_map_lookup_elem(&ref_stats, &ref);
	if (!c || !ref)
		return 0;
	__sync_fetch_and_add(&c->answered, 1);
	if (tcp)
		add_latency(&c->connect, units);
	return 0;
}

/* Counts a flow of the backendRef that its backend has refused by a RST, or somebody by an ICMP error. */
static __always_inline void count_refused(__u32 ref, bool reset)
{
	struct ref_counters *c = bpf_map_lookup_elem(&ref_stats, &ref);
	if (c && ref)
		__sync_fetch_and_add(reset ? &c->reset : &c->unreachable, 1);
}

/* Counts how long a client took to answer the SYN-ACK. */
__noinline int count_client_rtt(__u32 frontend, __u32 units)
{
	struct latency *l = bpf_map_lookup_elem(&client_rtt, &frontend);
	if (l)
		add_latency(l, units);
	return 0;
}

#endif /* BLIXT_LATENCY_H */
