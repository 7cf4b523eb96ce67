// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"fmt"
	"maps"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// refusing says which frontends refuse everybody for the sake of a policy, one line for each
// cause.
func refusing(s *lb.State) (lines []string) {
	frontends := map[string][]string{}
	for i := range s.Frontends {
		if f := &s.Frontends[i]; f.Refused != "" {
			frontends[f.Refused] = append(frontends[f.Refused], f.Key().String())
		}
	}
	for _, why := range slices.Sorted(maps.Keys(frontends)) {
		lines = append(lines, fmt.Sprintf("all new connections to %s are refused: %s", phrase.Sample(frontends[why]), why))
	}
	return lines
}
