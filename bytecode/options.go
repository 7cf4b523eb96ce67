// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

// Options select how to read an image, and what it must be. The zero value uses the
// credentials of Docker and Podman, and verifies no signature.
type Options struct {
	// Keys: one of them must have signed the image. None: it need not be signed.
	Keys []*PublicKey
	// Architecture of the machine that is to load the object, by Go's name; "": this
	// machine's.
	Architecture string
	// AnyArchitecture accepts another architecture if there is no image for this one.
	AnyArchitecture bool

	// CAFile holds CA certificates, in PEM, to trust in addition to the system's.
	CAFile string
	// Keychain has the credentials; nil: those in the files of Docker and Podman.
	Keychain authn.Keychain
	// Pause before the first of two retries; the pause before the second is three times
	// as long. 0: one second. Also the pause before a list of what was attached is read
	// again, where another may have written it meanwhile; 0: 200 ms.
	Pause time.Duration
	// Progress is called, from any goroutine, with numbers of bytes sent or received.
	Progress func(bytes int)
}
