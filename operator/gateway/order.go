// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// byAge compares by Gateway API's precedence: the older object wins, then the
// first by namespace and name. Objects without a creation time, as in files,
// are all of the same age.
func byAge(a, b *metav1.ObjectMeta) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), byName(a, b))
}

func byName(a, b *metav1.ObjectMeta) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// precedence returns why the winner comes before the loser, as a relative
// clause.
func precedence(winner, loser *metav1.ObjectMeta) string {
	if winner.CreationTimestamp.Equal(&loser.CreationTimestamp) {
		return "which is as old and comes first by namespace and name"
	}
	return "which is older"
}
