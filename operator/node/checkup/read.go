// SPDX-License-Identifier: Apache-2.0

package checkup

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/node/advice"
	"github.com/kubernetes-sigs/blixt/operator/node/ipsec"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/overview"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// mostBackends is of how many backends the ways are looked up.
const mostBackends = 256

// Read reads the Facts of this host and of its load balancers.
func Read(ctx context.Context, host *overview.Host, runDir string) (*Facts, error) {
	f := &Facts{Kernel: kernelRelease(), JIT: sysctl("net/core/bpf_jit_enable") != "0", BridgeFilter: sysctl("net/bridge/bridge-nf-call-iptables") == "1"}
	if err := loader.CheckPrivileges(); err != nil {
		f.PrivilegeError = err.Error()
	} else if err := loader.CheckKernel(); err != nil {
		f.KernelError = err.Error()
	}
	attached := map[string]bool{}
	for i := range host.Instances {
		if p := host.Instances[i].Program; p != nil {
			for _, name := range p.Interfaces {
				attached[name] = true
			}
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	names := map[int]string{}
	var own []netip.Addr
	for _, link := range links {
		a := link.Attrs()
		names[a.Index] = a.Name
		addresses, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil { // it has just gone
			continue
		}
		i := Interface{Name: a.Name, MTU: a.MTU, Attached: attached[a.Name], Loopback: a.Flags&net.FlagLoopback != 0,
			RPFilter: inForce("rp_filter", a.Name), ARPIgnore: inForce("arp_ignore", a.Name)}
		for _, address := range addresses {
			ip, _ := netip.AddrFromSlice(address.IP)
			own = append(own, ip.Unmap())
			if bits, _ := address.Mask.Size(); !ip.IsLinkLocalUnicast() && bits < ip.Unmap().BitLen() {
				i.Networks = append(i.Networks, netip.PrefixFrom(ip.Unmap(), bits).Masked())
			}
		}
		f.Interfaces = append(f.Interfaces, i)
	}
	policies, err := ipsec.Read()
	if err != nil {
		f.IPsecError = err.Error()
	}
	var all []advice.Backend
	var opens []advice.Open
	for i := range host.Instances {
		name := host.Instances[i].Name
		if host.Instances[i].Process == nil && host.Instances[i].Program == nil { // files are left
			continue
		}
		record, err := writer.LoadRecord(standalone.StateFile(runDir, name))
		if err != nil { // the overview says so
			continue
		}
		instance := Instance{Name: name}
		for _, a := range record.State.Addresses {
			instance.Addresses = append(instance.Addresses, a.IP)
		}
		if p := host.Instances[i].Program; p != nil {
			if err := standalone.CheckHostPorts(p.SNAT); err != nil {
				instance.PortsError = err.Error()
			}
		}
		f.Instances = append(f.Instances, instance)
		all = append(all, advice.Backends(record.State, own)...)
		opens = append(opens, advice.Opens(record.State, own)...)
	}
	f.Forwarding = advice.Forwarding(all)
	if f.Firewall, err = advice.Firewall(ctx, all); err != nil {
		f.FirewallError = err.Error()
	}
	if f.Input, err = advice.Input(ctx, opens); err != nil {
		f.FirewallError = err.Error()
	}
	for _, b := range all[:min(len(all), mostBackends)] {
		to := Backend{Backend: b}
		if routes, err := netlink.RouteGet(b.Addr.Addr().AsSlice()); err == nil && len(routes) > 0 {
			to.Out = names[routes[0].LinkIndex]
		}
		f.Backends = append(f.Backends, to)
		if policies.CoverBackend(b.Protocol, b.Addr) {
			f.Covered = append(f.Covered, b.Addr.String())
		}
	}
	f.Covered = slices.Compact(slices.Sorted(slices.Values(f.Covered)))
	f.ReversePathDrops = reversePathDrops()
	f.Conntrack, f.ConntrackMax = number(sysctl("net/netfilter/nf_conntrack_count")), number(sysctl("net/netfilter/nf_conntrack_max"))
	return f, nil
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "(unknown)"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// sysctl returns a value, "": there is none.
func sysctl(name string) string {
	text, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func number(text string) uint64 {
	n, _ := strconv.ParseUint(text, 10, 64) // none: 0
	return n
}

// inForce returns the value of a setting of IPv4 that holds at an interface: the larger
// one of its own and that of all.
func inForce(setting, name string) int {
	return int(max(number(sysctl("net/ipv4/conf/all/"+setting)), number(sysctl("net/ipv4/conf/"+name+"/"+setting))))
}

// reversePathDrops returns how many packets rp_filter has dropped.
func reversePathDrops() uint64 {
	text, err := os.ReadFile("/proc/net/netstat")
	if err != nil {
		return 0
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "TcpExt:" {
			continue
		}
		if names == nil {
			names = words
		} else if i := slices.Index(names, "IPReversePathFilter"); i > 0 && i < len(words) {
			return number(words[i])
		}
	}
	return 0
}
