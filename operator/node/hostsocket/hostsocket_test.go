// SPDX-License-Identifier: Apache-2.0

package hostsocket

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// find returns the socket of a port.
func find(t *testing.T, protocol lb.Protocol, addr string) Socket {
	t.Helper()
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	want := netip.MustParseAddrPort(addr)
	i := slices.IndexFunc(all, func(s Socket) bool { return s.Protocol == protocol && s.Addr == want })
	if i < 0 {
		t.Fatalf("%s %s is not among %v", protocol, addr, all)
	}
	return all[i]
}

func gets(s Socket, addr string) bool {
	a := netip.MustParseAddr(addr)
	is, _ := s.Gets(lb.Key{Addr: a, Protocol: s.Protocol, Port: s.Addr.Port()})
	return is
}

func TestListFindsWhoWaitsForClients(t *testing.T) {
	one, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	s := find(t, lb.TCP, one.Addr().String())
	if !gets(s, "127.0.0.1") || gets(s, "127.0.0.2") || gets(s, "::1") {
		t.Errorf("wrong: %+v", s)
	}
	owner := Owners(map[uint32]bool{s.Inode: true})[s.Inode]
	if !strings.HasSuffix(owner, "(process "+strconv.Itoa(os.Getpid())+")") {
		t.Errorf("its owner is %q", owner)
	}
	udp, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if s := find(t, lb.UDP, udp.LocalAddr().String()); !gets(s, "192.0.2.1") || gets(s, "2001:db8::1") {
		t.Errorf("wrong: %+v", s)
	}
	for _, only6 := range []int{0, 1} {
		c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			var failed error
			err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only6) })
			if err != nil {
				return err
			}
			return failed
		}}
		six, err := c.Listen(context.Background(), "tcp6", "[::]:0")
		if err != nil {
			t.Skip("kernel lacks: IPv6: ", err)
		}
		if s := find(t, lb.TCP, six.Addr().String()); gets(s, "192.0.2.1") == (only6 == 1) || !gets(s, "2001:db8::1") {
			t.Errorf("only6 %d: %+v", only6, s)
		}
		six.Close()
	}
}

// A connection is nobody who waits for clients.
func TestConnectionsAreNotListed(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(all, func(s Socket) bool { return s.Addr.String() == c.LocalAddr().String() && s.Protocol == lb.TCP }) {
		t.Errorf("%s is listed", c.LocalAddr())
	}
}
