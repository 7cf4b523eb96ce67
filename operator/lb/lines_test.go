// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// textOf returns the texts of lines.
func textOf(was, is *State, most, names int) string {
	c := Diff(was, is)
	var all []string
	for _, l := range c.Lines(most, names) {
		all = append(all, l.Text)
	}
	return strings.Join(all, "\n")
}

func TestChangesInWords(t *testing.T) {
	const half = WeightUnit / 2
	drained, draining := at(2, 0), at(3, 0)
	drained.Drained = &Drained{Since: time.Unix(1, 0), By: "alice"}
	two := stateOf(web(80, at(1, half), at(2, half)))
	other := web(80, at(1, half), at(2, half))
	other.IdleTimeout, other.Route = time.Minute, "TCPRoute/default/new"
	refuses := web(80)
	refuses.Reject = WeightUnit
	for _, c := range []struct {
		name    string
		was, is *State
		want    string
	}{
		{"nothing", two, two, ""},
		{"one for another", two, stateOf(web(80, at(1, half), at(3, half))), "+10.0.0.3:8080 -10.0.0.2:8080 of default/web at 192.0.2.10:80/tcp"},
		{"in several frontends", stateOf(web(80, at(1, half), at(2, half)), web(81, at(1, half), at(2, half))), stateOf(web(80, at(1, 2*half)), web(81, at(1, 2*half))), "-10.0.0.2:8080 of default/web at 192.0.2.10:80/tcp and 1 other frontend"},
		{"drained", two, stateOf(web(80, at(1, 2*half), drained)), "10.0.0.2:8080 drained by alice, of default/web at 192.0.2.10:80/tcp"},
		{"undrained", stateOf(web(80, at(1, 2*half), drained)), two, "10.0.0.2:8080 undrained, serving, of default/web at 192.0.2.10:80/tcp"},
		{"not ready", two, stateOf(web(80, at(1, 2*half), at(2, 0))), "10.0.0.2:8080 draining, of default/web at 192.0.2.10:80/tcp"},
		{"a new one that is not ready", two, stateOf(web(80, at(1, half), at(2, half), draining)), "+10.0.0.3:8080 (draining) of default/web at 192.0.2.10:80/tcp"},
		{"weights", two, stateOf(web(80, at(1, 3*half), at(2, 3*half))), "weight of default/web 3 instead of 1 at 192.0.2.10:80/tcp"},
		{"the last one", two, stateOf(refuses), "weight of refused connections 1 instead of 0 at 192.0.2.10:80/tcp\n-10.0.0.1:8080 -10.0.0.2:8080 of default/web, weight 0 instead of 1 at 192.0.2.10:80/tcp"},
		{"another route", two, stateOf(other), "route TCPRoute/default/new instead of none at 192.0.2.10:80/tcp"},
		{"frontends", stateOf(web(80), web(81)), stateOf(web(81), web(82), web(83)), "-192.0.2.10:80/tcp of default/web\n+192.0.2.10:82/tcp +192.0.2.10:83/tcp of default/web"},
	} {
		if got := textOf(c.was, c.is, 10, 5); got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

// However much changes, the lines are few and short; and all of it can be had.
func TestLinesAreBounded(t *testing.T) {
	var was, is State
	for port := range uint16(4000) {
		was.Frontends = append(was.Frontends, web(port+1, at(1, 1)))
		is.Frontends = append(is.Frontends, web(port+2, at(byte(port%200), 1), at(byte(200+port%50), 1)))
	}
	c := Diff(&was, &is)
	lines := c.Lines(8, 5)
	if len(lines) != 8 || !strings.Contains(lines[7].Text, " changes more, of ") {
		t.Errorf("%d lines, the last is %+v", len(lines), lines[len(lines)-1])
	}
	frontends := 0
	for _, l := range lines {
		frontends += l.Frontends
		if len(l.Text) > 300 || len(l.Added)+len(l.Removed)+len(l.States)+len(l.Examples) > 4*5 {
			t.Errorf("%d bytes: %s", len(l.Text), l.Text)
		}
	}
	if frontends != 4001 {
		t.Errorf("the lines are of %d frontends", frontends)
	}
	one := stateOf(web(80))
	for host := range byte(250) {
		one.Frontends[0].Backends = append(one.Frontends[0].Backends, at(host, 1))
	}
	if text := textOf(stateOf(web(80)), one, 8, 3); !strings.HasPrefix(text, "+10.0.0.0:8080 +10.0.0.1:8080 +10.0.0.2:8080 +and 247 more of default/web") {
		t.Error(text)
	}
	all := textOf(&was, &is, 0, 0)
	for _, f := range slices.Concat(c.Added, c.Removed) {
		if !strings.Contains(all, f.Key().String()) {
			t.Errorf("%s is missing", f.Key())
		}
	}
	if n := strings.Count(textOf(stateOf(web(80)), one, 0, 0), "+"); n != 250 {
		t.Errorf("%d of 250 backends", n)
	}
}

func BenchmarkLines(b *testing.B) {
	var was, is State
	for port := range uint16(4000) {
		was.Frontends = append(was.Frontends, web(port+1, at(1, 1), at(2, 1)))
		is.Frontends = append(is.Frontends, web(port+1, at(1, 1), at(byte(3+port%100), 1)))
	}
	for b.Loop() {
		c := Diff(&was, &is)
		if n := len(c.Lines(8, 5)); n != 8 {
			b.Fatal(fmt.Sprint(n))
		}
	}
}
