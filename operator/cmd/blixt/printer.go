// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"io"
	"reflect"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// terminal escapes what a terminal would obey. All output goes through it: names,
// conditions and annotations are written by others.
type terminal struct {
	out io.Writer
	// rest is the beginning of a character.
	rest []byte
}

func (t *terminal) Write(p []byte) (int, error) {
	text := append(t.rest, p...)
	end := len(text)
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if last := text[len(text)-n:]; utf8.RuneStart(last[0]) {
			if !utf8.FullRune(last) {
				end -= n
			}
			break
		}
	}
	t.rest = append([]byte(nil), text[end:]...)
	if _, err := io.WriteString(t.out, phrase.Lines(string(text[:end]))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// printer prints for people. What it fills into a format stays in its line and column.
type printer struct{ io.Writer }

// newTable returns a printer of columns that tabs separate, and the function that ends
// the table.
func newTable(w io.Writer) (printer, func()) {
	buffer := bufio.NewWriter(w) // tabwriter writes each cell by itself
	t := tabwriter.NewWriter(buffer, 0, 0, 2, ' ', 0)
	return printer{t}, func() {
		_ = t.Flush()
		_ = buffer.Flush()
	}
}

func (p printer) printf(format string, args ...any) {
	for i, a := range args {
		switch v := a.(type) {
		case fmt.Stringer:
			args[i] = phrase.Printable(v.String())
		case error:
			args[i] = phrase.Printable(v.Error())
		default:
			if s := reflect.ValueOf(a); s.Kind() == reflect.String {
				args[i] = phrase.Printable(s.String())
			}
		}
	}
	fmt.Fprintf(p, format, args...)
}
