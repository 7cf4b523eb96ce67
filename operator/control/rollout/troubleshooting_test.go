// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The page for people whose node does not serve has each reason of Ready and of Drifted, and
// no others.
func TestTroubleshootingHasEveryReason(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var reasons []string
	for _, d := range file.Decls {
		group, is := d.(*ast.GenDecl)
		if !is || !strings.Contains(group.Doc.Text(), "NodeDataplane") {
			continue // reasons of events
		}
		for _, spec := range group.Specs {
			reasons = append(reasons, spec.(*ast.ValueSpec).Names[0].Name)
		}
	}
	text, err := os.ReadFile("../../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## A node is not Ready\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var told []string
	for _, m := range regexp.MustCompile(`(?m)^\| (?:Ready|Drifted) (?:True|False|Unknown) \| (\w+) \|`).FindAllStringSubmatch(section, -1) {
		told = append(told, m[1])
	}
	if !slices.Equal(reasons, told) || len(reasons) < 15 {
		t.Errorf("reasons are\n%v, and docs/troubleshooting.md has\n%v", reasons, told)
	}
}
