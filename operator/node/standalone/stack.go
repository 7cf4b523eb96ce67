// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/ipsec"
	"github.com/kubernetes-sigs/blixt/operator/node/masquerade"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// stackPaths decides which backends are reached through the host's network stack.
type stackPaths struct {
	// policies are the host's IPsec policies as they were last read; nil: not yet.
	policies *ipsec.Policies
	// covered are the backends that a policy covered at any time. They stay where they
	// are when it goes, as policies come and go with each negotiation of keys.
	covered map[backendKey]bool
	// masquerading is true when the host's NAT knows the mark.
	masquerading bool
	// wanted is the state that was last sent, without the decision.
	wanted *lb.State
}

// backendKey identifies a backend to IPsec policies.
type backendKey struct {
	protocol lb.Protocol
	addr     netip.AddrPort
}

// remember takes over from the maps which backends a previous process found covered: it
// may have ended while keys were negotiated, and a backend that is no longer covered is
// another one, so that its flows would be reset.
func (p *stackPaths) remember(contents *datapath.Contents) {
	for key, served := range contents.Frontends {
		for b := range served.IDs {
			if b.Protected {
				p.cover(backendKey{key.Protocol, b.Addr})
			}
		}
	}
}

func (p *stackPaths) cover(b backendKey) {
	if p.covered == nil {
		p.covered = map[backendKey]bool{}
	}
	p.covered[b] = true
}

// readPolicies reads the host's IPsec policies. It returns false if they are as
// they were.
func (r *runner) readPolicies() (changed bool) {
	read, err := ipsec.Read()
	r.log.failure("ipsec", err)
	if err != nil {
		if r.paths.policies != nil {
			return false
		}
		read = ipsec.All // nothing may leave in clear text that should not
	}
	changed = r.paths.policies == nil || !r.paths.policies.Equal(read)
	r.paths.policies = &read
	return changed
}

// send has the writers write the state, with the path to each backend.
func (r *runner) send(ctx context.Context, state lb.State) {
	r.paths.wanted = &state
	if r.paths.policies == nil {
		r.readPolicies()
	}
	state = r.choosePaths(state)
	clients := r.protectedClients(state)
	for _, p := range r.planes {
		r.log.failure("ipsec clients "+p.dir, datapath.SetProtectedClients(p.dir, clients))
		p.announcer.SetState(state)
		select {
		case p.states <- writer.VersionedState{State: state}:
		case <-p.ended:
		case <-ctx.Done():
		}
	}
}

// followPolicies sends the state again when IPsec policies have changed. It reads
// no files: what is served must obey at once, whatever is wrong with them.
func (r *runner) followPolicies(ctx context.Context) {
	r.reconciling.Lock()
	defer r.reconciling.Unlock()
	if ctx.Err() == nil && r.readPolicies() && r.paths.wanted != nil {
		r.send(ctx, *r.paths.wanted)
	}
}

// choosePaths returns the state with ThroughStack and Protected of each backend.
func (r *runner) choosePaths(state lb.State) lb.State {
	var covered []string
	through := false
	state.Frontends = slices.Clone(state.Frontends)
	for i := range state.Frontends {
		f := &state.Frontends[i]
		own := false // are the backends, and not those of the state that was given
		for j, b := range f.Backends {
			key := backendKey{f.Protocol, b.Addr}
			if !r.paths.covered[key] && r.paths.policies.CoverBackend(f.Protocol, b.Addr) {
				r.paths.cover(key)
			}
			if r.paths.covered[key] {
				b.ThroughStack, b.Protected = true, true
				if name := b.Addr.String(); len(covered) <= namedBackends && !slices.Contains(covered, name) {
					covered = append(covered, name)
				}
			}
			b.ThroughStack = b.ThroughStack || r.ThroughStack
			through = through || b.ThroughStack
			if b == f.Backends[j] {
				continue
			}
			if !own {
				f.Backends, own = slices.Clone(f.Backends), true
			}
			f.Backends[j] = b
		}
	}
	r.logCovered(covered)
	if !through {
		r.log.failure("masquerade", nil)
	} else if !r.paths.masquerading {
		err := masquerade.Set(r.Name, r.MasqueradeMark)
		r.log.failure("masquerade", err)
		r.paths.masquerading = err == nil
	}
	return state
}

// protectedClients returns the prefixes of clients that policies cover.
func (r *runner) protectedClients(state lb.State) map[netip.Prefix]bool {
	keys := make([]lb.Key, len(state.Frontends))
	for i := range state.Frontends {
		keys[i] = state.Frontends[i].Key()
	}
	clients := r.paths.policies.Clients(keys)
	var lines []string
	for prefix, protected := range clients {
		if protected {
			lines = append(lines, fmt.Sprintf("IPsec policies of this host cover clients in %s: they are not served, as answers would leave in clear text. Use XFRM interfaces instead of policies", prefix))
		}
	}
	slices.Sort(lines)
	r.log.each("ipsec clients", slog.LevelWarn, lines)
	return clients
}

// namedBackends is how many backends a message names.
const namedBackends = 3

func (r *runner) logCovered(backends []string) {
	var lines []string
	if len(backends) > namedBackends {
		backends = append(backends[:namedBackends], "and others")
	}
	if len(backends) > 0 {
		lines = []string{fmt.Sprintf("IPsec policies of this host cover backends (%v): they are reached through the host's network stack alone, and not by sockets of this host", backends)}
	}
	r.log.each("ipsec backends", slog.LevelWarn, lines)
}

// keepMasquerading has the host's NAT know the mark again after somebody has removed all
// rules, as `nft flush ruleset` does, with which most files of nftables begin.
func (r *runner) keepMasquerading() {
	if !r.paths.masquerading {
		return
	}
	if exists, err := masquerade.Exists(r.Name); err != nil || exists {
		return
	}
	err := masquerade.Set(r.Name, r.MasqueradeMark)
	r.log.failure("masquerade", err)
	if err == nil {
		slog.Warn("somebody has removed the nftables table by which this host masquerades: it is made again", "table", "inet blixt-"+r.Name)
	}
}

// leaveStack undoes what send has set up on the host.
func (r *runner) leaveStack() {
	if err := masquerade.Remove(r.Name); err != nil && r.paths.masquerading {
		slog.Error(text(err))
	}
}
