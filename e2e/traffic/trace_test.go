// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
	"github.com/kubernetes-sigs/blixt/operator/node/top"
	"github.com/kubernetes-sigs/blixt/operator/node/trace"
)

// traceOf asks Blixt where a packet would go.
func traceOf(w *labtest.World, network, client, server string) trace.Result {
	w.Helper()
	out, err := w.Blixt.Run("trace", client, server+"/"+network, "-o", "json")
	if err != nil {
		w.Fatalf("%v: %s", err, out)
	}
	var r trace.Result
	w.Check(json.Unmarshal([]byte(out), &r))
	return r
}

// TestTraceForetells asks where a connection would go, opens it, and asks the server who
// it thinks it talks to; and asks again while the connection is open.
func TestTraceForetells(t *testing.T) {
	w := labtest.New(t, "trace", 2, 2)
	const nowhere = 1099
	config := labtest.ConfigOf(map[int][]lab.Endpoint{toRemote: lab.Endpoints(8080, w.Backends...), toPods: lab.On(w.Balancer.Name, lab.Endpoints(8080, w.Pods...)), nowhere: nil})
	w.StartBlixt(config, "eth0", "eth1")
	servers := map[string]string{}
	for _, n := range append(w.Backends, w.Pods...) {
		for _, e := range lab.Endpoints(8080, n) {
			servers[e.Addr] = n.Name
		}
	}
	for _, network := range []string{"tcp", "udp"} {
		for _, family := range []int{4, 6} {
			for _, port := range []int{toRemote, toRemote, toRemote, toPods, toPods} {
				vip, local := labtest.VIP(family, port), fmt.Sprintf(":%d", labtest.NewPort())
				client := net.JoinHostPort(map[int]string{4: lab.Client4, 6: lab.Client6}[family], local[1:])
				told := traceOf(w, network, client, vip)
				if told.Verdict != trace.Forwarded || told.Backend == nil || told.Flow != nil || told.Frontend == nil || told.Frontend.Route == "" {
					t.Fatalf("%s %s -> %s: %+v", network, client, vip, told)
				}
				seen := client
				if told.SNAT != nil {
					seen = netip.AddrPortFrom(told.SNAT.Address, told.SNAT.Port).String()
				}
				c, err := w.Client.Dial(network, local, vip, labtest.Patience)
				w.Check(err)
				t.Cleanup(func() { c.Close() })
				a := w.Ask(c, "who?")
				if want := servers[told.Backend.Address.String()]; a.Server != want || a.Client != seen {
					t.Errorf("%s %s -> %s reaches %s as %s, and was told to reach %s as %s", network, client, vip, a.Server, a.Client, want, seen)
				}
				if again := traceOf(w, network, client, vip); again.Flow == nil || again.Ended != "" || again.Backend == nil || again.Backend.ID != told.Backend.ID || again.Flow.State == "new" {
					t.Errorf("%s %s -> %s is open: %+v", network, client, vip, again)
				}
			}
			for port, counter := range map[int]string{nowhere: "reject_no_backend", 1098: "reject_unserved"} {
				client := net.JoinHostPort(map[int]string{4: lab.Client4, 6: lab.Client6}[family], "31999")
				if told := traceOf(w, network, client, labtest.VIP(family, port)); told.Verdict != trace.Rejected || told.Counter != counter {
					t.Errorf("%s to port %d: %+v", network, port, told)
				}
			}
		}
	}
	out, err := w.Blixt.Run("top", "-o", "json", "--interval", "500ms")
	w.Check(err)
	var v top.View
	w.Check(json.Unmarshal([]byte(out), &v))
	if len(v.Clients) != 2 || v.Clients[0].Flows != 10 || len(v.Frontends) == 0 || v.Frontends[0].Connections == nil || v.Seconds <= 0 {
		t.Errorf("20 flows of one client, with an address of each family: %s", out)
	}

	// Without the process, which was asked so far, the maps are read.
	w.Check(w.Blixt.Kill())
	if told := traceOf(w, "udp", net.JoinHostPort(lab.Client4, "31998"), labtest.VIP(4, toPods)); told.Verdict != trace.Forwarded || told.Way != "local" || told.Interface != "eth0" {
		t.Errorf("after the end of the process: %+v", told)
	}
}
