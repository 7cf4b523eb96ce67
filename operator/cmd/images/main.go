// SPDX-License-Identifier: Apache-2.0

// Command images builds the images of an installation in Kubernetes from the source in
// the current directory, and pushes them: one of the operator and its agents, and one of
// the bytecode. Equal source and an equal Go give equal digests. It needs Go, but neither
// Docker nor Podman.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/kubernetes-sigs/blixt/bytecode"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o := options{log: os.Stderr}
	flag.StringVar(&o.registry, "registry", "", "host and path to push to, such as registry.example.com/blixt for blixt/operator and blixt/bytecode")
	flag.StringVar(&o.platforms, "platforms", "linux/amd64,linux/arm64", "platforms of the cluster's nodes")
	flag.StringVar(&o.key, "sign-key", "", "private key in PEM with which to sign both images, such as cosign.key; its password is read from COSIGN_PASSWORD")
	flag.StringVar(&o.remote.CAFile, "ca-file", "", "file with CA certificates in PEM to trust in addition to the system's")
	flag.Parse()
	if err := o.run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		stop()
		os.Exit(1)
	}
}

type options struct {
	registry, platforms, key string
	remote                   bytecode.Options
	log                      io.Writer
}

// The repositories to which the images are pushed.
var repositories = []string{"operator", "bytecode"}

// run pushes both images, and prints the values with which the chart installs them.
func (o *options) run(ctx context.Context, out io.Writer) error {
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
	var binaries []*binary
	for _, arch := range architectures {
		fmt.Fprintf(o.log, "building blixt for linux/%s\n", arch)
		b, err := build(ctx, filepath.Join(dir, arch), arch)
		if err != nil {
			return err
		}
		binaries = append(binaries, b)
	}
	operator, err := newIndex(binaries)
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
		name, err := o.push(ctx, image, o.registry+"/"+repositories[i]+":"+binaries[0].tag(), key)
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
		case linux && (arch == "amd64" || arch == "arm64"):
			all = append(all, arch)
		default:
			return nil, fmt.Errorf("platform %q: want linux/amd64, linux/arm64 or both, separated by a comma", p)
		}
	}
	return all, nil
}

// newBytecode builds the same image as blixt bytecode build of this version.
func newBytecode(ctx context.Context, b *binary) (*bytecode.Stored, error) {
	builtin, err := bytecode.Load(ctx, "", bytecode.Options{AnyArchitecture: true})
	if err != nil {
		return nil, err
	}
	return bytecode.New(builtin.Object, bytecode.Meta{Source: source, Version: b.version(), Revision: b.setting("vcs.revision")})
}

// push pushes an image, and returns its name by digest.
func (o *options) push(ctx context.Context, image *bytecode.Stored, to string, key *bytecode.PrivateKey) (string, error) {
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
