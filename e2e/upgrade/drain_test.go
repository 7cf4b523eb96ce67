// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package upgrade

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// TestBackendThatGoesIsTakenFromTheOlderProgramToo removes a backend while a program
// drains, until the drain timeout.
func TestBackendThatGoesIsTakenFromTheOlderProgramToo(t *testing.T) {
	m := labtest.NewManaged(t, "upgrade-backend", 3)
	m.Check(m.Blixt.Start())
	old := m.Status().Program
	clients := m.StartClients(60, "tcp", labtest.VIP(4, 80), labtest.VIP(6, 80))
	had := clients.ByServer()
	upgrade(m, 32768)
	clients.CheckUnharmed("upgraded")
	gone := m.Backends[0].Name
	m.Check(m.Blixt.Apply(labtest.ConfigOf(map[int][]lab.Endpoint{80: lab.Endpoints(8080, m.Backends[1:]...)})))
	m.Check(lab.Eventually(labtest.Patience, func() error {
		if n := clients.ByServer()[gone]; n > 0 {
			return fmt.Errorf("%d connections of %s are left", n, gone)
		}
		return nil
	}))
	for server, errs := range clients.Lost() {
		if server != gone || len(errs) != had[gone] || !isReset(errs[0]) {
			t.Errorf("%d of %d connections of %s broke: %v", len(errs), had[server], server, errs[0])
		}
	}
	clients.CheckUnharmed("others")

	clients.Stop() // no answer may be in flight when the time is up
	left := uint64(len(clients.Alive))
	m.Check(m.Blixt.Kill())
	setVersion(m, 32768, "--drain-timeout", (time.Since(readHandover(m).Older[0].Since) + labtest.Patience).String())
	m.Check(m.Blixt.Start()) // the drain timeout has not started anew
	e := awaitEnd(m, old.ProgramID)
	if e.Cut == nil || *e.Cut < left {
		t.Errorf("status says %+v, want %d flows cut", e, left)
	}
	text, err := m.Blixt.Run("status")
	m.Check(err)
	if !strings.Contains(text, fmt.Sprintf("Program %d (%s) was unloaded at ", old.ProgramID, old.Digest)) || !strings.Contains(text, fmt.Sprintf(": %d flows cut", *e.Cut)) {
		t.Errorf("%d flows were cut, but status prints\n%s", *e.Cut, text)
	}
	for c := range clients.Alive { // they get a reset
		if _, err := lab.Ask(c.Conn, "too late", labtest.Patience); !isReset(err) {
			t.Errorf("%s: %v, want a reset", c.Server, err)
		}
	}
	m.Check(m.Blixt.Apply(m.Config))
	m.CheckCarries()
	m.Check(m.Blixt.Stop())
	m.CheckNothingLeft()
}

// TestUpgradeWithoutDraining unloads the previous program at once.
func TestUpgradeWithoutDraining(t *testing.T) {
	m := labtest.NewManaged(t, "upgrade-now", 2)
	m.Check(m.Blixt.Start())
	old := m.Status().Program
	m.StartClients(10, "tcp", labtest.VIP(4, 80), labtest.VIP(6, 80)).Stop()
	arrivals := startNewcomers(m.Client, labtest.VIP(4, 80))
	upgrade(m, 32768, "--drain-timeout", "0")
	e := awaitEnd(m, old.ProgramID)
	if e.Cut == nil || *e.Cut < 10 {
		t.Fatalf("status says %+v, want 10 flows cut", e)
	}
	if line := fmt.Sprintf("unloaded program %d (%s) when its time was up cut=%d", old.ProgramID, old.Digest, *e.Cut); !strings.Contains(m.Blixt.Log(), line) {
		t.Errorf("blixt does not say %q", line)
	}
	m.CheckChain("without draining", m.Status().Program.ProgramID)
	m.Check(lab.Eventually(labtest.Patience, func() error {
		if n := readCounter(m, m.Status().Program.ProgramID, "flow_new"); n < 50 {
			return fmt.Errorf("the new program has %d flows", n)
		}
		return nil
	}))
	close(arrivals.stop)
	arrivals.wg.Wait()
	if len(arrivals.failed) > 1 { // one may have been in use
		t.Errorf("of the new connections broke %v", arrivals.failed)
	}
	m.Check(m.Blixt.Stop())
	m.CheckNothingLeft()
}

func isReset(err error) bool { return errors.Is(err, unix.ECONNRESET) }

// TestProgramOfAnotherLayoutDrains starts beside a program whose maps Blixt cannot
// read, and that has no flows.
func TestProgramOfAnotherLayoutDrains(t *testing.T) {
	m := labtest.NewManaged(t, "upgrade-layout", 1)
	const other = 9 - bpf.Layout // another digit: the name keeps its length
	name := fmt.Sprintf("blixt_layout_%d", other)
	path := filepath.Join(m.Dir(), "other.o")
	m.Check(os.WriteFile(path, bytes.ReplaceAll(bpf.Object(), []byte(bpf.LayoutMap+"\x00"), []byte(name+"\x00")), 0o644))
	load := func() uint32 {
		_, err := m.Bpfman.Run("load", "file", "--path", path, "--programs", "tcx:blixt",
			"--metadata", "blixt.name="+m.Blixt.Name, "--metadata", "blixt.digest=sha256:0")
		m.Check(err)
		dirs, err := filepath.Glob(m.Bpfman.Path("/run/bpfman/fs/maps/*/" + name))
		m.Check(err)
		id, err := strconv.Atoi(filepath.Base(filepath.Dir(dirs[0])))
		m.Check(err)
		return uint32(id)
	}
	id := load()
	m.Check(m.Blixt.Start())
	if text := fmt.Sprintf("bpfman unloaded program %d of this name (sha256:0): it has never served", id); !strings.Contains(m.Blixt.Log(), text) {
		t.Errorf("blixt does not say %q", text)
	}
	m.Check(m.Blixt.Stop())

	id = load()
	config, err := ebpf.LoadPinnedMap(filepath.Join(mapsDir(m, id), name), nil)
	m.Check(err)
	defer config.Close()
	m.Check(config.Put(uint32(0), datapath.Config{SnatMin: ends[0].First, SnatMax: ends[0].Last}))
	m.Blixt.Args = append(m.Blixt.Args, "--drain-timeout", labtest.Patience.String())
	m.Check(m.Blixt.AwaitLog(") drains: it serves", labtest.Patience, m.Blixt.Start))
	var c datapath.Config
	m.Check(config.Lookup(uint32(0), &c))
	if want := (datapath.Config{SnatMin: ends[0].First, SnatMax: ends[0].Last, Flags: datapath.ConfigDrain}); c != want {
		t.Errorf("config is %+v, want %+v", c, want)
	}
	h := readHandover(m)
	if len(h.Older) != 1 || h.Older[0].Flows != nil || h.SNAT != ends[1] {
		t.Errorf("status says %+v, ports %s", h.Older, h.SNAT)
	}
	m.CheckCarries()
	if e := awaitEnd(m, id); e.Cut != nil {
		t.Errorf("status says %+v", e)
	}
	m.CheckCarries()
	m.Check(m.Blixt.Stop())
	m.CheckNothingLeft()
}
