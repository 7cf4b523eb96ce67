// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// TestCounts compares what a host exports by frontend and by backendRef with what clients
// have done, to the unit: while endpoints come and go, and after the process was killed.
func TestCounts(t *testing.T) {
	w := labtest.New(t, "counts", 2, 0)
	w.Check(w.Err())
	one, other := lab.Endpoint{Addr: "10.77.0.11:8080"}, lab.Endpoint{Addr: "10.77.0.12:8080"}
	nobody := lab.Endpoint{Addr: "10.77.0.11:9"}
	config := func(endpoints ...lab.Endpoint) *lab.Config {
		return labtest.ConfigOf(map[int][]lab.Endpoint{80: endpoints, 82: {nobody}})
	}
	b, err := w.Standard.Blixt(w.Balancer, labtest.Binary, config(one, other))
	w.Check(err)
	b.Args = append(b.Args, "--metrics-address", blixtAddress, "--route-metrics", "all", "--removal-grace", "0", "--keep")
	w.Blixt = b
	w.Check(b.Start())
	w.Cleanup(func() { _, _ = b.Run("unload") }) // what --keep leaves goes with the namespace otherwise

	want := map[string]uint64{}
	connect := func(tcp, refused, udp, unreachable int) {
		t.Helper()
		for range tcp {
			w.Ask(w.Dial(w.Client, "tcp", labtest.VIP(4, 80)), "hello")
		}
		for range udp {
			w.Ask(w.Dial(w.Client, "udp", labtest.VIP(4, 80)), "hello")
		}
		for range refused {
			if c, err := w.Client.Dial("tcp", "", labtest.VIP(4, 82), labtest.Patience); err == nil {
				_ = c.Close()
				t.Fatal("connected to a port where nobody listens")
			}
		}
		for range unreachable {
			c := w.Dial(w.Client, "udp", labtest.VIP(4, 82))
			_, _ = lab.Ask(c, "hello", time.Second)
		}
		add := func(n int, names ...string) {
			for _, name := range names {
				want[name] += uint64(n)
			}
		}
		add(tcp, `blixt_frontend_connections_total{port="80",protocol="tcp"}`, `blixt_backend_connections_total{backend="service-80",protocol="tcp"}`,
			`blixt_backend_connect_duration_seconds_count{backend="service-80"}`, `blixt_frontend_client_rtt_seconds_count{port="80"}`)
		add(udp, `blixt_frontend_connections_total{port="80",protocol="udp"}`, `blixt_backend_connections_total{backend="service-80",protocol="udp"}`)
		add(refused, `blixt_backend_connections_total{backend="service-82",protocol="tcp"}`, `blixt_backend_refused_total{backend="service-82",by="reset"}`)
		add(unreachable, `blixt_backend_connections_total{backend="service-82",protocol="udp"}`, `blixt_backend_refused_total{backend="service-82",by="icmp"}`)
		add(0, `blixt_backend_unanswered_total{backend="service-82"}`, `blixt_backend_unanswered_total{backend="service-80"}`,
			`blixt_backend_refused_total{backend="service-80"}`, `blixt_backend_connect_duration_seconds_count{backend="service-82"}`)
	}
	check := func(what string) {
		t.Helper()
		var wrong []string
		for deadline := time.Now().Add(enough); ; time.Sleep(100 * time.Millisecond) {
			got := scrapeBlixt(w)
			wrong = nil
			for series, n := range want {
				if sum := got.sum(series); sum != n {
					wrong = append(wrong, fmt.Sprintf("%s is %d, want %d", series, sum, n))
				}
			}
			if wrong == nil || time.Now().After(deadline) {
				break
			}
		}
		if wrong != nil {
			t.Fatalf("%s:\n%s", what, strings.Join(wrong, "\n"))
		}
	}
	connect(12, 3, 5, 2)
	check("at first")
	w.Check(b.Apply(config(other)))
	connect(7, 0, 3, 0)
	check("an endpoint is gone")
	w.Check(b.Apply(config()))
	check("none is left")
	w.Check(b.Apply(config(one)))
	connect(4, 1, 1, 1)
	check("another one has come")
	w.Check(b.Kill())
	w.Check(b.Start())
	check("after the process was killed")
	connect(5, 2, 2, 1)
	check("and after that")
}

// page is a page of metrics, by line.
type page []string

// scrapeBlixt returns the page of the moment.
func scrapeBlixt(w *labtest.World) (p page) {
	w.Helper()
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return w.Balancer.Dial("tcp", "", blixtAddress, labtest.Patience)
	}}}
	r, err := client.Get("http://" + blixtAddress + "/metrics")
	w.Check(err)
	defer r.Body.Close()
	lines := bufio.NewReader(r.Body)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			p = append(p, strings.TrimSpace(line))
		}
		if err == io.EOF {
			return p
		}
		w.Check(err)
	}
}

// sum adds all series of a name that have the labels.
func (p page) sum(series string) (sum uint64) {
	name, labels, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
	for _, line := range p {
		rest, is := strings.CutPrefix(line, name+"{")
		text, value, _ := strings.Cut(rest, "} ")
		if !is {
			continue
		}
		has := true
		for label := range strings.SplitSeq(labels, ",") {
			has = has && strings.Contains(","+text+",", ","+label+",")
		}
		if n, err := strconv.ParseFloat(value, 64); has && err == nil {
			sum += uint64(n)
		}
	}
	return sum
}
