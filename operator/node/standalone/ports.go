// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/others"
)

// CheckOthersPorts returns an error if another load balancer on this host has source ports
// of the range. A reply could then belong to it or to us.
func CheckOthersPorts(r lb.PortRange, finder *others.Finder) error {
	if finder == nil {
		return nil
	}
	found, err := finder.Find()
	if err != nil {
		return err
	}
	return checkOthersPorts(r, found)
}

// ClaimPorts records the ports of a program that has just been loaded, with its maps at dir.
// It returns an error if another load balancer has ports of the range that was loaded
// before: two that start together have both found none with CheckOthersPorts.
func ClaimPorts(r lb.PortRange, finder *others.Finder, dir string) error {
	if finder == nil {
		return nil
	}
	if err := datapath.SetSNAT(dir, r); err != nil {
		return err
	}
	ours := others.Open(dir)
	if ours == nil {
		return nil
	}
	defer ours.Close()
	for end := time.Now().Add(claimTime); ; time.Sleep(10 * time.Millisecond) {
		found, err := finder.Find()
		if err != nil {
			return err
		}
		earlier := slices.DeleteFunc(found, func(d *others.DataPlane) bool { return d.ID() > ours.ID() })
		claims := !slices.ContainsFunc(earlier, func(d *others.DataPlane) bool {
			ports, err := d.Ports()
			return err == nil && ports == lb.PortRange{}
		})
		if claims || time.Now().After(end) {
			return checkOthersPorts(r, earlier)
		}
	}
}

// claimTime is how long to wait for a program that was loaded before to have its ports
// recorded, which takes a moment. One whose start was killed never has them.
const claimTime = 5 * time.Second

func checkOthersPorts(r lb.PortRange, found []*others.DataPlane) error {
	taken := []lb.PortRange{hostPorts()}
	var holder, orphan string
	for _, d := range found {
		ports, err := d.Ports()
		if err != nil {
			continue // it ends
		}
		taken = append(taken, ports)
		if holder == "" && ports.Overlaps(r) {
			holder = fmt.Sprintf("another load balancer on this host (%s) has ports %s", d, ports)
			if d.Name == "" {
				orphan = fmt.Sprintf(". If nothing runs it any more, remove it: blixt unload --program %d", d.Program)
			}
		}
	}
	if holder == "" {
		return nil
	}
	remedy := "choose others with --snat-ports"
	if free, ok := largestFree(taken); ok {
		remedy += fmt.Sprintf(", for example %s", free)
	}
	return fmt.Errorf("SNAT ports %s: %s, and each would take answers to the other: %s%s", r, holder, remedy, orphan)
}

// largestFree returns the largest range of ports that nobody has; false if it has fewer
// than a thousand.
func largestFree(taken []lb.PortRange) (free lb.PortRange, ok bool) {
	slices.SortFunc(taken, func(a, b lb.PortRange) int { return int(a.First) - int(b.First) })
	next := 1024 // lower ones are those of services
	for _, t := range append(taken, lb.PortRange{First: 65535, Last: 65535}) {
		if t == (lb.PortRange{}) {
			continue
		}
		if size := int(t.First) - next; size >= 1000 && size > int(free.Last)-int(free.First) {
			free, ok = lb.PortRange{First: uint16(next), Last: t.First - 1}, true
		}
		next = max(next, int(t.Last)+1)
	}
	return free, ok
}

const (
	localPortRange    = "/proc/sys/net/ipv4/ip_local_port_range"
	localPortReserved = "/proc/sys/net/ipv4/ip_local_reserved_ports"
)

// hostPorts returns the ports that the kernel chooses from for connections of this host;
// zero: they are not known.
func hostPorts() (r lb.PortRange) {
	text, err := os.ReadFile(localPortRange)
	if err != nil {
		return r
	}
	if _, err := fmt.Sscan(string(text), &r.First, &r.Last); err != nil {
		return lb.PortRange{}
	}
	return r
}

// ephemeralPorts returns those from which this host and the program connect: to give one to a
// listener would take the answers.
func (r *runner) ephemeralPorts() (all []gateway.ReservedRange) {
	if host := hostPorts(); host != (lb.PortRange{}) {
		all = append(all, gateway.ReservedRange{First: host.First, Last: host.Last, Use: "connections that this host begins (net.ipv4.ip_local_port_range)"})
	}
	snat := cmp.Or(r.SNATPorts, lb.DefaultSNATPorts)
	return append(all, gateway.ReservedRange{First: snat.First, Last: snat.Last, Use: "connections to backends elsewhere (--snat-ports)"})
}

// CheckHostPorts returns an error if the host's own connections may use ports of the
// range. The kernel gives them none that are reserved.
func CheckHostPorts(r lb.PortRange) error {
	host := hostPorts()
	if !host.Overlaps(r) {
		return nil
	}
	text, err := os.ReadFile(localPortReserved)
	if err != nil {
		return err
	}
	reserved, err := parsePorts(string(text))
	if err != nil {
		return fmt.Errorf("net.ipv4.ip_local_reserved_ports: %w", err)
	}
	for port := max(r.First, host.First); ; port++ {
		if !slices.ContainsFunc(reserved, func(r lb.PortRange) bool { return r.First <= port && port <= r.Last }) {
			break
		}
		if port == min(r.Last, host.Last) {
			return nil
		}
	}
	return fmt.Errorf("SNAT ports %s are used by connections of this host (net.ipv4.ip_local_port_range is %s): choose others with --snat-ports, or reserve them: sysctl -w net.ipv4.ip_local_reserved_ports=%s",
		r, host, r)
}

// parsePorts parses ports and ranges of them, as in "53,8000-8099".
func parsePorts(text string) (all []lb.PortRange, err error) {
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' }) {
		first, last, is := strings.Cut(part, "-")
		if !is {
			last = first
		}
		a, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			return nil, err
		}
		b, err := strconv.ParseUint(last, 10, 16)
		if err != nil {
			return nil, err
		}
		all = append(all, lb.PortRange{First: uint16(a), Last: uint16(b)})
	}
	return all, nil
}
