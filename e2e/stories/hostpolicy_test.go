// SPDX-License-Identifier: Apache-2.0

package stories

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// from ADDRESS has the client connect from this IPv4 address from now on.
func from(_ *testscript.TestScript, h *host, args []string) error {
	h.source = args[0] + ":0"
	if args[0] != lab.Client4 && !h.sources[args[0]] {
		h.sources[args[0]] = true
		h.Client.Addr("eth0", args[0]+"/32")
		h.Balancer.Route(args[0] + "/32 via " + lab.Client4)
	}
	return h.Err()
}

// refused tcp|udp ADDRESS:PORT by silence|reset fails unless three connections get nothing
// else.
func refused(_ *testscript.TestScript, h *host, args []string) error {
	for range 3 {
		server, err := h.try(args[0], args[1], 500*time.Millisecond)
		switch {
		case err == nil:
			return fmt.Errorf("%s answers", server)
		case errors.Is(err, syscall.ECONNREFUSED) != (args[3] == "reset"):
			return fmt.Errorf("refused by %w", err)
		}
	}
	return nil
}

// try returns who answers within the time.
func (h *host) try(network, addr string, within time.Duration) (string, error) {
	c, err := h.Client.Dial(network, h.source, addr, within)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return exchangeWithin(c, within)
}

// burst tcp|udp ADDRESS:PORT N RATE BURST has the client begin N connections at once, and
// fails unless as many are answered as a limit of RATE per second and BURST admits.
func burst(_ *testscript.TestScript, h *host, args []string) error {
	var numbers [3]int
	for i := range numbers {
		var err error
		if numbers[i], err = strconv.Atoi(args[2+i]); err != nil {
			return err
		}
	}
	began := time.Now()
	var mu sync.Mutex
	answered := 0
	var all sync.WaitGroup
	for range numbers[0] {
		all.Go(func() {
			if _, err := h.try(args[0], args[1], 500*time.Millisecond); err == nil {
				mu.Lock()
				defer mu.Unlock()
				answered++
			}
		})
	}
	all.Wait()
	most := numbers[2] + int(time.Since(began).Seconds()*float64(numbers[1])) + 1
	if answered < numbers[2] || answered > most {
		return fmt.Errorf("%d of %d connections were answered, want %d to %d", answered, numbers[0], numbers[2], most)
	}
	return nil
}

// eventually ask tcp|udp ADDRESS:PORT SERVER... waits at most ten seconds until just these
// servers answer.
func eventually(_ *testscript.TestScript, h *host, args []string) error {
	want := strings.Join(args[3:], " ")
	got := ""
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		answers, err := h.connect(args[1], args[2], 20)
		got = fmt.Sprint(names(answers), err)
		if err == nil && names(answers) == want {
			return nil
		}
	}
	return fmt.Errorf("%s answer, want %s", got, want)
}

// settled waits until what the files say is served: they are looked at each second.
func settled(_ *testscript.TestScript, h *host, _ []string) error {
	log := h.blixt.Log()
	for quiet := 0; quiet < 20; quiet++ {
		time.Sleep(100 * time.Millisecond)
		if now := h.blixt.Log(); now != log {
			log, quiet = now, 0
		}
	}
	return nil
}

// stop SERVER PORT and serve SERVER PORT stop and start what answers there.
func stop(_ *testscript.TestScript, h *host, args []string) error {
	var all error
	for _, s := range h.servers[args[0]+":"+args[1]] {
		all = errors.Join(all, s.Close())
	}
	delete(h.servers, args[0]+":"+args[1])
	return all
}

func serve(_ *testscript.TestScript, h *host, args []string) error {
	port, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	return h.serve(args[0], port)
}

func (h *host) serve(name string, port int) error {
	for _, n := range h.Backends {
		if n.Name == name {
			servers, err := n.ServeBoth(name, port)
			h.servers[fmt.Sprintf("%s:%d", name, port)] = servers[:]
			return err
		}
	}
	return fmt.Errorf("there is no %s", name)
}

// web SERVER PORT PATH starts a web server that has nothing but this page.
func web(ts *testscript.TestScript, h *host, args []string) error {
	for _, n := range h.Backends {
		if n.Name != args[0] {
			continue
		}
		ln, err := n.Listen("tcp", ":"+args[1])
		if err != nil {
			return err
		}
		mux := http.NewServeMux()
		mux.HandleFunc(args[2], func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, args[0]) })
		server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
		go func() { _ = server.Serve(ln) }()
		ts.Defer(func() { _ = server.Close() })
		return nil
	}
	return fmt.Errorf("there is no %s", args[0])
}
