// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/announce"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath/pins"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/scrape"
)

// BenchmarkScrape collects and writes the metrics of 4,000 frontends with ten
// backends each, all of which were seen: first reads the maps alone. In production, scrapes of the same second share one collection.
func BenchmarkScrape(b *testing.B) {
	tables, err := datapath.Open(pins.Make(b, 0))
	if err != nil {
		b.Fatal(err)
	}
	defer tables.Close()
	d := DataPlane{Tables: tables, Writer: writer.New(tables, writer.Options{}), Announcer: announce.New(tables, announce.Options{})}
	var s lb.State
	for i := range 4000 {
		vip := netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})
		f := lb.Frontend{Addr: vip, Protocol: lb.TCP, Port: 80, Gateway: fmt.Sprintf("ns-%d/gw", i), Listener: "http", Route: fmt.Sprintf("TCPRoute/ns-%d/web", i)}
		for j := range 10 {
			f.Backends = append(f.Backends, lb.Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(j)}), 8080), Weight: lb.WeightUnit, Service: f.Gateway, ServicePort: 80})
		}
		s.Addresses, s.Frontends = append(s.Addresses, lb.Address{IP: vip, Exclusive: true}), append(s.Frontends, f)
	}
	if _, err := d.Writer.Apply(b.Context(), s); err != nil {
		b.Fatal(err)
	}
	g := scrape.NewPage(slog.New(slog.DiscardHandler))
	source := func(read func(DataPlane) error) error { return read(d) }
	AddTo(g, source)
	AddRoutes(g, source, AllRoutes)
	for _, part := range []string{"read", "collect", "gather", "handle again"} {
		b.Run(part, func(b *testing.B) {
			handler := scrape.Handler(g)
			for b.Loop() {
				switch part {
				case "read":
					readMaps(b, d)
				case "collect":
					if _, err := d.Writer.Metrics(); err != nil {
						b.Fatal(err)
					}
				case "gather":
					if _, err := g.Gather(); err != nil {
						b.Fatal(err)
					}
				default:
					w := httptest.NewRecorder()
					handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
					_, _ = io.Copy(io.Discard, w.Body)
				}
			}
		})
	}
}

// readMaps reads what a scrape reads.
func readMaps(b *testing.B, d DataPlane) {
	b.Helper()
	keys, err := d.Tables.RefKeys()
	if err != nil {
		b.Fatal(err)
	}
	for id, key := range keys {
		d.Tables.RefCounters(uint32(id), key)
	}
	counters, err := d.Tables.FirstFrontendCounters(4000)
	if err != nil {
		b.Fatal(err)
	}
	for index := range counters {
		d.Tables.ClientRTT(uint32(index))
	}
	d.Tables.Established()
}
