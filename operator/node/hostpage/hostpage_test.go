// SPDX-License-Identifier: Apache-2.0

package hostpage_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/ownhost"
	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
	"github.com/kubernetes-sigs/blixt/operator/node/hostpage"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/source"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/page"
)

func TestMain(m *testing.M) {
	ownhost.Main(m, ownhost.LoopbackUp)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// host is a load balancer whose page is looked at.
type host struct {
	*testing.T
	dir    string // of its files
	source *hostpage.Source
	before atomic.Pointer[page.Overview] // as the page was before the program was loaded
	lost   atomic.Bool                   // somebody has unloaded the program
}

const (
	class = `{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: blixt}, spec: {controllerName: gateway.networking.k8s.io/blixt}}
`
	gatewayOf = `{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: %s}, spec: {gatewayClassName: blixt, addresses: [{value: 192.0.2.1}], listeners: [{name: tcp, protocol: TCP, port: %d}]}}
`
	routeOf = `{apiVersion: gateway.networking.k8s.io/v1, kind: TCPRoute, metadata: {name: %s}, spec: {parentRefs: [{name: %[1]s}], rules: [{backendRefs: [{name: %[2]s, port: 80}]}]}}
`
	serviceOf = `{apiVersion: v1, kind: Service, metadata: {name: %s}, spec: {ports: [{protocol: TCP, port: 80}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: %[1]s, labels: {kubernetes.io/service-name: %[1]s}}, addressType: IPv4, ports: [{protocol: TCP, port: 8080}], endpoints: [{addresses: [192.0.2.1], conditions: {ready: %[2]v}}]}
`
)

// start starts a load balancer with these files.
func start(t *testing.T, files map[string]string) *host {
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer"}
	must(t, netlink.LinkAdd(link))
	t.Cleanup(func() { must(t, netlink.LinkDel(link)) })
	address, err := netlink.ParseAddr("192.0.2.1/24")
	must(t, err)
	must(t, netlink.AddrAdd(link, address))
	must(t, netlink.LinkSetUp(link))
	h := &host{T: t, dir: filepath.Join(t.TempDir(), "files")}
	bpffs := filepath.Join(t.TempDir(), "bpf")
	for _, dir := range []string{h.dir, bpffs} {
		must(t, os.Mkdir(dir, 0o700))
	}
	must(t, unix.Mount("bpf", bpffs, "bpf", 0, ""))
	t.Cleanup(func() { _ = unix.Unmount(bpffs, unix.MNT_DETACH) })
	for name, text := range files {
		h.write(name, text)
	}
	ports := lb.PortRange{First: 11000, Last: 11999}
	o := standalone.Options{
		Files: source.Options{Paths: []string{h.dir}, StateDir: filepath.Join(t.TempDir(), "state")}, NodeName: "here", SNATPorts: ports, Version: "v1",
		Name: "web", RunDir: filepath.Join(t.TempDir(), "run"), LeaveAddresses: true,
	}
	o.Load = func(interfaces []hostnet.Interface) (*standalone.Loaded, error) {
		before, err := h.source.Overview(context.Background())
		if err != nil {
			return nil, err
		}
		h.before.Store(before)
		l, err := loader.Load(loader.Options{Name: o.Name, BPFFS: bpffs, RunDir: o.RunDir, Interfaces: interfaces, Flows: 4096, RingSlots: 1 << 20})
		if err != nil {
			return nil, err
		}
		lost := func() error {
			if h.lost.CompareAndSwap(true, false) {
				return errors.New("the program is gone")
			}
			return nil
		}
		return &standalone.Loaded{Loader: l, SNATPorts: func() lb.PortRange { return ports }, Adopted: l.Adopted(), Lost: lost}, nil
	}
	began := make(chan struct{})
	o.Started = func(in *standalone.Inside) (func(), error) {
		h.source = hostpage.New(hostpage.Options{Inside: in, BPFFS: bpffs})
		close(began)
		return func() {}, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- standalone.Run(ctx, o) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-ended)
	})
	<-began
	return h
}

func (h *host) write(name, text string) {
	h.Helper()
	path := filepath.Join(h.dir, name)
	if text == "" {
		must(h.T, os.Remove(path))
		return
	}
	must(h.T, os.WriteFile(path+".new", []byte(text), 0o644))
	must(h.T, os.Rename(path+".new", path))
}

// eventually waits until the page is as it should be. check returns what is wrong with it.
func (h *host) eventually(check func(*page.Overview) string) *page.Overview {
	h.Helper()
	var why string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		o, err := h.source.Overview(h.Context())
		must(h.T, err)
		if why = check(o); why == "" {
			return o
		}
		why = fmt.Sprintf("%s: %+v", why, *o)
	}
	h.Fatal(why)
	return nil
}

// shows waits until exactly these Gateways are there, each with a verdict, and a problem
// that has these words.
func (h *host) shows(all map[string][]string) *page.Overview {
	h.Helper()
	return h.eventually(func(o *page.Overview) string {
		if len(o.Gateways) != len(all) {
			return fmt.Sprintf("there are %d Gateways, want %d", len(o.Gateways), len(all))
		}
		for _, g := range o.Gateways {
			want := all[g.Name]
			if want == nil {
				return g.Name + " is there"
			}
			if string(g.Verdict) != want[0] || (want[0] == "ok") != (g.Problem == "") {
				return fmt.Sprintf("%s is %s: %q", g.Name, g.Verdict, g.Problem)
			}
			for _, word := range want[1:] {
				if !strings.Contains(g.Problem, word) {
					return fmt.Sprintf("%s: %q has no %q", g.Name, g.Problem, word)
				}
			}
		}
		return ""
	})
}

// What an administrator does with files, and what the page says of it.
func TestPageShowsWhatIsDeclaredAndWhatIsWrong(t *testing.T) {
	h := start(t, map[string]string{
		"class.yaml": class, "web.yaml": fmt.Sprintf(gatewayOf, "web", 80) + "---\n" + fmt.Sprintf(routeOf, "web", "web"), "service.yaml": fmt.Sprintf(serviceOf, "web", true),
	})
	o := h.shows(map[string][]string{"default/web": {"ok"}})
	want := []page.DeclaredListener{{Name: "tcp", Protocol: "TCP", Port: 80, Routes: []string{"TCPRoute/default/web"}}}
	if g := o.Gateways[0]; g.Class != "blixt" || fmt.Sprint(g.Addresses) != "[192.0.2.1]" || fmt.Sprint(g.Listeners) != fmt.Sprint(want) {
		t.Errorf("the Gateway is %+v", g)
	}
	if b := h.before.Load(); b == nil || b.Status.Verdict != finding.Failed || len(b.Status.Findings) == 0 || !strings.Contains(b.Status.Findings[0].Seen, "nothing is loaded") {
		t.Errorf("before the program was loaded: %+v", b)
	}
	o = h.eventually(func(o *page.Overview) string {
		if o.Status.Verdict != finding.OK || o.Gateways[0].Active == nil {
			return "it is not well"
		}
		return ""
	})
	if n := o.Nodes[0]; len(o.Nodes) != 1 || n.Name != "here" || n.Version != "v1" || n.Kernel == "" || n.Frontends != 1 || n.Backends != 1 || n.Verdict != finding.OK {
		t.Errorf("nodes %+v", o.Nodes)
	}

	// A Gateway that never was valid, one that takes what another has, and one without a route.
	h.write("typo.yaml", strings.Replace(fmt.Sprintf(gatewayOf, "typo", 81), "gatewayClassName: blixt", "gatewayClassName: blixxt", 1))
	h.write("taken.yaml", fmt.Sprintf(gatewayOf, "taken", 80))
	h.write("bare.yaml", fmt.Sprintf(gatewayOf, "bare", 82))
	o = h.shows(map[string][]string{
		"default/web": {"ok"}, "default/bare": {"failed", "no route is attached"},
		"default/typo":  {"failed", "typo.yaml:1: ", "GatewayClass blixxt does not exist"},
		"default/taken": {"failed", "taken.yaml:1: ", "listener tcp", "PortUnavailable"},
	})
	taken := o.Gateways[slices.IndexFunc(o.Gateways, func(g page.Declared) bool { return g.Name == "default/taken" })]
	if !strings.Contains(taken.Listeners[0].Problem, "PortUnavailable") || taken.Listeners[0].Port != 80 {
		t.Errorf("the listener that cannot be served is %+v", taken.Listeners)
	}
	if o.Status.Verdict != finding.Failed || len(o.Status.Findings) < 2 {
		t.Errorf("status %+v", o.Status)
	}
	for _, name := range []string{"typo.yaml", "taken.yaml", "bare.yaml"} {
		h.write(name, "")
	}
	h.shows(map[string][]string{"default/web": {"ok"}})

	// A mistake that is refused: what was good goes on, and says so.
	h.write("web.yaml", fmt.Sprintf(gatewayOf, "web", 80)+"---\n"+fmt.Sprintf(routeOf, "web", "wbe"))
	o = h.shows(map[string][]string{"default/web": {"failed", "web.yaml:3: ", "Service default/wbe does not exist", "Refused"}})
	if l := o.Gateways[0].Listeners[0]; l.Problem == "" || fmt.Sprint(l.Routes) != "[TCPRoute/default/web]" {
		t.Errorf("the listener of the route is %+v", l)
	}
	h.write("web.yaml", fmt.Sprintf(gatewayOf, "web", 80)+"---\n"+fmt.Sprintf(routeOf, "web", "web"))
	h.shows(map[string][]string{"default/web": {"ok"}})

	// No endpoint is ready: that is no mistake, but costs connections.
	h.write("service.yaml", fmt.Sprintf(serviceOf, "web", false))
	h.shows(map[string][]string{"default/web": {"failed", "No endpoint is ready"}})
	h.write("service.yaml", fmt.Sprintf(serviceOf, "web", true))
	h.shows(map[string][]string{"default/web": {"ok"}})

	// A file that is no YAML is a finding, and what it said goes on.
	h.write("web.yaml", "kind: [")
	h.eventually(func(o *page.Overview) string {
		if !slices.ContainsFunc(o.Status.Findings, func(f finding.Finding) bool { return strings.Contains(f.Seen, "web.yaml:") }) {
			return "no finding names the file"
		}
		return ""
	})
	h.shows(map[string][]string{"default/web": {"ok"}})
}

// The program is lost while somebody looks. While it is loaded again the page says that, and
// has all Gateways; then all is well.
func TestPageWhileTheProgramIsLoadedAgain(t *testing.T) {
	h := start(t, map[string]string{
		"all.yaml": class + "---\n" + fmt.Sprintf(gatewayOf, "web", 80) + "---\n" + fmt.Sprintf(routeOf, "web", "web") + "---\n" + fmt.Sprintf(serviceOf, "web", true),
	})
	well := func(o *page.Overview) string {
		if len(o.Gateways) != 1 || o.Status.Verdict != finding.OK || o.Nodes[0].Frontends != 1 {
			return "it is not well"
		}
		return ""
	}
	h.eventually(well)
	first := h.before.Load()
	h.lost.Store(true)
	h.eventually(func(*page.Overview) string {
		if h.lost.Load() || h.before.Load() == first {
			return "nothing was loaded again"
		}
		return ""
	})
	if o := h.before.Load(); o.Status.Verdict != finding.Failed || len(o.Gateways) != 1 || !strings.Contains(fmt.Sprint(o.Status.Findings), "does not serve") {
		t.Errorf("while it is loaded again: %+v", *o)
	}
	h.eventually(well)
}

// The page itself, as a browser gets it.
func TestViewOfAHost(t *testing.T) {
	h := start(t, map[string]string{
		"all.yaml": class + "---\n" + fmt.Sprintf(gatewayOf, "web", 80) + "---\n" + fmt.Sprintf(routeOf, "web", "web") + "---\n" + fmt.Sprintf(serviceOf, "web", true),
	})
	h.eventually(func(o *page.Overview) string {
		if len(o.Gateways) != 1 || o.Status.Verdict != finding.OK {
			return "it is not well"
		}
		return ""
	})
	handler, err := page.NewHandler(page.Options{Source: h.source})
	must(t, err)
	defer handler.Close()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/api/view", nil)
	r.Host = "localhost"
	handler.ServeHTTP(w, r)
	var v page.View
	must(t, json.Unmarshal(w.Body.Bytes(), &v))
	if w.Code != http.StatusOK || v.All != 1 || v.Totals.Frontends != 1 || len(v.Unanswered) > 0 {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	l := v.Gateways[0].Listeners[0]
	if len(l.Services) != 1 || l.Services[0].Ready != 1 || l.Services[0].Wanted != 1 || l.Services[0].Backends[0].Address != "192.0.2.1:8080" || l.Problem != "" {
		t.Errorf("the listener is %+v", l)
	}
	if !strings.Contains(v.FlowsNote, "--flow-records") {
		t.Errorf("nobody says why there are no flows: %q", v.FlowsNote)
	}
}
