// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

// Options say how an image is got, and what it must be. The zero value asks
// registries as Docker and Podman do, and verifies no signature.
type Options struct {
	// Keys of which one must have signed the image. None: it need not be signed.
	Keys []*PublicKey
	// Architecture of the machine that is to load it, by Go's name. Empty:
	// this machine's.
	Architecture string
	// AnyArchitecture takes another image when there is none for the machine.
	AnyArchitecture bool
	// Signatures are listed even when there are no Keys.
	Signatures bool

	// CAFile holds certificates, in PEM, that are trusted besides the system's.
	CAFile string
	// Keychain has the credentials. Nil: the files of Docker and Podman.
	Keychain authn.Keychain
	// Pause before the first of two retries; the second comes after three
	// times that. 0: one second.
	Pause time.Duration
	// Progress is told of bytes sent and received, from any goroutine.
	Progress func(bytes int)
}
