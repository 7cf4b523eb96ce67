// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

const (
	openers   = 50  // open a connection, ask once, close it, and again
	longLived = 100 // keep one connection and ask all the time
	think     = 20 * time.Millisecond
	phase     = 1500 * time.Millisecond // between changes
)

// removed is the backend that is removed under load.
const removed = "backend-2"

// load counts what the clients experienced.
type load struct {
	opened, failed, asked atomic.Int64
	// reset counts the openers' connections. Their backends are unknown, so only
	// those caught while backend-2 was being removed are allowed.
	reset  atomic.Int64
	caught int64

	mu sync.Mutex
	// lost counts long-lived connections by the backend they had.
	lost map[string]int
	// had counts all long-lived connections by backend.
	had map[string]int
	// odd is an unexpected error.
	odd error
}

// change edits endpoints.yaml while clients work: it removes one backend and adds another.
func (d *demo) change(ctx context.Context) error {
	fmt.Printf("\n%d clients open connections all the time, %d keep theirs and ask all the time;\n", openers, longLived)
	fmt.Printf("endpoints.yaml of Service web-a changes meanwhile:\n\n")
	l := &load{lost: map[string]int{}, had: map[string]int{}}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for i := range openers {
		wg.Go(func() { d.opens(ctx, routes[i%2], l) })
	}
	for i := range longLived {
		wg.Go(func() { d.keeps(ctx, routes[i%2], l) })
	}
	var errs []error
	pause(ctx, phase)
	before := l.reset.Load()
	for i, step := range []struct{ what, old, new string }{
		{"- backend-2 is taken out", "- addresses: [10.77.0.12]\n", ""},
		{"- backend-2 is taken out", "- addresses: [\"fd77::12\"]\n", ""},
		{"- backend-5 is put in", "- addresses: [10.77.0.11]\n", "- addresses: [10.77.0.11]\n- addresses: [10.77.0.15]\n"},
		{"- backend-5 is put in", "- addresses: [\"fd77::11\"]\n", "- addresses: [\"fd77::11\"]\n- addresses: [\"fd77::15\"]\n"},
	} {
		if i == 2 {
			l.caught = l.reset.Load() - before
		}
		errs = append(errs, d.edit(step.what, step.old, step.new))
		pause(ctx, phase/2)
	}
	errs = append(errs, ctx.Err())
	cancel()
	wg.Wait()
	return errors.Join(append(errs, l.report())...)
}

// edit replaces text in web-a's EndpointSlices, as an editor would.
func (d *demo) edit(what, old, new string) error {
	path := filepath.Join(d.blixt.Dir, "endpoints.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, tail, _ := strings.Cut(string(text), "name: web-b-") // web-a's come first
	edited := strings.Replace(head, old, new, 1)
	if edited == head {
		return fmt.Errorf("%s: %q is not in %s", what, old, path)
	}
	start := time.Now()
	// Blixt logs a line when it serves a change.
	err = d.blixt.AwaitLog("INFO serving ", patience, func() error {
		return lab.Replace(path, edited+"name: web-b-"+tail)
	})
	family := "IPv4"
	if strings.Contains(old, "fd77") {
		family = "IPv6"
	}
	fmt.Printf("    %s (%s): served %d ms after the file changed\n", what, family, time.Since(start).Milliseconds())
	return err
}

// opens opens connections until the context ends.
func (d *demo) opens(ctx context.Context, r route, l *load) {
	for ctx.Err() == nil {
		c, err := d.dial(r.network, r.addr)
		if err != nil {
			l.fail(err)
			continue
		}
		l.opened.Add(1)
		if _, err = c.ask(); isReset(err) {
			l.reset.Add(1)
		} else if err != nil {
			l.fail(err)
		}
		_ = c.Close()
		pause(ctx, think)
	}
}

// keeps keeps a connection open and sends requests on it until the context ends.
// It replaces a connection that is reset, as clients do.
func (d *demo) keeps(ctx context.Context, r route, l *load) {
	for ctx.Err() == nil {
		c, err := d.dial(r.network, r.addr)
		if err != nil {
			l.fail(err)
			continue
		}
		l.opened.Add(1)
		backend := ""
		for ctx.Err() == nil {
			name, err := c.ask()
			if isReset(err) {
				l.lose(backend)
				break
			}
			if err != nil || (backend != "" && backend != name) {
				l.fail(fmt.Errorf("%s, then %s: %w", backend, name, err))
				break
			}
			if backend == "" {
				backend = name
				l.begin(backend)
			}
			l.asked.Add(1)
			pause(ctx, think)
		}
		_ = c.Close()
	}
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func (l *load) fail(err error) {
	l.failed.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.odd = err
}

func (l *load) begin(backend string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.had[backend]++
}

func (l *load) lose(backend string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost[backend]++
}

// report prints what happened. It returns an error if clients of other backends
// than the removed one were disturbed.
func (l *load) report() error {
	others := 0
	for backend, n := range l.lost {
		if backend != removed {
			others += n
		}
	}
	fmt.Printf("\n    %-52s %6d\n", "connections opened", l.opened.Load())
	fmt.Printf("    %-52s %6d\n", "connections failed", l.failed.Load())
	fmt.Printf("    %-52s %6d\n", "requests answered on long-lived connections", l.asked.Load())
	fmt.Printf("    %-52s %6d of %d\n", "long-lived connections reset, of backend-2", l.lost[removed], l.had[removed])
	fmt.Printf("    %-52s %6d\n", "long-lived connections reset, of other backends", others)
	fmt.Printf("    %-52s %6d\n", "short connections reset, while backend-2 was going", l.caught)
	fmt.Printf("    %-52s %6d\n", "short connections reset, at any other time", l.reset.Load()-l.caught)
	switch {
	case l.failed.Load() > 0:
		return fmt.Errorf("%d connections failed, the last one: %w", l.failed.Load(), l.odd)
	case others > 0 || l.reset.Load() != l.caught:
		return fmt.Errorf("%d connections of backends that stayed were reset", int64(others)+l.reset.Load()-l.caught)
	case l.lost[removed] == 0 || l.lost[removed] != l.had[removed]:
		return fmt.Errorf("%d of %d connections of backend-2 were reset, want all", l.lost[removed], l.had[removed])
	}
	return nil
}

// pause waits for a time, or until the context ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
