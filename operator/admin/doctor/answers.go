// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"maps"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// remembered is how long after a connection without answers the remedy is asked for.
const remembered = time.Hour

// answers: where a node has several network interfaces, policy routing by source may
// send the answers of its pods by another interface than the one that their clients'
// packets come in by. If the program is not attached there, the answers leave with
// the pod's address, and no client knows them.
func answers(f *Facts) (string, []Finding) {
	var wrong []Finding
	for i := range f.Dataplanes {
		d := &f.Dataplanes[i]
		for _, a := range d.Status.Applications {
			if a.AnsweredElsewhereAt == nil || f.since(*a.AnsweredElsewhereAt) > remembered {
				continue
			}
			attached := map[string]bool{}
			for _, l := range a.Links {
				attached[l.Interface] = true
			}
			wrong = append(wrong, warning("NodeDataplane "+d.Name,
				"status.applications["+a.Name+"].answeredElsewhereAt is "+stamp(*a.AnsweredElsewhereAt)+": the node's routes send answers of a pod by another interface than "+phrase.Sample(slices.Sorted(maps.Keys(attached)))+", which have the program; those clients get no answer that they know",
				"On node "+d.Name+", ip rule, and ip route get CLIENT from POD iif INTERFACE_OF_POD, name the interface. Attach the program there too: name it in spec.dataplane.interfaces.names of the BlixtConfig besides the others, or choose discover. If connections to the node's pods work, ignore this: the program is at a port of a bridge or a bond, where it sees the answers."))
		}
	}
	return "pods' answers leave by interfaces with the program", wrong
}
