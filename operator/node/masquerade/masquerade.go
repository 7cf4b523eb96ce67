// SPDX-License-Identifier: Apache-2.0

// Package masquerade has the host's own NAT translate the source of packets that
// carry a mark: those that the program leaves to the host's stack, so that its
// firewall and IPsec policies hold.
package masquerade

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// table returns the nftables table of a load balancer. Nobody else has one of
// this name, so that the table is removed as a whole.
func table(name string) *nftables.Table {
	return &nftables.Table{Name: "blixt-" + name, Family: nftables.TableFamilyINet}
}

// Set makes the host masquerade packets whose mark has all bits of mark, whatever
// was set before. It is one transaction.
func Set(name string, mark uint32) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	t := table(name)
	c.AddTable(t) // or deleting it would fail
	c.DelTable(t)
	c.AddTable(t)
	chain := c.AddChain(&nftables.Chain{
		Name: "postrouting", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	bits := binaryutil.NativeEndian.PutUint32(mark)
	c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: bits, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: bits},
		&expr.Counter{},
		&expr.Masq{},
	}})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: masquerade packets with mark %#x: %w", mark, err)
	}
	return nil
}

// Remove ends that. It is no error if nothing was set.
func Remove(name string) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	t := table(name)
	c.AddTable(t)
	c.DelTable(t)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: remove table %s: %w", t.Name, err)
	}
	return nil
}

// Exists reports whether Set has set something, and Remove has not removed it.
func Exists(name string) (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("nftables: %w", err)
	}
	tables, err := c.ListTablesOfFamily(table(name).Family)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return false, nil // the kernel has no nftables
	}
	if err != nil {
		return false, fmt.Errorf("nftables: list tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == table(name).Name }), nil
}
