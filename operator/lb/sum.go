// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
)

// Sum identifies a set of elements: it is the sum of their hashes modulo 2^256.
// So an element comes or goes at the cost of that element, whatever the size of
// the set.
//
// It finds mistakes: a lost update, or another version of Blixt. It is no
// security boundary. Whoever may choose thousands of elements can find sets of
// the same sum with much less work than collisions of SHA-256 take (Wagner: A
// Generalized Birthday Problem, 2002).
type Sum [4]uint64 // the lowest 64 bits first

// SumOf returns the sum of one element, given its encoding.
func SumOf(element []byte) (s Sum) {
	hash := sha256.Sum256(element)
	for i := range s {
		s[i] = binary.LittleEndian.Uint64(hash[8*i:])
	}
	return s
}

// Add adds the elements of o to s.
func (s *Sum) Add(o Sum) {
	var carry uint64
	for i := range s {
		s[i], carry = bits.Add64(s[i], o[i], carry)
	}
}

// Remove removes the elements of o, which s must have, from s.
func (s *Sum) Remove(o Sum) {
	var borrow uint64
	for i := range s {
		s[i], borrow = bits.Sub64(s[i], o[i], borrow)
	}
}

// Bytes returns the 32 bytes of the sum.
func (s Sum) Bytes() []byte {
	var text []byte
	for _, part := range s {
		text = binary.LittleEndian.AppendUint64(text, part)
	}
	return text
}

// SumFromBytes is the reverse of Bytes. It returns false for anything but 32 bytes.
func SumFromBytes(text []byte) (s Sum, ok bool) {
	if len(text) != 8*len(s) {
		return s, false
	}
	for i := range s {
		s[i] = binary.LittleEndian.Uint64(text[8*i:])
	}
	return s, true
}

// Short returns 64 bits that stand for the sum. They are not zero for the empty
// set.
func (s Sum) Short() uint64 {
	hash := sha256.Sum256(s.Bytes())
	return binary.BigEndian.Uint64(hash[:])
}
