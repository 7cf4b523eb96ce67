// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/advice"
	"github.com/kubernetes-sigs/blixt/operator/node/checkup"
	"github.com/kubernetes-sigs/blixt/operator/node/overview"
)

// What people read of a host, for each thing that may be wrong with it.
func TestDoctorOfAHost(t *testing.T) {
	prefix := netip.MustParsePrefix
	given := map[string][]finding.Level{}
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
		"input": func(f *checkup.Facts) {
			f.Input = []string{"the host's firewall restricts who may connect to frontend 192.0.2.10:80/tcp (table filter: -A ufw-user-input -s 10.0.0.0/8 -p tcp -m tcp --dport 80 -j ACCEPT), but rules of the input hook do not hold for what Blixt serves: every client may connect"}
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
				if x.Verdict != finding.OK && x.Verdict != finding.Unknown && !slices.Contains(given[x.Check], x.Verdict) {
					given[x.Check] = append(given[x.Check], x.Verdict)
				}
			}
			var out bytes.Buffer
			findingTable(&out, found)
			golden.File(t, "testdata/doctor/"+strings.ReplaceAll(name, " ", "-")+".txt", out.Bytes())
		})
	}
	for _, g := range checkup.Guides {
		slices.Sort(given[g.Check]) // failed, warning
		if !slices.Equal(given[g.Check], g.Verdicts()) {
			t.Errorf("%s: cases show %v, the guide explains %v", g.Check, given[g.Check], g.Verdicts())
		}
	}
}

// Each check of a host has a guide, in the order in which doctor prints them, and no guide is
// of a check that there is not.
func TestGuidesOfAHost(t *testing.T) {
	var names, explained []string
	for _, f := range checkup.Check(&checkup.Facts{}) {
		if !slices.Contains(names, f.Check) {
			names = append(names, f.Check)
		}
	}
	for _, g := range checkup.Guides {
		explained = append(explained, g.Check)
	}
	if !slices.Equal(names, explained) {
		t.Errorf("checks are\n%v, and guides\n%v", names, explained)
	}

	// What package overview finds has its name where it is found.
	names, explained = []string{"load-balancers"}, nil
	code, err := os.ReadFile("../../node/overview/check.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?:\badd\(|Check: |f\.Check(?:, f\.Remedy)? = )"([a-z-]+)"`).FindAllStringSubmatch(string(code), -1) {
		if !slices.Contains(names, m[1]) {
			names = append(names, m[1])
		}
	}
	for _, g := range overview.Guides {
		explained = append(explained, g.Check)
	}
	slices.Sort(names)
	slices.Sort(explained)
	if !slices.Equal(names, explained) || len(names) < 10 {
		t.Errorf("checks are\n%v, and guides\n%v", names, explained)
	}
}

// A guide is printed of a host, of a cluster or of both; a typo is answered with all names.
func TestExplain(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{"rp-filter"}, 0, []string{"rp-filter (host)\n  Looks at: ", "\n  Warning:  ", "\n  Cause:    ", "\n  Cure:     sysctl -w net/ipv4/conf/INTERFACE/rp_filter=2 "}},
		{[]string{"kernel"}, 0, []string{"kernel (host)\n", "\n\nkernel (cluster)\n", "uname -r", "kubectl get nodes"}},
		{[]string{"kernel", "cluster"}, 0, []string{"kernel (cluster)\n"}},
		{[]string{"bpfman-pins"}, 0, []string{"bpfman-pins (cluster)\n"}},
		{[]string{"bpfman-pins", "host"}, 1, []string{`no check "bpfman-pins": the checks are kernel, jit, forwarding`}},
		{[]string{"rp_filter"}, 1, []string{`no check "rp_filter": the checks are kernel,`, "rp-filter", "bpfman-pins"}},
	} {
		out, code := runBlixt(t, append([]string{"doctor", "--explain"}, c.args...)...)
		if code != c.code {
			t.Errorf("%v: exit code %d, want %d", c.args, code, c.code)
		}
		for _, part := range c.want {
			if !strings.Contains(out, part) {
				t.Errorf("%v: got\n%s\nwant %q in it", c.args, out, part)
			}
		}
		if strings.Contains(out, "`") || c.args[0] == "kernel" && len(c.args) > 1 && strings.Contains(out, "host") {
			t.Errorf("%v: got too much\n%s", c.args, out)
		}
	}
}
