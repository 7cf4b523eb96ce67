/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* fragment.h - the ports of a fragmented datagram: only its first fragment carries them. */
#ifndef BLIXT_FRAGMENT_H
#define BLIXT_FRAGMENT_H

#include "maps.h"
#include "packet.h"

/* Stores the ports of a first fragment for the later ones. */
static __noinline void remember_fragment(const struct packet *p)
{
	struct fragment_key key = {
		.src = p->key.src, .dst = p->key.dst, .id = p->fragment_id, .next = p->fragment_next
	};
	struct fragment ports = { .sport = p->key.sport, .dport = p->key.dport, .protocol = p->key.protocol };
	bpf_map_update_elem(&fragments, &key, &ports, BPF_ANY);
}

/* Completes the key of a later fragment. Returns false if the first fragment is unknown. */
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

#endif /* BLIXT_FRAGMENT_H */
