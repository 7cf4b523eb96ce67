// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"fmt"
	"strings"
)

// maxName leaves room in a DNS label of 63 for what is added: see pool.write.
const maxName = 40

// names are those that are taken, by scope and name, with the number that is tried next.
type names map[string]int

// valid returns a DNS label that resembles the text: lower-case letters, digits and dashes,
// first a letter.
func valid(text string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(text) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() == maxName {
			break
		}
	}
	name := strings.Trim(b.String(), "-")
	if name == "" {
		return "frontend"
	}
	if name[0] >= '0' && name[0] <= '9' {
		return "p" + name
	}
	return name
}

// take returns a name that nobody has in the scope: the first of the wanted ones that is
// free, or the last one with a number.
func (n names) take(scope string, wanted ...string) string {
	for _, w := range wanted {
		if key := scope + "/" + w; n[key] == 0 {
			n[key] = 2
			return w
		}
	}
	last := wanted[len(wanted)-1]
	for {
		i := n[scope+"/"+last]
		n[scope+"/"+last]++
		name := fmt.Sprintf("%s-%d", last, i)
		if key := scope + "/" + name; n[key] == 0 {
			n[key] = 2
			return name
		}
	}
}
