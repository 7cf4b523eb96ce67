// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// countedTables count reads whose cost grows with what is served.
type countedTables struct {
	*datapath.Fake
	reads int
}

func (c *countedTables) Addresses() (map[netip.Addr]bpf.BlixtAddress, error) {
	c.reads++
	return c.Fake.Addresses()
}

func (c *countedTables) Frontends() (map[lb.Key]bpf.BlixtFrontend, error) {
	c.reads++
	return c.Fake.Frontends()
}

func (c *countedTables) Backends() ([]bpf.BlixtBackend, error) {
	c.reads++
	return c.Fake.Backends()
}

func (c *countedTables) FrontendCounters(index uint32) (bpf.BlixtFrontendCounters, error) {
	c.reads++
	return c.Fake.FrontendCounters(index)
}

func (c *countedTables) BackendFlows(id uint32) (uint64, error) {
	c.reads++
	return c.Fake.BackendFlows(id)
}

// Metrics say what Status says, read no table whose size is that of the state, and
// wait for nobody who writes.
func TestMetricsAreCheap(t *testing.T) {
	tables := &countedTables{Fake: datapath.NewFake(testSizes)}
	sleeping, wake := make(chan struct{}), make(chan struct{})
	w := New(tables, Options{Sleep: func(context.Context, time.Duration) error {
		close(sleeping)
		<-wake
		return context.Canceled
	}})
	mustApply(t, w, testState(1, 1, 1))
	tables.CounterTable[3] = 7
	tables.reads = 0
	m, err := w.Metrics()
	if err != nil || tables.reads > 0 {
		t.Fatalf("%d reads, %v", tables.reads, err)
	}
	if _, err := w.Look(nil, 0); err != nil || tables.reads > 0 {
		t.Fatalf("a look needs %d reads, %v", tables.reads, err)
	}
	s, err := w.Status()
	if err != nil {
		t.Fatal(err)
	}
	if m.Version != s.Version || m.FlowQuota != s.FlowQuota || fmt.Sprint(m.Tables) != fmt.Sprint(s.Tables) || fmt.Sprint(m.Counters) != fmt.Sprint(s.Counters) {
		t.Errorf("metrics %+v, status %+v", m, s)
	}
	if len(m.Frontends) != 1 || m.Frontends[0].Key().String() != s.Frontends[0].Frontend || m.Frontends[0].Gateway != "default/gw" || m.Frontends[0].Listener != "http" {
		t.Errorf("frontends %+v", m.Frontends)
	}
	// Backends come and go until ids have to rest, and Apply sleeps.
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 1000 {
			next := testState(1, 1, 1)
			for j := range 30 {
				b := next.Frontends[0].Backends[0]
				b.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i), byte(j)}), 80)
				next.Frontends[0].Backends = append(next.Frontends[0].Backends, b)
			}
			if _, err := w.Apply(context.Background(), next); err != nil {
				return
			}
		}
	}()
	select {
	case <-sleeping:
	case <-done:
		t.Fatal("Apply does not sleep: the test proves nothing")
	}
	read := make(chan Metrics)
	go func() {
		look, err := w.Look([]string{"default/gw"}, 0)
		if err != nil || len(look.Frontends) != 1 {
			t.Errorf("a look while somebody writes: %+v, %v", look, err)
		}
		m, _ := w.Metrics()
		read <- m
	}()
	select {
	case m := <-read:
		if len(m.Frontends) != 1 {
			t.Errorf("while somebody writes: %+v", m)
		}
	case <-time.After(20 * time.Second):
		t.Error("it waits for who writes")
	}
	close(wake)
	<-done
}
