// SPDX-License-Identifier: Apache-2.0

package labtest

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// Refused is what Answerer returns for a connection that was refused.
const Refused = "refused"

// Answerer returns the name of the server that answers a new TCP connection of the
// client, or Refused.
func (w *World) Answerer(addr string) (string, error) {
	start := time.Now()
	c, err := w.Client.Dial("tcp", "", addr, Patience)
	if errors.Is(err, syscall.ECONNREFUSED) {
		if took := time.Since(start); took > Seconds(.5) {
			return "", fmt.Errorf("it took %s to be refused", took)
		}
		return Refused, nil
	}
	if err != nil {
		return "", err
	}
	defer c.Close()
	return answererOf(c)
}

func answererOf(c net.Conn) (string, error) {
	a, err := lab.Ask(c, "who?", Patience)
	return a.Server, err
}

// Tally calls f n times, eight at a time, and counts the names that it returns.
func (w *World) Tally(n int, f func(i int) (string, error)) map[string]int {
	w.Helper()
	const workers = 8
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed error
	got := map[string]int{}
	for worker := range workers {
		wg.Go(func() {
			for i := worker; i < n; i += workers {
				name, err := f(i / workers)
				mu.Lock()
				got[name]++
				if err != nil {
					failed = err
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	w.Check(failed)
	return got
}
