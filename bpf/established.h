/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * established.h - packets of flows that are in use, served from their slots
 * (cache.h): no entry is looked up, nothing is copied, the FIB is not asked. What
 * is not plain here is for the tables to serve (forward.h), which fill the slots:
 * IP options, extension headers, fragments, segments that begin or end a
 * connection, packets that are not linear, or larger than their way.
 */
#ifndef BLIXT_ESTABLISHED_H
#define BLIXT_ESTABLISHED_H

#include "announcement.h"
#include "flow.h"

/* Not a verdict: the packet has to be served from the tables. It is unchanged. */
#define NOT_CACHED (NO_FLOW - 2)

/* Bits of a DSCP in an octet of the type of service or the traffic class. The rest is ECN, which no route depends on. */
#define DSCP 0xfc

static __always_inline __u8 dscp_of(const struct packet *p)
{
	return (p->version == 4 ? p->flow_info : bpf_ntohl(p->flow_info) >> 20) & DSCP;
}

/* Reports whether an IPv4 header has five words, so no options, and is that of a whole packet: neither "more fragments" nor an offset. */
static __always_inline bool is_plain_ipv4(const __u32 *ip)
{
	return (ip[0] & 0xff) == 0x45 && !(ip[1] & (__u32)bpf_htons(IPV4_MF | IPV4_OFFSET) << 16);
}

/* What a packet needs of its slot, or of its headers. All addresses are as on the wire. */
struct quick {
	__u32 len, segment; /* as in struct packet */
	__u32 ports;
	__u32 end, ack; /* TCP: the number behind the segment, and the one that it acknowledges */
	__u16 check;	/* of layer 4 */
	__u8 hop_limit;
	__u8 dscp;
	bool tcp;
};

/* Reads the headers behind l3 into *q. Returns false if they are not plain. */
static __always_inline bool read_headers(struct __sk_buff *ctx, __u32 l3, const bool v4, struct quick *q)
{
	const __u32 header = v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	const void *data = (const void *)(long)ctx->data, *end = (const void *)(long)ctx->data_end;
	const __u32 *ip = data + l3;
	const __u32 *l4 = (const void *)ip + header;
	__u8 protocol;

	if ((const void *)(l4 + 2) > end)
		return false;
	if (v4) {
		if (!is_plain_ipv4(ip))
			return false;
		q->len = bpf_ntohs(ip[0] >> 16);
		q->dscp = ip[0] >> 8 & DSCP;
		q->hop_limit = ip[2];
		protocol = ip[2] >> 8;
	} else {
		q->len = header + bpf_ntohs(ip[1]);
		q->dscp = bpf_ntohl(ip[0]) >> 20 & DSCP;
		protocol = ip[1] >> 16;
		q->hop_limit = ip[1] >> 24;
	}
	q->ports = l4[0];
	q->tcp = protocol == IPPROTO_TCP;
	if (l3 + q->len > ctx->len)
		return false;
	__u32 gso = ctx->gso_size;
	if (!q->tcp) {
		if (protocol != IPPROTO_UDP || q->len < header + sizeof(struct udphdr))
			return false;
		if (!gso && bpf_ntohs((__be16)l4[1]) != q->len - header)
			return false; /* behind the datagram there may be a message: see announcement.h */
		q->check = l4[1] >> 16;
		q->segment = gso ? header + sizeof(struct udphdr) + gso : q->len;
		return true;
	}
	if ((const void *)(l4 + 5) > end)
		return false;
	__u32 own = (l4[3] & 0xf0) >> 2; /* length of the TCP header */
	if ((l4[3] >> 8 & (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK)) != TCP_ACK || own < sizeof(struct tcphdr) || q->len < header + own)
		return false;
	if (own == TCP_ALONE_LEN && q->len == header + own)
		return false; /* the same, as an option */
	q->end = bpf_ntohl(l4[1]) + q->len - header - own;
	q->ack = bpf_ntohl(l4[2]);
	q->check = l4[4];
	q->segment = gso ? header + own + gso : q->len;
	return true;
}

/*
 * Follows the numbers of a segment that is in sequence. Returns false if the entry
 * has to see it: it is not in sequence, or passes a multiple of NUMBERS_BEHIND. If
 * another CPU changes the slot at the same time, it keeps what that one has stored.
 */
static __always_inline bool follow_numbers(struct cached_flow *s, __u64 numbers, const struct quick *q)
{
	__u32 next = numbers, ack = numbers >> 32;

	if (q->end - next + SEQUENCE_WINDOW >= 2 * SEQUENCE_WINDOW || q->ack - ack + SEQUENCE_WINDOW >= 2 * SEQUENCE_WINDOW)
		return false;
	__u32 later = (__s32)(q->end - next) > 0 ? q->end : next, acked = (__s32)(q->ack - ack) > 0 ? q->ack : ack;
	if (later == next && acked == ack)
		return true;
	if (((later ^ next) | (acked ^ ack)) & ~(NUMBERS_BEHIND - 1))
		return false;
	__sync_val_compare_and_swap(&s->numbers, numbers, (__u64)acked << 32 | later);
	return true;
}

/*
 * Serves the packet, whose IP header is at l3, from the slot of its flow. Returns
 * its verdict, or NOT_CACHED.
 *
 * What the packet is, whose the slot is, and whether it is still good, comes
 * first, then the numbers, which nothing undoes. The packet changes last.
 */
static __always_inline int serve_cached(struct __sk_buff *ctx, __u32 l3, const bool v4, const bool egress)
{
	const __u32 header = v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr), first = v4 ? 3 : 2;
	struct quick q;
	struct {
		__u32 src[4], dst[4]; /* one behind the other, as in an IPv6 header */
		__u32 ports;
		__u8 flags, dscp;
		__u16 mtu, addresses, tuple;
		__u32 from, ifindex;
		__u8 macs[12];
	} __attribute__((aligned(8))) to; /* the second half of a slot */

	_Static_assert(sizeof(to) == sizeof(struct cached_flow) - __builtin_offsetof(struct cached_flow, to_src), "it is that half");
	const struct config *c = config();
	if (!c || !read_headers(ctx, l3, v4, &q))
		return NOT_CACHED;
	const void *data = (const void *)(long)ctx->data, *end = (const void *)(long)ctx->data_end;
	const __u32 *ip = data + l3;
	if ((const void *)ip + header > end)
		return NOT_CACHED;
	const __u32 *w = ip + first; /* both addresses */
	__u8 protocol = q.tcp ? IPPROTO_TCP : IPPROTO_UDP;
	__u64 src0 = v4 ? 0 : w[0] | (__u64)w[1] << 32, src1 = v4 ? MAPPED(w[0]) : w[2] | (__u64)w[3] << 32;
	__u64 dst0 = v4 ? 0 : w[4] | (__u64)w[5] << 32, dst1 = v4 ? MAPPED(w[1]) : w[6] | (__u64)w[7] << 32;
	__u64 ports = q.ports | (__u64)(protocol | hook_of(v4 ? 4 : 6, egress) << 8) << 32;

	__u32 i = cache_index(src0, src1, dst0, dst1, q.ports, protocol);
	struct cache_set *set = bpf_map_lookup_elem(&flow_cache, &i);
	if (!set)
		return NOT_CACHED;
	/* Both ways are read at once: their cache lines may come from far. */
	__u64 way0 = *(const volatile __u64 *)&set->ways[0].sport, way1 = *(const volatile __u64 *)&set->ways[1].sport;
	struct cached_flow *s = way0 << 16 >> 16 == ports ? &set->ways[0] : &set->ways[1];
	__u32 version = *(const volatile __u32 *)&s->version;
	asm volatile("" ::: "memory"); /* before the copy */
	__u64 words = *(const volatile __u64 *)&s->sport; /* ports, protocol, hook and pseudo */
	const volatile __u64 *from = (const volatile __u64 *)&s->src, *dst = (const volatile __u64 *)&s->dst;
	asm volatile("" : : "r"(way1));
	if (words << 16 >> 16 != ports || from[1] != src1 || dst[1] != dst1 || (!v4 && (from[0] != src0 || dst[0] != dst0)))
		return NOT_CACHED;
	__u32 stamp = *(const volatile __u32 *)&s->stamp, backend = *(const volatile __u32 *)&s->backend;
	__u32 generation = *(const volatile __u32 *)&s->generation;
	__u64 numbers = *(const volatile __u64 *)&s->numbers;
	__builtin_memcpy(&to, &s->to_src, sizeof(to));
	asm volatile("" ::: "memory"); /* the copy comes first */
	if (version & 1 || *(const volatile __u32 *)&s->version != version || stamp != cache_stamp(c))
		return NOT_CACHED;

	const struct backend *b = bpf_map_lookup_elem(&backends, &backend);
	if (!b || b->generation != generation)
		return NOT_CACHED;
	bool reply = to.flags & CACHED_REPLY, redirected = to.flags & CACHED_REDIRECT, comes_in = to.flags & CACHED_COMES_IN;
	if (to.flags & CACHED_PLAIN)
		return pass(COUNTER_NOT_OURS);
	if (reply ? to.from != ctx->ingress_ifindex : b->flags & BACKEND_NOT_SERVING && !q.tcp)
		return NOT_CACHED;
	if (redirected && (q.segment > to.mtu || q.dscp != to.dscp || (egress ? ctx->mark : q.hop_limit <= 1) || l3 != ETH_HLEN || ctx->vlan_present))
		return NOT_CACHED;
	if (comes_in && (l3 != ETH_HLEN || ctx->vlan_present))
		return NOT_CACHED;
	__u32 frontend = b->frontend, undone = COUNTER_UNDONE;
	struct frontend_counters *stats = backend ? bpf_map_lookup_elem(&frontend_stats, &frontend) : NULL;
	__u64 *n = backend ? stats ? (reply ? &stats->reply_packets : &stats->packets) : NULL : bpf_map_lookup_elem(&counters, &undone);
	if (!n)
		return NOT_CACHED;
	if (!q.tcp && (__u32)(*n * 0x9e3779b1) < 0xffffffff / CACHED_PER_LOOKUP)
		return NOT_CACHED;

	/* What the checksum is: see checksum_kind in rewrite.h. Here 0 and 0xffff are the same number, too. */
	__u32 pseudo = (words >> 48) + bpf_htons(q.len - header);
	pseudo = (pseudo & 0xffff) + (pseudo >> 16);
	bool none = !q.tcp && !q.check, zero = !pseudo || pseudo == 0xffff;
	bool partial = q.check == pseudo || (zero && (!q.check || q.check == 0xffff));
	if (none && partial)
		return NOT_CACHED;
	if (partial)
		partial = !checksum_complete(ctx);
	if (q.tcp && !follow_numbers(s, numbers, &q))
		return NOT_CACHED;

	if (partial) {
		/*
		 * The helper knows whether the checksum is partial. Then it ignores the ports,
		 * which a device sums.
		 */
		__u32 at = l3 + header + (q.tcp ? TCP_CHECK : UDP_CHECK);
		if (bpf_l4_csum_replace(ctx, at, 0, to.addresses, BPF_F_PSEUDO_HDR) ||
		    bpf_l4_csum_replace(ctx, at, 0, fold((__u64)(__u32)~q.ports + to.ports), 0))
			return drop(COUNTER_DROP_ERROR);
	}
	__u8 *mac = (void *)(long)ctx->data; /* the helper may have moved the packet */
	__u32 *out = (void *)mac + l3, *l4 = (void *)out + header;
	__u16 *check = (void *)l4 + (q.tcp ? TCP_CHECK : UDP_CHECK);
	if ((void *)(check + 1) > (void *)(long)ctx->data_end)
		return drop(COUNTER_DROP_ERROR);
	__u8 hop_limit = q.hop_limit - (redirected && !egress);
	__u64 sum = to.tuple; /* less that before: by how much the sum of the whole packet changes */
	if (v4) {
		__u16 *ip_check = (__u16 *)out + IPV4_CHECK / 2;
		*ip_check = ~fold((__u16)~*ip_check + (__u64)to.addresses + (__u16)~q.hop_limit + hop_limit);
		*((__u8 *)out + 8) = hop_limit;
		out[3] = to.src[3];
		out[4] = to.dst[3];
		sum += (__u16)~to.addresses; /* the sum of an IPv4 header never changes: its checksum sees to that */
	} else {
		*((__u8 *)out + 7) = hop_limit;
		__builtin_memcpy(out + 2, to.src, sizeof(to.src) + sizeof(to.dst));
		sum += (__u64)(__u16)~(q.hop_limit << 8) + (hop_limit << 8);
	}
	l4[0] = to.ports;
	if (!none) {
		if (!partial)
			*check = ~fold((__u16)~q.check + (__u64)to.tuple);
		if (!q.tcp && !*check)
			*check = 0xffff; /* RFC 768: zero would mean "none" */
		sum += (__u16)~q.check + (__u64)*check;
	}
	if (redirected)
		__builtin_memcpy(mac, to.macs, sizeof(to.macs));
	if (!partial)
		bpf_csum_update(ctx, fold32(sum)); /* fails where nobody has summed the packet */

	*n += 1;
	if (to.flags & CACHED_RECORDED)
		count_beside(i, s != &set->ways[0], q.len);
	if (stats) {
		count(reply ? COUNTER_REPLIED : COUNTER_FORWARDED);
		if (reply)
			stats->reply_bytes += q.len;
		else
			stats->bytes += q.len;
	}
	if (comes_in) {
		if (!partial && checksum_complete(ctx) && !blank_link_header(ctx))
			return drop(COUNTER_DROP_ERROR);
		set_mark(ctx, COMING_IN);
		return bpf_redirect(to.ifindex, BPF_F_INGRESS);
	}
	if (redirected) {
		set_mark(ctx, egress || to.ifindex != ctx->ifindex ? LEAVING : SENT_BACK); /* bpf_redirect keeps the link header in the sum */
		return bpf_redirect(to.ifindex, 0);
	}
	if (egress)
		set_mark(ctx, LEAVING);
	else if (to.flags & CACHED_MASQUERADE)
		ctx->mark |= c->masquerade_mark;
	return TCX_NEXT;
}

/* These are functions of their own: the frames of serve() and what it calls would not fit on the stack beside theirs. */
__noinline int serve_cached4(struct __sk_buff *ctx, __u32 l3, __u32 egress)
{
	return l3 > ETH_HLEN ? NOT_CACHED : serve_cached(ctx, l3, true, egress);
}

__noinline int serve_cached6(struct __sk_buff *ctx, __u32 l3, __u32 egress)
{
	return l3 > ETH_HLEN ? NOT_CACHED : serve_cached(ctx, l3, false, egress);
}

/*
 * Reports whether the entry f is worth a slot: once, more than one packet of its
 * direction has come in a tick. So a short connection costs no slot, nor does a
 * flood of forged datagrams that each begin a flow. Called before the refresh.
 */
static __always_inline bool is_busy(const struct packet *p, struct flow *f)
{
	bool busy = f->flags & FLOW_BUSY;
	__u32 flag = busy ? FLOW_CACHED : p->due ? 0 : FLOW_BUSY;

	if (flag & ~f->flags)
		__sync_fetch_and_or(&f->flags, flag);
	return busy;
}

/* Reports whether packets like p, which has been served as p->to, can be served from a slot. */
static __always_inline bool cacheable(const struct packet *p)
{
	const struct flow *to = &p->to;
	bool redirected = !(to->flags & (FLOW_STACK | FLOW_PLAIN)), undone = to->flags & (FLOW_UNDONE | FLOW_PLAIN);

	if (p->fragment != WHOLE || (to->frontend == NO_FRONTEND && !undone) ||
	    to->flags & (FLOW_REENTER | FLOW_GONE | FLOW_CLOSED | FLOW_PEER_FIN | FLOW_AWAITED))
		return false;
	if (!is_udp(&p->key) && !(to->flags & (FLOW_ESTABLISHED | FLOW_PLAIN)))
		return false;
	if (to->flags & FLOW_HOST && to->flags & FLOW_REPLY)
		return false; /* by lo: see redirect_to_host */
	return !redirected || (p->route.has_macs && p->route.ifindex != LOOPBACK_IFINDEX && p->route.mtu && p->route.mtu <= 0xffff);
}

/*
 * Reports whether the kernel would send the packet, which leaves, the way of
 * p->route. It does so itself (see redirect in route.h), by rules that may ask for
 * the mark. So only packets without one have a slot.
 */
static __always_inline bool kernel_agrees(struct __sk_buff *ctx, const struct packet *p)
{
	struct bpf_fib_lookup fib = {};
	return !ctx->mark && !dscp_of(p) && same_from_host(ctx, p, &fib, &p->to.src, &p->to.dst);
}

/*
 * Adds what was counted beside the slot, which the caller has locked, to the record of the flow that
 * has it. A CPU that has just been using the slot may count one more packet: for whoever
 * has it next. Uses p->record_key.
 */
__noinline int settle_counts(struct packet *p, const struct cached_flow *s, __u32 set, __u32 second)
{
	struct slot_count *c = bpf_map_lookup_elem(&slot_counts, &set);
	if (!p || !s || !c || !(s->flags & CACHED_RECORDED))
		return 0;
	struct flow_key *k = &p->record_key;
	bool reply = s->flags & CACHED_REPLY;
	k->src = reply ? s->to_dst : s->src;
	k->dst = reply ? s->to_src : s->dst;
	k->sport = reply ? s->to_dport : s->sport;
	k->dport = reply ? s->to_sport : s->dport;
	*(__u32 *)&k->protocol = s->protocol ? s->protocol : IPPROTO_TCP; /* a slot that was emptied while its flow goes on; and zeros behind it */
	take_counts(bpf_map_lookup_elem(&recorded, k), c, second, reply);
	return 0;
}

/* Fills the slot of the packet p, which has been served as p->to says. */
__noinline int fill_slot(struct __sk_buff *ctx, struct packet *p)
{
	if (!p || !cacheable(p))
		return 0;
	const struct flow *to = &p->to;
	if (p->egress && !(to->flags & (FLOW_STACK | FLOW_PLAIN)) && !kernel_agrees(ctx, p))
		return 0;
	const struct config *c = config();
	__u32 i = set_of(&p->key);
	struct cache_set *set = bpf_map_lookup_elem(&flow_cache, &i);
	if (!c || !set)
		return 0;
	__u32 stamp = cache_stamp(c);
	struct cached_flow *s = &set->ways[0], *other = &set->ways[1];
	/* The key's own slot, or an empty one, or one that nobody has filled in this tick. */
	if (!slot_has(s, &p->key) && (slot_has(other, &p->key) || (s->protocol && s->stamp == stamp))) {
		s = &set->ways[1];
		other = &set->ways[0];
		if (!slot_has(s, &p->key) && s->protocol && s->stamp == stamp)
			return 0;
	}
	if (!lock_slot(s))
		return 0;
	if (s->protocol == IPPROTO_TCP && !slot_has(s, &p->key)) { /* its entry gets its numbers */
		struct flow_key key = { .src = s->src, .dst = s->dst, .sport = s->sport, .dport = s->dport, .protocol = IPPROTO_TCP };
		struct flow *f = bpf_map_lookup_elem(&flows, &key);
		if (f && f->generation == s->generation)
			take_numbers(f, s->numbers);
	}
	settle_counts(p, s, i, s != &set->ways[0]);
	__u64 addresses = p->version == 4 ? difference(&p->key.src.bytes[12], &to->src.bytes[12], 1) + difference(&p->key.dst.bytes[12], &to->dst.bytes[12], 1)
					  : difference(&p->key.src, &to->src, 4) + difference(&p->key.dst, &to->dst, 4);
	s->stamp = stamp;
	s->src = p->key.src;
	s->dst = p->key.dst;
	s->sport = p->key.sport;
	s->dport = p->key.dport;
	s->protocol = p->key.protocol;
	s->hook = hook_of(p->version, p->egress);
	s->pseudo = fold(pseudo_sum(p, &p->key.src, &p->key.dst, p->key.protocol, 0));
	s->backend = to->backend;
	s->generation = to->generation;
	s->numbers = (__u64)to->ack << 32 | to->next;
	s->to_src = to->src;
	s->to_dst = to->dst;
	s->to_sport = to->sport;
	s->to_dport = to->dport;
	bool comes_in = to->flags & FLOW_COMES_IN && !p->egress;
	s->flags = (to->flags & FLOW_REPLY ? CACHED_REPLY : 0) | (to->flags & (FLOW_STACK | FLOW_PLAIN) ? 0 : CACHED_REDIRECT) |
		   (to->flags & FLOW_MASQUERADE ? CACHED_MASQUERADE : 0) | (comes_in ? CACHED_COMES_IN : 0) |
		   (to->flags & FLOW_PLAIN ? CACHED_PLAIN : 0) | (to->flags & FLOW_RECORDED ? CACHED_RECORDED : 0);
	s->dscp = dscp_of(p);
	s->mtu = p->route.mtu;
	s->addresses = fold(addresses);
	s->tuple = fold(addresses + difference(&p->key.sport, &to->sport, 1));
	s->from = to->ifindex;
	s->ifindex = comes_in ? comes_in_by(to) : p->route.ifindex;
	__builtin_memcpy(s->macs, p->route.macs, sizeof(s->macs));
	unlock_slot(s);

	/* Somebody may have deleted or changed the entry meanwhile, or have filled the other way for the same key. */
	const struct flow *f = to->flags & FLOW_PLAIN ? find_evictable(&p->key) : LOOK_UP_EITHER(is_udp(&p->key), &udp_flows, &flows, &p->key);
	if (!f || f->generation != to->generation || f->flags & (FLOW_PEER_FIN | FLOW_CLOSED) || f->sport != to->sport ||
	    !same_addr(&f->src, &to->src) || slot_has(other, &p->key))
		uncache(&p->key);
	return 0;
}

#endif /* BLIXT_ESTABLISHED_H */
