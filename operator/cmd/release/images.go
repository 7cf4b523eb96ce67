// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/bytecode"
	"github.com/kubernetes-sigs/blixt/operator/release"
	"github.com/kubernetes-sigs/blixt/operator/release/images"
)

type imagesOptions struct {
	registry, platforms, key string
	remote                   bytecode.Options
	log                      io.Writer
}

// runImages builds the images of an installation in Kubernetes from the source in the
// current directory, and pushes them: one of the operator and its agents, and one of the
// bytecode.
func runImages(ctx context.Context, args []string) error {
	o := imagesOptions{log: os.Stderr}
	f := flag.NewFlagSet("images", flag.ExitOnError)
	f.StringVar(&o.registry, "registry", "", "host and path to push to, such as registry.example.com/blixt for blixt/operator and blixt/bytecode")
	f.StringVar(&o.platforms, "platforms", "linux/amd64,linux/arm64", "platforms of the cluster's nodes")
	f.StringVar(&o.key, "sign-key", "", "private key in PEM with which to sign both images, such as cosign.key; its password is read from COSIGN_PASSWORD")
	f.StringVar(&o.remote.CAFile, "ca-file", "", "file with CA certificates in PEM to trust in addition to the system's")
	_ = f.Parse(args) // it exits
	return o.run(ctx, os.Stdout)
}

// The repositories to which the images are pushed.
var repositories = []string{"operator", "bytecode"}

// run pushes both images, and prints the values with which the chart installs them.
func (o *imagesOptions) run(ctx context.Context, out io.Writer) error {
	if o.registry == "" {
		return errors.New("which registry? Name host and path, such as REGISTRY=registry.example.com/blixt")
	}
	architectures, err := architectures(o.platforms)
	if err != nil {
		return err
	}
	var key *bytecode.PrivateKey
	if o.key != "" { // before all the work
		if key, err = bytecode.ReadPrivateKey(o.key, password); err != nil {
			return err
		}
	}
	for _, repository := range repositories {
		if err := bytecode.CheckPush(o.registry+"/"+repository, o.remote); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "images")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var binaries []*release.Binary
	for _, arch := range architectures {
		fmt.Fprintf(o.log, "building blixt for linux/%s\n", arch)
		b, err := release.Build(ctx, filepath.Join(dir, arch), arch)
		if err != nil {
			return err
		}
		binaries = append(binaries, b)
	}
	operator, err := images.Index(binaries)
	if err != nil {
		return err
	}
	operatorImage, err := bytecode.FromIndex(operator)
	if err != nil {
		return err
	}
	bytecodeImage, err := newBytecode(ctx, binaries[0])
	if err != nil {
		return err
	}
	var names []string
	for i, image := range []*bytecode.Stored{operatorImage, bytecodeImage} {
		name, err := o.push(ctx, image, o.registry+"/"+repositories[i]+":"+binaries[0].Tag(), key)
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	_, err = io.WriteString(out, values(names[0], names[1], key))
	return err
}

func architectures(platforms string) (all []string, err error) {
	for p := range strings.SplitSeq(platforms, ",") {
		switch arch, linux := strings.CutPrefix(p, "linux/"); {
		case linux && slices.Contains(all, arch):
			return nil, fmt.Errorf("platforms %s: %s twice", platforms, p)
		case linux && (arch == "amd64" || arch == "arm64"):
			all = append(all, arch)
		default:
			return nil, fmt.Errorf("platform %q: want linux/amd64, linux/arm64 or both, separated by a comma", p)
		}
	}
	return all, nil
}

// newBytecode builds the same image as blixt bytecode build of this version.
func newBytecode(ctx context.Context, b *release.Binary) (*bytecode.Stored, error) {
	builtin, err := bytecode.Load(ctx, "", bytecode.Options{AnyArchitecture: true})
	if err != nil {
		return nil, err
	}
	return bytecode.New(builtin.Object, bytecode.Meta{Source: release.Home, Version: b.Version(), Revision: b.Revision()})
}

// push pushes an image, and returns its name by digest.
func (o *imagesOptions) push(ctx context.Context, image *bytecode.Stored, to string, key *bytecode.PrivateKey) (string, error) {
	fmt.Fprintf(o.log, "pushing %s\n", to)
	name, err := image.Push(ctx, to, o.remote)
	if err != nil || key == nil {
		return name, err
	}
	pushed, err := bytecode.Open(ctx, name, o.remote)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(o.log, "signing %s\n", name)
	return pushed.Sign(ctx, key, o.remote)
}

// values returns values of the chart, in YAML. With a key that has signed the images,
// nodes are to run no bytecode of others.
func values(operator, program string, key *bytecode.PrivateKey) string {
	repository, digest, _ := strings.Cut(operator, "@")
	text := fmt.Sprintf(`image:
  repository: %s
  digest: %s
bytecode:
  image: %s
`, repository, digest, program)
	if key == nil {
		return text
	}
	const indent = "\n          "
	return text + `config:
  dataplane:
    bytecode:
      verificationKeys:
        - |` + indent + strings.ReplaceAll(strings.TrimSpace(key.Public.PEM), "\n", indent) + "\n"
}

func password() ([]byte, error) {
	if p, ok := os.LookupEnv("COSIGN_PASSWORD"); ok {
		return []byte(p), nil
	}
	return nil, errors.New("the key has a password: set COSIGN_PASSWORD")
}
