// SPDX-License-Identifier: Apache-2.0

package nginx_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/migrate/nginx"
)

// The lists admit and refuse exactly whom nginx does, which takes the first rule that matches:
// for rules and clients by chance, of few networks, so that they are in each other.
func TestLongestMatchIsFirstMatch(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	network := func() netip.Prefix {
		if random.IntN(4) == 0 {
			a := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(random.IntN(4)) << 6})
			return netip.PrefixFrom(a, []int{0, 32, 33, 34, 128}[random.IntN(5)]).Masked()
		}
		a := netip.AddrFrom4([4]byte{10, byte(random.IntN(4)) << 6, byte(random.IntN(2)), byte(random.IntN(2))})
		return netip.PrefixFrom(a, []int{0, 8, 9, 10, 16, 24, 32}[random.IntN(7)]).Masked()
	}
	for range 3000 {
		var b strings.Builder
		type rule struct {
			allow bool
			from  netip.Prefix
		}
		var rules []rule
		for range random.IntN(7) {
			r := rule{random.IntN(2) == 0, network()}
			rules = append(rules, r)
			fmt.Fprintf(&b, "%s %s; ", map[bool]string{true: "allow", false: "deny"}[r.allow], r.from)
		}
		plan := nginx.Read(one("stream { server { listen 192.0.2.10:80; proxy_pass 10.0.0.1:80; " + b.String() + "} }"))
		sources := plan.Frontends[0].Policy.Sources
		for range 50 {
			client := network().Addr()
			want := true
			for _, r := range rules {
				if r.from.Contains(client) {
					want = r.allow
					break
				}
			}
			if got := admits(sources, client); got != want {
				t.Fatalf("%s: admits %s: %t, want %t: %+v", b.String(), client, got, want, sources)
			}
		}
	}
}

// admits does what a BlixtPolicy says of sources: the longest match counts, of equal ones deny,
// and with allow all others are refused.
func admits(s *v1alpha1.PolicySources, client netip.Addr) bool {
	if s == nil {
		return true
	}
	longest, admitted := -1, len(s.Allow) == 0
	match := func(networks []string, allow bool) {
		for _, n := range networks {
			if p := netip.MustParsePrefix(n); p.Contains(client) && p.Bits() >= longest {
				longest, admitted = p.Bits(), allow
			}
		}
	}
	match(s.Allow, true)
	match(s.Deny, false)
	return admitted
}
