// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"fmt"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// hostListens returns the frontends at which a socket of the host itself listens,
// sorted: it gets the new connections. The program tells of each connection that
// the host got. Only that tells: an agent has a network namespace of its own, and
// sees no socket of its node. So a frontend is among them from the first connection
// on, until there was none for lb.HostListensFor. now is the time in ticks.
func hostListens(t Tables, contents *datapath.Contents, now uint32) ([]lb.Key, error) {
	seen, err := t.HostListens()
	if err != nil {
		return nil, fmt.Errorf("read where the host listens: %w", err)
	}
	var keys []lb.Key
	for key, tick := range seen {
		if _, served := contents.Frontends[key]; served && listensAt(tick, now) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, lb.Key.Compare)
	return keys[:min(len(keys), lb.MaxHostListens)], nil
}

// listensAt reports whether a socket of the host still counts as listening that got its
// last connection at a tick.
func listensAt(tick, now uint32) bool {
	return int32(now-tick) <= int32(datapath.Ticks(lb.HostListensFor))
}
