// SPDX-License-Identifier: Apache-2.0

// Package migrate tests that Blixt does what another load balancer did: a real one serves
// clients in a lab, what blixt migrate makes of its configuration goes to blixt run, and the
// same clients meet the same servers.
package migrate

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

// place is the standard network in which another load balancer serves first.
type place struct{ *labtest.World }

// newPlace gives the load balancer's host the address that is served, and the client a second
// one.
func newPlace(t *testing.T, name string) *place {
	w := labtest.New(t, name, 4, 0)
	w.Balancer.IP("address add " + lab.VIP4 + "/32 dev eth0")
	w.Client.IP("address add " + otherClient + "/24 dev eth0")
	w.Check(w.Err())
	return &place{w}
}

// otherClient is the client's second address.
const otherClient = "10.66.0.3"

// migrated returns what blixt migrate makes of files, which has to pass blixt check, and what it
// says. Blixt is prepared to serve, and not started.
func (p *place) migrated(source string, files ...string) (written, notes string) {
	p.Helper()
	b, err := p.Standard.Blixt(p.Balancer, labtest.Binary, nil, "eth0", "eth1")
	p.Check(err)
	p.Blixt = b
	out := filepath.Join(p.Dir(), source+".yaml")
	var said bytes.Buffer
	cmd := exec.Command(labtest.Binary, append([]string{"migrate", source, "-o", out}, files...)...)
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		p.Fatalf("blixt migrate %s: %v\n%s", source, err, said.String())
	}
	text, err := os.ReadFile(out)
	p.Check(err)
	if wrong, err := exec.Command(labtest.Binary, "check", "-f", out, "-q", "--host-address", lab.Outside4+"/24").CombinedOutput(); err != nil {
		p.Fatalf("blixt check: %v\n%s\n%s", err, wrong, text)
	}
	return string(text), said.String()
}

// instead serves with what blixt migrate makes of the files what the other one has served. The
// address moves to Blixt.
func (p *place) instead(source string, files ...string) (notes string) {
	p.Helper()
	written, notes := p.migrated(source, files...)
	p.Balancer.IP("address del " + lab.VIP4 + "/32 dev eth0")
	p.Check(p.Err())
	p.Check(os.WriteFile(filepath.Join(p.Blixt.Dir, "lb.yaml"), []byte(written), 0o644))
	p.Check(p.Blixt.Start())
	return notes
}

// answer returns who answers a new connection, or labtest.Refused if nobody does.
func (p *place) answer(network, from string, port int) (string, error) {
	local := labtest.At(from, 0)
	if network == "udp" {
		local = labtest.At(from, int(labtest.NewPort()))
	}
	c, err := p.Client.Dial(network, local, labtest.VIP(4, port), labtest.Patience)
	if err != nil {
		return labtest.Refused, nil
	}
	defer c.Close()
	a, err := lab.Ask(c, "who?", labtest.Patience)
	if err != nil {
		return labtest.Refused, nil
	}
	return a.Server, nil
}

// checkShares fails the test unless each server gets its part of new connections.
func (p *place) checkShares(who, network string, port int, want map[string]float64) {
	p.Helper()
	const n = 400
	got := p.Tally(n, func(int) (string, error) { return p.answer(network, lab.Client4, port) })
	for name, part := range want {
		// Five standard deviations of a choice by chance, and the rounding of a ring.
		bound := 5*math.Sqrt(n*part*(1-part)) + n*.01
		if d := float64(got[name]) - part*n; math.Abs(d) > bound {
			p.Errorf("%s: %s gets %d of %d connections to %s port %d, want %.0f ± %.0f", who, name, got[name], n, network, port, part*n, bound)
		}
	}
	for name, count := range got {
		if _, is := want[name]; !is {
			p.Errorf("%s: %s gets %d of %d connections to %s port %d", who, name, count, n, network, port)
		}
	}
}

// checkAnswer fails the test unless this server answers, or nobody.
func (p *place) checkAnswer(who string, port int, want string) {
	p.Helper()
	if got, _ := p.answer("tcp", lab.Client4, port); got != want {
		p.Errorf("%s: %s answers the client at TCP port %d, want %s", who, got, port, want)
	}
}

// checkSticky fails the test unless one server answers all connections of a client.
func (p *place) checkSticky(who string, port int) {
	p.Helper()
	if got := p.Tally(40, func(int) (string, error) { return p.answer("tcp", lab.Client4, port) }); len(got) != 1 || got[labtest.Refused] > 0 {
		p.Errorf("%s: one client meets %v", who, got)
	}
}

// checkBackup ends the main server of a port, and fails the test unless the other one takes
// over, and gives back when the main one is there again.
func (p *place) checkBackup(who string, port, serverPort int) {
	p.Helper()
	main, err := p.Backends[0].Serve("main", labtest.At(p.Backends[0].IPv4, serverPort))
	p.Check(err)
	p.await(who, port, "main")
	p.checkShares(who, "tcp", port, map[string]float64{"main": 1})
	p.Check(main.Close())
	p.await(who, port, "standby")
	p.checkShares(who, "tcp", port, map[string]float64{"standby": 1})
	main, err = p.Backends[0].Serve("main", labtest.At(p.Backends[0].IPv4, serverPort))
	p.Check(err)
	p.await(who, port, "main")
	p.Check(main.Close())
}

// await waits until ten connections in a row meet the server.
func (p *place) await(who string, port int, want string) {
	p.Helper()
	err := lab.Eventually(30*time.Second, func() error {
		for range 10 {
			if got, _ := p.answer("tcp", lab.Client4, port); got != want {
				return fmt.Errorf("%s answers, want %s", got, want)
			}
		}
		return nil
	})
	if err != nil {
		p.Fatalf("%s: %v", who, err)
	}
}

// listening waits until somebody takes connections at a port of the address.
func (p *place) listening(port int) {
	p.Helper()
	p.Check(lab.Eventually(labtest.Patience, func() error {
		if got, _ := p.answer("tcp", lab.Client4, port); got == labtest.Refused {
			return errors.New("nobody listens")
		}
		return nil
	}))
}
