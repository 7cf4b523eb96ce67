// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
)

// AdoptNoted marks the addresses that a file names as those of the load balancer of a
// name, and removes the file. Earlier versions kept such files, and did not mark
// addresses.
func AdoptNoted(file, name string) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var noted map[netip.Addr]struct {
		Index int `json:"index"`
	}
	if err := json.Unmarshal(text, &noted); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	n, err := hostnet.Read()
	if err != nil {
		return err
	}
	var errs []error
	for ip, at := range noted {
		if !slices.ContainsFunc(n.Addresses, func(a hostnet.Address) bool { return a.IP == ip && a.Index == at.Index && isUnmarked(a) }) {
			continue
		}
		unmarked := address{ip: ip, peer: ip, index: at.Index}
		marked := newAddress(ip, at.Index, mark(name), n.Addresses)
		if ip.Is6() {
			marked.index = loopbackIndex
		}
		// The host has the address all the time: its own connections from and to it go on.
		if ip.Is6() && at.Index == loopbackIndex { // one interface takes it only once
			errs = append(errs, marked.change(unix.RTM_NEWADDR, unix.NLM_F_REPLACE))
			continue
		}
		if err := marked.add(); err != nil && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, err)
		}
		errs = append(errs, unmarked.remove())
	}
	return errors.Join(append(errs, os.Remove(file))...)
}

// isUnmarked reports whether an address has the form in which earlier versions added
// addresses.
func isUnmarked(a hostnet.Address) bool {
	passive := a.Scope == unix.RT_SCOPE_HOST
	if a.IP.Is6() {
		passive = a.Flags&unix.IFA_F_DEPRECATED != 0
	}
	return passive && a.Protocol == 0 && a.Network == netip.PrefixFrom(a.IP, a.IP.BitLen())
}
