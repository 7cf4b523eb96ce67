// SPDX-License-Identifier: Apache-2.0

// Command demo shows Blixt at work: a client, a load balancer and backends,
// each in a network namespace of its own, and the YAML of this example's
// directory served by the real `blixt run`. With KEEP=1 in the environment it
// keeps running, for inspection.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

func main() {
	examples := flag.String("f", "examples/standalone", "directory of the YAML to serve")
	binary := flag.String("blixt", "", "blixt binary (default: build it)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *examples, *binary); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, examples, binary string) (err error) {
	start := time.Now()
	d, err := setUp(examples, binary)
	if err != nil {
		return err
	}
	defer func() {
		if e := d.net.Close(); err == nil {
			err = e
		}
	}()
	fmt.Print(`The network, in namespaces of this machine:

    client ---- load balancer ---- switch ---- 4 backends, and a spare one
    10.66.0.2   10.66.0.1 10.77.0.1            10.77.0.11 to .14, .15
    fd66::2       fd66::1 fd77::1              fd77::11   to ::14, ::15

`)
	fmt.Printf("blixt run -f DIR, with the YAML of %s:\n    %s\n", examples, d.blixt.LastLog())
	for _, step := range []func(context.Context) error{d.shares, d.change} {
		if err := step(ctx); err != nil {
			return errors.Join(err, ctx.Err())
		}
	}
	status, err := d.blixt.Run("status")
	if err != nil {
		return err
	}
	fmt.Printf("\nblixt status:\n\n%s", status)
	if os.Getenv("KEEP") != "" {
		d.explain()
		<-ctx.Done()
		fmt.Println()
	}
	if err := d.blixt.Stop(); err != nil {
		return fmt.Errorf("stop blixt: %w", err)
	}
	fmt.Printf("\nDone in %.0f s; nothing is left behind.\n", time.Since(start).Seconds())
	return nil
}

// demo is the network in which Blixt serves.
type demo struct {
	net   *lab.Standard
	blixt *lab.Blixt
}

// spare is the backend that is in no EndpointSlice at first.
const spare = 5

func setUp(examples, binary string) (_ *demo, err error) {
	net, err := lab.NewStandard("blixt-demo", spare, 0)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, net.Close())
		}
	}()
	if binary == "" {
		if binary, err = lab.Build(net.Dir()); err != nil {
			return nil, err
		}
	}
	for i, n := range net.Backends {
		if err := serve(n, i+1); err != nil {
			return nil, fmt.Errorf("serve on %s: %w", n.Name, err)
		}
	}
	b, err := net.Blixt(net.Balancer, binary, nil, "eth0", "eth1")
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(examples, "*.yaml"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no YAML in %s: run this from the top of the repository", examples)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		if err := lab.Replace(filepath.Join(b.Dir, filepath.Base(f)), string(text)); err != nil {
			return nil, err
		}
	}
	return &demo{net, b}, b.Start()
}
