// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// What an operator has published is the set of its addresses, frontends, Services and
// SourceSets. Both ends keep the lb.Sum of that set: if the sums are equal, the
// agent has what the operator has published, whatever the epoch.
//
// An element is summed as its message, so that no field is forgotten. A field
// that only one of two versions of Blixt knows makes a difference as soon as it
// is used, and then the agent gets everything.

// SumAddress returns the sum of one address.
func SumAddress(a lb.Address) lb.Sum { return sumOf('a', EncodeAddress(a)) }

// SumFrontend returns the sum of one frontend.
func SumFrontend(f gateway.Frontend) lb.Sum { return sumOf('f', EncodeFrontend(f)) }

// SumService returns the sum of one Service's endpoints.
func SumService(name types.NamespacedName, ports []gateway.EndpointPort) lb.Sum {
	return sumOf('s', EncodeService(name, ports))
}

// SumSourceSet returns the sum of one set of sources.
func SumSourceSet(set *lb.SourceSet) lb.Sum { return sumOf('r', EncodeSourceSet(set)) }

// sumOf returns the sum of a message of a kind.
func sumOf(kind byte, m proto.Message) lb.Sum {
	// Another version may encode differently. Then sums differ, no more.
	text, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend([]byte{kind}, m)
	if err != nil { // a name that is not UTF-8, which no object has and no update can carry
		return lb.SumOf([]byte(err.Error()))
	}
	return lb.SumOf(text)
}
