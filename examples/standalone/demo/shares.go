// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// route is a row of the table: what the YAML promises to clients of an address.
type route struct {
	name, network, addr string
	// expected are the shares of backend-1 to backend-4.
	expected [4]float64
}

// web is 3:1 between two Services of two servers each; dns is one Service of four.
var (
	web    = [4]float64{3. / 8, 3. / 8, 1. / 8, 1. / 8}
	dns    = [4]float64{1. / 4, 1. / 4, 1. / 4, 1. / 4}
	routes = []route{
		{"TCPRoute web", "tcp", lab.VIP4 + ":80", web},
		{"TCPRoute web", "tcp", "[" + lab.VIP6 + "]:80", web},
		{"UDPRoute dns", "udp", lab.VIP4 + ":53", dns},
		{"UDPRoute dns", "udp", "[" + lab.VIP6 + "]:53", dns},
	}
)

const (
	samples = 2000 // of each route
	askers  = 8    // at a time
)

// shares opens connections, counts the answers of each backend, and prints them beside the expected shares.
func (d *demo) shares(ctx context.Context) error {
	fmt.Printf("\n%d HTTP connections and %d UDP sockets to each address, and who answered:\n\n", samples, samples)
	fmt.Printf("    %-13s %-26s %-10s %9s %9s\n", "ROUTE", "ADDRESS", "BACKEND", "EXPECTED", "MEASURED")
	for _, r := range routes {
		answered, err := d.sample(ctx, r)
		if err != nil {
			return fmt.Errorf("%s at %s: %w", r.name, r.addr, err)
		}
		for i, share := range r.expected {
			backend := fmt.Sprintf("backend-%d", i+1)
			measured := float64(answered[backend]) / samples
			fmt.Printf("    %-13s %-26s %-10s %8.1f%% %8.1f%%\n", r.name, r.network+" "+r.addr, backend, share*100, measured*100)
			r.name, r.network, r.addr = "", "", ""
			// Five standard deviations: once in two million honest runs.
			if math.Abs(measured-share) > 5*math.Sqrt(share*(1-share)/samples) {
				return fmt.Errorf("%s got %.1f%% of the connections instead of %.1f%%", backend, measured*100, share*100)
			}
		}
	}
	return nil
}

// sample returns how often each backend answered.
func (d *demo) sample(ctx context.Context, r route) (map[string]int, error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed error
	answered := map[string]int{}
	for range askers {
		wg.Go(func() {
			for i := 0; i < samples/askers && ctx.Err() == nil; i++ {
				name, err := d.once(r)
				mu.Lock()
				answered[name]++
				if err != nil {
					failed = err
				}
				stop := failed != nil
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	wg.Wait()
	return answered, failed
}

// once opens a connection, asks and closes it.
func (d *demo) once(r route) (string, error) {
	c, err := d.dial(r.network, r.addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return c.ask()
}
