// SPDX-License-Identifier: Apache-2.0

package finding

import (
	"fmt"
	"slices"
	"strings"
)

// Guide explains a check: the page of the documentation and blixt doctor --explain say
// the same. Commands are between backquotes.
type Guide struct {
	Check string
	// Looks is what is looked at.
	Looks string
	// Failed and Warning are what these verdicts mean, "": the check does not give it.
	Failed, Warning string
	// Cause is how it usually comes about, Cure what to do.
	Cause, Cure string
}

// Verdicts are those that the guide explains, the worst first.
func (g Guide) Verdicts() (all []Level) {
	if g.Failed != "" {
		all = append(all, Failed)
	}
	if g.Warning != "" {
		all = append(all, Warning)
	}
	return all
}

// Lines are the parts of the guide, each with its name.
func (g Guide) Lines() [][2]string {
	all := [][2]string{{"Looks at", g.Looks}, {"Failed", g.Failed}, {"Warning", g.Warning}, {"Cause", g.Cause}, {"Cure", g.Cure}}
	return slices.DeleteFunc(all, func(line [2]string) bool { return line[1] == "" })
}

// Text is the guide for a terminal. Place is what is examined.
func (g Guide) Text(place string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s)\n", g.Check, place)
	for _, line := range g.Lines() {
		fmt.Fprintf(&b, "  %-9s %s\n", line[0]+":", strings.ReplaceAll(line[1], "`", ""))
	}
	return b.String()
}
