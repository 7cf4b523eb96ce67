// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/node/checkup"
	"github.com/kubernetes-sigs/blixt/operator/node/overview"
)

// guides explain the checks of doctor, by what is examined.
var guides = map[string][]finding.Guide{
	"host":    slices.Concat(checkup.Guides, overview.Guides),
	"cluster": doctor.Guides,
}

// explainCheck prints what there is to know about a check, of the places that have one of
// this name.
func explainCheck(out io.Writer, name string, of []string) error {
	if len(of) == 0 {
		of = places
	}
	found := 0
	for _, place := range of {
		i := slices.IndexFunc(guides[place], func(g finding.Guide) bool { return g.Check == name })
		if i < 0 {
			continue
		}
		if found++; found > 1 {
			fmt.Fprintln(out)
		}
		fmt.Fprint(out, guides[place][i].Text(place))
	}
	if found == 0 {
		return fmt.Errorf("no check %q: the checks are %s", name, strings.Join(checkNames(of), ", "))
	}
	return nil
}

// checkNames are the names of the checks of some places, each once.
func checkNames(of []string) (names []string) {
	for _, place := range of {
		for _, g := range guides[place] {
			if !slices.Contains(names, g.Check) {
				names = append(names, g.Check)
			}
		}
	}
	return names
}

// doctorChecks completes names of checks.
func doctorChecks(*cobra.Command) []string { return checkNames(places) }
