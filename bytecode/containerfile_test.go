// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
)

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
	golden.File(t, "Containerfile", []byte(want))
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
