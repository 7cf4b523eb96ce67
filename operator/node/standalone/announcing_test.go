// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/announce"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// withPeers gives the load balancer peers and a file of keys, whose path it returns.
func (i *instance) withPeers(peers ...string) string {
	i.Helper()
	for _, text := range peers {
		p, err := ParsePeer(text)
		must(i.TB, err)
		i.Peering.Peers = append(i.Peering.Peers, p)
	}
	i.Peering.KeyFile, i.Peering.StateDir = filepath.Join(i.dir, "..", "keys"), filepath.Join(i.dir, "..", "state")
	i.writeKeys(key1)
	return i.Peering.KeyFile
}

func (i *instance) writeKeys(keys ...string) {
	i.Helper()
	path := i.Peering.KeyFile
	must(i.TB, os.WriteFile(path+".new", []byte(strings.Join(keys, "\n")), 0o600))
	must(i.TB, os.Rename(path+".new", path))
}

// announces waits until the maps hold what check wants.
func (i *instance) announces(check func(announce.Status) error) {
	i.Helper()
	eventually(i.TB, func() error {
		tables, err := datapath.Open(filepath.Join(loader.Pins(i.bpffs, i.Name), "maps"))
		if err != nil {
			return err
		}
		defer tables.Close()
		s, err := announce.ReadStatus(tables, announce.Status{})
		if err != nil {
			return err
		}
		return check(s)
	})
}

// has returns a check for peers by address, and for the ids of keys, of which the first one
// signs.
func has(peers []string, keys ...int) func(announce.Status) error {
	return func(s announce.Status) error {
		var got []string
		for _, p := range s.Pairs {
			got = append(got, p.Node)
		}
		wanted := slices.Clone(peers)
		slices.Sort(got)
		slices.Sort(wanted)
		ids := slices.Sorted(slices.Values(keys))
		if !slices.Equal(got, wanted) || !slices.Equal(s.Keys, ids) || (s.Sign == nil) != (keys == nil) || s.Sign != nil && *s.Sign != keys[0] {
			return fmt.Errorf("peers %v, keys %v; want %v and %v, of which the first signs", got, s.Keys, wanted, keys)
		}
		return nil
	}
}

// TestPeersAreInTheMaps: with what the files of keys and the flags say, and without them.
func TestPeersAreInTheMaps(t *testing.T) {
	veth(t, "eth0")
	up(t, "peer-eth0")
	assign(t, "eth0", host4+"/24")
	i := prepare(t, files(80, far4))
	i.withPeers("10.0.0.1,fd00::1,10.244.1.0/24", "10.0.0.2")
	i.Peering.SNATPorts = lb.PortRange{First: 20000, Last: 29999}
	i.Keep = true
	i.start()
	i.serves(far4 + ":80")
	i.announces(has([]string{"10.0.0.1", "fd00::1", "10.0.0.2"}, 1))
	i.announces(func(s announce.Status) error {
		if want := (lb.PortRange{First: i.SNATPorts.First, Last: 29999}); s.Ports != want || s.Boot == 0 {
			return fmt.Errorf("ports %s, want %s; boot %d", s.Ports, want, s.Boot)
		}
		return nil
	})
	i.writeKeys(key1, key0)
	i.announces(has([]string{"10.0.0.1", "fd00::1", "10.0.0.2"}, 1, 0))
	i.writeKeys(key0, key1)
	i.announces(has([]string{"10.0.0.1", "fd00::1", "10.0.0.2"}, 0, 1))
	i.writeKeys(key0 + " or not")
	i.logs("level=WARN", "last good keys", "line 1")
	i.writeKeys(key0)
	i.announces(has([]string{"10.0.0.1", "fd00::1", "10.0.0.2"}, 0))
	i.logs("mended", "last good keys")
	eventually(t, func() error {
		var s announce.Status
		text, err := os.ReadFile(PeersFile(i.RunDir, i.Name))
		if err == nil {
			err = json.Unmarshal(text, &s)
		}
		if err == nil && (len(s.Pairs) != 2 || s.Pairs[0].Node != "10.0.0.1") {
			err = fmt.Errorf("the file of peers says %s", text)
		}
		return err
	})

	// One peer is this host, when it has that address.
	assign(t, "peer-eth0", "10.0.0.2/32")
	i.announces(has([]string{"10.0.0.1", "fd00::1"}, 0))
	i.logs("level=INFO", "peer 10.0.0.2 is this host")
	must(t, netlink.AddrDel(byName(t, "peer-eth0"), mustAddr(t, "10.0.0.2/32")))

	i.stop()
	i.Peering.Peers = i.Peering.Peers[:1]
	i.start()
	i.announces(has([]string{"10.0.0.1", "fd00::1"}, 0))
	i.stop()
	i.Peering = Peering{}
	i.start()
	i.announces(has(nil))
	i.announces(func(s announce.Status) error {
		if s.Boot != 0 || s.Ports != (lb.PortRange{}) {
			return fmt.Errorf("the maps still have %+v", s)
		}
		return nil
	})
	i.stop()
	i.Keep = false
	i.start()
	i.serves(far4 + ":80")
	i.ends(false)
}

// TestHostOfBackendsAlone has nothing to serve, and begins to serve what comes later.
func TestHostOfBackendsAlone(t *testing.T) {
	veth(t, "eth0")
	up(t, "peer-eth0")
	assign(t, "eth0", host4+"/24")
	for name, paths := range map[string]bool{"without files": false, "with an empty directory": true} {
		t.Run(name, func(t *testing.T) {
			i := prepare(t, files(80, far4))
			must(t, os.Remove(filepath.Join(i.dir, "web.yaml")))
			if !paths {
				i.Files.Paths = nil
			}
			if err := Run(t.Context(), i.Options); err == nil {
				t.Fatal("without peers it starts")
			}
			i.withPeers("10.0.0.1")
			i.start()
			i.logs("level=INFO", "serving", "frontends=0", "backends=0")
			i.announces(has([]string{"10.0.0.1"}, 1))
			i.attached("eth0", "lo", "peer-eth0")
			if paths {
				i.write(files(80, far4))
				i.serves(far4 + ":80")
				// What was served goes on without its file, as everywhere.
				must(t, os.Remove(filepath.Join(i.dir, "web.yaml")))
				i.logs("level=ERROR", "no *.yaml")
				i.serves(far4 + ":80")
			}
			i.stop()
		})
	}
}

func TestPeersWithoutAGoodKeyFile(t *testing.T) {
	i := prepare(t, files(80, far4))
	path := i.withPeers("10.0.0.1")
	must(t, os.Chmod(path, 0o644))
	if err := Run(t.Context(), i.Options); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
		t.Errorf("everybody may read the keys: %v", err)
	}
	must(t, os.Remove(path))
	if err := Run(t.Context(), i.Options); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there are no keys: %v", err)
	}
}

func TestPeerProblems(t *testing.T) {
	probes := func(states ...string) (counts []announce.ProbeCount) {
		for n, s := range states {
			counts = append(counts, announce.ProbeCount{Form: fmt.Sprintf("form %d", n), State: s})
		}
		return counts
	}
	for _, c := range []struct {
		probes []announce.ProbeCount
		want   string
	}{
		{nil, ""},
		{probes(announce.Answered, announce.NotProbed), ""},
		{probes(announce.Unanswered, announce.Unanswered), "answers nothing"},
		{probes(announce.Unanswered, announce.NotProbed), "form 0"},
		{probes(announce.Answered, announce.Unanswered), "form 1"},
	} {
		s := announce.Status{Announces: true, Pairs: []announce.Pair{{Node: "10.0.0.1", Sources: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Probes: c.probes}}}
		lines := strings.Join(peerProblems(s), "\n")
		if (c.want == "") != (lines == "") || !strings.Contains(lines, c.want) {
			t.Errorf("%+v: %q, want %q", c.probes, lines, c.want)
		}
	}
	if lines := peerProblems(announce.Status{}); len(lines) != 1 || !strings.Contains(lines[0], "earlier version") {
		t.Errorf("an earlier program: %q", lines)
	}
}

// TestGatewaysInFilesPreserveClients unless their BlixtGatewayConfig says otherwise.
func TestGatewaysInFilesPreserveClients(t *testing.T) {
	veth(t, "eth0")
	up(t, "peer-eth0")
	assign(t, "eth0", host4+"/24")
	i := prepare(t, files(80, far4))
	i.withPeers("10.0.0.1")
	i.start()
	preserves := func(want bool) {
		t.Helper()
		eventually(t, func() error {
			r, err := writer.LoadRecord(StateFile(i.RunDir, i.Name))
			if err == nil && (len(r.State.Frontends) != 1 || r.State.Frontends[0].PreserveClient != want) {
				err = fmt.Errorf("frontends %+v, want clients preserved: %v", r.State.Frontends, want)
			}
			return err
		})
	}
	preserves(true)
	node := strings.Replace(files(80, far4), "  gatewayClassName: blixt\n",
		"  gatewayClassName: blixt\n  infrastructure: {parametersRef: {group: blixt.x-k8s.io, kind: BlixtGatewayConfig, name: web}}\n", 1)
	i.write(node + "---\napiVersion: blixt.x-k8s.io/v1alpha1\nkind: BlixtGatewayConfig\nmetadata: {name: web}\nspec: {clientAddress: Node}\n")
	preserves(false)
	i.write(files(80, far4))
	preserves(true)
}
