// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// servesAs waits until these are the addresses that are served.
func (i *instance) servesAs(want ...lb.Address) {
	i.Helper()
	eventually(i.TB, func() error {
		r, err := writer.LoadRecord(StateFile(i.RunDir, i.Name))
		if err == nil && !slices.Equal(r.State.Addresses, want) {
			err = fmt.Errorf("the addresses are %v, want %v", r.State.Addresses, want)
		}
		return err
	})
}

func alone(ip string) lb.Address  { return lb.Address{IP: netip.MustParseAddr(ip), Exclusive: true} }
func shared(ip string) lb.Address { return lb.Address{IP: netip.MustParseAddr(ip)} }

// eventuallyHas waits until an interface has exactly these addresses.
func eventuallyHas(t *testing.T, name string, texts ...string) {
	t.Helper()
	eventually(t, func() error {
		got, wanted := addresses(t, name), ips(texts...)
		slices.SortFunc(got, netip.Addr.Compare)
		slices.SortFunc(wanted, netip.Addr.Compare)
		if !slices.Equal(got, wanted) {
			return fmt.Errorf("%s has %v, want %v", name, got, wanted)
		}
		return nil
	})
}

// TestAddressThatTheHostGetsLateIsTheHosts: it is not ours from then on, even while a
// file is broken.
func TestAddressThatTheHostGetsLateIsTheHosts(t *testing.T) {
	forward(t, "1")
	for _, file := range []string{"valid", "broken"} {
		for _, ip := range []string{near4, near6} {
			t.Run(file+" file, "+ip, func(t *testing.T) {
				veth(t, "eth0")
				assign(t, "eth0", host4+"/24", host6+"/64")
				i := prepare(t, files(80, ip))
				i.start()
				i.servesAs(alone(ip))
				if file == "broken" {
					i.write("kind: [")
					i.logs("the last good configuration goes on serving")
				}
				bits := map[string]string{near4: "/32", near6: "/64"}[ip]
				assign(t, "eth0", ip+bits)
				i.servesAs(shared(ip))
				eventuallyHas(t, "eth0", host4, host6, ip)
				eventuallyHas(t, "lo")
				i.stop()
				want(t, "eth0", host4, host6, ip)
			})
		}
	}
}

// TestAddressThatIsAwayForAMomentStaysTheHosts: it does not become ours alone, and
// frontends at it stay.
func TestAddressThatIsAwayForAMomentStaysTheHosts(t *testing.T) {
	for _, named := range []bool{true, false} {
		t.Run(fmt.Sprint("named=", named), func(t *testing.T) {
			veth(t, "eth0")
			up(t, "peer-eth0")
			assign(t, "eth0", host4+"/24")
			i := prepare(t, files(80, map[bool]string{true: host4}[named]))
			i.NetworkGrace = time.Hour
			i.start()
			i.servesAs(shared(host4))
			must(t, netlink.AddrDel(byName(t, "eth0"), mustAddr(t, host4+"/24")))
			// What comes after it shows that it has been seen to go.
			i.write(files(81, map[bool]string{true: host4}[named]))
			i.serves(host4 + ":81")
			i.servesAs(shared(host4))
			want(t, "eth0")
			want(t, "lo")
		})
	}
}

func TestAddressThatIsAwayForLongIsNotTheHosts(t *testing.T) {
	veth(t, "eth0")
	assign(t, "eth0", host4+"/24")
	i := prepare(t, files(80, host4))
	i.NetworkGrace = 200 * time.Millisecond
	i.start()
	i.servesAs(shared(host4))
	must(t, netlink.AddrDel(byName(t, "eth0"), mustAddr(t, host4+"/24")))
	i.servesAs(alone(host4)) // by the end of the grace alone: nothing else happens
	eventuallyHas(t, "lo", host4)
}

// TestAddressesMayBeLeftToSomebodyElse: frontends are served, and nothing is added.
func TestAddressesMayBeLeftToSomebodyElse(t *testing.T) {
	newNeighbour(t, peer4+"/24")
	assign(t, "eth0", host4+"/24")
	i := prepare(t, files(80, near4))
	i.LeaveAddresses = true
	i.start()
	i.serves(near4 + ":80")
	i.servesAs(alone(near4)) // a router may send it here
	want(t, "eth0", host4)
	want(t, "lo")
	assign(t, "eth0", near4+"/32") // keepalived is master
	i.servesAs(shared(near4))
	i.stop()
	want(t, "eth0", host4, near4)
}
