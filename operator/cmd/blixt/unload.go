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
	"github.com/kubernetes-sigs/blixt/operator/node/others"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
)

// unload is what to remove, and where it is.
type unload struct {
	name, bpffs, runDir string
	program             uint32
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

A program whose pins are not to be found, as those of a container that is gone, or of a
BPF file system that another one hides, is removed by its number: --program.

While a process runs the load balancer, stop that process instead: then nothing is
left. What bpfman holds is removed through the bpfman that has loaded it.`,
		Example: `  blixt unload --dry-run
  blixt unload --name web
  blixt unload --program 4711`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			run := u.run
			if u.program != 0 {
				run = u.runProgram
			}
			err := run(c.OutOrStdout())
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
	f.Uint32Var(&u.program, "program", 0, "number of a program that no load balancer has any more, in this network namespace; blixt run names it")
	c.MarkFlagsMutuallyExclusive("name", "program")
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
	return u.remove(w, left)
}

// runProgram removes a program by its number.
func (u *unload) runProgram(out io.Writer) error {
	found, err := others.NewFinder(u.bpffs, func() []string { return nil }).Find()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(found, func(d *others.DataPlane) bool { return uint32(d.Program) == u.program })
	switch {
	case i < 0:
		return fmt.Errorf("program %d is none of Blixt's that is attached in this network namespace", u.program)
	case found[i].Name != "":
		return fmt.Errorf("program %d is that of load balancer %s: blixt unload --name %s", u.program, found[i].Name, found[i].Name)
	case bpfman.Holds(u.program):
		return fmt.Errorf("bpfman holds program %d: bpfman unload %d", u.program, u.program)
	}
	running, err := standalone.Claimed()
	if err != nil {
		return err
	}
	pinned := loader.Names(u.bpffs)
	for _, name := range running {
		if !slices.Contains(pinned, name) {
			return fmt.Errorf("load balancer %s runs in this network namespace, and program %d may be its own: stop it first", name, u.program)
		}
	}
	left, err := loader.LeftoversOf(u.program)
	if err != nil {
		return err
	}
	return u.remove(printer{out}, left)
}

// remove removes what is left. One that cannot be removed keeps none of the others.
func (u *unload) remove(w printer, left []loader.Leftover) error {
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
