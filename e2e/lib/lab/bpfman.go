// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package lab

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// bpfmanVersion is what .ci/bpfman builds.
const bpfmanVersion = "v0.6.0"

// The sockets that bpfman listens at, in its mount namespace: for whoever has
// it load, and for the kubelet that has it mount.
const (
	BpfmanSocket = "/run/bpfman-sock/bpfman.sock"
	CSISocket    = "/run/bpfman/csi/csi.sock"
)

// bpfmanDirs are those that bpfman has in its program, and no flag for.
var bpfmanDirs = []string{"/run/bpfman", "/run/bpfman-sock", "/etc/bpfman"}

// Bpfman is a real bpfman with state of its own: its directories are those of a mount
// namespace, so that it does not touch a bpfman of this machine.
type Bpfman struct {
	lab   *Lab
	bin   string
	env   []string
	mount *exec.Cmd // holds the mount namespace
	cmd   *exec.Cmd
	log   logbook
}

// mountBpfman hides what the machine has. bpfman would take the BPF file
// system of another for its own.
const mountBpfman = `set -e
while umount -l /run/bpfman/fs; do :; done 2>/dev/null
for dir; do mount -t tmpfs -o mode=0755 bpfman $dir; done
printf '[signing]\nallow_unsigned = true\nverify_enabled = false\n' >/etc/bpfman/bpfman.toml
echo ready
exec sleep infinity`

// Bpfman starts bpfman with these environment variables. It lives as long as the lab.
func (l *Lab) Bpfman(env ...string) (*Bpfman, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	b := &Bpfman{lab: l, env: env, bin: filepath.Join(cache, "blixt", "bpfman-"+bpfmanVersion)}
	if _, err := os.Stat(filepath.Join(b.bin, "bpfman-rpc")); err != nil {
		return nil, fmt.Errorf("no bpfman: run .ci/bpfman (%w)", err)
	}
	if err := l.mountPoints(); err != nil {
		return nil, fmt.Errorf("make mount points: %w", err)
	}
	args := append([]string{"--mount", "--propagation", "slave", "bash", "-c", mountBpfman, "bash"}, bpfmanDirs...)
	b.mount = exec.Command("unshare", args...)
	b.mount.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	out, err := b.mount.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := l.here(b.mount.Start); err != nil {
		return nil, fmt.Errorf("make mount namespace: %w", err)
	}
	l.atEnd(func() error { return stop(b.mount) })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		return nil, fmt.Errorf("make mount namespace: %q, %w", line, err)
	}
	l.atEnd(b.Kill)
	return b, b.Start()
}

// mountPoints creates the directories that the machine lacks. They stay until the last
// lab of all runs ends: removing one would unmount it in other namespaces too.
func (l *Lab) mountPoints() error {
	lock, err := share("bpfman")
	if err != nil {
		return err
	}
	l.atEnd(lock.Close)
	l.atEnd(func() error {
		if !last(lock) {
			return nil
		}
		for _, dir := range bpfmanDirs {
			_ = os.Remove(dir) // only if it is empty: else it is the machine's
		}
		return nil
	})
	for _, dir := range bpfmanDirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// Listen opens a TCP socket in the network namespace of this process, where bpfman is.
func (b *Bpfman) Listen(network, addr string) (ln net.Listener, err error) {
	err = b.lab.here(func() error {
		ln, err = net.Listen(network, addr)
		return err
	})
	return ln, err
}

// here calls f on a thread that is in the network namespace of this process.
func (l *Lab) here(f func() error) error { return (&Node{lab: l, fd: l.home}).Do(f) }

// Via returns the command that runs another one in bpfman's mount namespace.
func (b *Bpfman) Via() []string {
	return []string{"nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", b.mount.Process.Pid), "--"}
}

// Path returns the path by which a file of bpfman is found from outside its mount
// namespace.
func (b *Bpfman) Path(path string) string {
	return fmt.Sprintf("/proc/%d/root%s", b.mount.Process.Pid, path)
}

// command prepares a command in bpfman's mount namespace and the network namespace of
// this process.
func (b *Bpfman) command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	// systemd and container runtimes give it this umask, whatever ours is.
	args = append(append(b.Via()[1:], "bash", "-c", `umask 022; exec "$@"`, "bash", filepath.Join(b.bin, name)), args...)
	cmd := exec.CommandContext(ctx, b.Via()[0], args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	// Nobody outside is asked, where it would ask for keys of signatures.
	cmd.Env = append(os.Environ(), "KUBE_NODE_NAME="+b.lab.name, "HTTPS_PROXY=http://127.0.0.1:1", "NO_PROXY=127.0.0.1")
	cmd.Env = append(cmd.Env, b.env...)
	raise, err := MayRaiseLimits()
	if !raise {
		cmd.Env = append(cmd.Env, "LD_PRELOAD="+filepath.Join(b.bin, "memlock.so"))
	}
	return cmd, err
}

// Start starts bpfman and returns when it listens.
func (b *Bpfman) Start() error {
	cmd, err := b.command(context.Background(), "bpfman-rpc", "--timeout=0", "--csi-support")
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = &b.log, &b.log
	if err := b.lab.here(cmd.Start); err != nil {
		return fmt.Errorf("start bpfman: %w", err)
	}
	b.cmd = cmd
	for _, socket := range []string{BpfmanSocket, CSISocket} {
		err := Eventually(startLimit, func() error {
			c, err := net.Dial("unix", b.Path(socket))
			if err == nil {
				err = c.Close()
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("bpfman does not listen: %w\n%s", err, b.Log())
		}
	}
	return nil
}

// Kill sends SIGKILL to bpfman.
func (b *Bpfman) Kill() error {
	if b.cmd == nil {
		return nil
	}
	err := stop(b.cmd)
	b.cmd = nil
	return err
}

// stop kills a process and waits for its end.
func stop(cmd *exec.Cmd) error {
	if err := cmd.Process.Kill(); err != nil {
		return err
	}
	if err := cmd.Wait(); !isExit(err) {
		return err
	}
	return nil
}

// Dial returns a client for one of bpfman's sockets, until the lab ends.
func (b *Bpfman) Dial(socket string) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("unix://"+b.Path(socket), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to bpfman: %w", err)
	}
	b.lab.atEnd(conn.Close)
	return conn, nil
}

// Shell runs a script of bash in bpfman's mount namespace, and returns what it printed.
func (b *Bpfman) Shell(script string) (string, error) {
	args := append(b.Via(), "bash", "-euc", script)
	return (&Node{lab: b.lab, fd: b.lab.home}).Run(10*time.Second, args[0], args[1:]...)
}

// Log returns what bpfman has printed.
func (b *Bpfman) Log() string { return b.log.since(0) }

// Run runs the command bpfman, which needs no daemon, and returns what it printed.
func (b *Bpfman) Run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd, err := b.command(ctx, "bpfman", args...)
	if err != nil {
		return "", err
	}
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := b.lab.here(cmd.Run); err != nil {
		return "", fmt.Errorf("bpfman %s: %w\n%s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}
