/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * announce.h - tells the node of a backend who the client of a flow is, so that
 * the backend sees its client though the source is translated to this node's. The
 * program at that node undoes the translation: see undo.h.
 *
 * The first packets of a flow carry the message themselves. So nothing can come in
 * another order, and whoever does not know of it serves the packet as it is. A
 * message goes ahead, alone, of a packet that has no room for it: of a large or
 * fragmented datagram, a SYN with data, or the segment of a connection that
 * began at another node, or before this program. For that a copy of the packet is sent, and
 * the program turns it into the message when it sees it leave.
 */
#ifndef BLIXT_ANNOUNCE_H
#define BLIXT_ANNOUNCE_H

#include "announcement.h"
#include "fragment.h"
#include "ports.h"

/* Reports whether flows to a backend with these flags are announced that begin now. */
static __always_inline bool may_announce(__u32 backend_flags)
{
	const struct announce_config *c = announcing_config();
	return c && c->flags & ANNOUNCING_TELL && backend_flags & (BACKEND_HEARS_WITHIN | BACKEND_HEARS_ALONE);
}

/* Reports whether the packet has room for a message, as far as the MTU allows. */
static __always_inline bool has_room(struct __sk_buff *ctx, const struct packet *p)
{
	return p->fragment == WHOLE && !p->surplus && !ctx->gso_size && !p->payload;
}

/* Has the flow of the forward entry f not announce its client any more. Questions are answered accordingly. */
static __always_inline void stop_announcing(const struct packet *p, struct flow *f)
{
	struct flow_key k;
	peer_key(&p->key, f, &k);
	struct flow *own = find_flow(&p->key), *reply = find_flow(&k); /* f may be a copy */
	f->flags &= ~FLOW_ANNOUNCED;
	if (own)
		__sync_fetch_and_and(&own->flags, ~FLOW_ANNOUNCED);
	if (reply)
		__sync_fetch_and_and(&reply->flags, ~FLOW_ANNOUNCED);
}

/* Reports whether the backend of a UDP flow, of which f is the forward entry, has answered. */
static __always_inline bool has_answered(const struct packet *p, const struct flow *f)
{
	struct flow_key k;
	peer_key(&p->key, f, &k);
	const struct flow *reply = find_evictable(&k);
	return reply && reply->flags & FLOW_ANSWERED;
}

/*
 * Decides how the packet announces the client of its flow, of which f is the
 * forward entry, with FLOW_ANNOUNCED. Sets p->announce.
 */
__noinline int decide_how(struct __sk_buff *ctx, struct packet *p, struct flow *f, __u32 backend_flags)
{
	if (!p || !f || p->fragment == LATER_FRAGMENT)
		return 0;
	bool fits = has_room(ctx, p);
	__u8 how = fits && backend_flags & BACKEND_HEARS_WITHIN ? ANNOUNCE_WITHIN : backend_flags & BACKEND_HEARS_ALONE ? ANNOUNCE_AHEAD : ANNOUNCE_NOT;

	if (!may_announce(backend_flags))
		how = ANNOUNCE_NOT;
	if (is_udp(&p->key)) {
		__u32 tick = now();
		if (f->ack >= ANNOUNCE_ALWAYS && (f->ack >= ANNOUNCE_UNANSWERED || has_answered(p, f)) && tick - f->next < ANNOUNCE_INTERVAL)
			return 0;
		if (how != ANNOUNCE_NOT && !p->checked) { /* the first one was counted when the flow began */
			f->ack += 1;
			f->next = tick;
		}
	} else if (is_syn(p)) {
		if (how == ANNOUNCE_NOT || (!(f->flags & FLOW_ESTABLISHED) && f->fin >= ANNOUNCED_SYNS)) {
			stop_announcing(p, f);
			return 0;
		}
		if (!(f->flags & FLOW_ESTABLISHED) && !p->checked)
			f->fin += 1;
	} else if (!p->checked || how != ANNOUNCE_AHEAD) {
		return 0; /* in the middle of a connection, whose node knows the client, or asks */
	}
	p->announce = how;
	p->hears_alone = backend_flags & BACKEND_HEARS_ALONE;
	return 0;
}

/* Remembers that TCP flows to the backend p->to.dst are announced. */
static __always_inline void remember_announced(const struct packet *p)
{
	struct frontend_key key = { .addr = p->to.dst, .port = p->to.dport, .protocol = IPPROTO_TCP };
	__u32 none = 0;
	if (!bpf_map_lookup_elem(&announced_backends, &key))
		bpf_map_update_elem(&announced_backends, &key, &none, BPF_ANY);
}

/*
 * Reports whether the segment, which has come in and is of no flow, is one of a
 * connection whose flow this program has lost. The host would reset it. But the
 * client's next segment, here or at another node, makes a flow for it again.
 *
 * During an upgrade the flow may have been of the program in front, whatever its port:
 * where that is detached from this hook first, it still serves what comes in by others.
 */
__noinline bool is_lost(struct __sk_buff *ctx, const struct packet *p)
{
	if (!p || is_udp(&p->key) || p->tcp_flags & TCP_SYN || p->fragment != WHOLE || draining())
		return false;
	const struct announce_config *c = announcing_config();
	if (!in_snat_range(p->key.dport) && !(upgrading() && c && is_peers_port(c, p->key.dport)))
		return false;
	struct frontend_key key = { .port = p->key.sport, .protocol = IPPROTO_TCP };
	key.addr = p->key.src;
	return bpf_map_lookup_elem(&announced_backends, &key) && !reserved(&p->key) && find_socket(ctx, p, false) == NO_SOCKET;
}

/* Sets what p->told says of the client `client` of the frontend `service`. */
static __always_inline void set_client(struct packet *p, const struct addr *client, __be16 port, const struct addr *service, __be16 service_port,
				       __u32 idle_ticks)
{
	struct announcement *m = &p->told.message;
	m->client = *client;
	m->port = port;
	m->service = bpf_htons(service_hash(service, service_port));
	m->idle = exponent(idle_ticks);
}

/* Returns for how long a flow to p->key.dst may be without packets. */
static __always_inline __u32 idle_ticks_of(const struct packet *p)
{
	struct frontend_key k = { .addr = p->key.dst, .port = p->key.dport, .protocol = p->key.protocol };
	const struct frontend *fe = find_frontend(&k);
	return fe ? fe->idle_ticks : p->to.idle_ticks;
}

/* Sets p->told to what announces the client of the flow p->to, whose packet this is. Returns false if that is not possible. */
static __always_inline bool make_announcement(struct packet *p, __u8 flags)
{
	const struct flow *to = &p->to;

	set_client(p, &p->key.src, p->key.sport, &p->key.dst, p->key.dport, idle_ticks_of(p));
	set_carrier(p, &to->src, &to->dst, to->sport, to->dport);
	if (!complete_message(p, flags, bpf_htonl(announcement_time())))
		return false;
	if (is_udp(&p->key)) {
		struct flow_key k;
		peer_key(&p->key, to, &k);
		__u32 *at = announced_at(&k);
		if (at)
			*at = now();
	}
	count(COUNTER_ANNOUNCED);
	return true;
}

/* Has the packet carry the message. Called before the packet is rewritten. Returns false if the kernel rejected a part. */
__noinline bool announce_within(struct __sk_buff *ctx, struct packet *p)
{
	return p && (!make_announcement(p, 0) || append_message(ctx, p));
}

/* Reports whether the program sees packets leave by this interface. */
static __always_inline bool has_egress_program(__u32 ifindex)
{
	__u32 i = ifindex % MAX_LINKS;
	const __u32 *linked = bpf_map_lookup_elem(&egress_links, &i);
	return linked && *linked;
}

/* Sends the message in front of the packet, which has been rewritten and is about to leave by p->route. */
__noinline int announce_ahead(struct __sk_buff *ctx, struct packet *p)
{
	if (!p || !p->route.has_macs || p->l3 != ETH_HLEN || ctx->vlan_present || !has_egress_program(p->route.ifindex))
		return 0;
	bool tcp = p->key.protocol == IPPROTO_TCP, opens = tcp && p->tcp_flags & TCP_SYN;
	if (!make_announcement(p, ANNOUNCEMENT_ALONE | (opens ? ANNOUNCEMENT_OPENS : 0)))
		return 0;
	p->rst.seq = p->seq;
	p->rst.ack = p->ack;
	p->rst.flags = opens ? TCP_SYN : TCP_ACK;
	if (bpf_skb_store_bytes(ctx, 0, p->route.macs, sizeof(p->route.macs), 0))
		return 0;
	p->ahead = true;
	set_mark(ctx, AHEAD);
	bpf_clone_redirect(ctx, p->route.ifindex, 0);
	set_mark(ctx, 0);
	p->ahead = false;
	return 0;
}

/* Turns the copy of a packet into the message that goes ahead of it. Of *p it uses what announce_ahead has set. */
__noinline int become_message(struct __sk_buff *ctx, struct packet *p)
{
	if (!p || !write_alone(ctx, p))
		return drop(COUNTER_DROP_ERROR);
	set_mark(ctx, LEAVING);
	return TCX_NEXT;
}

/*
 * Answers the question, which has come in, whose packets those are that it is the
 * reply to. `reply` is its entry, or NULL. Returns the verdict.
 */
static __always_inline int answer_question(struct __sk_buff *ctx, struct packet *p, const struct flow *reply)
{
	clear_message(p);
	__u8 flags = ANNOUNCEMENT_PLAIN;
	if (reply) {
		p->to = *reply;
		if (same_flow(&p->key, reply) && p->to.flags & FLOW_ANNOUNCED) {
			flags = 0;
			set_client(p, &p->to.dst, p->to.dport, &p->to.src, p->to.sport, p->to.idle_ticks);
			count(COUNTER_ANNOUNCED);
		}
	}
	if (!may_answer(SHARE_QUESTIONS))
		return drop(COUNTER_DROP_ANSWER_LIMIT);
	p->rst.seq = p->ack;
	p->rst.ack = p->seq;
	p->rst.flags = TCP_ACK;
	return send_message_back(ctx, p, flags, bpf_htonl(announcement_time()));
}

#endif /* BLIXT_ANNOUNCE_H */
