// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/pflag"

	"github.com/kubernetes-sigs/blixt/operator/migrate/ingressnginx"
	"github.com/kubernetes-sigs/blixt/operator/migrate/services"
)

// migrateIngressNginx reads what ingress-nginx exposes by TCP and UDP.
func migrateIngressNginx() *migrateSource {
	return &migrateSource{
		name: "ingress-nginx", short: "ConfigMaps tcp-services and udp-services of ingress-nginx, or its Helm values",
		long: `Reads which Services ingress-nginx exposes by TCP and UDP, and writes a Gateway for each
controller, with routes to these Services: from the ConfigMaps that its flags name or, if the
Deployment is not among the files, from those that are called so; or from values of the
chart, also below the name of a chart that depends on it. Services are needed for ports
that are named. HTTP stays with ingress-nginx.

docs/migrate/ingress-nginx.md has a table of every setting, and the order in which to switch
over.`,
		example: `  kubectl get configmaps,services,deployments,daemonsets -A -o yaml | blixt migrate ingress-nginx - -o gateways.yaml
  helm get values ingress-nginx -n ingress-nginx | blixt migrate ingress-nginx - -n ingress-nginx
  kubectl apply --server-side -f gateways.yaml`,
		cluster: true, read: ingressnginx.Read,
		flags: func(f *pflag.FlagSet) { // values say nothing about where the chart is installed
			namespace := f.Lookup("namespace")
			namespace.DefValue = "ingress-nginx"
			_ = namespace.Value.Set(namespace.DefValue) // it is a valid name
		},
	}
}

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
