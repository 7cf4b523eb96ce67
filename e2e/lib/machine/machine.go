// SPDX-License-Identifier: Apache-2.0

// Package machine gives a node of a lab files, processes and a name of its own, as a
// machine has them. Its files begin as those of this machine, or of a distribution; what is
// written into them stays in memory, and ends with the machine as all its processes do.
package machine

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

//go:embed boot.sh
var bootScript string

// withheld are capabilities over what all namespaces share: the clock, the kernel's code,
// devices.
const withheld = "--bounding-set=-sys_time,-sys_module,-sys_boot,-mknod,-sys_rawio,-wake_alarm,-syslog"

// environment is that of a login of root.
var environment = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "TERM=dumb"}

// Options are how a machine begins.
type Options struct {
	// Root has the files of the distribution: "/" is that of this machine.
	Root string
	// Dir is an empty directory that lives longer than the machine.
	Dir string
	// Name is the machine's own.
	Name string
	// Init is the first process; none: one that does nothing.
	Init []string
	// Cgroup is the directory of the cgroup that Init is started in; "": this process's.
	Cgroup string
}

// Machine is a node with files and processes of its own.
type Machine struct {
	Node *lab.Node
	cmd  *exec.Cmd
	said bytes.Buffer
	file string // of its console
}

// Start begins a machine on a node of a lab. It ends by Close, and with this process.
func Start(n *lab.Node, o Options) (*Machine, error) {
	m := &Machine{Node: n, file: filepath.Join(o.Dir, "console")}
	mounts := filepath.Join(o.Dir, "mounts")
	if err := errors.Join(os.Mkdir(mounts, 0o755), os.WriteFile(m.file, nil, 0o600)); err != nil {
		return nil, err
	}
	if o.Init == nil {
		o.Init = []string{"bash", "-c", "sleep infinity & wait"} // it reaps orphans
	}
	// Its last word is what tells that it is there.
	args := append([]string{"-c", bootScript, "boot.sh", o.Root, mounts, o.Name, "sh", "-c", `echo up; exec setpriv ` + withheld + ` "$@" >/dev/null`, "sh"}, o.Init...)
	m.cmd = exec.Command("sh", args...)
	m.cmd.Env = append(os.Environ(), "CONSOLE="+m.file)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL, Setpgid: true,
	}
	if o.Cgroup != "" {
		group, err := os.Open(o.Cgroup)
		if err != nil {
			return nil, err
		}
		defer group.Close()
		m.cmd.SysProcAttr.UseCgroupFD, m.cmd.SysProcAttr.CgroupFD = true, int(group.Fd())
	}
	m.cmd.Stderr = &m.said
	out, err := m.cmd.StdoutPipe()
	if err == nil {
		err = n.Start(m.cmd)
	}
	if err != nil {
		return nil, fmt.Errorf("start machine %s: %w", o.Name, err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		return nil, fmt.Errorf("start machine %s: %w\n%s", o.Name, errors.Join(m.cmd.Wait(), m.Close()), m.said.String())
	}
	return m, nil
}

// Close ends all its processes.
func (m *Machine) Close() error {
	if m.cmd.ProcessState == nil {
		_ = m.cmd.Process.Kill()
		_ = m.cmd.Wait() // killed
	}
	return nil
}

// Console returns what the first process has said.
func (m *Machine) Console() string {
	text, _ := os.ReadFile(m.file)
	return m.said.String() + string(text)
}

// Command returns a command of root on the machine. Who kills it must kill its group.
func (m *Machine) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	all := []string{"--all", "--target", strconv.Itoa(m.cmd.Process.Pid), "setpriv", withheld, "env", "-i"}
	all = append(append(append(all, environment...), name), args...)
	c := exec.CommandContext(ctx, "nsenter", all...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = time.Second
	return c
}

// Run runs a command within a time, and returns what it has printed. The error has that too.
func (m *Machine) Run(limit time.Duration, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	out, err := m.Command(ctx, name, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// Path returns where a file of the machine is for this process.
func (m *Machine) Path(name string) string {
	return filepath.Join("/proc", strconv.Itoa(m.cmd.Process.Pid), "root", name)
}
