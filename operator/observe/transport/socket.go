// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Socket is a Unix socket at which a host's own process is asked. It accepts
// connections of root and of the process's own user alone.
type Socket struct {
	*net.UnixListener
	path string
	made os.FileInfo
}

// Listen makes a socket at a path, in the place of one that a process of the same
// user has left. It takes the place of nothing else.
func Listen(path string) (*Socket, error) {
	if err := checkPlace(path); err != nil {
		return nil, err
	}
	// Nobody else can get into the directory before the mode is right, and a rename
	// follows no link.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".socket-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "s")
	l, err := listenAt(name)
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	s := &Socket{UnixListener: l, path: path}
	if err = os.Chmod(name, 0o600); err == nil {
		s.made, err = os.Lstat(name)
	}
	if err == nil {
		err = os.Rename(name, path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return s, nil
}

// checkPlace returns an error if there is something at a path that a socket must not
// replace.
func checkPlace(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket || !ownedByUs(info) {
		return fmt.Errorf("%s is %v, and not a socket that this user has made: remove it", path, info.Mode())
	}
	c, err := dialAt(context.Background(), path)
	if err == nil {
		_ = c.Close() // nothing was sent
		return fmt.Errorf("another process listens at %s: stop that first", path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil // left by a process that was killed
}

// Accept implements net.Listener.
func (s *Socket) Accept() (net.Conn, error) {
	for {
		c, err := s.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if checkPeer(c) == nil {
			return c, nil
		}
		_ = c.Close() // whoever it is learns nothing
	}
}

// Close implements net.Listener. It removes the socket, but not that of another
// process which has taken its place.
func (s *Socket) Close() error {
	err := s.UnixListener.Close()
	if info, failed := os.Lstat(s.path); failed == nil && os.SameFile(info, s.made) {
		err = errors.Join(err, os.Remove(s.path))
	}
	return err
}

// NewSocketClient returns a connection to the process that listens at a path. It
// trusts root and the caller's own user alone.
func NewSocketClient(path string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///localhost", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return DialSocket(ctx, path) }),
		grpc.WithNoProxy(),
	)
}

// DialSocket connects to the process that listens at a path.
func DialSocket(ctx context.Context, path string) (net.Conn, error) {
	c, err := dialAt(ctx, path)
	if err != nil {
		return nil, err
	}
	if err := checkPeer(c); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), c.Close())
	}
	return c, nil
}

// checkPeer returns an error if the process at the other end is neither root's nor of
// this process's user.
func checkPeer(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || failed != nil {
		return errors.Join(err, failed)
	}
	if peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		return fmt.Errorf("at the other end is a process of user %d, which is not trusted", peer.Uid)
	}
	return nil
}

func ownedByUs(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// maxSocketPath is how long the path of a socket may be for the kernel.
const maxSocketPath = 107

// short calls do with a name for a path that is short enough for the kernel.
func short(path string, do func(name string) error) error {
	if len(path) <= maxSocketPath {
		return do(path)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return do(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
}

func listenAt(path string) (l *net.UnixListener, err error) {
	err = short(path, func(name string) error {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
		return err
	})
	return l, err
}

func dialAt(ctx context.Context, path string) (c *net.UnixConn, err error) {
	err = short(path, func(name string) error {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", name)
		if err == nil {
			c = conn.(*net.UnixConn)
		}
		return err
	})
	return c, err
}
