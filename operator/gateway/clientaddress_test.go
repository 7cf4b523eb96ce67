// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// What a Gateway was served by before Blixt was uninstalled is all that stays.
func TestTakeBackClientAddress(t *testing.T) {
	for reason, stays := range map[string]bool{"NodeKept": true, "NodeChosen": true, "Preserved": false, "PartlyPreserved": false, "LocalPolicy": false, "Pending": false} {
		of := func(kind string) metav1.Condition {
			return metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason}
		}
		left := gateway.TakeBackClientAddress([]metav1.Condition{of("Accepted"), of(gateway.GatewayConditionClientAddressPreserved), of("example.com/Theirs")})
		if len(left) == 3 && left[1].Status != metav1.ConditionUnknown {
			t.Errorf("%s: what stays is %s, want Unknown", reason, left[1].Status)
		}
		if got := len(left) == 3; got != stays {
			t.Errorf("%s: left %v, want that it stays: %t", reason, left, stays)
		}
	}
}
