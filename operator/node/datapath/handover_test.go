// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// What data planes of all versions must agree on: this test never changes.
func TestPlaceOfTheDrainSwitchIsAPromise(t *testing.T) {
	got := []uintptr{flagsOffset, snatMinOffset, snatMaxOffset, uintptr(ConfigDrain)}
	if diff := cmp.Diff([]uintptr{24, 28, 30, 1}, got); diff != "" {
		t.Errorf("offsets of flags, snat_min and snat_max, and the bit (-promised +found):\n%s", diff)
	}
	if bpf.LayoutPrefix != "blixt_layout_" {
		t.Errorf("the config's name begins with %q", bpf.LayoutPrefix)
	}
}

func TestDataPlaneOfAnotherLayoutDrains(t *testing.T) {
	dir := pins(t, nil)
	const size = 200 // it has grown
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: size, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	before := bytes.Repeat([]byte{0xa2}, size) // the bit is not set
	binary.NativeEndian.PutUint16(before[28:], 11000)
	binary.NativeEndian.PutUint16(before[30:], 11999)
	if err := m.Put(uint32(0), before); err != nil {
		t.Fatal(err)
	}
	if err := m.Pin(filepath.Join(dir, "blixt_layout_99")); err != nil {
		t.Fatal(err)
	}
	for _, on := range []bool{false, true, true, false} {
		if err := Drain(dir, on); err != nil {
			t.Fatal(err)
		}
		h, err := ReadHandover(dir)
		if want := (Handover{Draining: on, SNAT: lb.PortRange{First: 11000, Last: 11999}}); err != nil || h != want {
			t.Errorf("%+v, want %+v (%v)", h, want, err)
		}
		want := bytes.Clone(before)
		if on {
			want[24] |= 1
		}
		got, err := m.LookupBytes(uint32(0))
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("config, drain %v, %v (-want +got):\n%s", on, err, diff)
		}
	}
}

func TestHandoverOfWhatIsNoDataPlane(t *testing.T) {
	dir := pins(t, nil)
	if _, err := ReadHandover(filepath.Join(dir, "gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	_, err := ReadHandover(dir)
	if err == nil || !strings.Contains(err.Error(), "this is no data plane of Blixt") {
		t.Errorf("an empty directory: %v", err)
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 31, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Pin(filepath.Join(dir, "blixt_layout_2")); err != nil {
		t.Fatal(err)
	}
	if err := Drain(dir, true); err == nil {
		t.Error("a config that has no room for the switch is no error")
	}
}
