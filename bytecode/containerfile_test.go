// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the labels into the Containerfile")

func TestContainerfileHasTheLabels(t *testing.T) {
	text, err := os.ReadFile("Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	want := string(text)
	for key, value := range builtin(t).Labels() {
		line := regexp.MustCompile(`(?m)^LABEL ` + regexp.QuoteMeta(key) + `=.*$`)
		if !line.MatchString(want) {
			t.Fatalf("no line LABEL %s", key)
		}
		want = line.ReplaceAllLiteralString(want, "LABEL "+key+"='"+value+"'")
	}
	if *update {
		if err := os.WriteFile("Containerfile", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("run go generate ./bytecode, commit the Containerfile:\n%s", diff)
	}
	// The rest is what the command writes, too.
	for key, value := range (Meta{Source: "https://github.com/kubernetes-sigs/blixt"}).Annotations() {
		if !strings.Contains(want, "LABEL "+key+`="`+value+`"`) {
			t.Errorf("no label %s=%q", key, value)
		}
	}
	if !strings.Contains(want, "\nFROM scratch\nCOPY bpf/blixt_bpfel.o /"+objectName+"\n") {
		t.Errorf("want an image of nothing but /%s", objectName)
	}
}
