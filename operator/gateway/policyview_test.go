// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// policyView is what golden files show of the status of a policy.
type policyView struct {
	Ancestors map[string][]string `yaml:"ancestors,omitempty"`
	Targets   []targetView        `yaml:"targets,omitempty"`
}

type targetView struct {
	Target     string   `yaml:"target"`
	Frontends  int32    `yaml:"frontends"`
	Conditions []string `yaml:"conditions"`
}

// usualOfPolicies are conditions of policies that golden files leave out.
var usualOfPolicies = []string{
	"Accepted=True Accepted: Attached to ",
	"ResolvedRefs=True ResolvedRefs: Every backend of spec.failover is a backendRef of the route.",
	"Programmed=False Reconciling: Waiting for the data plane to report what it serves.",
}

func viewPolicy(p gateway.PolicyStatus) policyView {
	v := policyView{Ancestors: map[string][]string{}}
	for _, a := range p.Status.Ancestors {
		name := fmt.Sprintf("%s %s/%s", *a.AncestorRef.Kind, *a.AncestorRef.Namespace, a.AncestorRef.Name)
		if s := a.AncestorRef.SectionName; s != nil {
			name += " listener " + string(*s)
		}
		v.Ancestors[name] = viewPolicyConditions(a.Conditions, 1)
	}
	for _, t := range p.Status.Targets {
		name := fmt.Sprintf("%s %s", t.Kind, t.Name)
		if t.SectionName != nil {
			name += " listener " + string(*t.SectionName)
		}
		v.Targets = append(v.Targets, targetView{name, t.Frontends, viewPolicyConditions(t.Conditions, 0)})
	}
	return v
}

// viewPolicyConditions leaves out the first so many of the usual ones only if they say no more.
func viewPolicyConditions(conditions []metav1.Condition, whole int) []string {
	lines := []string{}
	for _, c := range conditions {
		line := fmt.Sprintf("%s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message)
		if line == usualOfPolicies[1] || line == usualOfPolicies[2] || whole == 0 && strings.HasPrefix(line, usualOfPolicies[0]) {
			continue
		}
		if c.ObservedGeneration != 1 {
			line = strings.Replace(line, ": ", fmt.Sprintf(" (generation %d): ", c.ObservedGeneration), 1)
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return []string{"as usual"}
	}
	return lines
}

func viewSources(s *lb.SourceSet) string {
	text := s.Policy + ":"
	if s.OnlyAllowed {
		text += " only"
	}
	return text + viewPrefixes(" allow", s.Allow) + viewPrefixes(" deny", s.Deny)
}

func viewPrefixes(word string, all []netip.Prefix) string {
	text := ""
	for _, p := range all {
		text += " " + p.String()
	}
	if text != "" {
		text = word + text
	}
	return text
}

// viewSettings returns a line for each thing that policies say.
func viewSettings(s *lb.Settings) []string {
	var lines []string
	for _, r := range s.Restrictions {
		line := "restricted by " + r.Policy + " for " + r.Target
		if r.DryRun {
			line += ", dry run"
		}
		if r.Sources {
			line += ", sources"
		}
		if r.ResetSources {
			line += " (reset)"
		}
		if r.Limits != nil {
			line += ", limits " + compact(r.Limits)
		}
		lines = append(lines, line)
	}
	add := func(name string, value any, is bool) {
		if is {
			lines = append(lines, name+" "+compact(value))
		}
	}
	if s.Refused != "" {
		lines = append(lines, "refused: "+s.Refused)
	}
	add("affinity", s.Affinity, s.Affinity != nil)
	if s.MaxAge > 0 {
		lines = append(lines, "maxAge "+s.MaxAge.String())
	}
	add("health", s.Health, s.Health != nil)
	add("failover", s.Failover, s.Failover != nil)
	add("ports", s.Ports, s.Ports != nil)
	add("challenge", s.Challenge, s.Challenge != nil)
	if s.DropNoBackend {
		lines = append(lines, "drops without a backend")
	}
	return lines
}

// compact returns a value as JSON in a line.
func compact(value any) string {
	text, err := json.Marshal(value)
	if err != nil { // plain data
		panic(err)
	}
	return string(text)
}
