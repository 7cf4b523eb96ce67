// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

// Claim reserves the name of a load balancer in the current network namespace, until it
// is closed or the process ends. The lock in the run directory does not tell of a process
// with another run directory, as in a second container. The two would assign and remove
// each other's addresses.
type Claim struct {
	listener *net.UnixListener // nil: somebody without the right to has the name
}

// claimPrefix begins the name of the socket, and listening is the flag of one that
// listens, in /proc/net/unix.
const (
	claimPrefix = "@blixt/"
	listening   = "00010000"
)

// maxSocketName is how long the name of an abstract socket may be.
const maxSocketName = 100

// NewClaim claims a name. It returns an error that names the process which has it.
func NewClaim(name string) (*Claim, error) {
	// Abstract sockets are the network namespace's, as interfaces and addresses are, and
	// the kernel closes them.
	address := &net.UnixAddr{Name: claimPrefix + claimName(name), Net: "unix"}
	listener, err := net.ListenUnix("unix", address)
	if errors.Is(err, unix.EADDRINUSE) {
		if err := heldBy(address, name); err != nil {
			return nil, err
		}
		return &Claim{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("claim name %q: %w", name, err)
	}
	go func() { // whoever connects wants to know who listens, no more
		for {
			c, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // out of file descriptors
				time.Sleep(time.Second)
				continue
			}
			_ = c.Close() // nothing was sent
		}
	}()
	return &Claim{listener}, nil
}

// claimName returns the name by which one is claimed: the names of sockets are short.
func claimName(name string) string {
	if len(claimPrefix+name) <= maxSocketName {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// heldBy returns an error that names who listens at an address. It returns nil if that is
// nobody who could run a load balancer.
func heldBy(address *net.UnixAddr, name string) error {
	held := fmt.Errorf("load balancer %q runs in this network namespace already: stop that one first, or choose another --name", name)
	peer, err := listener(address)
	switch {
	case err != nil: // it has just ended, or does not answer
		return fmt.Errorf("%w (%w)", held, err)
	case peer == nil:
		return nil
	case peer.Pid == 0: // of another PID namespace
		return fmt.Errorf("%w. It is a process of another container", held)
	}
	return fmt.Errorf("%w. It is process %d", held, peer.Pid)
}

// listener returns who listens at an address, nil: nobody who could run a load balancer.
// Any user may take the name of an abstract socket.
func listener(address *net.UnixAddr) (peer *unix.Ucred, err error) {
	c, err := net.DialTimeout(address.Net, address.Name, time.Second)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || failed != nil {
		return nil, errors.Join(err, failed)
	}
	if peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		return nil, nil
	}
	return peer, nil
}

// Running returns the process of each load balancer that runs in the current network
// namespace, by name; 0: it is in another container. Of the names that are too long for a
// claim it finds those that it is given.
func Running(known ...string) (map[string]int, error) {
	long := map[string]string{}
	for _, name := range known {
		long[claimName(name)] = name
	}
	names, err := Claimed()
	if err != nil {
		return nil, err
	}
	running := map[string]int{}
	for _, name := range names {
		if loader.CheckName(name) != nil { // nobody's, and maybe not fit to be printed
			continue
		}
		if peer, err := listener(&net.UnixAddr{Name: claimPrefix + name, Net: "unix"}); err == nil && peer != nil {
			running[cmp.Or(long[name], name)] = int(peer.Pid)
		}
	}
	return running, nil
}

// Claimed returns the names that are claimed in the current network namespace: load
// balancers that run.
func Claimed() (names []string, err error) {
	text, err := os.ReadFile("/proc/thread-self/net/unix")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		// Of the columns the fourth has the flags; connections have the name, too.
		if name, is := strings.CutPrefix(f[len(f)-1], claimPrefix); is && f[3] == listening {
			names = append(names, name)
		}
	}
	return names, nil
}

// Close gives the name back.
func (c *Claim) Close() error {
	if c.listener == nil {
		return nil
	}
	return c.listener.Close()
}
