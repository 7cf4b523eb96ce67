// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

// Names of the files in a directory of documents.
const (
	figuresFile  = "performance/performance.json"
	templateFile = "performance/performance.md.gotmpl"
	documentFile = "performance.md"
)

// Document makes the document and its plots of the figures that lie beside it.
func Document(dir string) error {
	r, err := Read(filepath.Join(dir, figuresFile))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(dir, templateFile))
	if err != nil {
		return err
	}
	t, err := template.New(templateFile).Funcs(template.FuncMap{
		"table": func(part string) (string, error) {
			return r.block(func(b *bytes.Buffer) error { return r.Table(b, part) })
		},
		"goals": r.goalsTable,
		"ns":    func(name string) string { return number(must(value(Live, name, perPacket, 1)(r))) },
		"ratio": func(name, to string) string { return number(must(ratio(Live, name, perPacket, to)(r))) },
	}).Parse(string(text))
	if err != nil {
		return fmt.Errorf("parse template of document: %w", err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, r); err != nil {
		return fmt.Errorf("make document: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, documentFile), out.Bytes(), 0o644); err != nil {
		return err
	}
	for name, p := range r.plots() {
		if err := os.WriteFile(filepath.Join(dir, filepath.Dir(figuresFile), name), []byte(p.svg()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// must returns the number, 0 for what was not measured.
func must(x float64, _ bool) float64 { return x }

// block returns what print prints as a block of text.
func (r *Result) block(print func(*bytes.Buffer) error) (string, error) {
	var b bytes.Buffer
	if err := print(&b); err != nil {
		return "", err
	}
	if b.Len() == 0 {
		return "Not measured.", nil
	}
	var lines strings.Builder
	for line := range strings.Lines(b.String()) {
		lines.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return "```text\n" + lines.String() + "```", nil
}

// goalsTable returns a table of the goals.
func (r *Result) goalsTable() string {
	var b strings.Builder
	b.WriteString("| | measured | must | aim | reached |\n|-|-|-|-|-|\n")
	for _, o := range r.Outcomes() {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", o.What, number(o.Measured), number(o.Must), number(o.Aim), o.Reached)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
