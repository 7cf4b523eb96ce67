// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// shown is how many nodes a Gateway's condition names.
const shown = 5

// Progress is what a Gateway may say of the nodes.
type Progress struct {
	// Ready of the Wanted nodes serve. Nodes that are not selected, or that
	// Kubernetes does not call ready, are not wanted.
	Ready  int `json:"ready"`
	Wanted int `json:"wanted"`
	// Missing are the others, sorted.
	Missing []Missing `json:"missing,omitempty"`
}

// Missing is a node that does not serve, and why.
type Missing struct {
	Node    string `json:"node"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Sum counts the nodes.
func Sum(verdicts []Verdict) Progress {
	var p Progress
	for _, v := range verdicts {
		if !v.Counted {
			continue
		}
		p.Wanted++
		if meta.IsStatusConditionTrue(v.Status.Conditions, v1alpha1.NodeReady) {
			p.Ready++
		} else if c := meta.FindStatusCondition(v.Status.Conditions, v1alpha1.NodeReady); c != nil {
			p.Missing = append(p.Missing, Missing{v.Node, c.Reason, c.Message})
		}
	}
	return p
}

// String returns "12/13 nodes, missing: n7 (NotLoaded)".
func (p Progress) String() string {
	text := fmt.Sprintf("%d/%d nodes", p.Ready, p.Wanted)
	var words []string
	for i, m := range p.Missing {
		if i == shown {
			words = append(words, fmt.Sprintf("%d more", len(p.Missing)-shown))
			break
		}
		words = append(words, fmt.Sprintf("%s (%s)", m.Node, m.Reason))
	}
	if words == nil {
		return text
	}
	return text + ", missing: " + list(words)
}
