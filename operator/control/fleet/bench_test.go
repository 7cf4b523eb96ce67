// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/node/agent"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// The agents of the benchmark are a process of their own, so that their memory
// is not counted as the operator's.
const (
	agentsOf   = "BLIXT_BENCH_OPERATOR"
	agentsDir  = "BLIXT_BENCH_DIR"
	agentCount = "BLIXT_BENCH_AGENTS"
)

func TestMain(m *testing.M) {
	if address := os.Getenv(agentsOf); address != "" {
		n, err := strconv.Atoi(os.Getenv(agentCount))
		if err == nil {
			err = manyAgents(address, os.Getenv(agentsDir), n)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// manyAgents are simulated agents: each has a connection, reads what it
// receives, and at once reports that its maps hold it. Like real ones, they all
// come at once, from one address, and try again.
func manyAgents(address, dir string, n int) error {
	failed := make(chan error, n)
	for i := range n {
		go func() {
			name := fmt.Sprintf("n%d", i+1)
			file := filepath.Join(dir, name)
			if err := os.WriteFile(file, []byte(name+"/agent"), 0o600); err != nil {
				failed <- err
				return
			}
			for wait := 100 * time.Millisecond; ; wait = min(2*wait, 3*time.Second) {
				_ = oneAgent(address, dir, name)
				time.Sleep(rand.N(wait) + wait/2)
			}
		}()
	}
	return <-failed
}

func oneAgent(address, dir, name string) error {
	conn, err := agent.Dial(agent.Options{Operator: host + ":0", TokenFile: filepath.Join(dir, name), CAFile: filepath.Join(dir, "ca.crt")}, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := wire.NewFleetClient(conn).Serve(context.Background())
	if err != nil {
		return err
	}
	hello := &wire.Hello{Application: "blue", Node: name, Status: &wire.Status{}}
	if err := stream.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Hello{Hello: hello}}); err != nil {
		return err
	}
	var data []byte
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		data = append(data, m.GetPart().GetData()...)
		if !m.GetPart().GetLast() {
			continue
		}
		u := &wire.Update{}
		if err := proto.Unmarshal(data, u); err != nil {
			return err
		}
		data = nil
		st := &wire.Status{Got: u.Version, Holds: u.Version}
		if err := stream.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Status{Status: st}}); err != nil {
			return err
		}
	}
}

// BenchmarkFleet has a thousand agents and ten thousand backends. It measures
// what the agents cost the operator in memory, how long it takes until all have
// everything, and how long until a change of one endpoint has reached all (the
// time of an operation).
func BenchmarkFleet(b *testing.B) {
	const agents, services, each = 1000, 100, 100
	o := newOperator(b, "", nil)
	s := manyServices(services, each)
	before := memoryInUse()
	reached := runAgents(b, o, agents)
	began := time.Now()
	reached(0)
	connected := time.Since(began)
	began = time.Now()
	reached(o.Publish(s).Sequence)
	everything := time.Since(began)
	inUse := memoryInUse() - before
	for i := 0; b.Loop(); i++ {
		s.Endpoints = maps.Clone(s.Endpoints)
		name := s.Frontends[i%services].Refs[0].Service
		ports := slices.Clone(s.Endpoints[name].Ports)
		ports[0].Endpoints = slices.Clone(ports[0].Endpoints)
		ports[0].Endpoints[0].State = gateway.Ready - ports[0].Endpoints[0].State // ready or draining
		s.Endpoints[name] = gateway.ServiceEndpoints{Ports: ports}
		reached(o.Publish(s).Sequence)
	}
	b.ReportMetric(float64(inUse)/agents, "B/agent")
	b.ReportMetric(float64(inUse)/1e6, "MB")
	b.ReportMetric(connected.Seconds(), "s-to-connect")
	b.ReportMetric(everything.Seconds(), "s-to-everything")
	b.ReportMetric(float64(len(encoded(b, s)))/1e3, "kB/complete")
}

// runAgents runs agents in a process of their own. It returns a function that waits
// until all are connected and have a version.
func runAgents(t testing.TB, o *operator, agents int) (reached func(version uint64)) {
	t.Helper()
	var nodes []Node
	for i := range agents {
		nodes = append(nodes, Node{Name: fmt.Sprintf("n%d", i+1)})
	}
	o.SetNodes(nodes)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "ca.crt"), o.certificates.Load().Bundle())
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), agentsOf+"="+o.address, agentsDir+"="+dir, fmt.Sprintf("%s=%d", agentCount, agents))
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	return func(version uint64) {
		eventually(t, func() string {
			n := 0
			for _, r := range o.Reports() {
				if r.Connected && r.Version.Sequence >= version {
					n++
				}
			}
			if n < agents {
				return fmt.Sprintf("%d of %d agents have version %d", n, agents, version)
			}
			return ""
		})
	}
}

var allAgents = flag.Int("agents", 200, "how many agents come at once")

// After a change of leader all agents come at once, from one address where there is
// a NAT, and slow strangers are there already. All agents get in.
func TestAllAgentsComeAtOnce(t *testing.T) {
	o := newOperator(t, "", nil)
	for range maxPeerPending {
		c, err := net.Dial("tcp", o.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	authenticate := o.o.Authenticate
	o.o.Authenticate = func(ctx context.Context, token string) (Identity, error) {
		time.Sleep(5 * time.Millisecond) // an API server
		return authenticate(ctx, token)
	}
	began := time.Now()
	runAgents(t, o, *allAgents)(o.Publish(web(10)).Sequence)
	t.Logf("%d agents are there after %v; %d times there were too many", *allAgents, time.Since(began), o.refusedFor(ReasonCrowded))
}

// manyServices is a snapshot with one frontend for each of several Services.
func manyServices(services, each int) Snapshot {
	one := web(services * each)
	ports := one.Endpoints[one.Frontends[0].Refs[0].Service].Ports
	s := Snapshot{gateway.Unresolved{Addresses: one.Addresses}, gateway.Endpoints{}}
	for i := range services {
		f := one.Frontends[0]
		service := types.NamespacedName{Namespace: "default", Name: fmt.Sprintf("web-%d", i)}
		f.Port, f.Refs = uint16(1000+i), []gateway.Ref{{Service: service, PortName: "http", Weight: 1}}
		s.Frontends = append(s.Frontends, f)
		port := ports[0]
		port.Endpoints = port.Endpoints[i*each : (i+1)*each]
		s.Endpoints[service] = gateway.ServiceEndpoints{Ports: []gateway.EndpointPort{port}}
	}
	return s
}

// memoryInUse returns the memory of the heap and of stacks, after a garbage
// collection.
func memoryInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
