// SPDX-License-Identifier: Apache-2.0

package announce

import (
	"encoding/binary"
	"math/bits"
)

// Key is a key of SipHash-2-4.
type Key [16]byte

// Hash is SipHash-2-4 of b: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012.
func Hash(key Key, b []byte) uint64 {
	k0, k1 := binary.LittleEndian.Uint64(key[:]), binary.LittleEndian.Uint64(key[8:])
	v0, v1, v2, v3 := k0^0x736f6d6570736575, k1^0x646f72616e646f6d, k0^0x6c7967656e657261, k1^0x7465646279746573
	rounds := func(n int) {
		for range n {
			v0 += v1
			v2 += v3
			v1 = bits.RotateLeft64(v1, 13) ^ v0
			v3 = bits.RotateLeft64(v3, 16) ^ v2
			v0 = bits.RotateLeft64(v0, 32)
			v2 += v1
			v0 += v3
			v1 = bits.RotateLeft64(v1, 17) ^ v2
			v3 = bits.RotateLeft64(v3, 21) ^ v0
			v2 = bits.RotateLeft64(v2, 32)
		}
	}
	compress := func(word uint64) {
		v3 ^= word
		rounds(2)
		v0 ^= word
	}
	last := uint64(len(b)) << 56
	for ; len(b) >= 8; b = b[8:] {
		compress(binary.LittleEndian.Uint64(b))
	}
	for i, c := range b {
		last |= uint64(c) << (8 * i)
	}
	compress(last)
	v2 ^= 0xff
	rounds(4)
	return v0 ^ v1 ^ v2 ^ v3
}
