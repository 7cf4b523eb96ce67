// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Node is a machine of the network: a network namespace.
type Node struct {
	// Name is what it is called in the lab.
	Name string
	// IPv4 and IPv6 are the first addresses that it got.
	IPv4, IPv6 string
	lab        *Lab
	// space is the name of the namespace, for ip(8).
	space string
	fd    int
}

// Node makes a machine with nothing but lo.
func (l *Lab) Node(name string) *Node {
	n := &Node{Name: name, lab: l, space: l.name + "." + name, fd: -1}
	if l.err != nil {
		return n
	}
	if l.err = ip("", "netns add "+n.space); l.err != nil {
		return n
	}
	l.nodes = append(l.nodes, n)
	n.fd, l.err = unix.Open(n.Path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	n.IP("link set lo up")
	// No waiting for duplicate address detection, no addresses that nobody asked for.
	n.Sysctl("net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.default.accept_ra=0",
		"net.ipv6.conf.default.router_solicitations=0", "net.ipv4.ping_group_range=0 0")
	return n
}

// Path returns the file of the namespace, for nsenter --net=.
func (n *Node) Path() string { return filepath.Join(netnsDir, n.space) }

func (n *Node) close() error {
	var err error
	if n.fd >= 0 {
		err = unix.Close(n.fd)
	}
	return errors.Join(err, ip("", "netns del "+n.space))
}

// IP runs commands of ip(8) in the node.
func (n *Node) IP(commands ...string) {
	if n.lab.err == nil {
		n.lab.err = ip(n.space, commands...)
	}
}

// Sysctl sets kernel parameters of the node, each given as name=value.
func (n *Node) Sysctl(settings ...string) {
	if n.lab.err != nil {
		return
	}
	n.lab.try(n.Do(func() error {
		for _, s := range settings {
			name, value, _ := strings.Cut(s, "=")
			path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
			if err := os.WriteFile(path, []byte(value), 0); err != nil {
				return fmt.Errorf("set %s: %w", s, err)
			}
		}
		return nil
	}))
}

// Do calls f on a thread that is in the node: sockets that f opens and processes that
// it starts are the node's. Calls cannot be nested.
func (n *Node) Do(f func() error) error {
	runtime.LockOSThread()
	if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter %s: %w", n.space, err)
	}
	defer func() {
		// Where this fails the thread stays locked, and ends with its goroutine.
		if unix.Setns(n.lab.home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return f()
}

// Dial connects from the node. With an empty local address the kernel chooses one.
func (n *Node) Dial(network, local, remote string, limit time.Duration) (conn net.Conn, err error) {
	d := net.Dialer{Timeout: limit, FallbackDelay: -1, KeepAlive: -1}
	if local != "" {
		// Not otherwise: the kernel would give one port to several UDP sockets.
		d.Control = reuse
		if strings.HasPrefix(network, "tcp") {
			d.LocalAddr, err = net.ResolveTCPAddr(network, local)
		} else {
			d.LocalAddr, err = net.ResolveUDPAddr(network, local)
		}
		if err != nil {
			return nil, err
		}
	}
	err = n.Do(func() error {
		conn, err = d.Dial(network, remote)
		return err
	})
	return conn, err
}

// reuse lets several connections have one source address, if their destinations differ.
func reuse(_, _ string, c syscall.RawConn) (err error) {
	if e := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}); e != nil {
		return e
	}
	return err
}

// RaiseReceiveBuffer gives a socket room for what comes while its process gets no CPU:
// else the kernel drops datagrams that the network has delivered.
func RaiseReceiveBuffer(conn syscall.Conn) error {
	c, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) })
	return errors.Join(err, failed)
}

// Listen opens a TCP socket in the node.
func (n *Node) Listen(network, addr string) (ln net.Listener, err error) {
	err = n.Do(func() error {
		ln, err = net.Listen(network, addr)
		return err
	})
	return ln, err
}

// ListenPacket opens a UDP socket in the node.
func (n *Node) ListenPacket(network, addr string) (pc net.PacketConn, err error) {
	err = n.Do(func() error {
		pc, err = net.ListenPacket(network, addr)
		return err
	})
	return pc, err
}

// Command prepares a command of the node, to be run by Start or Run of the node. It is
// killed when this process ends.
func (n *Node) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // Ctrl-C is for us
	cmd.WaitDelay = time.Second
	return cmd
}

// Start starts a command in the node.
func (n *Node) Start(cmd *exec.Cmd) error { return n.Do(cmd.Start) }

// Run runs a command in the node and returns what it printed. The error has that too.
func (n *Node) Run(limit time.Duration, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := n.Command(ctx, name, args...)
	var out, both bytes.Buffer
	cmd.Stdout = io.MultiWriter(&out, &both)
	cmd.Stderr = &both
	err := n.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, both.String())
	}
	return out.String(), nil
}

// Daemon starts a command that runs until the lab ends, or stop is called.
func (n *Node) Daemon(name string, args ...string) (stop func() error, err error) {
	cmd := n.Command(context.Background(), name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := n.Start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // we kill it: the error says so
		close(done)
	}()
	stop = func() error {
		select {
		case <-done:
			return nil
		default:
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(2 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
		return nil
	}
	n.lab.atEnd(stop)
	return stop, nil
}
