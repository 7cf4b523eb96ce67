// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// unread are the kinds that Blixt does not read, of groups from which it reads others.
// Any other kind of these groups does not exist, so it is a mistake.
var unread = map[string][]string{
	gwv1.GroupName:              {"BackendTLSPolicy", "GRPCRoute", "HTTPRoute", "TLSRoute"},
	v1alpha1.GroupVersion.Group: {"NodeDataplane"},
	discoveryv1.GroupName:       {},
}

// mistaken returns, for an object that Blixt does not read, the field that must be a
// mistake, and why; "": the object is meant for somebody else. A typo in a kind must not
// end what is served.
func mistaken(group, name string) (field, reason string) {
	if k := kinds[name]; k != nil { // of another group
		if group != "" && near(group, k.group) {
			return "apiVersion", fmt.Sprintf("group %s is unknown: did you mean %s/%s?", group, k.group, k.versions[0])
		}
		return "", ""
	}
	others, closed := unread[group]
	if slices.Contains(others, name) {
		return "", ""
	}
	var readable []string
	for _, known := range slices.Sorted(maps.Keys(kinds)) {
		if group == "" || group == kinds[known].group {
			readable = append(readable, known)
		}
	}
	if readable == nil { // a foreign group
		return "", ""
	}
	nearest := slices.MinFunc(readable, func(a, b string) int { return cmp.Compare(distance(name, a), distance(name, b)) })
	switch {
	case near(name, nearest):
		return "kind", fmt.Sprintf("kind %s is unknown: did you mean %s?", name, nearest)
	case closed:
		return "kind", fmt.Sprintf("kind %s is unknown: %s has %s", name, group, strings.Join(append(readable, others...), ", "))
	}
	return "", ""
}

// near reports whether one name may be a typo of the other: two letters are swapped, or
// at most two are missing, added or replaced.
func near(a, b string) bool { return distance(a, b) <= 2 }

// distance counts the letters to insert, remove or replace (Levenshtein),
// whatever their case.
func distance(a, b string) int {
	a, b = strings.ToLower(a), strings.ToLower(b)
	row := make([]int, len(b)+1) // of a's letters so far, to so many of b's
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
