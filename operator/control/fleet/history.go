// SPDX-License-Identifier: Apache-2.0

package fleet

import "github.com/kubernetes-sigs/blixt/operator/lb"

// historyLimit is how many versions an agent may miss and still get only the
// changes. Of each version, only the names of what changed are kept.
const historyLimit = 1024

// history is the newest state of an epoch, and the changes that led to it.
type history struct {
	version lb.Version // sequence 0: nothing was published yet
	state   *indexedSnapshot
	// changes are those of the newest versions, the newest last.
	changes []change
	// encoded are the updates to the newest version, by the sequence from which
	// they start, 0 for complete ones. All agents share them.
	encoded map[uint64][]byte
}

func newHistory(epoch uint64) history {
	return history{version: lb.Version{Epoch: epoch}, state: &indexedSnapshot{}}
}

// publish makes s the newest state. It returns false if s equals the newest
// state.
func (h *history) publish(s *indexedSnapshot) bool {
	c := differences(h.state, s)
	if h.version.Sequence > 0 && c.empty() {
		return false
	}
	h.version.Sequence++
	h.state, h.encoded = s, map[uint64][]byte{}
	h.changes = append(h.changes, c)
	if len(h.changes) > historyLimit {
		h.changes = append(h.changes[:0:0], h.changes[historyLimit/4:]...)
	}
	return true
}

// since returns the update from base to the newest version: the changes, or
// everything if base is nil, of another epoch or too old.
func (h *history) since(base *lb.Version) ([]byte, error) {
	c := newChange()
	if missed, ok := h.missed(base); ok {
		for _, m := range missed {
			c.add(m)
		}
	} else {
		base, c = nil, h.state.everything()
	}
	from := uint64(0)
	if base != nil {
		from = base.Sequence
	}
	if data, ok := h.encoded[from]; ok {
		return data, nil
	}
	data, err := encode(base, h.version, h.state, c)
	if err == nil {
		h.encoded[from] = data
	}
	return data, err
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
