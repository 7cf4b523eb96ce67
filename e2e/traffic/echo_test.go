// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// ping sends one echo request through the kernel's ping sockets, which verify checksum,
// identifier and sequence number of the reply.
func ping(n *lab.Node, ip string) error {
	addr := netip.MustParseAddr(ip)
	request := []byte{8, 0, 0, 0, 0, 0, 0, 1}
	domain, protocol, reply := unix.AF_INET, unix.IPPROTO_ICMP, byte(0)
	if addr.Is6() {
		request[0] = 128
		domain, protocol, reply = unix.AF_INET6, unix.IPPROTO_ICMPV6, 129
	}
	request = append(request, bytes.Repeat([]byte("blixt "), 50)...)
	var pc net.PacketConn
	err := n.Do(func() error {
		fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "ping")
		defer f.Close()
		pc, err = net.FilePacketConn(f)
		return err
	})
	if err != nil {
		return err
	}
	defer pc.Close()
	if err := pc.SetDeadline(time.Now().Add(labtest.Patience)); err != nil {
		return err
	}
	if _, err := pc.WriteTo(request, &net.UDPAddr{IP: addr.AsSlice()}); err != nil {
		return err
	}
	answer := make([]byte, 1500)
	size, from, err := pc.ReadFrom(answer)
	if err != nil {
		return err
	}
	if answer[0] != reply || !bytes.Equal(answer[8:size], request[8:]) {
		return fmt.Errorf("%s answers %x", from, answer[:size])
	}
	return nil
}
