// SPDX-License-Identifier: Apache-2.0

package masquerade

import (
	"testing"

	"github.com/google/nftables"

	"github.com/kubernetes-sigs/blixt/e2e/lib/ownhost"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// TestMain gives the tests a host of their own, with no rules.
func TestMain(m *testing.M) {
	ownhost.Main(m, func() error { return nil })
}

// TestTableIsOneOfItsOwn sets the table twice, as a run does that finds what a killed one
// has left, and removes it twice.
func TestTableIsOneOfItsOwn(t *testing.T) {
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	rules := func() (n int) {
		chains, err := c.ListChains()
		if err != nil {
			t.Fatal(err)
		}
		for _, chain := range chains {
			found, err := c.GetRules(chain.Table, chain)
			if err != nil {
				t.Fatal(err)
			}
			n += len(found)
		}
		return n
	}
	c.AddTable(&nftables.Table{Name: "another", Family: nftables.TableFamilyINet})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Set("x", lb.DefaultMasqueradeMark); err != nil {
			t.Fatal(err)
		}
		if n := rules(); n != 1 {
			t.Errorf("%d rules, want 1", n)
		}
	}
	for range 2 {
		if err := Remove("x"); err != nil {
			t.Fatal(err)
		}
	}
	tables, err := c.ListTables()
	if err != nil || len(tables) != 1 || tables[0].Name != "another" {
		t.Errorf("tables are %v, %v", tables, err)
	}
}
