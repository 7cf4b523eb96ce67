// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// redraw shows text in place of what was shown before if out is a terminal, and below it
// otherwise. Of more lines than the terminal has it leaves out the last.
func redraw(out io.Writer, text string) error {
	t, is := out.(*terminal)
	if !is {
		_, err := io.WriteString(out, text+"\n")
		return err
	}
	f, is := t.out.(*os.File)
	if !is || !term.IsTerminal(int(f.Fd())) {
		_, err := io.WriteString(out, text+"\n")
		return err
	}
	lines := strings.Split(strings.TrimSuffix(phrase.Lines(text), "\n"), "\n")
	if width, height, err := term.GetSize(int(f.Fd())); err == nil {
		lines = fitting(lines, width, height-1)
	}
	const home, endOfLine, endOfScreen = "\x1b[H", "\x1b[K\n", "\x1b[J"
	_, err := io.WriteString(f, home+strings.Join(lines, endOfLine)+endOfLine+endOfScreen)
	return err
}

// fitting returns the first lines, as many as fit on a screen. A long one takes several
// rows of it.
func fitting(lines []string, width, height int) []string {
	rows := 0
	for i, line := range lines {
		rows += 1 + max(utf8.RuneCountInString(line)-1, 0)/max(width, 1)
		if rows > height {
			return lines[:i]
		}
	}
	return lines
}
