// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// sniff captures what a node receives. The function that it returns ends the capture,
// and returns the packets from the IP header on.
func sniff(w *labtest.World, n *lab.Node) (stop func() [][]byte) {
	w.Helper()
	var fd int
	w.Check(n.Do(func() (err error) {
		all := uint16(unix.ETH_P_ALL)<<8 | unix.ETH_P_ALL>>8 // in network byte order
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(all))
		return err
	}))
	return func() (packets [][]byte) {
		defer unix.Close(fd)
		for {
			packet := make([]byte, 1<<16)
			size, from, err := unix.Recvfrom(fd, packet, 0)
			if errors.Is(err, unix.EAGAIN) {
				return packets
			}
			w.Check(err)
			if a, is := from.(*unix.SockaddrLinklayer); is && a.Pkttype == unix.PACKET_HOST {
				packets = append(packets, packet[:size])
			}
		}
	}
}
