// SPDX-License-Identifier: Apache-2.0

package phrase

import (
	"fmt"
	"strings"
)

// Clip returns a text of at most so many bytes, at least 32, with how many are left
// out at its end. No character is cut in two.
func Clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	kept := strings.ToValidUTF8(text[:most-32], "")
	return fmt.Sprintf("%s… (%d bytes left out)", kept, len(text)-len(kept))
}
