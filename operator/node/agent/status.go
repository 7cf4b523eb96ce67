// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// driftShown is how long another writer is reported. The maps are written again
// within seconds.
const driftShown = 10 * time.Minute

// status returns the status to send.
func (a *Agent) status() *wire.Status {
	sum, err := a.writer.Summary()
	announcing, announcingErr := a.announcingStatus(sum.Sources)
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	s := &wire.Status{
		Got: wire.EncodeVersion(a.attempted), Error: a.failure,
		PacketsAge: uint64(a.heartbeat.age(now).Milliseconds()), HeartbeatLost: a.heartbeat.lost(now),
	}
	if f := a.leftOut; f != nil && s.Error == "" {
		s.TableFull = wire.EncodeTableFull(f)
		s.Error = f.String() // for an operator that knows no frontends that are left out
	}
	if s.Error == "" {
		s.Error = a.settingsFailure
	}
	s.Announcing = announcing
	if err = errors.Join(err, announcingErr); err != nil {
		s.Error = err.Error()
		return s
	}
	s.Holds, s.StateHash, s.Draining = wire.EncodeVersion(&sum.Version), sum.StateHash, sum.Draining
	s.Snat = &wire.Ports{Min: uint32(sum.SNAT.First), Max: uint32(sum.SNAT.Last)}
	s.Tables = map[string]*wire.Use{}
	for name, use := range sum.Tables {
		s.Tables[name] = &wire.Use{Used: uint64(use.Used), Size: uint64(use.Size)}
	}
	s.Frontends, s.Backends = uint32(sum.Tables["frontends"].Used), uint32(sum.Tables["backends"].Used)
	s.Flows = sum.Flows
	for _, k := range sum.HostListens {
		s.HostListens = append(s.HostListens, wire.EncodeKey(k))
	}
	if at := a.elsewhere.last; !at.IsZero() {
		s.ElsewhereAge = new(uint64(now.Sub(at).Milliseconds()))
	}
	if sum.Draining {
		s.Flows = a.unfinished
	}
	if !sum.Foreign.IsZero() && now.Sub(sum.Foreign) < driftShown {
		s.Drift = "another writer had changed the maps at " + sum.Foreign.UTC().Format(time.RFC3339) + "; they were written again"
	}
	return s
}
