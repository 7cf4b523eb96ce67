//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * blixt.bpf.c - the data plane: packet -> parse -> look up -> rewrite ->
 * count -> verdict. One program serves ingress and egress of every interface. A
 * packet passes unchanged (TCX_NEXT, so that other programs still run) until it
 * is surely ours. From then on it is never passed on half translated.
 *
 * What to read, each file using those before it:
 *   limits.h     sizes, bounds, time-outs
 *   blixt.h      keys and values of the maps: the contract with the agent
 *   maps.h       the maps
 *   count.h      counters and verdicts
 *   latency.h    how fast backends and clients answer
 *   log.h        tells people how flows end, and what is dropped
 *   packet.h     parses a packet
 *   frontend.h   which frontend serves a port
 *   rewrite.h    gives a packet another tuple
 *   route.h      looks up the FIB, redirects
 *   ipsec.h      clients that the host's IPsec policies cover
 *   ratelimit.h  how many answers are sent
 *   answer.h     RST, ICMP errors
 *   siphash.h    signs messages
 *   announcement.h  messages to other nodes: places, form, signature
 *   split.h      splits packets that are larger than the MTU
 *   way.h        where a flow is translated and how its packets leave
 *   interest.h   which addresses concern the program
 *   cache.h      flows in use, with all that their packets need
 *   ring.h       selects a backend
 *   affinity.h   the same client gets the same one
 *   concurrent.h  how many flows policies have
 *   health.h     how flows of backends begin, and backends on trial
 *   flow.h       the life of a flow in the tables
 *   close.h      how the connection of a flow ends
 *   record.h     records of flows
 *   reserve.h    ports that the host itself uses
 *   hostsockets.h  its sockets on addresses that it shares
 *   ports.h      tuples and source ports of new flows
 *   source.h     flows whose source address is gone
 *   hostports.h  the host's own connections from our ports
 *   fragment.h   ports and identification of fragmented datagrams
 *   held.h       fragments that come before the first one
 *   trust.h      what is not believed about a packet's origin
 *   established.h  serves flows that are in use
 *   challenge.h  clients prove that their addresses are not forged
 *   policy.h     whom policies admit, and how many
 *   forward.h    begins, serves and resets flows
 *   announce.h   tells other nodes the clients of flows
 *   probe.h      whether messages get there
 *   undo.h       undoes the source translation of other nodes
 *   icmp.h       ICMP errors about flows
 *   ping.h       answers echo requests
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

#include "ping.h"
#include "undo.h"

/*
 * The packet in work on each CPU. Programs on one CPU do not interrupt each other: they
 * run with bottom halves disabled. But a message that goes ahead passes the
 * program before the packet has left, and so does what a tunnel makes of it: hence two.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct packet);
} packets SEC(".maps");

/* Rejects a packet to a port of an exclusive address that has no frontend. */
static __always_inline int reject_unserved(struct __sk_buff *ctx, struct packet *p)
{
	if (draining())
		return pass(COUNTER_DRAINED); /* the program that takes over may serve the port */
	if (is_martian(p))
		return drop(COUNTER_DROP_MARTIAN);
	if (p->key.protocol == IPPROTO_UDP && p->fragment != LATER_FRAGMENT)
		return answer_port_unreachable(ctx, p, COUNTER_REJECT_UNSERVED, SHARE_UNSERVED);
	if (p->fragment != WHOLE)
		return drop(COUNTER_DROP_FRAGMENT);
	return answer_rst(ctx, p, COUNTER_REJECT_UNSERVED, SHARE_UNSERVED);
}

/*
 * Handles a packet to a frontend that belongs to no flow, or the SYN that flow
 * f yields to: it begins a new flow, unless it only repeats the SYN of f, or is
 * for the host, which may share the address. A flow that a segment in mid-stream has
 * begun is no SYN's: or whoever sends that first would evade the limits of policies.
 */
__noinline int handle_frontend(struct __sk_buff *ctx, struct packet *p, const struct frontend *fe, struct flow *f)
{
	if (!p || !fe)
		return TC_ACT_SHOT;
	judge_silence(p, f);
	__u32 id = select_proven(p, fe);
	if (f && !(f->flags & (FLOW_CLOSED | FLOW_ADOPTED)) && (f->backend == id || draining())) {
		if (change_port(p, f))
			f = find_evictable(&p->key);
		int verdict = f ? serve_flow(ctx, p, f) : NO_FLOW;
		if (verdict != NO_FLOW)
			return verdict;
		f = NULL;
	}
	if (f) {
		p->ended = RECORD_REPLACED;
		bury(p, f); /* whoever gets the SYN gets what follows it */
	}
	if (draining())
		return pass(COUNTER_DRAINED);
	if (p->shared && is_for_host(ctx, p))
		return TCX_NEXT;
	if (is_martian(p))
		return drop(COUNTER_DROP_MARTIAN);
	if (p->tcp_flags & TCP_RST) {
		if (fe->challenge)
			proves(p);
		return drop(COUNTER_DROP_NO_FLOW);
	}
	int verdict = admit(ctx, p, fe);
	if (verdict)
		return verdict;
	id = try_again(p, id);
	if (!is_backend_of(id, fe, p->key.dport))
		return reject_no_backend(ctx, p, fe);
	verdict = begin_flow(ctx, p, fe, id);
	if (verdict)
		return verdict;
	verdict = serve(ctx, p, &p->to); /* the entry itself has nothing to learn from its first packet */
	return verdict == NO_FLOW ? drop(COUNTER_DROP_NEW_FLOW) : verdict;
}

/*
 * Handles a packet that the host itself sends from a port of ours or of a
 * frontend, to no frontend. f is the flow that yields to it, if it is a SYN of a known one.
 */
__noinline int handle_host_port(struct __sk_buff *ctx, struct packet *p, struct flow *f)
{
	if (!p)
		return TC_ACT_SHOT;
	int verdict = NO_FLOW;
	if (f && !(f->flags & FLOW_CLOSED))
		verdict = serve(ctx, p, f);
	else if (f)
		forget(p, &p->key, f);
	if (verdict == NO_FLOW)
		verdict = avoid_port_clash(ctx, p);
	if (!verdict) {
		f = find_evictable(&p->key);
		verdict = f ? serve(ctx, p, f) : drop(COUNTER_DROP_NEW_FLOW);
	}
	return verdict == NO_FLOW ? pass(COUNTER_NOT_OURS) : verdict;
}

/*
 * Reports whether the packet may belong to a flow in `new_flows`. A packet that
 * comes in, neither to an address of ours nor to a port of ours, cannot. Most
 * traffic of a host is of this kind, and is spared a look-up.
 */
static __always_inline bool may_be_new(const struct packet *p, const struct address *a)
{
	return a || p->egress || in_snat_range(p->key.dport);
}

/* Reports whether the packet is for us to balance, whoever has sent it: another node may be a client. */
static __always_inline bool is_to_frontend(const struct packet *p)
{
	struct frontend_key k = { .addr = p->key.dst, .port = p->key.dport, .protocol = p->key.protocol };
	const struct address *a = bpf_map_lookup_elem(&addresses, &k.addr);
	return a && (a->flags & ADDRESS_EXCLUSIVE || find_frontend_at(a, &k));
}

/*
 * Does what is to be done with a packet of a peer's, or with a message: see undo.h.
 * Returns a verdict, SERVE_UNDONE, or NO_FLOW.
 */
static __always_inline int undo_or_go_on(struct __sk_buff *ctx, struct packet *p)
{
	int verdict = NO_FLOW;
	bool carries = !p->egress && may_carry(p), peers = from_peers_port(p);

	if (!(carries || peers) || is_to_frontend(p))
		return NO_FLOW;
	if (carries) {
		verdict = receive_message(ctx, p);
		if (verdict == OBEY_MESSAGE)
			verdict = obey_message(ctx, p);
		if (verdict == MAKE_UNDONE) {
			bool made = make_undone(ctx, p);
			verdict = record_undone(p, made);
		}
	}
	return verdict == NO_FLOW && peers ? handle_unannounced(ctx, p) : verdict;
}

/* Handles a TCP or UDP packet. A packet of an established flow, in either direction, costs one look-up. */
static __always_inline int handle_ports(struct __sk_buff *ctx, struct packet *p)
{
	bool udp = is_udp(&p->key);
	int undo = undo_or_go_on(ctx, p);
	if (undo != NO_FLOW && undo != SERVE_UNDONE)
		return undo;
	bool undone = undo == SERVE_UNDONE;
	struct flow *f = LOOK_UP_EITHER(udp, &udp_flows, &flows, &p->key);
	if (f && !udp && p->egress && (f->flags & (FLOW_UNDONE | FLOW_REPLY)) == (FLOW_UNDONE | FLOW_REPLY)) {
		int verdict = serve_directly(ctx, p, f);
		if (verdict != NO_FLOW)
			return verdict;
	}
	if (f && (undone || !yields(p, f))) {
		int verdict = serve_flow(ctx, p, f);
		if (verdict != NO_FLOW)
			return verdict;
		f = NULL;
	}
	const struct address *a = bpf_map_lookup_elem(&addresses, &p->key.dst);
	if (!f && !udp && (undone || may_be_new(p, a))) {
		f = bpf_map_lookup_elem(&new_flows, &p->key);
		if (!f) /* another CPU may have moved it to `flows` between the two look-ups */
			f = bpf_map_lookup_elem(&flows, &p->key);
		if (f && (undone || !yields(p, f))) {
			int verdict = serve_flow(ctx, p, f);
			if (verdict != NO_FLOW)
				return verdict;
			f = NULL;
		}
	}
	if (undone) /* its flow is incomplete: the next message makes it again, and the next segment asks for one */
		return end_undone(p);
	if (a && !is_decided(ctx, p)) {
		struct frontend_key key = { .addr = p->key.dst, .port = p->key.dport, .protocol = p->key.protocol };
		const struct frontend *fe = find_frontend_at(a, &key);
		p->shared = !(a->flags & ADDRESS_EXCLUSIVE);
		if (fe)
			return handle_frontend(ctx, p, fe, f);
		if (!p->shared)
			return reject_unserved(ctx, p);
	}
	if (p->egress && in_snat_range(p->key.sport)) {
		int verdict = send_probe(ctx, p);
		if (verdict != NO_FLOW)
			return verdict;
	}
	if (p->egress && (in_snat_range(p->key.sport) || leaves_frontend(p)))
		return handle_host_port(ctx, p, f);
	if (!p->egress && is_lost(ctx, p))
		return drop(COUNTER_DROP_FLOW_GONE);
	if (!p->egress && in_snat_range(p->key.dport))
		refresh_reservations(p);
	return pass(COUNTER_NOT_OURS);
}

/* Handles a packet without ports that belongs to no flow: Blixt answers for an exclusive address. */
static __always_inline int handle_no_flow(struct __sk_buff *ctx, struct packet *p, enum parsed kind)
{
	const struct address *a = bpf_map_lookup_elem(&addresses, &p->key.dst);
	if (!a || !(a->flags & ADDRESS_EXCLUSIVE) || is_decided(ctx, p))
		return pass(COUNTER_NOT_OURS);
	if (kind == PARSED_ICMP && is_neighbour_discovery(p))
		return pass(COUNTER_NOT_OURS); /* whoever announces the address answers */
	if (draining())
		return pass(COUNTER_DRAINED);
	if (is_martian(p))
		return drop(COUNTER_DROP_MARTIAN);
	if (is_icmp(p))
		return handle_icmp(ctx, p);
	return drop(p->fragment == WHOLE ? COUNTER_DROP_UNSUPPORTED : COUNTER_DROP_FRAGMENT);
}

static __always_inline int handle_packet(struct __sk_buff *ctx, struct packet *p)
{
	if (take_mark(ctx, p))
		return TCX_NEXT;
	if (mark_of(ctx) && !heed_mark(ctx, p))
		return drop(COUNTER_DROP_ERROR);
	if (!p->egress && ctx->pkt_type != PACKET_HOST)
		return TCX_NEXT; /* seen by a bridge or a promiscuous device: not sent to this host */
	enum parsed kind = parse(ctx, p);
	switch (kind) {
	case NOT_IP:
		return pass(COUNTER_NOT_OURS);
	case MALFORMED:
		if (p->fragment == FIRST_FRAGMENT) /* it ends within its header, which the host puts together */
			pass_fragment(ctx, p);
		return pass(COUNTER_MALFORMED);
	case PARSED: {
		int verdict = handle_ports(ctx, p);
		if (p->fragment == FIRST_FRAGMENT)
			pass_fragment(ctx, p);
		return verdict;
	}
	case PARSED_ICMP:
		if (is_icmp_error(p)) {
			int verdict = serve_icmp_error(ctx, p);
			if (verdict != NO_FLOW)
				return verdict;
		}
		break;
	case PARSED_UNKNOWN:
		if (p->fragment != LATER_FRAGMENT)
			break;
		switch (follow_first(ctx, p)) {
		case FIRST_OURS:
			return handle_ports(ctx, p);
		case FIRST_AWAITED:
			return drop(COUNTER_FRAGMENT_HELD);
		default:
			break;
		}
		break;
	}
	return handle_no_flow(ctx, p, kind);
}

/* Serves a packet that is not in a slot, or not known to concern us. */
static __always_inline int serve_slowly(struct __sk_buff *ctx, bool egress)
{
	__u32 i = 0;
	struct packet *p = bpf_map_lookup_elem(&packets, &i);
	if (!p)
		return TCX_NEXT;
	if (mark_of(ctx) == AHEAD) /* perhaps by the device that the packet came in by: then it looks as if it came in */
		return p->ahead ? become_message(ctx, p) : TCX_NEXT;
	if (p->ahead) { /* a tunnel sends the message: the packet behind it is still in work */
		i = 1;
		p = bpf_map_lookup_elem(&packets, &i);
		if (!p)
			return TCX_NEXT;
	}
	__builtin_memset(p, 0, offsetof(struct packet, to));
	p->egress = egress;
	p->host = egress && !ctx->ingress_ifindex;
	int verdict = handle_packet(ctx, p);
	if (p->ends)
		end_concurrent(p);
	if (verdict >= DROPPED)
		sample(ctx, p, verdict - DROPPED);
	return verdict;
}

/* Reports whether a port is one that flows may have. Flows may be older than the range of today. */
static __always_inline bool in_any_range(const struct config *c, __be16 port)
{
	__u32 n = bpf_ntohs(port), min = c->ports_max ? c->ports_min : c->snat_min, max = c->ports_max ? c->ports_max : c->snat_max;
	return (n >= min && n <= max) || (n >= PRIVILEGED_MIN && n < PRIVILEGED_END);
}

/*
 * Reports whether a packet may concern us that has an address of this host, and no
 * other one of interest: at ingress the destination, where it may be the answer
 * of a backend, or one to the host from a port of ours; at egress the source, from
 * which the host may begin a connection from a port of ours or of a frontend.
 */
static __always_inline bool host_packet_concerns(const __u32 *l4, const void *end, __u8 protocol, bool egress, bool shared)
{
	const struct config *c = config();
	if (!c || (const void *)(l4 + 1) > end)
		return true;
	__be16 sport = l4[0], dport = l4[0] >> 16;
	if (!egress) /* during an upgrade ports of the program in front concern us: see is_lost */
		return in_any_range(c, dport) || c->flags & CONFIG_UPGRADING;
	if (protocol == IPPROTO_UDP) {
		__u32 hash = PORT_HASH(sport);
		return in_any_range(c, sport) || (shared && !(c->unserved_udp[hash / 64] >> hash % 64 & 1));
	}
	if ((const void *)(l4 + 4) > end)
		return true;
	return l4[3] >> 8 & (TCP_SYN | TCP_FIN | TCP_RST) && (shared || in_any_range(c, sport));
}

/* Reports whether a packet of a peer may be of one of its flows: later fragments have no port. */
static __always_inline bool peers_packet_concerns(const __u32 *l4, const void *end, __u8 protocol, bool whole)
{
	const struct announce_config *c = announcing_config();
	if (!c || !(c->flags & ANNOUNCING_UNDO) || (const void *)(l4 + 1) > end || !whole)
		return true;
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return protocol == IPPROTO_FRAGMENT || protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING || protocol == IPPROTO_DSTOPTS;
	return is_peers_port(c, l4[0]);
}

/*
 * Passes a packet whose IP header is at l3, if it has no interest, or serves it
 * from the slot of its flow. Returns NOT_CACHED if the tables have to be asked.
 */
static __always_inline int serve_quickly_at(struct __sk_buff *ctx, __u32 l3, const bool v4, bool egress)
{
	const void *end = (const void *)(long)ctx->data_end;
	const __u32 *ip = (const void *)(long)ctx->data + l3;
	const __u32 header = v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr), *l4 = (const void *)ip + header;
	__u32 zero = 0;
	const struct interest_bytes *all = bpf_map_lookup_elem(&interest, &zero);

	if (!all || (const void *)l4 > end)
		return NOT_CACHED;
	__u8 protocol = v4 ? ip[2] >> 8 : ip[1] >> 16;
	__u32 src = v4 ? interest_hash(0, MAPPED(ip[3])) : interest_hash(ip[2] | (__u64)ip[3] << 32, ip[4] | (__u64)ip[5] << 32);
	__u32 dst = v4 ? interest_hash(0, MAPPED(ip[4])) : interest_hash(ip[6] | (__u64)ip[7] << 32, ip[8] | (__u64)ip[9] << 32);
	__u8 to = all->of[dst], from = all->of[src];
	bool whole = !v4 || is_plain_ipv4(ip);

	if (!(to & INTEREST_VIP) && !(egress && from & INTEREST_FROM) &&
	    !(!egress && from & INTEREST_PEER && peers_packet_concerns(l4, end, protocol, whole))) {
		bool ports = protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
		__u8 own = egress ? from & (INTEREST_HOST | INTEREST_SHARED) : to & INTEREST_HOST;

		/* Whoever sends an error about a packet of a flow has any address; at ingress it is for the backend whose node's source is undone. */
		if ((egress || to & INTEREST_FROM) && protocol == (v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
			return NOT_CACHED;
		if (egress && ports && !ctx->ingress_ifindex && !(from & INTEREST_HOST))
			set_interest(src, INTEREST_HOST); /* and this packet takes the long way */
		else if (!own || (ports && whole && !host_packet_concerns(l4, end, protocol, egress, from & INTEREST_SHARED)))
			return pass(COUNTER_NOT_OURS);
	}
	if (!egress && ctx->pkt_type != PACKET_HOST)
		return TCX_NEXT; /* seen by a bridge or a promiscuous device: not sent to this host */
	return v4 ? serve_cached4(ctx, l3, egress) : serve_cached6(ctx, l3, egress);
}

/* Finds the IP header, as ip_offset does, and does the same. */
static __always_inline int serve_quickly(struct __sk_buff *ctx, bool egress)
{
	const __u8 *data = (const void *)(long)ctx->data, *end = (const void *)(long)ctx->data_end;
	__be16 proto = ctx->protocol;
	__u8 version = ip_version(proto);

	if (mark_of(ctx) == LEAVING && egress)
		return TCX_NEXT;
	if (mark_of(ctx) == COMING_IN && !egress) {
		set_mark(ctx, 0);
		bpf_skb_change_type(ctx, PACKET_HOST); /* its MAC address is the other device's */
		return TCX_NEXT;
	}
	if (mark_of(ctx) || !version || data + ETH_HLEN + 6 > end)
		return NOT_CACHED;
	bool with = *(const __be16 *)(data + 12) == proto && data[ETH_HLEN] >> 4 == version;
	bool without = data[0] >> 4 == version;
	if (with && without)
		with = is_network_header(ctx, data + ETH_HLEN);
	else if (!with && !without)
		return NOT_CACHED;
	__u32 l3 = with ? ETH_HLEN : 0;
	return version == 4 ? serve_quickly_at(ctx, l3, true, egress) : serve_quickly_at(ctx, l3, false, egress);
}

SEC("classifier")
int blixt(struct __sk_buff *ctx)
{
	/* At ingress ingress_ifindex is this device; at egress it is another one, or 0 if a socket of this host has sent the packet. */
	bool egress = ctx->ingress_ifindex != ctx->ifindex;

	count_hook(ctx, egress);
	int verdict = serve_quickly(ctx, egress);
	if (verdict == NOT_CACHED)
		verdict = serve_slowly(ctx, egress);
	return verdict >= DROPPED ? TC_ACT_SHOT : verdict;
}

char _license[] SEC("license") = "Dual BSD/GPL";
