// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/kubernetes-sigs/blixt/bytecode"
)

// imageFlags select the object to load, and the keys that may have signed it.
type imageFlags struct {
	ref     string
	keys    []string
	options bytecode.Options
	name    string // of the image or file, set by object
}

func (i *imageFlags) add(f *pflag.FlagSet) {
	f.StringVar(&i.ref, "bytecode", "", "data plane to load: an image in a registry, a directory with an OCI layout, or a .o file (default: the one built in)")
	f.StringArrayVar(&i.keys, "verify-key", nil, "public key in PEM; --bytecode must be signed by one of those given")
	registryFlags(f, &i.options)
}

// object reads and verifies the object that the flags select; nil: the one built in.
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
