// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/overview"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// wellInstance is a load balancer with which all is well.
func wellInstance(name string, pid int) overview.Instance {
	return overview.Instance{
		Name: name, Process: &overview.Process{PID: pid, State: "S"},
		Says: &standalone.ProcessStatus{PID: pid, Version: "v1", Started: time.Date(2026, 11, 23, 12, 0, 0, 0, time.Local), Files: []string{"/etc/blixt"}, Serves: true},
		Program: &overview.Program{
			ID: 21, Loader: "builtin", Interfaces: []string{"eth0", "lo"}, Frontends: 3, Backends: 12, Flows: 4711, Tables: map[string]lb.Use{"flows": {Used: 4000, Size: 262144}},
			Rates: &overview.Rates{Seconds: 1, NewFlows: 12.5, BytesIn: 1234567, BytesOut: 98765432},
		},
	}
}

// What people see on a host, in each state that it can be in.
func TestOverviewOfAHost(t *testing.T) {
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.Local)
	problem := func(level slog.Level, about, message string) standalone.Problem {
		return standalone.Problem{Level: level, About: about, Since: at, Message: message}
	}
	for name, change := range map[string]func(*overview.Host){
		"well":    func(*overview.Host) {},
		"nothing": func(h *overview.Host) { h.Instances = nil },
		"killed": func(h *overview.Host) {
			h.Instances[0].Process = nil
			h.Instances[0].Says.Problems = []standalone.Problem{problem(slog.LevelError, "file", "nobody knows whether this is so still")}
		},
		"kept":    func(h *overview.Host) { h.Instances[0].Process, h.Instances[0].Says.Kept = nil, true },
		"left":    func(h *overview.Host) { h.Instances[0].Process, h.Instances[0].Program = nil, nil },
		"stopped": func(h *overview.Host) { h.Instances[0].Process.State = "T" },
		"hangs":   func(h *overview.Host) { h.Awake = 90 * time.Second },
		"starts":  func(h *overview.Host) { h.Instances[0].Program, h.Instances[0].Says.Serves = nil, false },
		"another process": func(h *overview.Host) {
			h.Instances[0].Process.PID = 99
			h.Instances[0].Says.Problems = []standalone.Problem{problem(slog.LevelError, "file", "this is of the one before")}
		},
		"container": func(h *overview.Host) { h.Instances[0].Process.PID = 0 },
		"no right": func(h *overview.Host) {
			h.Instances[0].Program, h.Instances[0].Unread = nil, []string{"open program: permission denied"}
		},
		"files": func(h *overview.Host) {
			h.Instances[0].Says.Problems = []standalone.Problem{
				problem(slog.LevelError, "file", "the last good configuration goes on serving: web.yaml:7: Gateway default/web: unknown field \"spec.listeners[0].prot\""),
				problem(slog.LevelError, "mistake", "web.yaml:23: TCPRoute default/web: BackendNotFound: Service default/wep does not exist"),
				problem(slog.LevelWarn, "forwarding", "net.ipv4.ip_forward is 0: packets to backends on other machines will be dropped, as those to containers; run: sysctl -w net.ipv4.ip_forward=1"),
				problem(slog.LevelWarn, "way", "backend 10.0.0.9:80 is out of reach"),
			}
		},
		"health": func(h *overview.Host) {
			h.Instances[0].Says.Problems = []standalone.Problem{
				problem(slog.LevelWarn, "health check", "policy default/web: the HTTP check fails for all 3 backends of 192.0.2.1:80/tcp at once, so it is not obeyed: status 404"),
				problem(slog.LevelWarn, "health panic", "policy default/web: 2 of 3 backends of 192.0.2.1:81/tcp fail, so that too few healthy ones are left, and all of them get new flows: 5 connections in a row refused"),
				problem(slog.LevelWarn, "health", "backend 10.0.0.9:80 (TCP) is ejected by policy default/web: 5 connections in a row refused"),
			}
		},
		"loses": func(h *overview.Host) {
			p := h.Instances[0].Program
			p.Refusing, p.Rates.Lost = []string{"192.0.2.1:80/TCP of default/web"}, map[string]float64{"drop_no_route": 12.25, "reject_no_backend": 3}
			p.Tables["flows"] = lb.Use{Used: 250000, Size: 262144}
			p.Interfaces = nil
		},
		"policies": func(h *overview.Host) {
			p := h.Instances[0].Program
			p.Policies = []writer.PolicyStatus{
				{Policy: "shop/web", Target: "Gateway/shop/web", InForce: true, Frontends: 2, Sources: 100, Refused: map[string]uint64{"source": 7}},
				{Policy: "shop/large", Target: "TCPRoute/shop/large", Frontends: 1, Refused: map[string]uint64{"source": 0}},
			}
			p.Rates.Lost = map[string]float64{"reject_unenforced": 2}
			h.Instances[0].Says.Problems = []standalone.Problem{problem(slog.LevelError, "refusing", "all new connections to 192.0.2.10:80/tcp are refused: BlixtPolicy shop/odd is invalid: affinity.timeout is 1s.")}
		},
		"two": func(h *overview.Host) {
			h.Instances = append(h.Instances, wellInstance("web", 4712))
			h.Instances[1].Program.Rates = nil
		},
		"many": func(h *overview.Host) {
			for n := range 30 {
				h.Instances = append(h.Instances, wellInstance(fmt.Sprintf("lb-%02d", n), 5000+n))
				h.Instances[1+n].Says.Problems = []standalone.Problem{problem(slog.LevelError, "file", fmt.Sprintf("web-%d.yaml:1: %s", n, strings.Repeat("long ", 200)))}
			}
		},
		"hostile": func(h *overview.Host) {
			h.Instances[0].Name = "\x1b]0;pwned\x07"
			h.Instances[0].Says.Files = []string{"/tmp/\x1b[2J"}
			h.Instances[0].Says.Problems = []standalone.Problem{problem(slog.LevelError, "file", "a\x1b[31m\nb\tc\u202e: \x1b]52;c;eA==\x07")}
		},
		"of another user": func(h *overview.Host) {
			h.Instances, h.Unread = nil, []string{"/run/blixt belongs to user 1000, whose files are not believed"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := &overview.Host{Instances: []overview.Instance{wellInstance("default", 4711)}}
			change(h)
			w := newWell(h.Check())
			w.Host = h
			var out bytes.Buffer
			w.print(&out, false)
			if n := strings.Count(out.String(), "\n"); n > statusLines {
				t.Errorf("it has %d lines, want %d at most", n, statusLines)
			}
			if strings.ContainsAny(out.String(), "\x1b\x07\u202e") {
				t.Errorf("a terminal obeys it: %q", out.String())
			}
			fmt.Fprintf(&out, "\nexit code %d, and wide:\n\n", exitCode(w.err()))
			w.print(&out, true)
			golden.File(t, "testdata/status/"+strings.ReplaceAll(name, " ", "-")+".txt", out.Bytes())
		})
	}
}

func TestRatesAreShort(t *testing.T) {
	for n, want := range map[float64]string{0: "0 B/s", 12.345: "12.3 B/s", 999: "999 B/s", 1234567: "1.23 MB/s", 5e15: "5000 TB/s"} {
		if got := rate(n, "B"); got != want {
			t.Errorf("%g: %s, want %s", n, got, want)
		}
	}
}
