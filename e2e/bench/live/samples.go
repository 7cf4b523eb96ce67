// SPDX-License-Identifier: Apache-2.0

package live

import "github.com/kubernetes-sigs/blixt/e2e/bench/report"

// Samples returns what was measured, for a report.
func Samples(variants []*Variant) (samples []report.Samples) {
	for _, v := range variants {
		w := wish{family: v.Family, flows: v.Flows, reply: v.Reply, checksum: true}
		s := report.Samples{Part: report.Live, Name: v.Name, Unit: "ns/packet", Rounds: v.Packets}
		if path(v.Path) != pathDrop {
			for _, to := range []path{pathForward, pathForward2, pathNFT} {
				w.path = to
				s.To = append(s.To, w.name())
			}
		}
		samples = append(samples, s)
	}
	return samples
}
