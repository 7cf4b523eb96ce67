// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/bytecode"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/bpfman"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/others"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// loaders are the ways to load a program into the kernel, and the flags that choose
// one.
type loaders struct {
	chosen           string
	image            imageFlags
	flows, ringSlots uint32
	replace          bool
	builtin          loader.Options
	bpfman           bpfman.Options
}

func (l *loaders) flags(f *pflag.FlagSet) {
	l.image.add(f)
	f.StringVar(&l.chosen, "loader", "builtin", "loader of the program: builtin or bpfman")
	f.StringVar(&l.bpfman.Socket, "bpfman-socket", bpfman.DefaultSocket, "socket of bpfman")
	f.IntVar(&l.bpfman.Priority, "priority", bpfman.DefaultPriority, "priority among bpfman's programs, 1 to 1000: the lowest sees packets first")
	f.DurationVar(&l.bpfman.DrainTimeout, "drain-timeout", time.Hour, "how long bpfman's program of a previous version may continue to serve its flows; 0: not at all")
	f.StringVar(&l.bpfman.Netns, "netns", "", "path under which bpfman finds the network namespace of this process (default: detected)")
}

// choose returns the function that loads the program. A name has one loader at a
// time.
func (l *loaders) choose(ctx context.Context, name, runDir string, ports lb.PortRange, others *others.Finder) (func([]hostnet.Interface) (*standalone.Loaded, error), error) {
	const left = "%s has left load balancer %q serving: end it with blixt run --loader %s and without --keep, or choose another name"
	if l.chosen == "builtin" { // pulling an image may take long
		if err := loader.CheckPrivileges(); err != nil {
			return nil, err
		}
	}
	object, err := l.image.object(ctx)
	if err != nil {
		return nil, err
	}
	switch l.chosen {
	case "builtin":
		if bpfman.Loaded(runDir, name) {
			return nil, fmt.Errorf(left, "bpfman", name, "bpfman")
		}
		o := l.builtin
		o.Image = l.image.name
		o.Name, o.RunDir, o.Replace, o.Object, o.Flows, o.RingSlots = name, runDir, l.replace, object, l.flows, l.ringSlots
		return func(interfaces []hostnet.Interface) (*standalone.Loaded, error) {
			o.Interfaces = interfaces
			if err := standalone.CheckOthersPorts(ports, others); err != nil {
				return nil, err
			}
			d, err := loader.Load(o)
			if err != nil {
				return nil, err
			}
			if !d.Adopted() {
				if err := standalone.ClaimPorts(ports, others, d.Dir()); err != nil {
					return nil, errors.Join(err, d.Close(false))
				}
			}
			return &standalone.Loaded{Loader: d, SNATPorts: func() lb.PortRange { return ports }, Adopted: d.Adopted()}, nil
		}, nil
	case "bpfman":
		if _, err := os.Stat(loader.Pins(l.builtin.BPFFS, name)); !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf(left, "the built-in loader", name, "builtin")
		}
		o := l.bpfman
		o.Name, o.RunDir, o.Replace = name, runDir, l.replace
		if o.Object, err = l.sized(object); err != nil {
			return nil, err
		}
		// By digest bpfman gets the image that was read and verified here.
		if _, err := os.Stat(l.image.ref); err != nil && strings.Contains(l.image.ref, "@sha256:") && bytes.Equal(o.Object, object) {
			o.Image = l.image.ref
		}
		o.SNATPorts, o.Unfinished = ports, unfinished
		return func(interfaces []hostnet.Interface) (*standalone.Loaded, error) {
			o.Interfaces = interfaces
			d, err := bpfman.Load(o)
			if err != nil {
				return nil, err
			}
			// Only now it is known which programs are those of this name. What serves already goes on.
			serves := d.Adopted() || len(d.Previous()) > 0
			if err := standalone.CheckOthersPorts(d.SNATPorts(), others); err != nil && !serves {
				return nil, errors.Join(err, d.Close(false))
			}
			loaded := &standalone.Loaded{Loader: d, SNATPorts: d.SNATPorts, Adopted: d.Adopted(), Lost: d.Lost}
			for _, p := range d.Previous() {
				loaded.Previous = append(loaded.Previous, p)
			}
			return loaded, nil
		}, nil
	}
	return nil, fmt.Errorf("loader %q: want builtin or bpfman", l.chosen)
}

// sized returns an object, nil: the one built in, with tables of the sizes that the
// flags ask for. bpfman takes the sizes from the object.
func (l *loaders) sized(object []byte) ([]byte, error) {
	if object == nil {
		object = bpf.Object()
	}
	parsed, err := bytecode.ParseObject(object)
	if err != nil {
		return nil, err
	}
	parsed, err = parsed.Resize(bytecode.Sizes{Flows: l.flows, RingSlots: l.ringSlots})
	if err != nil {
		return nil, err
	}
	return parsed.Bytes, nil
}

// unfinished returns how many unfinished flows are in the maps that are pinned in a
// directory.
func unfinished(dir string) (uint64, error) {
	tables, err := datapath.Open(dir)
	if err != nil {
		return 0, err
	}
	defer tables.Close()
	return writer.Unfinished(tables)
}
