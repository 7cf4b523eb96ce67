// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"net/netip"
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

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/agent"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
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
		PolicyTable: "sources", Policies: []string{"default/office"}, Refusing: 3,
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

// restrictedWeb is a snapshot of one frontend that one policy restricts.
func restrictedWeb() Snapshot {
	s := web(3)
	s.Frontends = slices.Clone(s.Frontends)
	s.Frontends[0].Restrictions = []lb.Restriction{{Policy: "default/office", Target: "Gateway/default/gw", Sources: true}}
	s.Sources = []lb.SourceSet{{Policy: "default/office", OnlyAllowed: true, Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}}
	return s
}

// An agent of a version without policies would ignore what it does not know: the policy
// would not hold there. It gets a frontend that refuses all new flows, and says that it is
// of such a version by saying nothing.
func TestAgentWithoutPoliciesFailsClosed(t *testing.T) {
	o := newOperator(t, "", nil)
	earlier := newNode(t, o, "n1", func(a *agent.Options) {
		fake := datapath.NewFake(testSizes)
		fake.Earlier = true
		a.Tables = fake
	})
	newNode(t, o, "n2", nil)
	open, restricted := web(3), restrictedWeb()
	for range 2 { // restricted, and open again
		v := o.Publish(open)
		o.serves(t, "n1", v, open)
		o.serves(t, "n2", v, open)
		v = o.Publish(restricted)
		o.serves(t, "n2", v, restricted)
		o.serves(t, "n1", v, failClosed(restricted))
	}
	// Another leader, and an agent that begins anew, lead to the same.
	o.Lead(2)
	v := o.Publish(restricted)
	o.serves(t, "n1", v, failClosed(restricted))
	earlier.stop()
	newNode(t, o, "n1", func(a *agent.Options) { a.Tables = earlier.fake })
	o.serves(t, "n1", v, failClosed(restricted))
	changed := restricted
	changed.Sources = []lb.SourceSet{{Policy: "default/office", OnlyAllowed: true}}
	v = o.Publish(changed)
	o.serves(t, "n2", v, changed)
	o.serves(t, "n1", v, failClosed(changed))
	for name, want := range map[string]bool{"n1": false, "n2": true} {
		if r, _ := o.report(name, "blue"); r.EnforcesPolicies != want {
			t.Errorf("%s enforces policies: %v", name, r.EnforcesPolicies)
		}
	}
}

// To a version without policies, what a newer operator sends such an agent means the same.
func TestOlderAgentReadsFrontendThatFailsClosed(t *testing.T) {
	s := restrictedWeb()
	for _, f := range []gateway.Frontend{s.Frontends[0], wire.FailClosed(s.Frontends[0])} {
		previous := dynamicpb.NewMessage(previousMessage(t, "Frontend", "settings"))
		recode(t, wire.EncodeFrontend(f), previous)
		previous.SetUnknown(nil)
		w := &wire.Frontend{}
		recode(t, previous, w)
		got := (&wire.Decoder{}).Frontend(w)
		want := f
		want.Settings = lb.Settings{}
		if diff := cmp.Diff(want, got, equalStates...); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// An operator without policies sends none. An agent that had some of a newer leader gets
// what that operator has: the sums differ.
func TestOlderOperatorAfterANewerOne(t *testing.T) {
	o := newOperator(t, "", nil)
	newNode(t, o, "n1", nil)
	restricted := restrictedWeb()
	o.serves(t, "n1", o.Publish(restricted), restricted)
	older := restricted
	older.Sources, older.Frontends = nil, slices.Clone(restricted.Frontends)
	older.Frontends[0].Settings = lb.Settings{}
	o.Lead(2)
	o.serves(t, "n1", o.Publish(older), older)
}
