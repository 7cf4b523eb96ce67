// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/utils/ptr"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// A drained endpoint counts as one that is not ready, in every case there is, and in
// nothing else: but that it is known that it is drained, and that what its reference gets
// is not refused while another reference serves.
func TestDrainedEndpointIsAsOneThatIsNotReady(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	drained, moved := 0, 0
	for _, in := range inputs {
		c := readCase(t, in)
		translation := gateway.Translate(c.Objects, c.Options)
		by := &lb.Drained{By: "alice"}
		c.Resolve.Drained = lb.DrainedSet{}
		for i := range c.Slices {
			for j := 0; j < len(c.Slices[i].Endpoints); j += 2 {
				for _, text := range c.Slices[i].Endpoints[j].Addresses {
					if a, err := netip.ParseAddr(text); err == nil {
						c.Resolve.Drained[netip.AddrPortFrom(a, 0)] = by
					}
				}
			}
		}
		got := gateway.Resolve(&translation.Unresolved, gateway.IndexEndpoints(c.Slices, nil), c.Resolve)
		for i := range c.Slices {
			for j := range c.Slices[i].Endpoints {
				e := &c.Slices[i].Endpoints[j]
				for _, text := range e.Addresses {
					a, err := netip.ParseAddr(text)
					serves := ptr.Deref(e.Conditions.Ready, true) || ptr.Deref(e.Conditions.Serving, true)
					if err == nil && c.Resolve.Drained[netip.AddrPortFrom(a, 0)] != nil && serves {
						e.Conditions.Ready, e.Conditions.Serving, e.Conditions.Terminating = ptr.To(false), ptr.To(true), ptr.To(false)
					}
				}
			}
		}
		c.Resolve.Drained = nil
		want := gateway.Resolve(&translation.Unresolved, gateway.IndexEndpoints(c.Slices, nil), c.Resolve)
		for i, f := range got.State.Frontends {
			served := slices.ContainsFunc(f.Backends, func(b lb.Backend) bool { return b.Weight > 0 })
			if refused := want.State.Frontends[i].Reject; f.Reject > refused || f.Reject < refused && !served {
				t.Errorf("%s: %s refuses %d, and %d if endpoints are not ready; it serves: %v", in, f.Key(), f.Reject, refused, served)
			} else if f.Reject < refused {
				moved++
			}
			for _, b := range f.Backends {
				if b.Drained != nil {
					drained++
				}
				if b.Drained != nil && b.Weight > 0 {
					t.Errorf("%s: %s of %s is drained, and has a weight", in, b.Addr, f.Key())
				}
			}
		}
		if diff := cmp.Diff(want.State, got.State, exact, cmpopts.IgnoreFields(lb.Backend{}, "Drained"), cmpopts.IgnoreFields(lb.Frontend{}, "Reject")); diff != "" {
			t.Errorf("%s: not ready and drained differ (-not ready +drained):\n%s", in, diff)
		}
	}
	if drained < 10 || moved == 0 {
		t.Errorf("%d backends were drained in all, and %d frontends moved connections to another reference", drained, moved)
	}
}

func TestDrainedPort(t *testing.T) {
	set := lb.DrainedSet{netip.MustParseAddrPort("10.0.0.2:8080"): {}, netip.MustParseAddrPort("10.0.0.3:0"): {}}
	for at, want := range map[string]bool{"10.0.0.2:8080": true, "10.0.0.2:8081": false, "10.0.0.3:1": true, "[::ffff:10.0.0.3]:1": false, "10.0.0.4:8080": false} {
		if got := set.Of(netip.MustParseAddrPort(at)) != nil; got != want {
			t.Errorf("%s is drained: %v", at, got)
		}
	}
}
