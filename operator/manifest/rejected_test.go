// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Each file in testdata/rejected says in comments, on the line before, what is
// wrong with a line: "# want: reason". Nothing else may be reported.
func TestRead_Rejects(t *testing.T) {
	files, err := filepath.Glob("testdata/rejected/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("find testdata: %v, %d files", err, len(files))
	}
	want := regexp.MustCompile(`^\s*# want: (.*)$`)
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var wanted []string
			above := 0 // comments before a line that has several faults
			for i, line := range strings.Split(string(text), "\n") {
				if m := want.FindStringSubmatch(line); m != nil {
					above++
					wanted = append(wanted, m[1])
					continue
				}
				for k := len(wanted) - above; k < len(wanted); k++ {
					wanted[k] = fmt.Sprintf("%s:%d: %s", name, i+1, wanted[k])
				}
				above = 0
			}
			_, err = Read(write(t, name, string(text)))
			if err == nil {
				t.Fatalf("was taken, want %v", wanted)
			}
			if diff := cmp.Diff(strings.Join(wanted, "\n"), err.Error()); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

// Every rule in the CRDs has its twin in Go, and there are no others.
func TestRules_AreThoseOfTheCRDs(t *testing.T) {
	used := map[string]bool{}
	for kind, s := range schemas {
		walk(s, func(s *schema) {
			for _, v := range s.Validations {
				used[v.Message] = true
				if v.check() == nil {
					t.Errorf("%s: no rule for %q", kind, v.Message)
				}
				if v.Expression != "" && expressions[v.Expression] == nil {
					t.Errorf("%s: no message for %q", kind, v.Expression)
				}
			}
		})
	}
	for _, all := range []map[string]func(any) (string, bool){rules, policyRules} {
		for message := range all {
			if !used[message] {
				t.Errorf("rule that no CRD has: %q", message)
			}
		}
	}
	for name, k := range kinds {
		if k.group == "gateway.networking.k8s.io" && k.schema == nil {
			t.Errorf("%s has no schema", name)
		}
	}
}

func walk(s *schema, visit func(*schema)) {
	if s == nil {
		return
	}
	visit(s)
	for _, p := range s.Properties {
		walk(p, visit)
	}
	walk(s.Items, visit)
	walk(s.Values, visit)
}
