/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* forward.h - what happens to a packet of a flow: a new one begins, a known one is served or reset. */
#ifndef BLIXT_FORWARD_H
#define BLIXT_FORWARD_H

#include "announce.h"
#include "close.h"
#include "established.h"
#include "held.h"
#include "hostports.h"
#include "policy.h"
#include "record.h"
#include "source.h"
#include "trust.h"

/*
 * Ends a flow whose backend or source is gone: its client gets a RST, whichever
 * side sent the packet. Returns a verdict, or NO_FLOW if the packet may begin a new flow.
 */
static __always_inline int reset_flow(struct __sk_buff *ctx, struct packet *p, struct flow *f)
{
	__u8 hop_limit;

	if (f->flags & FLOW_GONE)
		return serve_tombstone(ctx, p, f);
	p->to = *f;
	if (!same_flow(&p->key, f))
		return NO_FLOW;
	bool reply = p->to.flags & FLOW_REPLY;
	bury(p, &p->to);
	if (p->key.protocol != IPPROTO_TCP || p->fragment != WHOLE)
		return reply || p->fragment != WHOLE ? drop(COUNTER_REJECT_BACKEND_GONE) : NO_FLOW;
	if (!reply)
		return p->tcp_flags & TCP_SYN ? NO_FLOW : answer_rst(ctx, p, COUNTER_REJECT_BACKEND_GONE, UNLIMITED);

	if (has_protected_client(p, &p->to))
		return drop(COUNTER_DROP_PROTECTED);
	/* The backend's own packet becomes the RST: it has the sequence number that the client expects. */
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
	return send_translated(ctx, p);
}

/*
 * Ends the flow p->to, which would be established now and is one too many for a policy. The
 * backend gets a RST in place of the client's segment. It answers the client's next one
 * with its own RST, as it knows the connection no more. A UDP client misses the answer alone.
 */
__noinline int end_refused(struct __sk_buff *ctx, struct packet *p)
{
	if (!p)
		return TC_ACT_SHOT;
	p->ended = RECORD_RESET;
	bury(p, &p->to);
	if (is_udp(&p->key) || p->fragment != WHOLE)
		return drop(COUNTER_REJECT_CONCURRENT);
	sample(ctx, p, COUNTER_REJECT_CONCURRENT);
	p->rst.seq = p->seq;
	p->rst.ack = p->ack;
	p->rst.flags = TCP_RST | TCP_ACK;
	if (!make_rst(ctx, p))
		return drop(COUNTER_DROP_ERROR);
	count(COUNTER_REJECT_CONCURRENT);
	return send_translated(ctx, p);
}

/*
 * Reports whether the packet may leave its flow, whose backend does not serve
 * any more: it is a datagram, and the ring has another backend for it. A later
 * fragment goes where the first one went.
 */
__noinline bool may_leave(const struct packet *p, const struct flow *f)
{
	if (!p || !f || f->flags & FLOW_REPLY || p->key.protocol != IPPROTO_UDP || p->fragment == LATER_FRAGMENT)
		return false;
	struct frontend_key k = { .addr = p->key.dst, .port = p->key.dport, .protocol = p->key.protocol };
	const struct frontend *fe = find_frontend(&k);
	if (!fe || fe->index != f->frontend)
		return false;
	__u32 id = select_backend(&p->key, fe);
	return id != BACKEND_REJECT && id != f->backend;
}

/*
 * Ends a flow that has expired. A reply of a backend on this node is dropped, as
 * it would leave with the backend's own address. Returns a verdict, or NO_FLOW
 * if the packet may begin a new flow.
 */
static __always_inline int expire(struct packet *p, struct flow *f)
{
	bool bare = f->flags & FLOW_REPLY && is_local(f);

	count(COUNTER_FLOW_EXPIRED);
	p->ended = RECORD_IDLE;
	bury(p, f);
	return bare ? drop(COUNTER_DROP_FLOW_GONE) : NO_FLOW;
}

/* Not a verdict: the flow has to get another source first. */
#define OTHER_SOURCE (NO_FLOW - 1)
/* Not a verdict: the flow p->to would be established, and is one too many for a policy. */
#define TOO_MANY (NO_FLOW - 2)

/*
 * Serves a packet of the flow f. Returns a verdict; or NO_FLOW if the flow does
 * not live any more and the packet may begin a new one; or OTHER_SOURCE or TOO_MANY, see
 * serve_flow.
 *
 * The order of the steps matters:
 *
 * 1. The hook comes first. The same packet may be seen at two hooks; at the
 *    other one it must pass unchanged. Translated before conntrack has seen it,
 *    it would leave conntrack with half a connection. Nothing is done for a
 *    packet that is not believed. It passes: where devices are stacked, we see it again.
 * 2. The backend is checked before anything uses the entry. The element of a
 *    backend that is gone may be in use for another endpoint, and a refresh
 *    would keep a dead flow alive.
 * 3. Expiry is judged before the refresh, which makes every flow look alive.
 *    A half evicted flow begins again before it is refreshed and sent: its
 *    backend's answers would not be recognized. A half-open flow is checked at
 *    each packet, a UDP flow once a tick; the check also tells the LRU table
 *    that the other direction's entry is in use. So is a UDP flow whose port the
 *    host has a socket for by now (hostsockets.h). And so does one whose source is
 *    gone get another, before it is copied (source.h). Once a tick a flow ends
 *    whose client the host's IPsec policies have come to cover (ipsec.h).
 * 4. The refresh precedes the copy to p->to, which `establish` stores.
 * 5. From the copy on only p->to is used for translation: another CPU may end
 *    the flow and reuse its element at any time. If it has done so before the
 *    copy was complete, the tag tells.
 * 6. The route comes before every change. If there is none, the packet must be
 *    unchanged: an ICMP error quotes it, or the stack takes it. And a packet that
 *    is not sent must neither answer nor establish a flow.
 * 7. Fragments, the answer, the establishment and the end are stored before
 *    the packet leaves: another CPU may receive what follows it at once. The
 *    last one looks the entries up again, as the flow may just have moved.
 * 8. Counters come after the last step that may fail, so that a packet counts
 *    once: as sent, or as dropped.
 * 9. What follows in this tick is served from the slot that is filled here.
 */
__noinline int serve(struct __sk_buff *ctx, struct packet *p, struct flow *f)
{
	__u8 hop_limit;

	if (!p || !f)
		return TC_ACT_SHOT;
	if (!translates_here(p, f)) /* 1 */
		return pass(COUNTER_NOT_OURS);
	if (!comes_as_expected(ctx, p, f)) /* 1 */
		return pass(COUNTER_WRONG_DEVICE);
	settle(&p->key, f);
	const struct backend *b = bpf_map_lookup_elem(&backends, &f->backend); /* 2 */
	if (!b || b->generation != f->generation) {
		p->ended = RECORD_BACKEND_GONE;
		goto reset;
	}
	if (b->flags & BACKEND_NOT_SERVING && may_leave(p, f)) {
		p->ended = RECORD_MOVED;
		bury(p, f);
		return NO_FLOW;
	}
	__u32 tick = now();
	if (idle(f, tick) && expired(&p->key, f)) /* 3 */
		return expire(p, f);
	bool fresh = !(f->flags & (FLOW_ESTABLISHED | FLOW_CLOSED)) && !is_udp(&p->key);
	p->due = fresh || p->checked || f->last_seen != tick;
	bool check = p->due && !p->checked; /* 3; a flow that has just begun is in order */
	if (check && (fresh || is_udp(&p->key)) && !(f->flags & FLOW_REPLY) && half_evicted(&p->key, f))
		return NO_FLOW;
	if (check && is_udp(&p->key) && !(f->flags & (FLOW_REPLY | FLOW_UNDONE)) && host_took_over(ctx, p)) {
		p->ended = RECORD_REPLACED;
		bury(p, f);
		return NO_FLOW;
	}
	if (f->last_seen != tick && !p->checked && has_fib_source(f) && p->fragment != LATER_FRAGMENT) { /* 3 */
		enum source source = check_source(ctx, p, f);
		if (source == SOURCE_CHANGES)
			return OTHER_SOURCE;
		if (source == SOURCE_LOST) {
			p->ended = RECORD_SOURCE_GONE;
			goto reset;
		}
	}
	if (p->due && has_protected_client(p, f)) {
		p->ended = RECORD_PROTECTED;
		bury(p, f);
		return drop(COUNTER_DROP_PROTECTED);
	}
	if (f->flags & FLOW_ANNOUNCED && !(f->flags & FLOW_REPLY))
		decide_how(ctx, p, f, b->flags);
	if (p->announce == ANNOUNCE_WITHIN)
		p->segment += TAIL_LEN + 1;
	bool busy = is_busy(p, f); /* 4 */
	refresh(p, f, tick);	      /* 4 */
	p->to = *f;		      /* 5 */
	if (!same_flow(&p->key, f)) /* 5 */
		return NO_FLOW;
	int verdict = route_flow(ctx, p, &hop_limit); /* 6 */
	if (verdict)
		return verdict;

	bool reply = p->to.flags & FLOW_REPLY;
	if (p->fragment != WHOLE && !prepare_fragment(ctx, p)) /* 7 */
		return drop(COUNTER_DROP_ERROR);
	if (fresh && reply && !(p->tcp_flags & TCP_RST))
		record_answer(p, f);
	if (fresh && !reply && establishes(p, &p->to) && begin_concurrent(p, &p->key.src, p->to.frontend, p->to.flags)) {
		if (!establish(p, f))
			note_end(p, &p->key.src, p->to.frontend);
		else if (p->reply.flags & FLOW_AFFINITY)
			remember_client(&p->reply, &p->to.dst, IPPROTO_TCP, true);
	}
	if (p->refused)
		return TOO_MANY;
	if (may_end(p))
		record_end(p);
	if (p->announce == ANNOUNCE_WITHIN && !announce_within(ctx, p))
		return drop(COUNTER_DROP_ERROR);
	if (!rewrite(ctx, p, &p->to, hop_limit))
		return drop(COUNTER_DROP_ERROR);
	if (p->announce == ANNOUNCE_AHEAD)
		announce_ahead(ctx, p);
	if (p->to.backend == BACKEND_REJECT) /* 8 */
		count(p->to.flags & FLOW_UNDONE ? COUNTER_UNDONE : COUNTER_HOST_TRANSLATED);
	else
		count(reply ? COUNTER_REPLIED : COUNTER_FORWARDED);
	count_packet(p->to.frontend, p->len - p->grown, reply);
	if (p->to.flags & FLOW_RECORDED) {
		record_packet(p);
		if (p->ended)
			write_end(p, p->ended, p->ended_by);
	}
	if (busy)
		fill_slot(ctx, p); /* 9 */
	return send_translated(ctx, p);

reset:
	return reset_flow(ctx, p, f);
}

/*
 * Serves a packet of the flow f, as serve does. If the flow has to go on with
 * another source, it gets that first; if it is one too many, it ends. This is not
 * done in serve itself, as its stack would be too deep then.
 */
static __always_inline int serve_flow(struct __sk_buff *ctx, struct packet *p, struct flow *f)
{
	int verdict = serve(ctx, p, f);
	if (verdict == TOO_MANY)
		return end_refused(ctx, p);
	if (verdict != OTHER_SOURCE)
		return verdict;
	p->checked = true;
	if (change_source(p, f))
		f = find_evictable(&p->key);
	return f ? serve(ctx, p, f) : NO_FLOW;
}

/* Rejects a packet of a frontend that has no backend for it. */
static __always_inline int reject_no_backend(struct __sk_buff *ctx, struct packet *p, const struct frontend *fe)
{
	count_rejected(fe->index);
	if (!(fe->flags & FRONTEND_DROP_NO_BACKEND) && p->key.protocol == IPPROTO_TCP && p->fragment == WHOLE)
		return answer_rst(ctx, p, COUNTER_REJECT_NO_BACKEND, SHARE_FRONTENDS + fe->index);
	return drop(COUNTER_REJECT_NO_BACKEND);
}

/*
 * Reports whether the id is one of a backend of the frontend that has a port for the packet. The ring may be
 * an earlier one, and its id in use again for another frontend's.
 */
static __always_inline bool is_backend_of(__u32 id, const struct frontend *fe, __be16 port)
{
	const struct backend *b = id == BACKEND_REJECT ? NULL : bpf_map_lookup_elem(&backends, &id);
	return b && b->generation & 1 && b->frontend == fe->index && port_at_backend(fe, port, b->port);
}

/* Ends the undone flow of the new one's connection: its client came in by another node so far, and comes in here now. */
__noinline int take_over(struct packet *p)
{
	if (!p)
		return 0;
	struct flow *r = find_flow(&p->reply_key);
	if (r && r->flags & FLOW_UNDONE && r->ref == connection(&p->key.dst, p->key.dport, p->key.sport) && is_clients_reply(p, r))
		forget(p, &p->reply_key, r);
	return 0;
}

/* Sets what the new flow p->to is counted and timed by. */
__noinline int begin_measuring(struct packet *p)
{
	if (!p)
		return 0;
	const struct backend *b = bpf_map_lookup_elem(&backends, &p->to.backend);
	if (b)
		p->to.ref = b->ref;
	if (!is_udp(&p->key))
		p->to.syn = time_in_units();
	return 0;
}

/*
 * Begins a flow to the backend `id` that the frontend's ring has selected. Returns 0
 * with both entries inserted, of which p->to is the forward one, or a verdict.
 */
__noinline int begin_flow(struct __sk_buff *ctx, struct packet *p, const struct frontend *fe, __u32 id)
{
	if (!p || !fe)
		return TC_ACT_SHOT;
	const struct backend *b = bpf_map_lookup_elem(&backends, &id);
	if (!b)
		return TC_ACT_SHOT;
	__be16 port = port_at_backend(fe, p->key.dport, b->port);
	if (is_link_local(p, &p->key.src) && !p->host)
		return drop(COUNTER_DROP_MARTIAN);
	if (has_protected_sender(p))
		return drop(COUNTER_DROP_PROTECTED);

	struct flow *to = &p->to;
	enum way way;
	__builtin_memset(to, 0, sizeof(*to));
	to->sport = p->key.sport;
	to->dst = b->addr;
	to->dport = port;
	to->backend = id;
	to->generation = b->generation;
	to->frontend = fe->index;
	to->born = now();
	to->last_seen = to->born - 1; /* so that the first answer is due */
	to->idle_ticks = fe->idle_ticks;
	if (!is_udp(&p->key) && to->idle_ticks > EMBRYONIC_TICKS)
		to->idle_ticks = EMBRYONIC_TICKS;
	to->next = segment_end(p);
	to->ack = p->ack;
	begin_measuring(p);
	int verdict = select_way(ctx, p, b->flags, &way);
	if (verdict)
		return verdict;
	make_reply(p, way);
	if (way == WAY_REMOTE || way == WAY_FORWARDED) {
		bool announced = may_announce(b->flags) && !same_addr(&to->src, &p->key.src);
		bool fits = has_room(ctx, p) && p->len + TAIL_LEN + 1 <= (p->route.has_macs ? p->route.mtu : IPV6_MIN_MTU);
		if (announced) {
			to->flags |= FLOW_ANNOUNCED;
			p->reply.flags |= FLOW_ANNOUNCED;
			begin_announcing(p);
			if (!is_udp(&p->key))
				remember_announced(p);
		}
		p->unannounced = is_udp(&p->key) && !(announced && b->flags & BACKEND_HEARS_WITHIN && fits);
	}
	if (way == WAY_FORWARDED && to->ifindex != ctx->ifindex) {
		p->reply.flags |= FLOW_COMES_IN;
		p->reply.astray = ctx->ifindex;
	}
	if (p->adopted)
		to->flags |= FLOW_ADOPTED;
	if (fe->flags & FRONTEND_RECORDS) {
		to->flags |= FLOW_RECORDED;
		p->reply.flags |= FLOW_RECORDED;
	}
	if (fe->affinity) {
		to->flags |= FLOW_AFFINITY;
		p->reply.flags |= FLOW_AFFINITY;
	}
	to->last_seen += 1;
	if (way == WAY_LOCAL && !is_syn(p))
		take_over(p);
	verdict = insert_flow_pair(ctx, p, !(to->flags & FLOW_SNAT));
	if (verdict)
		return verdict;
	p->checked = true;
	if (to->flags & FLOW_RECORDED) {
		p->record_key = p->key;
		write_end(p, RECORD_REPLACED, RECORD_BY_NONE); /* of a flow that was forgotten otherwise */
		begin_record(p, ctx->ingress_ifindex);
	}
	p->ended = 0; /* what it has ended was another flow */
	if (is_udp(&p->key))
		remember_backend(p);
	count(COUNTER_FLOW_NEW);
	count_new_flow(fe->index, id, to->ref);
	count_kept(&p->key, fe, id);
	return 0;
}

#endif /* BLIXT_FORWARD_H */
