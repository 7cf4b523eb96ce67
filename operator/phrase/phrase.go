// SPDX-License-Identifier: Apache-2.0

// Package phrase puts names into sentences that people read.
package phrase

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Join returns "a, b and c".
func Join(all []string) string {
	if n := len(all); n > 1 {
		return strings.Join(all[:n-1], ", ") + " and " + all[n-1]
	}
	return strings.Join(all, "")
}

// Sample returns the names in order as Join does or, of more than five, the
// first five and how many more there are.
func Sample(names []string) string { return SampleOf(names, 0) }

// SampleOf is Sample for names of which more are left out.
func SampleOf(names []string, more int) string {
	const most = 5
	names = slices.Sorted(slices.Values(names))
	if n := len(names) - most; n > 0 {
		names, more = names[:most], more+n
	}
	if more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names, ", "), more)
	}
	return Join(names)
}

// Number returns the number with commas between thousands, like 4,096.
func Number(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// Count returns a number of things, such as 1 check, or 2,000 checks.
func Count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return Number(n) + " " + thing
}

// Printable returns text in one line, with everything that a terminal obeys, or that
// looks like something else, as an escape sequence of JSON and YAML: control characters, and
// those that turn the direction or have no width.
func Printable(text string) string { return escape(text, "") }

// Lines returns text like Printable, but keeps the ends of lines.
func Lines(text string) string { return escape(text, "\n") }

func escape(text, keep string) string {
	if !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case unicode.IsPrint(r), strings.ContainsRune(keep, r): // bytes that are no UTF-8 become U+FFFD
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r > 0xffff: // JSON and YAML disagree about the escape sequence
			b.WriteString(`\ufffd`)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
