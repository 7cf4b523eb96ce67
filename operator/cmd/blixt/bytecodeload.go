// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/kubernetes-sigs/blixt/bytecode"
)

// imageFlags say which object is to be loaded, and whose it must be.
type imageFlags struct {
	ref     string
	keys    []string
	options bytecode.Options
	name    string // of what object has read
}

func (i *imageFlags) add(f *pflag.FlagSet) {
	f.StringVar(&i.ref, "bytecode", "", "data plane to load: an image in a registry, a directory with an OCI layout, or a .o file (default: the one built in)")
	f.StringArrayVar(&i.keys, "verify-key", nil, "public key in PEM that must have signed --bytecode; of several, one")
	registryFlags(f, &i.options)
}

// object returns nil for the one built in.
func (i *imageFlags) object(ctx context.Context) ([]byte, error) {
	if i.ref == "" && len(i.keys) == 0 {
		return nil, nil
	}
	var err error
	if i.options.Keys, err = readKeys(i.keys); err != nil {
		return nil, err
	}
	im, err := bytecode.Load(ctx, i.ref, i.options)
	if err != nil {
		return nil, err
	}
	i.name = im.Name
	return im.Object.Bytes, nil
}
