// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/announce"
)

// Peering is what a host needs to announce its clients to other hosts, and to undo what
// they announce. Without Peers it does neither.
type Peering struct {
	// Peers are the hosts; this one may be among them.
	Peers []Peer
	// KeyFile has the keys that all of them share.
	KeyFile string
	// StateDir keeps the boot number: peers know hosts, so it is one for all load balancers
	// of a host. "": it is not kept.
	StateDir string
	// SNATPorts are those to which any of them translates sources, besides this host's own.
	SNATPorts lb.PortRange
}

const (
	// peersEvery is how often to look at the file of keys, and at how peers answer.
	peersEvery = time.Second
	// unansweredFor is how long peers may answer nothing until a host that is not sure of
	// its boot number tries another one.
	unansweredFor = 5 * time.Minute
)

// announcing is the state of Peering in a runner. runner.reconciling guards it.
type announcing struct {
	keys *keyFile
	boot *bootNumber
	// others are the peers without this host.
	others []Peer
}

// openPeering reads keys and the boot number. It returns an error if there are peers but
// no keys.
func (r *runner) openPeering() (err error) {
	if len(r.Peering.Peers) == 0 {
		return nil
	}
	if r.announcing.keys, err = openKeyFile(r.Peering.KeyFile); err != nil {
		return err
	}
	if r.announcing.boot, err = openBootNumber(r.Peering.StateDir, r.RunDir); r.announcing.boot == nil {
		return err
	}
	r.log.warning("boot number", err)
	return nil
}

// settings returns what the maps are to hold.
func (r *runner) settings() announce.Settings {
	s := announce.Settings{Sign: -1, Peers: []announce.Peer{}}
	if r.announcing.keys == nil {
		return s
	}
	for id, key := range r.announcing.keys.keys.Keys {
		s.Keys[id] = lb.AnnounceKey(key)
	}
	s.Sign, s.Boot = r.announcing.keys.keys.Sign, r.announcing.boot.Number
	s.Ports = r.SNATPorts
	if p := r.Peering.SNATPorts; p != (lb.PortRange{}) {
		s.Ports = lb.PortRange{First: min(s.Ports.First, p.First), Last: max(s.Ports.Last, p.Last)}
	}
	for _, p := range r.announcing.others {
		s.Peers = append(s.Peers, announce.Peer{Name: p.String(), Sources: p.Addresses, Networks: p.Networks, Undoes: true})
	}
	return s
}

// findPeers finds out which of the peers are not this host, and reports whether they are
// others than before. The caller holds r.reconciling.
func (r *runner) findPeers(n *network) (changed bool) {
	if len(r.Peering.Peers) == 0 {
		return false
	}
	others, notes := otherPeers(r.Peering.Peers, n.HostAddresses())
	r.log.each("own peer", slog.LevelInfo, notes)
	message := ""
	if len(others) == 0 {
		message = "no peer is left, as all that --peer names is this host: nothing is announced or undone"
	}
	r.log.once("no peer", slog.LevelWarn, message)
	changed = !slices.EqualFunc(others, r.announcing.others, func(a, b Peer) bool { return slices.Equal(a.Addresses, b.Addresses) })
	r.announcing.others = others
	return changed
}

// setPeering has the programs announce and undo as keys and peers ask for. The caller
// holds r.reconciling.
func (r *runner) setPeering() {
	settings := r.settings()
	for _, p := range r.planes {
		err := p.announcer.Set(settings)
		if !p.hasEnded() {
			r.log.failure("announce "+p.dir, err)
		}
	}
	if len(settings.Peers) == 0 {
		return
	}
	var names []string
	for _, p := range settings.Peers {
		names = append(names, p.Name)
	}
	accepted := 0
	for _, k := range settings.Keys {
		if k != (lb.AnnounceKey{}) {
			accepted++
		}
	}
	slog.Info("peers: clients that they announce are shown to servers here, and those of this host are announced to them", "peers", strings.Join(names, " "),
		"ports", settings.Ports, "boot", settings.Boot, "keys", accepted, "signs", settings.Sign)
}

// setEgressLinks tells the programs on which interfaces they are. The caller holds
// r.reconciling.
func (r *runner) setEgressLinks(n *network) {
	var indices []int
	for _, i := range n.interfaces {
		indices = append(indices, i.Index)
	}
	for _, p := range r.planes {
		err := p.announcer.SetEgressLinks(indices, true)
		if !p.hasEnded() {
			r.log.failure("egress links "+p.dir, err)
		}
	}
}

// watchPeers follows the file of keys, and how peers answer, until the context ends.
func (r *runner) watchPeers(ctx context.Context, a *announce.Announcer) {
	if len(r.Peering.Peers) == 0 {
		return
	}
	var unanswered time.Time // since when a peer answers nothing
	var written string
	for pause(ctx, peersEvery) {
		r.followKeys()
		status, err := a.Status()
		r.log.failure("read peers", err)
		if err != nil {
			continue
		}
		r.log.each("peer", slog.LevelWarn, peerProblems(status))
		switch {
		case !slices.ContainsFunc(status.Pairs, silent):
			unanswered = time.Time{}
		case unanswered.IsZero():
			unanswered = time.Now()
		case time.Since(unanswered) > unansweredFor:
			unanswered = time.Time{}
			r.skipBootNumbers()
		}
		for i := range status.Pairs { // `blixt status` reads the maps for these
			p := &status.Pairs[i]
			p.Undone, p.Plain, p.Refused, p.Asked = 0, 0, 0, 0
		}
		text, err := json.MarshalIndent(status, "", "  ")
		if err == nil && string(text) != written {
			if err = renameio.WriteFile(PeersFile(r.RunDir, r.Name), text, 0o644, renameio.WithTempDir(r.RunDir)); err == nil {
				written = string(text)
			}
		}
		r.log.failure("write peers", err)
	}
}

// followKeys reads the file of keys again.
func (r *runner) followKeys() {
	r.reconciling.Lock()
	defer r.reconciling.Unlock()
	changed, err := r.announcing.keys.look()
	r.log.warning("keys", err)
	if changed {
		r.setPeering()
	}
}

// skipBootNumbers tries another boot number, if the one that this host has may be one
// that peers reject.
func (r *runner) skipBootNumbers() {
	r.reconciling.Lock()
	defer r.reconciling.Unlock()
	if !r.announcing.boot.Unsure {
		return
	}
	r.log.warning("boot number", r.announcing.boot.skip())
	slog.Warn("a peer answers nothing, and the number of the last boot is not known: trying another one, as peers may take this host's messages for old ones", "boot", r.announcing.boot.Number)
	r.setPeering()
}

// silent reports whether a peer is probed, and answers nothing.
func silent(p announce.Pair) bool {
	return len(p.Probes) > 0 && !slices.ContainsFunc(p.Probes, func(c announce.ProbeCount) bool { return c.State != announce.Unanswered })
}

// peerProblems returns a message for each peer whose backends do not all see their clients.
func peerProblems(s announce.Status) (lines []string) {
	if !s.Announces {
		return []string{"the program is of an earlier version, and neither announces clients nor undoes what peers announce"}
	}
	for _, p := range s.Pairs {
		var forms []string
		for _, c := range p.Probes {
			if c.State == announce.Unanswered {
				forms = append(forms, c.Form)
			}
		}
		switch {
		case silent(p):
			lines = append(lines, fmt.Sprintf("peer %s answers nothing: backends there see the address of this host. Does blixt run there, with the same keys, and with this host as --peer?", p.Node))
		case len(forms) > 0:
			lines = append(lines, fmt.Sprintf("peer %s does not answer to %s: a firewall between may drop it. Where neither form arrives, backends there see the address of this host", p.Node, strings.Join(forms, ", ")))
		}
	}
	return lines
}
