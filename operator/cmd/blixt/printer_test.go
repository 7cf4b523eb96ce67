// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"unicode"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/bytecode"
	"github.com/kubernetes-sigs/blixt/operator/admin/audit"
	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// evil has what a terminal obeys, what turns text round and hides it, and what would
// begin another line or column.
const evil = "x\x1b[2J\x1b]0;t\x07\r\b\u009b31m\x9b\u202egpj\u2066\u200b\ufeff\u2028\x7f\x00\U000e0041\nok\tall is well"

// wantPrintable wants nothing but lines of printable text, as many as without the evil.
func wantPrintable(t *testing.T, print func(w io.Writer, text string)) {
	t.Helper()
	var honest, got bytes.Buffer
	print(&honest, "x")
	print(&got, evil)
	for _, r := range got.String() {
		if !unicode.IsPrint(r) && r != '\n' {
			t.Errorf("%q is printed raw in\n%q", r, got.String())
			break
		}
	}
	if want, got := strings.Count(honest.String(), "\n"), strings.Count(got.String(), "\n"); want != got {
		t.Errorf("%d lines, want %d", got, want)
	}
	if strings.Count(got.String(), "gpj") == 0 {
		t.Error("the text is not printed at all: this test shows nothing")
	}
}

// What others wrote is never printed raw.
func TestTablesArePrintable(t *testing.T) {
	for name, print := range map[string]func(io.Writer, string){
		"doctor": func(w io.Writer, s string) {
			findingTable(w, []doctor.Finding{{Check: s, Verdict: doctor.Level(s), Object: s, Seen: s, Remedy: s}})
		},
		"audit": func(w io.Writer, s string) {
			at := metav1.Now()
			reportTable(w, &audit.Report{
				Declared: s,
				Programs: []audit.Program{{Node: s, Application: s, Image: s, Digest: s, SignedBy: s, Since: &at, Links: []v1alpha1.LinkStatus{{Interface: s, Direction: s}}}},
				Images:   []audit.Image{{Name: s, VerifiedBy: []string{s}}, {Name: s, Reason: s, Problem: s}},
				Writers:  []audit.Writer{{Subject: s, Namespace: s, Binding: s, Role: s, Resources: []string{s}}},
				Problems: []audit.Problem{{Severity: audit.Severity(s), Reason: s, Object: s, Node: s, Message: s}},
			})
		},
		"status": func(w io.Writer, s string) {
			(&status{
				Name:    s,
				Program: &loader.Info{ProgramTag: s, Image: s, Loader: "bpfman", Digest: s, Links: []loader.LinkInfo{{Interface: s, Direction: s}}},
				Status: writer.Status{StateHash: s, Frontends: []writer.FrontendStatus{
					{Frontend: s, Route: s, Backends: []writer.BackendStatus{{Address: s, State: s}, {Address: s, State: s}}, RejectShare: 1},
					{Frontend: s, Route: s},
				}, Tables: map[string]lb.Use{s: {}}, Counters: map[string]uint64{s: 1}},
			}).table(w)
		},
		"inspect": func(w io.Writer, s string) {
			imageTable(w, &inspected{
				Image: &bytecode.Image{
					Name: s, Digest: s, Object: &bytecode.Object{SHA256: s}, Platforms: []string{s}, Annotations: map[string]string{"k": s, s: s},
				},
				Signatures:   []bytecode.Signature{{Kind: s, Key: s, Problem: s}, {Kind: s, Identity: s, Issuer: s}},
				Attestations: []bytecode.Attestation{{PredicateType: s, Subjects: []string{s}, Identity: s, Issuer: s, Problem: s}},
			})
		},
	} {
		t.Run(name, func(t *testing.T) { wantPrintable(t, print) })
	}
}

// JSON of Go leaves half of it as it is, and YAML more.
func TestOutputIsPrintable(t *testing.T) {
	for _, f := range []format{"json", "yaml"} {
		var out bytes.Buffer
		if err := f.print(&terminal{out: &out}, map[string]string{"a": evil}, nil); err != nil {
			t.Fatal(err)
		}
		for _, r := range out.String() {
			if !unicode.IsPrint(r) && r != '\n' {
				t.Errorf("%s prints %q raw: %q", f, r, out.String())
			}
		}
		var got map[string]string
		if f == "json" {
			if err := json.Unmarshal(out.Bytes(), &got); err != nil || got["a"] != strings.ReplaceAll(strings.ToValidUTF8(evil, "\ufffd"), "\U000e0041", "\ufffd") {
				t.Errorf("JSON has another value: %q, %v", got["a"], err)
			}
		}
	}
}

// Writes may end within a character.
func TestTerminalWritesWholeCharacters(t *testing.T) {
	const text = "→ 日本 \u202e \U0001f600 \x1b é\n"
	var want bytes.Buffer
	fmt.Fprint(&terminal{out: &want}, text)
	for size := 1; size < 5; size++ {
		var got bytes.Buffer
		w := &terminal{out: &got}
		for rest := []byte(text); len(rest) > 0; rest = rest[min(size, len(rest)):] {
			if n, err := w.Write(rest[:min(size, len(rest))]); n != min(size, len(rest)) || err != nil {
				t.Fatal(n, err)
			}
		}
		if got.String() != want.String() || !strings.Contains(got.String(), "→ 日本 \\u202e \U0001f600 \\u001b é\n") {
			t.Errorf("by %d bytes: got %q, want %q", size, got.String(), want.String())
		}
	}
}

func TestLogsArePrintable(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		wantPrintable(t, func(w io.Writer, s string) {
			l := logFlags{level: "info", format: format}
			log, err := l.logger(w)
			if err != nil {
				t.Fatal(err)
			}
			log.Info(s, "object", s, slog.Group("g", "error", fmt.Errorf("file %s", s)))
		})
	}
}

// countedWrites counts calls, each of which costs a system call.
type countedWrites int

func (c *countedWrites) Write(p []byte) (int, error) {
	*c++
	return len(p), nil
}

// A table of 65,000 rows took 1.3 million system calls.
func TestTablesAreWrittenInLargePieces(t *testing.T) {
	var writes countedWrites
	w, flush := newTable(&writes)
	const rows = 1000
	for i := range rows {
		w.printf("%d\tb\tc\n", i)
	}
	flush()
	if writes == 0 || writes > rows/100 {
		t.Errorf("%d rows took %d writes", rows, writes)
	}
}
