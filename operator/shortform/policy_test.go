// SPDX-License-Identifier: Apache-2.0

package shortform_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/shortform"
)

// Options after a --listen are what its frontend gets, and nothing is for the others.
func TestOptionsBecomePolicies(t *testing.T) {
	documents, err := shortform.Objects(flags(
		"--listen", "192.0.2.1:80,name=web,allow=10.0.0.0/8,deny=10.1.2.3,max-new=1000/s,max-new-per-source=50,affinity=3h,idle-timeout=30m,max-age=24h,health=http:/healthz",
		"--listen", "192.0.2.1:81", "--backend", "10.0.0.1"), "blixt")
	if err != nil {
		t.Fatal(err)
	}
	state := serve(t, parse(t, text(documents)))
	want := lb.Settings{
		Restrictions: []lb.Restriction{{Policy: "default/web", Target: "Gateway/default/web", Sources: true, Limits: &lb.Limits{
			PerSource: lb.Limit{NewPerSecond: 50, Burst: 50}, Bits4: 32, Bits6: 64, Total: lb.Limit{NewPerSecond: 1000, Burst: 1000},
		}}},
		Affinity: &lb.Affinity{Bits4: 32, Bits6: 64, Timeout: 3 * time.Hour}, MaxAge: 24 * time.Hour,
		Health: &lb.Health{Policy: "default/web", Panic: 50, Active: &lb.ActiveHealth{
			Type: "HTTP", Interval: 5 * time.Second, Timeout: 2 * time.Second, Rise: 2, Fall: 3, Path: "/healthz", Statuses: []lb.StatusRange{{First: 200, Last: 399}},
		}},
	}
	got := map[uint16]lb.Frontend{}
	for _, f := range state.Frontends {
		got[f.Port] = f
	}
	web := got[80]
	web.Affinity.Group = "" // any
	if diff := cmp.Diff(want, web.Settings); diff != "" || web.IdleTimeout != 30*time.Minute {
		t.Errorf("of web, idle after %v (-want +got):\n%s", web.IdleTimeout, diff)
	}
	if diff := cmp.Diff(lb.Settings{}, got[81].Settings); diff != "" {
		t.Errorf("of the other one (-want +got):\n%s", diff)
	}
	sets := []lb.SourceSet{{Policy: "default/web", OnlyAllowed: true, Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Deny: []netip.Prefix{netip.MustParsePrefix("10.1.2.3/32")}}}
	if diff := cmp.Diff(sets, state.Sources, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
}
