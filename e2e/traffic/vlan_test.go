// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

const (
	tagged4, tagged6 = "10.55.0.2", "fd55::2"
	trunk4, trunk6   = "10.55.0.1", "fd55::1"
)

// taggedConfig serves a backend elsewhere and a container.
func taggedConfig(w *labtest.World) *lab.Config {
	return labtest.ConfigOf(map[int][]lab.Endpoint{
		toRemote: lab.Endpoints(8080, w.Backends...),
		toPods:   lab.On("balancer", lab.Endpoints(8080, w.Pods...)),
	})
}

// fromTagged sends from behind a tag to everywhere.
func fromTagged(w *labtest.World, from *lab.Node) {
	checkHops(w, []hop{
		{"tagged to remote", from, [2]string{}, toRemote, [2]string{lab.Inside4, lab.Inside6}},
		{"tagged to pod", from, [2]string{}, toPods, [2]string{}},
	})
	w.Run("answers", func(t *testing.T) {
		w := w.In(t)
		checkRefused(w, from, "", 4)
		checkRefused(w, from, "", 6)
		w.Check(ping(from, lab.VIP4))
		w.Check(ping(from, lab.VIP6))
	})
	if n, err := from.ChecksumErrors(); n > 0 || err != nil {
		w.Errorf("%s has seen %d wrong checksums (%v)", from.Name, n, err)
	}
}

// TestFramesWithAPriorityTagAreServed has switches that add a priority tag (IEEE
// 802.1Q, VLAN 0). The packet carries it as that of a client in a VLAN would, and must
// not keep it on another network.
func TestFramesWithAPriorityTagAreServed(t *testing.T) {
	w := labtest.New(t, "priority", 1, 1)
	from := w.Node("tagged")
	w.Wire(from, "eth0", w.Balancer, "trunk", func(frame []byte) []byte {
		tag := []byte{0x81, 0x00, 5 << 5, 0}
		return append(append(frame[:12:12], tag...), frame[12:]...)
	})
	from.Addr("eth0", tagged4+"/24", tagged6+"/64")
	from.Route("default via "+trunk4, "default via "+trunk6)
	w.Balancer.Addr("trunk", trunk4+"/24", trunk6+"/64")
	w.Check(w.Err())
	w.Offloads(false)
	w.StartBlixt(taggedConfig(w))
	fromTagged(w, from)
}

// TestVLANDeviceAndItsParentMayBothHaveTheProgram has a client in a VLAN: its
// packets pass the program on the parent, tagged, and what goes through the
// stack passes it again on the VLAN's device.
func TestVLANDeviceAndItsParentMayBothHaveTheProgram(t *testing.T) {
	w := labtest.New(t, "vlan", 1, 1)
	if !hasVLAN(w) {
		t.Skip("kernel lacks: VLAN devices (CONFIG_VLAN_8021Q)")
	}
	from := w.Node("tagged")
	w.Link(from, "eth0", w.Balancer, "trunk")
	for _, end := range []struct {
		node *lab.Node
		dev  string
		four string
		six  string
	}{{from, "eth0", tagged4, tagged6}, {w.Balancer, "trunk", trunk4, trunk6}} {
		vlan := end.dev + ".5"
		end.node.IP(fmt.Sprintf("link add link %s name %s type vlan id 5", end.dev, vlan), "link set "+vlan+" up")
		end.node.Addr(vlan, end.four+"/24", end.six+"/64")
	}
	from.Route("default via "+trunk4, "default via "+trunk6)
	w.Check(w.Err())
	w.StartBlixt(taggedConfig(w))
	for _, offloads := range []bool{false, true} {
		t.Run(fmt.Sprintf("offloads %v", offloads), func(t *testing.T) {
			w := w.In(t)
			w.Offloads(offloads)
			fromTagged(w, from)
		})
	}
}

// hasVLAN reports whether the kernel can create VLAN devices.
func hasVLAN(w *labtest.World) bool {
	err := w.Client.Do(func() error {
		parent, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		vlan := &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "probe", ParentIndex: parent.Attrs().Index}, VlanId: 5}
		if err := netlink.LinkAdd(vlan); err != nil {
			return err
		}
		return netlink.LinkDel(vlan)
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return false
	}
	w.Check(err)
	return true
}
