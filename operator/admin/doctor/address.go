// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"time"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// assignment is the time that the cluster's load balancer has for an address.
const assignment = time.Minute

// addresses finds Services that have been given no address.
func addresses(f *Facts) (string, []Finding) {
	var wrong []Finding
	n := 0
	for i := range f.Services {
		s := &f.Services[i]
		if !v1alpha1.Managed(s) || s.Labels[gwv1.GatewayNameLabelKey] == "" {
			continue
		}
		n++
		class := ""
		if s.Spec.LoadBalancerClass != nil {
			class = *s.Spec.LoadBalancerClass
		}
		if len(s.Status.LoadBalancer.Ingress) > 0 || f.Now.Sub(s.CreationTimestamp.Time) < assignment || class == string(gateway.ControllerName) {
			continue
		}
		who := "the cluster's load balancer of Services"
		if class != "" {
			who = "the load balancer of loadBalancerClass " + class
		}
		wrong = append(wrong, failed(at("Service", s), fmt.Sprintf("status.loadBalancer.ingress is empty for %s: %s has given it no address", f.since(s.CreationTimestamp), who),
			fmt.Sprintf("kubectl -n %s describe service %s shows whether any load balancer has tried. If the cluster has no such load balancer, install one, such as MetalLB, or set spec.addresses.source of the BlixtConfig to Pool (with pool) or Node.", s.Namespace, s.Name)))
	}
	return fmt.Sprintf("%d Services of Gateways have addresses", n), wrong
}

// pool finds addresses of pools that are in use elsewhere.
func pool(f *Facts) (string, []Finding) {
	var wrong []Finding
	n := 0
	for i := range f.Configs {
		c := &f.Configs[i]
		for j, text := range c.Spec.Addresses.Pool {
			r, err := gateway.ParseAddressRange(text)
			if err != nil {
				continue // check classes reports that
			}
			n++
			if taken := f.taken(r); len(taken) > 0 {
				wrong = append(wrong, failed("BlixtConfig "+c.Name, fmt.Sprintf("spec.addresses.pool[%d] %s overlaps %s", j, text, phrase.Sample(taken)),
					"Give the pool addresses that nothing else uses, and that are routed to the nodes: kubectl edit blixtconfig "+c.Name))
			}
		}
	}
	return fmt.Sprintf("%d ranges of pools are free of addresses of nodes, pods and Services", n), wrong
}

// taken names the users of addresses of a range. With many network plugins no node
// has the range of its pods; then the addresses of Blixt's and bpfman's pods count.
func (f *Facts) taken(r gateway.AddressRange) (names []string) {
	add := func(text, whose string) {
		if other, err := gateway.ParseAddressRange(text); err == nil && r.Overlaps(other) {
			names = append(names, text+" of "+whose)
		}
	}
	for i := range f.Nodes {
		n := &f.Nodes[i]
		for _, a := range n.Status.Addresses {
			add(a.Address, "node "+n.Name)
		}
		for _, cidr := range n.Spec.PodCIDRs {
			add(cidr, "pods of node "+n.Name)
		}
	}
	for i := range f.Pods {
		for _, ip := range f.Pods[i].Status.PodIPs {
			if !f.Pods[i].Spec.HostNetwork {
				add(ip.IP, at("Pod", &f.Pods[i]))
			}
		}
	}
	for i := range f.ServiceCIDRs {
		for _, cidr := range f.ServiceCIDRs[i].Spec.CIDRs {
			add(cidr, "ServiceCIDR "+f.ServiceCIDRs[i].Name)
		}
	}
	for i := range f.Services {
		for _, ip := range f.Services[i].Spec.ClusterIPs {
			add(ip, at("Service", &f.Services[i]))
		}
	}
	return names
}
