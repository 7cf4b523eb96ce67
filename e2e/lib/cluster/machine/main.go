// SPDX-License-Identifier: Apache-2.0

// Command machine is process 1 of a machine of a test cluster: a process with
// mount, process and host name namespaces of its own. It makes a root file system
// that looks like the host's and keeps what is written to itself, and runs the
// daemons that are asked for by files in a folder, until it is killed. As
// `machine registry` it is one of those daemons.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func main() {
	syscall.Umask(0o022) // as on a machine that has started, whatever the umask of who starts this one
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "machine:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 0 && args[0] == "registry" {
		f := flag.NewFlagSet("registry", flag.ExitOnError)
		listen := f.String("listen", "", "address")
		cert := f.String("cert", "", "file of the certificate")
		key := f.String("key", "", "file of its key")
		dir := f.String("dir", "", "folder for layers")
		_ = f.Parse(args[1:]) // exits
		return serveRegistry(*listen, *cert, *key, *dir)
	}
	var m machine
	f := flag.NewFlagSet("machine", flag.ExitOnError)
	f.StringVar(&m.dir, "dir", "", "folder of the machine")
	f.StringVar(&m.hostname, "hostname", "", "host name")
	f.Var(&m.shared, "share", "folder of the host that is the same one inside")
	f.Var(&m.sysctls, "sysctl", "name=value of a kernel parameter as seen inside, whatever it is")
	forward := f.String("forward", "", "address that connections to the inherited socket lead to")
	_ = f.Parse(args) // exits
	if os.Getpid() != 1 {
		return fmt.Errorf("process %d: only process 1 of a PID namespace can be a machine", os.Getpid())
	}
	if *forward != "" {
		if err := forwardTo(*forward); err != nil {
			return fmt.Errorf("forward to %s: %w", *forward, err)
		}
	}
	if err := m.makeRoot(); err != nil {
		return err
	}
	return m.supervise()
}
