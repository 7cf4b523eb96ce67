// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/kubernetes-sigs/blixt/operator/node/writer"

var (
	descPolicyRefused = describe("policy_refused_total", "Flows that a policy has refused, by reason: their source; or a limit of new (rate) or concurrent flows, of each source or in all; or adopted, in mid-stream. In mode DryRun, those that it would have refused.",
		"policy_namespace", "policy", "target", "mode", "reason")
	descPolicyInForce    = describe("policy_in_force", "0 if the tables have no room for a policy.", "policy_namespace", "policy", "target", "mode")
	descPolicyConcurrent = describe("policy_concurrent_flows", "Flows of a policy that limits them.", "policy_namespace", "policy", "target", "mode")
	descPolicyForgotten  = describe("policy_sources_forgotten_total", "Sources that a policy limits and that were not known any more, as others have taken their room in the table.", "policy_namespace", "policy", "target", "mode")
)

func (c *collected) policies(all []writer.PolicyStatus) {
	for i := range all {
		p := &all[i]
		namespace, name := split(p.Policy)
		mode := "Enforce"
		if p.DryRun {
			mode = "DryRun"
		}
		labels := []string{namespace, name, p.Target, mode}
		c.gauge(descPolicyInForce, Bool(p.InForce), labels...)
		if !p.InForce {
			continue
		}
		for reason, n := range p.Refused {
			c.counter(descPolicyRefused, n, append(labels[:len(labels):len(labels)], reason)...)
		}
		_, ofSource := p.Refused["source_concurrent"]
		_, ofAll := p.Refused["total_concurrent"]
		if _, rate := p.Refused["source_rate"]; ofSource || rate {
			c.counter(descPolicyForgotten, p.Forgotten, labels...)
		}
		if ofAll {
			c.gauge(descPolicyConcurrent, float64(p.Concurrent), labels...)
		}
	}
}
