// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

var start = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// agent is a node as its agent writes the maps.
type agent struct {
	keys map[int]lb.AnnounceKey
	sign int
	away bool // its agent: the program goes on
	mute bool // it never has any key
}

// write is what an agent does with a ring: see wire.Announcing.
func (a *agent) write(r *Ring) {
	if a.away || a.mute {
		return
	}
	if !r.KeepOthers {
		maps.DeleteFunc(a.keys, func(id int, _ lb.AnnounceKey) bool { _, ok := r.Key(id); return !ok })
	}
	for _, k := range r.Keys {
		a.keys[k.ID] = k.Key
	}
	if r.Sign != NoKey {
		a.sign = r.Sign
	}
}

func (a *agent) node() Node {
	n := Node{Sign: a.sign}
	for id, k := range a.keys {
		n.Keys[id] = k.Sum()
	}
	return n
}

// world is some agents, and an operator.
type world struct {
	t        *testing.T
	now      time.Time
	agents   []*agent
	ring     Ring
	rotation Rotation
	asked    string
	force    bool
	unsafe   bool // messages between nodes need not be understood any more
}

func newWorld(t *testing.T, agents int) *world {
	w := &world{t: t, now: start, ring: Adopt(nil, nil)}
	for range agents {
		w.agents = append(w.agents, &agent{keys: map[int]lb.AnnounceKey{}, sign: NoKey})
	}
	return w
}

func (w *world) nodes() []Node {
	var all []Node
	for _, a := range w.agents {
		all = append(all, a.node())
	}
	return all
}

// step is one step of the operator. Agents hear of it one after the other; in
// between, no node may sign by a key that another one, which is announced to, does
// not have.
func (w *world) step() bool {
	w.t.Helper()
	next, changed := w.rotation.Step(w.now, w.ring, w.nodes(), w.asked, w.force)
	if len(next.Keys) > len(w.ring.Keys) {
		w.force = false
	}
	w.ring = next
	for _, i := range rand.New(rand.NewPCG(1, uint64(w.now.UnixNano()))).Perm(len(w.agents)) {
		w.agents[i].write(&next)
		w.check()
	}
	return changed
}

// check fails if a node signs by a key that another one lacks, unless the operator
// knows that one to lack the key that signs: then nobody announces to it.
func (w *world) check() {
	w.t.Helper()
	if w.unsafe {
		return
	}
	current, signing := w.ring.Key(w.ring.Sign)
	for i, a := range w.agents {
		if a.sign == NoKey {
			continue
		}
		for j, b := range w.agents {
			if b.mute || signing && b.keys[current.ID] != current.Key {
				continue
			}
			if b.sign == NoKey && !signing {
				continue // nothing was announced to it yet
			}
			if b.keys[a.sign] != a.keys[a.sign] {
				w.t.Fatalf("%v: node %d signs by key %d, which node %d does not have (phase %s)", w.now.Sub(start), i, a.sign, j, w.ring.Phase())
			}
		}
	}
}

func (w *world) run(d time.Duration) {
	w.t.Helper()
	for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(2 * time.Second) {
		w.step()
	}
}

func (w *world) settle() lb.AnnounceKey {
	w.t.Helper()
	w.run(Window + 30*time.Second)
	k, ok := w.ring.Key(w.ring.Sign)
	if !ok || w.ring.Phase() != Settled {
		w.t.Fatalf("phase %s, sign %d of %d keys", w.ring.Phase(), w.ring.Sign, len(w.ring.Keys))
	}
	for i, a := range w.agents {
		if !a.mute && !a.away && (len(a.keys) != 1 || a.keys[k.ID] != k.Key || a.sign != k.ID) {
			w.t.Fatalf("node %d has %d keys, and signs by %d", i, len(a.keys), a.sign)
		}
	}
	return k.Key
}

func TestKeysRotate(t *testing.T) {
	w := newWorld(t, 5)
	seen := map[lb.AnnounceKey]bool{}
	for range 7 {
		k := w.settle()
		if seen[k] {
			t.Fatal("a key comes back")
		}
		seen[k] = true
		w.now = w.now.Add(Interval)
	}
}

func TestRotationIsAskedFor(t *testing.T) {
	w := newWorld(t, 3)
	first := w.settle()
	w.asked = "1"
	second := w.settle()
	if third := w.settle(); first == second || second != third {
		t.Error("one request makes other than one key")
	}
	w.asked = ""
	if w.settle() != second {
		t.Error("a request that is taken back makes a key")
	}
	w.asked = "2"
	if w.settle() == second {
		t.Error("the second request makes no key")
	}
}

// A request in the middle of a rotation is obeyed, too: a key that was stolen may be
// the pending one.
func TestRotationIsAskedForAgain(t *testing.T) {
	w := newWorld(t, 3)
	w.settle()
	for i := range 6 { // more than there are ids
		w.asked = fmt.Sprint(i)
		w.run(4 * time.Second)
	}
	w.run(10 * time.Minute)
	if w.ring.Asked != "5" {
		t.Errorf("the last request that was obeyed is %q", w.ring.Asked)
	}
	w.settle()
}

// A node that never has the key delays it, and does not prevent it.
func TestNodeThatDoesNotAck(t *testing.T) {
	w := newWorld(t, 3)
	first := w.settle()
	w.agents[1].away = true
	w.asked = "1"
	w.run(AckLimit - 10*time.Second)
	if k, _ := w.ring.Key(w.ring.Sign); k.Key != first {
		t.Fatal("the key signs before all nodes have it")
	}
	w.run(20 * time.Second)
	second, _ := w.ring.Key(w.ring.Sign)
	if second.Key == first {
		t.Fatal("one node prevents the rotation")
	}
	// It goes on to sign by the first key, which is kept for it.
	w.run(time.Hour)
	if w.agents[0].keys[w.agents[1].sign] != first || w.ring.Phase() != Retiring {
		t.Fatalf("the key is gone by which a node still signs (phase %s)", w.ring.Phase())
	}
	w.agents[1].away = false
	if w.settle() != second.Key {
		t.Error("the key has changed when the node came back")
	}
}

// A node that stays away keeps no key for ever.
func TestNodeThatStaysAway(t *testing.T) {
	w := newWorld(t, 3)
	first := w.settle()
	w.agents[1].away = true
	w.asked = "1"
	w.run(AckLimit + StragglerLimit - time.Minute)
	if _, kept := w.agents[0].keys[w.agents[1].sign]; !kept {
		t.Fatal("the key is gone too early")
	}
	w.unsafe = true
	w.run(2 * time.Minute)
	for id, k := range w.agents[0].keys {
		if k == first {
			t.Errorf("the first key is still there, of id %d", id)
		}
	}
}

// A key is not dropped while a message that it has signed may be on its way.
func TestKeyOutlastsItsMessages(t *testing.T) {
	w := newWorld(t, 2)
	first := w.settle()
	w.asked = "1"
	var switched time.Time
	for range 200 {
		w.run(2 * time.Second)
		k, _ := w.ring.Key(w.ring.Sign)
		_, kept := w.agents[0].keys[0]
		kept = kept && w.agents[0].keys[0] == first
		switch {
		case k.Key == first:
		case switched.IsZero():
			switched = w.now
		case !kept && w.now.Sub(switched) < 64*time.Second:
			t.Fatalf("the key is gone %v after it signed last", w.now.Sub(switched))
		case !kept:
			return
		}
	}
	t.Error("the key is never dropped")
}

// A new leader goes on where the previous one was, at any moment: it has the Secret,
// and no memory of times.
func TestLeaderChangesInTheMiddleOfARotation(t *testing.T) {
	for after := range 80 {
		w := newWorld(t, 4)
		w.settle()
		w.asked = "1"
		w.run(time.Duration(after) * 2 * time.Second)
		stored, err := parse(w.ring.format())
		if err != nil {
			t.Fatal(err)
		}
		w.rotation, w.ring = Rotation{}, Adopt(stored, w.nodes())
		w.run(Window)
		w.settle()
		if w.ring.Asked != "1" {
			t.Fatalf("after %d steps: the request is not obeyed", after)
		}
	}
}

// A leader that finds no Secret, or one of long ago, knows none of the keys that
// nodes have. They go on by them until all have another one.
func TestLeaderWithoutTheKeysOfNodes(t *testing.T) {
	old := newWorld(t, 1)
	old.settle()
	for _, secret := range []*Ring{nil, &old.ring} {
		for rotations := range 4 {
			w := newWorld(t, 4)
			for i := range rotations + 1 {
				w.asked = fmt.Sprint(i)
				w.settle()
			}
			before := w.agents[0].keys[w.agents[0].sign]
			w.asked, w.rotation, w.ring = "", Rotation{}, Adopt(secret, w.nodes())
			w.step()
			for i, a := range w.agents {
				if a.keys[a.sign] != before {
					t.Fatalf("node %d signs by another key before all have it", i)
				}
			}
			if k := w.settle(); k == before || secret != nil && k == secret.Keys[0].Key {
				t.Error("an old key signs")
			}
		}
	}
}

// One agent that claims to sign by something else changes nothing for others.
func TestAgentThatLiesToANewLeader(t *testing.T) {
	w := newWorld(t, 4)
	k := w.settle()
	liar := Node{Keys: [lb.AnnounceKeys]uint64{1, 2, 3, 4}, Sign: 3}
	w.ring = Adopt(&w.ring, append(w.nodes(), liar))
	next, _ := w.rotation.Step(w.now, w.ring, append(w.nodes(), liar), "", false)
	if now, _ := next.Key(next.Sign); now.Key != k {
		t.Error("the key has changed")
	}
}

// A new leader drops no key by which a single node signs that it does not know.
func TestNodeWithAKeyThatTheLeaderDoesNotKnow(t *testing.T) {
	w := newWorld(t, 4)
	k := w.settle()
	id := (w.agents[3].sign + 1) % lb.AnnounceKeys
	for _, a := range w.agents {
		a.keys[id] = lb.AnnounceKey{1}
	}
	w.agents[3].sign, w.agents[3].away = id, true
	w.rotation, w.ring = Rotation{}, Adopt(&w.ring, w.nodes())
	w.run(time.Hour)
	w.agents[3].away = false
	if w.settle() != k {
		t.Error("the key has changed")
	}
}

// Who has not got a key cannot say that he has: another key of the id is no ack.
func TestAckOfAnotherKey(t *testing.T) {
	w := newWorld(t, 1)
	w.settle()
	w.asked = "1"
	next, _ := w.rotation.Step(w.now, w.ring, w.nodes(), "1", false)
	pending, _ := next.pending()
	liar := w.nodes()[0]
	liar.Keys[pending.ID] = 12345
	if after, _ := w.rotation.Step(w.now, next, []Node{liar}, "1", false); after.Sign == pending.ID {
		t.Error("the key signs")
	}
}

// Clocks of operators are wrong: a key is neither changed at each step nor kept for
// ever.
func TestWrongClocks(t *testing.T) {
	w := newWorld(t, 2)
	w.settle()
	for _, jump := range []time.Duration{10 * 365 * 24 * time.Hour, -10 * 365 * 24 * time.Hour, -time.Hour, Interval} {
		w.now = w.now.Add(jump)
		w.rotation = Rotation{} // another operator's
		before := len(w.keysSeen(20 * time.Minute))
		if before > 2 {
			t.Errorf("after a jump by %v there are %d keys in 20 minutes", jump, before)
		}
		if n := len(w.keysSeen(Interval + time.Hour)); n < 2 {
			t.Errorf("after a jump by %v the key does not change in a day", jump)
		}
	}
}

func (w *world) keysSeen(d time.Duration) map[lb.AnnounceKey]bool {
	seen := map[lb.AnnounceKey]bool{}
	for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(10 * time.Second) {
		w.step()
		k, _ := w.ring.Key(w.ring.Sign)
		seen[k.Key] = true
	}
	return seen
}

// Agents leave, come back and join at random in the middle of rotations.
func TestAgentsThatComeAndGo(t *testing.T) {
	for seed := range uint64(10) {
		random := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(t, 6)
		for i := range 2000 {
			a := w.agents[random.IntN(len(w.agents))]
			switch random.IntN(40) {
			case 0:
				a.away = !a.away
			case 1: // another machine of that name
				a.keys, a.sign = map[int]lb.AnnounceKey{}, NoKey
			case 2:
				w.asked = fmt.Sprint(i)
			case 3:
				stored, err := parse(w.ring.format())
				if err != nil {
					t.Fatal(err)
				}
				w.rotation, w.ring = Rotation{}, Adopt(stored, w.nodes())
			}
			w.step()
			w.now = w.now.Add(2 * time.Second)
		}
		for _, a := range w.agents {
			a.away = false
		}
		w.run(AckLimit + 2*Window)
		w.settle()
	}
}

func TestMalformedRings(t *testing.T) {
	w := newWorld(t, 1)
	w.settle()
	good := string(w.ring.format())
	if r, err := parse([]byte(good)); err != nil || !r.Equal(&w.ring) {
		t.Fatalf("%v", err)
	}
	key := good[strings.Index(good, `"key":"`)+7:][:24]
	for _, text := range []string{
		"", "{}", "null", good[:len(good)/2], `{"keys":[],"sign":0}`, strings.Replace(good, `"id":0`, `"id":4`, 1), strings.Replace(good, `"id":0`, `"id":-1`, 1),
		strings.Replace(good, `"sign":0`, `"sign":2`, 1), strings.Replace(good, key, key[4:], 1), strings.Replace(good, key, "AAAAAAAAAAAAAAAAAAAAAA==", 1), strings.Replace(good, key, "?", 1),
	} {
		_, err := parse([]byte(text))
		if err == nil {
			t.Errorf("%s is no error", text)
		} else if strings.Contains(err.Error(), key[:8]) {
			t.Errorf("the error has the key: %v", err)
		}
	}
}
