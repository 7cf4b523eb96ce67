// SPDX-License-Identifier: Apache-2.0

package health

import (
	"fmt"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Panics returns for which of the frontends health is not asked, as too few backends are healthy.
// They are in the order of the frontends.
func Panics(frontends []lb.Frontend) []lb.HealthNotice {
	var all []lb.HealthNotice
	for i := range frontends {
		f := &frontends[i]
		if f.Health == nil {
			continue
		}
		failing, total, why := 0, 0, ""
		for _, b := range f.Backends {
			if b.Weight == 0 {
				continue
			}
			total++
			if b.Ejected != nil && b.Ejected.Panic {
				failing++
				why = b.Ejected.Why
			}
		}
		if failing > 0 {
			all = append(all, lb.HealthNotice{Policy: f.Health.Policy, Gateway: f.Gateway, Group: f.Key().String(),
				Why: fmt.Sprintf("%d of %d backends of %s fail, so that too few healthy ones are left, and all of them get new flows: %s", failing, total, f.Key(), why)})
		}
	}
	return all
}
