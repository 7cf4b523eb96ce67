// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/node/top"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// servedOf returns what serves backends, "ADDRESS SERVICE STATE", each in all frontends.
func servedOf(frontends int, backends ...string) served {
	s := &writer.Status{}
	for i := range frontends {
		f := writer.FrontendStatus{Frontend: fmt.Sprintf("192.0.2.1:%d/tcp", 80+i), Gateway: "default/web"}
		for _, b := range backends {
			w := strings.Fields(b)
			f.Backends = append(f.Backends, writer.BackendStatus{Address: w[0], Service: w[1], State: w[2], ActiveFlows: 3})
		}
		s.Frontends = append(s.Frontends, f)
	}
	return served{s, true}
}

func TestDrainArguments(t *testing.T) {
	s := servedOf(2, "10.0.0.1:8080 a serving", "10.0.0.2:8080 a serving", "10.0.0.2:8081 b serving", "[2001:db8::2]:8080 a serving")
	for _, c := range []struct {
		args string
		want string // addresses, or words of an error
	}{
		{"10.0.0.2", "10.0.0.2"},
		{"10.0.0.2:8080", "10.0.0.2:8080"},
		{"::ffff:10.0.0.2", "10.0.0.2"},
		{"[::ffff:10.0.0.2]:8080", "10.0.0.2:8080"},
		{"[2001:db8::2]:8080 2001:db8::2", "2001:db8::2"},
		{"10.0.0.2:8080 10.0.0.2 10.0.0.2:8081", "10.0.0.2"},
		{"10.0.0.0/8", "10.0.0.1:8080 10.0.0.2:8080 10.0.0.2:8081"},
		{"10.0.0.3", "10.0.0.3 is no backend. Backends are 10.0.0.1:8080, 10.0.0.2:8080, 10.0.0.2:8081 and 1 more (blixt backends); --force notes it nevertheless"},
		{"10.0.0.2:80", "10.0.0.2:80 is no backend. Backends are 10.0.0.2:8080, 10.0.0.2:8081, 10.0.0.1:8080 and 1 more (blixt backends); --force notes it nevertheless"},
		{"10.0.0.2 web", `"web": want an address`},
		{":8080", `":8080": want an address`},
		{"10.0.0.2:0", `"10.0.0.2:0": want`},
		{"10.0.0.2:65536", `"10.0.0.2:65536": want`},
		{"fe80::1%eth0", "can be no backend"},
		{"0.0.0.0", "can be no backend"},
		{"", `"": want an address`},
		{"11.0.0.0/8", "no backend is in 11.0.0.0/8"},
	} {
		all, err := s.targets(strings.Split(c.args, " "), false)
		var names []string
		for _, at := range all {
			names = append(names, standalone.DrainedName(at))
		}
		got := strings.Join(names, " ")
		if err != nil {
			got = err.Error()
		}
		if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
			t.Errorf("%q: got %s want %s", c.args, got, c.want)
		}
	}
	if all, err := s.targets([]string{"10.0.0.3"}, true); err != nil || len(all) != 1 {
		t.Errorf("with --force: %v, %v", all, err)
	}
}

func TestLastBackendIsFound(t *testing.T) {
	at := netip.MustParseAddrPort
	one, two := at("10.0.0.1:8080"), at("10.0.0.2:8080")
	for _, c := range []struct {
		name    string
		s       served
		set     lb.DrainedSet
		targets []netip.AddrPort
		want    string
	}{
		{"one of two", servedOf(1, "10.0.0.1:8080 a serving", "10.0.0.2:8080 a serving"), nil, []netip.AddrPort{one}, ""},
		{"both", servedOf(1, "10.0.0.1:8080 a serving", "10.0.0.2:8080 a serving"), nil, []netip.AddrPort{one, two}, "10.0.0.1:8080 and 10.0.0.2:8080 would be the last of 192.0.2.1:80/tcp"},
		{"the other one is drained, which is not in force yet", servedOf(1, "10.0.0.1:8080 a serving", "10.0.0.2:8080 a serving"), lb.DrainedSet{two: {}}, []netip.AddrPort{one}, "10.0.0.1:8080 would be the last of 192.0.2.1:80/tcp"},
		{"the other one is not ready", servedOf(2, "10.0.0.1:8080 a serving", "10.0.0.2:8080 a draining"), nil, []netip.AddrPort{one}, "10.0.0.1:8080 would be the last of 192.0.2.1:80/tcp and 192.0.2.1:81/tcp"},
		{"one that is not ready", servedOf(1, "10.0.0.1:8080 a draining"), nil, []netip.AddrPort{one}, ""},
		{"again", servedOf(1, "10.0.0.1:8080 a serving"), lb.DrainedSet{one: {}}, []netip.AddrPort{one}, ""},
		{"the last of its Service, and another one of the route serves", servedOf(1, "10.0.0.1:8080 a serving", "10.0.0.2:8080 b serving"), nil, []netip.AddrPort{netip.AddrPortFrom(one.Addr(), 0)}, ""},
		{"nothing serves", served{}, nil, []netip.AddrPort{one}, ""},
	} {
		if c.set == nil {
			c.set = lb.DrainedSet{}
		}
		if got := strings.Join(c.s.last(c.set, c.targets), "; "); got != c.want {
			t.Errorf("%s: got %q want %q", c.name, got, c.want)
		}
	}
}

func TestUndrainArguments(t *testing.T) {
	at := netip.MustParseAddrPort
	set := lb.DrainedSet{at("10.0.0.1:0"): {}, at("10.0.0.2:8080"): {}, at("10.0.0.2:8081"): {}}
	for args, want := range map[string]string{
		"":                  "10.0.0.1 10.0.0.2:8080 10.0.0.2:8081",
		"10.0.0.2":          "10.0.0.2:8080 10.0.0.2:8081",
		"10.0.0.2:8081":     "10.0.0.2:8081",
		"10.0.0.0/24":       "10.0.0.1 10.0.0.2:8080 10.0.0.2:8081",
		"::ffff:10.0.0.1":   "10.0.0.1",
		"10.0.0.1:80":       "10.0.0.1:80 is drained with all ports of its address: blixt undrain 10.0.0.1",
		"10.0.0.2:80":       "10.0.0.2:80 is not drained, but 10.0.0.1, 10.0.0.2:8080 and 10.0.0.2:8081",
		"10.0.0.1 10.0.0.9": "10.0.0.9 is not drained, but 10.0.0.1, 10.0.0.2:8080 and 10.0.0.2:8081",
	} {
		all, err := drainedBy(set, strings.Fields(args))
		var names []string
		for _, a := range all {
			names = append(names, standalone.DrainedName(a))
		}
		got := strings.Join(names, " ")
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: got %s want %s", args, got, want)
		}
	}
}

// runDrain runs a command on a host where nothing runs.
func runDrain(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	c := command()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(append(args, "--run-dir", dir, "--bpffs", filepath.Join(dir, "none"), "--name", "nobody"))
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func TestDrainWhereNothingRuns(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SUDO_USER", "al\x1bice\u202e\n")
	if _, err := runDrain(t, dir, "drain", "10.0.0.2"); err == nil || !strings.Contains(err.Error(), "no load balancer nobody serves on this host") || !strings.Contains(err.Error(), "kubectl drain") {
		t.Errorf("without --force: %v", err)
	}
	out, err := runDrain(t, dir, "drain", "10.0.0.2", "--force")
	if err != nil || !strings.HasPrefix(out, `10.0.0.2 is drained by al\u001bice\u202e\n since `) || !strings.Contains(out, "takes effect with the next blixt run") {
		t.Errorf("%v: %s", err, out)
	}
	set, err := standalone.ReadDrained(standalone.DrainedFile(dir, "nobody"))
	if d := set.Of(netip.MustParseAddrPort("10.0.0.2:1")); err != nil || d == nil || time.Since(d.Since) > time.Minute {
		t.Errorf("%v, %v", set, err)
	}
	// Who drains again does not change since when it is.
	was := *set.Of(netip.MustParseAddrPort("10.0.0.2:1"))
	if _, err := runDrain(t, dir, "drain", "10.0.0.2", "10.0.0.3", "--force"); err != nil {
		t.Error(err)
	}
	set, _ = standalone.ReadDrained(standalone.DrainedFile(dir, "nobody"))
	if d := set.Of(netip.MustParseAddrPort("10.0.0.2:1")); d == nil || *d != was || len(set) != 2 {
		t.Errorf("%v", set)
	}
	if _, err := runDrain(t, dir, "undrain", "--all"); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("%v are left: %v", entries, err)
	}
	for _, args := range [][]string{{"undrain"}, {"undrain", "--all", "10.0.0.2"}, {"drain", "--wait"}, {"drain", "10.0.0.2", "--timeout", "1s"}} {
		if _, err := runDrain(t, dir, args...); err == nil {
			t.Errorf("%v is no error", args)
		}
	}
}

func TestBackendsOfSeveralNodes(t *testing.T) {
	report := func(state string, flows uint64, drained *lb.Drained) top.Report {
		return top.Report{Status: writer.Status{Frontends: []writer.FrontendStatus{{
			Frontend: "192.0.2.1:80/tcp", Gateway: "a/web", Route: "TCPRoute/a/web", Backends: []writer.BackendStatus{
				{Address: "10.0.0.10:80", ID: 1, Service: "a/web", State: state, Weight: 1, RingShare: 0.5, NewFlows: flows, ActiveFlows: 2, Drained: drained},
				{Address: "10.0.0.9:80", ID: 2, Service: "a/web", State: "serving", Weight: 1, RingShare: 0.5, NewFlows: flows, ActiveFlows: 1},
			},
		}}}}
	}
	o := backendsOptions{}
	begin := time.Unix(100, 0)
	was := map[string]top.Sample{"n1": {Time: begin, Report: report("serving", 10, nil)}}
	now := map[string]top.Report{"n1": report("serving", 30, nil), "n2": report("draining", 70, nil)}
	rows := o.rows(was, now, begin.Add(10*time.Second))
	if len(rows) != 2 || rows[0].Address != "10.0.0.9:80" {
		t.Fatalf("%+v", rows)
	}
	r := rows[1]
	if r.State != "serving" || r.ActiveFlows != 4 || r.NewFlows != 100 || r.Connections == nil || *r.Connections != 2 || r.Seen != 0.5 || r.Wanted != 0.5 || r.Frontends[0].Nodes != 2 {
		t.Errorf("%+v", r)
	}
	for _, c := range []struct {
		o    backendsOptions
		want int
	}{
		{backendsOptions{services: []string{"web"}}, 2}, {backendsOptions{services: []string{"a/web"}}, 2}, {backendsOptions{services: []string{"b/web", "eb", ""}}, 0},
		{backendsOptions{gateways: []string{"a/web"}}, 2}, {backendsOptions{gateways: []string{"x"}}, 0}, {backendsOptions{drained: true}, 0},
		{backendsOptions{addresses: []observe.Match{match(t, "10.0.0.9")}}, 1}, {backendsOptions{addresses: []observe.Match{match(t, ":80")}}, 2}, {backendsOptions{addresses: []observe.Match{match(t, "10.0.0.9:81")}}, 0},
	} {
		if rows := c.o.rows(nil, now, begin); len(rows) != c.want {
			t.Errorf("%+v: %d rows", c.o, len(rows))
		}
	}
	var out bytes.Buffer
	o.table(&out, o.rows(nil, map[string]top.Report{"": report("draining", 0, &lb.Drained{Since: begin, By: "alice"})}, begin))
	want := []string{"10.0.0.9:80", "a/web", "192.0.2.1:80/tcp", "serving", "1", "50.0%", "0.0%", "1", "0", "-"}
	if lines := strings.Split(out.String(), "\n"); !slices.Equal(strings.Fields(lines[1]), want) || strings.Fields(lines[2])[3] != "drained" {
		t.Errorf("%s", out.String())
	}
}

func match(t *testing.T, text string) observe.Match {
	t.Helper()
	m, err := observe.ParseMatch(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
