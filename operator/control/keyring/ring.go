// SPDX-License-Identifier: Apache-2.0

// Package keyring keeps the keys by which nodes sign what they announce to each
// other: in a Secret of the operator's namespace, from which agents get them by
// their streams. Rotation decides how one key follows on another; Keeper has the
// Secret.
package keyring

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Key is a key, and the id by which messages name it.
type Key struct {
	ID   int
	Key  lb.AnnounceKey
	Made time.Time
}

// Ring is the keys that agents are to have. It is a value: its keys do not change.
type Ring struct {
	// Keys are in the order in which they were made.
	Keys []Key
	// Sign is the id of the key that signs; NoKey: nodes sign as before, perhaps by keys
	// of a ring that is lost.
	Sign int
	// KeepOthers reports whether nodes may have keys that are not here and that are still
	// needed.
	KeepOthers bool
	// Asked is the last request for a rotation that was obeyed: see
	// v1alpha1.RotateAnnotation.
	Asked string
}

// NoKey is the Sign of a ring without a key that signs.
const NoKey = -1

// Key returns the key of an id.
func (r *Ring) Key(id int) (Key, bool) {
	for _, k := range r.Keys {
		if k.ID == id {
			return k, true
		}
	}
	return Key{}, false
}

// pending returns the key that is to sign as soon as all nodes have it.
func (r *Ring) pending() (Key, bool) {
	if n := len(r.Keys); n > 0 && r.Keys[n-1].ID != r.Sign {
		return r.Keys[n-1], true
	}
	return Key{}, false
}

// settled reports whether nodes need one key alone.
func (r *Ring) settled() bool { return len(r.Keys) == 1 && r.Sign == r.Keys[0].ID && !r.KeepOthers }

// Equal reports whether two rings are the same.
func (r *Ring) Equal(o *Ring) bool {
	return r.Sign == o.Sign && r.KeepOthers == o.KeepOthers && r.Asked == o.Asked && slices.EqualFunc(r.Keys, o.Keys, func(a, b Key) bool {
		return a.ID == b.ID && a.Key == b.Key && a.Made.Equal(b.Made)
	})
}

// stored is a Ring as it is in the Secret.
type stored struct {
	Keys       []storedKey `json:"keys"`
	Sign       int         `json:"sign"`
	KeepOthers bool        `json:"keepOthers,omitempty"`
	Asked      string      `json:"asked,omitempty"`
}

type storedKey struct {
	ID   int       `json:"id"`
	Key  []byte    `json:"key"` // not lb.AnnounceKey, which hides itself
	Made time.Time `json:"made"`
}

func (r *Ring) format() []byte {
	s := stored{Sign: r.Sign, KeepOthers: r.KeepOthers, Asked: r.Asked}
	for _, k := range r.Keys {
		s.Keys = append(s.Keys, storedKey{k.ID, k.Key[:], k.Made})
	}
	text, err := json.Marshal(s)
	if err != nil { // plain data
		panic(err)
	}
	return text
}

// parse is the reverse of format. Errors never name the contents.
func parse(text []byte) (*Ring, error) {
	s := stored{Sign: NoKey}
	if json.Unmarshal(text, &s) != nil {
		return nil, errors.New("it is not the JSON that the operator writes")
	}
	r := &Ring{Sign: s.Sign, KeepOthers: s.KeepOthers, Asked: s.Asked}
	if len(s.Keys) == 0 || len(s.Keys) > lb.AnnounceKeys {
		return nil, fmt.Errorf("it has %d keys, want 1 to %d", len(s.Keys), lb.AnnounceKeys)
	}
	for i, k := range s.Keys {
		_, twice := r.Key(k.ID)
		if k.ID < 0 || k.ID >= lb.AnnounceKeys || twice {
			return nil, fmt.Errorf("id %d of key %d is no other of 0 to %d", k.ID, i, lb.AnnounceKeys-1)
		}
		if len(k.Key) != len(lb.AnnounceKey{}) || lb.AnnounceKey(k.Key) == (lb.AnnounceKey{}) {
			return nil, fmt.Errorf("key %d is not %d bytes in base64, or is zero", i, len(lb.AnnounceKey{}))
		}
		r.Keys = append(r.Keys, Key{k.ID, lb.AnnounceKey(k.Key), k.Made})
	}
	if _, ok := r.Key(r.Sign); !ok && r.Sign != NoKey {
		return nil, fmt.Errorf("there is no key of id %d, which signs", r.Sign)
	}
	return r, nil
}
