// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// fault is the reason and message of a condition that reports a failure. A nil
// *fault is no failure.
type fault struct {
	reason, message string
	// causes are the other objects that may be at fault.
	causes []string
	// value is as in Mistake; empty: the name of the first cause.
	value string
}

func faultf[R ~string](reason R, format string, args ...any) *fault {
	return &fault{reason: string(reason), message: fmt.Sprintf(format, args...)}
}

// condition returns a condition without LastTransitionTime: it depends on the
// stored status, which this package does not know.
func condition[T, R ~string](kind T, status metav1.ConditionStatus, reason R, generation int64, message string) metav1.Condition {
	return metav1.Condition{
		Type: string(kind), Status: status, Reason: string(reason),
		Message: message, ObservedGeneration: generation,
	}
}

// conditionOf returns a condition that is True with the given reason and
// message or, if f is not nil, False with those of f.
func conditionOf[T, R ~string](kind T, f *fault, reason R, generation int64, message string) metav1.Condition {
	if f != nil {
		return condition(kind, metav1.ConditionFalse, f.reason, generation, f.message)
	}
	return condition(kind, metav1.ConditionTrue, reason, generation, message)
}

// named returns the name by which messages refer to an object.
func named(kind, namespace, name string) string {
	if namespace == "" {
		return kind + " " + name
	}
	return kind + " " + namespace + "/" + name
}

// listenersNamed returns "listener x" or "listeners x, y and z".
func listenersNamed(names []string) string {
	if len(names) == 1 {
		return "listener " + names[0]
	}
	return "listeners " + phrase.Join(names)
}
