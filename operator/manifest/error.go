// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"cmp"
	"strings"
)

// Error is one reason why a file is invalid.
type Error struct {
	File string
	// Line is 0 if the reason is the file as a whole.
	Line int
	// Object is kind and name, if they are known.
	Object string
	Reason string
	// Unread is true if the file could not be read: whether it is valid is not known.
	Unread bool
}

// Error returns file:line: object: reason.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(place(e.File, e.Line))
	if e.Object != "" {
		b.WriteString(": " + e.Object)
	}
	return b.String() + ": " + e.Reason
}

func (e *Error) compare(o *Error) int {
	return cmp.Or(cmp.Compare(e.File, o.File), cmp.Compare(e.Line, o.Line))
}

// Errors are all errors of a directory, sorted by file and line.
type Errors []*Error

// Error returns one line for each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns each Error.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i := range e {
		errs[i] = e[i]
	}
	return errs
}

// invalid is what is wrong with a field.
type invalid struct{ path, reason string }

func (i invalid) String() string {
	if i.path == "" {
		return i.reason
	}
	return i.path + ": " + i.reason
}
