// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package e2e

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
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// TestBackendThatGoesIsTakenFromTheOlderProgramToo takes a backend away while
// a program drains, until its time is up.
func TestBackendThatGoesIsTakenFromTheOlderProgramToo(t *testing.T) {
	m := newManaged(t, "upgrade-backend", 3)
	m.check(m.blixt.Start())
	old := m.status().Program
	crowd := m.newCrowd(60, "tcp", vip(4, 80), vip(6, 80))
	had := crowd.with()
	m.upgrade(32768)
	crowd.unharmed("upgraded")
	gone := m.Backends[0].Name
	m.check(m.blixt.Apply(serve(map[int][]lab.Endpoint{80: lab.Endpoints(8080, m.Backends[1:]...)})))
	m.check(lab.Eventually(patience, func() error {
		if n := crowd.with()[gone]; n > 0 {
			return fmt.Errorf("%d connections of %s are left", n, gone)
		}
		return nil
	}))
	for server, errs := range crowd.losses() {
		if server != gone || len(errs) != had[gone] || !isReset(errs[0]) {
			t.Errorf("%d of %d connections of %s broke: %v", len(errs), had[server], server, errs[0])
		}
	}
	crowd.unharmed("others")

	crowd.end() // no answer is on its way when the time is up
	left := uint64(len(crowd.lives))
	m.check(m.blixt.Kill())
	m.version(32768, "--drain-timeout", (time.Since(m.handover().Older[0].Since) + patience).String())
	m.check(m.blixt.Start()) // the clock runs on
	e := m.ended(old.ProgramID)
	if e.Cut == nil || *e.Cut < left {
		t.Errorf("status says %+v, want %d flows cut", e, left)
	}
	text, err := m.blixt.Run("status")
	m.check(err)
	if !strings.Contains(text, fmt.Sprintf("Program %d (%s) was unloaded at ", old.ProgramID, old.Digest)) || !strings.Contains(text, fmt.Sprintf(": %d flows cut", *e.Cut)) {
		t.Errorf("%d flows were cut, but status prints\n%s", *e.Cut, text)
	}
	for c := range crowd.lives { // told, and not left hanging
		if _, err := lab.Ask(c.conn, "too late", patience); !isReset(err) {
			t.Errorf("%s: %v, want a reset", c.server, err)
		}
	}
	m.check(m.blixt.Apply(m.config))
	m.carries()
	m.check(m.blixt.Stop())
	m.nothingLeft()
}

// TestUpgradeWithoutDraining gives an older program no time.
func TestUpgradeWithoutDraining(t *testing.T) {
	m := newManaged(t, "upgrade-now", 2)
	m.check(m.blixt.Start())
	old := m.status().Program
	m.newCrowd(10, "tcp", vip(4, 80), vip(6, 80)).end()
	arrivals := m.newNewcomers(vip(4, 80))
	m.upgrade(32768, "--drain-timeout", "0")
	e := m.ended(old.ProgramID)
	if e.Cut == nil || *e.Cut < 10 {
		t.Fatalf("status says %+v, want 10 flows cut", e)
	}
	if line := fmt.Sprintf("unloaded program %d (%s) when its time was up cut=%d", old.ProgramID, old.Digest, *e.Cut); !strings.Contains(m.blixt.Log(), line) {
		t.Errorf("blixt does not say %q", line)
	}
	m.chain("without draining", m.status().Program.ProgramID)
	m.check(lab.Eventually(patience, func() error {
		if n := m.counter(m.status().Program.ProgramID, "flow_new"); n < 50 {
			return fmt.Errorf("the new program has %d flows", n)
		}
		return nil
	}))
	close(arrivals.stop)
	arrivals.wg.Wait()
	if len(arrivals.failed) > 1 { // one may have been asking
		t.Errorf("of the new connections broke %v", arrivals.failed)
	}
	m.check(m.blixt.Stop())
	m.nothingLeft()
}

func isReset(err error) bool { return errors.Is(err, unix.ECONNRESET) }

// TestProgramOfAnotherLayoutDrains finds one whose maps it cannot read, and
// that serves nobody.
func TestProgramOfAnotherLayoutDrains(t *testing.T) {
	m := newManaged(t, "upgrade-layout", 1)
	const other = bpf.Layout + 8
	name := fmt.Sprintf("blixt_layout_%d", other)
	path := filepath.Join(m.Dir(), "other.o")
	m.check(os.WriteFile(path, bytes.ReplaceAll(bpf.Object(), []byte(bpf.LayoutMap+"\x00"), []byte(name+"\x00")), 0o644))
	load := func() uint32 {
		_, err := m.bpfman.Run("load", "file", "--path", path, "--programs", "tcx:blixt",
			"--metadata", "blixt.name="+m.blixt.Name, "--metadata", "blixt.digest=sha256:0")
		m.check(err)
		dirs, err := filepath.Glob(m.bpfman.Path("/run/bpfman/fs/maps/*/" + name))
		m.check(err)
		id, err := strconv.Atoi(filepath.Base(filepath.Dir(dirs[0])))
		m.check(err)
		return uint32(id)
	}
	id := load()
	m.check(m.blixt.Start())
	if text := fmt.Sprintf("bpfman unloaded program %d of this name (sha256:0): it has never served", id); !strings.Contains(m.blixt.Log(), text) {
		t.Errorf("blixt does not say %q", text)
	}
	m.check(m.blixt.Stop())

	id = load()
	config, err := ebpf.LoadPinnedMap(filepath.Join(m.maps(id), name), nil)
	m.check(err)
	defer config.Close()
	m.check(config.Put(uint32(0), datapath.Config{SnatMin: halves[0].First, SnatMax: halves[0].Last}))
	m.blixt.Args = append(m.blixt.Args, "--drain-timeout", patience.String())
	m.check(m.blixt.AwaitLog(") drains: it serves", patience, m.blixt.Start))
	var c datapath.Config
	m.check(config.Lookup(uint32(0), &c))
	if want := (datapath.Config{SnatMin: halves[0].First, SnatMax: halves[0].Last, Flags: datapath.ConfigDrain}); c != want {
		t.Errorf("config is %+v, want %+v", c, want)
	}
	h := m.handover()
	if len(h.Older) != 1 || h.Older[0].Flows != nil || h.SNAT != halves[1] {
		t.Errorf("status says %+v, ports %s", h.Older, h.SNAT)
	}
	m.carries()
	if e := m.ended(id); e.Cut != nil {
		t.Errorf("status says %+v", e)
	}
	m.carries()
	m.check(m.blixt.Stop())
	m.nothingLeft()
}
