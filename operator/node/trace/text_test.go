// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/observe"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// TestText prints results of each kind.
func TestText(t *testing.T) {
	snat := &observe.Endpoint{Address: netip.MustParseAddr("10.1.0.1"), Port: 30034}
	for want, r := range map[string]*Result{
		`PACKET    tcp 203.0.113.7:40000 -> 192.0.2.10:443, seen at ingress of eth0
ADDRESS   served by Blixt alone
FRONTEND  index 7, Gateway prod/edge, listener tls, TCPRoute/prod/web
FLOW      none: this client is new
RING      slot 10 of 33
BACKEND   10.1.3.9:8443, id 17, generation 3, Service prod/web
WAY       remote: to another host, past the stack, with a source of this host
SNAT      source becomes 10.1.0.1:30034; the backend's node is told the client, and undoes it
NEXT HOP  10.1.0.2 by eth1, MTU 1450, hardware address not known yet
VERDICT   FORWARDED: a new flow begins (forwarded)
`: {
			Client: ap("203.0.113.7:40000"), Server: ap("192.0.2.10:443"), Protocol: "tcp", Interface: "eth0", Hook: "ingress",
			Address: &Address{Exclusive: true}, Frontend: &Frontend{7, "prod/edge", "tls", "TCPRoute/prod/web"}, Ring: &Ring{33, 10, 17},
			Backend: &Backend{ID: 17, Address: ap("10.1.3.9:8443"), Generation: 3, Service: "prod/web"}, Way: "remote", SNAT: snat, Announced: true,
			NextHop: &Hop{"eth1", netip.MustParseAddr("10.1.0.2"), 1450, true}, Verdict: Forwarded, Counter: "forwarded", Why: "a new flow begins",
		},
		`PACKET    udp [2001:db8::7]:5353 -> [2001:db8:f::1]:53, seen at ingress
ADDRESS   shared with the host
FRONTEND  index 3, Gateway evil\nVERDICT
FLOW      answered, in udp_flows, to backend 4, with source 10.1.0.1:30034, client silent for 3s
          over: its backend is gone
VERDICT   REJECTED: the frontend has no backend (reject_no_backend)
CURE      blixt status names the frontend. Look at ResolvedRefs of the route, and at the EndpointSlices of its Services.
NOTE      The routes are not known here.
`: {
			Client: ap("[2001:db8::7]:5353"), Server: ap("[2001:db8:f::1]:53"), Protocol: "udp", Hook: "ingress",
			Address: &Address{}, Frontend: &Frontend{Index: 3, Gateway: "evil\nVERDICT"}, Flow: &Flow{"udp_flows", "answered", 4, snat, 3.2}, Ended: "its backend is gone",
			Ring: &Ring{}, Verdict: Rejected, Counter: "reject_no_backend", Why: "the frontend has no backend", Notes: []string{"The routes are not known here."},
		},
	} {
		var out strings.Builder
		if err := r.Text(&out); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("\n%s\nwant\n%s", out.String(), want)
		}
	}
}

// TestNumbersAreThePrograms compares limits.go with the source of the program.
func TestNumbersAreThePrograms(t *testing.T) {
	seconds := func(n int) string { return fmt.Sprintf(`SECONDS_TO_TICKS\(%d\)`, n) }
	for name, want := range map[string]string{
		"HOST_TCP_TICKS": seconds(7440), "HOST_TICKS": seconds(120), "TIME_WAIT_TICKS": seconds(60), "HANDSHAKE_TICKS": seconds(10), "QUIET_TICKS": seconds(37),
		"PROVEN_TICKS": seconds(60), "FLOOD_TICKS": seconds(10), "SILENT_TICKS": seconds(3), "SILENCE_FORGOTTEN_TICKS": seconds(10),
		"PORT_TRIES": fmt.Sprint(portTries), "FREE_PORT_TRIES": fmt.Sprint(freePortTries), "PRIVILEGED_MIN": fmt.Sprint(privilegedMin), "PRIVILEGED_END": fmt.Sprint(privilegedEnd),
		"PRIVILEGED_SPREAD": `\(\(65535 - PRIVILEGED_END\) / \(PRIVILEGED_END - PRIVILEGED_MIN\)\)`, "SCAN_LIMIT": fmt.Sprint(scanLimit), "IPV6_MIN_MTU": fmt.Sprint(ipv6MinMTU),
		"TAIL_LEN": `\(2 \+ MESSAGE_LEN\)`, "LOOPBACK_IFINDEX": fmt.Sprint(loopback),
	} {
		found := false
		for _, file := range []string{"limits.h", "announcement.h", "route.h"} {
			text, err := os.ReadFile("../../../bpf/" + file)
			if err != nil {
				t.Fatal(err)
			}
			found = found || regexp.MustCompile(`(?m)^#define `+name+` `+want+`$`).Match(text)
		}
		if !found {
			t.Errorf("no header says %s %s", name, want)
		}
	}
	for got, want := range map[int]int{hostTCPTicks: 6929, hostTicks: 111, timeWaitTicks: 55, handshakeTicks: 9, quietTicks: 34, silentTicks: 2} {
		if got != want {
			t.Errorf("%d ticks, want %d", got, want)
		}
	}
}

// TestQueriesThatNobodyCanTrace are refused.
func TestQueriesThatNobodyCanTrace(t *testing.T) {
	good := observe.TraceQuery{Client: ap("203.0.113.7:40000"), Server: ap("192.0.2.10:443"), Protocol: "tcp"}
	for name, change := range map[string]func(*observe.TraceQuery){
		"another protocol": func(q *observe.TraceQuery) { q.Protocol = "sctp" },
		"two families":     func(q *observe.TraceQuery) { q.Server = ap("[2001:db8::1]:443") },
		"no client":        func(q *observe.TraceQuery) { q.Client = netip.AddrPort{} },
		"a mapped address": func(q *observe.TraceQuery) {
			q.Client, q.Server = ap("[::ffff:203.0.113.7]:1"), ap("[::ffff:192.0.2.10]:443")
		},
		"a zone":                 func(q *observe.TraceQuery) { q.Client, q.Server = ap("[fe80::1%eth0]:1"), ap("[2001:db8::1]:443") },
		"a negative size":        func(q *observe.TraceQuery) { q.Bytes = -1 },
		"more than a packet has": func(q *observe.TraceQuery) { q.Bytes = 65536 },
	} {
		q := good
		change(&q)
		if err := (&tracer{r: &Result{Client: q.Client, Server: q.Server}}).accept(q); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
