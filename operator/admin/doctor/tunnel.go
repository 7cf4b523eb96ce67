// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
)

// tunnels: pods of other nodes answer through the network plugin's tunnel, so the
// program must be attached there to see the answers. Only plugins that announce their
// tunnels by annotations are known.
func tunnels(f *Facts) (string, []Finding) {
	interfaces := f.spec().Interfaces
	left := map[string]string{} // device: what announces it
	for _, n := range f.selected() {
		for device, annotation := range rollout.Tunnels(n) {
			if !takes(interfaces, device) {
				left[device] = "annotation " + annotation + " of Node " + n.Name
			}
		}
	}
	if len(left) == 0 {
		return "no network plugin announces a tunnel without the program", nil
	}
	names := slices.Sorted(maps.Keys(left))
	return "", []Finding{failed("BlixtConfig", fmt.Sprintf("spec.dataplane.interfaces leaves out %s, by which pods of other nodes are reached, as %s says: what they answer is lost",
		strings.Join(names, ", "), left[names[0]]),
		"Set it to {primary: true}, which takes such tunnels too, or name them all: {names: [eth0, "+strings.Join(names, ", ")+"]}.")}
}

// takes reports whether bpfman attaches to a device.
func takes(i v1alpha1.Interfaces, device string) bool {
	is := func(pattern string) bool {
		if len(pattern) < 2 || pattern[0] != '/' {
			return pattern == device
		}
		match, err := regexp.MatchString(strings.Trim(pattern, "/"), device)
		return err == nil && match
	}
	if d := i.Discover; d != nil {
		return !slices.ContainsFunc(d.Exclude, is) && (len(d.Allow) == 0 || slices.ContainsFunc(d.Allow, is))
	}
	return slices.Contains(i.Names, device)
}
