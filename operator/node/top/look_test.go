// SPDX-License-Identifier: Apache-2.0

package top

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath/pins"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// BenchmarkAnswer answers a page that shows 25 Gateways, of 4,000 frontends with ten backends
// each; one Gateway with 32 listeners that have 600 backends each; and who asks for all.
func BenchmarkAnswer(b *testing.B) {
	tables, err := datapath.Open(pins.Make(b, 0))
	if err != nil {
		b.Fatal(err)
	}
	defer tables.Close()
	w := writer.New(tables, writer.Options{})
	var s lb.State
	add := func(i, port, backends int, gateway string) {
		vip := netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})
		f := lb.Frontend{Addr: vip, Protocol: lb.TCP, Port: uint16(port), Gateway: gateway, Listener: "http", Route: fmt.Sprintf("TCPRoute/ns-%d/web", i), Refs: []lb.ServicePort{{Service: gateway, Port: 80}}}
		for j := range backends {
			f.Backends = append(f.Backends, lb.Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10 + byte(j>>8), byte(i >> 8), byte(i), byte(j)}), 8080), Weight: lb.WeightUnit, Service: gateway, ServicePort: 80})
		}
		if port == 80 {
			s.Addresses = append(s.Addresses, lb.Address{IP: vip, Exclusive: true})
		}
		s.Frontends = append(s.Frontends, f)
	}
	for i := range 4000 {
		add(i, 80, 10, fmt.Sprintf("ns-%d/gw", i))
	}
	for port := range 32 {
		add(4000, 80+port, 600, "ns/big")
	}
	if _, err := w.Apply(b.Context(), s); err != nil {
		b.Fatal(err)
	}
	page := &observe.Scope{}
	for i := range 25 {
		page.Gateways = append(page.Gateways, fmt.Sprintf("ns-%d/gw", 40*i))
	}
	answer := observe.Local{Answerer: observe.Answers{Status: Answer(func(read func(Node) error) error { return read(Node{w, tables}) })}}
	for _, c := range []struct {
		name string
		of   *observe.Scope
	}{{"totals", &observe.Scope{}}, {"page", page}, {"big", &observe.Scope{Gateways: []string{"ns/big"}}}, {"all", nil}} {
		b.Run(c.name, func(b *testing.B) {
			bytes := 0
			defer reportCPU(b)()
			for b.Loop() {
				err := answer.Ask(b.Context(), observe.Query{Status: &observe.StatusQuery{Scope: c.of}}, func(_ string, piece json.RawMessage) error {
					bytes = len(piece)
					return json.Unmarshal(piece, &Report{})
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(bytes), "bytes")
		})
		b.Run(c.name+"/read alone", func(b *testing.B) {
			defer reportCPU(b)()
			for b.Loop() {
				if err := (&Report{}).read(w, c.of); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// reportCPU reports the CPU time of each iteration: the machine may be busy.
func reportCPU(b *testing.B) (end func()) {
	used := func() (sum int64) {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N)/1e6, "cpu-ms/op") }
}
