// SPDX-License-Identifier: Apache-2.0

// Package tcp measures what connections get through a balancer: how many short ones a
// second, how many bytes, and how soon an answer. The same job is done in several
// ways, each for a moment, round by round. All share the machine's CPUs with client
// and backend.
package tcp

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/bench/report"
)

// Options are what to measure.
type Options struct {
	// Binary is the blixt to measure.
	Binary string
	// Rounds is how often each way is measured, and For how long.
	Rounds int
	For    time.Duration
	// Proxies includes HAProxy and nginx.
	Proxies bool
	// Log prints what goes on.
	Log func(format string, args ...any)
}

// way is one way to get to the backend.
type way struct {
	name  string
	to    string
	world *world
	bulk  []int // sockets
	echo  int
}

// recorded is the name of a way whose flows have records.
func recorded(way string) string { return way + " with flow records" }

// kinds are what is measured.
var kinds = []report.Samples{
	{Name: "connections", Unit: "1/s", Rate: true},
	{Name: "bulk", Unit: "MB/s", Rate: true},
	{Name: "latency, half", Unit: "us"},
	{Name: "latency, 99 %", Unit: "us"},
}

// Run measures.
func Run(o Options) (samples []report.Samples, err error) {
	var ways []*way
	var worlds []*world
	defer func() {
		for _, w := range ways {
			for _, fd := range append(w.bulk, w.echo) {
				_ = unix.Close(fd)
			}
		}
		for _, w := range worlds {
			err = errors.Join(err, w.close())
		}
	}()
	add := func(name string, prepare func(*world) error, to map[string]string) error {
		w, err := newWorld("blixt-bench-tcp-" + name)
		if err != nil {
			return err
		}
		worlds = append(worlds, w)
		if err := prepare(w); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, name := range []string{"forward", "nft", "miss", "local", "remote", recorded("local"), recorded("remote"), "HAProxy", "nginx"} {
			if to[name] != "" {
				ways = append(ways, &way{name: name, to: to[name], world: w})
			}
		}
		return nil
	}
	errs := []error{
		add("forward", func(*world) error { return nil }, map[string]string{"forward": direct}),
		add("nft", (*world).nft, map[string]string{"nft": vip}),
		add("blixt", func(w *world) error { return w.startBlixt(o.Binary) }, map[string]string{"miss": direct, "local": vip, "remote": vip2}),
	}
	const records = "--flow-records"
	if help, err := exec.Command(o.Binary, "run", "--help").Output(); err != nil {
		errs = append(errs, err)
	} else if strings.Contains(string(help), records+" ") { // an earlier version has none
		errs = append(errs, add("blixt-records", func(w *world) error { return w.startBlixt(o.Binary, records) }, map[string]string{recorded("local"): vip, recorded("remote"): vip2}))
	}
	if o.Proxies {
		errs = append(errs, add("haproxy", (*world).haproxy, map[string]string{"HAProxy": vip}),
			add("nginx", (*world).nginx, map[string]string{"nginx": vip}))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, w := range ways {
		if err := w.connect(); err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
	}
	o.Log("measuring: %d rounds of %s", o.Rounds, time.Duration(3*len(ways))*o.For)
	return measure(o, ways)
}

// connect opens the connections that last.
func (w *way) connect() (err error) {
	for range streams {
		fd, err := dial(w.world.client, w.to, wantsSink)
		if err != nil {
			return err
		}
		w.bulk = append(w.bulk, fd)
	}
	w.echo, err = dial(w.world.client, w.to, wantsEchos)
	return err
}

func measure(o Options, ways []*way) (samples []report.Samples, err error) {
	for _, k := range kinds {
		for _, w := range ways {
			s := k
			s.Part, s.Name = report.TCP, w.name+", "+k.Name
			for _, to := range []string{"forward", "nft"} {
				s.To = append(s.To, to+", "+k.Name)
			}
			samples = append(samples, s)
		}
	}
	record := func(kind, way int, value float64) {
		s := &samples[kind*len(ways)+way]
		s.Rounds = append(s.Rounds, value)
	}
	for round := range o.Rounds {
		for i, w := range ways {
			rate, err := w.connections(o.For)
			if err != nil {
				return nil, fmt.Errorf("%s, connections, round %d: %w", w.name, round, err)
			}
			record(0, i, rate)
		}
		for i, w := range ways {
			rate, err := w.world.bulk(w.bulk, o.For)
			if err != nil {
				return nil, fmt.Errorf("%s, bulk, round %d: %w", w.name, round, err)
			}
			record(1, i, rate)
		}
		for i, w := range ways {
			p50, p99, err := w.world.latency(w.echo, o.For)
			if err != nil {
				return nil, fmt.Errorf("%s, latency, round %d: %w", w.name, round, err)
			}
			record(2, i, p50)
			record(3, i, p99)
		}
	}
	return slices.Clip(samples), nil
}

// connections measures, and checks that the connections have been Blixt's where they
// should.
func (w *way) connections(during time.Duration) (float64, error) {
	key := w.to + "/tcp"
	if w.world.blixt == nil || w.to == direct {
		return w.world.connections(w.to, during)
	}
	flows := func() (uint64, error) {
		s, err := w.world.blixt.Status()
		if err != nil {
			return 0, err
		}
		f, err := s.Frontend(key)
		return f.NewFlows, err
	}
	before, err := flows()
	if err != nil {
		return 0, err
	}
	rate, err := w.world.connections(w.to, during)
	if err != nil {
		return 0, err
	}
	after, err := flows()
	if err == nil && after == before {
		err = fmt.Errorf("no connection to %s is counted by Blixt", key)
	}
	return rate, err
}
