// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/kubernetes-sigs/blixt/bytecode"
)

func bytecodeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bytecode",
		Short: "Publish the data plane as an OCI image: build, push, pull, inspect, sign, verify",
		Long: `The data plane is an eBPF object. bpfman pulls it as an OCI image from a registry;
these commands build that image and check it. SOURCE is a file that ends in .o,
a directory with an OCI layout, or an image in a registry.

Credentials for registries are those of docker login and podman login, or of the
file that REGISTRY_AUTH_FILE names. Connections use HTTPS only, like bpfman's.`,
		Example: `  blixt bytecode build -d out
  blixt bytecode push out registry.example.com/blixt/bytecode:v1
  blixt bytecode sign registry.example.com/blixt/bytecode:v1 --key cosign.key
  blixt bytecode verify registry.example.com/blixt/bytecode:v1 --key cosign.pub
  blixt bytecode inspect registry.example.com/blixt/bytecode:v1`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(bytecodeBuildCommand(), bytecodePushCommand(), bytecodePullCommand(),
		bytecodeInspectCommand(), bytecodeKeygenCommand(), bytecodeSignCommand(), bytecodeVerifyCommand())
	return c
}

// registryFlags adds the flags of commands that may connect to a registry.
func registryFlags(f *pflag.FlagSet, o *bytecode.Options) {
	f.StringVar(&o.CAFile, "ca-file", "", "file with CA certificates in PEM to trust in addition to the system's")
}

// readKeys reads the public keys that flags name.
func readKeys(paths []string) (keys []*bytecode.PublicKey, err error) {
	for _, path := range paths {
		key, err := bytecode.ReadPublicKey(path)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// progress shows the bytes transferred, if standard error is a terminal. The caller
// must end it, in success and failure.
func progress(what string, o *bytecode.Options) *meter {
	m := &meter{out: io.Discard, what: what, started: time.Now()}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		m.out, o.Progress = os.Stderr, m.add
	}
	return m
}

type meter struct {
	out     io.Writer
	what    string
	started time.Time

	mu    sync.Mutex
	bytes int
	shown time.Time
	ended bool
}

func (m *meter) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bytes += n
	if !m.ended && time.Since(m.shown) > 100*time.Millisecond {
		m.shown = time.Now()
		fmt.Fprintf(m.out, "\r\x1b[K%s: %s", m.what, size(int64(m.bytes)))
	}
}

// end replaces the progress by a line with the totals, or by nothing after an error.
// Only the first call counts.
func (m *meter) end(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return
	}
	m.ended = true
	fmt.Fprint(m.out, "\r\x1b[K")
	if err == nil {
		fmt.Fprintf(m.out, "%s: %s in %s\n", m.what, size(int64(m.bytes)), time.Since(m.started).Round(10*time.Millisecond))
	}
}

// size writes bytes for people.
func size(n int64) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B", n)
}
