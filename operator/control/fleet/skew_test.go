// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// During an upgrade, operator and agents are of different versions: one of them
// does not know table_full, or what of it says that the rest is served.

const tooSmall = "table backends of size 511 is too small: 600 needed"

func fullStatus() *wire.Status {
	return &wire.Status{
		Got: &wire.Version{Epoch: 1, Sequence: 3}, Holds: &wire.Version{Epoch: 1, Sequence: 2}, Error: tooSmall,
		TableFull: wire.EncodeTableFull(fullTable()),
	}
}

func fullTable() *lb.TableFull {
	return &lb.TableFull{
		Table: "backends", Size: 511, Needed: 600, Frontends: 7, Reduced: 2,
		Examples: []string{"192.0.2.1:80/tcp"}, Gateways: []string{"default/web"},
	}
}

func reportOf(st *wire.Status) *lb.Report {
	r := &lb.Report{}
	readStatus(r, st, time.Now(), nil)
	return r
}

// previousStatus is the message Status of a version without table_full.
func previousStatus(t *testing.T) protoreflect.MessageDescriptor {
	return previousMessage(t, "Status", "table_full")
}

// previousMessage is a message of a version without some fields.
func previousMessage(t *testing.T, name protoreflect.Name, without ...string) protoreflect.MessageDescriptor {
	t.Helper()
	file := protodesc.ToFileDescriptorProto(wire.File_fleet_proto)
	for _, m := range file.MessageType {
		m.Field = slices.DeleteFunc(m.Field, func(f *descriptorpb.FieldDescriptorProto) bool { return slices.Contains(without, f.GetName()) })
	}
	previous, err := protodesc.NewFile(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	message := previous.Messages().ByName(name)
	if current := wire.File_fleet_proto.Messages().ByName(name); message.Fields().Len() != current.Fields().Len()-len(without) {
		t.Fatalf("the message has some of %v still", without)
	}
	return message
}

func recode(t *testing.T, from, to proto.Message) {
	t.Helper()
	data, err := proto.Marshal(from)
	if err == nil {
		err = proto.Unmarshal(data, to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestTableFullArrives(t *testing.T) {
	st := &wire.Status{}
	recode(t, fullStatus(), st)
	if r := reportOf(st); r.Error != tooSmall || !cmp.Equal(r.TableFull, fullTable()) {
		t.Errorf("report %+v", r)
	}
}

// An agent that has written nothing of the state says no number of frontends.
func TestAgentThatLeavesNothingOut(t *testing.T) {
	st := fullStatus()
	st.TableFull = &wire.TableFull{Table: "backends", Size: 511, Needed: 600}
	st.TableFull.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 4, protowire.VarintType), 7)) // largest
	want := &lb.TableFull{Table: "backends", Size: 511, Needed: 600}
	if r := reportOf(st); !cmp.Equal(r.TableFull, want) {
		t.Errorf("report %+v", r)
	}
}

// An agent's report takes no more room than others, whatever it claims.
func TestNamesInATableFullAreBounded(t *testing.T) {
	st := fullStatus()
	for range 1000 {
		st.TableFull.Examples = append(st.TableFull.Examples, strings.Repeat("x", 2*maxText))
	}
	r := reportOf(st)
	if n := len(r.TableFull.String()); n > 10*maxText {
		t.Errorf("the text has %d bytes", n)
	}
	full := &lb.TableFull{}
	for i := range 10_000 {
		full.Name(lb.Key{}, fmt.Sprint(i, strings.Repeat("x", 300)))
	}
	st.TableFull = wire.EncodeTableFull(full)
	if n := proto.Size(st); n > maxAgentMessage/2 {
		t.Errorf("the status has %d bytes of %d that are accepted", n, maxAgentMessage)
	}
}

func TestAgentWithoutTableFull(t *testing.T) {
	previous := dynamicpb.NewMessage(previousStatus(t))
	sent := fullStatus()
	sent.TableFull = nil
	recode(t, sent, previous)
	st := &wire.Status{}
	recode(t, previous, st)
	if r := reportOf(st); r.Error != tooSmall || r.TableFull != nil || r.Version != (lb.Version{Epoch: 1, Sequence: 2}) {
		t.Errorf("report %+v", r)
	}
}

func TestOperatorWithoutTableFull(t *testing.T) {
	previous := dynamicpb.NewMessage(previousStatus(t))
	recode(t, fullStatus(), previous)
	if got := previous.Get(previous.Descriptor().Fields().ByName("error")).String(); got != tooSmall {
		t.Errorf("error %q, want %q", got, tooSmall)
	}
	previous.SetUnknown(nil)
	st := &wire.Status{}
	recode(t, previous, st)
	want := fullStatus()
	want.TableFull = nil
	if !proto.Equal(st, want) {
		t.Errorf("the other fields are %v, want %v", st, want)
	}
}

// A version that knows nothing of announcing reads the other fields of what one says that
// does, and what it says reads as if there were none of it: agents go on as before.
func TestVersionWithoutAnnouncing(t *testing.T) {
	seed := uint64(7)
	for _, c := range []struct {
		full, rest proto.Message
		without    []string
	}{
		{
			&wire.Hello{Node: "n1", Layout: 2, Status: &wire.Status{Flows: 3}, BootId: "a", Announces: true, PeersSums: []uint64{1}},
			&wire.Hello{Node: "n1", Layout: 2, Status: &wire.Status{Flows: 3}},
			[]string{"boot_id", "announces", "peers_sums"},
		},
		{
			&wire.Status{Flows: 3, Draining: true, Announcing: &wire.AnnouncingStatus{Boot: 5, Keys: []*wire.HeldKey{{Id: 1, Sum: 2}}}},
			&wire.Status{Flows: 3, Draining: true},
			[]string{"announcing"},
		},
		{
			&wire.Config{Node: "n1", Seed: &seed, Announcing: &wire.Announcing{Boot: 5, Keys: []*wire.AnnounceKey{{Id: 1, Key: make([]byte, 16)}}}},
			&wire.Config{Node: "n1", Seed: &seed},
			[]string{"announcing"},
		},
	} {
		descriptor := c.full.ProtoReflect().Descriptor()
		previous := dynamicpb.NewMessage(previousMessage(t, descriptor.Name(), c.without...))
		recode(t, c.full, previous)
		previous.SetUnknown(nil)
		got := c.full.ProtoReflect().New().Interface()
		recode(t, previous, got)
		if !proto.Equal(got, c.rest) {
			t.Errorf("%s: the other fields are %v, want %v", descriptor.Name(), got, c.rest)
		}
	}
	if r := reportOf(&wire.Status{Flows: 3}); r.Announcing != nil {
		t.Errorf("report %+v", r)
	}
}
