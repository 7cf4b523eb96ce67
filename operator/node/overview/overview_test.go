// SPDX-License-Identifier: Apache-2.0

package overview_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/ownhost"
	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/overview"
	"github.com/kubernetes-sigs/blixt/operator/node/source"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
)

// asLoadBalancer names the directory of a process that is a load balancer and no test.
const asLoadBalancer = "BLIXT_TEST_LOAD_BALANCER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asLoadBalancer); dir != "" {
		if err := run(dir, os.Getenv("NAME")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	ownhost.Main(m, ownhost.LoopbackUp)
}

// run is blixt run.
func run(dir, name string) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	ports := lb.PortRange{First: 11000, Last: 11999}
	if name == "two" {
		ports = lb.PortRange{First: 12000, Last: 12999}
	}
	o := standalone.Options{
		Files: source.Options{Paths: []string{filepath.Join(dir, name)}}, NodeName: "here", SNATPorts: ports, Version: "v1",
		Name: name, RunDir: filepath.Join(dir, "run"), LeaveAddresses: true,
	}
	o.Load = func(interfaces []hostnet.Interface) (*standalone.Loaded, error) {
		l, err := loader.Load(loader.Options{Name: name, BPFFS: filepath.Join(dir, "bpf"), RunDir: o.RunDir, Interfaces: interfaces, Flows: 4096, RingSlots: 1 << 20})
		if err != nil {
			return nil, err
		}
		return &standalone.Loaded{Loader: l, SNATPorts: func() lb.PortRange { return ports }, Adopted: l.Adopted()}, nil
	}
	return standalone.Run(ctx, o)
}

// host is a host with load balancers in a directory.
type host struct {
	*testing.T
	dir    string
	reader overview.Reader
}

func newHost(t *testing.T) *host {
	dir := t.TempDir()
	bpffs := filepath.Join(dir, "bpf")
	must(t, os.Mkdir(bpffs, 0o700))
	must(t, unix.Mount("bpf", bpffs, "bpf", 0, ""))
	t.Cleanup(func() { _ = unix.Unmount(bpffs, unix.MNT_DETACH) })
	return &host{t, dir, overview.Reader{BPFFS: bpffs, RunDir: filepath.Join(dir, "run")}}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start starts a load balancer with the text of a file.
func (h *host) start(name, text string) *exec.Cmd {
	h.Helper()
	h.write(name, text)
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), asLoadBalancer+"="+h.dir, "NAME="+name)
	c.Stderr = h.Output()
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(h.T, c.Start())
	h.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGCONT)
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	return c
}

func (h *host) write(name, text string) {
	h.Helper()
	dir := filepath.Join(h.dir, name)
	must(h.T, os.MkdirAll(dir, 0o755))
	must(h.T, os.WriteFile(filepath.Join(dir, ".new"), []byte(text), 0o644))
	must(h.T, os.Rename(filepath.Join(dir, ".new"), filepath.Join(dir, "web.yaml")))
}

// wants waits until all that is found is of an object, with these words each; none: all
// is well.
func (h *host) wants(verdict finding.Level, words ...string) {
	h.Helper()
	var text string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		found := h.reader.Read().Check()
		text = fmt.Sprintf("%+v", found)
		missing := len(found) != len(words)
		for i := 0; i < len(found) && !missing; i++ {
			missing = !strings.Contains(found[i].Object+" "+found[i].Seen, words[i])
		}
		if !missing && finding.Verdict(found) == verdict {
			return
		}
	}
	h.Fatalf("want %s with %q, got %s", verdict, words, text)
}

// serves waits until exactly these load balancers are there, and all is well.
func (h *host) serves(names ...string) {
	h.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		now := h.reader.Read()
		var got []string
		for _, i := range now.Instances {
			if i.Program != nil && i.Process != nil {
				got = append(got, i.Name)
			}
		}
		found := now.Check()
		if len(found) == 0 && slices.Equal(got, names) {
			return
		}
		if time.Now().After(end) {
			h.Fatalf("want %v, got %v, %+v", names, got, found)
		}
	}
}

// web is a Gateway at a port of the loopback address.
func web(port int) string {
	return fmt.Sprintf(`
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: blixt}, spec: {controllerName: gateway.networking.k8s.io/blixt}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: web}, spec: {gatewayClassName: blixt, addresses: [{value: 192.0.2.1}], listeners: [{name: tcp, protocol: TCP, port: %d}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: TCPRoute, metadata: {name: web}, spec: {parentRefs: [{name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{protocol: TCP, port: 80}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web, labels: {kubernetes.io/service-name: web}}, addressType: IPv4, ports: [{protocol: TCP, port: 8080}], endpoints: [{addresses: [192.0.2.1]}]}
`, port)
}

// What a host is like while load balancers come, err, hang and die.
func TestHostIsSeenAsItIs(t *testing.T) {
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer"}
	must(t, netlink.LinkAdd(link))
	t.Cleanup(func() { must(t, netlink.LinkDel(link)) })
	address, err := netlink.ParseAddr("192.0.2.1/24")
	must(t, err)
	must(t, netlink.AddrAdd(link, address))
	must(t, netlink.LinkSetUp(link))

	h := newHost(t)
	h.wants(finding.Unknown, "no load balancer")
	one := h.start("one", web(80))
	h.serves("one")
	two := h.start("two", web(81))
	h.serves("one", "two")
	if names := h.reader.Names(); fmt.Sprint(names) != "[one two]" {
		t.Errorf("there are %v", names)
	}
	i := h.reader.Read().Instances[1]
	if i.Process == nil || i.Process.PID != two.Process.Pid || i.Program == nil || i.Program.Frontends != 1 || i.Program.Rates == nil {
		t.Errorf("the second one is %+v", i)
	}

	// Who does not see the pins, as in another mount namespace, asks the process.
	elsewhere := overview.Reader{BPFFS: filepath.Join(h.dir, "nothing"), RunDir: h.reader.RunDir}
	elsewhere.Read()
	now := elsewhere.Read()
	if found := now.Check(); len(found) > 0 || len(now.Instances) != 2 || now.Instances[1].Program == nil || now.Instances[1].Program.Frontends != 1 || now.Instances[1].Program.Rates == nil {
		t.Errorf("without pins it is seen as %+v: %+v", now.Instances, found)
	}

	// A file that is broken, and is mended.
	h.write("one", "kind: [")
	h.wants(finding.Failed, "one the last good configuration goes on serving: web.yaml:2: ")
	h.write("one", web(80))
	h.serves("one", "two")

	// A process that is stopped, and one that is killed.
	must(t, one.Process.Signal(syscall.SIGSTOP))
	h.wants(finding.Failed, fmt.Sprintf("one process %d is stopped", one.Process.Pid))
	must(t, two.Process.Kill())
	_ = two.Wait()
	h.wants(finding.Failed, "one process", fmt.Sprintf("two process %d is gone", two.Process.Pid))
	must(t, one.Process.Signal(syscall.SIGCONT))
	h.wants(finding.Failed, "two process")

	// The next one takes over what a killed one has left.
	two = h.start("two", web(81))
	h.serves("one", "two")
	must(t, two.Process.Signal(syscall.SIGTERM))
	must(t, two.Wait())
	must(t, one.Process.Signal(syscall.SIGTERM))
	must(t, one.Wait())
	h.wants(finding.Unknown, "no load balancer")
}

// What is in the way of a reader neither stops nor deceives it.
func TestRunDirectoryThatIsNotAsItShouldBe(t *testing.T) {
	h := newHost(t)
	dir := h.reader.RunDir
	must(t, os.Mkdir(dir, 0o755))
	status := standalone.StatusFile(dir, "x")
	for _, c := range []struct {
		name string
		make func() error
		want string
	}{
		{"half a file", func() error { return os.WriteFile(status, []byte(`{"pid": 1, "problems": [`), 0o644) }, "x read " + status},
		{"a pipe", func() error { return unix.Mkfifo(status, 0o644) }, "x " + status + " is no regular file"},
		{"a link", func() error { return os.Symlink("/etc/passwd", status) }, "x open " + status},
		{"a directory", func() error { return os.Mkdir(status, 0o755) }, "x " + status + " is no regular file"},
		{"half of a state", func() error { return os.WriteFile(standalone.StateFile(dir, "x"), []byte(`{"state`), 0o644) }, "x no process runs"},
		{"half of the pins", func() error { return os.MkdirAll(filepath.Join(loader.Pins(h.reader.BPFFS, "x"), "maps"), 0o700) }, "x nothing is loaded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			must(t, c.make())
			found := h.reader.Read().Check()
			if len(found) == 0 || !strings.Contains(found[len(found)-1].Object+" "+found[len(found)-1].Seen, c.want) {
				t.Errorf("got %+v, want %q", found, c.want)
			}
			must(t, os.RemoveAll(dir))
			must(t, os.Mkdir(dir, 0o755))
		})
	}
	must(t, os.WriteFile(status, []byte(`{"pid": 1, "problems": [{"level": 8, "message": "a lie"}]}`), 0o644))
	must(t, os.Chown(dir, 1000, 1000))
	found := h.reader.Read().Check()
	if len(found) != 1 || found[0].Verdict != finding.Unknown || !strings.Contains(found[0].Seen, "belongs to user 1000") {
		t.Errorf("a directory of another user: %+v", found)
	}
}
