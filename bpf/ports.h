/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ports.h - the tuple of a new flow: which reply tuple it may take, and which
 * source port it gets where its own is taken or its source is translated.
 */
#ifndef BLIXT_PORTS_H
#define BLIXT_PORTS_H

#include "hostsockets.h"

/* Who has a tuple that a new flow wants, in the order in which new flows replace them. */
enum holder {
	HOLDER_NONE,	  /* nobody needs it: there is no flow, or its backend is gone, or it has expired, or the same client begins again */
	HOLDER_PAST,	  /* a flow that both sides have forgotten: it was reset or refused, or its server has left TIME_WAIT */
	HOLDER_CLOSED,	  /* a flow that was closed a moment ago, or whose handshake does not go on, or that may still be known elsewhere: see is_quiet */
	HOLDER_HALF_OPEN, /* a flow whose handshake goes on, or a forged one */
	HOLDER_LIVE,	  /* never replaced */
};

/* Returns for how many ticks an entry has seen no packet. */
static __always_inline __u32 silent(const struct flow *f)
{
	__s32 ticks = now() - f->last_seen;
	return ticks > 0 ? ticks : 0; /* another CPU may have stored a later tick than ours */
}

/* Reports whether a side of the closed flow has reset it: f is the entry of `key`. */
static __always_inline bool was_reset(const struct flow_key *key, const struct flow *f)
{
	struct flow_key k;
	peer_key(key, f, &k);
	const struct flow *peer = find_flow(&k);
	return f->flags & FLOW_RST || (peer && peer->flags & FLOW_RST);
}

/* Returns who holds the tuple `key` with the entry f, for a new flow whose entry would be `reply`. */
__noinline int holder_of(const struct flow_key *key, const struct flow *f, const struct flow *reply)
{
	if (!key || !f || !reply)
		return HOLDER_LIVE;
	int holder = silent(f) > HANDSHAKE_TICKS ? HOLDER_CLOSED : HOLDER_HALF_OPEN;
	if (f->flags & (is_udp(key) ? FLOW_ANSWERED : FLOW_ESTABLISHED))
		holder = HOLDER_LIVE;
	if (f->flags & FLOW_CLOSED)
		holder = silent(f) > TIME_WAIT_TICKS || was_reset(key, f) ? HOLDER_PAST : HOLDER_CLOSED;
	bool same = same_addr(&f->dst, &reply->dst) && f->dport == reply->dport && same_addr(&f->src, &reply->src) &&
		    f->sport == reply->sport;
	if (same || backend_gone(f) || expired(key, f))
		holder = HOLDER_NONE;
	return same_flow(key, f) ? holder : HOLDER_LIVE;
}

/*
 * Inserts the reply entry of a new flow under `key`, if nobody worse than
 * `worst` to replace has it. It looks for established flows and for
 * reservations of the host once more behind the insertion: whoever began
 * meanwhile on another CPU either is found there, or finds this entry.
 */
__noinline bool claim_tuple(struct packet *p, int worst)
{
	if (!p)
		return false;
	const struct flow_key *key = &p->reply_key;
	struct flow *reply = &p->reply;
	struct flow *taken = find_flow(key);
	if (taken) {
		if (holder_of(key, taken, reply) > worst)
			return false;
		forget(p, key, taken);
	}
	reply->tag = flow_tag(key);
	if (insert_evictable(key, reply, BPF_NOEXIST))
		return false;
	if (!reserved(key) && (is_udp(key) || !bpf_map_lookup_elem(&flows, key)))
		return true;
	delete_evictable(key);
	return false;
}

/* Source ports: `count` of them from `first` on, in host byte order. */
struct ports {
	__u32 first, count;
};

/* Gives the new flow a source port of ours, in host byte order. */
static __always_inline void set_port(struct packet *p, __u32 port)
{
	p->to.sport = p->reply_key.dport = bpf_htons(port);
}

/* Reports whether a frontend has the port of the new flow. It keeps it: else its clients' packets might be taken for answers of the flow. */
__noinline bool is_frontends_port(const struct packet *p)
{
	struct frontend_key key = {};
	if (!p)
		return true;
	key.addr = p->reply_key.dst;
	key.port = p->reply_key.dport;
	key.protocol = p->key.protocol;
	return bpf_map_lookup_elem(&frontends, &key) != NULL;
}

/*
 * Reports whether nobody undoes datagrams with the reply tuple of the new flow any
 * more that another client has sent. A flow may have been evicted here whose
 * client is still known there, and a message about the new one may be lost. A first
 * datagram without a message never gets a port that is not quiet.
 */
static __always_inline bool is_quiet(const struct packet *p)
{
	if (!is_udp(&p->reply_key))
		return true;
	const __u32 *at = announced_at(&p->reply_key);
	return !at || !*at || now() - *at >= QUIET_TICKS;
}

/*
 * Tries a few ports, in an order of the client's own, so that clients rarely
 * try the same. A flow that has to leave the port `avoid` tries another order in
 * each tick. `replaced` tells what kind of holder the ports are known to have at
 * best.
 */
__noinline bool try_ports(struct packet *p, __u32 first, __u32 count, __u32 avoid, int replaced)
{
	if (!p)
		return false;
	__u32 hash = client_hash(&p->key) + (avoid ? now() : 0), step = hash / count | 1;
	for (int i = 0; i < PORT_TRIES; i++) {
		__u32 port = first + (hash + i * step) % count;
		if (port == avoid)
			continue;
		set_port(p, port);
		if (!is_quiet(p) && (p->unannounced || replaced < HOLDER_CLOSED))
			continue;
		if (!is_frontends_port(p) && claim_tuple(p, replaced ? replaced : i < FREE_PORT_TRIES ? HOLDER_NONE : HOLDER_PAST))
			return true;
	}
	return false;
}

/* What a scan of ports has found. */
struct port_scan {
	struct packet *p;
	__u32 first, count, start, avoid;
	__u32 scanned;
	int enough;	  /* enum holder: none better is looked for */
	int best;
	__u32 best_port;
};

/* Looks at the port number i of a scan. Returns 1 if the scan needs no better one. */
static long scan_port(__u32 i, struct port_scan *s)
{
	__u32 port = s->first + (s->start + i) % s->count;
	s->scanned++;
	if (port == s->avoid)
		return 0;
	set_port(s->p, port);
	const struct flow *f = find_flow(&s->p->reply_key);
	int found = f ? holder_of(&s->p->reply_key, f, &s->p->reply) : HOLDER_NONE;
	if (found < HOLDER_CLOSED && !is_quiet(s->p))
		found = s->p->unannounced ? HOLDER_LIVE : HOLDER_CLOSED;
	if (found < s->best && !reserved(&s->p->reply_key) && !is_frontends_port(s->p)) {
		s->best = found;
		s->best_port = port;
	}
	return s->best <= s->enough;
}

/*
 * Looks through all ports, and claims the one that is missed least. Returns false, too, if
 * another CPU has claimed it meanwhile: where few ports are free, all find the same.
 */
__noinline bool scan_ports(struct packet *p, __u32 first, __u32 count, __u32 avoid, struct port_search *search)
{
	if (!p || !search)
		return false;
	struct port_scan scan = {
		.p = p, .first = first, .count = count, .start = bpf_get_prandom_u32(), .avoid = avoid,
		.enough = search->best ? search->best : HOLDER_PAST, .best = HOLDER_LIVE,
	};
	bpf_loop(count, scan_port, &scan, 0);
	search->scanned += scan.scanned;
	search->exhausted = scan.best == HOLDER_LIVE;
	if (search->exhausted)
		return false;
	if (scan.best > scan.enough)
		search->best = scan.best;
	set_port(p, scan.best_port);
	return claim_tuple(p, scan.best);
}

/*
 * Claims a reply tuple with one of the ports. A free port is always found, and
 * if there is none, the one that is missed least.
 *
 * `port_searches` limits what that costs. If all ports are taken, by a flood for
 * instance, one scan in each tick finds out whom to replace. The flows after it
 * take the first port of that kind. If free ports are so rare that each new flow
 * would need a scan, scans end with SCAN_LIMIT, and whoever is missed least of a
 * few holders is replaced, if the last scan has seen any that may be.
 */
static __always_inline bool claim_port_of(struct packet *p, struct ports ports, bool privileged, __u32 avoid)
{
	__u32 i = 2 * p->to.backend + privileged, tick = now();
	struct port_search *search = bpf_map_lookup_elem(&port_searches, &i);
	if (!search || !ports.count)
		return false;
	if (search->tick != tick) {
		search->best = HOLDER_NONE;
		search->exhausted = false;
		search->scanned = 0;
		search->tick = tick;
	}
	if (try_ports(p, ports.first, ports.count, avoid, search->best))
		return true;
	for (int i = 0; i < SCANS_OF_FLOW && search->scanned < SCAN_LIMIT; i++) {
		if (scan_ports(p, ports.first, ports.count, avoid, search))
			return true;
		if (search->exhausted)
			break;
	}
	if (search->exhausted)
		return false;
	return try_ports(p, ports.first, ports.count, avoid, HOLDER_CLOSED) || try_ports(p, ports.first, ports.count, avoid, HOLDER_HALF_OPEN);
}

/*
 * Returns the privileged ports that sources are translated to: those whose
 * places, which are spread over all other ports, are in the SNAT range. So
 * programs with different ranges have different privileged ports.
 */
static __always_inline struct ports privileged_ports(const struct config *c)
{
	__u32 min = c->snat_min, max = c->snat_max;
	if (min < PRIVILEGED_END)
		return (struct ports){};
	__u32 first = (min - PRIVILEGED_END + PRIVILEGED_SPREAD - 1) / PRIVILEGED_SPREAD;
	__u32 end = (max - PRIVILEGED_END) / PRIVILEGED_SPREAD + 1;
	return (struct ports){ PRIVILEGED_MIN + first, end - first };
}

/*
 * Claims a reply tuple with a source port of ours, and sets that port in both
 * entries: any but `avoid`, which is 0 for a new flow. A privileged port gets a
 * privileged one (RFC 4787, REQ-3a), as long as there is one. Returns false if no
 * port is free.
 */
__noinline bool claim_port(struct packet *p, __u32 avoid)
{
	const struct config *c = config();
	if (!p || !c || c->snat_max < c->snat_min)
		return false;
	struct ports all = { c->snat_min, c->snat_max - c->snat_min + 1 };
	return (bpf_ntohs(p->key.sport) < PRIVILEGED_END && claim_port_of(p, privileged_ports(c), true, avoid)) ||
	       claim_port_of(p, all, false, avoid);
}

/* Sets the way of a new flow, and makes p->reply and its key from p->to. */
static __always_inline void make_reply(struct packet *p, enum way way)
{
	struct flow *to = &p->to, *reply = &p->reply;

	to->flags = forward_flags(way);
	*reply = *to;
	reply->src = p->key.dst;
	reply->sport = p->key.dport;
	reply->dst = p->key.src;
	reply->dport = p->key.sport;
	reply->flags = reply_flags(way);
	reply->next = reply->syn = 0;
	reply->ack = to->next; /* what the first answer acknowledges */
	peer_key(&p->key, to, &p->reply_key);
}

/* Rejects a packet whose flow gets no source port: its sender need not wait. */
static __always_inline int reject_ports_exhausted(struct __sk_buff *ctx, struct packet *p)
{
	__u32 share = p->to.frontend == NO_FRONTEND ? UNLIMITED : SHARE_FRONTENDS + p->to.frontend;
	if (p->key.protocol == IPPROTO_UDP)
		return answer_port_unreachable(ctx, p, COUNTER_REJECT_PORTS_EXHAUSTED, share);
	if (p->fragment != WHOLE)
		return drop(COUNTER_REJECT_PORTS_EXHAUSTED);
	return answer_rst(ctx, p, COUNTER_REJECT_PORTS_EXHAUSTED, share);
}

/* Claims the reply tuple of a new flow with its client's own port. */
static __always_inline bool claim_own_port(struct packet *p)
{
	set_port(p, bpf_ntohs(p->key.sport));
	return claim_tuple(p, HOLDER_PAST);
}

/*
 * Inserts both entries of a new flow, p->to and p->reply. The flow gets a
 * source port of ours, unless `keep_port` and its own port is free. During an upgrade
 * its own port may be in use by a flow of the previous program. Returns 0,
 * or a verdict with no entry inserted.
 */
static __always_inline int insert_flow_pair(struct __sk_buff *ctx, struct packet *p, bool keep_port)
{
	bool own_last = keep_port && upgrading();
	if (!keep_port || own_last || !claim_own_port(p)) {
		if (claim_port(p, 0)) {
			if (keep_port)
				count(COUNTER_FLOW_PORT_CHANGED);
		} else if (!own_last || !claim_own_port(p)) {
			return reject_ports_exhausted(ctx, p);
		}
	}
	p->to.tag = flow_tag(&p->key);
	if (!insert_evictable(&p->key, &p->to, BPF_ANY))
		return 0;
	delete_evictable(&p->reply_key);
	return drop(COUNTER_DROP_NEW_FLOW);
}

/*
 * Gives the flow of the forward entry f the source address p->route.src and the
 * device of p->route, and a port there: not its own if the address is. Both
 * entries are replaced.
 */
static __always_inline bool change_tuple(struct packet *p, const struct flow *f)
{
	struct flow_key old;

	p->to = *f;
	peer_key(&p->key, &p->to, &old);
	const struct flow *reply = find_evictable(&old);
	if (!reply)
		return false;
	p->reply = *reply;
	if (!same_flow(&p->key, f) || !same_flow(&old, reply) || !mirrors(&p->key, &p->reply))
		return false;
	bool same = same_addr(&p->to.src, &p->route.src);
	p->to.flags &= ~(FLOW_BUSY | FLOW_CACHED);
	p->reply.flags &= ~(FLOW_BUSY | FLOW_CACHED);
	if (is_udp(&p->key) && p->to.flags & FLOW_ANNOUNCED)
		begin_announcing(p); /* nobody has been told of this tuple */
	p->to.src = p->route.src;
	p->to.ifindex = p->reply.ifindex = p->route.ifindex;
	peer_key(&p->key, &p->to, &p->reply_key);
	if (!claim_port(p, same ? bpf_ntohs(old.dport) : 0))
		return false;
	delete_evictable(&old);
	count(COUNTER_FLOW_PORT_CHANGED);
	bool inserted = !insert_evictable(&p->key, &p->to, BPF_ANY);
	uncache(&old);
	uncache(&p->key);
	return inserted;
}

/*
 * Gives the flow another source port, if its client repeats a SYN that nobody
 * has answered. Perhaps the port was no good: its last connection is still in
 * the server's TIME_WAIT, or the host has a use of it that began before the
 * program was there, and gets the answer. f is the forward entry.
 */
__noinline bool change_port(struct packet *p, const struct flow *f)
{
	if (!p || !f || !(f->flags & FLOW_SNAT) || !silent(f))
		return false;
	p->route.src = f->src;
	p->route.ifindex = f->ifindex;
	return change_tuple(p, f);
}

/* Gives the flow the source that check_source has found. f is the forward entry. */
__noinline bool change_source(struct packet *p, const struct flow *f)
{
	return p && f && change_tuple(p, f);
}

#endif /* BLIXT_PORTS_H */
