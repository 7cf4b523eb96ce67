// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Tunnel joins two nodes by devices without a link header (tun), like those of
// WireGuard and IP-in-IP. This process carries the packets. The sending kernel has
// segmented each of them and computed its checksum.
func (l *Lab) Tunnel(a *Node, aDev string, b *Node, bDev string) {
	l.carry(a, aDev, b, bDev, unix.IFF_TUN, func(packet []byte) []byte { return packet })
}

// Wire joins two nodes by Ethernet devices (tap). Frames from a to b pass through
// change, which may append to them.
func (l *Lab) Wire(a *Node, aDev string, b *Node, bDev string, change func(frame []byte) []byte) {
	l.carry(a, aDev, b, bDev, unix.IFF_TAP, change)
}

func (l *Lab) carry(a *Node, aDev string, b *Node, bDev string, kind uint16, change func([]byte) []byte) {
	from, to := l.tun(a, aDev, kind), l.tun(b, bDev, kind)
	if l.err != nil {
		return
	}
	go shovel(from, to, change)
	go shovel(to, from, func(packet []byte) []byte { return packet })
}

// tun makes a device that lives as long as the lab, or this process.
func (l *Lab) tun(n *Node, dev string, kind uint16) (f *os.File) {
	if l.err != nil {
		return nil
	}
	l.err = n.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		request, err := unix.NewIfreq(dev)
		if err == nil {
			request.SetUint16(kind | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
		}
		if err != nil {
			_ = unix.Close(fd)
			return fmt.Errorf("make device %s: %w", dev, err)
		}
		f = os.NewFile(uintptr(fd), dev) // after TUNSETIFF: before, it cannot be waited for
		l.atEnd(f.Close)
		return nil
	})
	n.IP("link set " + dev + " up")
	return f
}

// shovel copies packets until one of the devices is closed.
func shovel(from, to *os.File, change func([]byte) []byte) {
	buffer := make([]byte, 1<<16)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		_, _ = to.Write(change(buffer[:n])) // a device that is down loses packets, as a cable does
	}
}
