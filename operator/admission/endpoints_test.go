// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// Endpoints change in any way, in objects with and without mistakes: the short way gives
// what a whole review gives, or says that it does not know.
func TestWithEndpointsIsAReview(t *testing.T) {
	taken := 0
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 17))
		text := class + web + app("other", "192.0.2.2", 80)
		m := (&Memory{}).Review(read(t, text), gateway.Options{}, at).Memory
		if seed%4 == 3 {
			text = mistaken(random, text)
		}
		objects := read(t, text)
		before := m.Review(objects, gateway.Options{}, at)
		for step := range 16 {
			o := gateway.Options{}
			if random.IntN(6) == 0 {
				o.HostAddresses = []netip.Addr{netip.MustParseAddr("192.0.2.2")}
			}
			objects.EndpointSlices = append([]discoveryv1.EndpointSlice(nil), objects.EndpointSlices...)
			i := random.IntN(len(objects.EndpointSlices))
			slice := otherEndpoints(random, &objects.EndpointSlices[i])
			objects.EndpointSlices[i] = *slice
			moved := func(name, _ string) string { return fmt.Sprint("step ", step, ": ", name) }
			names := map[string]string{}
			for name := range index(&objects) {
				names[name] = moved(name, "")
			}
			want := before.Memory.Review(objects, o, moved)
			got, services, ok := before.WithEndpoints([]discoveryv1.EndpointSlice{*slice}, names, o, moved)
			if ok {
				taken++
				compare(t, fmt.Sprint("seed ", seed, " step ", step), &got, &want)
				if len(services) != 1 || services[0] != serviceOf(slice) {
					t.Errorf("seed %d: changed are %v", seed, services)
				}
				want = got
			}
			before = want
		}
	}
	if taken < 100 {
		t.Errorf("the short way was taken %d times", taken)
	}
}

func compare(t *testing.T, what string, got, want *Review) {
	t.Helper()
	gotMemory, err := json.Marshal(got.Memory)
	wantMemory, failed := json.Marshal(want.Memory)
	if err != nil || failed != nil || string(gotMemory) != string(wantMemory) {
		t.Errorf("%s: memory\n%s\nwant\n%s", what, gotMemory, wantMemory)
	}
	for name, pair := range map[string][2]any{
		"objects": {got.Objects, want.Objects}, "translation": {got.Translation, want.Translation}, "endpoints": {got.Endpoints, want.Endpoints},
		"mistakes": {len(got.Mistakes), len(want.Mistakes)}, "refusals": {len(got.Refusals), len(want.Refusals)},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: %s\n%+v\nwant\n%+v", what, name, pair[0], pair[1])
		}
	}
	gotMistakes, gotStates := got.Messages(nil)
	wantMistakes, wantStates := want.Messages(nil)
	if !reflect.DeepEqual([][]Message{gotMistakes, gotStates}, [][]Message{wantMistakes, wantStates}) {
		t.Errorf("%s: says\n%q %q\nwant\n%q %q", what, gotMistakes, gotStates, wantMistakes, wantStates)
	}
}

// otherEndpoints returns the slice with other contents: some of them wrong, one of another
// Service.
func otherEndpoints(random *rand.Rand, s *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	s = s.DeepCopy()
	addresses := []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "127.0.0.1", "192.0.2.1", "192.0.2.9", "none"}
	s.Endpoints = nil
	for range random.IntN(4) {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{addresses[random.IntN(3+random.IntN(len(addresses)-2))]}})
	}
	switch random.IntN(12) {
	case 0:
		name := "x"
		s.Ports[0].Name = &name
	case 1:
		s.Ports[0].Name = nil
	case 2:
		s.Labels = map[string]string{discoveryv1.LabelServiceName: "other"}
	case 3:
		s.AddressType = discoveryv1.AddressTypeIPv6
	}
	return s
}
