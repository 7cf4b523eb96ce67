// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"os"

	"github.com/kubernetes-sigs/blixt/bytecode"
	"github.com/kubernetes-sigs/blixt/operator/release/publish"
)

// runPublish publishes a release that build has made.
func runPublish(ctx context.Context, args []string) error {
	o := publish.Options{Log: os.Stderr}
	var key string
	var keyless bool
	var k publish.Keyless
	f := flag.NewFlagSet("publish", flag.ExitOnError)
	f.StringVar(&o.Dist, "dist", "dist", "directory with the release; its list names the registry")
	f.BoolVar(&o.Untagged, "untagged", false, "publish a commit that has not the version as its tag")
	f.StringVar(&key, "sign-key", "", "private key in PEM to sign with, such as cosign.key; its password is read from COSIGN_PASSWORD")
	f.BoolVar(&keyless, "keyless", false, "sign with certificates for an identity, that of the workflow of GitHub in which this runs")
	f.StringVar(&k.Program, "cosign", "cosign", "with -keyless: the program")
	f.StringVar(&k.Identity, "identity", "", "with -keyless: who signs, as in the certificate, outside of workflows")
	f.StringVar(&k.Issuer, "issuer", "", "with -keyless: the URL of who vouches for the identity")
	f.StringVar(&k.Token, "identity-token", "", "with -keyless: file with a token of the identity, outside of workflows")
	f.StringVar(&k.SigningConfig, "signing-config", "", "with -keyless: file that names the services of a Sigstore of one's own")
	f.StringVar(&k.TrustedRoot, "trusted-root", "", "with -keyless: file with the trusted root of that Sigstore")
	f.BoolVar(&k.NoLog, "no-log", false, "with -keyless: that Sigstore has no logs, but signs the time")
	f.StringVar(&o.Remote.CAFile, "ca-file", "", "file with CA certificates in PEM to trust in addition to the system's")
	_ = f.Parse(args) // it exits
	switch {
	case f.NArg() > 0:
		return errors.New("it takes no arguments but flags")
	case keyless == (key != ""):
		return errors.New("who signs? Name a key with -sign-key, or sign as the workflow that this runs in with -keyless")
	case keyless:
		if err := k.Complete(os.Getenv); err != nil {
			return err
		}
		o.Signer = &k
	default:
		read, err := bytecode.ReadPrivateKey(key, password)
		if err != nil {
			return err
		}
		o.Signer = publish.Key{PrivateKey: read}
	}
	return publish.Run(ctx, o, os.Stdout)
}
