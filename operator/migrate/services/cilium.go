// SPDX-License-Identifier: Apache-2.0

package services

import (
	"regexp"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// cilium: pkg/annotation/k8s.go of cilium/cilium.
var cilium = vendor{
	name: "Cilium", is: regexp.MustCompile(`^(([A-Za-z0-9-]+\.)*cilium\.io|io\.cilium(\.[A-Za-z0-9-]+)*)/`), others: unknown,
	rules: map[string]rule{
		"lbipam.cilium.io/ips":                          asks,
		"io.cilium/lb-ipam-ips":                         asks,
		"lbipam.cilium.io/sharing-key":                  ciliumShare,
		"io.cilium/lb-ipam-sharing-key":                 ciliumShare,
		"lbipam.cilium.io/sharing-cross-namespace":      {nil, "with it, Services of several namespaces that share an address become one Gateway"},
		"io.cilium/lb-ipam-sharing-cross-namespace":     {nil, "with it, Services of several namespaces that share an address become one Gateway"},
		"io.cilium.nodeipam/match-node-labels":          said(migrate.Changed, "for addresses of nodes have the administrator set spec.addresses.source of the BlixtConfig to Node, and spec.dataplane.nodes to these labels"),
		"service.cilium.io/type":                        said(migrate.Unneeded, "a Gateway is served at its addresses and ports, and nowhere else"),
		"service.cilium.io/src-ranges-policy":           {rangesPolicy, "deny: loadBalancerSourceRanges become sources.deny of a BlixtPolicy"},
		"service.cilium.io/lb-algorithm":                {algorithm, "unneeded: new connections are spread by a hash, in shares of the weights"},
		"service.cilium.io/forwarding-mode":             {forwarding, "dsr: changed, answers go back by the node that the connection came in by; snat: see docs/client-address.md"},
		"service.cilium.io/global":                      unless("false", otherClusters),
		"io.cilium/global-service":                      unless("false", otherClusters),
		"service.cilium.io/shared":                      said(migrate.Unneeded, "it is about other clusters, and stays with the Service"),
		"io.cilium/shared-service":                      said(migrate.Unneeded, "it is about other clusters, and stays with the Service"),
		"service.cilium.io/global-sync-endpoint-slices": said(migrate.Unneeded, "it stays with the Service, and Blixt serves the EndpointSlices that it makes"),
		"service.cilium.io/affinity":                    unless("none", otherClusters),
		"io.cilium/service-affinity":                    unless("none", otherClusters),
		"service.cilium.io/node":                        otherNodes,
		"service.cilium.io/node-selector":               otherNodes,
		"service.cilium.io/proxy-delegation":            unless("none", said(migrate.Lost, "packets go to the endpoints of the Service, and to no proxy of the node")),
		"service.cilium.io/lb-l7":                       unless("disabled", said(migrate.Lost, "Blixt balances connections, and no requests: keep what balances HTTP or gRPC, as a backend")),
		"io.cilium.service/lb-l7":                       unless("disabled", said(migrate.Lost, "Blixt balances connections, and no requests: keep what balances HTTP or gRPC, as a backend")),
		"service.cilium.io/lb-l7-algorithm":             said(migrate.Lost, "Blixt balances connections, and no requests"),
		"io.cilium.service/lb-l7-algorithm":             said(migrate.Lost, "Blixt balances connections, and no requests"),
	},
}

var (
	otherClusters = said(migrate.Lost, "endpoints of other clusters are served only if they are in EndpointSlices of the Service: set service.cilium.io/global-sync-endpoint-slices, and weights by several Services")
	otherNodes    = said(migrate.Changed, "all nodes with the data plane serve every Gateway: choose nodes in spec.dataplane.nodes of the BlixtConfig")
)

// ciliumShare is share within a namespace, unless an annotation allows others.
var ciliumShare = rule{func(s *service, key, value string) {
	share.do(s, key, value)
	if s.sharing != "" && s.obj.Annotations["lbipam.cilium.io/sharing-cross-namespace"]+s.obj.Annotations["io.cilium/lb-ipam-sharing-cross-namespace"] == "" {
		s.sharing += " in " + s.Namespace
	}
}, share.text}

func rangesPolicy(s *service, key, value string) {
	switch strings.ToLower(value) {
	case "deny":
		s.denies = true
	case "allow":
	default:
		s.note(s.at(key), migrate.Lost, "%s %q is not allow or deny: the ranges are those who may connect", key, value)
	}
}

func algorithm(s *service, key, value string) {
	s.balances = value
	s.note(s.at(key), migrate.Unneeded, "%s %q: Blixt spreads new connections by a hash over all backends, in shares of their weights", key, value)
}

func forwarding(s *service, key, value string) {
	switch strings.ToLower(value) {
	case "dsr":
		s.note(s.at(key), migrate.Changed, "%s %q: answers go back by the node that the connection came in by, not directly. Backends see their clients' addresses all the same", key, value)
	case "snat":
		s.note(s.at(key), migrate.Changed, "%s %q: backends see their clients' addresses; clientAddress: Node in a BlixtGatewayConfig has them see the node's, as before", key, value)
	default:
		s.note(s.at(key), migrate.Lost, "%s %q is not dsr or snat", key, value)
	}
}
