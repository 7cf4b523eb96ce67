// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// flowsLeft is the exit code of a drain whose time is up.
const flowsLeft = 3

func drainCommand() *cobra.Command {
	d := drainer{}
	var force, wait bool
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "drain [ADDRESS[:PORT]|PREFIX]...",
		Short: "Have backends of a load balancer on this host get no new flows, and keep those that they have",
		Long: `Takes backends out of service for maintenance: they keep their flows and get no new
ones, as if their endpoints were not ready, until blixt undrain. The others share what they
got. An address without a port stands for all its ports, a prefix for the backends that are
in it now. It holds in all frontends and Services of the load balancer.

What is drained is in a file beside --state-dir's default: it survives the end of the process,
kill -9, an upgrade and a reboot. Only who may write that file, which is root, may drain. If no
process runs, the next blixt run obeys it. A drained address stays drained while no file names it.

It concerns one load balancer on this host: repeat it on other hosts that have the same
backends. In a cluster backends are drained by Kubernetes: kubectl drain NODE, kubectl delete
pod, or a readiness probe that fails.

Refuses to drain the last backend that gets the connections of a Service, and an address
that is no backend, unless --force. Without arguments it lists what is drained.

Exits with 0 if the backends are drained and, with --wait, have no flow any more; with 3 if
--timeout has ended before that (they stay drained); with 1 if something else is wrong.`,
		Example: `  blixt drain 10.0.0.2
  blixt drain 10.0.0.2:8080 [2001:db8::2]:8080 --wait --timeout 10m
  blixt undrain 10.0.0.2:8080`,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case len(args) == 0 && (wait || force):
				return errors.New("which backends? Name their addresses: blixt backends lists them")
			case timeout != 0 && !wait:
				return errors.New("--timeout is for --wait")
			case timeout < 0:
				return errors.New("--timeout: want a positive duration")
			}
			d.out, d.err = c.OutOrStdout(), c.ErrOrStderr()
			if len(args) == 0 {
				return d.list(c.Context())
			}
			return d.drain(c.Context(), args, force, wait, timeout)
		},
	}
	f := c.Flags()
	d.add(c)
	f.BoolVar(&force, "force", false, "drain the last backend of a Service, too, so that new connections are refused; and an address that is no backend yet")
	f.BoolVar(&wait, "wait", false, "wait until no flow is left")
	f.DurationVar(&timeout, "timeout", 0, "how long to wait (default: for ever)")
	return c
}

func undrainCommand() *cobra.Command {
	d := drainer{}
	var all bool
	c := &cobra.Command{
		Use:   "undrain {ADDRESS[:PORT]|PREFIX... | --all}",
		Short: "Have drained backends of a load balancer on this host get new flows again",
		Long: `Ends what blixt drain has begun. An address without a port stands for all that is
drained of it.`,
		Example: `  blixt undrain 10.0.0.2
  blixt undrain --all`,
		RunE: func(c *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return errors.New("want addresses, or --all: blixt drain lists what is drained")
			}
			d.out, d.err = c.OutOrStdout(), c.ErrOrStderr()
			return d.undrain(c.Context(), args)
		},
	}
	d.add(c)
	c.Flags().BoolVar(&all, "all", false, "all that is drained")
	return c
}

// drainer drains backends of a load balancer on this host.
type drainer struct {
	name, runDir, bpffs string
	output              format
	out, err            io.Writer
}

func (d *drainer) add(c *cobra.Command) {
	f := c.Flags()
	d.output.add(f)
	f.StringVar(&d.name, "name", loader.DefaultName, "name of the load balancer")
	f.StringVar(&d.runDir, "run-dir", loader.DefaultRunDir, "directory of its socket and state files")
	f.StringVar(&d.bpffs, "bpffs", loader.DefaultBPFFS, "BPF file system that its maps are pinned to")
}

func (d *drainer) path() string { return standalone.DrainedFile(d.runDir, d.name) }

// change changes what is drained.
func (d *drainer) change(ctx context.Context, f func(lb.DrainedSet) error) error {
	err := standalone.ChangeDrained(ctx, d.path(), f)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: run as root", err)
	}
	return err
}

// drain drains the backends that arguments name.
func (d *drainer) drain(ctx context.Context, args []string, force, wait bool, timeout time.Duration) error {
	before, err := d.look(ctx)
	if err != nil {
		return err
	}
	if before.status == nil && !force {
		return fmt.Errorf("no load balancer %s serves on this host%s, so that nobody knows whether these are its backends: --force notes them for its next start. "+
			"In a cluster backends are drained by Kubernetes: kubectl drain NODE, kubectl delete pod, or a readiness probe that fails", d.name, d.others())
	}
	targets, err := before.targets(args, force)
	if err != nil {
		return err
	}
	by := &lb.Drained{Since: time.Now().UTC().Truncate(time.Second), By: who()}
	var drained lb.DrainedSet
	err = d.change(ctx, func(set lb.DrainedSet) error {
		if last := before.last(set, targets); len(last) > 0 && !force {
			return fmt.Errorf("new connections would be refused: %s; --force drains it nevertheless", strings.Join(last, "; "))
		}
		for _, at := range targets {
			if set[at] == nil {
				set[at] = by
			}
		}
		drained = set
		return nil
	})
	if err != nil {
		return err
	}
	now, err := d.settled(ctx, before, func(b *servedBackend) bool { return b.Drained != nil }, targets)
	r := newDrainReport(d.name, now, drained, targets)
	if err == nil && wait {
		now, err = d.wait(ctx, targets, timeout)
		r = newDrainReport(d.name, now, drained, targets)
	}
	return errors.Join(d.output.print(d.out, r, r.table), err)
}

// undrain ends the drain of what arguments name; none: of all.
func (d *drainer) undrain(ctx context.Context, args []string) error {
	before, err := d.look(ctx)
	if err != nil {
		return err
	}
	var ended []netip.AddrPort
	err = d.change(ctx, func(set lb.DrainedSet) error {
		if ended, err = drainedBy(set, args); err != nil {
			return err
		}
		for _, at := range ended {
			delete(set, at)
		}
		return nil
	})
	if err != nil {
		return err
	}
	// What is drained by another entry stays so, and what the files have as not ready.
	now, err := d.settled(ctx, before, func(b *servedBackend) bool { return b.Drained == nil }, ended)
	r := newDrainReport(d.name, now, lb.DrainedSet{}, ended)
	return errors.Join(d.output.print(d.out, r, r.undrainedTable), err)
}

// list lists what is drained.
func (d *drainer) list(ctx context.Context) error {
	set, err := standalone.ReadDrained(d.path())
	if err != nil {
		return err
	}
	now, err := d.look(ctx)
	if err != nil {
		return err
	}
	r := newDrainReport(d.name, now, set, slices.SortedFunc(maps.Keys(set), netip.AddrPort.Compare))
	return d.output.print(d.out, r, func(out io.Writer) {
		if len(r.Drained) == 0 {
			printer{out}.printf("Nothing of load balancer %s is drained on this host.\n", d.name)
			return
		}
		r.table(out)
	})
}

// who returns the user who has asked, whom sudo names.
func who() string {
	name := os.Getenv("SUDO_USER")
	if name == "" {
		name = fmt.Sprintf("user %d", os.Getuid())
		if u, err := user.Current(); err == nil && u.Username != "" {
			name = u.Username
		}
	}
	return phrase.Clip(phrase.Printable(strings.ToValidUTF8(name, "?")), 64)
}

// others names other load balancers of this host, for who has not named one.
func (d *drainer) others() string {
	names := slices.DeleteFunc(loader.Names(d.bpffs), func(n string) bool { return n == d.name })
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf(" (but %s: choose one with --name)", phrase.Join(names))
}

// takeUp is how long the process may take until it obeys.
const takeUp = 5 * time.Second

// settled waits until the process has taken up what the file says of addresses.
func (d *drainer) settled(ctx context.Context, now served, is func(*servedBackend) bool, targets []netip.AddrPort) (served, error) {
	if !now.runs {
		again, err := d.look(ctx)
		return again, err
	}
	for end := time.Now().Add(takeUp); ; {
		again, err := d.look(ctx)
		if err != nil {
			return again, err
		}
		ready := true
		for b := range again.of(targets) {
			ready = ready && is(&b)
		}
		switch {
		case ready || !again.runs:
			return again, nil
		case time.Now().After(end):
			return again, fmt.Errorf("it is noted, but the process of load balancer %s has not taken it up within %s: blixt status tells why", d.name, takeUp)
		}
		if !sleep(ctx, 100*time.Millisecond) {
			return again, ctx.Err()
		}
	}
}

// waitEvery is the time between two counts of flows. That none is left counts if two in a
// row say so: packets are under way.
const waitEvery = time.Second

// wait waits until the addresses have no flow any more.
func (d *drainer) wait(ctx context.Context, targets []netip.AddrPort, timeout time.Duration) (now served, err error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, errTimeIsUp)
		defer cancel()
	}
	shows := isTerminal(d.err)
	began := time.Now()
	for zeros := 0; ; {
		if now, err = d.look(context.WithoutCancel(ctx)); err != nil {
			return now, err
		}
		flows := uint64(0)
		for b := range now.of(targets) {
			flows += b.ActiveFlows
		}
		if zeros++; flows > 0 {
			zeros = 0
		}
		if shows {
			fmt.Fprintf(d.err.(*terminal).out, "\r\x1b[K%s left after %s", phrase.Count(int(flows), "flow"), time.Since(began).Round(time.Second))
		}
		done := zeros == 2
		if done || !sleep(ctx, waitEvery) {
			if shows {
				fmt.Fprintf(d.err.(*terminal).out, "\r\x1b[K")
			}
			switch {
			case done:
				return now, nil
			case errors.Is(context.Cause(ctx), errTimeIsUp):
				return now, &exitError{flowsLeft, fmt.Errorf("%s left after %s: they stay drained", phrase.Count(int(flows), "flow"), timeout)}
			}
			return now, fmt.Errorf("interrupted with %s left: they stay drained", phrase.Count(int(flows), "flow"))
		}
	}
}

var errTimeIsUp = errors.New("time is up")
