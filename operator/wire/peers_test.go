// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"google.golang.org/protobuf/proto"
)

// After any messages, the sums are those of an agent that got everything at once.
func TestPeerTableHasTheSumsOfItsPeers(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	table, want := &PeerTable{}, map[string]*Peer{}
	if table.Sums() != nil {
		t.Error("an agent that has got nothing has sums")
	}
	table.Apply(&Peers{Complete: true})
	for range 200 {
		m := &Peers{}
		for range random.IntN(4) {
			name := "n" + strconv.Itoa(random.IntN(9))
			if random.IntN(3) == 0 {
				m.Gone = append(m.Gone, name)
				continue
			}
			m.Changed = append(m.Changed, &Peer{Node: name, Boot: 1 + uint32(random.IntN(3)), Undoes: random.IntN(2) == 0})
		}
		for _, p := range m.Changed { // as Apply: what is gone comes last
			want[p.Node] = p
		}
		for _, name := range m.Gone {
			delete(want, name)
		}
		table.Apply(m)
		fresh, all := &PeerTable{}, &Peers{Complete: true}
		for p := range maps.Values(want) {
			all.Changed = append(all.Changed, proto.CloneOf(p))
		}
		fresh.Apply(all)
		if !slices.Equal(fresh.Sums(), table.Sums()) {
			t.Fatalf("%d peers: the sums differ", len(want))
		}
	}
}

func TestMalformedAnnounceKeysAreErrors(t *testing.T) {
	for _, k := range []*AnnounceKey{nil, {}, {Id: 4, Key: make([]byte, 16)}, {Key: make([]byte, 15)}, {Key: make([]byte, 17)}} {
		d := &Decoder{}
		if d.AnnounceKeys([]*AnnounceKey{k}); d.Err == nil {
			t.Errorf("%v is a key", k)
		}
	}
	d := &Decoder{}
	if keys := d.AnnounceKeys([]*AnnounceKey{{Id: 3, Key: bytes.Repeat([]byte{7}, 16)}}); d.Err != nil || keys[3][15] != 7 {
		t.Errorf("got %d keys, error %v", len(keys), d.Err)
	}
}
