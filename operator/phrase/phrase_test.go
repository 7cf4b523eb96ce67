// SPDX-License-Identifier: Apache-2.0

package phrase_test

import (
	"testing"

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
