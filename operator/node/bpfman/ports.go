// SPDX-License-Identifier: Apache-2.0

package bpfman

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// choosePorts picks the end of the SNAT range that a program begins with, see
// lb.PortRange.Ends. A program that is adopted keeps its ports if they are in the
// range. (In a cluster, rollout picks them by annotations.)
func (d *Loader) choosePorts(own *program, previous []*program) (lb.PortRange, error) {
	all := d.Options.SNATPorts
	var taken []lb.PortRange
	for _, p := range previous {
		taken = append(taken, p.SNAT)
	}
	if own != nil && own.SNAT.First >= all.First && own.SNAT.Last <= all.Last && own.SNAT.Last > 0 && !slices.ContainsFunc(taken, own.SNAT.Overlaps) {
		return own.SNAT, nil
	}
	if all.First >= all.Last {
		return all, fmt.Errorf("--snat-ports %s: want at least two ports, one for this program and one for the next version", all)
	}
	if end, free := all.FreeEnd(taken...); free {
		return end, nil
	}
	var holders []string
	for _, p := range previous {
		holders = append(holders, d.describeHolder(p))
	}
	return all, fmt.Errorf("no end of --snat-ports %s is free for another version: %s; run it again when one of them is gone, give other ports with --snat-ports, or unload all of them with --replace, which ends their flows",
		all, strings.Join(holders, ", "))
}

// describeHolder describes a program that holds ports, and until when.
func (d *Loader) describeHolder(p *program) string {
	text := fmt.Sprintf("program %d of bpfman has ports %s", p.id, p.SNAT)
	if !p.Draining {
		return text + " and serves"
	}
	text += " and drains"
	if n, err := d.Unfinished(p.dir); err == nil {
		text += fmt.Sprintf(", with %d flows", n)
	}
	return text + ", at most until " + d.draining(p).Until.Local().Format(time.DateTime)
}
