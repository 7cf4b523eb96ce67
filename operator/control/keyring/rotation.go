// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"crypto/rand"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Times of a rotation.
const (
	// Interval is how long a key signs.
	Interval = 24 * time.Hour
	// AckLimit is how long the next key waits for nodes that do not say that they have
	// it. From then on nobody announces to them.
	AckLimit = 10 * time.Minute
	// Window is how long a key is kept once no node signs by it any more: messages are
	// valid for 64 seconds, and a status takes a moment.
	Window = 100 * time.Second
	// StragglerLimit is how long a key is kept for a node whose agent is away, and
	// that goes on to sign by it.
	StragglerLimit = Interval
	// clockError is how far clocks of operators may differ.
	clockError = 5 * time.Minute
)

// Node is what is known of the maps of an agent, whether it is connected or away: its
// program goes on.
type Node struct {
	// Keys are the sums of the keys that the maps hold, by their ids; 0: none.
	Keys [lb.AnnounceKeys]uint64
	// Sign is the id of the key that signs there; NoKey: none.
	Sign int
	// Unknown is true if the agent has not been heard of yet.
	Unknown bool
}

func (n *Node) has(k Key) bool { return n.Keys[k.ID] == k.Key.Sum() }

// Phase is how far a rotation is.
type Phase string

// The phases of a rotation.
const (
	// Settled: there is one key.
	Settled Phase = "settled"
	// Spreading: nodes get the next key.
	Spreading Phase = "spreading"
	// Retiring: the key signs, and its predecessor is kept for messages that are on
	// their way, and for nodes that still sign by it.
	Retiring Phase = "retiring"
)

// Phase returns how far the rotation is.
func (r *Ring) Phase() Phase {
	if _, pending := r.pending(); pending {
		return Spreading
	}
	if r.settled() {
		return Settled
	}
	return Retiring
}

// Rotation decides how a ring goes on. It remembers since when things are as they
// are, by the clock of this process: times in the Secret are those of other
// clocks. A new leader waits anew, which only keeps a key for longer.
type Rotation struct {
	spread  since // the pending key
	retired since // no node signs by another key than that which signs
	signs   since // the key that signs
}

// since is since when something is what it is.
type since struct {
	what uint64
	at   time.Time
}

// age returns for how long it has been that; 0: nothing, which has no age.
func (s *since) age(now time.Time, what uint64) time.Duration {
	if s.what != what || what == 0 {
		s.what, s.at = what, now
	}
	return now.Sub(s.at)
}

// Adopt returns the ring with which a new leader begins, given that of the Secret; nil:
// there is no Secret. If most nodes sign by a key that the Secret does not have, as
// after the cluster was restored from a backup, there has to be another key, and
// nodes keep theirs until all sign by it.
func Adopt(r *Ring, nodes []Node) Ring {
	known, foreign := 0, 0
	for i := range nodes {
		n := &nodes[i]
		switch {
		case n.Unknown || n.Sign == NoKey:
		case r != nil && slices.ContainsFunc(r.Keys, n.signsBy):
			known++
		default:
			foreign++
		}
	}
	if r == nil || foreign > known {
		return Ring{Sign: NoKey, KeepOthers: true}
	}
	next := *r
	next.KeepOthers = r.KeepOthers || foreign > 0
	return next
}

// Step returns the ring that follows, and whether it is another one, which is to be
// stored before agents get it. asked is the present request for a rotation, force
// that there is to be one.
func (t *Rotation) Step(now time.Time, r Ring, nodes []Node, asked string, force bool) (Ring, bool) {
	next := r
	next.Keys = slices.Clone(r.Keys)
	if asked != "" && asked != r.Asked {
		next.Asked, force = asked, true
	}
	pending, spreads := r.pending()
	signs, signing := r.Key(r.Sign)
	retiring := signing && !spreads && !r.settled()
	waited := t.spread.age(now, sumIf(spreads, pending))
	signed := t.signs.age(now, sumIf(signing, signs))
	rested := t.retired.age(now, sumIf(retiring && !slices.ContainsFunc(nodes, func(n Node) bool { return !n.signsBy(signs) }), signs))

	switch {
	case spreads && (waited >= AckLimit || !slices.ContainsFunc(nodes, func(n Node) bool { return !n.has(pending) })):
		next.Sign = pending.ID
	case retiring && (rested >= Window || signed >= StragglerLimit):
		next.Keys, next.KeepOthers = []Key{signs}, false
	}
	_, spreads = next.pending()
	due := next.Sign == NoKey && !spreads || force
	if next.settled() {
		made := next.Keys[0].Made
		switch {
		case made.After(now.Add(clockError)): // by a clock that was wrong, or this one is
			next.Keys[0].Made = now
		case now.Sub(made) >= Interval:
			due = true
		}
	}
	if id := freeID(&next, nodes); due && id != NoKey {
		next.Keys = append(next.Keys, newKey(id, now))
	} else if due {
		next.Asked = r.Asked // later
	}
	return next, !next.Equal(&r)
}

// sumIf returns the sum of a key, or 0.
func sumIf(is bool, k Key) uint64 {
	if !is {
		return 0
	}
	return k.Key.Sum()
}

// signsBy reports whether a node signs by a key, or not at all.
func (n *Node) signsBy(k Key) bool {
	return !n.Unknown && (n.Sign == NoKey || n.Sign == k.ID && n.has(k))
}

// freeID returns an id of which the ring has no key, and as few nodes as possible;
// NoKey: there is none.
func freeID(r *Ring, nodes []Node) int {
	var held [lb.AnnounceKeys]int
	for i := range nodes {
		for id, sum := range nodes[i].Keys {
			if sum != 0 {
				held[id]++
			}
		}
	}
	free := NoKey
	for id := range held {
		if _, taken := r.Key(id); !taken && (free == NoKey || held[id] < held[free]) {
			free = id
		}
	}
	return free
}

func newKey(id int, now time.Time) Key {
	k := Key{ID: id, Made: now.UTC().Truncate(time.Second)}
	rand.Read(k.Key[:]) // never fails
	return k
}
