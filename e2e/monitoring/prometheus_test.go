// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
	"github.com/kubernetes-sigs/blixt/e2e/lib/monitoring"
)

func TestMain(m *testing.M) { labtest.Main(m) }

const (
	blixtAddress      = "127.0.0.1:9101"
	prometheusAddress = "127.0.0.1:9090"
	// enough is how long Prometheus may take on a busy machine to have what takes two
	// scrapes of one second on an idle one.
	enough = 90 * time.Second
)

// quiet are the panels that show nothing on a host that is well, and of which this test
// makes nothing to show.
var quiet = []string{
	"Flows over their share", "Fragments and size", "Other nodes that do not answer", "Backends that see a node instead", "Round trip between nodes", "Scrape errors",
	"Problems by kind and reason",
}

// TestPrometheus has a Prometheus scrape a Blixt that serves, and asks it each query of the
// dashboards: all that concerns a host has an answer. The alerts fire for a frontend
// that has no backend and for nothing else.
func TestPrometheus(t *testing.T) {
	w := labtest.New(t, "prom", 2, 0)
	w.Check(w.Err())
	b, err := w.Standard.Blixt(w.Balancer, labtest.Binary, labtest.ConfigOf(map[int][]lab.Endpoint{
		80: {{Addr: "10.77.0.11:8080"}, {Addr: "10.77.0.12:8080"}},
		81: {},
		82: {{Addr: "10.77.0.11:9"}}, // nobody listens
	}))
	w.Check(err)
	b.Args = append(b.Args, "--metrics-address", blixtAddress)
	w.Blixt = b
	w.Check(b.Start())
	p := startPrometheus(w)
	keepBusy(w)

	reference, err := monitoring.Reference(filepath.Join(root, "e2e/prometheus/testdata/others.md"), filepath.Join(root, "docs/metrics.md"))
	w.Check(err)
	dashboards, err := monitoring.Dashboards(root)
	w.Check(err)
	var pending []monitoring.Expression
	for _, d := range dashboards {
		for _, e := range d.Expressions() {
			_, title, _ := strings.Cut(e.From, ": ")
			if ofHost(reference, e.Text) && !slices.Contains(quiet, title) {
				pending = append(pending, e)
			}
		}
	}
	if len(pending) < 10 {
		t.Fatalf("only %d queries concern a host", len(pending))
	}
	asked := len(pending)
	for deadline := time.Now().Add(enough); len(pending) > 0; time.Sleep(200 * time.Millisecond) {
		pending = slices.DeleteFunc(pending, func(e monitoring.Expression) bool { return len(p.query(e.Text)) > 0 })
		if time.Now().After(deadline) {
			for _, e := range pending {
				t.Errorf("%s has no answer: %s", e.From, e.Text)
			}
			break
		}
	}
	t.Logf("%d queries of dashboards", asked)
	p.checkRules()
}

// ofHost reports whether a host has all metrics of an expression.
func ofHost(reference map[string]monitoring.Metric, expr string) bool {
	for _, m := range regexp.MustCompile(`([A-Za-z_]\w*)\{`).FindAllStringSubmatch(expr, -1) {
		metric, found := monitoring.Find(reference, m[1])
		if !found || !slices.Contains(metric.Where, "run") {
			return false
		}
		if metric.Type == "histogram" && !strings.Contains(expr, "_bucket{") {
			return false
		}
	}
	return true
}

// keepBusy has the client do what it can, right and wrong, until the test ends.
func keepBusy(w *labtest.World) {
	ctx, cancel := context.WithCancel(w.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			for _, network := range []string{"tcp", "udp"} {
				for _, port := range []int{80, 81, 82, 99} {
					local := ""
					if network == "udp" {
						local = fmt.Sprintf(":%d", labtest.NewPort())
					}
					c, err := w.Client.Dial(network, local, labtest.VIP(4, port), labtest.Patience)
					if err != nil {
						continue // refused, as it should be
					}
					_, _ = lab.Ask(c, "hello", 50*time.Millisecond)
					_ = c.Close()
				}
			}
			_ = w.Client.Do(func() error { // a protocol that nobody balances
				c, err := net.Dial("ip4:47", lab.VIP4)
				if err != nil {
					return err
				}
				defer c.Close()
				_, err = c.Write([]byte("hello"))
				return err
			})
			time.Sleep(20 * time.Millisecond)
		}
	})
	w.Cleanup(func() { cancel(); wg.Wait() })
}

type prometheus struct {
	*labtest.World
	client http.Client
}

// startPrometheus starts a Prometheus beside Blixt, configured as docs/observability.md says,
// with alerts that do not wait.
func startPrometheus(w *labtest.World) *prometheus {
	w.Helper()
	dir := w.TempDir()
	rules, err := os.ReadFile(filepath.Join(root, monitoring.AlertsFile))
	w.Check(err)
	rules = regexp.MustCompile(`(?m)^ +for: .*\n`).ReplaceAll(rules, nil)
	_, ofNodes, found := strings.Cut(string(rules), "  - name: blixt-agent\n")
	if !found {
		w.Fatal("the alerts have no group blixt-agent")
	}
	w.Check(os.WriteFile(filepath.Join(dir, "alerts.yaml"), []byte("groups:\n  - name: blixt-agent\n"+ofNodes), 0o644))
	config := fmt.Sprintf(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [alerts.yaml]
scrape_configs:
- job_name: blixt
  static_configs:
  - targets: [%q]
    labels: {node: lb-1, namespace: %s}
`, blixtAddress, monitoring.Namespace)
	w.Check(os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o644))
	stop, err := w.Balancer.Daemon("prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+prometheusAddress, "--log.level=warn")
	w.Check(err)
	w.Cleanup(func() {
		if err := stop(); err != nil {
			w.Log("prometheus: ", err)
		}
	})
	p := &prometheus{World: w, client: http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return w.Balancer.Dial("tcp", "", prometheusAddress, labtest.Patience)
		},
	}}}
	for deadline := time.Now().Add(enough); ; time.Sleep(100 * time.Millisecond) {
		if r, err := p.client.Get("http://" + prometheusAddress + "/-/ready"); err == nil {
			_ = r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return p
			}
		}
		if time.Now().After(deadline) {
			w.Fatal("Prometheus is not ready")
		}
	}
}

// get asks Prometheus.
func (p *prometheus) get(path string, answer any) {
	p.Helper()
	r, err := p.client.Get("http://" + prometheusAddress + "/api/v1/" + path)
	p.Check(err)
	defer r.Body.Close()
	var body struct {
		Status, Error string
		Data          json.RawMessage
	}
	p.Check(json.NewDecoder(r.Body).Decode(&body))
	if body.Status != "success" {
		p.Fatalf("%s: %s", path, body.Error)
	}
	p.Check(json.Unmarshal(body.Data, answer))
}

// query returns the labels of what is now.
func (p *prometheus) query(expr string) (all []map[string]string) {
	p.Helper()
	var data struct {
		Result []struct{ Metric map[string]string }
	}
	p.get("query?query="+url.QueryEscape(expr), &data)
	for _, r := range data.Result {
		all = append(all, r.Metric)
	}
	return all
}

// checkRules waits until all alerts were evaluated, and checks which fire.
func (p *prometheus) checkRules() {
	p.Helper()
	for deadline := time.Now().Add(enough); ; time.Sleep(200 * time.Millisecond) {
		var data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError, State string }
			}
		}
		p.get("rules", &data)
		unknown, fires := 0, map[string]bool{}
		for _, g := range data.Groups {
			for _, r := range g.Rules {
				switch r.Health {
				case "unknown":
					unknown++
				case "ok":
				default:
					p.Errorf("%s: %s", r.Name, r.LastError)
				}
				if r.State == "firing" {
					fires[r.Name] = true
				}
			}
		}
		if unknown == 0 && len(data.Groups) == 2 {
			for name := range fires {
				if !slices.Contains(shouldFire, name) {
					p.Errorf("%s fires: %v", name, p.query(`ALERTS{alertname="`+name+`"}`))
				}
			}
			missing := slices.DeleteFunc(slices.Clone(shouldFire), func(name string) bool { return fires[name] })
			if len(missing) == 0 || p.Failed() {
				return
			}
			if time.Now().After(deadline) {
				p.Errorf("do not fire: %v", missing)
				return
			}
		}
	}
}

// shouldFire are the alerts on what keepBusy does.
var shouldFire = []string{"BlixtBackendMissing", "BlixtBackendUnanswered"}
