// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/others"
)

// neighbours returns two load balancers of different names on one host, which know
// nothing of each other: neither run directories nor BPF file systems.
func neighbours(t *testing.T, text string) (a, b *instance) {
	t.Helper()
	for _, name := range []string{"a", "b"} {
		i := prepare(t, text)
		i.Name, i.othersEvery = name, 100*time.Millisecond
		i.Others = others.NewFinder(i.bpffs, func() []string { return []string{filepath.Join(loader.Pins(i.bpffs, i.Name), "maps")} })
		load := i.Load
		i.Load = func(interfaces []hostnet.Interface) (*Loaded, error) {
			if err := CheckOthersPorts(i.SNATPorts, i.Others); err != nil {
				return nil, err
			}
			return load(interfaces)
		}
		a, b = b, i
	}
	a.log = b.log
	return a, b
}

func TestSecondLoadBalancerWithPortsOfTheFirstIsRefused(t *testing.T) {
	veth(t, "eth0")
	a, b := neighbours(t, files(80, far4))
	a.start()
	a.serves(far4 + ":80")
	b.write(files(81, near4))
	for _, ports := range []lb.PortRange{a.SNATPorts, {First: 11999, Last: 15000}, {First: 1024, Last: 30000}} {
		b.SNATPorts = ports
		err := Run(t.Context(), b.Options)
		if err == nil || !strings.Contains(err.Error(), "another load balancer on this host") || !strings.Contains(err.Error(), "11000-11999") || !strings.Contains(err.Error(), "--snat-ports, for example ") {
			t.Errorf("with %s: %v: says not who has them and what to do", ports, err)
		}
	}
	a.serves(far4 + ":80")
	b.SNATPorts = lb.PortRange{First: 12000, Last: 12999}
	b.start()
	b.serves(near4 + ":81")
	// Its own ports are in nobody's way, when it starts again.
	b.stop()
	b.start()
	b.serves(near4 + ":81")
}

// Two that start together have both found nobody when they looked.
func TestOfTwoThatStartTogetherOneHasThePorts(t *testing.T) {
	veth(t, "eth0")
	a, b := neighbours(t, files(80, far4))
	load := func(i *instance) *loader.Loader {
		l, err := loader.Load(loader.Options{Name: i.Name, BPFFS: i.bpffs, RunDir: i.RunDir, Interfaces: []hostnet.Interface{{Index: 1, Name: "lo"}}, Flows: 4096, RingSlots: 1 << 20})
		must(t, err)
		t.Cleanup(func() { must(t, l.Close(false)) })
		return l
	}
	first, second := load(a), load(b)
	// The second one asks first.
	asked := make(chan error)
	go func() { asked <- ClaimPorts(b.SNATPorts, b.Others, second.Dir()) }()
	must(t, ClaimPorts(a.SNATPorts, a.Others, first.Dir()))
	if err := <-asked; err == nil || !strings.Contains(err.Error(), "another load balancer on this host") {
		t.Errorf("the second one gets ports of the first: %v", err)
	}
	must(t, ClaimPorts(lb.PortRange{First: 12000, Last: 12999}, b.Others, second.Dir()))
}

func TestWhoServesAFrontendKeepsItFromASecondLoadBalancer(t *testing.T) {
	veth(t, "eth0")
	assign(t, "eth0", host4+"/24")
	a, b := neighbours(t, files(80, far4))
	b.SNATPorts = lb.PortRange{First: 12000, Last: 12999}
	a.start()
	a.serves(far4 + ":80")
	b.start()
	b.logs("level=WARN", far4+":80/tcp of Gateway default/web is not served", "another load balancer on this host", "another address or port")
	b.serves()
	a.serves(far4 + ":80")

	// Of an address that both share with the host, each has its ports.
	a.write(files(80, host4))
	a.serves(host4 + ":80")
	b.write(files(81, host4))
	b.serves(host4 + ":81")
	a.write(files(81, host4))
	a.serves()
	a.write(files(80, far4))
	a.serves(far4 + ":80")

	// What the first does not serve any more is the second's.
	b.write(files(80, far4))
	b.serves()
	a.stop()
	b.serves(far4 + ":80")
}

// What becomes a conflict later is said, and taken back.
func TestPortsThatTheHostGetsLaterAreSaid(t *testing.T) {
	before, err := os.ReadFile(localPortRange)
	must(t, err)
	t.Cleanup(func() { must(t, os.WriteFile(localPortRange, before, 0)) })
	must(t, os.WriteFile(localPortRange, []byte("32768 60999"), 0))
	log := captureLog(t)
	ports := lb.PortRange{First: 11000, Last: 11999}
	r := &runner{Options: Options{SNATPorts: ports}, loaded: &Loaded{SNATPorts: func() lb.PortRange { return ports }}, log: onceLog{last: map[string]string{}}}
	for _, step := range []struct{ set, says string }{
		{"32768 60999", ""},
		{"10000 60999", "level=ERROR msg=\"connections may hang: SNAT ports 11000-11999 are used by connections of this host (net.ipv4.ip_local_port_range is 10000-60999)"},
		{"10000 60999", ""},
		{"32768 60999", "mended"},
	} {
		must(t, os.WriteFile(localPortRange, []byte(step.set), 0))
		r.lookAtOthers()
		if said := strings.Join(log.take(), "\n"); (step.says == "") != (said == "") || !strings.Contains(said, step.says) {
			t.Errorf("with %s it says %q, want %q", step.set, said, step.says)
		}
	}
}

func TestReservedPortsAreNoConflict(t *testing.T) {
	for path, value := range map[string]string{localPortRange: "20000 30000", localPortReserved: "100,21000-21999,22000,22001-22500\n"} {
		before, err := os.ReadFile(path)
		must(t, err)
		t.Cleanup(func() { must(t, os.WriteFile(path, before, 0)) })
		must(t, os.WriteFile(path, []byte(value), 0))
	}
	for _, c := range []struct {
		first, last uint16
		ok          bool
	}{{21000, 22500, true}, {21500, 21600, true}, {20999, 22500, false}, {21000, 22501, false}, {22000, 22000, true}, {30001, 65535, true}, {1, 65535, false}} {
		err := CheckHostPorts(lb.PortRange{First: c.first, Last: c.last})
		if (err == nil) != c.ok {
			t.Errorf("%d-%d: %v, want ok: %t", c.first, c.last, err, c.ok)
		}
	}
}

func TestLargestFreeRange(t *testing.T) {
	for name, c := range map[string]struct {
		taken []lb.PortRange
		want  lb.PortRange
		ok    bool
	}{
		"nobody has any":  {nil, lb.PortRange{First: 1024, Last: 65534}, true},
		"between":         {[]lb.PortRange{{First: 32768, Last: 60999}, {First: 11000, Last: 29999}, {}}, lb.PortRange{First: 1024, Last: 10999}, true},
		"overlapping":     {[]lb.PortRange{{First: 1, Last: 30000}, {First: 2000, Last: 20000}, {First: 29000, Last: 60000}}, lb.PortRange{First: 60001, Last: 65534}, true},
		"all are taken":   {[]lb.PortRange{{First: 1, Last: 65535}}, lb.PortRange{}, false},
		"few are left":    {[]lb.PortRange{{First: 1, Last: 64999}}, lb.PortRange{}, false},
		"up to the limit": {[]lb.PortRange{{First: 5000, Last: 65535}}, lb.PortRange{First: 1024, Last: 4999}, true},
	} {
		got, ok := largestFree(c.taken)
		if got != c.want || ok != c.ok {
			t.Errorf("%s: %v, %t, want %v, %t", name, got, ok, c.want, c.ok)
		}
	}
}
