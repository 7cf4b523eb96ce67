// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"maps"
	"reflect"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// historyLimit is how many versions an agent may miss and still get only the
// changes. Of each version, only the names of what changed are kept.
const historyLimit = 1024

// history is the newest state of an epoch, and the changes that led to it.
type history struct {
	version lb.Version // sequence 0: nothing was published yet
	state   *indexedSnapshot
	sum     lb.Sum // of state
	// changes are those of the newest versions, the newest last.
	changes []change
	// sums has the sequences of the newest versions, by their sums.
	sums map[lb.Sum]uint64
	// updates are those to the newest version. All agents share them.
	updates map[updateKey]*update
}

// updateKey tells the updates to a version apart.
type updateKey struct {
	from     uint64 // the sequence; 0: complete
	policies bool   // that of the agent's Hello
}

func newHistory(epoch uint64) history {
	return history{version: lb.Version{Epoch: epoch}, state: &indexedSnapshot{}, sums: map[lb.Sum]uint64{}}
}

// publish makes s the newest state. It returns false if s equals the newest
// state.
func (h *history) publish(s *indexedSnapshot) bool {
	c := differences(h.state, s)
	if h.version.Sequence > 0 && c.empty() {
		return false
	}
	h.add(s, c, newSum(h.sum, h.state, s, c))
	return true
}

// publishEndpoints makes those of one Service the newest. It returns false if they
// are so already, or if no frontend names the Service.
func (h *history) publishEndpoints(name types.NamespacedName, ports []gateway.EndpointPort) bool {
	before, known := h.state.services.get(name)
	if !known || reflect.DeepEqual(before, ports) {
		return false
	}
	s, c := *h.state, newChange()
	s.services, c.services[name] = s.services.with(name, ports), true
	h.add(&s, c, newSum(h.sum, h.state, &s, c))
	return true
}

// publishSources makes a set of sources the newest of its policy. It returns false if it is
// so already, or if the policy has none.
func (h *history) publishSources(set lb.SourceSet) bool {
	before, known := h.state.sources[set.Policy]
	if !known || before.Equal(&set) {
		return false
	}
	s, c := *h.state, newChange()
	s.sources, c.sources[set.Policy] = maps.Clone(s.sources), true
	s.sources[set.Policy] = &set
	h.add(&s, c, newSum(h.sum, h.state, &s, c))
	return true
}

// add makes s the newest state, given what differs from the one before, and its
// sum.
func (h *history) add(s *indexedSnapshot, c change, sum lb.Sum) {
	h.version.Sequence++
	h.state, h.sum, h.updates = s, sum, map[updateKey]*update{}
	h.changes = append(h.changes, c)
	h.sums[sum] = h.version.Sequence
	if len(h.changes) > historyLimit {
		h.changes = append(h.changes[:0:0], h.changes[historyLimit/4:]...)
		for sum, sequence := range h.sums {
			if sequence+uint64(len(h.changes)) < h.version.Sequence {
				delete(h.sums, sum)
			}
		}
	}
}

// since returns the update from base to the newest version: the changes, or
// everything if base is nil, of another epoch or too old. policies is that of the
// agent's Hello.
func (h *history) since(base *lb.Version, policies bool) *update {
	missed, known := h.missed(base)
	if !known {
		base = nil
	}
	key := updateKey{policies: policies}
	if base != nil {
		key.from = base.Sequence
	}
	u := h.updates[key]
	if u == nil {
		u = &update{kind: "complete", base: base, version: h.version, state: h.state, policies: policies}
		if known {
			u.kind, u.change = "changes", newChange()
			for _, m := range missed {
				u.change.add(m)
			}
		}
		h.updates[key] = u
	}
	return u
}

// renumber returns the update that gives what an agent holds of another leader the
// number that it has here, or nil if it has none: the agent holds something else.
func (h *history) renumber(held lb.Version, sum lb.Sum) *update {
	sequence, ok := h.sums[sum]
	if !ok || held.Epoch == h.version.Epoch {
		return nil
	}
	return &update{kind: "renumbered", base: &held, version: lb.Version{Epoch: h.version.Epoch, Sequence: sequence}}
}

// missed returns the changes since base, and false if not all of them are
// known.
func (h *history) missed(base *lb.Version) ([]change, bool) {
	if base == nil || base.Epoch != h.version.Epoch || base.Sequence == 0 || base.Sequence > h.version.Sequence {
		return nil, false
	}
	n := h.version.Sequence - base.Sequence
	if n > uint64(len(h.changes)) {
		return nil, false
	}
	return h.changes[uint64(len(h.changes))-n:], true
}

// update leads an agent from one version to another. It is encoded once, by the
// first session that sends it, without the server's mutex.
type update struct {
	kind    string
	base    *lb.Version // nil: the agent has nothing yet
	version lb.Version
	state   *indexedSnapshot // at version
	change  change           // since base
	// policies is that of the Hello of the agents.
	policies bool

	once sync.Once
	data []byte
	err  error
}

func (u *update) encoded() ([]byte, error) {
	u.once.Do(func() {
		if u.base == nil {
			u.change = u.state.everything()
		}
		u.data, u.err = encode(u.base, u.version, u.state, u.change, u.policies)
		u.state, u.change = nil, change{}
	})
	return u.data, u.err
}
