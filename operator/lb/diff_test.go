// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"
)

// web returns a frontend of default/web with these backends at a port.
func web(port uint16, backends ...Backend) Frontend {
	return Frontend{Addr: netip.MustParseAddr("192.0.2.10"), Protocol: TCP, Port: port, Gateway: "default/web", Backends: backends}
}

func at(host byte, weight uint64) Backend {
	return Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, host}), 8080), Weight: weight, Service: "default/web"}
}

func stateOf(frontends ...Frontend) *State {
	return &State{Addresses: []Address{{IP: netip.MustParseAddr("192.0.2.10")}}, Frontends: frontends}
}

// text is a short form of changes.
func (c Changes) text() string {
	text := ""
	add := func(format string, args ...any) { text += fmt.Sprintf(format+";", args...) }
	for _, a := range c.RemovedAddresses {
		add("-%s %v", a.IP, a.Exclusive)
	}
	for _, a := range c.AddedAddresses {
		add("+%s %v", a.IP, a.Exclusive)
	}
	for _, f := range c.Removed {
		add("-%s", f.Key())
	}
	for _, f := range c.Added {
		add("+%s", f.Key())
	}
	for _, f := range c.Changed {
		add("%s", f.Is.Key())
		for _, b := range f.Removed {
			add(" -%s", b.Addr)
		}
		for _, b := range f.Added {
			add(" +%s", b.Addr)
		}
		for _, b := range f.Changed {
			add(" %s %s %v", b.Is.Addr, b.Is.State(), b.Is.Drained != nil)
		}
		for _, w := range f.Weights {
			add(" %q %v %v", w.Service, w.Was, w.Is)
		}
	}
	return text
}

func TestDiffTellsWhatDiffers(t *testing.T) {
	const half, third = WeightUnit / 2, WeightUnit / 3
	notServing, drained, local := at(2, 0), at(2, 0), at(2, half)
	notServing.NotServing, drained.Drained, local.Local = true, &Drained{Since: time.Unix(1, 0), By: "root"}, true
	moved := at(2, half)
	moved.Service = "default/other"
	rejecting := web(80, at(1, half), at(2, half))
	rejecting.Reject = WeightUnit
	recorded := web(80, at(1, half), at(2, half))
	recorded.Records = true
	two := stateOf(web(80, at(1, half), at(2, half)))
	for _, c := range []struct {
		name    string
		was, is *State
		want    string
	}{
		{"nothing", two, stateOf(web(80, at(1, half), at(2, half))), ""},
		{"from nothing", &State{}, two, "+192.0.2.10 false;+192.0.2.10:80/tcp;"},
		{"to nothing", two, &State{}, "-192.0.2.10 false;-192.0.2.10:80/tcp;"},
		{"an address becomes exclusive", two, &State{Addresses: []Address{{IP: two.Addresses[0].IP, Exclusive: true}}, Frontends: two.Frontends}, "-192.0.2.10 false;+192.0.2.10 true;"},
		{"a frontend comes before, one goes after", stateOf(web(80), web(81)), stateOf(web(79), web(80)), "-192.0.2.10:81/tcp;+192.0.2.10:79/tcp;"},
		{"a third backend, the Service has the weight that it had", two, stateOf(web(80, at(1, third), at(2, third), at(3, third))), "192.0.2.10:80/tcp; +10.0.0.3:8080;"},
		{"one for another", two, stateOf(web(80, at(1, half), at(3, half))), "192.0.2.10:80/tcp; -10.0.0.2:8080; +10.0.0.3:8080;"},
		{"not ready", two, stateOf(web(80, at(1, WeightUnit), at(2, 0))), "192.0.2.10:80/tcp; 10.0.0.2:8080 draining false;"},
		{"not serving", two, stateOf(web(80, at(1, WeightUnit), notServing)), "192.0.2.10:80/tcp; 10.0.0.2:8080 not-serving false;"},
		{"drained", two, stateOf(web(80, at(1, WeightUnit), drained)), "192.0.2.10:80/tcp; 10.0.0.2:8080 draining true;"},
		{"drained when it did not serve", stateOf(web(80, at(2, 0))), stateOf(web(80, drained)), "192.0.2.10:80/tcp; 10.0.0.2:8080 draining true;"},
		{"on this host", two, stateOf(web(80, at(1, half), local)), "192.0.2.10:80/tcp; 10.0.0.2:8080 serving false;"},
		{"of another Service", two, stateOf(web(80, at(1, half), moved)), `192.0.2.10:80/tcp; 10.0.0.2:8080 serving false; "default/other" 0 0.5; "default/web" 1 0.5;`},
		{"another weight", two, stateOf(web(80, at(1, WeightUnit), at(2, WeightUnit))), `192.0.2.10:80/tcp; "default/web" 1 2;`},
		{"refused", two, stateOf(rejecting), `192.0.2.10:80/tcp; "" 0 1;`},
		{"something else", two, stateOf(recorded), "192.0.2.10:80/tcp;"},
	} {
		d := Diff(c.was, c.is)
		if got := d.text(); got != c.want || d.Empty() != (c.want == "") {
			t.Errorf("%s: got %s want %s", c.name, got, c.want)
		}
	}
}

func TestDiffIsTheOtherWayRound(t *testing.T) {
	was := stateOf(web(80, at(1, 1), at(3, 2)), web(82, at(1, 1)), web(83))
	is := stateOf(web(80, at(2, 1), at(3, 0)), web(81), web(83, at(4, 1)))
	there, back := Diff(was, is), Diff(is, was)
	keys := func(all []*Frontend) (keys []Key) {
		for _, f := range all {
			keys = append(keys, f.Key())
		}
		return keys
	}
	if !slices.Equal(keys(there.Added), keys(back.Removed)) || !slices.Equal(keys(there.Removed), keys(back.Added)) || len(there.Changed) != len(back.Changed) || len(there.Changed) != 2 {
		t.Errorf("there %s, and back %s", there.text(), back.text())
	}
}

// No field of a frontend is forgotten where two share their backends.
func TestDiffFindsEachField(t *testing.T) {
	f := web(80, at(1, 1))
	f.Refs = []ServicePort{{Service: "default/web"}}
	key := reflect.TypeFor[Key]()
	for i := range reflect.TypeFor[Frontend]().NumField() {
		name := reflect.TypeFor[Frontend]().Field(i).Name
		if _, is := key.FieldByName(name); is {
			continue
		}
		other := f
		switch v := reflect.ValueOf(&other).Elem().Field(i); v.Kind() {
		case reflect.String:
			v.SetString("other")
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.Uint64:
			v.SetUint(7)
		case reflect.Int64:
			v.SetInt(7)
		case reflect.Slice:
			v.SetZero()
		case reflect.Struct:
			v.FieldByName("DropNoBackend").SetBool(true)
		default:
			t.Fatalf("this test cannot change %s", name)
		}
		if d := Diff(stateOf(f), stateOf(other)); len(d.Changed) != 1 {
			t.Errorf("%s differs, and no change is found", name)
		}
	}
}

// A change of one frontend among many costs no comparison of the others' backends.
func BenchmarkDiff(b *testing.B) {
	var was State
	for port := range 4000 {
		var backends []Backend
		for host := range byte(10) {
			backends = append(backends, at(host, 1))
		}
		was.Frontends = append(was.Frontends, web(uint16(port+1), backends...))
	}
	is := State{Frontends: slices.Clone(was.Frontends)}
	is.Frontends[7].Backends = []Backend{at(1, 1)}
	for b.Loop() {
		if len(Diff(&was, &is).Changed) != 1 {
			b.Fatal("it is not found")
		}
	}
}
