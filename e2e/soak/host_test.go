// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package soak

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

const (
	// patience is how long an answer may take: a cable that was pulled for a moment
	// costs TCP up to twice as long.
	patience = 10 * time.Second
	// settleLimit is how long Blixt may take to be as after a fresh start.
	settleLimit = 30 * time.Second
	pollEvery   = 200 * time.Millisecond
)

// The addresses that are served.
const (
	onLink4 = "10.66.0.100" // in the network of eth0, where Blixt answers for it
	onLink6 = "fd66::100"
	spare4  = "198.51.100.20"
	spare6  = "2001:db8:100::20"
)

// host is a load balancer between a client and its servers, and all that one can do
// wrong to it:
//
//	client ── front ── eth0 balancer eth1 ── back ── backend-1, backend-2
//	                     │ pods  eth2 ── spare
//	                     pod-1
//
// front and back are switches, so that a cable can be pulled whose other end stays.
type host struct {
	*lab.Lab
	t *testing.T

	client, front, balancer, back, spare *lab.Node
	blixt                                *lab.Blixt
	// files are those that are right.
	files   map[string]string
	history []string
}

// network makes the balancer's addresses and routes what they should be, whatever
// they are. Addresses that go on an interface take routes with them.
const network = `
for i in eth0 eth1 eth2 pods lo; do ip link set $i up; done
ip addr replace 10.66.0.1/24 dev eth0; ip addr replace fd66::1/64 dev eth0 nodad
ip addr replace 10.77.0.1/24 dev eth1; ip addr replace fd77::1/64 dev eth1 nodad
ip addr replace 10.99.0.1/24 dev eth2; ip addr replace fd99::1/64 dev eth2 nodad
ip addr replace 10.88.0.1/24 dev pods; ip addr replace fd88::1/64 dev pods nodad
ip addr replace 127.0.0.1/8 dev lo; ip addr replace ::1/128 dev lo
ip route replace default via 10.66.0.2; ip -6 route replace default via fd66::2`

func newHost(t *testing.T) *host {
	l, err := lab.New("blixt-e2e-soak")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	h := &host{Lab: l, t: t, client: l.Node("client"), front: l.Node("front"), balancer: l.Node("balancer"), back: l.Node("back"), spare: l.Node("spare")}
	h.balancer.Forward()
	h.front.Bridge("br0")
	h.back.Bridge("br0")
	h.balancer.Bridge("pods")
	l.Plug(h.client, "eth0", h.front, "br0")
	h.client.Addr("eth0", "10.66.0.2/24", "fd66::2/64")
	h.client.Route("default via 10.66.0.1", "default via fd66::1")
	l.Plug(h.balancer, "eth0", h.front, "br0")
	l.Plug(h.balancer, "eth1", h.back, "br0")
	l.Link(h.balancer, "eth2", h.spare, "eth0")
	h.spare.Addr("eth0", "10.99.0.11/24", "fd99::11/64")
	// Whoever unplugs the other end takes the IPv6 addresses away, and they come back.
	h.spare.Sysctl("net.ipv6.conf.all.keep_addr_on_down=1", "net.ipv6.conf.eth0.keep_addr_on_down=1")
	h.spare.Route("default via 10.99.0.1", "default via fd99::1")
	servers := []*lab.Node{h.spare}
	for i := 1; i <= 2; i++ {
		n := l.Node(fmt.Sprintf("backend-%d", i))
		l.Plug(n, "eth0", h.back, "br0")
		n.Addr("eth0", fmt.Sprintf("10.77.0.%d/24", 10+i), fmt.Sprintf("fd77::%d/64", 10+i))
		n.Route("default via 10.77.0.1", "default via fd77::1")
		servers = append(servers, n)
	}
	pod := l.Node("pod-1")
	l.Plug(pod, "eth0", h.balancer, "pods")
	pod.Addr("eth0", "10.88.0.11/24", "fd88::11/64")
	pod.Route("default via 10.88.0.1", "default via fd88::1")
	servers = append(servers, pod)
	h.check("make network", l.Err())
	h.check("give addresses", h.shell(network))
	for _, n := range servers {
		_, err := n.ServeBoth(n.Name, 8080)
		h.check("start server", err)
	}

	h.files = configuration(lab.Endpoints(8080, servers[1:3]...), lab.On("balancer", lab.Endpoints(8080, pod)), lab.Endpoints(8080, h.spare))
	b, err := l.Blixt(h.balancer, labtest.Binary, nil)
	h.check("prepare blixt", err)
	h.blixt = b
	h.blixt.Lasting = true
	h.blixt.Args = append(h.blixt.Args, "--state-dir", filepath.Join(l.Dir(), "state"), "--keep") // a restart by hand
	h.check("write files", h.writeFiles())
	h.check("start blixt", b.Start())
	return h
}

// configuration returns the files by name. Each Gateway is a group of frontends, and
// its name that of the group.
func configuration(remote, local, spare []lab.Endpoint) map[string]string {
	tcp, udp := lab.Listener{Protocol: "TCP", Port: 80}, lab.Listener{Protocol: "UDP", Port: 80}
	add := func(c *lab.Config, name, service string, port int, addresses ...string) {
		tcp, udp := tcp, udp
		tcp.Port, udp.Port = port, port
		c.Gateways = append(c.Gateways, lab.Gateway{Name: name, Addresses: addresses, Listeners: []lab.Listener{tcp, udp}})
		for _, l := range []lab.Listener{tcp, udp} {
			c.Routes = append(c.Routes, lab.Route{Name: name, Gateway: name, Listener: l, Refs: []lab.Ref{{Service: service, Weight: 1}}})
		}
	}
	var c, s lab.Config
	c.Services = []lab.Service{{Name: "web", Endpoints: slices.Concat(remote, local)}}
	add(&c, "routed", "web", 80, lab.VIP4, lab.VIP6)
	add(&c, "onlink", "web", 80, onLink4, onLink6)
	add(&c, "host", "web", 8081, "10.66.0.1", "fd66::1")
	add(&c, "default", "web", 8082)
	s.Services = []lab.Service{{Name: "spare", Endpoints: spare}}
	add(&s, "spare", "spare", 80, spare4, spare6)
	files := c.YAML()
	_, gateways, _ := strings.Cut(s.YAML()["gateway.yaml"], "---\n") // without the class, which there is
	files["spare.yaml"] = gateways + "---\n" + s.YAML()["endpoints.yaml"]
	return files
}

// writeFiles makes the directory hold exactly the files that are right.
func (h *host) writeFiles() error {
	if err := os.MkdirAll(h.blixt.Dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(h.blixt.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, right := h.files[e.Name()]; !right || !e.Type().IsRegular() {
			if err := os.RemoveAll(filepath.Join(h.blixt.Dir, e.Name())); err != nil {
				return err
			}
		}
	}
	for name, text := range h.files {
		path := h.path(name)
		if old, err := os.ReadFile(path); err == nil && string(old) == text {
			continue
		}
		if err := lab.Replace(path, text); err != nil {
			return err
		}
	}
	return nil
}

func (h *host) path(name string) string { return filepath.Join(h.blixt.Dir, name) }

// shell runs a script on the balancer.
func (h *host) shell(script string) error { return run(h.balancer, script) }

func run(n *lab.Node, script string) error {
	_, err := n.Run(20*time.Second, "bash", "-euc", script)
	return err
}

// check ends the test if there is an error.
func (h *host) check(what string, err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatalf("%s: %v", what, err)
	}
}

// state returns what a fresh start decides, in lines: what status says of the maps, the
// host's addresses, and the programs at its interfaces. What is numbered is left out,
// and what is counted.
func (h *host) state() []string {
	s, err := h.blixt.Status()
	if err != nil {
		return []string{err.Error()}
	}
	lines := []string{fmt.Sprintf("known %v, draining %v, SNAT ports %s", s.Known, s.Draining, s.SNAT)}
	for _, a := range s.Addresses {
		lines = append(lines, fmt.Sprintf("serves %s, exclusive %v", a.IP, a.Exclusive))
	}
	for _, f := range s.Frontends {
		lines = append(lines, fmt.Sprintf("frontend %s of %s %s %s: ring of %d, %.3f refused, idle %s, host listens %v",
			f.Frontend, f.Gateway, f.Listener, f.Route, f.RingSize, f.RejectShare, f.IdleTimeout, f.HostListens))
		for _, b := range f.Backends {
			lines = append(lines, fmt.Sprintf("backend %s of %s: %s %s, local %v, weight %.3f, share %.3f",
				b.Address, f.Frontend, b.Service, b.State, b.Local, b.Weight, b.RingShare))
		}
	}
	for _, table := range []string{"addresses", "frontends", "backends", "rings"} {
		lines = append(lines, fmt.Sprintf("table %s: %d used", table, s.Tables[table].Used))
	}
	for _, l := range s.Program.Links {
		lines = append(lines, fmt.Sprintf("link %s %s", l.Interface, l.Direction))
	}
	addresses, err := h.addresses()
	if err != nil {
		return []string{err.Error()}
	}
	lines = append(lines, addresses...)
	for _, dev := range []string{"lo", "eth0", "eth1", "eth2", "pods"} {
		chain, err := h.programs(dev)
		if err != nil {
			return []string{err.Error()}
		}
		for direction, ids := range chain {
			lines = append(lines, fmt.Sprintf("%s has %d programs at %s, the first ours: %v", dev, len(ids), direction, len(ids) > 0 && uint32(ids[0]) == s.Program.ProgramID))
		}
	}
	slices.Sort(lines)
	return lines
}

// addresses returns the balancer's addresses, in lines, without those that it gives
// itself.
func (h *host) addresses() (lines []string, err error) {
	out, err := h.balancer.Run(5*time.Second, "ip", "-j", "addr")
	if err != nil {
		return nil, err
	}
	var all []struct {
		Dev   string `json:"ifname"`
		Addrs []struct {
			Local      string
			PrefixLen  int
			Scope      string
			Deprecated bool
		} `json:"addr_info"`
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return nil, err
	}
	for _, i := range all {
		for _, a := range i.Addrs {
			if !strings.HasPrefix(a.Local, "fe80:") {
				lines = append(lines, fmt.Sprintf("address %s/%d of %s, scope %s, deprecated %v", a.Local, a.PrefixLen, i.Dev, a.Scope, a.Deprecated))
			}
		}
	}
	return lines, nil
}

// programs returns the ids of the programs at an interface, in order.
func (h *host) programs(dev string) (chain map[string][]ebpf.ProgramID, err error) {
	chain = map[string][]ebpf.ProgramID{}
	err = h.balancer.Do(func() error {
		ifc, err := net.InterfaceByName(dev)
		if err != nil {
			return fmt.Errorf("interface %s: %w", dev, err)
		}
		for name, attach := range map[string]ebpf.AttachType{"ingress": ebpf.AttachTCXIngress, "egress": ebpf.AttachTCXEgress} {
			found, err := link.QueryPrograms(link.QueryOptions{Target: ifc.Index, Attach: attach})
			if err != nil {
				return err
			}
			for _, p := range found.Programs {
				chain[name] = append(chain[name], p.ID)
			}
		}
		return nil
	})
	return chain, err
}
