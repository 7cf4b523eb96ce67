// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/hostsocket"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// hostListensEvery is how often to look where the host itself listens.
const hostListensEvery = 10 * time.Second

// sent is the last state, with file and line of objects.
type sent struct {
	lb.State
	at func(name, value string) string
}

// watchHostListens logs, once each, the listeners of our program whose port a socket of
// this host has: at once when there is a new state.
func (r *runner) watchHostListens(ctx context.Context, w *writer.Writer) {
	timer := time.NewTimer(hostListensEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.newState:
		case <-timer.C:
		}
		timer.Reset(hostListensEvery)
		lines, err := r.hostListens(w)
		r.log.failure("read where the host listens", err)
		if err == nil {
			r.log.each("host listens", slog.LevelWarn, lines)
		}
	}
}

// hostListens returns a message for each frontend at which the host listens: by its
// sockets, and by what the program has seen.
func (r *runner) hostListens(w *writer.Writer) ([]string, error) {
	state := r.state.Load()
	if state == nil {
		return nil, nil
	}
	summary, err := w.Summary()
	if err != nil {
		return nil, err
	}
	sockets, err := hostsocket.List()
	if err != nil {
		return nil, err
	}
	return hostListens(state, sockets, summary.HostListens, hostsocket.Owners), nil
}

// hostListens returns the messages. Who listens at an address that the host has, too, gets
// what is for the frontend; at an address of ours alone nobody else gets anything.
func hostListens(state *sent, sockets []hostsocket.Socket, seen []lb.Key, owners func(map[uint32]bool) map[uint32]string) (lines []string) {
	exclusive := map[string]bool{}
	for _, a := range state.Addresses {
		exclusive[a.IP.String()] = a.Exclusive
	}
	byPort := map[lb.Key][]hostsocket.Socket{} // without address
	for _, s := range sockets {
		key := lb.Key{Protocol: s.Protocol, Port: s.Addr.Port()}
		byPort[key] = append(byPort[key], s)
	}
	var found []lb.Frontend
	sources, inodes := map[lb.Key]hostsocket.Socket{}, map[uint32]bool{}
	for _, f := range state.Frontends {
		ours := exclusive[f.Addr.String()]
		is := slices.Contains(seen, f.Key())
		candidates := byPort[lb.Key{Protocol: f.Protocol, Port: f.Port}]
		if f.Ports != nil {
			candidates = sockets
		}
		for _, s := range candidates {
			at := f.Key()
			if at.Port = s.Addr.Port(); !serves(&f, at.Port) {
				continue
			}
			if gets, exact := s.Gets(at); gets && (exact || !ours) {
				is = true
				sources[f.Key()], inodes[s.Inode] = s, true
			}
		}
		if is && len(found) < lb.MaxHostListens {
			found = append(found, f)
		}
	}
	if found == nil {
		return nil
	}
	names := owners(inodes)
	for _, f := range found {
		socket := sources[f.Key()]
		who := cmp.Or(names[socket.Inode], "a socket of this host")
		listens := f.Key() // of what was seen, the program says the frontend alone
		listens.Port = cmp.Or(socket.Addr.Port(), f.Port)
		outcome := "and gets its new connections"
		if exclusive[f.Addr.String()] {
			outcome = "and gets nothing, as the address is the Gateway's"
		}
		at := ""
		if state.at != nil {
			if at = state.at("Gateway "+f.Gateway, "listeners/"+f.Listener); at != "" {
				at += ": "
			}
		}
		lines = append(lines, fmt.Sprintf("%sGateway %s, listener %s: %s listens at %s, %s. Stop it (ss -lntup names the process), or give the listener another port.",
			at, f.Gateway, f.Listener, who, listens, outcome))
	}
	return lines
}

// serves reports whether the port is the frontend's own, or one of its range.
func serves(f *lb.Frontend, port uint16) bool {
	if f.Ports == nil {
		return port == f.Port
	}
	return cmp.Or(f.Ports.First, f.Port) <= port && port <= f.Ports.Last
}
