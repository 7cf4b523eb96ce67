// SPDX-License-Identifier: Apache-2.0

// Package conformance runs Gateway API's conformance suite against Blixt in a
// cluster of its own, and twins of the tests that need HTTP, with TCP and UDP
// in its place. It is a module apart: the suite must not choose the versions
// of what ships.
package conformance

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
)

// mapsVariable is set in the process that runs the suite, in the network outside
// of the cluster, where clients are: to the folder of the first node's maps.
const mapsVariable = "BLIXT_CONFORMANCE_MAPS"

func TestMain(m *testing.M) {
	name := flag.String("name", "conformance", "name of the cluster")
	running := flag.Bool("running", false, "test in the cluster that runs, and leave it running")
	flag.Parse()
	if os.Getenv(mapsVariable) != "" {
		os.Exit(m.Run())
	}
	if err := run(*name, *running); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run starts the cluster, installs Blixt and runs the tests. The cluster stays if
// something has failed.
func run(name string, running bool) error {
	here, err := os.Getwd()
	if err != nil {
		return err
	}
	if err := os.Chdir("../.."); err != nil { // where Blixt's go.mod is
		return err
	}
	// The images have no libraries; and the report tells the version, also where
	// go is told to leave it out.
	for name, value := range map[string]string{"CGO_ENABLED": "0", "GOFLAGS": os.Getenv("GOFLAGS") + " -buildvcs=auto"} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	ctx := context.Background()
	var c *cluster.Cluster
	if running {
		c, err = cluster.Find(name)
	} else {
		c, err = cluster.Up(ctx, cluster.Options{Name: name})
	}
	if err != nil {
		return err
	}
	version, maps, err := install(ctx, c, here)
	if err != nil {
		return fmt.Errorf("%w (the cluster stays as it is: go run ./e2e/cluster/cmd --name %s status)", err, name)
	}
	if err := runInside(ctx, c, here, version, maps); err != nil || running {
		return err
	}
	return c.Down()
}

// runInside has this program run the tests in the clients' network.
func runInside(ctx context.Context, c *cluster.Cluster, dir, version, maps string) error {
	text, err := os.ReadFile(c.Kubeconfig())
	if err != nil {
		return err
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if before, _, found := strings.Cut(line, "server: "); found {
			line = before + "server: https://" + cluster.Control4 + ":6443\n"
		}
		lines = append(lines, line)
	}
	kubeconfig := filepath.Join(c.Dir(), "conformance.kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(strings.Join(lines, "")), 0o600); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := c.Outside.Command(ctx, append([]string{self, "--version=" + version}, os.Args[1:]...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), mapsVariable+"="+maps, "KUBECONFIG="+kubeconfig)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the tests failed: %w (the cluster stays as it is: go run ./e2e/cluster/cmd --name %s status)", err, c.Options.Name)
	}
	return nil
}
