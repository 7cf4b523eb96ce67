// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

var rollouts = flag.Int("rollouts", 10, "how often all servers are replaced under load")

// web answers with the node's name and the client that it sees. On SIGTERM it ends as a
// server should: when no client waits any more.
func web() error {
	l, err := net.Listen("tcp", ":8080")
	if err != nil {
		return err
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	var ending atomic.Bool
	idle := func() error { return l.(*net.TCPListener).SetDeadline(time.Now().Add(200 * time.Millisecond)) }
	go func() {
		<-end
		ending.Store(true)
		_ = idle() // the loop sees its error too
	}()
	for {
		conn, err := l.Accept()
		if ending.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
			os.Exit(0)
		}
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(conn, "%s %s\n", os.Getenv("NODE"), host(conn.RemoteAddr()))
		_ = conn.Close()
		if ending.Load() {
			if err := idle(); err != nil {
				return err
			}
		}
	}
}

// perSecond is how many clients come while servers are replaced.
const perSecond = 500

// testRolling replaces servers again and again under many short connections, of which
// none may fail, and then scales them to zero and back.
func testRolling(t *testing.T, application string) {
	applyUntilEnd(t, "web.yaml", "NAME", "rolling")
	awaitPods(t, "default")
	addr := net.JoinHostPort(routeVIPs(t, "rolling", c.Nodes[0])[0], "80")
	awaitServers(t, addr)
	t.Run("rolling", func(t *testing.T) { testReplacedServers(t, application, addr) })
	t.Run("scaling", func(t *testing.T) { testScaling(t, application, addr) })
}

// awaitServers waits until all three servers answer.
func awaitServers(t *testing.T, addr string) {
	t.Helper()
	const n = 3
	kube.Wait(t, patience, "servers that answer at "+addr, n, func() (int, error) {
		got, err := asker{dial: c.Outside}.ask(t, "tcp", addr, 10*n)
		return len(got), err
	})
}

func testReplacedServers(t *testing.T, application, addr string) {
	// The rate without rollouts shows what this machine can do.
	alone := startVisitors(t, addr)
	time.Sleep(2 * time.Second)
	alone.finish(t, "alone")
	able := alone.rate() > 0.95*perSecond

	want := countFlows(t, application)
	crowd := startVisitors(t, addr)
	start := time.Now()
	for i := range *rollouts {
		restart(t, "rolling", i)
		awaitPods(t, "default")
	}
	t.Logf("%d rollouts, %.1f s each", *rollouts, time.Since(start).Seconds()/float64(*rollouts))
	kube.Wait(t, patience, "pods that are left", 3, func() (int, error) { return countPods(t, "rolling") })
	crowd.finish(t, fmt.Sprintf("during %d rollouts", *rollouts))
	if able && crowd.rate() < 0.9*perSecond {
		t.Errorf("%.0f connections a second, want %d: the machine has shown that it can", crowd.rate(), perSecond)
	}
	want["node-1 "+addr+"/tcp"] += uint64(crowd.n)
	if diff := cmp.Diff(want, countFlows(t, application)); diff != "" {
		t.Errorf("new flows that the programs have counted (-want +got):\n%s", diff)
	}
}

// restart has a Deployment replace its pods. kubectl rollout restart refuses to do so
// twice within a second.
func restart(t *testing.T, name string, n int) {
	t.Helper()
	d := &appsv1.Deployment{}
	if err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: name}, d); err != nil {
		t.Fatal(err)
	}
	before := client.MergeFrom(d.DeepCopy())
	d.Spec.Template.Annotations = map[string]string{"restart": fmt.Sprint(n)}
	if err := c.Client.Patch(t.Context(), d, before); err != nil {
		t.Fatal(err)
	}
}

func countPods(t *testing.T, app string) (int, error) {
	t.Helper()
	var list corev1.PodList
	err := c.Client.List(t.Context(), &list, client.InNamespace("default"), client.MatchingLabels{"app": app})
	return len(list.Items), err
}

// testScaling scales the servers to zero: clients are refused at once, and each is
// counted. Then there are servers again.
func testScaling(t *testing.T, application, addr string) {
	const n = 20
	kubectl(t, "scale", "deployment/rolling", "--replicas=0")
	// Terminating pods get connections while there are no others, and refuse them.
	kube.Wait(t, patience, "the share of connections that is refused", 1, func() (float64, error) { return frontend(t, application, addr).RejectShare, nil })
	before := frontend(t, application, addr)
	w := startWitness(t)
	for range n {
		if a, err := ask(c.Outside, "tcp", "", addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("without a server: %v, %v, want %v", a, err, syscall.ECONNREFUSED)
		}
	}
	after := frontend(t, application, addr)
	if rejected, flows := after.Rejected-before.Rejected, after.NewFlows-before.NewFlows; rejected != n || flows != 0 {
		t.Errorf("%d connections without a server: %d rejected, %d new flows", n, rejected, flows)
	}
	w.failed()
	for _, want := range []string{fmt.Sprintf("reject_no_backend %d\n", n), c.Nodes[0].Name + ": RST from " + addr + " to "} {
		if got := strings.Join(w.explanation(), "\n"); !strings.Contains(got, want) {
			t.Errorf("the witness of what refuses clients has not seen %q:\n%s", want, got)
		}
	}
	kubectl(t, "scale", "deployment/rolling", "--replicas=3")
	awaitPods(t, "default")
	awaitServers(t, addr)
	before = frontend(t, application, addr)
	if got, err := (asker{dial: c.Outside}).ask(t, "tcp", addr, n); err != nil {
		t.Errorf("with servers again: %v, %v", got, err)
	}
	after = frontend(t, application, addr)
	if rejected, flows := after.Rejected-before.Rejected, after.NewFlows-before.NewFlows; rejected != 0 || flows != n {
		t.Errorf("%d connections to servers: %d rejected, %d new flows", n, rejected, flows)
	}
}

// frontend returns what the program of the first node counts at an address.
func frontend(t *testing.T, application, addr string) writer.FrontendStatus {
	t.Helper()
	node := c.Nodes[0]
	for _, f := range status(t, node, programID(t, node.Name, application)).Frontends {
		if f.Frontend == addr+"/tcp" {
			return f
		}
	}
	t.Fatalf("%s has no frontend %s/tcp", node.Name, addr)
	return writer.FrontendStatus{}
}

// visitors are clients outside, at a fixed rate. Each connects, reads an answer, and
// leaves.
type visitors struct {
	addr  string
	start time.Time
	took  time.Duration
	stop  chan struct{}
	ended sync.WaitGroup
	n     int
	// repeated is how many SYNs had been sent again before the visits.
	repeated int
	witness  *witness

	mu      sync.Mutex
	failed  []error
	resets  int
	slowest time.Duration
}

// startVisitors starts visits, which go on until they are stopped.
func startVisitors(t *testing.T, addr string) *visitors {
	t.Helper()
	c.Outside.IP("route replace local " + visitorNet + " dev lo")
	if err := c.Outside.Err(); err != nil {
		t.Fatal(err)
	}
	w := &visitors{addr: addr, stop: make(chan struct{}), repeated: repeatedSYNs(t), witness: startWitness(t)}
	w.start = time.Now()
	w.ended.Go(func() {
		for ; ; w.n++ {
			time.Sleep(time.Until(w.start.Add(time.Duration(w.n) * time.Second / perSecond)))
			select {
			case <-w.stop:
				return
			default:
			}
			from := nextVisitor()
			w.ended.Go(func() { w.visit(from) })
		}
	})
	t.Cleanup(w.stopVisits)
	return w
}

func (w *visitors) visit(from string) {
	start := time.Now()
	err := readToEnd(from, w.addr)
	took := time.Since(start)
	if err != nil {
		w.witness.failed()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slowest = max(w.slowest, took)
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ECONNREFUSED) {
		w.resets++
	}
	if err != nil {
		w.failed = append(w.failed, fmt.Errorf("from %s, %.3f s after the first: %w", from, start.Sub(w.start).Seconds(), err))
	}
}

// readToEnd connects, and reads the server's answer to the end.
func readToEnd(from, addr string) error {
	conn, err := c.Outside.Dial("tcp", from, addr, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	text, err := io.ReadAll(conn)
	if err == nil && len(text) == 0 {
		return errors.New("the server has said nothing")
	}
	return err
}

func (w *visitors) stopVisits() {
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	w.ended.Wait()
}

// finish stops the visits and fails the test if one has failed.
func (w *visitors) finish(t *testing.T, when string) {
	t.Helper()
	w.stopVisits()
	w.took = time.Since(w.start)
	t.Logf("%s: %d connections, %.0f/s, %d failed, %d of them reset, %d SYNs sent again, the slowest took %v", when, w.n, w.rate(), len(w.failed), w.resets, repeatedSYNs(t)-w.repeated, w.slowest.Round(time.Millisecond))
	if len(w.failed) > 0 {
		t.Errorf("%d of %d connections failed %s, among them: %v", len(w.failed), w.n, when, errors.Join(w.failed[:min(len(w.failed), 10)]...))
		t.Log(strings.Join(w.witness.explanation(), "\n"))
	}
}

// repeatedSYNs returns how many SYNs clients have sent again.
func repeatedSYNs(t *testing.T) int {
	t.Helper()
	out, err := c.Outside.Run(patience, "nstat", "--zeros", "--ignore", "--noupdate", "--json", "TcpExtTCPSynRetrans")
	if err != nil {
		t.Fatal(err)
	}
	var found struct{ Kernel map[string]int }
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatal(err)
	}
	return found.Kernel["TcpExtTCPSynRetrans"]
}

func (w *visitors) rate() float64 { return float64(w.n) / w.took.Seconds() }

// visitorNet is addresses of clients outside, enough that no port comes twice.
const visitorNet = "203.0.113.0/24"

var visitorCount = 0

// nextVisitor returns the source address of the next visitor.
func nextVisitor() string {
	const ports = 25000
	n := visitorCount
	visitorCount++
	return fmt.Sprintf("203.0.113.%d:%d", 1+n/ports, 40000+n%ports)
}
