// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/operator/node/bpfman"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
)

// unload is what to remove, and where it is.
type unload struct {
	name, bpffs, runDir string
	dryRun              bool
}

func unloadCommand() *cobra.Command {
	u := unload{}
	c := &cobra.Command{
		Use:   "unload",
		Short: "Remove what a blixt run that has ended left serving on this host",
		Long: `Ends what the kernel still serves for a load balancer whose process has ended: after
blixt run --keep, a kill -9 or a start that failed. Removes its programs, pins,
virtual addresses and state files, and with them all its connections.

While a process runs the load balancer, stop that process instead: then nothing is
left. What bpfman holds is removed through the bpfman that has loaded it.`,
		Example: `  blixt unload --dry-run
  blixt unload --name web`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			err := u.run(c.OutOrStdout())
			if errors.Is(err, fs.ErrPermission) {
				return fmt.Errorf("%w: run as root", err)
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&u.name, "name", loader.DefaultName, "name of the load balancer")
	f.StringVar(&u.bpffs, "bpffs", loader.DefaultBPFFS, "BPF file system that its maps are pinned to")
	f.StringVar(&u.runDir, "run-dir", loader.DefaultRunDir, "directory of its state files")
	f.BoolVar(&u.dryRun, "dry-run", false, "say what would be removed, and remove nothing")
	return c
}

func (u *unload) run(out io.Writer) (err error) {
	if err := loader.CheckName(u.name); err != nil {
		return err
	}
	lock, err := loader.Acquire(u.runDir, u.name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	claim, err := standalone.NewClaim(u.name) // with another run directory it runs, too
	if err != nil {
		return err
	}
	defer claim.Close()
	left, err := u.leftovers()
	if err != nil {
		return err
	}
	w := printer{out}
	if len(left) == 0 {
		w.printf("Nothing is left of load balancer %s.\n", u.name)
		if others := slices.DeleteFunc(loader.Names(u.bpffs), func(n string) bool { return n == u.name }); len(others) > 0 {
			w.printf("Others are loaded: %s. Name one with --name.\n", strings.Join(others, ", "))
		}
		return nil
	}
	// One that cannot be removed keeps none of the others.
	var errs []error
	for _, l := range left {
		if u.dryRun {
			w.printf("would remove %s\n", l.What)
			continue
		}
		if err := l.Remove(); err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", l.What, err))
			continue
		}
		w.printf("removed %s\n", l.What)
	}
	return errors.Join(errs...)
}

// leftovers returns what there is, addresses first: clients are to hear from nobody
// rather than from half of a load balancer.
func (u *unload) leftovers() ([]loader.Leftover, error) {
	addresses, err := standalone.Leftovers(u.runDir, u.name)
	if err != nil {
		return nil, err
	}
	held, err := bpfman.Leftovers(u.runDir, u.name)
	if err != nil {
		return nil, err
	}
	pinned, err := loader.Leftovers(loader.Options{Name: u.name, BPFFS: u.bpffs, RunDir: u.runDir})
	return slices.Concat(addresses, held, pinned), err
}
