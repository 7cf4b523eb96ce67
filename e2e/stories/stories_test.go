// SPDX-License-Identifier: Apache-2.0

// Package stories tells what Blixt serves, from Gateway API YAML to the contents
// of the data plane's maps. Each script of testdata is one story; README.md has
// the commands.
package stories

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/rogpeppe/go-internal/testscript"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// defaultSizes are those of the tables that a story begins with.
var defaultSizes = datapath.Sizes{Addresses: 16, Frontends: 16, Backends: 64, RingSlots: 131072, Flows: 64, NewFlows: 64, UDPFlows: 64}

func TestStories(t *testing.T) {
	run(t, "fake", func(_ *testscript.Env, s datapath.Sizes) (writer.Tables, error) { return datapath.NewFake(s), nil })
}

func TestStoriesOnKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("creating maps needs root")
	}
	run(t, "kernel", kernelMaps)
}

// run runs all stories on the tables that a function creates. Their kind is a
// condition that scripts can have.
func run(t *testing.T, kind string, create createTables) {
	t.Helper()
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			if err := copyBase(env.WorkDir); err != nil {
				return err
			}
			n, err := newNode(env, create, kind == "fake") // the kernel's maps are large, and slow to read
			env.Values["node"] = n
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"apply":                    command("node", apply),
			"delete":                   command("node", remove),
			"kill-after":               command("node", killAfter),
			"maps":                     command("node", printMaps),
			"moved":                    command("node", checkMoved),
			"node":                     command("node", setNode),
			"problems":                 command("node", printProblems),
			"restart":                  command("node", restart),
			"tables":                   command("node", setSizes),
			"visible-after-each-write": command("node", checkVisible),
			"wrote-nothing":            command("node", checkWroteNothing),
		},
		Condition:          func(cond string) (bool, error) { return cond == kind, nil },
		UpdateScripts:      golden.Update(),
		RequireUniqueNames: true,
	})
}

// copyBase copies the files that stories begin with, but for those that a story has
// of its own.
func copyBase(dir string) error {
	base := os.DirFS("testdata/base")
	files, err := fs.Glob(base, "*.yaml")
	for _, name := range files {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		text, err := fs.ReadFile(base, name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return err
}

// command makes a command of a script from a function of a value of the script. With a !
// before the command its error is expected, and goes to stderr.
func command[T any](value string, f func(*testscript.TestScript, T, []string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		err := f(ts, ts.Value(value).(T), args)
		switch {
		case err != nil && neg:
			fmt.Fprintln(ts.Stderr(), err)
		case err != nil:
			ts.Fatalf("%v", err)
		case neg:
			ts.Fatalf("unexpected success")
		}
	}
}

// apply FILE... creates or replaces the objects of files and serves the result.
func apply(ts *testscript.TestScript, n *node, files []string) error {
	for _, file := range files {
		if err := eachObject(ts.ReadFile(file), func(name, text string) { n.objects[name] = text }); err != nil {
			return err
		}
	}
	return n.serve()
}

// remove deletes the objects of files and serves the result.
func remove(ts *testscript.TestScript, n *node, files []string) error {
	for _, file := range files {
		if err := eachObject(ts.ReadFile(file), func(name, _ string) { delete(n.objects, name) }); err != nil {
			return err
		}
	}
	return n.serve()
}

// eachObject calls f with the kind and name, and the text, of each document.
func eachObject(text string, f func(name, text string)) error {
	for _, doc := range bytes.Split([]byte(text), []byte("\n---\n")) {
		var object struct {
			Kind     string
			Metadata struct{ Namespace, Name string }
		}
		if err := yaml.Unmarshal(doc, &object); err != nil {
			return err
		}
		f(object.Kind+" "+object.Metadata.Namespace+"/"+object.Metadata.Name, string(doc))
	}
	return nil
}

// setNode NAME [ADDRESS...] says which node serves, and its addresses.
func setNode(_ *testscript.TestScript, n *node, args []string) error {
	n.name, n.addresses = args[0], nil
	for _, text := range args[1:] {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return err
		}
		n.addresses = append(n.addresses, addr)
	}
	return nil
}

// setSizes TABLE=SIZE... begins with empty tables of other sizes.
func setSizes(_ *testscript.TestScript, n *node, args []string) error {
	sizes := defaultSizes
	fields := map[string]*int{
		"addresses": &sizes.Addresses, "frontends": &sizes.Frontends, "backends": &sizes.Backends, "rings": &sizes.RingSlots,
	}
	for _, arg := range args {
		table, size, _ := strings.Cut(arg, "=")
		field := fields[table]
		if field == nil {
			return fmt.Errorf("no table %s", table)
		}
		var err error
		if *field, err = strconv.Atoi(size); err != nil {
			return err
		}
	}
	return n.begin(sizes)
}

// restart replaces the writer by one that knows nothing.
func restart(_ *testscript.TestScript, n *node, _ []string) error {
	n.start()
	return nil
}

// killAfter N has the writer die after that many writes of the next apply.
func killAfter(_ *testscript.TestScript, n *node, args []string) (err error) {
	n.tables.left, err = strconv.Atoi(args[0])
	return err
}

// printMaps prints what packets find in the maps, and whose flows the last apply has
// reset.
func printMaps(ts *testscript.TestScript, n *node, _ []string) error {
	v, err := look(n.tables.Tables)
	fmt.Fprint(ts.Stdout(), v, v.reset(n.tables.before))
	return err
}

// printProblems prints what conditions would say is wrong.
func printProblems(ts *testscript.TestScript, n *node, _ []string) error {
	var text strings.Builder
	for _, p := range n.problems {
		fmt.Fprintf(&text, "%s: %s\n", p.Object, p.Message)
	}
	_, err := fmt.Fprint(ts.Stdout(), text.String())
	return err
}

// checkMoved FRONTEND at-most N% compares rings before and after the last apply.
// Packets for backends that are gone, or get no new flows, have to move and do
// not count.
func checkMoved(_ *testscript.TestScript, n *node, args []string) error {
	if len(args) != 3 || args[1] != "at-most" {
		return fmt.Errorf("usage: moved FRONTEND at-most N%%")
	}
	most, err := strconv.Atoi(strings.TrimSuffix(args[2], "%"))
	if err != nil {
		return err
	}
	moved, err := n.tables.moved(args[0])
	if err == nil && moved > float64(most)/100 {
		err = fmt.Errorf("%.1f%% of the packets for backends that stay would move, want at most %d%%", moved*100, most)
	}
	return err
}

// checkVisible fails if a packet could have seen half of a change. The order of writes
// is the same everywhere: the kernel's maps are looked at before and after only.
func checkVisible(_ *testscript.TestScript, n *node, _ []string) error {
	return n.tables.checkVisible()
}

// checkWroteNothing fails if the last apply has written.
func checkWroteNothing(_ *testscript.TestScript, n *node, _ []string) error {
	if n.tables.writes > 0 {
		return fmt.Errorf("%d writes", n.tables.writes)
	}
	return nil
}

// createTables returns empty tables that live as long as the script.
type createTables func(*testscript.Env, datapath.Sizes) (writer.Tables, error)

// kernelMaps creates the maps of the embedded object. Only the sizes of rings and
// flows can be chosen there.
func kernelMaps(env *testscript.Env, s datapath.Sizes) (writer.Tables, error) {
	spec, err := bpf.LoadBlixt()
	if err != nil {
		return nil, err
	}
	spec.Maps[bpf.BlixtMapFlows].MaxEntries = uint32(2 * s.Flows)
	spec.Maps[bpf.BlixtMapNewFlows].MaxEntries = uint32(2 * s.NewFlows)
	spec.Maps[bpf.BlixtMapUdpFlows].MaxEntries = uint32(2*s.UDPFlows + s.UDPFlows/4)
	spec.Maps[bpf.BlixtMapRings].MaxEntries = uint32(s.RingSlots / 2)
	all := map[string]*ebpf.Map{}
	for name, m := range spec.Maps {
		if strings.HasPrefix(name, ".") {
			continue
		}
		if all[name], err = ebpf.NewMap(m); err != nil {
			return nil, fmt.Errorf("create map %s: %w", name, err)
		}
		env.Defer(func() { all[name].Close() })
	}
	m, err := datapath.New(all)
	if err != nil {
		return nil, err
	}
	env.Defer(func() { m.Close() })
	return m, nil
}

// parseKey reads ADDRESS:PORT/PROTOCOL.
func parseKey(text string) (lb.Key, error) {
	at, protocol, _ := strings.Cut(text, "/")
	addr, err := netip.ParseAddrPort(at)
	key := lb.Key{Addr: addr.Addr(), Port: addr.Port(), Protocol: lb.TCP}
	if protocol == "udp" {
		key.Protocol = lb.UDP
	}
	return key, err
}
