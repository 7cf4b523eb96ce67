// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

// gatewaysOf is how many listeners each Gateway of a benchmark has: the most.
const gatewaysOf = 64

// application returns the YAML of a route with its Service and its endpoints.
func application(n int, endpoints ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Application %[1]d.
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata:
  name: app-%[1]d
  labels:
    app: app-%[1]d
spec:
  parentRefs:
  - name: gateway-%[2]d
    sectionName: port-%[3]d
  rules:
  - backendRefs:
    - name: app-%[1]d
      port: 80
---
apiVersion: v1
kind: Service
metadata:
  name: app-%[1]d
spec:
  ports:
  - protocol: TCP
    port: 80
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: app-%[1]d
  labels:
    kubernetes.io/service-name: app-%[1]d
addressType: IPv4
ports:
- protocol: TCP
  port: 8080
endpoints:
`, n, n/gatewaysOf, n%gatewaysOf)
	for _, e := range endpoints {
		fmt.Fprintf(&b, "- addresses: [%s]\n", e)
	}
	return b.String()
}

// gatewayOf returns the YAML of a Gateway with all of its listeners, in odd rounds the last
// one at another port.
func gatewayOf(n, round int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata:\n  name: gateway-%d\nspec:\n  gatewayClassName: blixt\n  addresses:\n  - value: 198.18.0.%d\n  listeners:\n", n, n+1)
	for l := range gatewaysOf {
		fmt.Fprintf(&b, "  - name: port-%d\n    protocol: TCP\n    port: %d\n", l, 1000+l+round%2*(l/(gatewaysOf-1)))
	}
	return b.String()
}

const class = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata:\n  name: blixt\nspec:\n  controllerName: gateway.networking.k8s.io/blixt\n"

// endpointsOf returns the endpoints of an application: three, and a fourth in odd rounds.
func endpointsOf(n, round int) []string {
	all := []string{}
	for e := range 3 + round%2 {
		all = append(all, fmt.Sprintf("10.%d.%d.%d", e+1, n/250, 1+n%250))
	}
	return all
}

// BenchmarkPublishFile writes a file with another endpoint, or with another port of a
// listener, beside many others, and waits until the kernel's maps have it. It also says
// what starting has cost, what the process has in memory in the end (with the benchmark's
// own part), and what its maps have.
func BenchmarkPublishFile(b *testing.B) {
	for _, listeners := range []int{10, 4032} {
		b.Run(fmt.Sprint("listeners=", listeners), func(b *testing.B) { benchmarkFile(b, listeners) })
	}
}

func benchmarkFile(b *testing.B, listeners int) {
	veth(b, "eth0")
	i := prepare(b, class)
	i.Files.StateDir = filepath.Join(b.TempDir(), "state")
	for g := range (listeners + gatewaysOf - 1) / gatewaysOf {
		i.put(fmt.Sprintf("gateway-%d.yaml", g), gatewayOf(g, 0))
	}
	for n := range listeners {
		i.put(fmt.Sprintf("app-%d.yaml", n), application(n, endpointsOf(n, 0)...))
	}
	begin := time.Now()
	i.start()
	var maps *datapath.Maps
	eventually(b, func() (err error) {
		if maps == nil {
			maps, err = datapath.Open(loader.Pins(i.bpffs, i.Name) + "/maps")
		}
		if err == nil {
			_, err = published(maps, 0)
		}
		return err
	})
	defer maps.Close()
	started := float64(time.Since(begin).Milliseconds())
	sequence, err := published(maps, 0)
	must(b, err)
	eventually(b, func() error { // so many files, in the background
		kept, err := os.ReadDir(i.Files.StateDir)
		if err == nil && len(kept) < listeners {
			err = errors.New("the last good files are not kept yet")
		}
		return err
	})
	for _, edit := range []struct {
		what string
		of   func(round int) (name, text string)
	}{
		{"endpoint", func(round int) (string, string) { return "app-7.yaml", application(7, endpointsOf(7, round)...) }},
		{"listener", func(round int) (string, string) { return "gateway-0.yaml", gatewayOf(0, round) }},
	} {
		b.Run(edit.what, func(b *testing.B) {
			round, cpu := 0, cpuTime(b)
			for b.Loop() {
				round++
				i.put(edit.of(round))
				for end := time.Now().Add(patience); ; time.Sleep(100 * time.Microsecond) {
					now, err := published(maps, sequence)
					if err == nil {
						sequence = now
						break
					}
					if time.Now().After(end) {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(cpuTime(b)-cpu)/float64(round), "cpu-ns/op")
			b.ReportMetric(started, "start-ms")
			reportMemory(b)
		})
	}
}

// cpuTime returns the time of processors that this process has used.
func cpuTime(b *testing.B) time.Duration {
	var use unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &use))
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

func reportMemory(b *testing.B) {
	runtime.GC()
	b.ReportMetric(float64(fields(b, "/proc/self/status")["VmRSS"])/1024, "resident-MB")
	mapped := map[int]int{} // by id: several descriptors may be of one map
	all, err := filepath.Glob("/proc/self/fdinfo/*")
	must(b, err)
	for _, name := range all {
		if f := fields(b, name); f["map_id"] > 0 {
			mapped[f["map_id"]] = f["memlock"]
		}
	}
	total := 0
	for _, n := range mapped {
		total += n
	}
	b.ReportMetric(float64(total)/(1<<20), "maps-MB")
}

// fields returns the numbers of a file of lines such as "memlock:	4096".
func fields(b *testing.B, name string) map[string]int {
	all := map[string]int{}
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) { // closed by now
		return all
	}
	must(b, err)
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		number, _, _ := strings.Cut(strings.TrimSpace(value), " ")
		if n, err := strconv.Atoi(number); err == nil {
			all[key] = n
		}
	}
	return all
}

// published returns the sequence of the state in the maps, or an error if it is none that
// is later.
func published(maps *datapath.Maps, than uint64) (uint64, error) {
	c, err := maps.Config()
	if err == nil && c.Sequence <= than {
		err = errors.New("it is not published")
	}
	return c.Sequence, err
}
