//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * blixt.bpf.c - the data plane: packet -> parse -> look up -> rewrite ->
 * verdict -> count. One program for ingress and egress of every interface. A
 * packet is left alone (TCX_NEXT, so that other programs still run) until it
 * is surely ours; from then on it is never passed on half done.
 */
#include <linux/bpf.h>
#include <linux/icmp.h>
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

#include "icmp.h"

/* The packet in work on each CPU. Programs on one CPU do not interrupt each other: they run with bottom halves off. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct packet);
} packets SEC(".maps");

/* A new connection, as far as one packet can tell. */
static __always_inline bool is_syn(const struct packet *p)
{
	return (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

static __always_inline bool draining(void)
{
	const struct config *c = config();
	return c && c->flags & CONFIG_DRAIN;
}

/* A port of an exclusive address that no frontend serves. */
static __always_inline int unserved(struct __sk_buff *ctx, struct packet *p)
{
	if (draining())
		return pass(COUNTER_DRAINED); /* whoever takes over may serve it */
	if (p->key.protocol == IPPROTO_UDP)
		return answer_port_unreachable(ctx, p, COUNTER_REJECT_UNSERVED);
	if (p->fragment != WHOLE)
		return drop(COUNTER_DROP_FRAGMENT);
	return answer_rst(ctx, p, COUNTER_REJECT_UNSERVED);
}

/* A packet to a frontend that belongs to no flow, or begins another one. `f` is the flow that it has had, if any. */
__noinline int to_frontend(struct __sk_buff *ctx, struct packet *p, const struct frontend *fe, struct flow *f)
{
	if (!p || !fe)
		return TC_ACT_SHOT;
	__u32 id = pick(&p->key, fe->index);
	if (f) { /* a SYN takes what the ring says now, unless it is a repetition */
		if (f->backend == id && !ended(&p->key, f)) {
			int verdict = serve(ctx, p, f);
			if (verdict != BEGIN_ANEW)
				return verdict;
		} else {
			forget(&p->key, f);
		}
	}
	if (draining())
		return pass(COUNTER_DRAINED);
	if (p->tcp_flags & TCP_RST)
		return drop(COUNTER_DROP_NO_FLOW);
	int verdict = id == BACKEND_REJECT ? reject(ctx, p, fe->index) : begin(ctx, p, fe, id);
	if (verdict)
		return verdict;
	f = bpf_map_lookup_elem(&new_flows, &p->key);
	verdict = f ? serve(ctx, p, f) : BEGIN_ANEW;
	return verdict == BEGIN_ANEW ? drop(COUNTER_DROP_NEW_FLOW) : verdict;
}

/* Do we translate to this port? */
static __always_inline bool is_ours(__be16 port)
{
	const struct config *c = config();
	return c && bpf_ntohs(port) >= c->snat_min && bpf_ntohs(port) <= c->snat_max;
}

/* The host itself sends from a port of ours, and to no frontend. `f` is the flow that a SYN has had, if any. */
__noinline int from_host(struct __sk_buff *ctx, struct packet *p, struct flow *f)
{
	if (!p)
		return TC_ACT_SHOT;
	int verdict;
	if (f && !ended(&p->key, f)) {
		verdict = serve(ctx, p, f);
	} else {
		if (f)
			forget(&p->key, f);
		verdict = keep_apart(p);
		if (!verdict) {
			f = bpf_map_lookup_elem(&new_flows, &p->key);
			verdict = f ? serve(ctx, p, f) : drop(COUNTER_DROP_NEW_FLOW);
		}
	}
	return verdict == BEGIN_ANEW ? pass(COUNTER_NOT_OURS) : verdict;
}

/*
 * May this packet be of a flow that is still new? What comes in to neither an
 * address of ours nor a port that we translate to is none: that is most of
 * the traffic of a host, and spares it a look-up.
 */
static __always_inline bool may_be_new(const struct packet *p, const struct address *a)
{
	return a || p->egress || is_ours(p->key.dport);
}

/* Serves a packet of the flow f, if there is one and the packet does not begin another connection. */
static __always_inline int go_on(struct __sk_buff *ctx, struct packet *p, struct flow *f)
{
	return f && (f->flags & FLOW_REPLY || !is_syn(p)) ? serve(ctx, p, f) : BEGIN_ANEW;
}

/* TCP or UDP. An established flow costs one look-up, whichever its direction. */
static __always_inline int tcp_or_udp(struct __sk_buff *ctx, struct packet *p)
{
	struct flow *f = bpf_map_lookup_elem(&flows, &p->key);
	int verdict = go_on(ctx, p, f);
	if (verdict != BEGIN_ANEW)
		return verdict;
	const struct address *a = bpf_map_lookup_elem(&addresses, &p->key.dst);
	if (!f && may_be_new(p, a)) {
		f = bpf_map_lookup_elem(&new_flows, &p->key);
		if (!f) /* another CPU may have moved it to `flows` between the two look-ups */
			f = bpf_map_lookup_elem(&flows, &p->key);
		verdict = go_on(ctx, p, f);
		if (verdict != BEGIN_ANEW)
			return verdict;
	}
	if (a) {
		struct frontend_key key = { .addr = p->key.dst, .port = p->key.dport, .protocol = p->key.protocol };
		const struct frontend *fe = bpf_map_lookup_elem(&frontends, &key);
		if (fe)
			return to_frontend(ctx, p, fe, is_syn(p) ? f : NULL);
		if (a->flags & ADDRESS_EXCLUSIVE)
			return unserved(ctx, p);
	}
	if (p->egress && is_ours(p->key.sport))
		return from_host(ctx, p, is_syn(p) ? f : NULL);
	return pass(COUNTER_NOT_OURS);
}

/* Gives a later fragment the protocol and the ports that its first one had. */
static __noinline bool recall_fragment(struct packet *p)
{
	struct fragment_key key = {
		.src = p->key.src, .dst = p->key.dst, .id = p->fragment_id, .next = p->fragment_next
	};
	const struct fragment *ports = bpf_map_lookup_elem(&fragments, &key);
	if (!ports)
		return false;
	p->key.sport = ports->sport;
	p->key.dport = ports->dport;
	p->key.protocol = ports->protocol;
	return true;
}

/* A packet without ports that belongs to no flow: what an exclusive address owes its sender. */
static __always_inline int without_flow(struct __sk_buff *ctx, struct packet *p, enum parsed kind)
{
	const struct address *a = bpf_map_lookup_elem(&addresses, &p->key.dst);
	if (!a || !(a->flags & ADDRESS_EXCLUSIVE))
		return pass(COUNTER_NOT_OURS);
	if (kind == PARSED_ICMP && is_neighbour_discovery(p))
		return pass(COUNTER_NOT_OURS); /* whoever announces the address answers */
	if (draining())
		return pass(COUNTER_DRAINED);
	if (p->fragment != WHOLE)
		return drop(COUNTER_DROP_FRAGMENT);
	if (kind == PARSED_ICMP)
		return is_echo_request(p) ? answer_ping(ctx, p) : drop(COUNTER_DROP_NO_FLOW);
	return drop(COUNTER_DROP_UNSUPPORTED);
}

static __always_inline int handle(struct __sk_buff *ctx, struct packet *p)
{
	if (is_translated(ctx, p))
		return TCX_NEXT;
	if (!p->egress && ctx->pkt_type != PACKET_HOST)
		return TCX_NEXT; /* a bridge or a promiscuous device: not sent to this host */
	enum parsed kind = parse(ctx, p);
	if (kind != NOT_IP && kind != MALFORMED && !is_unicast(p, &p->key.src))
		return pass(COUNTER_NOT_OURS); /* nobody to answer or to forward for: the stack knows what to do */
	switch (kind) {
	case NOT_IP:
		return pass(COUNTER_NOT_OURS);
	case MALFORMED:
		return pass(COUNTER_MALFORMED);
	case PARSED:
		return tcp_or_udp(ctx, p);
	case PARSED_ICMP:
		if (is_icmp_error(p)) {
			int verdict = serve_icmp_error(ctx, p);
			if (verdict != BEGIN_ANEW)
				return verdict;
		}
		break;
	case PARSED_UNKNOWN:
		if (p->fragment == LATER_FRAGMENT && recall_fragment(p))
			return tcp_or_udp(ctx, p);
		break;
	}
	return without_flow(ctx, p, kind);
}

SEC("classifier")
int blixt(struct __sk_buff *ctx)
{
	__u32 zero = 0;
	struct packet *p = bpf_map_lookup_elem(&packets, &zero);
	if (!p)
		return TCX_NEXT;
	__builtin_memset(p, 0, offsetof(struct packet, to));
	/* Coming in, a packet carries the index of the device that it is on; going out, another's or none. */
	p->egress = ctx->ingress_ifindex != ctx->ifindex;
	p->host = p->egress && !ctx->ingress_ifindex;
	count_link(ctx, p->egress);
	return handle(ctx, p);
}

char _license[] SEC("license") = "Dual BSD/GPL";
