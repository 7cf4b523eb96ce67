// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// TestCheck_ShowsPolicies: which policies concern which listener, and what is wrong with others.
func TestCheck_ShowsPolicies(t *testing.T) {
	file := policyFile(t)
	out, err := blixt(t, "check", "-f", file, "--host-address", "192.0.2.10/24")
	if err == nil {
		t.Error("a policy without its target is no mistake")
	}
	for _, want := range []string{
		`(?m)^` + regexp.QuoteMeta(file) + `:\d+: BlixtPolicy default/typo: TargetNotFound: TCPRoute default/wbe does not exist`,
		`(?m)^default/web +tcp +default/base and default/web *$`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("no line like %s in\n%s", want, out)
		}
	}
}

// TestCheck_SaysWhoRefusesAll: a list that cannot be enforced closes a listener, and says so.
func TestCheck_SaysWhoRefusesAll(t *testing.T) {
	file := filepath.Join(t.TempDir(), "web.yaml")
	text := webFile
	for i := range 5 {
		text += fmt.Sprintf("---\napiVersion: blixt.x-k8s.io/v1alpha1\nkind: BlixtPolicy\nmetadata: {name: p%d}\nspec:\n  targetRefs: [{group: gateway.networking.k8s.io, kind: TCPRoute, name: web}]\n  sources: {deny: [10.%d.0.0/16]}\n", i, i)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := blixt(t, "check", "-f", file, "--host-address", "192.0.2.10/24")
	if err == nil || !strings.Contains(out, "Listener tcp of Gateway default/web would get no new connections: ") {
		t.Errorf("got %v and\n%s", err, out)
	}
}

// TestComparePolicies: a list that differs where the words do not show it is a change, too.
func TestComparePolicies(t *testing.T) {
	listener := func(values ...gateway.Value) []gateway.Explained {
		return []gateway.Explained{{Gateway: "default/web", Listener: "tcp", Values: values}}
	}
	sources := gateway.Value{Field: "sources", Value: "allow 10.0.0.0/24 and 9 more", Policy: "default/web"}
	set := func(last string) []lb.SourceSet {
		s := lb.SourceSet{Policy: "default/web", OnlyAllowed: true}
		for i := range 9 {
			s.Allow = append(s.Allow, netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/24", i)))
		}
		s.Allow = append(s.Allow, netip.MustParsePrefix(last))
		return []lb.SourceSet{s}
	}
	age := gateway.Value{Field: "maxAge", Value: "1h", Policy: "default/web"}
	a, b := set("10.1.0.0/24"), set("10.2.0.0/24")
	if all := comparePolicies(listener(sources, age), listener(sources, age), a, a); len(all) > 0 {
		t.Errorf("the same differs: %v", all)
	}
	if all := comparePolicies(listener(sources), listener(sources), a, b); len(all) != 1 || all[0].Field != "sources" || all[0].Was == all[0].Will {
		t.Errorf("another list: %v", all)
	}
	if all := comparePolicies(listener(sources, age), listener(sources), a, a); len(all) != 1 || all[0].Will != "" || all[0].Was != "1h (default/web)" {
		t.Errorf("a value that goes: %v", all)
	}
	closed := listener(sources)
	closed[0].Refused = "nobody knows whom it admits"
	if all := comparePolicies(listener(sources), closed, a, a); len(all) != 1 || !strings.Contains(all[0].Will, "nobody knows") {
		t.Errorf("a listener that closes: %v", all)
	}
}
