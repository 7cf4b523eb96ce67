// SPDX-License-Identifier: Apache-2.0

package ipsec

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/ownhost"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// TestMain gives the tests a host of their own: policies are the network namespace's.
func TestMain(m *testing.M) {
	ownhost.Main(m, func() error { return nil })
}

func network(text string) *net.IPNet {
	_, n, err := net.ParseCIDR(text)
	if err != nil {
		panic(err)
	}
	return n
}

func add(t *testing.T, change func(*netlink.XfrmPolicy)) *netlink.XfrmPolicy {
	t.Helper()
	p := &netlink.XfrmPolicy{
		Src: network("0.0.0.0/0"), Dst: network("10.0.0.0/24"), Dir: netlink.XFRM_DIR_OUT, Action: netlink.XFRM_POLICY_BLOCK,
	}
	change(p)
	if err := netlink.XfrmPolicyAdd(p); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.XfrmPolicyDel(p) })
	return p
}

// TestPoliciesOfTheKernel adds policies of every kind and asks which backends they cover.
func TestPoliciesOfTheKernel(t *testing.T) {
	if p, err := Read(); err != nil || !p.Equal(Policies{}) {
		t.Fatalf("without policies: %+v, %v", p, err)
	}
	esp := []netlink.XfrmPolicyTmpl{{
		Src: net.ParseIP("10.0.0.1"), Dst: net.ParseIP("10.0.0.2"), Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL,
	}}
	for _, c := range []struct {
		name             string
		change           func(*netlink.XfrmPolicy)
		covered, outside []string
	}{
		{"block", func(*netlink.XfrmPolicy) {}, []string{"10.0.0.9:80"}, []string{"10.0.1.9:80", "[fd00::9]:80"}},
		{"from the backend", func(p *netlink.XfrmPolicy) { p.Src, p.Dst, p.Dir = p.Dst, p.Src, netlink.XFRM_DIR_FWD },
			[]string{"10.0.0.9:80", "10.0.1.9:80"}, []string{"[fd00::9]:80"}},
		{"encrypt", func(p *netlink.XfrmPolicy) { p.Action, p.Tmpls = netlink.XFRM_POLICY_ALLOW, esp }, []string{"10.0.0.9:80"}, []string{"10.0.1.9:80"}},
		{"let pass", func(p *netlink.XfrmPolicy) { p.Action = netlink.XFRM_POLICY_ALLOW }, nil, []string{"10.0.0.9:80"}},
		{"IPv6", func(p *netlink.XfrmPolicy) { p.Src, p.Dst = network("::/0"), network("fd00::/64") }, []string{"[fd00::9]:80"}, []string{"10.0.0.9:80"}},
		// An address that looks like an IPv4 one to who does not heed the family.
		{"short IPv6", func(p *netlink.XfrmPolicy) { p.Src, p.Dst = network("::1/128"), network("2001:db8::/32") },
			[]string{"[2001:db8::9]:80"}, []string{"32.1.13.184:80", "10.0.0.9:80"}},
		{"port", func(p *netlink.XfrmPolicy) { p.Proto, p.DstPort = unix.IPPROTO_TCP, 443 }, []string{"10.0.0.9:443"}, []string{"10.0.0.9:80"}},
		{"another protocol", func(p *netlink.XfrmPolicy) { p.Proto = unix.IPPROTO_UDP }, nil, []string{"10.0.0.9:80"}},
		{"mark", func(p *netlink.XfrmPolicy) { p.Mark = &netlink.XfrmMark{Value: 42, Mask: 0xffffffff} }, []string{"10.0.0.9:80"}, nil},
		{"of an XFRM interface", func(p *netlink.XfrmPolicy) { p.Ifid = 7 }, nil, []string{"10.0.0.9:80"}},
	} {
		added := add(t, c.change)
		p, err := Read()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range c.covered {
			if !p.CoverBackend(lb.TCP, netip.MustParseAddrPort(a)) {
				t.Errorf("%s: %s is not covered by %+v", c.name, a, p)
			}
		}
		for _, a := range c.outside {
			if p.CoverBackend(lb.TCP, netip.MustParseAddrPort(a)) {
				t.Errorf("%s: %s is covered by %+v", c.name, a, p)
			}
		}
		if err := netlink.XfrmPolicyDel(added); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSubscribeTellsOfEachChange adds and removes a policy, and sets the default.
func TestSubscribeTellsOfEachChange(t *testing.T) {
	told := make(chan struct{}, 100) // more than there are changes: nobody waits for the reader
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		subscribe(ctx, func() { told <- struct{}{} })
		close(ended)
	}()
	defer func() {
		cancel()
		<-ended
	}()
	await := func(what string) {
		t.Helper()
		select {
		case <-told:
		case <-time.After(10 * time.Second):
			t.Fatal("not told of ", what)
		}
	}
	await("the beginning")
	p := add(t, func(*netlink.XfrmPolicy) {})
	await("a new policy")
	if err := netlink.XfrmPolicyDel(p); err != nil {
		t.Fatal(err)
	}
	await("a policy that is gone")
	const acceptPolicy = 2 // XFRM_USERPOLICY_ACCEPT, what a kernel begins with
	if err := setDefault(defaultBlock); err != nil {
		t.Skip("kernel lacks: a default IPsec policy: ", err)
	}
	t.Cleanup(func() {
		if err := setDefault(acceptPolicy); err != nil {
			t.Error(err)
		}
	})
	await("the default")
	if p, err := Read(); err != nil || !p.CoverBackend(lb.UDP, netip.MustParseAddrPort("[fd00::1]:53")) {
		t.Errorf("what no policy names is blocked: %+v, %v", p, err)
	}
}

// setDefault sets the default policy for what leaves the host.
func setDefault(out byte) error {
	r := nl.NewNetlinkRequest(0x27, unix.NLM_F_ACK) // XFRM_MSG_SETDEFAULT
	r.AddRawData([]byte{0, 0, out, 0})
	_, err := r.Execute(unix.NETLINK_XFRM, 0)
	return err
}

// TestClientsOfFrontends: which clients policies cover depends on what frontends send.
func TestClientsOfFrontends(t *testing.T) {
	any4, clients := netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("10.1.0.0/16")
	vip := netip.MustParsePrefix("192.0.2.1/32")
	frontends := []lb.Key{{Addr: vip.Addr(), Protocol: lb.TCP, Port: 80}, {Addr: netip.MustParseAddr("2001:db8::1"), Protocol: lb.UDP, Port: 53}}
	out := func(source, destination netip.Prefix, change ...func(*policy)) policy {
		p := policy{out: true, protects: true, priority: 5, source: source, destination: destination}
		for _, c := range change {
			c(&p)
		}
		return p
	}
	allow := func(priority uint32) func(*policy) {
		return func(p *policy) { p.protects, p.priority = false, priority }
	}
	for name, c := range map[string]struct {
		list []policy
		want map[netip.Prefix]bool
	}{
		"none":                {nil, map[netip.Prefix]bool{}},
		"from the frontend":   {[]policy{out(vip, clients)}, map[netip.Prefix]bool{clients: true}},
		"from anywhere":       {[]policy{out(any4, any4)}, map[netip.Prefix]bool{any4: true}},
		"from elsewhere":      {[]policy{out(clients, any4)}, map[netip.Prefix]bool{}},
		"in":                  {[]policy{out(vip, clients, func(p *policy) { p.out = false })}, map[netip.Prefix]bool{}},
		"marked":              {[]policy{out(vip, clients, func(p *policy) { p.marked = true })}, map[netip.Prefix]bool{}},
		"another protocol":    {[]policy{out(vip, clients, func(p *policy) { p.protocol = lb.UDP })}, map[netip.Prefix]bool{}},
		"another port":        {[]policy{out(vip, clients, func(p *policy) { p.sourcePort = ports{1701, 0xffff} })}, map[netip.Prefix]bool{}},
		"ports of a mask":     {[]policy{out(vip, clients, func(p *policy) { p.sourcePort = ports{64, 0xffc0} })}, map[netip.Prefix]bool{clients: true}},
		"let pass first":      {[]policy{out(any4, any4), out(any4, clients, allow(1))}, map[netip.Prefix]bool{any4: true, clients: false}},
		"let pass afterwards": {[]policy{out(any4, any4), out(any4, clients, allow(9))}, map[netip.Prefix]bool{any4: true}},
		"let another pass":    {[]policy{out(any4, any4), out(clients, clients, allow(1))}, map[netip.Prefix]bool{any4: true}},
		"let one port pass": {[]policy{out(any4, any4), out(any4, clients, allow(1), func(p *policy) { p.sourcePort = ports{22, 0xffff} })},
			map[netip.Prefix]bool{any4: true}},
	} {
		if got := (Policies{list: c.list}).Clients(frontends); !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	blocked := Policies{blocks: true, list: []policy{out(any4, clients, allow(1))}}.Clients(frontends)
	var covered []string
	for prefix, is := range blocked {
		if is {
			covered = append(covered, prefix.String())
		}
	}
	slices.Sort(covered)
	if want := []string{"0.0.0.0/0", "::/0"}; !slices.Equal(covered, want) || blocked[clients] {
		t.Errorf("where what no policy names is blocked: %v", blocked)
	}
}
