// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// granted reports whether a ReferenceGrant in the Service's namespace allows
// routes of that kind and namespace to refer to it.
func granted(grants []gwv1.ReferenceGrant, kind gwv1.Kind, from, to, service string) bool {
	for i := range grants {
		if grants[i].Namespace == to && permits(&grants[i].Spec, kind, from, service) {
			return true
		}
	}
	return false
}

func permits(grant *gwv1.ReferenceGrantSpec, kind gwv1.Kind, from, service string) bool {
	for _, f := range grant.From {
		if f.Group != gwv1.GroupName || f.Kind != kind || string(f.Namespace) != from {
			continue
		}
		for _, t := range grant.To {
			if t.Group == "" && t.Kind == "Service" && (t.Name == nil || string(*t.Name) == "" || string(*t.Name) == service) {
				return true
			}
		}
	}
	return false
}
