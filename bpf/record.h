/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * record.h - records of flows: who talks to whom, how much, and who ends it.
 *
 * A record is written once, at the end of its flow. While the flow lasts, it grows in
 * `recorded`. Entries of the flow have FLOW_RECORDED, so packets of other flows pay
 * for the test of a bit. What a slot of `flow_cache` serves is counted beside the slot,
 * and added to the record when the slot is filled again or emptied.
 */
#ifndef BLIXT_RECORD_H
#define BLIXT_RECORD_H

#include "flow.h"

/* Reports whether `recorded` has room for a flow that is not established. */
static __always_inline bool has_room_for_new(void)
{
	__u32 zero = 0;
	const __s32 *n = bpf_map_lookup_elem(&recorded_number, &zero); /* signed: another CPU may delete one before this one has counted it */
	return n && *n < MAX_RECORDED_NEW;
}

/* Begins the record of the flow p->to, of which p is a packet from the client: one that has come in by this interface. */
__noinline int begin_record(struct packet *p, __u32 ifindex)
{
	if (!p)
		return 0;
	struct flow_record *r = &p->record.record;
	make_record(p);
	r->snat = p->to.src;
	r->backend = p->to.dst;
	r->snat_port = p->to.sport;
	r->backend_port = p->to.dport;
	r->frontend = p->to.frontend;
	r->ref = p->to.ref;
	r->backend_id = p->to.backend;
	r->generation = p->to.generation;
	r->ifindex = ifindex;
	bool room = p->to.flags & FLOW_ESTABLISHED || has_room_for_new();
	if (room && !bpf_map_update_elem(&recorded, &p->record_key, r, BPF_NOEXIST))
		count_recorded(1);
	else
		count(COUNTER_RECORD_NO_ROOM);
	return 0;
}

/*
 * Counts the packet of the flow p->to for its record. A flow that found no room for one
 * when it began, in a flood perhaps, may find some when its client is proven.
 */
__noinline int record_packet(struct packet *p)
{
	if (!p)
		return 0;
	__u32 reply = !!(p->to.flags & FLOW_REPLY);
	set_record_key(p, &p->to);
	struct flow_record *r = bpf_map_lookup_elem(&recorded, &p->record_key);
	if (!r && !reply && p->to.flags & FLOW_ESTABLISHED) {
		begin_record(p, 0);
		r = bpf_map_lookup_elem(&recorded, &p->record_key);
	}
	if (!r)
		return 0;
	__sync_fetch_and_add(&r->packets[reply], 1);
	__sync_fetch_and_add(&r->bytes[reply], p->len - p->grown);
	r->ended = bpf_ktime_get_boot_ns();
	if (!reply) { /* the source may change: see source.h */
		r->snat = p->to.src;
		r->snat_port = p->to.sport;
	}
	if (p->connect)
		r->connect = p->connect;
	if (reply && is_udp(&p->key) && !r->connect)
		r->connect = NS_TO_UNITS(r->ended - r->began);
	if (p->rtt)
		r->rtt = p->rtt;
	if (p->ended_by && !r->by)
		r->by = p->ended_by;
	return 0;
}

#endif /* BLIXT_RECORD_H */
