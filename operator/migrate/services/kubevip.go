// SPDX-License-Identifier: Apache-2.0

package services

import (
	"regexp"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// kubeVIP: pkg/kubevip/annotations.go of kube-vip/kube-vip.
var kubeVIP = vendor{
	name: "kube-vip", is: regexp.MustCompile(`^kube-vip\.io/`), others: unknown,
	rules: map[string]rule{
		"kube-vip.io/loadbalancerIPs":                   {kubeVIPAddresses, "spec.addresses of the Gateway; 0.0.0.0 and :: ask for a DHCP lease: carried over, and the Gateway gets another lease"},
		"kube-vip.io/loadbalancerHostname":              carried,
		"kube-vip.io/serviceInterface":                  carried,
		"kube-vip.io/serviceVLAN":                       carried,
		"kube-vip.io/macvlanName":                       carried,
		"kube-vip.io/dhcp-broadcast":                    carried,
		"kube-vip.io/ddns":                              carried,
		"kube-vip.io/rp_filter":                         carried,
		"kube-vip.io/forwardUPNP":                       carried,
		"kube-vip.io/upnp-lease-duration":               carried,
		"kube-vip.io/ignore":                            carried,
		"kube-vip.io/ignore-service-security":           carried,
		"kube-vip.io/forcePerServiceElection":           carried,
		"kube-vip.io/allow-reconcile-without-endpoints": carried,
		"kube-vip.io/leaseName":                         carriedWith(migrate.Changed, "two Services with one lease are announced by the same node"),
		"kube-vip.io/flush-conntrack":                   said(migrate.Unneeded, "Blixt keeps its flows itself: those of backends that are gone are reset"),
		"kube-vip.io/egress":                            unless("false", noEgress),
		"kube-vip.io/egress-*":                          noEgress,
		"kube-vip.io/egress-nftables-table":             written,
		"kube-vip.io/requestedIP":                       written,
		"kube-vip.io/vipHost":                           written,
		"kube-vip.io/hwaddr":                            written,
		"kube-vip.io/active-endpoint":                   written,
		"kube-vip.io/active-endpoint-ipv6":              written,
	},
}

var noEgress = said(migrate.Lost, "connections that pods open do not get the address as their source: keep a Service of type LoadBalancer with this annotation for them, or use an egress gateway of the CNI")

func kubeVIPAddresses(s *service, key, value string) {
	for _, text := range strings.Split(value, ",") {
		if text = strings.TrimSpace(text); text == "0.0.0.0" || text == "::" {
			s.annotations[key] = value
			s.note(s.at(key), migrate.Changed, "%s %q asks for a DHCP lease, and is carried over: the Gateway gets a lease of its own, hence another address", key, value)
			return
		}
	}
	s.want(s.at(key), key, value)
}
