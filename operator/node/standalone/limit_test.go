// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// many returns a Gateway of 64 listeners on 16 addresses, the most that it may have.
func many(n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: aaa%d}\nspec:\n  gatewayClassName: blixt\n  addresses:\n", n)
	for a := range 16 {
		fmt.Fprintf(&b, "  - {value: 198.18.%d.%d}\n", n, a+1)
	}
	b.WriteString("  listeners:\n")
	for l := range 64 {
		fmt.Fprintf(&b, "  - {name: l%d, protocol: TCP, port: %d}\n", l, 1000+l)
	}
	return b.String()
}

// TestLimitsAreNotAllOrNothing asks for more frontends than the table has room for, in
// files that come first by name: who served goes on, other changes take effect, what does
// not fit is named, and a restart changes nothing.
func TestLimitsAreNotAllOrNothing(t *testing.T) {
	const room = 4096
	veth(t, "eth0")
	i := prepare(t, files(80, far4))
	i.Files.StateDir = filepath.Join(t.TempDir(), "state")
	i.start()
	i.serves(far4 + ":80")
	for n := range 5 {
		i.put(fmt.Sprintf("many%d.yaml", n), "---\n"+many(n))
	}
	i.logs("many3.yaml:88: Gateway default/aaa3 listener l63: NoResources: Not served: Frontends: ", "of 4,096 are in use in the nodes' tables")
	full := func(port int) {
		i.Helper()
		eventually(t, func() error {
			r, err := writer.LoadRecord(StateFile(i.RunDir, i.Name))
			ours := slices.ContainsFunc(r.State.Frontends, func(f lb.Frontend) bool {
				return f.Addr.String() == far4 && int(f.Port) == port && len(f.Backends) == 1
			})
			if n := len(r.State.Frontends); err == nil && (!ours || n > room || n < room-16) {
				err = fmt.Errorf("%d frontends, with port %d of %s: %t", n, port, far4, ours)
			}
			return err
		})
	}
	full(80)
	i.write(files(81, far4))
	full(81)
	for range 2 {
		i.stop()
		i.start()
		full(81)
	}
	i.put("many0.yaml", "")
	i.logs("mended", "Gateway default/aaa3 listener l63: NoResources")
}
