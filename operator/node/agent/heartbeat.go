// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"net"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// sampleEvery is how often packets are looked for.
const sampleEvery = 2 * time.Second

// A direction that stands still for longer than longSilence has lost its packets.
// So it has where that is for much longer than usual, in looks: one that is late,
// on a busy node, sees packets all the same. What is usual takes some to learn.
const (
	longSilence = time.Minute
	learning    = 15
)

// heartbeat remembers when packets were seen last, by direction: where a link
// is missing, the other direction goes on. Interfaces come and go, so that one
// of several stands still says nothing.
type heartbeat struct {
	// alone tells that there is no other node, from which packets would come
	// though nobody uses Blixt: silence says nothing then.
	alone      bool
	samples    int
	totals     map[string]uint64
	directions map[string]*silence
}

// silence of a direction.
type silence struct {
	moved time.Time
	still int // looks since then
	usual int // the most that there were before packets came again
}

var directions = []string{"ingress", "egress"}

// count looks at the counters. Returns whether a direction stands still.
func (h *heartbeat) count(now time.Time, links []writer.HookCount) (still bool) {
	totals := map[string]uint64{}
	for _, l := range links {
		totals[l.Direction] += l.Packets
	}
	if h.samples++; h.samples == 1 {
		h.directions = map[string]*silence{}
	}
	for _, d := range directions {
		p := h.directions[d]
		switch {
		case p == nil:
			h.directions[d] = &silence{moved: now}
		case totals[d] != h.totals[d]: // less: the program was loaded again
			*p = silence{moved: now, usual: max(p.usual, p.still)}
		default:
			p.still++
			still = true
		}
	}
	h.totals = totals
	return still
}

// age is how long ago a packet was seen last.
func (h *heartbeat) age(now time.Time) time.Duration {
	var last time.Time
	for _, p := range h.directions {
		if p.moved.After(last) {
			last = p.moved
		}
	}
	return now.Sub(last)
}

// lost tells whether a direction has stood still for too long.
func (h *heartbeat) lost(now time.Time) bool {
	if h.alone {
		return false
	}
	for _, p := range h.directions {
		unusual := h.samples > learning && 2*p.still >= 5*(p.usual+1)
		if unusual || now.Sub(p.moved) > longSilence {
			return true
		}
	}
	return false
}

// sample looks for packets, and has some come where there were none.
func (a *Agent) sample(ctx context.Context) {
	links, err := writer.ReadHooks(a.o.Tables)
	if err != nil {
		a.o.Log.Error("look for packets", "error", err)
		return
	}
	now := time.Now()
	a.mu.Lock()
	before := a.heartbeat.lost(now)
	still := a.heartbeat.count(now, links)
	changed, alone := a.heartbeat.lost(now) != before, a.heartbeat.alone
	a.mu.Unlock()
	if changed {
		a.notify()
	}
	if still && !alone {
		a.provokePackets(ctx)
	}
}

// provokePackets makes packets go out and in: it knocks at each operator, of which one at
// least is on another node, if there are several.
func (a *Agent) provokePackets(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, sampleEvery/2)
	defer cancel()
	all, err := a.addresses(ctx)
	if err != nil {
		return // there are other packets, or none: nothing depends on these
	}
	for _, address := range all {
		if conn, err := new(net.Dialer).DialContext(ctx, "tcp", address); err == nil {
			_ = conn.Close()
		}
	}
}
