/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * undo.h - undoes the source translation of another node (a peer), so that the
 * backend on this one sees its client: see announce.h for the other side.
 *
 * A message makes a flow of two entries. The forward one gives packets of the
 * peer's address and port the client's, the reply one does the reverse, and
 * such packets leave for the peer. So on the wire nothing is new.
 *
 * - The client's packet comes in by the device that leads to the client, by way of
 *   that device if it is another one: else the reverse-path filter drops it.
 * - A flow is undone only if replies leave by a device with the program.
 *   Otherwise the peer's address stays (FLOW_PLAIN).
 * - A message from another peer about the same connection moves the flow: the
 *   client's packets take another way.
 * - Of a TCP segment that belongs to no flow here, the peer is asked whose it is: the
 *   program may have lost its flows. The segment becomes the question, and is sent
 *   again by the client in a moment. If there is no answer for ASKED_TICKS, such
 *   segments pass as they are, and so they do if no flow was ever undone here.
 *   A SYN without a message is one of a flow that nobody announces.
 * - Datagrams without a flow pass as they are until the next message.
 */
#ifndef BLIXT_UNDO_H
#define BLIXT_UNDO_H

#include "forward.h"
#include "probe.h"

/* Returns which connection of a client's the message is about. */
static __always_inline __u32 connection_of(const struct announcement *m)
{
	return (__u32)m->service << 16 | m->port;
}

/* Reports whether r is the reply entry of a flow of our own, to a backend on this node, about whose connection the message is: it has come in here so far. */
static __always_inline bool is_our_own(const struct flow *r, const struct announcement *m)
{
	return (r->flags & (FLOW_REPLY | FLOW_EGRESS | FLOW_STACK | FLOW_GONE | FLOW_UNDONE)) == (FLOW_REPLY | FLOW_EGRESS | FLOW_STACK) &&
	       same_addr(&r->dst, &m->client) && connection(&r->src, r->sport, r->dport) == connection_of(m);
}

/* Reports whether this node undoes what peers announce, and the packet may be one of theirs: from a port that sources are translated to. */
static __always_inline bool from_peers_port(const struct packet *p)
{
	const struct announce_config *c = announcing_config();
	return !p->egress && c && c->flags & ANNOUNCING_UNDO && is_peers_port(c, p->key.sport);
}

static __always_inline struct peer *peer_of(const struct packet *p)
{
	return bpf_map_lookup_elem(&peers, &p->key.src);
}

/*
 * Reports whether the message is not an old one that somebody sends again: not
 * from before the peer booted, and not older than REPLAY_WINDOW. Records its time.
 */
static __always_inline bool is_recent(struct peer *peer, const struct announcement *m)
{
	__u32 time = bpf_ntohl(m->time);
	__u16 boot = bpf_ntohs(m->boot);
	__s16 boots = boot - peer->boot;

	if (boots < 0 && (peer->heard || peer->boot)) /* 0: not known */
		return false;
	if (boots || !peer->heard) {
		peer->time = time;
		peer->boot = boot;
		peer->heard = 1;
		return true;
	}
	if ((__s32)(time - peer->time) > 0)
		peer->time = time;
	return (__s32)(time - peer->time) > -(__s32)REPLAY_WINDOW;
}

/* When the message was signed: its time, but for the upper 8 bits, and which boot's that is. */
static __always_inline __u32 stamp_of(const struct announcement *m)
{
	return bpf_ntohl(m->time) << 8 | (bpf_ntohs(m->boot) & 0xff);
}

/* Reports whether the message is older than the one that made the forward entry f. */
static __always_inline bool is_older(const struct announcement *m, const struct flow *f)
{
	__u32 stamp = stamp_of(m);
	return (stamp & 0xff) == (f->astray & 0xff) && (__s32)(stamp - f->astray) < 0;
}

/* Inserts an entry for packets with this tuple, which stay what they are. `how` is BPF_ANY, or BPF_NOEXIST. Uses p->to. */
static __always_inline void insert_plain(struct packet *p, __u32 flags, __u64 how)
{
	struct flow *to = &p->to;
	__builtin_memset(to, 0, sizeof(*to));
	to->tag = flow_tag(&p->key);
	to->src = p->key.src;
	to->sport = p->key.sport;
	to->dst = p->key.dst;
	to->dport = p->key.dport;
	to->frontend = NO_FRONTEND;
	to->last_seen = now();
	to->idle_ticks = is_udp(&p->key) ? HOST_TICKS : HOST_TCP_TICKS;
	to->flags = FLOW_PLAIN | flags;
	to->next = to->last_seen;
	insert_evictable(&p->key, to, how);
}

/* Notes that packets with this tuple are of the node that they come from. Uses p->to. */
static __always_inline void note_plain(struct packet *p, struct peer *peer, __u64 how)
{
	insert_plain(p, 0, how);
	__sync_fetch_and_add(&peer->plain, 1);
	count(COUNTER_FLOW_PLAIN);
}

/* Reports whether p->key is the forward tuple of the reply entry r. */
static __always_inline bool is_forward_of(const struct packet *p, const struct flow *r)
{
	return same_addr(&r->dst, &p->key.src) && r->dport == p->key.sport;
}

/*
 * Moves the flow of the reply entry r, whose key is p->reply_key, to the tuple p->key:
 * its client comes in by another node, or by another port of the same, and from the
 * device `client_ifindex`. Its state stays. Returns MOVED, MOVE_GONE if there is no
 * such flow any more, or MOVE_REFUSED if the packet is none of its client's.
 */
enum moved {
	MOVE_GONE,
	MOVE_REFUSED,
	MOVED,
};

__noinline int move_flow(struct packet *p, struct flow *r, __u32 client_ifindex, bool comes_in)
{
	struct flow_key old;
	if (!p || !r)
		return MOVE_GONE;
	peer_key(&p->reply_key, r, &old);
	struct flow *f = find_flow(&old);
	if (!f || !(f->flags & FLOW_UNDONE))
		return MOVE_GONE;
	if (is_forward_of(p, r)) /* another CPU has just made the flow */
		return MOVED;
	settle(&old, f);
	settle(&p->reply_key, r);
	if (!is_clients_own(p, f))
		return MOVE_REFUSED;
	p->to = *f;
	p->reply = *r;
	if (!same_flow(&old, f) || !same_flow(&p->reply_key, r))
		return MOVE_GONE;
	bool established = p->to.flags & FLOW_ESTABLISHED;
	p->to.tag = flow_tag(&p->key);
	p->to.astray = stamp_of(&p->told.message);
	if (is_udp(&p->key))
		p->to.next = now();
	p->to.flags &= ~(FLOW_BUSY | FLOW_CACHED | FLOW_AWAITED | FLOW_COMES_IN);
	p->to.flags |= comes_in ? FLOW_COMES_IN : 0;
	p->to.ifindex = client_ifindex;
	p->reply.flags &= ~(FLOW_BUSY | FLOW_CACHED);
	p->reply.dst = p->key.src;
	p->reply.dport = p->key.sport;
	announce_entry(&p->key, p->to.flags, NO_FRONTEND);
	long failed = established ? bpf_map_update_elem(&flows, &p->key, &p->to, BPF_ANY) : insert_evictable(&p->key, &p->to, BPF_ANY);
	if (failed)
		return MOVE_GONE;
	if (established)
		bpf_map_update_elem(&flows, &p->reply_key, &p->reply, BPF_ANY);
	else
		insert_evictable(&p->reply_key, &p->reply, BPF_ANY);
	delete_evictable(&old);
	if (established)
		bpf_map_delete_elem(&flows, &old);
	uncache(&old);
	uncache(&p->reply_key);
	return MOVED;
}

/*
 * Finds the devices of a flow between p->key.dst and this client: sets p->to.ifindex
 * to the one that leads to the client, and p->reply.ifindex to the backend's, 0 for
 * this host. Returns false if replies would not pass the program.
 */
__noinline bool find_ends(struct __sk_buff *ctx, struct packet *p, const struct addr *client)
{
	struct addr any = {};
	if (!p || !client)
		return false;
	__u32 segment = p->segment;
	p->segment = 0;
	enum routed rc = find_route(ctx, p, &any, &p->key.dst, false);
	p->segment = segment;
	if (rc != ROUTED && rc != ROUTE_LOCAL)
		return false;
	p->reply.ifindex = rc == ROUTED ? p->route.ifindex : 0;
	__u32 back = fib_device(ctx, p, p->reply.ifindex ? p->reply.ifindex : LOOPBACK_IFINDEX, &p->key.dst, client);
	if (back && !has_egress_program(back) && p->for_its_mac)
		back = ctx->ifindex; /* which that device is stacked on */
	p->to.ifindex = back;
	return back && back != UNKNOWN_DEVICE && has_egress_program(back);
}

/* Reports whether an announced client can be one: a host elsewhere. */
static __always_inline bool is_plausible(const struct packet *p, const struct addr *client)
{
	const __u32 *w = (const __u32 *)client;
	bool mapped = !(w[0] | w[1]) && w[2] == bpf_htonl(0xffff);
	if (mapped != (p->version == 4) || !is_unicast(p, client) || is_loopback(p, client) || is_link_local(p, client))
		return false;
	const struct address *own = bpf_map_lookup_elem(&addresses, client);
	return !own || !(own->flags & ADDRESS_EXCLUSIVE);
}

/* Follows the route to the client of the undone forward entry f, once a tick: its packets have to come in by the device that leads to the client. */
__noinline int follow_client(struct __sk_buff *ctx, struct packet *p, struct flow *f)
{
	if (!p || !f)
		return 0;
	__u32 device = fib_device(ctx, p, ctx->ifindex, &f->dst, &f->src);
	if (!device || device == UNKNOWN_DEVICE || device == f->ifindex || !has_egress_program(device))
		return 0;
	f->ifindex = device;
	if (device == ctx->ifindex)
		__sync_fetch_and_and(&f->flags, ~FLOW_COMES_IN);
	else
		__sync_fetch_and_or(&f->flags, FLOW_COMES_IN);
	return 0;
}

/*
 * Makes the flow that p->told announces: p->key is its forward tuple. Returns false
 * if that is not possible. The flow is in the tables, and p->to is its forward entry, if true.
 */
__noinline bool make_undone(struct __sk_buff *ctx, struct packet *p)
{
	if (!p)
		return false;
	struct announcement *m = &p->told.message;
	struct flow *to = &p->to, *reply = &p->reply;

	if (!m->port || !is_plausible(p, &m->client) || is_protected(&m->client) || !find_ends(ctx, p, &m->client))
		return false;
	__u32 client_ifindex = to->ifindex, backend_ifindex = reply->ifindex, tick = now();
	__u32 idle = m->idle < 31 ? 1U << m->idle : 1U << 30;
	__builtin_memset(to, 0, sizeof(*to));
	to->src = m->client;
	to->sport = m->port;
	to->dst = p->key.dst;
	to->dport = p->key.dport;
	to->frontend = NO_FRONTEND;
	to->last_seen = tick;
	to->born = to->idle_ticks = idle;
	if (!is_udp(&p->key) && idle > EMBRYONIC_TICKS)
		to->idle_ticks = EMBRYONIC_TICKS;
	to->next = is_udp(&p->key) ? tick : segment_end(p);
	to->ack = is_udp(&p->key) ? 0 : p->ack;
	to->ref = connection_of(m);
	*reply = *to;
	reply->src = p->key.dst;
	reply->sport = p->key.dport;
	reply->dst = p->key.src;
	reply->dport = p->key.sport;
	reply->next = 0;
	reply->ack = to->next;
	reply->ifindex = backend_ifindex;
	reply->flags = FLOW_REPLY | FLOW_EGRESS | FLOW_UNDONE;
	reply->last_seen = tick - 1;
	bool comes_in = client_ifindex != ctx->ifindex;
	to->flags = FLOW_STACK | FLOW_UNDONE | (comes_in ? FLOW_COMES_IN : 0) | (m->flags & ANNOUNCEMENT_ALONE && !is_udp(&p->key) ? FLOW_AWAITED : 0);
	to->ifindex = client_ifindex;
	to->astray = stamp_of(m);
	to->fin = !!(m->flags & ANNOUNCEMENT_OPENS);
	peer_key(&p->key, to, &p->reply_key);

	struct flow *r = find_flow(&p->reply_key);
	if (r && r->flags & FLOW_UNDONE && r->ref == to->ref) {
		bool over = (r->flags & FLOW_CLOSED && is_syn(p)) || expired(&p->reply_key, r);
		int moved = over ? MOVE_GONE : move_flow(p, r, client_ifindex, comes_in);
		if (moved == MOVED)
			return true;
		if (moved == MOVE_REFUSED && !is_syn(p))
			return false;
		if (moved == MOVE_GONE)
			forget(p, &p->reply_key, r);
	} else if (r && is_our_own(r, m)) {
		if (!is_clients_reply(p, r))
			return false;
		forget(p, &p->reply_key, r);
	}
	if (!claim_tuple(p, HOLDER_PAST)) {
		r = find_flow(&p->reply_key);
		if (r && r->flags & FLOW_UNDONE && r->ref == to->ref && is_forward_of(p, r))
			return true; /* the same */
		if (!claim_port(p, 0))
			return false;
	}
	to->tag = flow_tag(&p->key);
	if (insert_evictable(&p->key, to, BPF_ANY)) {
		delete_evictable(&p->reply_key);
		return false;
	}
	count(COUNTER_FLOW_UNDONE);
	return true;
}

/* Not verdicts: what is to be done with a packet of a peer. These steps are not calls of each other, as the stack would be too deep. */
#define OBEY_MESSAGE (NO_FLOW - 3)
#define MAKE_UNDONE (NO_FLOW - 4)
#define SERVE_UNDONE (NO_FLOW - 5)

/*
 * Does what the peer's message p->told says about the flow of its packet. Returns
 * a verdict, SERVE_UNDONE, MAKE_UNDONE, or NO_FLOW if the packet passes as it is.
 */
__noinline int obey_message(struct __sk_buff *ctx, struct packet *p)
{
	struct peer *peer = p ? peer_of(p) : NULL;
	if (!peer)
		return NO_FLOW;
	const struct announcement *m = &p->told.message;
	bool alone = m->flags & ANNOUNCEMENT_ALONE, plain = m->flags & ANNOUNCEMENT_PLAIN;
	struct flow *f = find_flow(&p->key);

	bool undone = f && f->flags & FLOW_UNDONE, older = undone && is_older(m, f);
	bool same = undone && !plain && f->ref == connection_of(m) && same_addr(&f->src, &m->client) && !(f->flags & FLOW_CLOSED && is_syn(p)) &&
		    !expired(&p->key, f) && !half_evicted(&p->key, f);
	if (older && !same)
		return drop(COUNTER_ANNOUNCE_REFUSED); /* another flow has got this tuple since */
	if (f && !same)
		forget(p, &p->key, f);
	if (!same && draining())
		return pass(COUNTER_DRAINED); /* with its message: the program that takes over makes the flow */
	if (!alone && !cut_message(ctx, p))
		return drop(COUNTER_DROP_ERROR);
	if (same) {
		if (!older)
			f->astray = stamp_of(m);
		if (is_udp(&p->key))
			f->next = now();
		else if (m->flags & ANNOUNCEMENT_OPENS && !(f->flags & FLOW_ESTABLISHED)) { /* the SYN comes once more */
			f->fin = 1;
			__sync_fetch_and_or(&f->flags, FLOW_AWAITED);
		}
		return alone ? TC_ACT_SHOT : SERVE_UNDONE;
	}
	if (!plain)
		return MAKE_UNDONE;
	note_plain(p, peer, BPF_ANY);
	return alone ? TC_ACT_SHOT : NO_FLOW;
}

/* Decides what becomes of the packet whose flow make_undone has made, or not. Returns a verdict, SERVE_UNDONE or NO_FLOW. */
static __always_inline int record_undone(struct packet *p, bool made)
{
	bool alone = p->told.message.flags & ANNOUNCEMENT_ALONE;
	struct peer *peer = peer_of(p);
	if (!peer)
		return NO_FLOW;
	if (made) {
		__sync_fetch_and_add(&peer->undone, 1);
		return alone ? TC_ACT_SHOT : SERVE_UNDONE;
	}
	count(COUNTER_UNDO_IMPOSSIBLE);
	note_plain(p, peer, BPF_NOEXIST); /* another CPU may have made the flow meanwhile */
	return alone ? TC_ACT_SHOT : TCX_NEXT;
}

/*
 * Handles a packet that has come in and may carry a message. Returns a verdict,
 * OBEY_MESSAGE, or NO_FLOW if it is a packet like any other.
 */
__noinline int receive_message(struct __sk_buff *ctx, struct packet *p)
{
	if (!p || !load_message(ctx, p))
		return NO_FLOW;
	const struct announcement *m = &p->told.message;
	bool alone = m->flags & ANNOUNCEMENT_ALONE && stands_alone(p), peers_own = m->flags & (ANNOUNCEMENT_ASK | ANNOUNCEMENT_ANSWER);
	struct peer *peer = peer_of(p);

	if (!is_genuine(p) || (!peers_own && (!peer || !from_peers_port(p) || !is_recent(peer, m)))) {
		if (peer)
			__sync_fetch_and_add(&peer->refused, 1);
		count(COUNTER_ANNOUNCE_REFUSED);
		return alone ? TC_ACT_SHOT : NO_FLOW;
	}
	if (m->flags & ANNOUNCEMENT_ANSWER)
		return record_probe_answer(p, peer);
	if (m->flags & ANNOUNCEMENT_PROBE)
		return answer_probe(ctx, p);
	if (m->flags & ANNOUNCEMENT_ASK) {
		const struct flow *reply = find_flow(&p->key);
		if (!reply && draining())
			return pass(COUNTER_DRAINED); /* it may be a flow of the program behind this one */
		return answer_question(ctx, p, reply);
	}
	return OBEY_MESSAGE;
}

/* Asks the peer whose segment this is. Returns a verdict. */
static __always_inline int ask(struct __sk_buff *ctx, struct packet *p, struct peer *peer)
{
	if (!may_answer(SHARE_QUESTIONS))
		return drop(COUNTER_DROP_ANSWER_LIMIT);
	__sync_fetch_and_add(&peer->asked, 1);
	count(COUNTER_ANNOUNCE_ASKED);
	clear_message(p);
	p->rst.seq = p->ack;
	p->rst.ack = p->seq;
	p->rst.flags = TCP_ACK;
	return send_message_back(ctx, p, ANNOUNCEMENT_ASK, bpf_htonl(announcement_time()));
}

/* Begins to follow the numbers of a connection that was announced by a message alone, with the segment that comes behind it. */
static __always_inline void follow(const struct packet *p, struct flow *f)
{
	struct flow_key k;
	peer_key(&p->key, f, &k);
	struct flow *reply = find_flow(&k);

	__sync_fetch_and_and(&f->flags, ~FLOW_AWAITED);
	f->fin = 0;
	f->next = segment_end(p);
	f->ack = p->ack;
	if (reply)
		reply->ack = f->next;
}

/* Reports whether this program has ever undone a flow. */
__noinline bool ever_undone(void)
{
	__u32 counter = COUNTER_FLOW_UNDONE;
	for (__u32 cpu = 0; cpu < MAX_CPUS; cpu++) {
		const __u64 *n = bpf_map_lookup_percpu_elem(&counters, &counter, cpu);
		if (!n)
			return false; /* there are no more CPUs */
		if (*n)
			return true;
	}
	return false;
}

/*
 * Handles a packet without a message from a port of peers. Returns a verdict,
 * SERVE_UNDONE, or NO_FLOW if it is none of theirs.
 */
__noinline int handle_unannounced(struct __sk_buff *ctx, struct packet *p)
{
	if (!p)
		return TC_ACT_SHOT;
	struct peer *peer = peer_of(p);
	if (!peer)
		return NO_FLOW;
	struct flow *f = find_flow(&p->key);
	bool asked = f && f->flags & FLOW_AWAITED && f->flags & FLOW_PLAIN;
	if (asked && now() - f->next > ASKED_TICKS) { /* nobody there knows how to answer */
		__sync_fetch_and_and(&f->flags, ~FLOW_AWAITED);
		__sync_fetch_and_add(&peer->plain, 1);
		count(COUNTER_FLOW_PLAIN);
		asked = false;
	}
	if (f && f->flags & FLOW_PLAIN && !asked) {
		__u32 tick = now();
		p->due = f->last_seen != tick;
		if (p->due)
			f->last_seen = tick;
		bool busy = is_busy(p, f);
		p->to = *f;
		if (busy && same_flow(&p->key, f))
			fill_slot(ctx, p);
		return pass(COUNTER_NOT_OURS);
	}
	if (f && !asked && !(f->flags & FLOW_UNDONE))
		return NO_FLOW; /* one of our own */
	if (f && !asked && f->last_seen != now())
		follow_client(ctx, p, f);
	if (p->fragment == LATER_FRAGMENT)
		return f ? SERVE_UNDONE : NO_FLOW;
	if (is_udp(&p->key)) /* who has the port by now is not known without a message */
		return f && now() - f->next <= ANNOUNCED_TICKS ? SERVE_UNDONE : pass(COUNTER_NOT_OURS);
	if (f && !asked && f->flags & FLOW_AWAITED && (!is_syn(p) || f->fin)) {
		follow(p, f);
		return SERVE_UNDONE;
	}
	if (!(p->tcp_flags & TCP_SYN)) {
		if (f && !asked)
			return SERVE_UNDONE;
		if (p->tcp_flags & TCP_RST || draining())
			return pass(COUNTER_NOT_OURS);
		if (!f && !ever_undone()) { /* so no such flow was lost */
			note_plain(p, peer, BPF_NOEXIST);
			return pass(COUNTER_NOT_OURS);
		}
		if (!f)
			insert_plain(p, FLOW_AWAITED, BPF_NOEXIST);
		return ask(ctx, p, peer);
	}
	/* A SYN, or one with an acknowledgement: of a server of the peer's with such a port. */
	if (f && !asked && !(f->flags & FLOW_CLOSED)) /* anybody may have forged it */
		return ask(ctx, p, peer);
	if (f)
		forget(p, &p->key, f);
	if (draining())
		return pass(COUNTER_DRAINED);
	note_plain(p, peer, BPF_ANY);
	return pass(COUNTER_NOT_OURS);
}

/* Ends an undone flow that cannot be served. Returns the verdict. */
__noinline int end_undone(struct packet *p)
{
	if (!p)
		return TC_ACT_SHOT;
	const struct flow *f = find_flow(&p->key);
	if (f)
		forget(p, &p->key, f);
	return is_udp(&p->key) ? TCX_NEXT : drop(COUNTER_DROP_FLOW_GONE);
}

/* What find_service looks for, and finds. */
struct service_search {
	__u32 service; /* hash: see service_hash */
	__u32 protocol;
	bool found;
	struct frontend_key key;
};

static long match_service(void *map __attribute__((unused)), const struct frontend_key *key,
			  struct frontend *fe __attribute__((unused)), struct service_search *s)
{
	if (key->protocol != s->protocol || service_hash(&key->addr, key->port) != s->service)
		return 0;
	s->key = *key;
	s->found = true;
	return 1;
}

/*
 * Sends a segment that the backend repeats past the peer, with the source that the
 * client knows. f is its entry, of an undone flow. Returns a verdict, or NO_FLOW if
 * the peer is to get it.
 *
 * A peer may be gone, with all that was on its way. A client that only receives then
 * has nothing to send: nothing would come by the node that has the frontend's address now, and so
 * nothing move the flow there. But what it receives, it acknowledges. Whether the
 * network lets this node send from that address is not known: the peer gets every other segment.
 */
__noinline int serve_directly(struct __sk_buff *ctx, struct packet *p, struct flow *f)
{
	struct flow_key k;
	if (!p || !f || !p->payload || p->fragment != WHOLE || ctx->gso_size || ctx->ingress_ifindex != f->ifindex)
		return NO_FLOW;
	settle(&p->key, f);
	peer_key(&p->key, f, &k);
	const struct flow *forward = find_flow(&k);
	if (!forward || !silent(forward) || (__s32)(segment_end(p) - f->next) > 0)
		return NO_FLOW;
	f->syn = !f->syn;
	if (!f->syn)
		return NO_FLOW;
	struct service_search s = { .service = bpf_ntohs(f->ref >> 16), .protocol = p->key.protocol };
	p->to = *f;
	if (!same_flow(&p->key, f) || !may_answer(SHARE_QUESTIONS))
		return NO_FLOW;
	bpf_for_each_map_elem(&frontends, match_service, &s, 0);
	if (!s.found)
		return NO_FLOW;
	p->to.src = s.key.addr;
	p->to.sport = s.key.port;
	p->to.dst = p->key.dst;
	p->to.dport = p->to.ref;
	if (!rewrite(ctx, p, &p->to, p->hop_limit))
		return drop(COUNTER_DROP_ERROR);
	count(COUNTER_UNDONE);
	set_mark(ctx, LEAVING);
	return TCX_NEXT;
}

#endif /* BLIXT_UNDO_H */
