// SPDX-License-Identifier: Apache-2.0

package bpfman

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// choosePorts returns the half of the ports that a program has for life: by
// the tuple of a reply alone two programs could not tell whose it is.
func (d *Loader) choosePorts(own *program, older []*program) (lb.PortRange, error) {
	all := d.Options.SNATPorts
	var taken []lb.PortRange
	for _, p := range older {
		taken = append(taken, p.SNAT)
	}
	if own != nil && own.SNAT.First >= all.First && own.SNAT.Last <= all.Last && own.SNAT.Last > 0 && !slices.ContainsFunc(taken, own.SNAT.Overlaps) {
		return own.SNAT, nil
	}
	if all.First >= all.Last {
		return all, fmt.Errorf("--snat-ports %s: want at least two ports, one half for this program and one for the next version", all)
	}
	if half, free := all.FreeHalf(taken...); free {
		return half, nil
	}
	var holders []string
	for _, p := range older {
		holders = append(holders, d.describe(p))
	}
	return all, fmt.Errorf("no half of --snat-ports %s is free for another version: %s; run it again when one of them is gone, give other ports with --snat-ports, or unload all of them with --replace, which ends their flows",
		all, strings.Join(holders, ", "))
}

// describe says what keeps a program, and until when.
func (d *Loader) describe(p *program) string {
	text := fmt.Sprintf("program %d of bpfman has ports %s", p.id, p.SNAT)
	if !p.Draining {
		return text + " and serves"
	}
	text += " and drains"
	if n, err := d.Unfinished(p.dir); err == nil {
		text += fmt.Sprintf(", with %d flows", n)
	}
	_, until := d.drains(p)
	return text + ", at most until " + until.Local().Format(time.DateTime)
}
