// SPDX-License-Identifier: Apache-2.0

package phrase_test

import (
	"strings"
	"testing"
	"unicode"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

func TestSample(t *testing.T) {
	for _, test := range []struct {
		names []string
		want  string
	}{
		{nil, ""},
		{[]string{"a"}, "a"},
		{[]string{"b", "a"}, "a and b"},
		{[]string{"e", "d", "c", "b", "a"}, "a, b, c, d and e"},
		{[]string{"g", "f", "e", "d", "c", "b", "a"}, "a, b, c, d, e and 2 more"},
	} {
		if got := phrase.Sample(test.names); got != test.want {
			t.Errorf("Sample(%q) = %q, want %q", test.names, got, test.want)
		}
	}
}

// hostile are texts of others, and how they are printed.
var hostile = map[string]string{
	"web-6c64, Ünïcödé, 日本, →":       "web-6c64, Ünïcödé, 日本, →",
	"\x1b[2J\x1b]0;title\x07":        `\u001b[2J\u001b]0;title\u0007`,
	"a\rb\bc\x00d\x7fe":              `a\u000db\u0008c\u0000d\u007fe`,
	"\u009b31m":                      `\u009b31m`, // CSI in one character
	"\x9b31m":                        "\ufffd31m", // and in one byte, which is no UTF-8
	"gepj.\u202eexe":                 `gepj.\u202eexe`,
	"\u2066a\u2069\u061c\u200f":      `\u2066a\u2069\u061c\u200f`,
	"pay\u200bpal\u200d\ufeff\u00ad": `pay\u200bpal\u200d\ufeff\u00ad`,
	"a\u2028b\u2029c\u0085d":         `a\u2028b\u2029c\u0085d`,
	"no\u00a0break":                  `no\u00a0break`,
	"\U000e0041":                     `\ufffd`, // a tag, which is invisible
	"ok       n1\nfailed\tn2":        `ok       n1\nfailed\tn2`,
	"":                               "",
}

func TestPrintable(t *testing.T) {
	for text, want := range hostile {
		if got := phrase.Printable(text); got != want {
			t.Errorf("Printable(%q) is %q, want %q", text, got, want)
		}
	}
	if got, want := phrase.Lines("a\tb\x1b\nc\n"), `a\tb\u001b`+"\nc\n"; got != want {
		t.Errorf("Lines: got %q, want %q", got, want)
	}
}

func FuzzPrintable(f *testing.F) {
	for text := range hostile {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := phrase.Printable(text)
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Errorf("Printable(%q) is %q, which has %q", text, got, r)
			}
		}
		if again := phrase.Printable(got); again != got {
			t.Errorf("twice: %q, then %q", got, again)
		}
		if escaped := phrase.Lines(text); strings.Count(escaped, "\n") != strings.Count(text, "\n") {
			t.Errorf("Lines(%q) is %q, of other lines", text, escaped)
		}
	})
}
