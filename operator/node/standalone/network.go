// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
	"github.com/kubernetes-sigs/blixt/operator/node/vip"
)

// network is the host's network, as decisions see it: with what was there a moment ago.
type network struct {
	*hostnet.View
	// interfaces are those to attach the program to. missing are names that the user
	// wants and no interface has, and renamed are interfaces that have lost such a name.
	interfaces []hostnet.Interface
	missing    []string
	renamed    map[string]hostnet.Interface
}

// observer observes the host's network.
type observer struct {
	watcher *hostnet.Watcher
	memory  hostnet.Memory
	choice  hostnet.Choice
}

// newObserver returns an observer. wanted are names of interfaces to attach to; none:
// hostnet.Choice chooses. What the host loses counts for the grace longer.
func newObserver(wanted []string, grace time.Duration) *observer {
	return &observer{hostnet.Watch(), hostnet.Memory{Grace: grace}, hostnet.Choice{Wanted: wanted}}
}

// look returns the network as it is now.
func (o *observer) look() (*network, error) {
	s, err := o.watcher.Look()
	if err != nil {
		return nil, err
	}
	n := &network{View: o.memory.See(s, time.Now(), vip.IsBlixts)}
	n.interfaces, n.missing, n.renamed = o.choice.Choose(s)
	return n, nil
}

// defaultAddresses returns the addresses for Gateways that ask for none: those of
// interfaces with a default route, or else all of the host.
func (n *network) defaultAddresses() []netip.Addr {
	if primary := n.DefaultAddresses(); len(primary) > 0 {
		return primary
	}
	return n.HostAddresses()
}

// remarks returns a message for each wanted interface that is not as it was named.
func (n *network) remarks() (lines []string) {
	for _, name := range n.missing {
		lines = append(lines, fmt.Sprintf("there is no interface %s: it gets the program when it appears", name))
	}
	for _, name := range slices.Sorted(maps.Keys(n.renamed)) {
		lines = append(lines, fmt.Sprintf("interface %s is called %s now, and keeps the program: name it so with --interface", name, n.renamed[name].Name))
	}
	return lines
}
