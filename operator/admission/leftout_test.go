// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

var noOptions gateway.Options

const office = `---
kind: BlixtPolicy
metadata: {name: office}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: TCPRoute, name: web}]
  sources: {allow: [192.0.2.0/24]}
`

// leftOut is office, where it cannot be read.
func leftOut(targets ...string) LeftOut {
	p := LeftOut{Namespace: "default", Name: "office", At: "office.yaml:1"}
	for _, t := range targets {
		kind, name, _ := strings.Cut(t, " ")
		p.Targets = append(p.Targets, gwv1.LocalPolicyTargetReferenceWithSectionName{
			LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{Group: gwv1.GroupName, Kind: gwv1.Kind(kind), Name: gwv1.ObjectName(name)},
		})
	}
	return p
}

// doors returns who may connect to each frontend.
func doors(r *Review) string {
	state := gateway.Resolve(&r.Translation.Unresolved, r.Endpoints, gateway.ResolveOptions{}).State
	sets := map[string]string{}
	for _, s := range state.Sources {
		sets[s.Policy] = fmt.Sprintf("allow %v deny %v", s.Allow, s.Deny)
	}
	var all []string
	for _, f := range state.Frontends {
		line := f.Gateway + ":"
		for _, restriction := range f.Restrictions {
			line += " " + restriction.Policy + " " + sets[restriction.Policy]
		}
		if f.Refused != "" {
			line += " refused"
		}
		all = append(all, line)
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

// What a policy would protect, and was never served, is closed until the policy can be read.
func TestDoorsOfPoliciesThatAreLeftOutAreClosed(t *testing.T) {
	const nobody = "default/other:; default/web: default/office allow [] deny [0.0.0.0/0 ::/0]"
	m := &Memory{}
	review := func(text string, out ...LeftOut) Review {
		objects := read(t, text)
		objects.LeftOut = out
		r := m.Review(objects, noOptions, at)
		stored, err := json.Marshal(r.Memory)
		m = &Memory{}
		if err != nil || json.Unmarshal(stored, m) != nil { // a start in between changes nothing
			t.Fatalf("memory is lost: %v", err)
		}
		return r
	}
	for range 3 { // as long as it takes
		r := review(class+web+other, leftOut("TCPRoute web", "TCPRoute web", "Gateway elsewhere"))
		if got := doors(&r); got != nobody {
			t.Errorf("got %s, want %s", got, nobody)
		}
		mistakes, _ := r.Messages(nil)
		want := "office.yaml:1: BlixtPolicy default/office: LeftOut: its file is left out, and it has never been in force, so that nobody knows whom it refuses: " +
			"no new connections to TCPRoute default/web until the file is mended or removed."
		if len(mistakes) != 1 || mistakes[0].String() != want {
			t.Errorf("got %v, want %s", mistakes, want)
		}
	}
	r := review(class + web + other + office)
	if got, want := doors(&r), "default/other:; default/web: default/office allow [192.0.2.0/24] deny []"; got != want {
		t.Errorf("once it is mended: got %s, want %s", got, want)
	}
	r = review(class + web + other)
	if got, want := doors(&r), "default/other:; default/web:"; got != want {
		t.Errorf("once it is deleted: got %s, want %s", got, want)
	}
	// A new policy that cannot be read takes nothing away from what is served without it.
	r = review(class+web+other, leftOut("TCPRoute web"))
	if got, want := doors(&r), "default/other:; default/web:"; got != want {
		t.Errorf("of what was served before: got %s, want %s", got, want)
	}
	if mistakes, _ := r.Messages(nil); len(mistakes) > 0 {
		t.Errorf("of what was served before: %v", mistakes)
	}
}

// Whoever removes the file means it, and has the door opened; so does a file without a
// policy. Neither a policy of the same name elsewhere nor one without a name is in the way.
func TestStandInsGoWithTheirFile(t *testing.T) {
	m := &Memory{}
	nameless := leftOut("Gateway other")
	nameless.Name = ""
	objects := read(t, class+web+other+office)
	objects.LeftOut = []LeftOut{leftOut("TCPRoute other"), nameless}
	r := m.Review(objects, noOptions, at)
	want := "default/other: default/-left-out allow [] deny [0.0.0.0/0 ::/0] default/office-left-out allow [] deny [0.0.0.0/0 ::/0]; default/web: default/office allow [192.0.2.0/24] deny []"
	if got := doors(&r); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	r = r.Memory.Review(read(t, class+web+other+office), noOptions, at)
	if got, want := doors(&r), "default/other:; default/web: default/office allow [192.0.2.0/24] deny []"; got != want {
		t.Errorf("without the file: got %s, want %s", got, want)
	}
}

func TestLenientClosesDoors(t *testing.T) {
	objects := read(t, class+web)
	objects.LeftOut = []LeftOut{leftOut("Gateway web")}
	r := Lenient(objects, noOptions, at)
	if got, want := doors(&r), "default/web: default/office allow [] deny [0.0.0.0/0 ::/0]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A typo in a policy, or a target that is renamed without it, leaves the door as it was.
func TestTyposInPoliciesOpenNoDoor(t *testing.T) {
	before := class + web + other + office
	renamed := strings.NewReplacer("kind: TCPRoute\nmetadata: {name: web}", "kind: TCPRoute\nmetadata: {name: www}")
	byListener := strings.Replace(before, "kind: TCPRoute, name: web}", "kind: Gateway, name: web, sectionName: tcp}", 1)
	const shut = "default/other:; default/web: default/office allow [192.0.2.0/24] deny []"
	for name, c := range map[string]struct{ before, after, want, says string }{
		"a target that is not there":    {before, strings.Replace(before, "TCPRoute, name: web}", "TCPRoute, name: wbe}", 1), shut, "TargetNotFound"},
		"a target of another kind":      {before, strings.Replace(before, "kind: TCPRoute, name: web}", "kind: UDPRoute, name: web}", 1), shut, "TargetNotFound"},
		"another namespace":             {before, before + "---\n" + strings.Replace(office[4:], "{name: office}", "{name: new, namespace: shop}", 1), shut, "TargetNotFound"},
		"a listener that is not there":  {byListener, strings.Replace(byListener, "sectionName: tcp}]\n  sources", "sectionName: tpc}]\n  sources", 1), shut, "TargetNotFound"},
		"a route is renamed without it": {before, renamed.Replace(before), shut, "TargetNotFound"},
		"the route and the policy are":  {before, strings.Replace(renamed.Replace(before), "TCPRoute, name: web}", "TCPRoute, name: www}", 1), shut, ""},
		"a list that cannot be read":    {before, strings.Replace(before, "192.0.2.0/24", "192.0.2.1/24", 1), shut, "Invalid"},
		"the list is changed":           {before, strings.Replace(before, "192.0.2.0/24", "198.51.100.0/24", 1), strings.Replace(shut, "192.0.2.0", "198.51.100.0", 1), ""},
		"the policy is deleted":         {before, class + web + other, "default/other:; default/web:", ""},
		"the policy is for another":     {before, strings.Replace(before, "TCPRoute, name: web}", "TCPRoute, name: other}", 1), "default/other: default/office allow [192.0.2.0/24] deny []; default/web:", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if c.before == c.after {
				t.Fatal("nothing is changed")
			}
			r := steps(t, c.before)
			if got := doors(&r); got != shut {
				t.Fatalf("before: %s", got)
			}
			for range 2 { // and it stays so
				r = r.Memory.Review(read(t, c.after), noOptions, at)
				mistakes, _ := r.Messages(nil)
				if got := doors(&r); got != c.want || (len(mistakes) == 0) != (c.says == "") || !strings.Contains(fmt.Sprint(mistakes), c.says) {
					t.Errorf("got %s, want %s; mistakes %v, want %q", got, c.want, mistakes, c.says)
				}
			}
		})
	}
}
