// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/control/certs"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/agent"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// host is the name in the certificates of tests.
const host = "localhost"

// operator is a server with real sockets. Its tokens are node/pod.
type operator struct {
	*Server
	address      string
	certificates atomic.Pointer[certs.Certificates]
	metrics      *prometheus.Registry
	log          *logged
	stop         func()
}

// logged keeps what was logged.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

// newOperator is newFollower, leading in epoch 1.
func newOperator(t testing.TB, address string, c *certs.Certificates) *operator {
	t.Helper()
	o := newFollower(t, address, c)
	o.Lead(1)
	return o
}

// newFollower knows nodes n1, n2, n3 and application blue. It listens on an
// address, "": any.
func newFollower(t testing.TB, address string, c *certs.Certificates) *operator {
	t.Helper()
	if c == nil {
		made, _, err := certs.Certificates{}.Renew(time.Now(), host)
		if err != nil {
			t.Fatal(err)
		}
		c = &made
	}
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	o := &operator{address: l.Addr().String(), metrics: prometheus.NewRegistry(), log: &logged{}}
	o.certificates.Store(c)
	o.Server = NewServer(ServerOptions{
		TLS: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			pair, err := o.certificates.Load().Pair()
			return &pair, err
		}},
		Authenticate: func(_ context.Context, token string) (Identity, error) {
			node, pod, ok := strings.Cut(token, "/")
			switch {
			case token == "expired":
				return Identity{}, refused(ReasonExpired, "the token has expired")
			case token == "down":
				return Identity{}, errors.New("no route to API server")
			case !ok:
				return Identity{}, refused(ReasonToken, "the API server does not know the token")
			}
			return Identity{Node: node, Pod: "blixt/" + pod}, nil
		},
		Registerer: o.metrics, Log: slog.New(slog.NewTextHandler(o.log, nil)),
	})
	var nodes []Node
	for i := range 3 {
		nodes = append(nodes, testNode(i+1))
	}
	o.SetNodes(nodes)
	o.SetSettings("blue", Settings{SNAT: lb.PortRange{First: 11000, Last: 19999}})
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- o.Serve(ctx, l) }()
	o.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(o.stop)
	return o
}

func testNode(i int) Node {
	return Node{Name: fmt.Sprintf("n%d", i), Zone: fmt.Sprintf("z%d", i%2), Addresses: []netip.Addr{
		netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i)),
	}}
}

func (n Node) options() gateway.ResolveOptions {
	return gateway.ResolveOptions{NodeName: n.Name, Zone: n.Zone, HostAddresses: n.Addresses}
}

// refusedFor returns how many agents were refused for a reason.
func (o *operator) refusedFor(r Reason) int {
	return int(testutil.ToFloat64(o.refusals.total.WithLabelValues(string(r))))
}

// updatesOf returns how many updates of a kind were sent.
func (o *operator) updatesOf(kind string) int {
	return int(testutil.ToFloat64(o.updates.WithLabelValues(kind)))
}

func (o *operator) report(node, application string) (lb.Report, bool) {
	for _, r := range o.Reports() {
		if r.Node == node && r.Application == application {
			return r, true
		}
	}
	return lb.Report{}, false
}

// node is an agent with maps of its own.
type node struct {
	*agent.Agent
	fake  *datapath.Fake
	token string // file
	ca    string // file
	stop  func()
}

var testSizes = datapath.Sizes{Addresses: 64, Frontends: 64, Backends: 512, RingSlots: 1 << 20, Policies: 64, Sources: 1024, Flows: 64}

// newNode runs an agent of application blue on a node.
func newNode(t testing.TB, o *operator, name string, change func(*agent.Options)) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{fake: datapath.NewFake(testSizes), token: filepath.Join(dir, "token"), ca: filepath.Join(dir, "ca.crt")}
	write(t, n.token, []byte(name+"/agent\n"))
	write(t, n.ca, o.certificates.Load().Bundle())
	_, port, err := net.SplitHostPort(o.address)
	if err != nil {
		t.Fatal(err)
	}
	// Ids rest for a second, which becomes a millisecond here.
	start := time.Now()
	options := agent.Options{
		Operator: net.JoinHostPort(host, port), TokenFile: n.token, CAFile: n.ca,
		Application: "blue", Node: name, Kernel: "6.18", Layout: bpf.Layout, Tables: n.fake,
		StatusEvery: 50 * time.Millisecond, Pause: 200 * time.Millisecond,
		Writer: writer.Options{
			Clock:      func() time.Time { return start.Add(1000 * time.Since(start)) },
			Sleep:      func(ctx context.Context, d time.Duration) error { return pause(ctx, d/1000) },
			SweepEvery: time.Hour, CheckEvery: 100 * time.Millisecond,
		},
	}
	if change != nil {
		change(&options)
	}
	if fake, ok := options.Tables.(*datapath.Fake); ok {
		n.fake = fake
	}
	n.Agent = agent.New(options)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.Run(ctx)
	}()
	n.stop = sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	t.Cleanup(n.stop)
	return n
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// write replaces a file as a whole, as the kubelet does.
func write(t testing.TB, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// eventually waits until check returns "", and otherwise fails with its last
// result.
func eventually(t testing.TB, check func() string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		wrong := check()
		if wrong == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(wrong)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// serves waits until the node has reported that its maps hold a version of a
// snapshot, as resolved for the node.
func (o *operator) serves(t testing.TB, name string, v lb.Version, s Snapshot) {
	t.Helper()
	var number int
	if _, err := fmt.Sscanf(name, "n%d", &number); err != nil {
		t.Fatal(err)
	}
	want := resolved(s, testNode(number).options())
	hash := fmt.Sprintf("%016x", want.Hash())
	eventually(t, func() string {
		r, ok := o.report(name, "blue")
		if !ok || r.Version != v || r.StateHash != hash {
			return fmt.Sprintf("%s reports %+v, want version %+v, hash %s", name, r, v, hash)
		}
		return ""
	})
}

// resolved returns what a snapshot resolves to on a node.
func resolved(s Snapshot, o gateway.ResolveOptions) lb.State {
	state := gateway.Resolve(&s.Unresolved, s.Endpoints, o).State
	state.Normalize()
	return state
}

// web is a snapshot of one frontend whose Service has that many endpoints.
func web(endpoints int) Snapshot {
	vip := netip.MustParseAddr("192.0.2.1")
	service := types.NamespacedName{Namespace: "default", Name: "web"}
	port := gateway.EndpointPort{Name: "http", Protocol: lb.TCP}
	for i := range endpoints {
		port.Endpoints = append(port.Endpoints, gateway.Endpoint{
			Addr:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 8080),
			State: gateway.Ready, Node: fmt.Sprintf("n%d", i%1000+1),
		})
	}
	return Snapshot{
		Unresolved: gateway.Unresolved{
			Addresses: []lb.Address{{IP: vip, Exclusive: true}},
			Frontends: []gateway.Frontend{{
				Key: lb.Key{Addr: vip, Protocol: lb.TCP, Port: 80}, Gateway: "default/gw", Listener: "http", Route: "TCPRoute/default/web",
				IdleTimeout: time.Minute, Refs: []gateway.Ref{{Service: service, PortName: "http", Weight: 1}},
			}},
		},
		Endpoints: gateway.Endpoints{service: {Ports: []gateway.EndpointPort{port}}},
	}
}
