// SPDX-License-Identifier: Apache-2.0

// Package reader follows documents as a reader does: it types the commands of their blocks
// on machines of a network, and compares what appears with what is shown.
package reader

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/document"
	"github.com/kubernetes-sigs/blixt/e2e/lib/machine"
)

// Reader has terminals on machines, by the names that documents have for these.
type Reader struct {
	// Limit is how long a command may take.
	Limit time.Duration
	// Correct has consoles whose output differs from what is shown be noted, and go on.
	Correct     bool
	corrections []correction
	terms       map[string]*terminal
}

// correction is what a command prints, instead of the lines that its document shows.
type correction struct {
	line, lines int
	text        string
}

// Write writes what was noted into the document. Its consoles are not indented.
func (r *Reader) Write(file string) error {
	if len(r.corrections) == 0 {
		return nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	lines := strings.SplitAfter(string(text), "\n")
	for _, c := range slices.Backward(r.corrections) {
		lines = slices.Replace(lines, c.line-1, c.line-1+c.lines, c.text)
	}
	return os.WriteFile(file, []byte(strings.Join(lines, "")), 0o644)
}

// New returns a reader who begins in a directory of each machine.
func New(machines map[string]*machine.Machine, dir string) (*Reader, error) {
	r := &Reader{Limit: 30 * time.Second, terms: map[string]*terminal{}}
	for name, m := range machines {
		t, err := open(m, dir)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open a terminal of %s: %w", name, err), r.Close())
		}
		r.terms[name] = t
	}
	return r, nil
}

// Close ends what goes on in the background, as Ctrl-C does, and the terminals. It returns an
// error if something does not end.
func (r *Reader) Close() error {
	var errs []error
	for _, t := range r.terms {
		errs = append(errs, t.interrupt())
		t.close()
	}
	return errors.Join(errs...)
}

// Follow types the blocks that are marked to be run, in their order. It returns an error that
// names the file, the line and the command of the first one that fails.
func (r *Reader) Follow(blocks []document.Block) error {
	for _, b := range blocks {
		if !b.HasCommands() {
			continue
		}
		m, err := b.Mark()
		if err != nil {
			return err
		}
		if m.Run == "" {
			continue
		}
		t := r.terms[m.Run]
		if t == nil {
			return fmt.Errorf("%s: there is no machine %s", b, m.Run)
		}
		commands, err := b.Commands()
		if err != nil {
			return err
		}
		if m.Background && b.Language == document.Shell {
			commands = lines(b)
		}
		for _, c := range commands {
			switch {
			case m.Background:
				err = t.background(c, r.Limit)
			case b.Language == document.Shell:
				_, err = t.run("set -eo pipefail", c.Text, r.Limit)
			default:
				err = r.console(t, c)
			}
			if err != nil {
				return fmt.Errorf("%s:%d: on %s, %s\n%w", b.File, c.Line, m.Run, c.Text, err)
			}
		}
	}
	return nil
}

// continued matches a line and those that it goes on in.
var continued = regexp.MustCompile(`(?m)^(?:.*\\\n)*.*\n`)

// lines returns the commands of a block of sh, each of one line, or of several with a
// backslash at the end.
func lines(b document.Block) (all []document.Command) {
	n := b.Line
	for _, text := range continued.FindAllString(b.Text, -1) {
		if text != "\n" {
			all = append(all, document.Command{Line: n, Text: text})
		}
		for _, c := range text {
			if c == '\n' {
				n++
			}
		}
	}
	return all
}

// mayRepeat matches commands that only read. People look again when something takes a
// moment; so does the reader.
var mayRepeat = regexp.MustCompile(`^(?:sudo )?(?:blixt (?:audit|backends|check|doctor|drops|flows|policy|status|top|trace)|curl|for i in [^;]*; do curl|systemctl status|ip|ss)\b`)

// console types a command, and compares what it prints. One of which no output is shown
// prints nothing, and succeeds.
func (r *Reader) console(t *terminal, c document.Command) error {
	const patience = 10 * time.Second
	for begin := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		out, err := t.run("", c.Text, r.Limit)
		if e := new(exitError); errors.As(err, e) && (c.Prints != "" || r.Correct && out != "") {
			err = nil // what it says is shown
		}
		if err != nil {
			return err
		}
		different := compare(c.Prints, out)
		if different == nil {
			return nil
		}
		if mayRepeat.MatchString(c.Text) && time.Since(begin) < patience {
			continue
		}
		if r.Correct {
			first := c.Line + strings.Count(c.Text, "\n")
			r.corrections = append(r.corrections, correction{first, strings.Count(c.Prints, "\n"), logTime.ReplaceAllString(out, "")})
			return nil
		}
		return different
	}
}
