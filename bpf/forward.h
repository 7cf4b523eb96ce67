/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * forward.h - what happens to a packet of a flow, known or new.
 *
 * Which way a flow goes is decided once, when it begins, so that conntrack
 * sees both of its directions or neither (it calls half a connection invalid,
 * and firewalls drop that):
 *
 *   began at  backend          forward               reply
 *   ingress   on this node     DNAT, to the stack    at egress, behind conntrack
 *   ingress   elsewhere        DNAT+SNAT, redirect   at ingress, redirect
 *   egress    on this node     DNAT+SNAT, in again   at egress, in again
 *   egress    elsewhere        DNAT+SNAT, redirect   at ingress, to the stack
 *   lo        anywhere         DNAT+SNAT, redirect   at ingress, to the stack
 *   egress    no frontend      SNAT, to the stack    at ingress, to the stack
 *
 * The last is of the host itself, see keep_apart.
 *
 * A backend on this node whose replies would not pass us (it is reached by
 * the device that the client came in by) counts as elsewhere.
 *
 * In again: a pod or a socket of this node sends to an address that is not
 * the node's, and leaves by this device. A backend here would answer the node
 * behind our back. So its client becomes the frontend's own address, whose
 * way is out by this device too, and what is translated comes in by the
 * device like the packet of a stranger: the backend's interface needs no
 * program, conntrack sees each connection in both directions, and the
 * reverse-path filter finds the source where it belongs.
 */
#ifndef BLIXT_FORWARD_H
#define BLIXT_FORWARD_H

#include "answer.h"
#include "flow.h"

/* Not a verdict: the packet belongs to no flow that lives. */
#define BEGIN_ANEW (-100)

/*
 * Which slot of a ring: a hash of the client alone. Rings of different
 * frontends are permuted differently. Every node must compute the same one:
 * changing this needs a new BLIXT_LAYOUT. Mixing steps as in MurmurHash3.
 */
static __always_inline __u32 client_hash(const struct flow_key *key)
{
	const __u64 *src = (const __u64 *)&key->src;
	__u64 h = src[0] * 0xff51afd7ed558ccdULL;
	h ^= h >> 33;
	h = (h ^ src[1]) * 0xc4ceb9fe1a85ec53ULL;
	h ^= h >> 33;
	h = (h ^ key->sport) * 0xff51afd7ed558ccdULL;
	h ^= h >> 33;
	h *= 0xc4ceb9fe1a85ec53ULL;
	return h >> 32;
}

/* The backend that the frontend's ring has for this client, or BACKEND_REJECT. */
static __always_inline __u32 pick(const struct flow_key *key, __u32 frontend)
{
	const volatile __u64 *word = bpf_map_lookup_elem(&published, &frontend);
	if (!word)
		return BACKEND_REJECT;
	__u64 ring = *word; /* once: the next load may see another ring */
	__u64 offset = ring & ((1 << RING_OFFSET_BITS) - 1);
	__u64 size = ring >> RING_OFFSET_BITS & ((1 << RING_SIZE_BITS) - 1);
	__u32 slot = offset + (client_hash(key) * size >> 32);
	__u32 element = slot / 2;
	const __u64 *two = size ? bpf_map_lookup_elem(&rings, &element) : NULL;
	return two ? *two >> (slot & 1) * 32 : BACKEND_REJECT;
}

/* Sends a translated packet on. */
static __always_inline int send(struct __sk_buff *ctx, struct packet *p)
{
	if (p->to.flags & FLOW_REENTER)
		return turn_round(ctx, p);
	if (p->to.flags & FLOW_REPLY && p->to.flags & FLOW_HOST)
		return redirect_to_host(ctx, p);
	if (p->to.flags & FLOW_STACK)
		return TCX_NEXT;
	return p->route.ifindex == LOOPBACK_IFINDEX ? redirect_to_host(ctx, p) : redirect(ctx, p);
}

/* What a failed route means for a packet that is ours. */
static __always_inline int unroutable(struct __sk_buff *ctx, struct packet *p, enum routed why)
{
	switch (why) {
	case ROUTE_TOO_BIG:
		return answer_too_big(ctx, p, p->route.mtu);
	case ROUTE_FORWARDING_OFF:
		return drop(COUNTER_DROP_FORWARDING_OFF);
	default:
		return drop(COUNTER_DROP_NO_ROUTE);
	}
}

/*
 * Finds the way for a packet that gets the tuple p->to. Returns 0, or a verdict.
 * The hop limit, in *hop_limit, goes down where we stand in for the router.
 */
static __always_inline int route_flow(struct __sk_buff *ctx, struct packet *p, __u8 *hop_limit)
{
	const struct flow *to = &p->to;

	*hop_limit = p->hop_limit;
	if (to->flags & (FLOW_STACK | FLOW_REENTER))
		return 0;
	if (!p->host) {
		if (p->hop_limit <= 1)
			return to->flags & FLOW_REPLY ? drop(COUNTER_DROP_HOP_LIMIT) : pass(COUNTER_HOP_LIMIT_PASSED);
		*hop_limit -= 1;
	}
	enum routed rc = find_route(ctx, p, &to->src, &to->dst);
	if (rc == ROUTED)
		return 0;
	if (rc != ROUTE_LOCAL || !p->host)
		return unroutable(ctx, p, rc);
	p->route.ifindex = LOOPBACK_IFINDEX; /* a socket of this host to another one */
	return 0;
}

/* The backend of a flow is gone: tells the client, from whichever side the packet came. */
static __always_inline int reset(struct __sk_buff *ctx, struct packet *p, struct flow *f)
{
	__u8 hop_limit;
	bool reply = f->flags & FLOW_REPLY;

	p->to = *f;
	forget(&p->key, f);
	if (p->key.protocol != IPPROTO_TCP || p->fragment != WHOLE)
		return reply || p->fragment != WHOLE ? drop(COUNTER_REJECT_BACKEND_GONE) : BEGIN_ANEW;
	if (!reply)
		return p->tcp_flags & TCP_SYN ? BEGIN_ANEW : answer_rst(ctx, p, COUNTER_REJECT_BACKEND_GONE);

	/* The backend's own packet becomes the RST: its sequence number is the one that the client expects. */
	p->segment = p->l4 - p->l3 + sizeof(struct tcphdr);
	int verdict = route_flow(ctx, p, &hop_limit);
	if (verdict)
		return verdict;
	p->rst.seq = p->seq;
	p->rst.ack = p->ack;
	p->rst.flags = TCP_RST | TCP_ACK;
	if (!make_rst(ctx, p))
		return drop(COUNTER_DROP_ERROR);
	count(COUNTER_REJECT_BACKEND_GONE);
	return send(ctx, p);
}

static __noinline void remember_fragment(const struct packet *p)
{
	struct fragment_key key = {
		.src = p->key.src, .dst = p->key.dst, .id = p->fragment_id, .next = p->fragment_next
	};
	struct fragment ports = { .sport = p->key.sport, .dport = p->key.dport, .protocol = p->key.protocol };
	bpf_map_update_elem(&fragments, &key, &ports, BPF_ANY);
}

/*
 * An unanswered flow whose reply entry was evicted would never hear its
 * backend. An entry that is missing because another CPU is just establishing
 * the flow is in `flows` already, and so is this one.
 */
__noinline bool half_evicted(const struct flow_key *key, const struct flow *f)
{
	struct flow_key k;
	if (!key || !f)
		return false;
	peer_key(key, f, &k);
	return !bpf_map_lookup_elem(&new_flows, &k) && !bpf_map_lookup_elem(&flows, key);
}

/* Notes what a packet says of its flow's age and end. */
static __always_inline void touch(const struct packet *p, struct flow *f, __u32 tick)
{
	if (f->last_seen != tick) /* spares the cache line where nothing changed */
		f->last_seen = tick;
	__u32 end = (p->tcp_flags & TCP_FIN ? FLOW_FIN : 0) | (p->tcp_flags & TCP_RST ? FLOW_RST : 0);
	if (end & ~f->flags)
		__sync_fetch_and_or(&f->flags, end);
}

/* Is this the hook where packets of the flow are translated? */
static __always_inline bool right_hook(const struct packet *p, const struct flow *f)
{
	return !(f->flags & FLOW_REPLY) || p->egress == !!(f->flags & FLOW_EGRESS);
}

/*
 * How long a port of ours that the host uses stays noted. While a TCP
 * connection lasts: as RFC 5382, REQ-5, has a NAT do. Else as long as conntrack
 * keeps a tuple by default: that of UDP, and what TCP leaves behind.
 */
#define HOST_TCP_TICKS (__u32)(7440000000000ULL >> TICK_SHIFT)
#define HOST_TICKS (__u32)(120000000000ULL >> TICK_SHIFT)

/* An answer to the host itself. */
static __always_inline int still_used(const struct packet *p, struct flow *note, __u32 tick)
{
	touch(p, note, tick);
	if (p->key.protocol == IPPROTO_TCP)
		note->idle_ticks = note->flags & (FLOW_FIN | FLOW_RST) ? HOST_TICKS : HOST_TCP_TICKS;
	return pass(COUNTER_NOT_OURS);
}

/*
 * Serves a packet of a known flow. Returns a verdict, or BEGIN_ANEW where the
 * flow is over and the packet may begin another.
 */
__noinline int serve(struct __sk_buff *ctx, struct packet *p, struct flow *f)
{
	__u8 hop_limit;

	if (!p || !f)
		return TC_ACT_SHOT;
	if (!right_hook(p, f))
		return pass(COUNTER_NOT_OURS);
	if (backend_gone(f))
		return reset(ctx, p, f);
	__u32 tick = now();
	if (is_note(&p->key, f))
		return still_used(p, f, tick);
	if (idle(f, tick) && expired(&p->key, f)) {
		count(COUNTER_FLOW_EXPIRED);
		forget(&p->key, f);
		return BEGIN_ANEW;
	}
	bool fresh = !(f->flags & FLOW_ESTABLISHED);
	if (fresh && !(f->flags & FLOW_REPLY) && half_evicted(&p->key, f))
		return BEGIN_ANEW;
	touch(p, f, tick);
	p->to = *f;
	int verdict = route_flow(ctx, p, &hop_limit);
	if (verdict)
		return verdict;

	bool reply = p->to.flags & FLOW_REPLY;
	if (p->fragment == FIRST_FRAGMENT)
		remember_fragment(p);
	if (fresh && reply && !(p->tcp_flags & TCP_RST))
		note_answer(p, f);
	if (fresh && !reply && establishes(p, f))
		establish(p);
	if (!rewrite(ctx, p, &p->to, hop_limit))
		return drop(COUNTER_DROP_ERROR);
	if (p->to.backend == BACKEND_REJECT)
		count(COUNTER_HOST_TRANSLATED);
	else
		count(reply ? COUNTER_REPLIED : COUNTER_FORWARDED);
	count_packet(p->to.frontend, p->len, reply);
	return send(ctx, p);
}

/* Refuses a packet of a frontend that has nobody to serve it. */
static __always_inline int reject(struct __sk_buff *ctx, struct packet *p, __u32 frontend)
{
	count_rejected(frontend);
	if (p->key.protocol == IPPROTO_TCP && p->fragment == WHOLE)
		return answer_rst(ctx, p, COUNTER_REJECT_NO_BACKEND);
	return drop(COUNTER_REJECT_NO_BACKEND);
}

/*
 * Claims a source port of ours for the flow, starting where the client's hash
 * points so that clients rarely meet. Both entries get it.
 */
static __always_inline bool claim_port(struct packet *p, struct flow_key *reply_key)
{
	const struct config *c = config();
	__u32 ports = c && c->snat_max >= c->snat_min ? c->snat_max - c->snat_min + 1 : 0;
	if (!ports)
		return false;
	__u32 start = client_hash(&p->key) % ports;
	for (int i = 0; i < 2 * PORT_TRIES; i++) {
		/* No branch that the verifier would follow both ways each time. */
		p->to.sport = reply_key->dport = bpf_htons(c->snat_min + (start + i) % ports);
		if (claim(reply_key, &p->reply, i >= PORT_TRIES))
			return true;
	}
	return false;
}

/* Decides which way a new flow goes, and with which source. Returns 0, or a verdict. */
static __always_inline int choose_way(struct __sk_buff *ctx, struct packet *p, bool local)
{
	struct addr any = {};
	struct flow *to = &p->to;

	if (local && p->egress && ctx->ifindex != LOOPBACK_IFINDEX) {
		to->flags = FLOW_SNAT | FLOW_REENTER;
		to->src = p->key.dst;
		return 0;
	}
	enum routed rc = find_route(ctx, p, &any, &to->dst);
	/* Its own client, seen on a bridge's port: the FIB names the bridge. */
	bool hairpin = same_addr(&p->key.src, &to->dst) || (rc == ROUTED && p->route.ifindex == ctx->ifindex);
	if (local && !p->egress && !hairpin) {
		to->flags = FLOW_STACK;
	} else if (rc == ROUTED) {
		to->flags = FLOW_SNAT;
		to->src = p->route.src;
	} else if (rc == ROUTE_LOCAL && local && p->host) {
		to->flags = FLOW_SNAT;
		to->src = to->dst;
	} else {
		return unroutable(ctx, p, rc);
	}
	if (p->host)
		to->flags |= FLOW_HOST;
	return is_zero(&to->src) ? drop(COUNTER_DROP_NO_SOURCE) : 0;
}

/* Makes p->reply, the entry of the other direction, and its key from p->to. */
static __always_inline void mirror(struct packet *p, struct flow_key *key)
{
	struct flow *reply = &p->reply;

	*reply = p->to;
	reply->src = p->key.dst;
	reply->sport = p->key.dport;
	reply->dst = p->key.src;
	reply->dport = p->key.sport;
	reply->flags |= FLOW_REPLY;
	peer_key(&p->key, &p->to, key);
}

/* Makes the forward entry of a new flow whose reply tuple is claimed, or gives that back. */
static __always_inline bool enter(struct packet *p, const struct flow_key *reply_key)
{
	if (!bpf_map_update_elem(&new_flows, &p->key, &p->to, BPF_ANY))
		return true;
	bpf_map_delete_elem(&new_flows, reply_key);
	return false;
}

/* Begins a flow with a backend that its frontend's ring has picked. Returns 0 with both entries made, or a verdict. */
__noinline int begin(struct __sk_buff *ctx, struct packet *p, const struct frontend *fe, __u32 id)
{
	if (!p || !fe)
		return TC_ACT_SHOT;
	const struct backend *b = bpf_map_lookup_elem(&backends, &id);
	if (!b || !(b->generation & 1))
		return reject(ctx, p, fe->index);

	struct flow *to = &p->to, *reply = &p->reply;
	to->src = p->key.src;
	to->sport = p->key.sport;
	to->dst = b->addr;
	to->dport = b->port;
	to->backend = id;
	to->generation = b->generation;
	to->frontend = fe->index;
	to->last_seen = now();
	to->idle_ticks = fe->idle_ticks;
	to->ack = 0;
	int verdict = choose_way(ctx, p, b->flags & BACKEND_LOCAL);
	if (verdict)
		return verdict;

	struct flow_key key;
	mirror(p, &key);
	if (to->flags & (FLOW_STACK | FLOW_REENTER))
		reply->flags |= FLOW_EGRESS;
	else if (p->egress)
		reply->flags |= FLOW_STACK;
	if (!(to->flags & FLOW_STACK && claim(&key, reply, false))) {
		if (!claim_port(p, &key))
			return drop(COUNTER_DROP_PORTS_EXHAUSTED);
		if (to->flags & FLOW_STACK)
			count(COUNTER_FLOW_PORT_CHANGED);
	}
	if (!enter(p, &key))
		return drop(COUNTER_DROP_NEW_FLOW);
	count(COUNTER_FLOW_NEW);
	count_new_flow(fe->index, id);
	return 0;
}

/*
 * The host itself sends from a port of ours: what masquerades chooses among
 * all ports, and does not know our flows. Two connections with one tuple would
 * take each other's answers, so who comes later gets another port. That is
 * why the tuple of the host's is noted, and where a flow has it already, the
 * host's is translated. Returns 0 if so, with both entries made; BEGIN_ANEW if
 * the packet may leave as it is; or a verdict.
 *
 * TCP is looked at where connections begin and end only.
 */
__noinline int keep_apart(struct packet *p)
{
	struct flow_key answer;

	if (!p)
		return TC_ACT_SHOT;
	bool tcp = p->key.protocol == IPPROTO_TCP;
	if (tcp && !(p->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST)))
		return BEGIN_ANEW;

	struct flow *to = &p->to, *reply = &p->reply;
	__builtin_memset(to, 0, sizeof(*to));
	to->src = p->key.src;
	to->sport = p->key.sport;
	to->dst = p->key.dst;
	to->dport = p->key.dport;
	to->frontend = NO_FRONTEND;
	to->last_seen = now();
	to->idle_ticks = HOST_TICKS;
	to->flags = FLOW_SNAT | FLOW_STACK;
	mirror(p, &answer);

	bool begins = !tcp || (p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_FIN | TCP_RST)) == TCP_SYN;
	struct flow *taken = find_flow(&answer);
	if (taken && is_note(&answer, taken) && !(tcp && begins)) {
		touch(p, taken, to->last_seen);
		if (tcp)
			taken->idle_ticks = HOST_TICKS;
		return BEGIN_ANEW;
	}
	if (!begins)
		return BEGIN_ANEW;
	/* What is answered elsewhere than where it would be stolen: a client's own packet, behind us. */
	if (taken && (!(taken->flags & FLOW_REPLY) || taken->flags & FLOW_EGRESS))
		return BEGIN_ANEW;
	struct frontend_key own = { .addr = p->key.src, .port = p->key.sport, .protocol = p->key.protocol };
	if (bpf_map_lookup_elem(&frontends, &own))
		return BEGIN_ANEW; /* another program's answer: it serves the frontend before us */
	if (claim(&answer, reply, false))
		return BEGIN_ANEW;
	if (tcp)
		to->idle_ticks = reply->idle_ticks = HOST_TCP_TICKS;
	if (!claim_port(p, &answer))
		return drop(COUNTER_DROP_PORTS_EXHAUSTED);
	return enter(p, &answer) ? 0 : drop(COUNTER_DROP_NEW_FLOW);
}

#endif /* BLIXT_FORWARD_H */
