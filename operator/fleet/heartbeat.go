// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"net"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/agent"
)

// pulse is how often packets are looked for.
const pulse = 2 * time.Second

// How long a direction may see no packet: what it has shown to be usual there,
// two and a half times, within these limits. What is usual is not known at first.
const (
	shortSilence = 5 * time.Second
	longSilence  = time.Minute
	learning     = 30 * time.Second
)

// heartbeat remembers when packets were seen last, by direction: where a link
// is missing, the other direction goes on. Interfaces come and go, so that one
// of several stands still says nothing.
type heartbeat struct {
	began  time.Time
	totals map[string]uint64
	moved  map[string]time.Time
	// longest is the longest silence that has ended.
	longest map[string]time.Duration
}

var directions = []string{"ingress", "egress"}

// sample looks at the counters. Returns whether a direction stands still.
func (h *heartbeat) sample(now time.Time, links []agent.LinkCount) (still bool) {
	totals := map[string]uint64{}
	for _, l := range links {
		totals[l.Direction] += l.Packets
	}
	first := h.totals == nil
	if first {
		h.began, h.moved, h.longest = now, map[string]time.Time{}, map[string]time.Duration{}
	}
	for _, d := range directions {
		switch {
		case first:
			h.moved[d] = now
		case totals[d] != h.totals[d]: // less: the program was loaded again
			h.longest[d] = max(h.longest[d], now.Sub(h.moved[d]))
			h.moved[d] = now
		default:
			still = true
		}
	}
	h.totals = totals
	return still
}

// age is how long ago a packet was seen last.
func (h *heartbeat) age(now time.Time) time.Duration {
	last := now.Sub(h.moved[directions[0]])
	for _, d := range directions {
		last = min(last, now.Sub(h.moved[d]))
	}
	return last
}

// lost tells whether a direction has stood still for too long.
func (h *heartbeat) lost(now time.Time) bool {
	for _, d := range directions {
		if h.totals != nil && now.Sub(h.moved[d]) > h.limit(d, now) {
			return true
		}
	}
	return false
}

func (h *heartbeat) limit(direction string, now time.Time) time.Duration {
	if now.Sub(h.began) < learning {
		return longSilence
	}
	return min(max(h.longest[direction]*5/2, shortSilence), longSilence)
}

// feel looks for packets, and has some come where there were none.
func (c *Client) feel(ctx context.Context) {
	links, err := agent.ReadLinks(c.o.Tables)
	if err != nil {
		c.o.Log.Error("look for packets", "error", err)
		return
	}
	now := time.Now()
	c.mu.Lock()
	before := c.heartbeat.lost(now)
	still := c.heartbeat.sample(now, links)
	changed := c.heartbeat.lost(now) != before
	c.mu.Unlock()
	if changed {
		c.tell()
	}
	if still {
		c.nudge(ctx)
	}
}

// nudge makes packets go out and in: it knocks at each operator, of which one at
// least is on another node, if there are several.
func (c *Client) nudge(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, pulse/2)
	defer cancel()
	all, err := c.addresses(ctx)
	if err != nil {
		return // there are other packets, or none: nothing depends on these
	}
	for _, address := range all {
		if conn, err := new(net.Dialer).DialContext(ctx, "tcp", address); err == nil {
			_ = conn.Close()
		}
	}
}
