// SPDX-License-Identifier: Apache-2.0

package document

import (
	"fmt"
	"regexp"
	"strings"
)

// Mark says how the commands of a block are tested: one of its fields is set.
type Mark struct {
	Run    string // e2e/docs runs them on this node of a network
	Tested string // the test of this name runs them
	NotRun string // why nobody does
	// Background has them run on until the page ends, as in a terminal of their own.
	Background bool
}

var (
	nodeName = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
	testName = regexp.MustCompile(`^Test[A-Z]\w*$`)
)

// Mark returns what the comment before the block says. It returns an error, which tells
// what to write, if there is none or it says something else.
func (b Block) Mark() (m Mark, err error) {
	if b.Comment == "" {
		return m, fmt.Errorf("%s: no comment on the line before the block says how its commands are tested: "+
			"write <!-- run: host -->, <!-- tested: TestName --> or <!-- not run: the reason -->", b)
	}
	kind, what, _ := strings.Cut(b.Comment, ":")
	what = strings.TrimSpace(what)
	switch kind {
	case "run":
		m.Run, m.Background = strings.CutSuffix(what, ", background")
		if !nodeName.MatchString(m.Run) {
			return m, fmt.Errorf("%s: %q names no node: write <!-- run: host -->, or <!-- run: host, background -->", b, what)
		}
	case "tested":
		if m.Tested = what; !testName.MatchString(what) {
			return m, fmt.Errorf("%s: %q is no name of a test", b, what)
		}
	case "not run":
		if m.NotRun = what; len(strings.Fields(what)) < 2 {
			return m, fmt.Errorf("%s: say why it is not run", b)
		}
	default:
		return m, fmt.Errorf("%s: it is not known what %q means: run:, tested: or not run: begins a comment before commands", b, b.Comment)
	}
	return m, nil
}
