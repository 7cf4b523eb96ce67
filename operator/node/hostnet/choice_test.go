// SPDX-License-Identifier: Apache-2.0

package hostnet

import (
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

// chosen returns the names of what a Choice chooses now.
func chosen(t *testing.T, c *Choice, w *Watcher) (names, missing []string, renamed map[string]Interface) {
	t.Helper()
	list, missing, renamed := c.Choose(mustLook(t, w))
	for _, i := range list {
		names = append(names, i.Name)
	}
	slices.Sort(names)
	return names, missing, renamed
}

func checkChosen(t *testing.T, c *Choice, w *Watcher, want ...string) {
	t.Helper()
	if got, missing, _ := chosen(t, c, w); !slices.Equal(got, want) || missing != nil {
		t.Errorf("chosen are %v, missing %v; want %v", got, missing, want)
	}
}

func TestInterfaceThatIsDownForAMomentIsKept(t *testing.T) {
	w, c := newWatcher(t), &Choice{}
	eth0 := veth(t, "eth0")
	checkChosen(t, c, w, "eth0")
	must(t, netlink.LinkSetDown(eth0))
	checkChosen(t, c, w, "eth0")
	// But not what gets its index.
	index := eth0.Attrs().Index
	must(t, netlink.LinkDel(eth0))
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth1", Index: index}, PeerName: "peer-eth1"}))
	t.Cleanup(func() { _ = netlink.LinkDel(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth1", Index: index}}) })
	checkChosen(t, c, w)
	// A port gives its packets to the bridge.
	br := add(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}})
	port := veth(t, "port0")
	checkChosen(t, c, w, "br0", "port0")
	must(t, netlink.LinkSetMaster(port, br))
	checkChosen(t, c, w, "br0")
	must(t, netlink.LinkSetNoMaster(port))
	checkChosen(t, c, w, "br0", "port0")
}

func TestAlternativeNameIsAName(t *testing.T) {
	w := newWatcher(t)
	eth0 := veth(t, "eth0")
	must(t, netlink.LinkAddAltName(eth0, "an-alternative-name-longer-than-others"))
	checkChosen(t, &Choice{Wanted: []string{"an-alternative-name-longer-than-others"}}, w, "eth0")
	checkChosen(t, &Choice{Wanted: []string{"an-alternative-name-longer-than-others", "eth0"}}, w, "eth0")
}

func TestRenamedInterfaceKeepsWhatIsAttached(t *testing.T) {
	w, c := newWatcher(t), &Choice{Wanted: []string{"eth0"}}
	eth0 := veth(t, "eth0")
	checkChosen(t, c, w, "eth0")
	must(t, netlink.LinkSetDown(eth0))
	must(t, netlink.LinkSetName(eth0, "lan0"))
	must(t, netlink.LinkSetUp(eth0))
	checkChosen(t, c, w, "lan0")
	if _, _, renamed := chosen(t, c, w); renamed["eth0"].Name != "lan0" {
		t.Errorf("renamed are %v", renamed)
	}
	// The name counts as soon as an interface has it.
	add(t, &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "other"})
	checkChosen(t, c, w, "eth0")
	must(t, netlink.LinkDel(eth0))
	checkChosen(t, c, w, "eth0")
}

func TestInterfaceMayComeLater(t *testing.T) {
	w, c := newWatcher(t), &Choice{Wanted: []string{"eth0", "wg 0/*"}}
	eth0 := veth(t, "eth0")
	names, missing, _ := chosen(t, c, w)
	if !slices.Equal(names, []string{"eth0"}) || !slices.Equal(missing, []string{"wg 0/*"}) {
		t.Errorf("chosen are %v, missing %v", names, missing)
	}
	must(t, netlink.LinkDel(eth0))
	if names, missing, _ = chosen(t, c, w); names != nil || len(missing) != 2 {
		t.Errorf("chosen are %v, missing %v", names, missing)
	}
	veth(t, "eth0")
	checkMissing := func(want ...string) {
		t.Helper()
		if names, missing, _ := chosen(t, c, w); !slices.Equal(names, []string{"eth0"}) || !slices.Equal(missing, want) {
			t.Errorf("chosen are %v, missing %v", names, missing)
		}
	}
	checkMissing("wg 0/*")
}
