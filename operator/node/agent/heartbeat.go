// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"net"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// sampleEvery is the interval at which packet counters are read.
const sampleEvery = 2 * time.Second

// A direction has failed if it saw no packet for longSilence, or for 2.5 times
// as many samples as ever before. Samples are compared rather than seconds: a
// sample that a busy node takes late still sees the packets in between. The
// second rule applies after the first `learning` samples.
const (
	longSilence = time.Minute
	learning    = 15
)

// heartbeat is when packets were last seen in each direction: where a hook is
// missing, packets continue in the other direction. It does not tell interfaces
// apart: they come and go, so that a single idle one means nothing.
type heartbeat struct {
	// alone is true if there is no other node whose packets would come while
	// nobody uses Blixt. Silence then means nothing.
	alone    bool
	samples  int
	totals   map[string]uint64
	silences map[string]*silence // by direction
}

// silence is the state of one direction.
type silence struct {
	moved time.Time // when a packet was last seen
	still int       // samples since then
	usual int       // the most samples without a packet, before packets came again
}

var directions = []string{"ingress", "egress"}

// count records a sample. It returns whether a direction saw no packet since
// the last one.
func (h *heartbeat) count(now time.Time, links []writer.HookCount) (still bool) {
	totals := map[string]uint64{}
	for _, l := range links {
		totals[l.Direction] += l.Packets
	}
	if h.samples++; h.samples == 1 {
		h.silences = map[string]*silence{}
	}
	for _, d := range directions {
		p := h.silences[d]
		switch {
		case p == nil:
			h.silences[d] = &silence{moved: now}
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

// age returns the time since a packet was last seen.
func (h *heartbeat) age(now time.Time) time.Duration {
	var last time.Time
	for _, p := range h.silences {
		if p.moved.After(last) {
			last = p.moved
		}
	}
	return now.Sub(last)
}

// lost reports whether a direction has failed.
func (h *heartbeat) lost(now time.Time) bool {
	if h.alone {
		return false
	}
	for _, p := range h.silences {
		unusual := h.samples > learning && 2*p.still >= 5*(p.usual+1)
		if unusual || now.Sub(p.moved) > longSilence {
			return true
		}
	}
	return false
}

// sample reads the packet counters, and provokes packets where there were none.
func (a *Agent) sample(ctx context.Context) {
	links, err := writer.ReadHooks(a.o.Tables)
	if err != nil {
		a.o.Log.Error("read packet counters", "error", err)
		return
	}
	a.recordEgress(links)
	answeredElsewhere, err := writer.ReadAnsweredElsewhere(a.o.Tables)
	if err != nil {
		a.o.Log.Error("read counters", "error", err)
		return
	}
	listens, err := a.o.Tables.HostListens()
	if err != nil {
		a.o.Log.Error("read where the host listens", "error", err)
		return
	}
	now := time.Now()
	a.mu.Lock()
	before := a.heartbeat.lost(now)
	still := a.heartbeat.count(now, links)
	a.elsewhere.sample(now, answeredElsewhere)
	changed, alone := a.heartbeat.lost(now) != before, a.heartbeat.alone
	for key := range listens { // kube-proxy takes the port from the node until the operator knows
		_, known := a.listens[key]
		changed = changed || !known
	}
	a.listens = listens
	a.mu.Unlock()
	if changed {
		a.notify()
	}
	if still && !alone {
		a.provokePackets(ctx)
	}
}

// provokePackets makes packets go out and in: it connects to each operator. If
// there are several, at least one is on another node.
func (a *Agent) provokePackets(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, sampleEvery/2)
	defer cancel()
	all, err := a.addresses(ctx)
	if err != nil {
		return // nothing depends on these packets
	}
	for _, address := range all {
		if conn, err := new(net.Dialer).DialContext(ctx, "tcp", address); err == nil {
			_ = conn.Close()
		}
	}
}
