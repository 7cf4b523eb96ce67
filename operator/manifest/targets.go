// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"cmp"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Policy is what can be read of a BlixtPolicy, or of an object that may have been meant as
// one, valid or not: whom it would protect.
type Policy struct {
	File            string
	Line            int
	Namespace, Name string
	Targets         []gwv1.LocalPolicyTargetReferenceWithSectionName
}

// Place returns file and line.
func (p *Policy) Place() string { return place(p.File, p.Line) }

// String returns all that there is.
func (p Policy) String() string {
	text := fmt.Sprintf("%s %s/%s", p.Place(), p.Namespace, p.Name)
	for _, t := range p.Targets {
		text += fmt.Sprintf(" %s %s", t.Kind, t.Name)
		if t.SectionName != nil {
			text += "/" + string(*t.SectionName)
		}
	}
	return text
}

// Policies returns those of the set, and what looks like one: Objects has none that is
// invalid, and they must not go without notice.
func (s *Set) Policies() []Policy {
	if s == nil {
		return nil
	}
	return s.policies
}

// notePolicy keeps an object of kind BlixtPolicy, or an invalid one that has targets.
func (s *Set) notePolicy(file string, node *yaml.Node, object map[string]any, invalid bool) {
	p := Policy{File: file, Line: node.Line, Targets: targetsIn(get(object, "spec"))}
	if field(object, "kind") != "BlixtPolicy" && !invalid || len(p.Targets) == 0 {
		return
	}
	metadata := get(object, "metadata")
	p.Namespace, p.Name = cmp.Or(field(metadata, "namespace"), metav1.NamespaceDefault), field(metadata, "name")
	s.policies = append(s.policies, p)
}

// targetsIn returns the targets of a spec that can be read.
func targetsIn(spec any) (targets []gwv1.LocalPolicyTargetReferenceWithSectionName) {
	refs, _ := get(spec, "targetRefs").([]any)
	for _, ref := range append(refs, get(spec, "targetRef")) {
		kind := targetKind(field(ref, "kind"))
		t := gwv1.LocalPolicyTargetReferenceWithSectionName{LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{
			Group: gwv1.GroupName, Kind: gwv1.Kind(kind), Name: gwv1.ObjectName(field(ref, "name")),
		}}
		if section := gwv1.SectionName(field(ref, "sectionName")); section != "" && !strings.HasSuffix(kind, "Route") { // routes have none
			t.SectionName = &section
		}
		if t.Kind != "" && t.Name != "" {
			targets = append(targets, t)
		}
	}
	return targets
}

// targetKind returns the kind that is meant: TcpRoute and TCPRoutes are TCPRoute.
func targetKind(name string) string {
	for _, kind := range []string{"Gateway", "ListenerSet", "TCPRoute", "UDPRoute"} {
		if distance(name, kind) <= 1 {
			return kind
		}
	}
	return name
}
