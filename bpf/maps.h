/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * maps.h - every map of the data plane but the scratch memory in blixt.bpf.c.
 * The agent writes all of them except the flow tables, `fragments` and the
 * counters. It finds them by name, so the names are part of the layout.
 */
#ifndef BLIXT_MAPS_H
#define BLIXT_MAPS_H

#include "blixt.h"

/* The one map whose name carries BLIXT_LAYOUT: bpfman pins no .rodata, so no variable could tell it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} blixt_layout_2 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_ADDRESSES);
	__type(key, struct addr);
	__type(value, struct address);
} addresses SEC(".maps");

/* What each packet is asked first: see interest.h. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct interest_bytes);
} interest SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_FRONTENDS);
	__type(key, struct frontend_key);
	__type(value, struct frontend);
} frontends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_FRONTENDS);
	__type(key, __u32);
	__type(value, __u64);
} published SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_RING_SLOTS / 2);
	__type(key, __u32);
	__type(value, __u64);
} rings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_BACKENDS);
	__type(key, __u32);
	__type(value, struct backend);
} backends SEC(".maps");

/* The number of flows that each backend has got, by backend id. Shared by all CPUs: one atomic addition for each flow. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_BACKENDS);
	__type(key, __u32);
	__type(value, __u64);
} backend_flows SEC(".maps");

/*
 * Established flows: the backend has answered and the client has continued, so
 * the client's address is not forged. Nothing evicts them: a flood of forged
 * packets stays in `new_flows`. Memory is allocated with each flow.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * MAX_FLOWS);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

/* Flows that are in use, by a hash of the tuple: see cache.h. Mapped into memory, as it begins at a page then, and so a slot at a cache line. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, CACHE_SETS);
	__type(key, __u32);
	__type(value, struct cache_set);
} flow_cache SEC(".maps");

/* Flows that are not established (half open). When it is full, the oldest are evicted. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 2 * MAX_NEW_FLOWS);
	__type(key, struct flow_key);
	__type(value, struct flow);
} new_flows SEC(".maps");

/*
 * UDP flows. A datagram proves nothing about its source, so a flood of forged
 * ones must find a table in which it takes nothing from TCP. When the table is
 * full, the flows that were used least recently are evicted.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 2 * MAX_UDP_FLOWS + MAX_UDP_FLOWS / 4); /* see bpf/size.go */
	__type(key, struct flow_key);
	__type(value, struct flow);
} udp_flows SEC(".maps");

/*
 * The number of flows in `flows`: element 0 is that of all flows, element
 * 1 + n that of the frontend with index n. Whoever inserts or deletes a forward
 * entry counts it, by an atomic addition. The agent maps the array into memory,
 * so that its sweep can do so too, and can correct the numbers.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_FRONTENDS + 1);
	__type(key, __u32);
	__type(value, __u32);
} established SEC(".maps");

/* Ports of ours that sockets of this host use: by the tuple of the answers to them. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_HOST_PORTS);
	__type(key, struct flow_key);
	__type(value, struct host_port);
} host_ports SEC(".maps");

/* The same, of packets that this host forwards: connections of pods that it masquerades. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_MASQUERADED_PORTS);
	__type(key, struct flow_key);
	__type(value, struct host_port);
} masqueraded_ports SEC(".maps");

/* Frontends at which a socket of the host listens: with the tick of the last packet that it got. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_HOST_LISTENS);
	__type(key, struct frontend_key);
	__type(value, __u32);
} host_listens SEC(".maps");

/* What looking for a source port has come to in this tick, by 2 * backend id + (1 for privileged ports). */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * MAX_BACKENDS);
	__type(key, __u32);
	__type(value, struct port_search);
} port_searches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_FRAGMENTS);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
} fragments SEC(".maps");

/* The same of flows whose backend has not answered: a flood of forged datagrams stays here. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_FRAGMENTS);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
} new_fragments SEC(".maps");

/* Next hops whose hardware address is not known: see route.h. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_SILENT_NEIGHBOURS);
	__type(key, struct next_hop);
	__type(value, struct silence);
} silent_neighbours SEC(".maps");

/* Clients whose packets the host's IPsec policies want protected: 0 is for a prefix that they let pass. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_CLIENT_PREFIXES);
	__type(key, struct client_prefix);
	__type(value, __u32);
} protected_clients SEC(".maps");

/* Later fragments that came before the first one, by number % MAX_HELD: the oldest is overwritten. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_HELD);
	__type(key, __u32);
	__type(value, struct held_fragment);
} held SEC(".maps");

/* Their numbers, by datagram. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 2 * MAX_HELD);
	__type(key, struct held_key);
	__type(value, __u64);
} held_slots SEC(".maps");

/* How many there were. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} held_numbers SEC(".maps");

/* Backends that a UDP flow was begun to. Fragments from elsewhere are not kept: see held.h. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_BACKEND_ADDRESSES);
	__type(key, struct addr);
	__type(value, __u32);
} backend_addresses SEC(".maps");

/* How clients are announced: see announce.h. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct announce_config);
} announcing SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_ANNOUNCE_KEYS);
	__type(key, __u32);
	__type(value, struct announce_key);
} announce_keys SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PEERS);
	__type(key, struct addr);
	__type(value, struct peer);
} peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PROBES);
	__type(key, struct flow_key);
	__type(value, struct probe);
} probes SEC(".maps");

/* 1 for interfaces with the program at egress, by index: the agent writes them once it is attached. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_LINKS);
	__type(key, __u32);
	__type(value, __u32);
} egress_links SEC(".maps");

/* Backends that TCP flows were announced to: see is_lost in announce.h. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_BACKEND_ADDRESSES);
	__type(key, struct frontend_key);
	__type(value, __u32);
} announced_backends SEC(".maps");

/* The tick of the last message about a UDP flow with a reply tuple of this hash: see is_quiet in ports.h. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_ANNOUNCED_UDP);
	__type(key, __u32);
	__type(value, __u32);
} announced_udp SEC(".maps");

/* The number of fragmented datagrams that were translated. It is the identification of the next one. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} fragment_ids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_FRONTENDS);
	__type(key, __u32);
	__type(value, struct frontend_counters);
} frontend_stats SEC(".maps");

/* Counters by backendRef. The agent maps them into memory: a scrape reads them without a call. It clears an element before it gives it to another backendRef. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_REFS);
	__type(key, __u32);
	__type(value, struct ref_counters);
} ref_stats SEC(".maps");

/* TCP: from the SYN-ACK to the client's next segment, by frontend index. The same holds. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_FRONTENDS);
	__type(key, __u32);
	__type(value, struct latency);
} client_rtt SEC(".maps");

/* Records of flows that have not ended: see record.h. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_RECORDED);
	__type(key, struct flow_key);
	__type(value, struct flow_record);
} recorded SEC(".maps");

/* Their number. Whoever inserts or deletes one counts it, by an atomic addition; the agent maps it into memory and corrects it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} recorded_number SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, CACHE_SETS);
	__type(key, __u32);
	__type(value, struct slot_count);
} slot_counts SEC(".maps");

/*
 * Ring buffers for records, by the CPU's number modulo FLOW_LOGS: all CPUs that write to
 * one share a lock. One agent reads them, nobody else: a reader takes records out.
 */
#define FLOW_LOG(name)                                   	struct {                                         		__uint(type, BPF_MAP_TYPE_RINGBUF);      		__uint(max_entries, FLOW_LOG_SIZE);      	} name SEC(".maps")

FLOW_LOG(flow_log_0);
FLOW_LOG(flow_log_1);
FLOW_LOG(flow_log_2);
FLOW_LOG(flow_log_3);

/* How many records of rejected and dropped packets there may be. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, struct drop_sample);
} drop_samples SEC(".maps");

/* Frontends that serve more than their own port, by address and protocol: see frontend.h. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_RANGED_ADDRESSES);
	__type(key, struct frontend_key);
	__type(value, struct port_ranges);
} port_ranges SEC(".maps");

/* The policies of each frontend, by index: see policy.h. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_FRONTENDS);
	__type(key, __u32);
	__type(value, __u64);
} frontend_policies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_POLICIES);
	__type(key, __u32);
	__type(value, struct policy);
} policies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_POLICIES);
	__type(key, __u32);
	__type(value, struct policy_state);
} policy_states SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_POLICIES);
	__type(key, __u32);
	__type(value, struct policy_counters);
} policy_stats SEC(".maps");

/* Whom policies admit: enum source_verdict, by prefix, of all sets. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_SOURCES);
	__type(key, struct source_key);
	__type(value, __u32);
} sources SEC(".maps");

/* Sources of policies that limit each of them. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_LIMITED_SOURCES);
	__type(key, struct limited_source_key);
	__type(value, struct limited_source);
} limited_sources SEC(".maps");

/* Clients whose backend is remembered, and the ids of backends by address: see affinity.h. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_AFFINITIES);
	__type(key, struct affinity_key);
	__type(value, struct affinity);
} affinities SEC(".maps");

/* The same, of clients of which an answer to a datagram is all that is known: they may be forged. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_AFFINITIES);
	__type(key, struct affinity_key);
	__type(value, struct affinity);
} udp_affinities SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_BACKENDS);
	__type(key, struct affinity_backend_key);
	__type(value, __u32);
} affinity_backends SEC(".maps");

/* How flows of each backend begin, by backend id: see health.h. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_BACKENDS);
	__type(key, __u32);
	__type(value, struct health);
} backend_health SEC(".maps");

/* Addresses of clients that have proven that they get what is sent there: the tick of the proof. See challenge.h. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_PROVEN);
	__type(key, struct addr);
	__type(value, __u32);
} proven SEC(".maps");

/* Packets seen, by (interface index % MAX_LINKS) * 2 + (1 at egress): the heartbeat of the program at each hook. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * MAX_LINKS);
	__type(key, __u32);
	__type(value, __u64);
} link_packets SEC(".maps");

static __always_inline const struct config *config(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&blixt_layout_2, &zero);
}

static __always_inline bool draining(void)
{
	const struct config *c = config();
	return c && c->flags & CONFIG_DRAIN;
}

static __always_inline bool upgrading(void)
{
	const struct config *c = config();
	return c && c->flags & CONFIG_UPGRADING;
}

#endif /* BLIXT_MAPS_H */
