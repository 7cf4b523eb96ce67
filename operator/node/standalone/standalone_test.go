// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/manifest"
	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/source"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// files returns the YAML of a Gateway with a TCP listener and one backend. An empty
// address: its spec has none.
func files(port int, address string) string {
	addresses := ""
	if address != "" {
		addresses = fmt.Sprintf("  addresses: [{value: %q}]\n", address)
	}
	return fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: blixt}
spec: {controllerName: gateway.networking.k8s.io/blixt}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web}
spec:
  gatewayClassName: blixt
%s  listeners:
  - {name: tcp, protocol: TCP, port: %d}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: web}]
  rules:
  - backendRefs: [{name: web, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  ports: [{protocol: TCP, port: 80}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{protocol: TCP, port: 8080}]
endpoints:
- addresses: ["10.0.0.1"]
`, addresses, port)
}

// tester is a test, or a benchmark. Its Name must not hide that of Options.
type tester struct{ testing.TB }

// instance is a load balancer that runs in this process.
type instance struct {
	tester
	Options
	bpffs string
	dir   string // of the file
	// signals has the files read again: see reload.
	signals chan os.Signal
	log     *logbook
	stop    func()
	done    chan error
}

// prepare returns a load balancer that is not started, with directories of its own
// and one file.
func prepare(t testing.TB, text string) *instance {
	t.Helper()
	dir := t.TempDir()
	i := &instance{tester: tester{t}, log: captureLog(t), stop: func() {}, bpffs: filepath.Join(dir, "bpf"), dir: filepath.Join(dir, "yaml"), Options: Options{
		Files: source.Options{Paths: []string{filepath.Join(dir, "yaml")}}, NodeName: "here", SNATPorts: lb.PortRange{First: 11000, Last: 11999},
		Name: "test", RunDir: filepath.Join(dir, "run"),
	}}
	i.Load = func(interfaces []hostnet.Interface) (*Loaded, error) {
		l, err := loader.Load(loader.Options{
			Name: i.Name, BPFFS: i.bpffs, RunDir: i.RunDir, Interfaces: interfaces, Flows: 4096, RingSlots: 1 << 22,
		})
		if err != nil {
			return nil, err
		}
		return &Loaded{Loader: l, SNATPorts: func() lb.PortRange { return i.SNATPorts }, Adopted: l.Adopted()}, nil
	}
	// While the mount is there, the directory cannot be removed.
	t.Cleanup(func() { _ = unix.Unmount(i.bpffs, unix.MNT_DETACH) })
	must(t, os.MkdirAll(i.dir, 0o755))
	i.write(text)
	return i
}

// write replaces the file as an editor would.
func (i *instance) write(text string) {
	i.Helper()
	path := filepath.Join(i.dir, "web.yaml")
	must(i.TB, os.WriteFile(path+".new", []byte(text), 0o644))
	must(i.TB, os.Rename(path+".new", path))
}

// start runs the load balancer until the test ends, or stop is called.
func (i *instance) start() {
	i.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	i.done = make(chan error, 1)
	go func() { i.done <- Run(ctx, i.Options) }()
	i.stop = func() {
		i.Helper()
		cancel()
		select {
		case err := <-i.done:
			if err != nil {
				i.Error(err)
			}
		case <-time.After(patience):
			i.Fatal("it does not end")
		}
		i.stop = func() {}
	}
	i.Cleanup(func() { i.stop() })
}

// serves waits until exactly these frontends are served, each as address:port.
func (i *instance) serves(want ...string) {
	i.Helper()
	eventually(i.TB, func() error {
		r, err := writer.LoadRecord(StateFile(i.RunDir, i.Name))
		var got []string
		for _, f := range r.State.Frontends {
			got = append(got, netip.AddrPortFrom(f.Addr, f.Port).String())
		}
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("serves %v, want %v", got, want)
		}
		return err
	})
}

// backends returns the number of backends that are served.
func (i *instance) backends() (n int) {
	i.Helper()
	r, err := writer.LoadRecord(StateFile(i.RunDir, i.Name))
	must(i.TB, err)
	for _, f := range r.State.Frontends {
		n += len(f.Backends)
	}
	return n
}

// attached waits until the program is on exactly these interfaces.
func (i *instance) attached(want ...string) {
	i.Helper()
	eventually(i.TB, func() error {
		info, err := loader.Inspect(i.bpffs, i.Name)
		var got []string
		for _, l := range info.Links {
			if l.Direction == "ingress" {
				got = append(got, l.Interface)
			}
		}
		slices.Sort(got)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("attached to %v, want %v", got, want)
		}
		return err
	})
}

// logs waits for a line that contains all these words.
func (i *instance) logs(words ...string) {
	i.Helper()
	var all []string
	eventually(i.TB, func() error {
		all = append(all, i.log.take()...)
		if !slices.ContainsFunc(all, func(line string) bool {
			return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) })
		}) {
			return fmt.Errorf("no line of the log has %q:\n%s", words, strings.Join(all, "\n"))
		}
		return nil
	})
}

func TestNewInterfaceGetsTheProgramWhileRunning(t *testing.T) {
	veth(t, "eth0")
	up(t, "peer-eth0")
	assign(t, "eth0", "192.0.2.1/24")
	i := prepare(t, files(80, far4))
	i.start()
	i.serves(far4 + ":80")
	i.attached("eth0", "lo", "peer-eth0")
	veth(t, "eth1")
	up(t, "peer-eth1")
	i.attached("eth0", "eth1", "lo", "peer-eth0", "peer-eth1")
	must(t, netlink.LinkDel(byName(t, "eth1")))
	i.attached("eth0", "lo", "peer-eth0")
	// An interface that goes down and up again keeps the program: without it, what comes
	// first would reach the host.
	must(t, netlink.LinkSetDown(byName(t, "peer-eth0")))
	veth(t, "eth2")
	i.attached("eth0", "eth2", "lo", "peer-eth0")
}

func TestGatewayWithoutAddressesIsServedOnTheHosts(t *testing.T) {
	veth(t, "eth0")
	up(t, "peer-eth0")
	assign(t, "eth0", "192.0.2.1/24")
	i := prepare(t, files(80, ""))
	i.start()
	i.serves("192.0.2.1:80")
	// The Gateway follows the host's addresses, and takes none of them away.
	assign(t, "eth0", "198.51.100.3/24")
	i.serves("192.0.2.1:80", "198.51.100.3:80")
	must(t, netlink.AddrDel(byName(t, "eth0"), mustAddr(t, "192.0.2.1/24")))
	i.serves("198.51.100.3:80")
	i.stop()
	want(t, "eth0", "198.51.100.3")
}

// TestDefaultAddressThatIsAwayForAMomentIsServed: connections outlive a restart of the
// network's manager, and no other address is served meanwhile.
func TestDefaultAddressThatIsAwayForAMomentIsServed(t *testing.T) {
	veth(t, "eth0")
	up(t, "peer-eth0")
	assign(t, "eth0", "192.0.2.1/24", "198.51.100.1/24")
	veth(t, "eth1")
	up(t, "peer-eth1")
	assign(t, "eth1", "203.0.113.1/24")
	route := &netlink.Route{LinkIndex: byName(t, "eth0").Attrs().Index, Gw: net.ParseIP("198.51.100.254")}
	must(t, netlink.RouteAdd(route))
	i := prepare(t, files(80, ""))
	i.NetworkGrace = time.Hour
	i.start()
	i.serves("192.0.2.1:80", "198.51.100.1:80")
	must(t, netlink.RouteDel(route))
	must(t, netlink.AddrDel(byName(t, "eth0"), mustAddr(t, "192.0.2.1/24")))
	assign(t, "eth0", "192.0.2.2/24") // what follows is a state of this network
	i.serves("192.0.2.1:80", "192.0.2.2:80", "198.51.100.1:80")
	must(t, netlink.AddrDel(byName(t, "eth0"), mustAddr(t, "192.0.2.2/24")))
	assign(t, "eth0", "192.0.2.1/24", "192.0.2.3/24")
	must(t, netlink.RouteAdd(route))
	i.serves("192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80", "198.51.100.1:80")
}

// TestDefaultAddressFollowsTheRoute: routes are watched, and what is away for longer than
// the grace is not served any more.
func TestDefaultAddressFollowsTheRoute(t *testing.T) {
	veth(t, "eth0")
	veth(t, "eth1")
	up(t, "peer-eth0")
	up(t, "peer-eth1")
	assign(t, "eth0", "192.0.2.1/24")
	assign(t, "eth1", "198.51.100.1/24")
	by := func(name, gateway string) *netlink.Route {
		return &netlink.Route{LinkIndex: byName(t, name).Attrs().Index, Gw: net.ParseIP(gateway)}
	}
	must(t, netlink.RouteAdd(by("eth0", "192.0.2.254")))
	i := prepare(t, files(80, ""))
	i.NetworkGrace = 10 * time.Millisecond
	i.start()
	i.serves("192.0.2.1:80")
	must(t, netlink.RouteReplace(by("eth1", "198.51.100.254")))
	i.serves("198.51.100.1:80")
}

func TestNamedInterfaceMayComeLater(t *testing.T) {
	veth(t, "eth0")
	must(t, netlink.LinkAddAltName(byName(t, "eth0"), "uplink"))
	i := prepare(t, files(80, far4))
	i.Interfaces = []string{"uplink", "eth1"}
	i.start()
	i.serves(far4 + ":80")
	i.attached("eth0")
	i.logs("level=WARN", "there is no interface eth1")
	veth(t, "eth1")
	i.attached("eth0", "eth1")
	i.logs("level=INFO", "interfaces have the program", "added=eth1", "interfaces=2")
	must(t, netlink.LinkSetDown(byName(t, "eth1")))
	must(t, netlink.LinkSetName(byName(t, "eth1"), "lan1"))
	i.logs("level=WARN", "interface eth1 is called lan1 now")
	i.attached("eth0", "lan1")
}

func TestDetachedProgramIsAttachedAgain(t *testing.T) {
	veth(t, "eth0")
	i := prepare(t, files(80, far4))
	i.Interfaces = []string{"eth0"}
	i.start()
	i.serves(far4 + ":80")
	pin := filepath.Join(loader.Pins(i.bpffs, i.Name), "links", fmt.Sprintf("%d-ingress", byName(t, "eth0").Attrs().Index))
	ln, err := link.LoadPinnedLink(pin, nil)
	must(t, err)
	must(t, ln.Detach())
	must(t, ln.Close())
	i.logs("level=WARN", "somebody has detached the program from eth0 ingress")
	eventually(t, func() error {
		ln, err := link.LoadPinnedLink(pin, nil)
		if err != nil {
			return err
		}
		defer ln.Close()
		info, err := ln.Info()
		if err == nil && info.TCX().Ifindex == 0 {
			err = errors.New("it is not attached")
		}
		return err
	})
}

func TestAddressMovesToTheNetworkThatAppears(t *testing.T) {
	i := prepare(t, files(80, near4))
	i.start()
	i.serves(near4 + ":80")
	want(t, "lo", near4)
	veth(t, "eth0")
	assign(t, "eth0", host4+"/24")
	eventually(t, func() error {
		got := addresses(t, "eth0")
		if slices.SortFunc(got, netip.Addr.Compare); !slices.Equal(got, ips(host4, near4)) {
			return fmt.Errorf("eth0 has %v", got)
		}
		return nil
	})
	eventuallyHas(t, "lo")
	i.stop()
	want(t, "eth0", host4)
}

func TestBrokenFileIsLoggedAndTheLastGoodOneServed(t *testing.T) {
	veth(t, "eth0")
	i := prepare(t, files(80, far4))
	i.start()
	i.serves(far4 + ":80")
	i.write(strings.Replace(files(81, far4), "port: 81", "port: eighty", 1))
	i.logs("level=ERROR", "the last good configuration goes on serving", "web.yaml:", "port")
	i.serves(far4 + ":80")
	want(t, "lo", far4)
	i.write(files(82, far4))
	i.serves(far4 + ":82")
	i.logs("mended")
}

func TestMisspelledKindIsLoggedAndTheLastGoodOneServed(t *testing.T) {
	veth(t, "eth0")
	i := prepare(t, files(80, far4))
	i.start()
	i.serves(far4 + ":80")
	i.write(strings.Replace(files(80, far4), "kind: TCPRoute", "kind: TCPRouet", 1))
	i.logs("level=ERROR", "the last good configuration goes on serving", "web.yaml:", "did you mean TCPRoute?")
	i.serves(far4 + ":80")
	if served := i.backends(); served != 1 {
		t.Errorf("%d backends are served, want the previous one", served)
	}
}

func TestInvalidGatewayGoesOn(t *testing.T) {
	veth(t, "eth0")
	i := prepare(t, files(80, far4))
	i.start()
	i.serves(far4 + ":80")
	i.write(strings.Replace(files(80, far4), "  gatewayClassName: blixt\n",
		"  gatewayClassName: blixt\n  infrastructure: {parametersRef: {group: blixt.x-k8s.io, kind: BlixtGatewayConfig, name: absent}}\n", 1))
	i.logs("level=ERROR", "web.yaml:12: Gateway default/web: InvalidParameters: ", "which does not exist", "what was good last goes on serving")
	i.serves(far4 + ":80")
	want(t, "lo", far4)
}

func TestLenientlyMistakesTakeEffect(t *testing.T) {
	veth(t, "eth0")
	i := prepare(t, files(80, far4))
	i.Lenient = true
	i.start()
	i.serves(far4 + ":80")
	i.write(strings.Replace(files(80, far4), "protocol: TCP, port: 80}\n---", "protocol: SCTP, port: 80}\n---", 1))
	i.logs("level=WARN", "web.yaml:14: Gateway default/web listener tcp: UnsupportedProtocol: ")
	i.serves()
}

func TestWhatIsWrongFromTheStartIsAnError(t *testing.T) {
	i := prepare(t, "kind: [")
	err := Run(t.Context(), i.Options)
	if _, is := errors.AsType[manifest.Errors](err); !is {
		t.Errorf("a broken file: %v", err)
	}
	i.write(files(80, far4))
	i.Files.Paths = []string{i.dir + "-missing"}
	if err := Run(t.Context(), i.Options); err == nil {
		t.Error("a missing directory is no error")
	}
	i = prepare(t, files(80, far4))
	i.SNATPorts = lb.PortRange{First: 1, Last: 65535}
	if err := Run(t.Context(), i.Options); err == nil || !strings.Contains(err.Error(), "SNAT") {
		t.Errorf("SNAT ports of the host's own connections: %v", err)
	}
	i.SNATPorts = lb.PortRange{First: 11000, Last: 11999}
	i.Interfaces = []string{"missing0"}
	if err := Run(t.Context(), i.Options); err == nil || !strings.Contains(err.Error(), "missing0") {
		t.Errorf("an interface that does not exist: %v", err)
	}
	want(t, "lo")
}

func TestProblemOfAnObjectIsLoggedOnce(t *testing.T) {
	veth(t, "eth0")
	i := prepare(t, strings.Replace(files(80, far4), "{name: web, port: 80}", "{name: nobody, port: 80}", 1))
	i.start()
	i.logs("level=ERROR", "web.yaml:22: TCPRoute", "nobody")
	for range 5 {
		veth(t, "eth1")
		must(t, netlink.LinkDel(byName(t, "eth1")))
		time.Sleep(200 * time.Millisecond)
	}
	for _, line := range i.log.take() {
		if strings.Contains(line, "nobody") {
			t.Errorf("logged again: %s", line)
		}
	}
}

func TestServiceWithoutEndpointsIsLogged(t *testing.T) {
	veth(t, "eth0")
	gone := strings.Replace(files(80, far4), "endpoints:\n- addresses: [\"10.0.0.1\"]", "endpoints: []", 1)
	i := prepare(t, gone)
	i.start()
	want := []string{"level=WARN", "Service default/web: No endpoint is ready for " + far4 + ":80/tcp: "}
	i.logs(want...)
	i.write(files(80, far4))
	i.logs("serving", "backends=1")
	// It is logged again if they go again.
	for _, endpoints := range []string{
		"endpoints: []",
		"endpoints: [{addresses: [10.0.0.1], conditions: {ready: false}}]",
	} {
		i.write(strings.Replace(gone, "endpoints: []", endpoints, 1))
		i.logs(want...)
		i.write(files(80, far4))
		i.logs("serving", "backends=1")
	}
}

// TestManyChangesAtOnceEndInTheLastOne changes files, interfaces and addresses as
// fast as possible while states are applied: nothing blocks, and the last change
// counts.
func TestManyChangesAtOnceEndInTheLastOne(t *testing.T) {
	veth(t, "eth0")
	up(t, "peer-eth0")
	assign(t, "eth0", "192.0.2.1/24")
	i := prepare(t, files(1000, far4))
	i.start()
	for n := range 200 {
		i.write(files(1001+n, map[bool]string{true: far4, false: near4}[n%2 == 0]))
		if n%10 == 0 {
			link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "gone"}, PeerName: "peer-gone"}
			must(t, netlink.LinkAdd(link))
			must(t, netlink.LinkSetUp(link))
			must(t, netlink.LinkDel(link))
		}
		if n%3 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	i.write(files(2000, near4))
	i.serves(near4 + ":2000")
	eventuallyHas(t, "eth0", "192.0.2.1", near4)
	eventuallyHas(t, "lo")
	// It may be stopped while it applies a change.
	i.write(files(2001, far4))
	i.stop()
	want(t, "eth0", "192.0.2.1")
	want(t, "lo")
	if left, err := os.ReadDir(i.RunDir); err != nil || slices.ContainsFunc(left, func(e os.DirEntry) bool {
		return strings.HasSuffix(e.Name(), ".json") || strings.HasSuffix(e.Name(), ".addresses")
	}) {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func TestKeptLoadBalancerIsTakenOver(t *testing.T) {
	veth(t, "eth0")
	up(t, "peer-eth0")
	i := prepare(t, files(80, far4))
	i.Keep = true
	i.start()
	i.serves(far4 + ":80")
	i.stop()
	want(t, "lo", far4)
	i.attached("eth0", "lo", "peer-eth0")
	i.Keep = false
	i.write(files(81, far4))
	i.start()
	i.serves(far4 + ":81")
	i.stop()
	want(t, "lo")
}
