// SPDX-License-Identifier: Apache-2.0

package services

import (
	"regexp"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// kubernetes are annotations of Kubernetes itself, of external-dns and of k3s.
var kubernetes = vendor{
	name: "Kubernetes, external-dns, k3s", is: regexp.MustCompile(`^(service\.kubernetes\.io|external-dns\.alpha\.kubernetes\.io|svccontroller\.k3s\.cattle\.io)/`), others: unknown,
	rules: map[string]rule{
		annotationSourceRanges:                       {nil, "sources.allow of a BlixtPolicy"},
		"service.kubernetes.io/topology-mode":        said(migrate.Unneeded, "it stays with the Service, and Blixt follows the hints that its EndpointSlices get"),
		"service.kubernetes.io/topology-aware-hints": said(migrate.Unneeded, "it stays with the Service, and Blixt follows the hints that its EndpointSlices get"),
		"service.kubernetes.io/headless":             written,
		"service.kubernetes.io/tcp-*":                written,
		"service.kubernetes.io/udp-*":                written,
		"service.kubernetes.io/backend-service*":     written,
		"service.kubernetes.io/firewall-rule*":       written,
		"service.kubernetes.io/healthcheck*":         written,
		"external-dns.alpha.kubernetes.io/*":         carriedWith(migrate.Changed, "the record gets the Gateway's addresses besides the Service's. Take the annotation off the Service once the Gateway serves"),
		"svccontroller.k3s.cattle.io/*":              said(migrate.Changed, "k3s gives addresses of nodes: have the administrator set spec.addresses.source of the BlixtConfig to Node, and choose nodes in spec.dataplane.nodes"),
	},
}

// elsewhere are clouds of which not every annotation is known here.
var elsewhere = vendor{
	name: "other clouds", is: regexp.MustCompile(`^(` + strings.Join([]string{
		`load-balancer\.hetzner\.cloud/`, `loadbalancer\.openstack\.org/`, `loadbalancer\.ovhcloud\.com/`, `oci(-network-load-balancer)?\.oraclecloud\.com/`,
		`purelb\.io/`, `k8s\.scaleway\.com/`, `kubernetes\.digitalocean\.com/`, `service\.kubernetes\.io/(qcloud|tke|ibm)-`,
		`service\.(beta|alpha)\.kubernetes\.io/`,
	}, "|") + `)`),
	others: trusted,
}
