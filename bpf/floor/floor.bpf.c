//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * floor.bpf.c - what the least work of a load balancer costs. Each program does
 * one kind of it for TCP and UDP over IPv4 and IPv6 without options, and passes
 * the packet on:
 *
 *   parse_only  reads the headers
 *   stateless   service by hash table, backend by the hash of the client
 *   conntrack   service by hash table, backend by an LRU table of flows
 *   flow_cache  the whole rewrite of a flow by one cache line of a flat table
 *
 * All but the first translate the address and the port that belong to the
 * service, adjust the checksums, and count packets and bytes for each service. A
 * variant for replies translates the source, the others the destination. A
 * packet that a program does not translate is dropped, so that a benchmark notices.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Words of an address. Keys of IPv4 and IPv6 differ in nothing but their length. */
#define IPV4 1
#define IPV6 4

#define MAX_SERVICES 64
#define RING_SLOTS 4096
#define MAX_BACKENDS 64

/* Keys of the tables are arrays of words: ports and protocol, then addresses. */
#define SERVICE_WORDS(ip) (2 + (ip))
#define FLOW_WORDS(ip) (2 + 2 * (ip))

struct backend {
	__u32 addr[IPV6];
	__be16 port;
	__u16 pad;
};

struct sums {
	__u64 packets;
	__u64 bytes;
};

/* The rewrite of one flow's direction: one cache line. */
struct slot {
	__u32 src[IPV6];
	__u32 dst[IPV6];
	__u32 ports;
	__u32 to[IPV6];
	__be16 to_port;
	__u16 ip_diff; /* of the sum of the addresses */
	__u16 l4_diff; /* the same and that of the ports */
	__u8 protocol; /* 0: the slot is free */
	__u8 service;
	__u32 pad;
};

struct set {
	struct slot slots[2];
};

_Static_assert(sizeof(struct slot) == 64, "a slot is a cache line");

#define TABLE(name, kind, words, value_type, entries)        \
	struct {                                             \
		__uint(type, kind);                          \
		__uint(max_entries, entries);                \
		__uint(key_size, sizeof(__u32) * (words));   \
		__type(value, value_type);                   \
	} name SEC(".maps")

TABLE(services4, BPF_MAP_TYPE_HASH, SERVICE_WORDS(IPV4), __u32, MAX_SERVICES);
TABLE(services6, BPF_MAP_TYPE_HASH, SERVICE_WORDS(IPV6), __u32, MAX_SERVICES);
TABLE(ring, BPF_MAP_TYPE_ARRAY, 1, __u32, MAX_SERVICES * RING_SLOTS);
TABLE(backends, BPF_MAP_TYPE_ARRAY, 1, struct backend, MAX_BACKENDS);
TABLE(service_sums, BPF_MAP_TYPE_PERCPU_ARRAY, 1, struct sums, MAX_SERVICES);
/* As many entries as the data plane's table of established flows has. */
TABLE(flows4, BPF_MAP_TYPE_LRU_HASH, FLOW_WORDS(IPV4), __u32, 1 << 19);
TABLE(flows6, BPF_MAP_TYPE_LRU_HASH, FLOW_WORDS(IPV6), __u32, 1 << 19);
TABLE(cache, BPF_MAP_TYPE_ARRAY, 1, struct set, 1 << 16);

/* Of the cache. Whoever changes it at load time changes the size of the map, too. */
const volatile __u32 cache_sets = 1 << 16;

struct headers {
	struct iphdr *ip; /* IPv4 alone */
	__u32 *src;
	__u32 *dst;
	__be16 *ports; /* of the source, of the destination */
	__u16 *check;
	__u8 protocol;
};

/* Returns IPV4 or IPV6, or 0 if the packet is none that these programs translate. */
static __always_inline int parse(struct __sk_buff *ctx, struct headers *h)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	void *l4;
	int ip;

	if (data + sizeof(*eth) + sizeof(struct ipv6hdr) > end) /* with its ports an IPv4 packet is as long */
		return 0;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		h->ip = data + sizeof(*eth);
		if (h->ip->ihl != 5 || h->ip->frag_off & bpf_htons(0x3fff))
			return 0;
		h->src = &h->ip->saddr;
		h->dst = &h->ip->daddr;
		h->protocol = h->ip->protocol;
		l4 = h->ip + 1;
		ip = IPV4;
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip6 = data + sizeof(*eth);
		h->src = ip6->saddr.in6_u.u6_addr32;
		h->dst = ip6->daddr.in6_u.u6_addr32;
		h->protocol = ip6->nexthdr;
		l4 = ip6 + 1;
		ip = IPV6;
	} else {
		return 0;
	}
	h->ports = l4;
	if (h->protocol == IPPROTO_TCP) {
		if (l4 + sizeof(struct tcphdr) > end)
			return 0;
		h->check = &((struct tcphdr *)l4)->check;
		return ip;
	}
	if (h->protocol != IPPROTO_UDP || l4 + sizeof(struct udphdr) > end)
		return 0;
	h->check = &((struct udphdr *)l4)->check;
	return ip;
}

static __always_inline __u32 hash(const struct headers *h, const int ip)
{
	__u32 n = *(__u32 *)h->ports * 0x9e3779b1;
	for (int i = 0; i < ip; i++)
		n = (n ^ h->src[i] ^ (h->dst[i] << 7 | h->dst[i] >> 25)) * 0x85ebca6b;
	n ^= n >> 15;
	n *= 0xc2b2ae35;
	return n ^ n >> 16;
}

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

static __always_inline int send(struct __sk_buff *ctx, __u32 service)
{
	struct sums *s = bpf_map_lookup_elem(&service_sums, &service);
	if (s) {
		s->packets += 1;
		s->bytes += ctx->len;
	}
	return TCX_NEXT;
}

/* Writes the address and the port, and what changes in the checksums by them. */
static __always_inline void rewrite(const struct headers *h, const int ip, const bool reply, const __u32 *to, __be16 port, __u64 ip_diff,
				    __u64 l4_diff)
{
	__u32 *addr = reply ? h->src : h->dst;
	for (int i = 0; i < ip; i++)
		addr[i] = to[i];
	h->ports[!reply] = port;
	if (ip == IPV4)
		h->ip->check = ~fold((__u16)~h->ip->check + ip_diff);
	if (h->protocol == IPPROTO_UDP && !*h->check)
		return; /* it has none */
	*h->check = ~fold((__u16)~*h->check + l4_diff);
	if (h->protocol == IPPROTO_UDP && !*h->check)
		*h->check = 0xffff;
}

/* Returns the sum by which the change of the address changes a checksum, to be folded. */
static __always_inline __u64 difference(const __u32 *old, const __u32 *new, const int ip)
{
	__u64 sum = 0;
	for (int i = 0; i < ip; i++)
		sum += (__u64)(__u32)~old[i] + new[i];
	return sum;
}

static __always_inline int translate(struct __sk_buff *ctx, const struct headers *h, const int ip, const bool reply, __u32 service, __u32 id)
{
	const struct backend *b = bpf_map_lookup_elem(&backends, &id);
	if (!b)
		return TC_ACT_SHOT;
	__u64 diff = difference(reply ? h->src : h->dst, b->addr, ip);
	rewrite(h, ip, reply, b->addr, b->port, diff, diff + (__u16)~h->ports[!reply] + b->port);
	return send(ctx, service);
}

/* Returns the service that the packet is for, or from, or NULL. */
static __always_inline const __u32 *find_service(const struct headers *h, const int ip, const bool reply)
{
	__u32 key[SERVICE_WORDS(IPV6)];

	key[0] = h->ports[!reply];
	key[1] = h->protocol;
	for (int i = 0; i < ip; i++)
		key[2 + i] = reply ? h->src[i] : h->dst[i];
	return ip == IPV4 ? bpf_map_lookup_elem(&services4, key) : bpf_map_lookup_elem(&services6, key);
}

/* Returns the backend that the ring of the service has for the client, or NULL. */
static __always_inline const __u32 *select(const struct headers *h, const int ip, __u32 service)
{
	__u32 slot = service * RING_SLOTS + ((__u64)hash(h, ip) * RING_SLOTS >> 32);
	return bpf_map_lookup_elem(&ring, &slot);
}

static __always_inline int stateless(struct __sk_buff *ctx, const struct headers *h, const int ip, const bool reply)
{
	const __u32 *service = find_service(h, ip, reply);
	const __u32 *id = service ? select(h, ip, *service) : NULL;
	return id ? translate(ctx, h, ip, reply, *service, *id) : TC_ACT_SHOT;
}

static __always_inline int conntrack(struct __sk_buff *ctx, const struct headers *h, const int ip, const bool reply)
{
	const __u32 *service = find_service(h, ip, reply);
	__u32 key[FLOW_WORDS(IPV6)];

	if (!service)
		return TC_ACT_SHOT;
	key[0] = *(__u32 *)h->ports;
	key[1] = h->protocol;
	for (int i = 0; i < ip; i++) {
		key[2 + i] = h->src[i];
		key[2 + ip + i] = h->dst[i];
	}
	const __u32 *id = ip == IPV4 ? bpf_map_lookup_elem(&flows4, key) : bpf_map_lookup_elem(&flows6, key);
	if (!id) {
		id = select(h, ip, *service);
		if (!id || (ip == IPV4 ? bpf_map_update_elem(&flows4, key, id, BPF_ANY) : bpf_map_update_elem(&flows6, key, id, BPF_ANY)))
			return TC_ACT_SHOT;
	}
	return translate(ctx, h, ip, reply, *service, *id);
}

static __always_inline bool holds(const struct slot *s, const struct headers *h, const int ip)
{
	if (s->ports != *(__u32 *)h->ports || s->protocol != h->protocol)
		return false;
	for (int i = 0; i < ip; i++)
		if (s->src[i] != h->src[i] || s->dst[i] != h->dst[i])
			return false;
	return true;
}

static __always_inline bool fill(struct slot *s, const struct headers *h, const int ip, const bool reply)
{
	const __u32 *service = find_service(h, ip, reply);
	const __u32 *id = service ? select(h, ip, *service) : NULL;
	const struct backend *b = id ? bpf_map_lookup_elem(&backends, id) : NULL;
	if (!b)
		return false;
	__u64 diff = difference(reply ? h->src : h->dst, b->addr, ip);
	for (int i = 0; i < ip; i++) {
		s->src[i] = h->src[i];
		s->dst[i] = h->dst[i];
		s->to[i] = b->addr[i];
	}
	s->ports = *(__u32 *)h->ports;
	s->to_port = b->port;
	s->ip_diff = fold(diff);
	s->l4_diff = fold(diff + (__u16)~h->ports[!reply] + b->port);
	s->protocol = h->protocol;
	s->service = *service;
	return true;
}

static __always_inline int flow_cache(struct __sk_buff *ctx, const struct headers *h, const int ip, const bool reply)
{
	__u32 n = hash(h, ip), at = (__u64)n * cache_sets >> 32;
	struct set *set = bpf_map_lookup_elem(&cache, &at);
	if (!set)
		return TC_ACT_SHOT;
	struct slot *s = &set->slots[0];
	if (!holds(s, h, ip)) {
		bool free = !s->protocol;
		s = free ? s : &set->slots[1];
		if (free || !holds(s, h, ip)) {
			s = free || n & 1 ? &set->slots[0] : s;
			if (!fill(s, h, ip, reply))
				return TC_ACT_SHOT;
		}
	}
	rewrite(h, ip, reply, s->to, s->to_port, s->ip_diff, s->l4_diff);
	return send(ctx, s->service);
}

SEC("classifier")
int parse_only(struct __sk_buff *ctx)
{
	struct headers h;
	return parse(ctx, &h) ? TCX_NEXT : TC_ACT_SHOT;
}

#define PROGRAM(name, floor, reply)                     \
	SEC("classifier")                               \
	int name(struct __sk_buff *ctx)                 \
	{                                               \
		struct headers h;                       \
		switch (parse(ctx, &h)) {               \
		case IPV4:                              \
			return floor(ctx, &h, IPV4, reply); \
		case IPV6:                              \
			return floor(ctx, &h, IPV6, reply); \
		}                                       \
		return TC_ACT_SHOT;                     \
	}

PROGRAM(stateless_forward, stateless, false)
PROGRAM(stateless_reply, stateless, true)
PROGRAM(conntrack_forward, conntrack, false)
PROGRAM(conntrack_reply, conntrack, true)
PROGRAM(flow_cache_forward, flow_cache, false)
PROGRAM(flow_cache_reply, flow_cache, true)

char _license[] SEC("license") = "Dual BSD/GPL";
