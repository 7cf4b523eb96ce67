// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/kubernetes-sigs/blixt/operator/migrate/services"

// migrateServices reads Services of type LoadBalancer.
func migrateServices() *migrateSource {
	return &migrateSource{
		name: "services", short: "Services of type LoadBalancer, with MetalLB's, Cilium's, loxilb's and the clouds' annotations",
		long: `Reads Services, and writes Gateways, routes and BlixtPolicies that serve those which load
balancers serve. The Services stay, as backends: their type becomes ClusterIP last. Objects
of other kinds and Services of other types are passed over, and counted.

What annotations say about the address, or about how it is announced, is carried over to
the Service that each Gateway has in a cluster. docs/migrate/services.md has a table of every
field and annotation, and the order in which to switch over.`,
		example: `  kubectl get services -A -o yaml | blixt migrate services - -o gateways.yaml
  kubectl apply --server-side -f gateways.yaml`,
		cluster: true, read: services.Read,
	}
}
