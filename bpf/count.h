/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* count.h - counters, and the verdicts that are always counted. Counters are per CPU, so they need no atomics. */
#ifndef BLIXT_COUNT_H
#define BLIXT_COUNT_H

#include "maps.h"

static __always_inline void count(__u32 counter)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &counter);
	if (n)
		*n += 1;
}

/* Counts a packet that this interface has seen at this hook. */
static __always_inline void count_hook(struct __sk_buff *ctx, bool egress)
{
	__u32 i = (ctx->ifindex % MAX_LINKS) * 2 + egress;
	__u64 *n = bpf_map_lookup_elem(&link_packets, &i);
	if (n)
		*n += 1;
}

/*
 * Reports whether the program is attached to this interface, which means:
 * whether it has seen a packet there. It is always attached at both hooks.
 */
__noinline bool has_program(__u32 ifindex)
{
	__u32 ingress = (ifindex % MAX_LINKS) * 2, egress = ingress + 1;
	for (__u32 cpu = 0; cpu < MAX_CPUS; cpu++) {
		const __u64 *in = bpf_map_lookup_percpu_elem(&link_packets, &ingress, cpu);
		const __u64 *out = bpf_map_lookup_percpu_elem(&link_packets, &egress, cpu);
		if (!in || !out)
			return false; /* there are no more CPUs */
		if (*in || *out)
			return true;
	}
	return false;
}

static __always_inline void count_packet(__u32 frontend, __u32 bytes, bool reply)
{
	struct frontend_counters *c = bpf_map_lookup_elem(&frontend_stats, &frontend);
	if (!c)
		return;
	if (reply) {
		c->reply_packets += 1;
		c->reply_bytes += bytes;
	} else {
		c->packets += 1;
		c->bytes += bytes;
	}
}

static __always_inline void count_rejected(__u32 frontend)
{
	struct frontend_counters *c = bpf_map_lookup_elem(&frontend_stats, &frontend);
	if (c)
		c->rejected += 1;
}

__noinline int count_new_flow(__u32 frontend, __u32 backend, __u32 ref)
{
	struct frontend_counters *c = bpf_map_lookup_elem(&frontend_stats, &frontend);
	if (c)
		c->new_flows += 1;
	__u64 *n = bpf_map_lookup_elem(&backend_flows, &backend);
	if (n)
		__sync_fetch_and_add(n, 1);
	struct ref_counters *r = bpf_map_lookup_elem(&ref_stats, &ref);
	if (r && ref)
		__sync_fetch_and_add(&r->flows, 1);
	return 0;
}

/* Not a verdict: the packet belongs to no live flow. */
#define NO_FLOW (-100)

/* The verdict about a packet that is dropped also tells why: see conclude in record.h. */
#define DROPPED 0x1000

/* Drops a packet that is surely ours. The counter tells why. */
static __always_inline int drop(__u32 counter)
{
	count(counter);
	return DROPPED + counter;
}

/* Passes a packet on to the next program, unchanged. */
static __always_inline int pass(__u32 counter)
{
	count(counter);
	return TCX_NEXT;
}

#endif /* BLIXT_COUNT_H */
