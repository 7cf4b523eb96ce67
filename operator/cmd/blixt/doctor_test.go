// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/advice"
	"github.com/kubernetes-sigs/blixt/operator/node/checkup"
)

// What people read of a host, for each thing that may be wrong with it.
func TestDoctorOfAHost(t *testing.T) {
	prefix := netip.MustParsePrefix
	for name, change := range map[string]func(*checkup.Facts){
		"healthy": func(*checkup.Facts) {},
		"empty":   func(f *checkup.Facts) { f.Instances, f.Backends, f.Interfaces = nil, nil, nil },
		"kernel":  func(f *checkup.Facts) { f.KernelError, f.JIT = "the kernel has no TCX links", false },
		"no right": func(f *checkup.Facts) {
			f.PrivilegeError, f.IPsecError, f.FirewallError = "missing CAP_BPF", "list IPsec policies: operation not permitted", "iptables-save: exit status 4"
		},
		"forwarding": func(f *checkup.Facts) {
			f.Forwarding = []string{"net.ipv4.ip_forward is 0: packets to backends on other machines will be dropped, as those to containers; run: sysctl -w net.ipv4.ip_forward=1"}
		},
		"rp filter": func(f *checkup.Facts) { f.Interfaces[1].RPFilter, f.ReversePathDrops = 1, 1234 },
		"arp": func(f *checkup.Facts) {
			f.Interfaces[1].ARPIgnore = 8
			f.Interfaces[2].Networks = []netip.Prefix{prefix("192.0.2.0/24")}
		},
		"mtu": func(f *checkup.Facts) { f.Interfaces[2].MTU = 1400 },
		"docker": func(f *checkup.Facts) {
			f.Firewall = []string{"this host's firewall drops packets to backend 172.17.0.2:80 at docker0 (table filter: -P FORWARD DROP); run: iptables -t filter -I DOCKER-USER -d 172.17.0.2/32 -p tcp --dport 80 -j ACCEPT"}
			f.BridgeFilter = true
		},
		"full":  func(f *checkup.Facts) { f.Conntrack, f.ConntrackMax = 65000, 65536 },
		"ipsec": func(f *checkup.Facts) { f.Covered = []string{"10.0.0.9:80"} },
		"ports": func(f *checkup.Facts) {
			f.Instances[0].PortsError = "SNAT ports 11000-29999 are used by connections of this host (net.ipv4.ip_local_port_range is 10000-60999): choose others with --snat-ports"
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := &checkup.Facts{
				Kernel: "6.12.1", JIT: true,
				Interfaces: []checkup.Interface{
					{Name: "lo", MTU: 65536, Attached: true, Loopback: true, Networks: []netip.Prefix{prefix("127.0.0.0/8")}},
					{Name: "eth0", MTU: 1500, Attached: true, Networks: []netip.Prefix{prefix("192.0.2.0/24")}},
					{Name: "eth1", MTU: 1500, Attached: true, Networks: []netip.Prefix{prefix("10.0.0.0/24")}},
				},
				Instances: []checkup.Instance{{Name: "default", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}},
				Backends: []checkup.Backend{
					{Backend: advice.Backend{Addr: netip.MustParseAddrPort("10.0.0.9:80"), Protocol: lb.TCP}, Out: "eth1"},
					{Backend: advice.Backend{Addr: netip.MustParseAddrPort("172.17.0.2:80"), Protocol: lb.TCP, Stack: true}, Out: "docker0"},
				},
			}
			change(f)
			found := checkup.Check(f)
			for _, x := range found {
				if x.Seen == "" || (x.Verdict == finding.Failed || x.Verdict == finding.Warning) && x.Remedy == "" {
					t.Errorf("%+v says too little", x)
				}
			}
			var out bytes.Buffer
			findingTable(&out, found)
			golden.File(t, "testdata/doctor/"+strings.ReplaceAll(name, " ", "-")+".txt", out.Bytes())
		})
	}
}
