// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package client

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// setSwitch has the switch drop what has a source that its sender does not have: a
// node has its addresses, those of its pods if there is no tunnel for those, and, if it
// serves, the VIPs. With conntrack it also drops what conntrack calls invalid.
func (w *world) setSwitch(conntrack bool) {
	w.Helper()
	var rules strings.Builder
	rules.WriteString("table bridge switch\ndelete table bridge switch\ntable bridge switch {\n\tcounter spoofed { }\n\tchain forward {\n\t\ttype filter hook forward priority 0\n")
	for _, h := range w.hosts {
		four, six := []string{h.IPv4}, []string{h.IPv6, "fe80::/10", "::"}
		if !w.tunnel {
			four, six = append(four, h.podNet4()), append(six, h.podNet6())
		}
		if h != w.b {
			four, six = append(four, vips4), append(six, vips6)
		}
		port := h.Name + "-eth0"
		fmt.Fprintf(&rules, "\t\tiifname %s ip saddr != { %s } counter name spoofed drop\n", port, strings.Join(four, ", "))
		fmt.Fprintf(&rules, "\t\tiifname %s ip6 saddr != { %s } counter name spoofed drop\n", port, strings.Join(six, ", "))
	}
	rules.WriteString("\t}\n}\ntable inet tracked\ndelete table inet tracked\n")
	call := "0"
	if conntrack {
		call = "1"
		rules.WriteString("table inet tracked {\n\tcounter invalid { }\n\tchain forward {\n\t\ttype filter hook forward priority 0\n\t\tct state invalid counter name invalid drop\n\t}\n}\n")
	}
	if lab.BridgeNetfilter() {
		w.swtch.Sysctl("net.bridge.bridge-nf-call-iptables="+call, "net.bridge.bridge-nf-call-ip6tables="+call)
	} else if conntrack {
		w.Skip("kernel lacks: br_netfilter")
	}
	w.nft(w.swtch, "switch", rules.String())
}

// rules are of one family of a node: what kube-proxy and a network plugin give it.
// $PODS and $LOCAL are the networks of all pods and of the node's, $IP is ip or ip6.
const (
	// iptablesRules are those of kube-proxy in iptables mode, on a host whose chain
	// FORWARD drops.
	iptablesRules = `
table $IP filter {
	counter invalid { }
	counter dropped { }
	chain FORWARD {
		type filter hook forward priority filter; policy drop
		ct state invalid counter name invalid drop
		meta mark and 0x4000 == 0x4000 accept
		ct state related,established accept
		$IP saddr $PODS accept
		$IP daddr $PODS accept
		counter name dropped
	}
}
table $IP nat {
	counter masqueraded { }
	chain KUBE-POSTROUTING {
		meta mark and 0x4000 == 0 return
		meta mark set meta mark xor 0x4000
		counter name masqueraded masquerade fully-random
	}
	chain PLUGIN-POSTRTG {
		meta mark and 0x4000 == 0x4000 return
		$IP saddr $LOCAL $IP daddr $PODS return
		$IP saddr $PODS $IP daddr $LOCAL return
		$IP saddr != $PODS $IP daddr $LOCAL return
		$DIRECT
		$IP saddr $PODS $IP daddr != $MULTICAST counter name masqueraded masquerade fully-random
		$TUNNELED
	}
	chain POSTROUTING {
		type nat hook postrouting priority srcnat
		jump KUBE-POSTROUTING
		jump PLUGIN-POSTRTG
	}
}
`
	// nftablesRules are those of kube-proxy in nftables mode, beside the same of the plugin.
	nftablesRules = `
table $IP kube-proxy {
	counter invalid { }
	counter dropped { }
	counter masqueraded { }
	chain filter-forward {
		type filter hook forward priority -110
		ct state invalid counter name invalid drop
	}
	chain masquerading {
		meta mark and 0x4000 == 0 return
		meta mark set meta mark xor 0x4000
		counter name masqueraded masquerade fully-random
	}
	chain nat-postrouting {
		type nat hook postrouting priority srcnat
		jump masquerading
	}
}
table $IP plugin {
	counter masqueraded { }
	chain postrtg {
		type nat hook postrouting priority srcnat
		meta mark and 0x4000 == 0x4000 return
		$IP saddr $LOCAL $IP daddr $PODS return
		$IP saddr $PODS $IP daddr $LOCAL return
		$IP saddr != $PODS $IP daddr $LOCAL return
		$DIRECT
		$IP saddr $PODS $IP daddr != $MULTICAST counter name masqueraded masquerade fully-random
		$TUNNELED
	}
	chain forward {
		type filter hook forward priority filter
		$IP saddr $PODS accept
		$IP daddr $PODS accept
	}
}
`
)

// setProxy gives all nodes the rules of kube-proxy in a mode, and those of a network
// plugin that translates the sources of pods towards the VIPs.
func (w *world) setProxy(mode string) { w.setRules(mode, true) }

// setRules is setProxy, if masquerade is true, and else with a plugin that leaves the
// sources of pods as they are towards the VIPs.
func (w *world) setRules(mode string, masquerade bool) {
	w.Helper()
	text := map[string]string{"iptables": iptablesRules, "nftables": nftablesRules}[mode]
	for _, h := range w.hosts {
		var rules strings.Builder
		for _, table := range []string{"filter", "nat", "kube-proxy", "plugin"} {
			for _, ip := range []string{"ip", "ip6"} {
				fmt.Fprintf(&rules, "table %[1]s %[2]s\ndelete table %[1]s %[2]s\n", ip, table)
			}
		}
		for _, f := range []struct{ ip, pods, local, multicast, vips string }{
			{"ip", pods4, h.podNet4(), "224.0.0.0/4", vips4}, {"ip6", pods6, h.podNet6(), "ff00::/8", vips6},
		} {
			direct := ""
			if !masquerade {
				direct = "$IP daddr " + f.vips + " return"
			}
			tunneled := ""
			if w.tunnel {
				tunneled = "$IP saddr != $PODS $IP daddr $PODS counter name masqueraded masquerade fully-random"
			}
			rules.WriteString(strings.NewReplacer("$IP", f.ip, "$PODS", f.pods, "$LOCAL", f.local, "$MULTICAST", f.multicast).
				Replace(strings.NewReplacer("$DIRECT", direct, "$TUNNELED", tunneled).Replace(text)))
		}
		w.nft(h.Node, "proxy", rules.String())
		if w.tunnel {
			h.Sysctl("net.bridge.bridge-nf-call-iptables=1", "net.bridge.bridge-nf-call-ip6tables=1")
		}
	}
}

// ruleCounts returns how many packets a node's rules have counted, by the counter's name.
func (w *world) ruleCounts(n *lab.Node) map[string]uint64 {
	w.Helper()
	out, err := n.Run(patience, "nft", "-j", "list", "counters")
	w.Check(err)
	var list struct {
		Nftables []struct {
			Counter *struct {
				Name    string
				Packets uint64
			}
		}
	}
	w.Check(json.Unmarshal([]byte(out), &list))
	counts := map[string]uint64{}
	for _, e := range list.Nftables {
		if e.Counter != nil {
			counts[e.Counter.Name] += e.Counter.Packets
		}
	}
	return counts
}
