// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// Who has a listener where this host listens is told which, and what to do.
func TestHostListensIsSaid(t *testing.T) {
	fake := datapath.NewFake(datapath.Sizes{Addresses: 4, Frontends: 4, Backends: 4, RingSlots: 1 << 20, Flows: 4})
	w := writer.New(fake, writer.Options{Ticks: func() uint32 { return 9 }})
	key := lb.Key{Addr: netip.MustParseAddr("192.0.2.1"), Protocol: lb.TCP, Port: 22}
	if _, err := w.Apply(context.Background(), lb.State{
		Addresses: []lb.Address{{IP: key.Addr}},
		Frontends: []lb.Frontend{{Addr: key.Addr, Protocol: lb.TCP, Port: 22, Gateway: "default/edge", Listener: "git"},
			{Addr: key.Addr, Protocol: lb.TCP, Port: 80, Gateway: "default/edge", Listener: "web"}},
	}); err != nil {
		t.Fatal(err)
	}
	if lines, err := hostListens(w); len(lines) > 0 || err != nil {
		t.Errorf("lines %q (%v), want none", lines, err)
	}
	fake.SetHostListens(map[lb.Key]uint32{key: 9})
	want := []string{"Gateway default/edge, listener git: a socket of this host listens at 192.0.2.1:22/tcp, and gets its new connections. Stop it (ss -lntup names the process), or give the listener another port."}
	if lines, err := hostListens(w); !slices.Equal(lines, want) || err != nil {
		t.Errorf("lines %q (%v), want %q", lines, err, want)
	}
}
