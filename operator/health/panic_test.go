// SPDX-License-Identifier: Apache-2.0

package health

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// It is told for which frontends backends that fail get new flows, not where health holds, nor of backends
// that get none anyway.
func TestPanics(t *testing.T) {
	at := func(last byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, last}), 80)
	}
	frontend := func(port uint16, backends ...lb.Backend) lb.Frontend {
		return lb.Frontend{
			Addr: netip.MustParseAddr("192.0.2.1"), Port: port, Protocol: lb.TCP, Gateway: "shop/web",
			Settings: lb.Settings{Health: &lb.Health{Policy: "shop/strict"}}, Backends: backends,
		}
	}
	failing := &lb.Ejected{Why: "timeout"}
	nevertheless := &lb.Ejected{Why: "timeout", Panic: true}
	unasked := frontend(84, lb.Backend{Addr: at(1), Weight: 1, Ejected: nevertheless})
	unasked.Health = nil
	got := Panics([]lb.Frontend{
		frontend(80, lb.Backend{Addr: at(1), Weight: 1}, lb.Backend{Addr: at(2), Weight: 1}),
		frontend(81, lb.Backend{Addr: at(1), Weight: 1}, lb.Backend{Addr: at(2), Ejected: failing}),
		frontend(82, lb.Backend{Addr: at(1), Weight: 1}, lb.Backend{Addr: at(2), Weight: 1, Ejected: nevertheless}, lb.Backend{Addr: at(3), Weight: 1, Ejected: nevertheless}),
		frontend(83, lb.Backend{Addr: at(1), Weight: 1}, lb.Backend{Addr: at(2), Ejected: nevertheless}),
		unasked,
	})
	want := []lb.HealthNotice{{Policy: "shop/strict", Gateway: "shop/web", Group: "192.0.2.1:82/tcp",
		Why: "2 of 3 backends of 192.0.2.1:82/tcp fail, so that too few healthy ones are left, and all of them get new flows: timeout"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
