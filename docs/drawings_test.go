// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	viewBox  = regexp.MustCompile(`viewBox="0 0 (\d+) \d+"`)
	fontSize = regexp.MustCompile(`font-size="(\d+)"`)
)

// Drawings are read on phones, too, in light and dark, and by people who cannot see them.
func TestDrawingsAreReadable(t *testing.T) {
	const (
		phone    = 358 // pixels that a page has for a drawing on a phone of 390
		smallest = 11  // pixels
		longest  = 8 << 10
	)
	drawings := 0
	for _, file := range files(t, ".svg") {
		if !strings.HasPrefix(file, "docs/pictures/") {
			continue
		}
		drawings++
		text := read(t, file)
		box, sizes := viewBox.FindStringSubmatch(text), fontSize.FindAllStringSubmatch(text, -1)
		if box == nil || len(sizes) == 0 {
			t.Errorf("%s has no viewBox, or no font-size", file)
			continue
		}
		width, err := strconv.Atoi(box[1])
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range sizes {
			if size, err := strconv.Atoi(m[1]); err != nil || size*phone < smallest*width {
				t.Errorf("%s has text of font-size %s in a width of %d, which is less than %d pixels on a phone", file, m[1], width, smallest)
			}
		}
		for _, part := range []string{"<title ", "<desc ", "prefers-color-scheme: dark", `class="bg"`} {
			if !strings.Contains(text, part) {
				t.Errorf("%s has no %s", file, part)
			}
		}
		if len(text) > longest {
			t.Errorf("%s has %d bytes, more than %d", file, len(text), longest)
		}
	}
	if drawings < 6 {
		t.Errorf("found only %d drawings", drawings)
	}
}
