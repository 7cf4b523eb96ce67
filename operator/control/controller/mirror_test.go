// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"slices"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Ports with the same endpoints share mirrored slices, a hundred at most each:
// here those from 180 to 199, and from 200 to 243.
func TestMirroredSlicesAreShared(t *testing.T) {
	o := start(t)
	o.serve()
	gw := named[gwv1.Gateway]("default", "web")
	o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(gw), gw))
	gw.Spec.Listeners = nil
	for port := gwv1.PortNumber(180); port < 244; port++ {
		gw.Spec.Listeners = append(gw.Spec.Listeners, gwv1.Listener{Name: gwv1.SectionName(fmt.Sprintf("l%d", port)), Protocol: gwv1.TCPProtocolType, Port: port})
	}
	o.must(o.kube.Update(t.Context(), gw))
	o.eventually("mirrored slices", func() error {
		list := &discoveryv1.EndpointSliceList{}
		if err := o.kube.List(t.Context(), list, client.MatchingLabels{discoveryv1.LabelServiceName: "blixt-web"}); err != nil {
			return err
		}
		var ports []int
		names := map[string]bool{}
		for _, s := range list.Items {
			ports = append(ports, len(s.Ports))
			for _, p := range s.Ports {
				names[*p.Name] = true
			}
		}
		slices.Sort(ports)
		if !slices.Equal(ports, []int{20, 44}) || len(names) != 64 {
			return fmt.Errorf("they have %v ports with %d names, want 20 and 44 with 64", ports, len(names))
		}
		return nil
	})
}
