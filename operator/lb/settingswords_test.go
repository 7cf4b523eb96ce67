// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// officeSources are those of policy default/office.
func officeSources(only bool, allow, deny string) SourceSet {
	read := func(text string) (all []netip.Prefix) {
		for _, one := range strings.Fields(text) {
			all = append(all, netip.MustParsePrefix(one))
		}
		return all
	}
	return SourceSet{Policy: "default/office", OnlyAllowed: only, Allow: read(allow), Deny: read(deny)}
}

// Whoever reads the log learns whom a policy refuses now, and who refuses everybody.
func TestPoliciesInWords(t *testing.T) {
	half := uint64(WeightUnit / 2)
	with := func(s Settings, sets ...SourceSet) *State {
		f := web(80, at(1, half), at(2, half))
		f.Settings = s
		state := stateOf(f)
		state.Sources = sets
		return state
	}
	by := func(all ...Restriction) Settings { return Settings{Restrictions: all} }
	none, office := with(Settings{}), Restriction{Policy: "default/office", Target: "Gateway/default/gw", Sources: true}
	limited := office
	limited.Limits = &Limits{Total: Limit{NewPerSecond: 5}}
	dry := office
	dry.DryRun = true
	set := officeSources(false, "", "10.0.0.0/8")
	for _, c := range []struct {
		name    string
		was, is *State
		want    string
	}{
		{"a new policy", none, with(by(office), set), "restricted by default/office instead of none at 192.0.2.10:80/tcp\nsources of policy default/office: deny +10.0.0.0/8"},
		{"the end of one", with(by(office), set), none, "restricted by none instead of default/office at 192.0.2.10:80/tcp\nno sources of policy default/office any more"},
		{"its networks", with(by(office), set), with(by(office), officeSources(true, "192.0.2.0/24", "2001:db8::/32")), "sources of policy default/office: allow +192.0.2.0/24, deny -10.0.0.0/8 +2001:db8::/32"},
		{"all others", with(by(office), set), with(by(office), officeSources(true, "", "10.0.0.0/8")), "sources of policy default/office: all others are refused"},
		{"limits", with(by(office), set), with(by(limited), set), "other restrictions by default/office at 192.0.2.10:80/tcp"},
		{"a dry run", with(by(office), set), with(by(dry), set), "restricted by default/office (dry run) instead of default/office at 192.0.2.10:80/tcp"},
		{"nobody is admitted", none, with(Settings{Refused: "policy default/office is invalid"}), "all new connections are refused: policy default/office is invalid at 192.0.2.10:80/tcp"},
		{"choices", none, with(Settings{MaxAge: time.Hour, Affinity: &Affinity{Bits4: 32}, DropNoBackend: true}), "maxAge 1h0m0s instead of none, affinity by policy, another overload.noBackend at 192.0.2.10:80/tcp"},
		{"no choices", with(Settings{MaxAge: time.Hour, Health: &Health{}}), none, "maxAge none instead of 1h0m0s, no health by policy any more at 192.0.2.10:80/tcp"},
	} {
		if got := textOf(c.was, c.is, 10, 5); got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, got, c.want)
		}
		if c := Diff(c.was, c.is); c.Empty() {
			t.Error("nothing has changed")
		}
	}
	var many []string
	for i := range 10_000 {
		many = append(many, fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255))
	}
	got := textOf(with(by(office), set), with(by(office), officeSources(false, "", strings.Join(many, " "))), 10, 5)
	if want := "sources of policy default/office: deny -10.0.0.0/8 +10.0.0.0/24 +10.0.1.0/24 +10.0.2.0/24 +10.0.3.0/24 and 9,996 more changes"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
