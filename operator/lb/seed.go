// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
)

// ParseSeed returns the seed of a secret: at least 16 bytes in base64. Errors
// never name the contents.
func ParseSeed(text string) (uint64, error) {
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil || len(secret) < 16 {
		return 0, errors.New("want at least 16 bytes in base64, as of: head -c 16 /dev/urandom | base64")
	}
	sum := sha256.Sum256(secret)
	return binary.BigEndian.Uint64(sum[:8]), nil
}
