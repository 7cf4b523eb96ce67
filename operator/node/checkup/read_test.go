// SPDX-License-Identifier: Apache-2.0

package checkup_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/kubernetes-sigs/blixt/e2e/lib/ownhost"
	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/checkup"
	"github.com/kubernetes-sigs/blixt/operator/node/overview"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

func TestMain(m *testing.M) { ownhost.Main(m, func() error { return nil }) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Settings of a real host are found, and are not when they are mended as the remedies
// say.
func TestSettingsOfAHostAreFound(t *testing.T) {
	for name, network := range map[string]string{"eth0": "192.0.2.1/24", "eth1": "10.0.0.1/24"} {
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "peer-" + name}
		must(t, netlink.LinkAdd(link))
		address, err := netlink.ParseAddr(network)
		must(t, err)
		must(t, netlink.AddrAdd(link, address))
		must(t, netlink.LinkSetUp(link))
	}
	must(t, netlink.LinkSetMTU(mustLink(t, "eth1"), 1400))
	dir := t.TempDir()
	record, err := json.Marshal(writer.Record{State: lb.State{
		Addresses: []lb.Address{{IP: netip.MustParseAddr("192.0.2.9")}},
		Frontends: []lb.Frontend{{Addr: netip.MustParseAddr("192.0.2.9"), Port: 80, Protocol: lb.TCP, Backends: []lb.Backend{
			{Addr: netip.MustParseAddrPort("10.0.0.9:80"), Local: true}, {Addr: netip.MustParseAddrPort("10.0.0.1:80")},
		}}},
	}})
	must(t, err)
	must(t, os.WriteFile(standalone.StateFile(dir, "web"), record, 0o644))
	host := &overview.Host{Instances: []overview.Instance{{Name: "web", Program: &overview.Program{Interfaces: []string{"eth0", "eth1"}, SNAT: lb.DefaultSNATPorts}}}}

	settings := map[string][2]string{ // wrong and right
		"net/ipv4/ip_forward":           {"0", "1"},
		"net/ipv4/conf/all/rp_filter":   {"0", "0"},
		"net/ipv4/conf/eth0/rp_filter":  {"1", "2"},
		"net/ipv4/conf/eth1/rp_filter":  {"0", "2"},
		"net/ipv4/conf/eth0/arp_ignore": {"8", "1"},
	}
	for i, want := range []string{"forwarding failed, rp-filter warning, arp failed, mtu warning", "mtu warning"} {
		for name, values := range settings {
			must(t, os.WriteFile("/proc/sys/"+name, []byte(values[i]), 0o644))
		}
		facts, err := checkup.Read(t.Context(), host, dir)
		must(t, err)
		if len(facts.Backends) != 1 || facts.Backends[0].Out != "eth1" {
			t.Errorf("of the backends one is not the host's own, at eth1: %+v", facts.Backends)
		}
		var got []string
		for _, f := range checkup.Check(facts) {
			// What holds for the whole machine is not the test's.
			if f.Verdict != finding.OK && f.Check != "kernel" && f.Check != "jit" && f.Check != "bridge-filter" && f.Check != "conntrack" {
				got = append(got, f.Check+" "+string(f.Verdict))
			}
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("found %q, want %q", got, want)
		}
	}
}

func mustLink(t *testing.T, name string) netlink.Link {
	t.Helper()
	link, err := netlink.LinkByName(name)
	must(t, err)
	return link
}
