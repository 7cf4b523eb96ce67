// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// What is not in force comes first, then what has refused most, however many there are.
func TestPolicyTable(t *testing.T) {
	all := []writer.PolicyStatus{
		{Policy: "shop/calm", Target: "TCPRoute/shop/calm", InForce: true, Frontends: 1, Refused: map[string]uint64{"source": 0}},
		{Policy: "shop/web", Target: "Gateway/shop/web/http", InForce: true, Frontends: 2, Sources: 100, Refused: map[string]uint64{"source": 7, "total_rate": 3}},
		{Policy: "shop/shadow", Target: "TCPRoute/shop/a", InForce: true, DryRun: true, Frontends: 1, Sources: 1, Refused: map[string]uint64{"source": 8}},
		{Policy: "shop/\x1b[2J", Target: "TCPRoute/shop/b", Frontends: 1},
	}
	var out strings.Builder
	policyTable(printer{&out}, all, 0)
	want := `POLICY          TARGET                 FRONTENDS  NETWORKS  STATE                  REFUSED
shop/\u001b[2J  TCPRoute/shop/b        1          -         no room: not in force  -
shop/web        Gateway/shop/web/http  2          100       in force               7 by source, 3 by total rate
shop/shadow     TCPRoute/shop/a        1          1         dry run                8 by source
shop/calm       TCPRoute/shop/calm     1          -         in force               -
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for i := range 5000 {
		all = append(all, writer.PolicyStatus{Policy: fmt.Sprint("many/", i), InForce: true})
	}
	out.Reset()
	policyTable(printer{&out}, all, 3)
	if n := strings.Count(out.String(), "\n"); n != 5 || !strings.Contains(out.String(), "and 5001 more") {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
	out.Reset()
	policyTable(printer{&out}, nil, 3)
	if out.Len() > 0 {
		t.Errorf("without policies there is %q", out.String())
	}
}
