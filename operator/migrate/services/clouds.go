// SPDX-License-Identifier: Apache-2.0

package services

import (
	"maps"
	"regexp"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// prefixed returns rules for names with the same prefix.
func prefixed(prefix string, r rule, names string) map[string]rule {
	all := map[string]rule{}
	for _, name := range strings.Fields(names) {
		all[prefix+name] = r
	}
	return all
}

// merged returns the rules of all; later ones come first.
func merged(all ...map[string]rule) map[string]rule {
	one := map[string]rule{}
	for _, rules := range all {
		maps.Copy(one, rules)
	}
	return one
}

const beta = "service.beta.kubernetes.io/"

// aws: docs/guide/service/annotations.md of kubernetes-sigs/aws-load-balancer-controller, and
// the annotations of the cloud provider before it.
var aws = vendor{
	name: "AWS", is: regexp.MustCompile(`^service\.beta\.kubernetes\.io/(aws-load-balancer-|load-balancer-aws-)|^service\.k8s\.aws/`), others: unknown,
	rules: merged(
		prefixed(beta+"aws-load-balancer-", carried, `
			type scheme internal subnets ip-address-type attributes additional-resource-tags target-node-labels backend-protocol
			ssl-cert ssl-ports ssl-negotiation-policy alpn-policy security-groups extra-security-groups
			manage-backend-security-group-rules inbound-sg-rules-on-private-link-traffic
			cross-zone-load-balancing-enabled connection-idle-timeout connection-draining-enabled connection-draining-timeout
			access-log-enabled access-log-emit-interval access-log-s3-bucket-name access-log-s3-bucket-prefix
			healthcheck-protocol healthcheck-path healthcheck-healthy-threshold healthcheck-unhealthy-threshold
			healthcheck-timeout healthcheck-interval healthcheck-success-codes
			enable-prefix-for-ipv6-source-nat source-nat-ipv6-prefixes minimum-load-balancer-capacity
			enable-icmp-for-path-mtu-discovery enable-tcp-udp-listener multi-cluster-target-group listener-attributes.*`),
		prefixed(beta+"aws-load-balancer-", held, `name eip-allocations private-ipv4-addresses ipv6-addresses`),
		map[string]rule{
			beta + "aws-load-balancer-nlb-target-type":         {targetType, "instance: carried over; ip: becomes instance, as the load balancer would send past Blixt"},
			beta + "aws-load-balancer-type":                    {loadBalancerType, "carried over; nlb-ip becomes external with nlb-target-type instance"},
			beta + "aws-load-balancer-proxy-protocol":          carriedWith(migrate.Unneeded, "Blixt passes the header on to backends, which must expect it as before"),
			beta + "aws-load-balancer-healthcheck-port":        carriedWith(migrate.Changed, "if it is a node port, the Gateway's Service has another one"),
			beta + "aws-load-balancer-target-group-attributes": {targetGroup, "carried over; preserve_client_ip.enabled=false and stickiness.enabled=true are said, the latter makes affinity of a BlixtPolicy"},
			"service.k8s.aws/*":                                written,
		}),
}

func targetType(s *service, key, value string) {
	if strings.TrimSpace(value) == "ip" {
		s.note(s.at(key), migrate.Changed, "%s %q: the load balancer would send to pods, past Blixt, so it becomes instance", key, value)
		value = "instance"
	}
	s.annotations[key] = value
}

func loadBalancerType(s *service, key, value string) {
	if strings.TrimSpace(value) == "nlb-ip" {
		s.note(s.at(key), migrate.Changed, "%s %q: the load balancer would send to pods, past Blixt, so it becomes external, with nlb-target-type instance", key, value)
		s.annotations[beta+"aws-load-balancer-nlb-target-type"] = "instance"
		value = "external"
	}
	s.annotations[key] = value
}

func targetGroup(s *service, key, value string) {
	s.annotations[key] = value
	for _, pair := range strings.Split(value, ",") {
		switch strings.ReplaceAll(pair, " ", "") {
		case "preserve_client_ip.enabled=false":
			s.note(s.at(key), migrate.Changed, "%s %q: Blixt and the backends see the load balancer as the client, and so do sources and limits of BlixtPolicies. Without preserve_client_ip.enabled=false they see the client", key, value)
		case "stickiness.enabled=true":
			s.policy.Affinity = s.affinity(0)
			s.note(s.at(key), migrate.Changed, "%s %q: the load balancer keeps a client at a node, and a BlixtPolicy with affinity keeps it at a backend", key, value)
		}
	}
}

// gcp: pkg/annotations/service.go of kubernetes/ingress-gce, and
// https://cloud.google.com/kubernetes-engine/docs/concepts/service-load-balancer-parameters
var gcp = vendor{
	name: "Google Cloud", is: regexp.MustCompile(`^((beta\.)?cloud\.google\.com|networking\.gke\.io)/`), others: unknown,
	rules: merged(
		prefixed("networking.gke.io/", carried, `load-balancer-type load-balancer-subnet internal-load-balancer-subnet
			internal-load-balancer-allow-global-access weighted-load-balancing zonal-affinity-spillover-ratio
			l4-logging-config-map connection-draining-timeout transparent-health-checker`),
		prefixed("cloud.google.com/", carried, `load-balancer-type network-tier l4-rbs`),
		prefixed("cloud.google.com/", said(migrate.Unneeded, "it is about Ingress and HTTP, and stays with the Service"), `neg backend-config app-protocols`),
		map[string]rule{
			"beta.cloud.google.com/backend-config":         said(migrate.Unneeded, "it is about Ingress and HTTP, and stays with the Service"),
			"networking.gke.io/load-balancer-ip-addresses": held,
			"networking.gke.io/l4-strong-session-affinity": {func(s *service, key, value string) {
				s.annotations[key] = value
				s.note(s.at(key), migrate.Changed, "%s %q is carried over: it keeps a client at a node. sessionAffinity keeps it at a backend, by a BlixtPolicy", key, value)
			}, "carried over; changed: it keeps a client at a node"},
			"cloud.google.com/neg-status": written,
		}),
}

// azure: site/content/en/topics/loadbalancer.md of kubernetes-sigs/cloud-provider-azure.
var azure = vendor{
	name: "Azure", is: regexp.MustCompile(`^service\.beta\.kubernetes\.io/(azure-|port_)`), others: unknown,
	rules: merged(
		prefixed(beta+"azure-", carried, `
			load-balancer-internal load-balancer-internal-subnet load-balancer-mode load-balancer-configurations load-balancer-resource-group
			load-balancer-tcp-idle-timeout load-balancer-enable-high-availability-ports load-balancer-disable-tcp-reset
			load-balancer-health-probe-protocol load-balancer-health-probe-interval load-balancer-health-probe-num-of-probe
			load-balancer-health-probe-request-path disable-load-balancer-floating-ip shared-securityrule allowed-service-tags
			allowed-ip-ranges deny-all-except-load-balancer-source-ranges pip-prefix-id pip-prefix-id-ipv6 pip-tags pip-ip-tags pls-*`),
		prefixed(beta+"azure-", held, `dns-label-name pip-name pip-name-ipv6 additional-public-ips`),
		map[string]rule{
			beta + "azure-load-balancer-ipv4": azureAddress,
			beta + "azure-load-balancer-ipv6": azureAddress,
			beta + "port_*":                   carried,
		}),
}

var azureAddress = rule{func(s *service, key, value string) {
	if !s.stays {
		s.annotations[key] = value
	}
	s.want(s.at(key), key, value)
}, "spec.addresses of the Gateway, and carried over"}
