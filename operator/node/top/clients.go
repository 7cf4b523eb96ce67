// SPDX-License-Identifier: Apache-2.0

package top

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// maxClients is how many clients are counted at a time: 3 MB for each kind of flow. A
// flood with forged sources has as many as there are flows.
const maxClients = 1 << 15

// Clients counts the flows of clients in bounded memory.
type Clients struct {
	flows, opening counter
}

// NewClients returns counts of nothing.
func NewClients() *Clients { return &Clients{newCounter(maxClients), newCounter(maxClients)} }

// Tables are the tables of flows.
type Tables interface {
	EachFlow(yield func([]datapath.FlowEntry) bool) error
	EachNewFlow(yield func([]datapath.FlowEntry) bool) error
}

// CountClients counts the flows in the tables. Flows of other nodes whose source is undone
// count for their client; those that keep the node's address, and the host's own
// connections, have none.
func CountClients(t Tables) (*Clients, error) {
	c := NewClients()
	add := func(to *counter) func([]datapath.FlowEntry) bool {
		return func(entries []datapath.FlowEntry) bool {
			for _, e := range entries {
				to.entry(e)
			}
			return true
		}
	}
	if err := t.EachFlow(add(&c.flows)); err != nil {
		return nil, fmt.Errorf("read flows: %w", err)
	}
	if err := t.EachNewFlow(add(&c.opening)); err != nil {
		return nil, fmt.Errorf("read new flows: %w", err)
	}
	return c, nil
}

// entry counts a forward entry of a client.
func (c *counter) entry(e datapath.FlowEntry) {
	flags := bpf.BlixtFlowFlag(e.Value.Flags)
	if flags&(bpf.BlixtFlowFlagFLOW_REPLY|bpf.BlixtFlowFlagFLOW_PLAIN|bpf.BlixtFlowFlagFLOW_CLOSED|bpf.BlixtFlowFlagFLOW_GONE) != 0 {
		return
	}
	if flags&bpf.BlixtFlowFlagFLOW_UNDONE != 0 {
		c.add(e.Value.Src) // the translated tuple has the client
	} else if e.Value.Frontend != uint32(bpf.BlixtNoFlowOfNO_FRONTEND) {
		c.add(e.Key.Src)
	}
}

// counter finds the most frequent of many addresses (Misra and Gries, 1982): it keeps no
// more than size of them, and each of their counts is too small by lost at most.
type counter struct {
	size int
	of   map[bpf.BlixtAddr]uint64
	lost uint64
}

func newCounter(size int) counter { return counter{size: size, of: map[bpf.BlixtAddr]uint64{}} }

func (c *counter) add(a bpf.BlixtAddr) {
	if n, known := c.of[a]; known || len(c.of) < c.size {
		c.of[a] = n + 1
		return
	}
	// One of each takes this one along. There are size times as many additions as that.
	c.lost++
	for k, n := range c.of {
		if n == 1 {
			delete(c.of, k)
		} else {
			c.of[k] = n - 1
		}
	}
}

// Client is a client and its flows.
type Client struct {
	Client netip.Addr `json:"client"`
	// Flows are established TCP flows and UDP flows, Opening are TCP flows that are not
	// established.
	Flows   uint64 `json:"flows"`
	Opening uint64 `json:"opening,omitempty"`
}

// Top returns the n clients with most flows, and by how much each number may be too
// small.
func (c *Clients) Top(n int) (clients []Client, lost uint64) {
	all := make([]Client, 0, len(c.flows.of))
	for a, flows := range c.flows.of {
		all = append(all, Client{datapath.FromAddr(a), flows, c.opening.of[a]})
	}
	for a, opening := range c.opening.of {
		if c.flows.of[a] == 0 {
			all = append(all, Client{datapath.FromAddr(a), 0, opening})
		}
	}
	slices.SortFunc(all, func(a, b Client) int {
		return cmp.Or(cmp.Compare(b.Flows+b.Opening, a.Flows+a.Opening), a.Client.Compare(b.Client))
	})
	return slices.Clip(all[:min(n, len(all))]), max(c.flows.lost, c.opening.lost)
}
