// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/diff"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/source"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// edits are what people do to a file: changes that they mean, and mistakes.
var edits = [][2]string{
	{"10.0.0.1", "10.0.0.2"}, {"10.0.0.2", "10.0.0.1"}, {`"10.0.0.1"]`, "\"10.0.0.1\"]\n- addresses: [\"10.0.0.3\"]"}, {`"]`, "\"]\n  conditions: {ready: false}"},
	{"port: 80}]", "port: 80, weight: 3}]"}, {"port: 80}]", "port: 80}, {name: other, port: 80}]"}, {"8080", "9090"},
	{"port: 80}", "port: 81}"}, {"port: 81}", "port: 80}"}, {"TCP, port: 80", "tcp, port: 80"}, {"name: web", "name: wbe"}, {"name: web", "name: other"}, {"name: other", "name: web"},
	{"ClassName: blixt", "ClassName: blixxt"}, {"networking.k8s.io/blixt", "networking.k8s.io/other"}, {far4, "203.0.113.9"}, {far4, "127.0.0.1"}, {far4, "no address"},
	{"10.0.0.1", far4}, {"spec:", "spec: ["}, {"kind: ", "kind: X"}, {"rules:", "rulez:"}, {"weight: 3", "weight: 0"}, {"name: tcp", "name: udp"},
}

// edit changes one of the files at random: as an edit has it, or back to how it was at
// first, or it is deleted, or becomes a copy of another one.
func edit(random *rand.Rand, first map[string]string, now map[string]string) (name, text string) {
	names := []string{}
	for n := range first {
		names = append(names, n)
	}
	slices.Sort(names)
	name = names[random.IntN(len(names))]
	switch random.IntN(8) {
	case 0:
		if now[name] != "" && len(now) > 2 {
			return name, ""
		}
		return name, first[name]
	case 1, 2:
		return name, first[name]
	case 3:
		return name, strings.NewReplacer("name: web", "name: again", far4, "203.0.113.8").Replace(first[names[random.IntN(len(names))]])
	}
	if text = now[name]; text == "" {
		text = first[name]
	}
	for range 40 {
		if e := edits[random.IntN(len(edits))]; strings.Contains(text, e[0]) {
			return name, strings.Replace(text, e[0], e[1], 1)
		}
	}
	return name, text
}

// TestDiffForetellsWhatHappens edits files at random, also to what is wrong, while a load
// balancer serves them. What a preview foretells of each edit, in a directory of its own, is
// what the load balancer then serves; and exactly those backends lose their flows of which
// the difference says so.
func TestDiffForetellsWhatHappens(t *testing.T) {
	every, after := memoryEvery, memoryAfter
	memoryEvery, memoryAfter = time.Millisecond, time.Millisecond
	t.Cleanup(func() { memoryEvery, memoryAfter = every, after })
	veth(t, "eth0")
	up(t, "peer-eth0")
	assign(t, "eth0", "192.0.2.1/24")
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { foretell(t, rand.New(rand.NewPCG(seed, 20)), 16) })
	}
}

func foretell(t *testing.T, random *rand.Rand, steps int) {
	p := parts(80)
	other := strings.NewReplacer("name: web", "name: other", "service-name: web", "service-name: other")
	o := parts(81)
	first := map[string]string{
		"class.yaml": p[0], "gw.yaml": p[1], "route.yaml": p[2], "service.yaml": p[3], "slice.yaml": p[4],
		"other-gw.yaml": other.Replace(o[1]), "other.yaml": other.Replace(strings.Join(o[2:], "---\n")),
	}
	i := prepare(t, "# nothing\n")
	i.Files.StateDir = filepath.Join(t.TempDir(), "state")
	i.reloadable()
	now := map[string]string{}
	for name, text := range first {
		i.put(name, text)
		now[name] = text
	}
	drained := lb.DrainedSet{netip.MustParseAddrPort("10.0.0.2:0"): byAlice()}
	must(t, ChangeDrained(t.Context(), DrainedFile(i.RunDir, i.Name), func(set lb.DrainedSet) error { maps.Copy(set, drained); return nil }))
	i.start()
	i.serves(far4+":80", far4+":81")
	candidate := filepath.Join(t.TempDir(), "candidate")
	differed, resets := 0, 0
	for step := range steps {
		quiet(t, i.Files.StateDir)
		name, text := edit(random, first, now)
		must(t, os.CopyFS(candidate, os.DirFS(i.dir)))
		if text == "" {
			delete(now, name)
			must(t, os.Remove(filepath.Join(candidate, name)))
		} else {
			now[name] = text
			must(t, os.WriteFile(filepath.Join(candidate, name), []byte(text), 0o644))
		}
		says, err := ReadProcessStatus(i.RunDir, i.Name)
		must(t, err)
		foretold, err := NewPreview(PreviewOptions{Files: source.Options{Paths: []string{candidate}}, Like: &says, Drained: drained})
		must(t, err)
		must(t, os.RemoveAll(candidate))
		before := i.status()
		d := diff.New(before, foretold.State)
		i.put(name, text)
		i.reload()
		record, err := writer.LoadRecord(StateFile(i.RunDir, i.Name))
		must(t, err)
		what := fmt.Sprintf("step %d, %s is now\n%s\n", step, name, text)
		sameState(t, what, &record.State, foretold.State)
		became := i.status()
		if again := diff.New(became, foretold.State); !again.Empty() {
			t.Errorf("%sstill to come is %+v", what, again)
		}
		resets += sameResets(t, what, &d, before, became)
		if !d.Empty() {
			differed++
		}
		if t.Failed() {
			t.Log(strings.Join(i.log.take(), "\n"))
			return
		}
	}
	if differed < steps/6 || resets == 0 {
		t.Errorf("only %d edits changed anything, %d backends lost their flows", differed, resets)
	}
}

// quiet waits until nobody has written into a directory for a while.
func quiet(t *testing.T, dir string) {
	t.Helper()
	var last string
	for same := 0; same < 10; time.Sleep(20 * time.Millisecond) {
		var now strings.Builder
		entries, err := os.ReadDir(dir)
		must(t, err)
		for _, e := range entries {
			if info, err := e.Info(); err == nil {
				fmt.Fprintln(&now, e.Name(), info.ModTime().UnixNano(), info.Size())
			}
		}
		if same++; now.String() != last {
			same, last = 0, now.String()
		}
	}
}

// status returns what the maps hold.
func (i *instance) status() *writer.Status {
	i.Helper()
	info, err := loader.Inspect(i.bpffs, i.Name)
	must(i.TB, err)
	tables, err := datapath.Open(info.Dir)
	must(i.TB, err)
	defer tables.Close()
	s, err := writer.ReadStatus(tables, StateFile(i.RunDir, i.Name))
	must(i.TB, err)
	return &s
}

// sameResets compares which backends lose their flows: those that are not there any more with
// the id that they had.
func sameResets(t *testing.T, what string, d *diff.Diff, before, after *writer.Status) (n int) {
	t.Helper()
	ids := func(s *writer.Status) map[string]uint32 {
		all := map[string]uint32{}
		for _, f := range s.Frontends {
			for _, b := range f.Backends {
				all[f.Frontend+" "+b.Address] = b.ID
			}
		}
		return all
	}
	foretold := map[string]bool{}
	for _, f := range d.Frontends {
		for _, b := range f.Backends {
			foretold[f.Frontend+" "+b.Address] = b.Reset
		}
	}
	now := ids(after)
	for name, id := range ids(before) {
		lost := now[name] != id
		if lost {
			n++
		}
		if lost != foretold[name] {
			t.Errorf("%s%s loses its flows: %v, foretold was %v", what, name, lost, foretold[name])
		}
	}
	return n
}
