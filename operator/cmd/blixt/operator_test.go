// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"regexp"
	"testing"
)

// What the chart starts must be a command that there is.
func TestChartStartsTheOperator(t *testing.T) {
	text, err := os.ReadFile("../../../charts/blixt/templates/deployment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	arguments := regexp.MustCompile(`(?m)^ +- --([a-z-]+)=`).FindAllStringSubmatch(string(text), -1)
	if len(arguments) < 15 {
		t.Fatalf("only these arguments: %q", arguments)
	}
	flags := operatorCommand().Flags()
	for _, a := range arguments {
		if flags.Lookup(a[1]) == nil {
			t.Errorf("blixt operator has no flag --%s", a[1])
		}
	}
}
