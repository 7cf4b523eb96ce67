// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/bpf"
)

// foreignProgram loads a program that ends the chain of a hook.
func foreignProgram(t *testing.T, name string) *ebpf.Program {
	t.Helper()
	const pass = 0 // TCX_PASS
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: name, Type: ebpf.SchedCLS, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, pass), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// attachFirst attaches a program in front of all others.
func attachFirst(t *testing.T, p *ebpf.Program, ifindex int, attach ebpf.AttachType) link.Link {
	t.Helper()
	ln, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: p, Attach: attach, Anchor: link.Head()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// names returns the names of the programs of a hook, in order.
func names(t *testing.T, ifindex int, attach ebpf.AttachType) (names []string) {
	t.Helper()
	at, err := queryHook(ifindex, attach)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range at.programs {
		names = append(names, p.Name)
	}
	return names
}

// check has a Loader check, and fails the test unless it finds as much.
func check(t *testing.T, l *Loader, want ...string) {
	t.Helper()
	found, err := l.Check()
	if err != nil {
		t.Error(err)
	}
	if !slices.EqualFunc(found, want, strings.Contains) {
		t.Errorf("found %q, want %q", found, want)
	}
}

// intact fails the test unless the program is the first one at both hooks, by links that
// outlive the process.
func intact(t *testing.T, l *Loader, ifindex int) {
	t.Helper()
	info := mustInfo(t, l)
	if len(info.Links) != 2 {
		t.Errorf("links are %+v", info.Links)
	}
	for _, ln := range info.Links {
		at, err := queryHook(ifindex, attachType(ln.Direction))
		if err != nil {
			t.Fatal(err)
		}
		if len(at.programs) == 0 || at.programs[0].ID != info.ProgramID {
			t.Errorf("%s has %v, want program %d first", ln.Direction, at.programs, info.ProgramID)
		}
	}
	pinned, err := os.ReadDir(filepath.Join(l.dir, "links"))
	if err != nil || len(pinned) != 2 {
		t.Errorf("pins are %v, %v", pinned, err)
	}
	check(t, l)
}

func TestProgramGetsBackToTheFront(t *testing.T) {
	o := sandbox(t, "d0")
	l := mustLoad(t, o)
	d0 := o.Interfaces[0].Index
	check(t, l)
	intact(t, l, d0)
	attachFirst(t, foreignProgram(t, "other"), d0, ebpf.AttachTCXIngress)
	check(t, l, "(other) has come before Blixt at d0 ingress")
	intact(t, l, d0)
	if got, want := names(t, d0, ebpf.AttachTCXIngress), []string{bpf.BlixtProgBlixt, "other"}; !slices.Equal(got, want) {
		t.Errorf("programs are %v, want %v", got, want)
	}

	// What came while nobody ran is found as well.
	if err := l.Close(true); err != nil {
		t.Fatal(err)
	}
	attachFirst(t, foreignProgram(t, "second"), d0, ebpf.AttachTCXEgress)
	half := attachFirst(t, foreignProgram(t, "half"), d0, ebpf.AttachTCXEgress) // by who was killed on the way
	if err := errors.Join(half.Pin(filepath.Join(l.dir, "links", "next-"+linkKey{d0, "egress"}.String())), half.Close()); err != nil {
		t.Fatal(err)
	}
	l = mustLoad(t, o)
	for end := time.Now().Add(time.Minute); slices.Contains(names(t, d0, ebpf.AttachTCXEgress), "half"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) { // the kernel frees it a little later
			t.Fatal("it is left")
		}
	}
	check(t, l, "(second) has come before Blixt at d0 egress")
	intact(t, l, d0)
	if err := l.Close(false); err != nil {
		t.Fatal(err)
	}
}

func TestOtherLoadBalancersMayBeFirst(t *testing.T) {
	o := sandbox(t, "d0")
	l := mustLoad(t, o)
	defer l.Close(false)
	check(t, l)
	o.Name = "second"
	second := mustLoad(t, o)
	defer second.Close(false)
	check(t, l)
	check(t, second)
	// A program behind does not matter.
	ln, err := link.AttachTCX(link.TCXOptions{Interface: o.Interfaces[0].Index, Program: foreignProgram(t, "behind"), Attach: ebpf.AttachTCXIngress, Anchor: link.Tail()})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	check(t, l)
	check(t, second)
}

func TestWarForTheFrontEnds(t *testing.T) {
	o := sandbox(t, "d0")
	l := mustLoad(t, o)
	defer l.Close(false)
	d0 := o.Interfaces[0].Index
	p := foreignProgram(t, "other")
	ln := attachFirst(t, p, d0, ebpf.AttachTCXIngress)
	for range maxRestores {
		check(t, l, "has come before Blixt")
		if err := ln.Detach(); err != nil {
			t.Fatal(err)
		}
		ln = attachFirst(t, p, d0, ebpf.AttachTCXIngress)
	}
	for range 3 {
		if found, err := l.Check(); found != nil || err == nil || !strings.Contains(err.Error(), "(other) has come before Blixt at d0 ingress, and does so each time") {
			t.Errorf("found %q, %v", found, err)
		}
	}
	if got, want := names(t, d0, ebpf.AttachTCXIngress), []string{"other", bpf.BlixtProgBlixt}; !slices.Equal(got, want) {
		t.Errorf("programs are %v, want %v", got, want)
	}
	if err := ln.Detach(); err != nil {
		t.Fatal(err)
	}
	check(t, l)
}

func TestDetachedLinkIsAttachedAgain(t *testing.T) {
	o := sandbox(t, "d0")
	l := mustLoad(t, o)
	defer l.Close(false)
	d0 := o.Interfaces[0].Index
	check(t, l)
	for n := range 2 * maxRestores {
		ln, err := link.LoadPinnedLink(filepath.Join(l.dir, "links", linkKey{d0, "ingress"}.String()), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := ln.Detach(); err != nil {
			t.Fatal(err)
		}
		ln.Close()
		if n < maxRestores {
			check(t, l, "somebody has detached the program from d0 ingress")
		} else { // that was said often enough
			check(t, l)
		}
		intact(t, l, d0)
	}
	// An interface that goes is nobody's mistake.
	link, err := netlink.LinkByName("d0")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	check(t, l)
}

func TestCheckCostsOneCallForEachHook(t *testing.T) {
	o := sandbox(t, "d0")
	l := mustLoad(t, o)
	defer l.Close(false)
	check(t, l)
	for k, a := range l.links {
		if n, err := revision(k.ifindex, attachType(k.direction)); err != nil || n != a.revision {
			t.Errorf("%v has revision %d, %v, and is queried again for %d", k, n, err, a.revision)
		}
	}
	if _, err := revision(1<<20, ebpf.AttachTCXIngress); !errors.Is(err, unix.ENODEV) {
		t.Errorf("an interface that does not exist: %v", err)
	}
}

// TestInspectTellsWhatTheKernelHas: who reads the status sees what is wrong at a hook.
func TestInspectTellsWhatTheKernelHas(t *testing.T) {
	o := sandbox(t, "d0")
	l := mustLoad(t, o)
	defer l.Close(false)
	d0 := o.Interfaces[0].Index
	inspect := func() (egress, ingress LinkInfo) {
		t.Helper()
		info, err := Inspect(o.BPFFS, "")
		if err != nil || len(info.Links) != 2 {
			t.Fatalf("%+v, %v", info.Links, err)
		}
		return info.Links[0], info.Links[1]
	}
	if out, in := inspect(); out.Detached || in.Detached || out.Before != nil || in.Before != nil {
		t.Errorf("all is well, and it says %+v, %+v", out, in)
	}
	attachFirst(t, foreignProgram(t, "other"), d0, ebpf.AttachTCXIngress)
	out, in := inspect()
	if out.Before != nil || len(in.Before) != 1 || in.Before[0].Name != "other" {
		t.Errorf("before it at egress are %v, at ingress %v", out.Before, in.Before)
	}
	if err := l.links[linkKey{d0, "egress"}].detach(); err != nil {
		t.Fatal(err)
	}
	if out, in := inspect(); !out.Detached || in.Detached {
		t.Errorf("egress is detached, and it says %+v, %+v", out, in)
	}
	check(t, l, "detached", "has come before")
	if out, in := inspect(); out.Detached || in.Detached || out.Before != nil || in.Before != nil {
		t.Errorf("all is well again, and it says %+v, %+v", out, in)
	}
}

// TestRemovedPinsComeBack: what is not pinned ends with its process.
func TestRemovedPinsComeBack(t *testing.T) {
	o := sandbox(t, "d0")
	l := mustLoad(t, o)
	before := mustInfo(t, l)
	check(t, l)
	if err := os.Remove(filepath.Join(l.Dir(), "flows")); err != nil {
		t.Fatal(err)
	}
	check(t, l, "somebody has removed 1 pins")
	if err := os.RemoveAll(filepath.Join(o.BPFFS, "blixt")); err != nil {
		t.Fatal(err)
	}
	check(t, l, "somebody has removed")
	intact(t, l, o.Interfaces[0].Index)
	if err := unix.Unmount(o.BPFFS, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	check(t, l, "somebody has removed")
	intact(t, l, o.Interfaces[0].Index)
	if err := l.Close(true); err != nil {
		t.Fatal(err)
	}
	l = mustLoad(t, o)
	if after := mustInfo(t, l); !reflect.DeepEqual(before.Links, after.Links) || before.ProgramID != after.ProgramID || !reflect.DeepEqual(before.Maps, after.Maps) {
		t.Errorf("it was %+v, and is %+v", before, after)
	}
	if err := l.Close(false); err != nil {
		t.Fatal(err)
	}
}
