// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"encoding/hex"
	"math/rand/v2"
)

// text returns letters without a pattern, so that a part which is lost, repeated or
// moved is noticed.
func text(n int) string {
	random := rand.NewChaCha8([32]byte{'b', 'l', 'i', 'x', 't'})
	bytes := make([]byte, n/2+1)
	_, _ = random.Read(bytes) // never fails
	return hex.EncodeToString(bytes)[:n]
}
