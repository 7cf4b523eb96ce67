// SPDX-License-Identifier: Apache-2.0

package source

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const policy = `apiVersion: blixt.x-k8s.io/v1alpha1
kind: BlixtPolicy
metadata: {name: office}
spec:
  targetRefs:
  - {group: gateway.networking.k8s.io, kind: Gateway, name: edge, sectionName: sip}
  - {group: gateway.networking.k8s.io, kind: TCPRoute, name: web}
  sources: {allow: [192.0.2.0/24]}
`

// The targets of a policy are known though its file does not count, whatever the mistake is,
// as long as it never counted.
func TestPoliciesThatAreLeftOutHaveTargets(t *testing.T) {
	change := func(old, new string) string {
		t.Helper()
		if !strings.Contains(policy, old) {
			t.Fatalf("no %q", old)
		}
		return strings.Replace(policy, old, new, 1)
	}
	const both = "[p.yaml:1 default/office Gateway edge/sip TCPRoute web]"
	for name, c := range map[string]struct{ text, want string }{
		"a network with bits behind its prefix": {change("192.0.2.0/24", "192.0.2.1/24"), both},
		"an unknown field":                      {change("allow:", "alow:"), both},
		"a field twice":                         {policy + "  sources: {allow: [198.51.100.0/24]}\n", both},
		"another version":                       {change("v1alpha1", "v1"), both},
		"a typo in the kind":                    {change("kind: BlixtPolicy", "kind: BlixtPolcy"), both},
		"a typo in the kind of a target":        {change("kind: TCPRoute", "kind: TcpRoutes"), both},
		"a section of a route":                  {change("name: web}", "name: web, sectionName: tcp}"), both},
		"another namespace":                     {change("{name: office}", "{name: Office, namespace: shop}"), "[p.yaml:1 shop/Office Gateway edge/sip TCPRoute web]"},
		"no name":                               {change("{name: office}", "{}"), "[p.yaml:1 default/ Gateway edge/sip TCPRoute web]"},
		"a number as a name":                    {change("name: web}", "name: 1}"), "[p.yaml:1 default/office Gateway edge/sip]"},
		"one target":                            {change("targetRefs:\n  - {group: gateway.networking.k8s.io, kind: Gateway, name: edge, sectionName: sip}\n  - ", "targetRef: "), "[p.yaml:1 default/office TCPRoute web]"},
		"a mistake of another object":           {policy + "---\n" + object("x") + "nonsense: true\n", both},
		"the rest of it is missing":             {policy[:strings.Index(policy, "  sources")], both},
		"JSON":                                  {`{"apiVersion": "blixt.x-k8s.io/v1alpha1", "kind": "BlixtPolicy", "metadata": {"name": "a"}, "spec": {"targetRefs": [{"kind": "TCPRoute", "name": "web"}]}}`, "[p.yaml:1 default/a TCPRoute web]"},
		"half a line":                           {policy[:strings.Index(policy, "TCPRoute")], "[]"},
		"no target":                             {change("targetRefs", "targets"), "[]"},
		"nothing but a list of something":       {"- a\n", "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, "a.yaml", named("a", "one"), "p.yaml", c.text)
			s := open(t, Options{Paths: []string{dir}, StateDir: t.TempDir()})
			result, err := s.Read()
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(result.LeftOut); got != c.want || len(result.Refused) == 0 {
				t.Errorf("left out %s, want %s; refused %v", got, c.want, result.Refused)
			}
			// Once the file has counted, it goes on as it was.
			put(t, filepath.Join(dir, "p.yaml"), policy)
			s.Look()
			put(t, filepath.Join(dir, "p.yaml"), c.text)
			s.Look()
			if result, err = s.Read(); err != nil || len(result.LeftOut) > 0 || len(result.Set().Objects.Policies) != 1 {
				t.Errorf("after it was good: left out %v, %v", result.LeftOut, err)
			}
			must(t, os.Remove(filepath.Join(dir, "p.yaml")))
			s.Look()
			if result, err = s.Read(); err != nil || len(result.Set().Objects.Policies) != 0 {
				t.Errorf("after it was removed: %v, %v", result.Set().Objects.Policies, err)
			}
		})
	}
}

// Another target in a file that does not count is heard of, though its mistake is the same.
func TestTargetsOfALeftOutPolicyChange(t *testing.T) {
	broken := strings.Replace(policy, "192.0.2.0/24", "192.0.2.1/24", 1)
	dir := write(t, "a.yaml", named("a", "one"), "p.yaml", broken)
	s := open(t, Options{Paths: []string{dir}})
	if _, err := s.Read(); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "p.yaml"), strings.Replace(broken, "name: web", "name: www", 1))
	s.Look()
	if result, err := s.Read(); err != nil || fmt.Sprint(result.LeftOut) != "[p.yaml:1 default/office Gateway edge/sip TCPRoute www]" {
		t.Errorf("left out %v, %v", result.LeftOut, err)
	}
}
