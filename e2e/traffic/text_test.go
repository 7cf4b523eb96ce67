// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"encoding/hex"
	"math/rand/v2"
)

// text returns letters without a pattern: a part that is lost, repeated or in
// another place shows.
func text(n int) string {
	random := rand.NewChaCha8([32]byte{'b', 'l', 'i', 'x', 't'})
	bytes := make([]byte, n/2+1)
	_, _ = random.Read(bytes) // never fails
	return hex.EncodeToString(bytes)[:n]
}
