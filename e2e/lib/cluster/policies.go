// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	_ "embed"
)

//go:embed policies.yaml
var policiesObjects []byte

// kubeRouterArgs has kube-router do nothing but keep NetworkPolicies.
var kubeRouterArgs = []string{
	"--run-firewall", "--run-router=false", "--run-service-proxy=false", "--run-loadbalancer=false", "--enable-ipv4", "--enable-ipv6",
	"--service-cluster-ip-range=" + Services4, "--service-cluster-ip-range=" + Services6, "--v=1",
}

// KeepPolicies has kube-router keep NetworkPolicies on every node.
func (c *Cluster) KeepPolicies(ctx context.Context) error {
	if err := c.ApplyYAML(ctx, policiesObjects); err != nil {
		return err
	}
	for _, m := range c.Nodes {
		if _, err := m.Exec(ctx, "sh", "-ec", allowNeighbours); err != nil {
			return err
		}
		args := []string{c.software.path(kubeRouter + "/kube-router"), "--kubeconfig=" + c.pki("kube-router.kubeconfig"), "--hostname-override=" + m.Name}
		if err := m.Launch("kube-router", append(args, kubeRouterArgs...)...); err != nil {
			return err
		}
	}
	return nil
}

// allowNeighbours has kube-router take neighbour discovery for allowed. By itself it rejects that of each pod
// that a NetworkPolicy restricts, so that the pod reaches no other one of its node by IPv6
// (https://github.com/cloudnativelabs/kube-router/issues/1895).
const allowNeighbours = `for type in neighbour-solicitation neighbour-advertisement; do
	ip6tables -t mangle -A PREROUTING -p icmpv6 --icmpv6-type $type -j MARK --or-mark 0x10000
done`

// dropPolicies deletes allowNeighbours, and the rules that lead to kube-router's chains. Its own clean-up
// leaves them.
const dropPolicies = `ip6tables -t mangle -S PREROUTING | sed -n '/icmp.*0x10000/s/^-A/-D/p' | xargs -r -L 1 ip6tables -t mangle
for tool in iptables ip6tables; do
	$tool -S | sed -n '/kube-router netpol/s/^-A/-D/p' | xargs -r -L 1 $tool
done`

// IgnorePolicies ends what KeepPolicies has started, and what its rules do.
func (c *Cluster) IgnorePolicies(ctx context.Context) error {
	for _, m := range c.Nodes {
		if err := m.Remove("kube-router"); err != nil {
			return err
		}
		if _, err := m.Exec(ctx, "sh", "-ec", dropPolicies); err != nil {
			return err
		}
	}
	return nil
}
