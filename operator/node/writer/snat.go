// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"fmt"
	"net/netip"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// SetSNAT changes what translated flows come from: the ports, and the node's
// addresses for kernels that cannot say which one. Flows that exist keep what
// they have.
func (a *Writer) SetSNAT(ports lb.PortRange, node4, node6 netip.Addr) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.o.SNAT, a.o.Node4, a.o.Node6 = ports, node4, node6
	c, err := a.tables.Config()
	if err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	if settled := a.mergeOptions(c); settled != c {
		if err := a.tables.SetConfig(settled); err != nil {
			return fmt.Errorf("write config: %w", err)
		}
	}
	return nil
}
