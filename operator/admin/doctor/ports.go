// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// others are ranges of ports with other users: the operator's argument that sets the
// range, its user, and the range without the argument.
var others = []struct{ flag, whose, usual string }{
	{"--node-ports=", "the cluster's node ports", "30000-32767"},
	{"--ephemeral-ports=", "the ports of nodes' own connections", "32768-60999"},
}

// snatPorts: if two connections have the same ports, one gets the packets of both.
func snatPorts(f *Facts) (string, []Finding) {
	mine := f.spec().SNATPorts
	var wrong []Finding
	for _, o := range others {
		text := o.usual
		if d := f.operator(); d != nil {
			for _, c := range d.Spec.Template.Spec.Containers {
				for _, arg := range c.Args {
					if given, is := strings.CutPrefix(arg, o.flag); is {
						text = given
					}
				}
			}
		}
		var theirs v1alpha1.PortRange
		if _, err := fmt.Sscanf(text, "%d-%d", &theirs.First, &theirs.Last); err != nil {
			continue // the operator reports that, and does not run
		}
		if mine.First <= theirs.Last && theirs.First <= mine.Last {
			wrong = append(wrong, failed("BlixtConfig", fmt.Sprintf("spec.dataplane.snatPorts %d-%d overlap %s, %s: packets of one connection may be taken for those of another", mine.First, mine.Last, text, o.whose),
				"Choose other ports as snatPorts of the BlixtConfig, such as {first: 11000, last: 29999}. If the operator's argument "+strings.Trim(o.flag, "-=")+" is not true of this cluster, correct the value of the chart."))
		}
	}
	return fmt.Sprintf("snatPorts %d-%d have no other user", mine.First, mine.Last), wrong
}

// operator returns the operator's Deployment; nil: there is none.
func (f *Facts) operator() *appsv1.Deployment {
	i := slices.IndexFunc(f.Deployments, func(d appsv1.Deployment) bool { return d.Name == v1alpha1.Operator && d.Namespace == f.Namespace })
	if i < 0 {
		return nil
	}
	return &f.Deployments[i]
}
