// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Whoever refuses everybody says so with the cause, in one line for all frontends.
func TestFrontendsThatRefuseEverybodyAreNamed(t *testing.T) {
	frontend := func(port uint16, refused string) lb.Frontend {
		return lb.Frontend{Addr: netip.MustParseAddr("192.0.2.10"), Protocol: lb.TCP, Port: port, Settings: lb.Settings{Refused: refused}}
	}
	s := &lb.State{Frontends: []lb.Frontend{frontend(80, "BlixtPolicy a/b is invalid."), frontend(81, ""), frontend(82, "BlixtPolicy a/b is invalid."), frontend(83, "another")}}
	want := []string{
		"all new connections to 192.0.2.10:80/tcp and 192.0.2.10:82/tcp are refused: BlixtPolicy a/b is invalid.",
		"all new connections to 192.0.2.10:83/tcp are refused: another",
	}
	if got := refusing(s); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
