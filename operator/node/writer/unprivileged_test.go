// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/e2e/lib/umask"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/confine"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath/pins"
)

// nobody is the user that the agent runs as.
const nobody = 65532

// childOf is set in the process that has dropped its privileges; confined in
// one that also confines itself.
const (
	childOf  = "BLIXT_TEST_PINS"
	confined = "BLIXT_TEST_CONFINED"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childOf); dir != "" {
		if err := unprivileged(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// The process that writes maps needs no capability: root pins the maps and
// gives a group access, and a process of that group, without any privilege,
// publishes.
func TestWriterNeedsNoPrivilege(t *testing.T) {
	for name, env := range map[string]string{"by permissions of files": "", "and confined": confined + "=1"} {
		t.Run(name, func(t *testing.T) { testUnprivileged(t, env) })
	}
}

func testUnprivileged(t *testing.T, env string) {
	dir := pins.Make(t, nobody)
	flows, err := ebpf.LoadPinnedMap(filepath.Join(dir, bpf.BlixtMapFlows), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer flows.Close()
	// Last seen before the machine booted, which may be less than goneFor ago.
	flow := bpf.BlixtFlow{Backend: 1, Generation: ^uint32(0), IdleTicks: 1 << 30, LastSeen: -datapath.Ticks(2 * goneFor)}
	if err := flows.Put(bpf.BlixtFlowKey{Protocol: 6}, flow); err != nil {
		t.Fatal(err)
	}
	umask.Open(t)
	child := exec.Command("/proc/self/exe")
	child.Env = append(os.Environ(), childOf+"="+dir, env)
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	// The child inherits this from the thread, which ends with the test.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// What it wrote is in the kernel, as root sees it.
	m, err := datapath.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var interest bpf.BlixtInterestBytes
	bytes, err := ebpf.LoadPinnedMap(filepath.Join(dir, bpf.BlixtMapInterest), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer bytes.Close()
	if err := bytes.Lookup(uint32(0), &interest); err != nil {
		t.Fatal(err)
	}
	if have := interest.Of[bpf.InterestHash(datapath.ToAddr(testVIP))]; have != uint8(datapath.InterestVIP) {
		t.Errorf("byte of the address has bits %b, want those of a sweep", have)
	}
	s, err := ReadStatus(m, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Frontends) != 1 || len(s.Frontends[0].Backends) != 3 || s.Frontends[0].RingSize != 512 || s.Version.Sequence != 2 {
		t.Errorf("maps hold %+v", s)
	}
}

// unprivileged is what the child does.
func unprivileged(dir string) error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for _, want := range []string{"CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1", "Uid:\t65532\t65532\t65532\t65532"} {
		if !strings.Contains(string(status), want) {
			return fmt.Errorf("not as it should be: no %q in\n%s", want, status)
		}
	}
	if os.Getenv(confined) != "" {
		if err := confine.Process(confine.Options{Read: []string{dir}}); err != nil {
			return err
		}
	}
	m, err := datapath.Open(dir)
	if err != nil {
		return err
	}
	a := New(m, Options{})
	for _, s := range []lb.State{testState(70, 30), testState(1, 1, 1)} {
		if _, err := a.Apply(context.Background(), s); err != nil {
			return err
		}
	}
	swept, err := a.Sweep(context.Background())
	if err != nil || swept.Entries != 1 || swept.Gone != 1 {
		return fmt.Errorf("swept %+v: %w", swept, err)
	}
	if _, err := a.Status(); err != nil {
		return err
	}
	_, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("creating a map: %w", err)
	}
	_, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}, License: "GPL"})
	if !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("loading a program: %w", err)
	}
	_, err = datapath.Open(filepath.Join(filepath.Dir(dir), "root"))
	if !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("opening pins of root: %w", err)
	}
	return nil
}
