// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package bpfman

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// nobody is the user and group of a writer of maps.
const nobody = 65532

// writerOf is set in the process that has no privilege: what it is to write to.
const writerOf = "BLIXT_TEST_WRITER"

// write is the main function of the process without privileges.
func write(dir string) error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for _, want := range []string{"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Uid:\t65532\t65532\t65532\t65532"} {
		if !strings.Contains(string(status), want) {
			return fmt.Errorf("not as it should be: no %q in\n%s", want, status)
		}
	}
	maps, err := datapath.Open(dir)
	if err != nil {
		return err
	}
	defer maps.Close()
	var s lb.State
	for vip, backend := range map[string]string{"198.51.100.10": "10.77.0.12", "2001:db8:100::10": "fd77::12"} {
		s.Addresses = append(s.Addresses, lb.Address{IP: netip.MustParseAddr(vip), Exclusive: true})
		for _, protocol := range []lb.Protocol{lb.TCP, lb.UDP} {
			s.Frontends = append(s.Frontends, lb.Frontend{
				Addr: netip.MustParseAddr(vip), Port: 80, Protocol: protocol,
				IdleTimeout: lb.DefaultIdleTimeout(protocol),
				Backends:    []lb.Backend{{Addr: netip.AddrPortFrom(netip.MustParseAddr(backend), 8080), Weight: lb.WeightUnit}},
			})
		}
	}
	a := writer.New(maps, writer.Options{})
	if _, err := a.Apply(context.Background(), s); err != nil {
		return err
	}
	if _, err := a.Sweep(context.Background()); err != nil {
		return err
	}
	_, err = a.Status()
	return err
}
