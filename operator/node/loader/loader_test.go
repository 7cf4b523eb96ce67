// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
)

// sandbox moves the test into network and mount namespaces of its own, which end
// with its thread, in whichever way the test ends. The BPF file system of the
// options that it returns is the test's own, too, and has these interfaces.
func sandbox(t *testing.T, names ...string) Options {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		t.Fatalf("tests of the loader need root: %v", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// The mount outlives the test, in this namespace only. While it is there, the
	// directory cannot be removed.
	t.Cleanup(func() { _ = unix.Unmount(filepath.Join(dir, "bpf"), unix.MNT_DETACH) })
	for _, name := range names {
		addInterface(t, name)
	}
	return Options{
		BPFFS: filepath.Join(dir, "bpf"), RunDir: filepath.Join(dir, "run"), Flows: 4096, RingSlots: bpf.MinRingSlots,
		Interfaces: interfaces(t, names...),
	}
}

// addInterface adds one end of a veth pair; its peer is called peer-<name>.
func addInterface(t *testing.T, name string) {
	t.Helper()
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "peer-" + name}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
}

// interfaces returns the interfaces of these names.
func interfaces(t *testing.T, names ...string) (list []hostnet.Interface) {
	t.Helper()
	s, err := hostnet.Read()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		i, ok := s.ByName(name)
		if !ok {
			t.Fatalf("no interface %s", name)
		}
		list = append(list, i)
	}
	return list
}

func mustLoad(t *testing.T, o Options) *Loader {
	t.Helper()
	l, err := Load(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustInfo(t *testing.T, l *Loader) Info {
	t.Helper()
	info, err := l.Info()
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestCloseLeavesNothing(t *testing.T) {
	o := sandbox(t)
	addInterface(t, "d0")
	addInterface(t, "d1.100") // a dot is forbidden on a BPF file system
	o.Interfaces = interfaces(t, "d0", "d1.100")
	o.Image = "registry.example.com/blixt/bytecode@sha256:1"
	l := mustLoad(t, o)
	if notes := l.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "mounted") {
		t.Errorf("notes %q, want one about the mount", notes)
	}
	info := mustInfo(t, l)
	if len(info.Links) != 4 {
		t.Errorf("links %+v, want 4", info.Links)
	}
	for _, ln := range info.Links {
		if ln.ProgramID != info.ProgramID || !slices.ContainsFunc(o.Interfaces, func(i hostnet.Interface) bool { return i.Name == ln.Interface }) {
			t.Errorf("link %+v, want program %d on %v", ln, info.ProgramID, o.Interfaces)
		}
	}
	if err := l.Close(false); err != nil {
		t.Fatal(err)
	}
	if n, err := os.ReadDir(o.BPFFS); err != nil || len(n) != 0 { // unmounted, so even the kernel's files are gone
		t.Errorf("left behind: %v, %v", n, err)
	}
	if n, err := os.ReadDir(o.RunDir); err != nil || len(n) != 0 {
		t.Errorf("left behind: %v, %v", n, err)
	}
	for _, i := range o.Interfaces {
		for _, d := range directions {
			if ids := others(i.Index, d.attach); len(ids) != 0 {
				t.Errorf("%s %s: programs %v left", i.Name, d.name, ids)
			}
		}
	}
}

func TestKeepAndAdopt(t *testing.T) {
	o := sandbox(t, "d0")
	o.Image = "registry.example.com/blixt/bytecode@sha256:1"
	l := mustLoad(t, o)
	before := mustInfo(t, l)
	key, value := bpf.BlixtAddr{Bytes: [16]byte{1}}, bpf.BlixtAddress{Flags: 1}
	if err := l.maps["addresses"].Put(key, value); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(true); err != nil {
		t.Fatal(err)
	}
	inspected, err := Inspect(o.BPFFS, "")
	if err != nil || inspected.ProgramID != before.ProgramID || len(inspected.Links) != 2 {
		t.Errorf("inspect: %+v, %v", inspected, err)
	}
	if image := Image(o.RunDir, DefaultName); image != o.Image {
		t.Errorf("image %q, want %q", image, o.Image)
	}
	o.Image = ""
	l = mustLoad(t, o)
	if image := Image(o.RunDir, DefaultName); image != "" {
		t.Errorf("image %q of what is built in", image)
	}
	after := mustInfo(t, l)
	if before.ProgramID != after.ProgramID || !reflect.DeepEqual(before.Links, after.Links) {
		t.Errorf("adopted %+v, want %+v", after, before)
	}
	var got bpf.BlixtAddress
	if err := l.maps["addresses"].Lookup(key, &got); err != nil || got != value {
		t.Errorf("map after adoption: %v, %v", got, err)
	}
	if err := l.Close(false); err != nil {
		t.Fatal(err)
	}
}

// TestNewProgramOverSameMaps updates to a version with the same layout: links are
// switched to the new program, and the maps stay.
func TestNewProgramOverSameMaps(t *testing.T) {
	o := sandbox(t, "d0")
	l := mustLoad(t, o)
	before := mustInfo(t, l)
	if err := l.Close(true); err != nil {
		t.Fatal(err)
	}
	// The previous program is the same one, under the fingerprint of another.
	dir := filepath.Join(o.BPFFS, "blixt", DefaultName)
	p, err := ebpf.LoadPinnedProgram(filepath.Join(dir, programPrefix+before.Fingerprint), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Unpin(); err != nil {
		t.Fatal(err)
	}
	if err := p.Pin(filepath.Join(dir, programPrefix+"0123")); err != nil {
		t.Fatal(err)
	}
	p.Close()
	l = mustLoad(t, o)
	after := mustInfo(t, l)
	if before.ProgramID == after.ProgramID {
		t.Error("the program is still the previous one")
	}
	for name, id := range before.Maps {
		if after.Maps[name] != id {
			t.Errorf("map %s: id %d, want %d", name, after.Maps[name], id)
		}
	}
	for i, ln := range after.Links {
		if ln.ID != before.Links[i].ID || ln.ProgramID != after.ProgramID {
			t.Errorf("link %+v, want id %d with program %d", ln, before.Links[i].ID, after.ProgramID)
		}
	}
	if pins, _ := l.programPins(); len(pins) != 1 {
		t.Errorf("program pins %v, want one", pins)
	}
	if err := l.Close(false); err != nil {
		t.Fatal(err)
	}
}

// The first programs of this layout lacked maps. They are made when another one takes
// over, and say that all is of interest.
func TestLaterMapsAreMade(t *testing.T) {
	o := sandbox(t, "d0")
	l := mustLoad(t, o)
	before := mustInfo(t, l)
	if err := l.Close(true); err != nil {
		t.Fatal(err)
	}
	for name := range laterMaps {
		if err := os.Remove(filepath.Join(o.BPFFS, "blixt", DefaultName, "maps", name)); err != nil {
			t.Fatal(err)
		}
	}
	l = mustLoad(t, o)
	after := mustInfo(t, l)
	if !l.Adopted() || before.ProgramID == after.ProgramID || before.Maps[bpf.BlixtMapFlows] != after.Maps[bpf.BlixtMapFlows] {
		t.Errorf("program %d with flows %d, then %d with %d", before.ProgramID, before.Maps[bpf.BlixtMapFlows], after.ProgramID, after.Maps[bpf.BlixtMapFlows])
	}
	for name, first := range laterMaps {
		m, err := ebpf.LoadPinnedMap(filepath.Join(l.Dir(), name), nil)
		if err != nil {
			t.Fatal(err)
		}
		value := make([]byte, max(1, int(m.ValueSize())))
		if m.Type() == ebpf.Array {
			value, err = m.LookupBytes(uint32(0))
		}
		if err != nil || value[0] != first || value[len(value)-1] != first || before.Maps[name] == after.Maps[name] {
			t.Errorf("map %s: id %d, was %d, begins with %#x, want %#x (%v)", name, after.Maps[name], before.Maps[name], value[0], first, err)
		}
		m.Close()
	}
	if err := l.Close(false); err != nil {
		t.Fatal(err)
	}
}

// All maps that the first program of this layout did not have are later ones: with another
// map a new version would not take over, and end all flows.
func TestNewMapsAreLaterMaps(t *testing.T) {
	first := strings.Fields(`addresses backend_addresses backend_flows backends blixt_layout_2 established
		flows fragment_ids fragments frontend_stats frontends held held_numbers
		held_slots host_listens host_ports icmp_fragments link_packets masqueraded_ports
		new_flows new_fragments port_searches protected_clients published rings
		silent_neighbours udp_flows`)
	spec, err := bpf.LoadBlixt()
	if err != nil {
		t.Fatal(err)
	}
	for name := range spec.Maps {
		if _, later := laterMaps[name]; !later && !slices.Contains(first, name) && !strings.HasPrefix(name, ".") {
			t.Errorf("map %s is new: add it to laterMaps, or a running load balancer cannot be upgraded", name)
		}
	}
}

func TestMismatchNamesWhatDiffers(t *testing.T) {
	o := sandbox(t)
	l := mustLoad(t, o)
	if err := l.Close(true); err != nil {
		t.Fatal(err)
	}
	other := o
	other.Flows = 8192
	_, err := Load(other)
	if err == nil || !strings.Contains(err.Error(), "does not fit this program and these options") || !strings.Contains(err.Error(), "8192 changed to 16384") || strings.Count(err.Error(), ";") != 2 {
		t.Errorf("error %v, want one about the sizes of the three tables of flows", err)
	}
	dir := filepath.Join(o.BPFFS, "blixt", DefaultName, "maps")
	if err := os.Rename(filepath.Join(dir, "blixt_layout_2"), filepath.Join(dir, "blixt_layout_7")); err != nil {
		t.Fatal(err)
	}
	_, err = Load(o)
	if err == nil || !strings.Contains(err.Error(), "blixt_layout_7") || !strings.Contains(err.Error(), "blixt_layout_2") {
		t.Errorf("error %v, want one that names both layouts", err)
	}
	other.Replace = true
	l = mustLoad(t, other)
	if got := l.maps["flows"].MaxEntries(); got != 2*8192 {
		t.Errorf("flows after replacing: %d", got)
	}
	if err := l.Close(false); err != nil {
		t.Fatal(err)
	}
}

func TestInterfacesComeAndGo(t *testing.T) {
	o := sandbox(t)
	addInterface(t, "d0")
	addInterface(t, "d1")
	o.Interfaces = interfaces(t, "d0")
	l := mustLoad(t, o)
	defer l.Close(false)
	if err := l.SetInterfaces(interfaces(t, "d0", "d1")); err != nil {
		t.Fatal(err)
	}
	if n := len(mustInfo(t, l).Links); n != 4 {
		t.Errorf("%d links, want 4", n)
	}
	d0, _ := netlink.LinkByName("d0")
	if err := netlink.LinkDel(d0); err != nil {
		t.Fatal(err)
	}
	if err := l.SetInterfaces(interfaces(t, "d1")); err != nil {
		t.Errorf("interface gone: %v", err)
	}
	if links := mustInfo(t, l).Links; len(links) != 2 || links[0].Interface != "d1" {
		t.Errorf("links %+v, want two on d1", links)
	}
	// One that went after it was chosen.
	if err := l.SetInterfaces(append(interfaces(t, "d1"), hostnet.Interface{Index: 1 << 20, Name: "nosuch"})); err != nil {
		t.Errorf("interface gone meanwhile: %v", err)
	}
	if n := len(mustInfo(t, l).Links); n != 2 {
		t.Errorf("%d links, want 2", n)
	}
}

// An interface that went while nobody ran, and a start that was killed
// before its program was pinned.
func TestLeftoversOfAKill(t *testing.T) {
	o := sandbox(t)
	addInterface(t, "d0")
	addInterface(t, "d1")
	o.Interfaces = interfaces(t, "d0", "d1")
	if err := mustLoad(t, o).Close(true); err != nil {
		t.Fatal(err)
	}
	d0, _ := netlink.LinkByName("d0")
	if err := netlink.LinkDel(d0); err != nil {
		t.Fatal(err)
	}
	o.Interfaces = interfaces(t, "d1")
	l := mustLoad(t, o)
	if n := len(mustInfo(t, l).Links); n != 2 {
		t.Errorf("%d links, want 2", n)
	}
	if err := l.Close(true); err != nil {
		t.Fatal(err)
	}
	pins, _ := l.programPins()
	if err := os.Remove(filepath.Join(l.dir, pins[0])); err != nil {
		t.Fatal(err)
	}
	l = mustLoad(t, o)
	if n := len(mustInfo(t, l).Links); n != 2 {
		t.Errorf("%d links after an unfinished start, want 2", n)
	}
	if err := l.Close(false); err != nil {
		t.Fatal(err)
	}
}

func TestSecondOfANameIsRefused(t *testing.T) {
	o := sandbox(t)
	l := mustLoad(t, o)
	_, err := Load(o)
	if want := fmt.Sprintf("is held by process %d: stop that one first", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
	o.Name = "other"
	second := mustLoad(t, o)
	if err := second.Close(false); err != nil {
		t.Error(err)
	}
	if err := l.Close(false); err != nil {
		t.Error(err)
	}
}

func TestPrivilegesAreNamed(t *testing.T) {
	o := sandbox(t)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	_, err := Load(o)
	if err == nil || !strings.Contains(err.Error(), "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN") {
		t.Errorf("error %v, want one that names the capabilities", err)
	}
}

func TestGroupMayUseMaps(t *testing.T) {
	o := sandbox(t)
	o.Group = 65532
	l := mustLoad(t, o)
	defer l.Close(false)
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(l.Dir(), "rings"), &st); err != nil {
		t.Fatal(err)
	}
	if st.Gid != 65532 || st.Mode&0o777 != 0o660 {
		t.Errorf("rings: group %d mode %o, want 65532 and 660", st.Gid, st.Mode&0o777)
	}
}
