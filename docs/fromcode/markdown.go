// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
)

// escape keeps Markdown from reading marks of its own into a text.
func escape(text string) string {
	return strings.NewReplacer("<", "&lt;", "*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`).Replace(text)
}

// escapeProse escapes what is not code.
func escapeProse(text string) string {
	parts := strings.Split(text, "`")
	for i := 0; i < len(parts); i += 2 {
		parts[i] = escape(parts[i])
	}
	return strings.Join(parts, "`")
}

// prose is a description: its paragraphs, each in one line.
func prose(text string) string {
	paragraphs := strings.Split(text, "\n\n")
	for i, p := range paragraphs {
		paragraphs[i] = escape(strings.Join(strings.Fields(p), " "))
	}
	return strings.Join(paragraphs, "\n\n")
}

// codes are names in code type, with commas between.
func codes(names []string) string {
	all := make([]string, len(names))
	for i, n := range names {
		all[i] = "`" + n + "`"
	}
	return strings.Join(all, ", ")
}
