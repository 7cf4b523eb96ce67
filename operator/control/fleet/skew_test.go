// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// During an upgrade, operator and agents are of different versions: one of them
// does not know table_full.

const tooSmall = "table backends of size 511 is too small: 600 needed"

func fullStatus() *wire.Status {
	return &wire.Status{
		Got: &wire.Version{Epoch: 1, Sequence: 3}, Holds: &wire.Version{Epoch: 1, Sequence: 2}, Error: tooSmall,
		TableFull: &wire.TableFull{Table: "backends", Size: 511, Needed: 600, Largest: 7},
	}
}

func reportOf(st *wire.Status) *lb.Report {
	r := &lb.Report{}
	readStatus(r, st, time.Now(), nil)
	return r
}

// previousStatus is the message Status of a version without table_full.
func previousStatus(t *testing.T) protoreflect.MessageDescriptor {
	t.Helper()
	file := protodesc.ToFileDescriptorProto(wire.File_fleet_proto)
	for _, m := range file.MessageType {
		m.Field = slices.DeleteFunc(m.Field, func(f *descriptorpb.FieldDescriptorProto) bool { return f.GetName() == "table_full" })
	}
	previous, err := protodesc.NewFile(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	status := previous.Messages().ByName("Status")
	if current := wire.File_fleet_proto.Messages().ByName("Status"); status.Fields().Len() != current.Fields().Len()-1 {
		t.Fatal("the message has table_full still")
	}
	return status
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
	want := &lb.TableFullError{Table: "backends", Size: 511, Needed: 600, Largest: 7}
	if r := reportOf(st); r.Error != tooSmall || !cmp.Equal(r.TableFull, want) {
		t.Errorf("report %+v", r)
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
