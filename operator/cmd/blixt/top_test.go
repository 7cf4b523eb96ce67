// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/node/top"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// looks returns reports of two nodes, of which the second is away at times.
func looks(away func(look int) bool) readReports {
	n := 0
	return func(context.Context) (map[string]top.Report, error) {
		n++
		r := top.Report{
			Status:  writer.Status{Frontends: []writer.FrontendStatus{{Frontend: "192.0.2.10:443/TCP", ActiveFlows: 5}}},
			Clients: []top.Client{{Client: netip.MustParseAddr("203.0.113.7"), Flows: 5}},
		}
		all := map[string]top.Report{"n1": r, "n2": r}
		if away(n) {
			delete(all, "n2")
			return all, &observe.NodesError{Reasons: map[string]string{"n2": "it is away"}}
		}
		return all, nil
	}
}

func TestTop(t *testing.T) {
	for name, test := range map[string]struct {
		o    topOptions
		away func(int) bool
		want string
		err  string
	}{
		"twice, then shown": {
			topOptions{kinds: topKinds, number: 10, output: "table"}, func(int) bool { return false },
			`FRONTEND            ROUTE  FLOWS  CONN/S  REJECTED/S  PACKETS/S IN  OUT  BYTES/S IN  OUT
192.0.2.10:443/TCP  -      10     0       0           0             0    0           0

CLIENT       FLOWS  OPENING
203.0.113.7  10     0
`, "",
		},
		"clients alone, of a node that answers": {
			topOptions{kinds: []string{"clients"}, number: 10, output: "table"}, func(int) bool { return true },
			`CLIENT       FLOWS  OPENING
203.0.113.7  5      0
`, "n2: it is away",
		},
		"a node that comes later has no rates yet": {
			topOptions{kinds: []string{"frontends"}, number: 10, output: "table"}, func(look int) bool { return look == 1 },
			`FRONTEND            ROUTE  FLOWS  CONN/S  REJECTED/S  PACKETS/S IN  OUT  BYTES/S IN  OUT
192.0.2.10:443/TCP  -      10     0       0           0             0    0           0

`, "",
		},
	} {
		test.o.interval = time.Millisecond
		var out strings.Builder
		err := test.o.show(t.Context(), &out, looks(test.away))
		if out.String() != test.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, out.String(), test.want)
		}
		if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %v, want %q", name, err, test.err)
		}
	}
}

// TestTopEnds when it is interrupted, and when nothing can be read.
func TestTopEnds(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	o := topOptions{kinds: topKinds, number: 10, output: "table", watch: true, interval: time.Millisecond}
	shown := 0
	read := looks(func(int) bool { return false })
	var out strings.Builder
	err := o.show(ctx, &out, func(ctx context.Context) (map[string]top.Report, error) {
		if shown++; shown == 3 {
			stop()
		}
		return read(ctx)
	})
	if err != nil || strings.Count(out.String(), "FRONTEND") != 3 {
		t.Errorf("%v after\n%s", err, out.String())
	}
	broken := errors.New("no maps")
	if err := o.show(t.Context(), &out, func(context.Context) (map[string]top.Report, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("%v, want %v", err, broken)
	}
}
