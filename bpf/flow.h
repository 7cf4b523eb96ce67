/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * flow.h - the life of a flow in the tables: insert, refresh, establish,
 * expire, forget; close.h tells how it closes. Nothing here touches the packet itself.
 *
 * A TCP flow begins in `new_flows`, an LRU table. It moves to `flows`, which
 * nothing evicts, once its backend has answered and its client has continued
 * with an acknowledgement number that only a receiver of the answer can know.
 * So forged SYNs evict no established flow. When both sides have closed the
 * connection, or one has reset it, the flow moves back: it holds no room any
 * more, and late segments are still translated.
 *
 * A datagram proves nothing of this kind. UDP flows have an LRU table of their
 * own, `udp_flows`.
 *
 * Who cannot see the packets of a connection must not be able to end its flow.
 * So an entry keeps the sequence number that its sender uses next, and the
 * highest number that its sender has acknowledged. A FIN or a RST counts only
 * if it fits them: see record_end in close.h.
 */
#ifndef BLIXT_FLOW_H
#define BLIXT_FLOW_H

#include "affinity.h"
#include "cache.h"
#include "concurrent.h"
#include "health.h"
#include "log.h"
#include "way.h"

#define EEXIST 17
/* Not the index of a frontend: the number of all established flows. */
#define ALL_FLOWS 0xfffffffe

/* Returns the hash of a key that the key's entry stores. Odd random factors: tuples that differ little get other tags. */
static __always_inline __u32 flow_tag(const struct flow_key *key)
{
	const __u64 *w = (const __u64 *)key;
	return (w[0] * 0x9e3779b97f4a7c15ULL + w[1] * 0xbf58476d1ce4e5b9ULL + w[2] * 0x94d049bb133111ebULL +
		w[3] * 0xd6e8feb86659fd93ULL + w[4] * 0xc2b2ae3d27d4eb4fULL) >> 32;
}

/*
 * Reports whether the element that f points to still belongs to `key`. The
 * kernel reuses an element as soon as another CPU has deleted it, so a pointer
 * may outlive its flow: what has been copied from it is the flow's only if this
 * holds afterwards. The tag is the first thing that the kernel writes into a
 * reused element.
 */
static __always_inline bool same_flow(const struct flow_key *key, const struct flow *f)
{
	asm volatile("" ::: "memory"); /* the copy comes first */
	return *(const volatile __u32 *)&f->tag == flow_tag(key);
}

/* Sets *peer to the key of the other direction's entry. */
static __always_inline void peer_key(const struct flow_key *key, const struct flow *f, struct flow_key *peer)
{
	__builtin_memset(peer, 0, sizeof(*peer));
	peer->src = f->dst;
	peer->dst = f->src;
	peer->sport = f->dport;
	peer->dport = f->sport;
	peer->protocol = key->protocol;
}

/* Sets p->record_key to the key of the record of the flow of which f is the entry with p->key. */
static __always_inline void set_record_key(struct packet *p, const struct flow *f)
{
	if (f->flags & FLOW_REPLY)
		peer_key(&p->key, f, &p->record_key);
	else
		p->record_key = p->key;
}

static __always_inline bool is_udp(const struct flow_key *key)
{
	return key->protocol == IPPROTO_UDP;
}

/*
 * Looks an entry up in one of two tables. If the compiler merged the two calls
 * into one, for which the map is a variable, the verifier would not inline the
 * look-up: it would cost some 8 ns more.
 */
#define LOOK_UP_EITHER(first, a, b, key)                    \
	({                                                  \
		struct flow *found;                         \
		if (first) {                                \
			found = bpf_map_lookup_elem(a, key); \
			asm volatile("" : "+r"(found));     \
		} else {                                    \
			found = bpf_map_lookup_elem(b, key); \
		}                                           \
		found;                                      \
	})

/* Returns the entry of `key` in its table of flows that may be evicted, or NULL. */
static __always_inline struct flow *find_evictable(const struct flow_key *key)
{
	return LOOK_UP_EITHER(is_udp(key), &udp_flows, &new_flows, key);
}

/* Inserts an entry into its table of flows that may be evicted. Returns 0, or an error of the kernel. */
static __always_inline long insert_evictable(const struct flow_key *key, const struct flow *f, __u64 flags)
{
	announce_entry(key, f->flags, f->frontend);
	return is_udp(key) ? bpf_map_update_elem(&udp_flows, key, f, flags) : bpf_map_update_elem(&new_flows, key, f, flags);
}

/* Returns 0, or an error of the kernel. */
static __always_inline long delete_evictable(const struct flow_key *key)
{
	return is_udp(key) ? bpf_map_delete_elem(&udp_flows, key) : bpf_map_delete_elem(&new_flows, key);
}

/*
 * Returns the entry of `key`, or NULL. `new_flows` comes first: a flow that is
 * established meanwhile is in `flows` before it leaves `new_flows`. One that is
 * closed meanwhile may be missed, and then counts as gone.
 */
static __always_inline struct flow *find_flow(const struct flow_key *key)
{
	struct flow *f = find_evictable(key);
	return f || is_udp(key) ? f : bpf_map_lookup_elem(&flows, key);
}

/*
 * The same for a TCP flow that was or was not established a moment ago. One that is
 * closed meanwhile is in `new_flows` before it leaves `flows`: so no flow that was
 * established is missed, and its entries are found with one look-up.
 */
static __always_inline struct flow *find_tcp_flow(const struct flow_key *key, bool established)
{
	struct flow *f = LOOK_UP_EITHER(established, &flows, &new_flows, key);
	return f ? f : LOOK_UP_EITHER(established, &new_flows, &flows, key);
}

/* Returns the number of established flows of the frontend, or of all flows: of the host's own that have NO_FRONTEND, too. */
static __always_inline __u32 *established_flows(__u32 frontend)
{
	__u32 i = frontend == ALL_FLOWS ? 0 : frontend + 1;
	return bpf_map_lookup_elem(&established, &i);
}

/* Changes the number of established flows of the frontend, if it is one, and with it that of all. */
static __always_inline void count_established(__u32 frontend, __s32 change)
{
	__u32 *own = established_flows(frontend), *all = established_flows(ALL_FLOWS);
	if (!own || !all)
		return;
	if (frontend != NO_FRONTEND)
		__sync_fetch_and_add(own, change);
	__sync_fetch_and_add(all, change);
}

/*
 * Reports whether the frontend must not establish more flows: `flows` is nearly
 * full, and the frontend has its share. One tenant cannot take the room of all.
 * Connections of pods that the host masquerades (hostports.h) have no share.
 */
static __always_inline bool over_share(__u32 frontend)
{
	const struct config *c = config();
	/* Signed: a flow that another CPU ends before this one has counted it makes them -1 for a moment. */
	const __s32 *own = (const __s32 *)established_flows(frontend), *all = (const __s32 *)established_flows(ALL_FLOWS);
	return c && own && all && c->flows_nearly_full && *all >= (__s32)c->flows_nearly_full &&
	       (frontend == NO_FRONTEND || *own >= (__s32)c->flows_share);
}

/* Deletes both entries of a flow of the frontend from `flows`. If two CPUs do so, one of them counts it, for its policies, too. */
static __always_inline void forget_established(struct packet *p, const struct flow_key *forward, const struct flow_key *reply, __u32 frontend)
{
	bool deleted = !bpf_map_delete_elem(&flows, forward);
	bpf_map_delete_elem(&flows, reply);
	if (!deleted)
		return;
	count_established(frontend, -1);
	note_end(p, &forward->src, frontend);
}

/* Empties the slot of an entry with these flags, if it may have one. */
static __always_inline void uncache_entry(const struct flow_key *key, __u32 flags)
{
	if (flags & FLOW_CACHED)
		uncache(key);
}

/* Brings the numbers of an entry up to date: see cache.h. Whoever reads them calls it first. */
static __always_inline void settle(const struct flow_key *key, struct flow *f)
{
	if (f->flags & FLOW_CACHED)
		take_slots_numbers(key, f);
}

/*
 * Reports whether `peer`, found at the key of the other direction, is the other entry
 * of the flow with `key`. If that one was evicted, another client's flow may have the tuple.
 */
static __always_inline bool mirrors(const struct flow_key *key, const struct flow *peer)
{
	return peer->dport == key->sport && peer->sport == key->dport && same_addr(&peer->dst, &key->src) && same_addr(&peer->src, &key->dst);
}

/*
 * Deletes both entries of the flow. Returns false if f does not belong to it any more: another CPU has deleted it.
 * Another flow's entry that has taken the place of one of them stays.
 */
__noinline bool forget(struct packet *p, const struct flow_key *key, const struct flow *f)
{
	struct flow_key peer;
	if (!p || !key || !f)
		return false;
	__u32 frontend = f->frontend, flags = f->flags;
	peer_key(key, f, &peer);
	if (!same_flow(key, f))
		return false;
	const struct flow *other = find_flow(&peer);
	bool answered = (flags & FLOW_REPLY ? flags : other ? other->flags : 0) & FLOW_ANSWERED;
	if (other && !mirrors(key, other))
		peer = *key;
	const struct flow_key *forward = flags & FLOW_REPLY ? &peer : key, *reply = flags & FLOW_REPLY ? key : &peer;
	bool deleted = !delete_evictable(forward);
	delete_evictable(reply);
	if (!is_udp(key))
		forget_established(p, forward, reply, frontend);
	else if (deleted && answered)
		note_end(p, &forward->src, frontend);
	if (flags & (FLOW_ESTABLISHED | FLOW_CACHED) || is_udp(key)) { /* or the other entry may have a slot */
		uncache(key);
		uncache(&peer);
	}
	return true;
}

/* Reports whether only the destination is translated, on the way through the stack (WAY_LOCAL, WAY_STACK): answers have the backend's own address. */
static __always_inline bool is_local(const struct flow *f)
{
	return (f->flags & (FLOW_STACK | FLOW_SNAT)) == FLOW_STACK;
}

static __always_inline bool backend_gone(const struct flow *f)
{
	const struct backend *b = bpf_map_lookup_elem(&backends, &f->backend);
	return !b || b->generation != f->generation;
}

/* Changes the number of elements of `recorded`. */
static __always_inline void count_recorded(__s32 change)
{
	__u32 zero = 0, *n = bpf_map_lookup_elem(&recorded_number, &zero);
	if (n)
		__sync_fetch_and_add(n, change);
}

/* Writes the record of the flow with p->record_key, which has ended. */
__noinline int write_end(struct packet *p, __u32 reason, __u32 by)
{
	if (!p)
		return 0;
	struct flow_record *r = bpf_map_lookup_elem(&recorded, &p->record_key);
	if (!r)
		return 0;
	struct flow_key *reply = &p->reply_key;
	reply->src = r->backend;
	reply->dst = r->snat;
	reply->sport = r->backend_port;
	reply->dport = r->snat_port;
	*(__u32 *)&reply->protocol = r->protocol; /* and zeros behind it */
	take_counts_of(&p->record_key, r, 0);
	take_counts_of(&p->reply_key, r, 1);
	p->record.record = *r;
	bool answered = p->record.record.packets[1];
	if (bpf_map_delete_elem(&recorded, &p->record_key))
		return 0; /* another CPU, or the agent, writes it */
	count_recorded(-1);
	p->record.record.event = RECORD_END;
	p->record.record.reason = reason == RECORD_IDLE && !answered ? RECORD_UNANSWERED : reason;
	if (!p->record.record.by)
		p->record.record.by = by;
	return write_record(p, false);
}

/*
 * Reports whether policies have charged the flow f, and what takes its place is the same to them: a
 * client repeats its SYN, or a UDP flow gets another backend.
 */
static __always_inline bool is_admitted(const struct packet *p, const struct flow *f)
{
	if (f->flags & (FLOW_REPLY | FLOW_CLOSED | FLOW_ADOPTED | FLOW_UNDONE | FLOW_PLAIN) || f->frontend == NO_FRONTEND || p->ended == RECORD_IDLE)
		return false;
	return is_udp(&p->key) || !(f->flags & (FLOW_ANSWERED | FLOW_ESTABLISHED));
}

/*
 * Forgets the flow p->key belongs to, of which f is the entry. Its backend may
 * not know yet, and a backend on this node would be heard with its own address.
 * So the reply entry of a local flow leaves a tombstone, and so does that of a
 * TCP flow whose backend is gone: it ends what still comes, see serve_tombstone.
 * Its record says that it has ended for the reason p->ended. Uses p->reply.
 */
static __noinline void bury(struct packet *p, const struct flow *f)
{
	if (!p || !f)
		return;
	struct flow *tomb = &p->reply;
	struct flow_key *reply = &p->tomb_key;
	p->asked = is_admitted(p, f);
	bool local = is_local(f), leaves_one = local || (!is_udp(&p->key) && backend_gone(f));
	bool egress = local || f->flags & FLOW_REENTER;
	if (f->flags & FLOW_REPLY)
		*reply = p->key;
	else
		peer_key(&p->key, f, reply);
	__u32 next = f->flags & FLOW_REPLY ? f->ack : f->next;
	bool recorded = f->flags & FLOW_RECORDED;
	if (recorded)
		set_record_key(p, f);
	bool forgotten = forget(p, &p->key, f);
	if (forgotten && recorded)
		write_end(p, p->ended, RECORD_BY_NONE);
	p->ended = 0;
	if (!forgotten || !leaves_one)
		return;
	__builtin_memset(tomb, 0, sizeof(*tomb));
	tomb->tag = flow_tag(reply);
	tomb->generation = NO_GENERATION;
	tomb->frontend = NO_FRONTEND;
	tomb->last_seen = now();
	tomb->idle_ticks = TOMBSTONE_TICKS;
	tomb->next = next;
	tomb->flags = FLOW_REPLY | (egress ? FLOW_EGRESS : 0) | (local ? FLOW_STACK : 0) | FLOW_GONE;
	insert_evictable(reply, tomb, BPF_NOEXIST);
}

/*
 * Decides about a packet whose flow has left the tombstone f: a backend hears
 * that its connection has ended. Returns a verdict, or NO_FLOW if the packet belongs
 * to a connection that does not pass us: then the tombstone goes. A TCP connection
 * begins with a SYN, unless that SYN answers the last one of the flow; of UDP nothing
 * tells but the time.
 */
static __always_inline int serve_tombstone(struct __sk_buff *ctx, struct packet *p, const struct flow *f)
{
	bool late = p->tcp_flags & TCP_ACK && p->ack == f->next;
	bool other = is_udp(&p->key) ? now() - f->last_seen > f->idle_ticks : p->tcp_flags & TCP_SYN && !late;
	if (!other && (is_udp(&p->key) || p->fragment != WHOLE || p->tcp_flags & TCP_RST))
		return drop(COUNTER_DROP_FLOW_GONE);
	if (!other)
		return answer_rst(ctx, p, COUNTER_DROP_FLOW_GONE, UNLIMITED);
	delete_evictable(&p->key);
	return NO_FLOW;
}

/* Reports whether this direction is idle. The difference is signed: another CPU may have stored a later tick than ours. */
static __always_inline bool idle(const struct flow *f, __u32 tick)
{
	return (__s32)(tick - f->last_seen) > (__s32)f->idle_ticks;
}

/* Reports whether both directions are idle. */
__noinline bool expired(const struct flow_key *key, const struct flow *f)
{
	struct flow_key k;
	__u32 tick = now();
	if (!key || !f || !idle(f, tick))
		return false;
	peer_key(key, f, &k);
	struct flow *peer = find_flow(&k);
	return !peer || idle(peer, tick);
}

/* Returns the sequence number behind the segment. */
static __always_inline __u32 segment_end(const struct packet *p)
{
	return p->seq + p->payload + !!(p->tcp_flags & TCP_SYN) + !!(p->tcp_flags & TCP_FIN);
}

/* Returns the tick of the last announcement of a flow with this reply tuple, or of another with the same hash. */
static __always_inline __u32 *announced_at(const struct flow_key *reply)
{
	__u32 i = flow_tag(reply) & (MAX_ANNOUNCED_UDP - 1);
	return bpf_map_lookup_elem(&announced_udp, &i);
}

/* Counts the first announcement of the flow p->to. */
static __always_inline void begin_announcing(struct packet *p)
{
	if (is_udp(&p->key)) {
		p->to.next = now();
		p->to.ack = 1;
	} else {
		p->to.fin = 1;
	}
}

/* Reports whether the packet begins a TCP connection. */
static __always_inline bool is_syn(const struct packet *p)
{
	return (p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

/*
 * Reports whether the packet may begin another connection in place of the one
 * of the flow f: it is a SYN of the client, and the backend has not answered
 * yet, or the connection is closed. In all other states the backend gets the
 * SYN, and sends a challenge ACK. A client that has really begun anew answers
 * that with a RST, which closes the flow, and its next SYN begins another one
 * (RFC 5961, 4). So a forged SYN ends nothing.
 */
static __always_inline bool yields(const struct packet *p, const struct flow *f)
{
	return is_syn(p) && !(f->flags & FLOW_REPLY) && (f->flags & FLOW_CLOSED || !(f->flags & (FLOW_ANSWERED | FLOW_ESTABLISHED)));
}

/*
 * Reports whether the segment's numbers are near those that the sender of this
 * direction has used: near both, so that a guess hits once in four million.
 */
static __always_inline bool in_sequence(const struct packet *p, const struct flow *f)
{
	return p->tcp_flags & TCP_ACK && segment_end(p) - f->next + SEQUENCE_WINDOW < 2 * SEQUENCE_WINDOW &&
	       p->ack - f->ack + SEQUENCE_WINDOW < 2 * SEQUENCE_WINDOW;
}

/*
 * Reports what in_sequence does of a segment that acknowledges more than SEQUENCE_WINDOW at once, as
 * the one does that reports a lost segment as received at last. It cannot
 * acknowledge what the other side has not sent.
 */
__noinline bool acknowledges_far(const struct packet *p, const struct flow *f)
{
	struct flow_key k;
	if (!p || !f || !(p->tcp_flags & TCP_ACK) || segment_end(p) - f->next + SEQUENCE_WINDOW >= 2 * SEQUENCE_WINDOW)
		return false;
	peer_key(&p->key, f, &k);
	struct flow *peer = find_flow(&k);
	if (!peer)
		return false;
	settle(&k, peer);
	return (__s32)(p->ack - f->ack) > 0 && (__s32)(peer->next - p->ack) >= 0;
}

/*
 * Reports whether a packet that comes in another way belongs to the connection of
 * this forward entry. Somebody may have forged it, who must not be able to move the flow.
 */
static __always_inline bool is_clients_own(const struct packet *p, const struct flow *f)
{
	return is_udp(&p->key) || !(f->flags & FLOW_ESTABLISHED) || in_sequence(p, f) || acknowledges_far(p, f);
}

/* The same by the reply entry r, of p->reply_key. */
static __always_inline bool is_clients_reply(const struct packet *p, const struct flow *r)
{
	struct flow_key k;
	peer_key(&p->reply_key, r, &k);
	struct flow *f = find_flow(&k);
	if (f)
		settle(&k, f);
	return !f || is_clients_own(p, f);
}

/* Records the first answer of a UDP flow's backend. f is its reply entry. */
static __always_inline void answered_datagram(struct packet *p, struct flow *f, const struct addr *backend)
{
	bool before = __sync_fetch_and_or(&f->flags, FLOW_ANSWERED) & FLOW_ANSWERED;
	if (before || f->flags & FLOW_UNDONE)
		return;
	if (!begin_concurrent(p, &f->dst, f->frontend, f->flags))
		__sync_fetch_and_and(&f->flags, ~FLOW_ANSWERED); /* so that its end is not counted */
	count_answered(f->ref, 0, false);
	judge_answer(f->backend, f->generation);
	if (f->flags & FLOW_AFFINITY)
		remember_client(f, backend, IPPROTO_UDP, false);
}

/* Updates the entry's age, and of an established TCP flow the numbers that its sender has used. */
static __always_inline void refresh(struct packet *p, struct flow *f, __u32 tick)
{
	if (f->last_seen != tick) /* an unchanged cache line stays shared between CPUs */
		f->last_seen = tick;
	if (!(f->flags & FLOW_ESTABLISHED)) {
		if (is_udp(&p->key) && f->flags & FLOW_REPLY && !(f->flags & FLOW_ANSWERED))
			answered_datagram(p, f, &p->key.src);
		else if (yields(p, f))
			f->next = segment_end(p); /* the client may have begun anew */
		return;
	}
	if (!in_sequence(p, f) && !acknowledges_far(p, f))
		return;
	__u32 end = segment_end(p);
	if ((__s32)(end - f->next) > 0)
		f->next = end;
	if ((__s32)(p->ack - f->ack) > 0)
		f->ack = p->ack;
}

/*
 * Reports whether the reply entry of a flow that may be evicted is missing, so
 * that answers of its backend would not be recognized, or would go to another client. If the reply entry is
 * missing because another CPU is establishing the flow, both entries are in
 * `flows`.
 */
__noinline bool half_evicted(const struct flow_key *key, const struct flow *f)
{
	struct flow_key k;
	if (!key || !f)
		return false;
	peer_key(key, f, &k);
	const struct flow *reply = find_evictable(&k);
	return (!reply || !mirrors(key, reply)) && (is_udp(key) || !bpf_map_lookup_elem(&flows, key));
}

/*
 * Records an answer of the backend to the client of a half-open TCP flow. From
 * now on the client's next segment may establish the flow. An answer has to
 * acknowledge what the client has sent. Of several answers the first counts,
 * but each SYN replaces it: a backend that began anew has another number.
 */
static __noinline void record_answer(struct packet *p, struct flow *reply)
{
	struct flow_key key;
	if (!p || !reply)
		return;
	peer_key(&p->key, reply, &key);
	struct flow *forward = bpf_map_lookup_elem(&new_flows, &key);
	bool syn = p->tcp_flags & TCP_SYN;
	__u32 window = syn ? PROOF_WINDOW : SEQUENCE_WINDOW;
	if (!forward || (forward->flags & FLOW_ANSWERED && !syn) || !(p->tcp_flags & TCP_ACK))
		return;
	if (forward->next - p->ack >= window) {
		if (reply->ack - p->ack >= window)
			return;
		forward->next = p->ack;
	}
	forward->ack = p->seq + syn;
	reply->next = segment_end(p);
	reply->ack = p->ack;
	if (forward->idle_ticks < TRANSITORY_TICKS)
		forward->idle_ticks = reply->idle_ticks = TRANSITORY_TICKS;
	bool before = __sync_fetch_and_or(&forward->flags, FLOW_ANSWERED) & FLOW_ANSWERED;
	if (forward->flags & FLOW_UNDONE)
		return;
	__u32 units = time_in_units();
	reply->syn = before ? 0 : units; /* of two SYN-ACKs nobody knows which one the client acknowledges (RFC 6298, 3) */
	if (!before) {
		p->connect = units - forward->syn;
		count_answered(forward->ref, p->connect, true);
		judge_answer(forward->backend, forward->generation);
	}
}

/* Reports whether this segment of a half-open flow proves that its sender has received the backend's answer. */
static __always_inline bool establishes(const struct packet *p, const struct flow *f)
{
	return f->flags & FLOW_ANSWERED && (p->tcp_flags & (TCP_ACK | TCP_SYN | TCP_RST)) == TCP_ACK && p->fragment != LATER_FRAGMENT &&
	       p->ack - f->ack < PROOF_WINDOW;
}

/*
 * Keeps the numbers of a flow that has been proven and finds no room: a later
 * segment of the client shall establish it, and its end shall count.
 */
static __always_inline void keep_up(const struct packet *p, struct flow *f, struct flow *reply)
{
	if (!in_sequence(p, f))
		return;
	f->next = segment_end(p);
	f->ack = reply->next = p->ack;
}

/*
 * Moves both entries of the half-open flow, whose forward entry p->to is a copy
 * of, to `flows`. They are inserted there before they are deleted from
 * `new_flows`, so that find_flow always finds them in one of the two. If
 * another CPU moves them at the same time, its entries stay: they may already
 * know more than these copies.
 */
__noinline int establish(struct packet *p, struct flow *f)
{
	struct flow_key peer;
	if (!p || !f)
		return 0;
	peer_key(&p->key, &p->to, &peer);
	struct flow *reply = bpf_map_lookup_elem(&new_flows, &peer);
	struct frontend_key k = { .addr = p->key.dst, .port = p->key.dport, .protocol = p->key.protocol };
	const struct frontend *fe = find_frontend(&k);
	if (!reply)
		return 0; /* evicted: the next packet begins the flow again */
	if (fe) /* also if there is no room: then the flow lives as long, if nothing evicts it */
		p->to.idle_ticks = f->idle_ticks = reply->idle_ticks = fe->idle_ticks;
	if (p->to.flags & FLOW_UNDONE)
		p->to.idle_ticks = f->idle_ticks = reply->idle_ticks = p->to.born;
	if (!(p->to.flags & FLOW_UNDONE)) { /* from now on syn means something else */
		if (reply->syn)
			count_client_rtt(p->to.frontend, p->rtt = time_in_units() - reply->syn);
		reply->syn = p->to.syn = 0;
	}
	if (over_share(p->to.frontend)) {
		count(COUNTER_FLOW_OVER_SHARE);
		keep_up(p, f, reply);
		return 0;
	}
	p->to.next = segment_end(p);
	p->to.ack = p->ack;
	p->reply = *reply;
	p->reply.flags |= FLOW_ESTABLISHED;
	p->to.flags |= FLOW_ESTABLISHED;
	announce_entry(&peer, p->reply.flags, p->reply.frontend);
	announce_entry(&p->key, p->to.flags, p->to.frontend);
	long failed = bpf_map_update_elem(&flows, &peer, &p->reply, BPF_NOEXIST);
	if (!failed) {
		failed = bpf_map_update_elem(&flows, &p->key, &p->to, BPF_NOEXIST);
		if (failed)
			bpf_map_delete_elem(&flows, &peer);
	}
	if (failed) {
		p->to.flags &= ~FLOW_ESTABLISHED;
		if (failed != -EEXIST) {
			count(COUNTER_FLOW_TABLE_FULL);
			keep_up(p, f, reply);
		}
		return 0;
	}
	bpf_map_delete_elem(&new_flows, &p->key);
	bpf_map_delete_elem(&new_flows, &peer);
	count_established(p->to.frontend, 1);
	count(COUNTER_FLOW_ESTABLISHED);
	return 1;
}

#endif /* BLIXT_FLOW_H */
