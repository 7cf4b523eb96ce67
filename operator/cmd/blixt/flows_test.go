// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// noon is a Saturday in a zone that is ahead of UTC.
var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.FixedZone("", 3600))

func TestTimesAreParsed(t *testing.T) {
	for text, want := range map[string]string{
		"":                          "0001-01-01T00:00:00Z 0s",
		"09:12":                     "2026-11-28T09:12:00+01:00 1m0s",
		"23:12":                     "2026-11-27T23:12:00+01:00 1m0s", // yesterday
		"09:12:03":                  "2026-11-28T09:12:03+01:00 1s",
		"2026-11-01 09:12":          "2026-11-01T09:12:00+01:00 1m0s",
		"2026-11-01 09:12:03":       "2026-11-01T09:12:03+01:00 1s",
		"2026-11-01T09:12:03Z":      "2026-11-01T09:12:03Z 1s",
		"2026-11-01T09:12:03+02:00": "2026-11-01T09:12:03+02:00 1s",
		"2026-11-01":                "2026-11-01T00:00:00+01:00 24h0m0s",
		"10m":                       "2026-11-28T11:50:00+01:00 1s",
	} {
		got, width, err := parseTime("--at", text, noon)
		if s := got.Format(time.RFC3339) + " " + width.String(); err != nil || s != want {
			t.Errorf("%q: %s, %v, want %s", text, s, err, want)
		}
	}
	for _, bad := range []string{"noon", "25:00", "-10m", "9", "2026-13-01", "09:12:60"} {
		if got, _, err := parseTime("--at", bad, noon); err == nil || !strings.Contains(err.Error(), "--at") {
			t.Errorf("%q: %s, %v", bad, got, err)
		}
	}
}

func TestFlagsMakeQuestions(t *testing.T) {
	q, err := (&flowsFlags{at: "09:12", open: true, last: -1}).query([]string{"10.0.0.5:14211"}, noon)
	text, _ := json.Marshal(q)
	const want = `{"filter":{"since":"2026-11-28T09:12:00+01:00","until":"2026-11-28T09:12:59.999999999+01:00","ends":["10.0.0.5:14211"]},"last":1000,"open":true}`
	if err != nil || string(text) != want {
		t.Errorf("%s, %v, want\n%s", text, err, want)
	}
	for name, bad := range map[string]flowsFlags{
		"--client":                  {clients: []string{"web"}},
		"--snat":                    {snats: []string{"10.0.0.5:0x1"}},
		"--event":                   {events: []string{"established"}},
		"--until is before --since": {since: "11:00", until: "10:00"},
		"--since":                   {since: "soon"},
	} {
		if _, err := bad.query(nil, noon); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// pieces is an Asker that answers with these, each as node and JSON, and fails at the end.
type pieces struct {
	all  [][2]string
	fail error
}

func (p pieces) Ask(_ context.Context, _ observe.Query, got func(string, json.RawMessage) error) error {
	for _, it := range p.all {
		if err := got(it[0], json.RawMessage(it[1])); err != nil {
			return err
		}
	}
	return p.fail
}

// The answers of two nodes, of which n2 has a flow that ends meanwhile, and hostile names.
var answers = pieces{all: [][2]string{
	{"n2", `{"memory":{"recording":"all","began":"2026-11-28T08:00:00Z","flows":{"records":65536,"since":"2026-11-28T09:00:00Z"},"attempts":{"records":3},"packets":{"records":1},"lost":{"ring":1200}}}`},
	{"n2", `{"v":1,"event":"end","node":"n2","seq":7,"time":"2026-11-28T09:12:03Z","protocol":"tcp","reason":"fin","endedBy":"client","client":{"address":"198.51.100.7","port":40000},"server":{"address":"192.0.2.10","port":443},"snat":{"address":"10.0.0.5","port":14211},"backend":{"address":"10.1.3.9","port":8443},"gateway":"prod/edge","listener":"tls","route":"TCPRoute/prod/web","service":"prod/web","start":"2026-11-28T09:11:58Z","connect":0.0009,"rtt":0.0213,"duration":5,"in":{"packets":14,"bytes":1830},"out":{"packets":19,"bytes":22110}}`},
	{"n1", `{"memory":{"recording":"off","began":"2026-11-28T08:00:00Z","flows":{"records":0},"attempts":{"records":0},"packets":{"records":0}}}`},
	{"n1", `{"v":1,"event":"open","time":"2026-11-28T09:12:01Z","protocol":"tcp","client":{"address":"2001:db8::7","port":40001},"server":{"address":"2001:db8:f::1","port":443},"backend":{"address":"2001:db8:1::9","port":8443},"gateway":"prod/edge\u001b[2J","listener":"tls","later":{"is":"ignored"}}`},
	{"n2", `{"v":1,"event":"open","node":"n2","time":"2026-11-28T09:12:02Z","protocol":"tcp","client":{"address":"198.51.100.7","port":40000},"server":{"address":"192.0.2.10","port":443},"start":"2026-11-28T09:11:58Z"}`},
	{"n2", `{"v":1,"event":"dropped","node":"n2","seq":9,"time":"2026-11-28T09:12:02Z","protocol":"icmpv6","reason":"drop_no_route","client":{"address":"2001:db8::1"},"server":{"address":"2001:db8::80"},"interface":"if7","sampled":12,"packet":"60000001"}`},
}}

func TestFlowsAreShown(t *testing.T) {
	var all bytes.Buffer
	for _, it := range []struct {
		heading string
		q       observe.FlowsQuery
		json    bool
	}{
		{"table", observe.FlowsQuery{}, false}, {"json", observe.FlowsQuery{}, true}, {"follow", observe.FlowsQuery{Follow: true}, false},
	} {
		var out, notes bytes.Buffer
		if err := showFlows(context.Background(), answers, it.q, flowsOutput{&out, &notes, it.json, time.UTC}); err != nil {
			t.Fatal(err)
		}
		all.WriteString("-- " + it.heading + " --\n" + out.String() + "-- " + it.heading + ", standard error --\n" + notes.String())
	}
	golden.File(t, "testdata/flows.txt", all.Bytes())
}

// TestFlowsOfOthersAreShown: a node that fails does not hide what the others tell.
func TestFlowsOfOthersAreShown(t *testing.T) {
	var out, notes bytes.Buffer
	failed := errors.New("n3: no agent is connected")
	a := answers
	a.fail = failed
	if err := showFlows(context.Background(), a, observe.FlowsQuery{}, flowsOutput{&out, &notes, false, time.UTC}); !errors.Is(err, failed) {
		t.Errorf("the error is %v", err)
	}
	if n := strings.Count(out.String(), "\n"); n != 3 {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
	if err := showFlows(context.Background(), pieces{all: [][2]string{{"n1", `[]`}}}, observe.FlowsQuery{}, flowsOutput{&out, &notes, false, time.UTC}); err == nil || !strings.Contains(err.Error(), "node n1") {
		t.Errorf("a piece that is no record: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := showFlows(ctx, pieces{fail: ctx.Err()}, observe.FlowsQuery{Follow: true}, flowsOutput{&out, &notes, false, time.UTC}); err != nil {
		t.Errorf("an interrupt while following is an error: %v", err)
	}
}

// What counters mean is said without anything that runs.
func TestCountersAreExplained(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		want []string
	}{
		{nil, 0, []string{"reject_no_backend\n  What:  ", "\n\ndrop_no_route\n  What:  ", "\n  Bad?   Yes: packets of clients"}},
		{[]string{"drop_no_route"}, 0, []string{"drop_no_route\n  What:  no route leads on", "  Cure:  On the node: ip route get ADDRESS"}},
		{[]string{"host_l*"}, 0, []string{"host_listens\n  Counts:  Passed on unchanged: a process", "  If many: That process serves"}},
		{[]string{"drop_no_rote"}, 1, []string{`no counter "drop_no_rote": the counters are reject_no_backend, `, ", not_ours, "}},
	} {
		out, code := runBlixt(t, append([]string{"drops", "--explain"}, c.args...)...)
		if code != c.code {
			t.Errorf("%v: exit code %d, want %d", c.args, code, c.code)
		}
		for _, part := range c.want {
			if !strings.Contains(out, part) {
				t.Errorf("%v: got\n%s\nwant %q in it", c.args, out, part)
			}
		}
		if len(c.args) == 1 && c.code == 0 && strings.Count(out, "\n\n") > 0 {
			t.Errorf("%v: got more than one:\n%s", c.args, out)
		}
	}
}

func TestDropsAreShown(t *testing.T) {
	const last = `"last":[{"v":1,"event":"dropped","time":"2026-11-28T09:12:02Z","protocol":"icmpv6","reason":"drop_no_route","client":{"address":"2001:db8::1"},"server":{"address":"2001:db8::80"},"interface":"if7","sampled":12,"packet":"60000001"}]`
	a := pieces{all: [][2]string{
		{"n1", `{"reason":"reject_unserved","packets":7}`},
		{"n2", `{"reason":"drop_no_route","packets":1200,` + last + `,"leftOut":5}`},
		{"n1", `{"reason":"drop_no_route","packets":34,` + strings.ReplaceAll(last, "09:12:02", "09:12:01") + `}`},
		{"n1", `{"reason":"drop_of_a_later_version","packets":1}`},
	}}
	all, err := askDrops(context.Background(), a, observe.DropsQuery{})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	dropsTable(&out, all, time.UTC)
	out.WriteString("--\n")
	dropsTable(&out, nil, time.UTC)
	golden.File(t, "testdata/drops.txt", out.Bytes())
}

func TestFlowLogOfNoUse(t *testing.T) {
	for _, bad := range []flowLines{{path: "/dev/null", size: 1}, {path: t.TempDir(), size: 1}, {path: "x", size: 0}, {path: "x", size: 1, files: -1}} {
		if w, err := bad.open(nil); err == nil || !strings.Contains(err.Error(), "--flow-log") {
			t.Errorf("%+v: %v, %v", bad, w, err)
		}
	}
}
