// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// What the chart starts must be commands that there are.
func TestChartStartsCommands(t *testing.T) {
	for file, start := range map[string]struct {
		command *cobra.Command
		flags   int
	}{
		"deployment.yaml": {operatorCommand(), 15},
		"uninstall.yaml":  {uninstallCommand(), 3},
	} {
		text, err := os.ReadFile("../../../charts/blixt/templates/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "- "+start.command.Name()+"\n") {
			t.Errorf("%s does not start blixt %s", file, start.command.Name())
		}
		arguments := regexp.MustCompile(`(?m)^ +- --([a-z-]+)=`).FindAllStringSubmatch(string(text), -1)
		if len(arguments) < start.flags {
			t.Errorf("%s: only these arguments: %q", file, arguments)
		}
		for _, a := range arguments {
			if start.command.Flags().Lookup(a[1]) == nil {
				t.Errorf("blixt %s has no flag --%s", start.command.Name(), a[1])
			}
		}
	}
}
