// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"debug/elf"
	"encoding/binary"
	"slices"
)

// Offsets within the header of a 64-bit ELF file, and within the header of a
// section.
const (
	elfSectionHeaders = 0x28
	sectionHeaderSize = 64
	sectionOffset     = 0x18
	sectionSize       = 0x20
)

// replaceSection replaces the data of a section. What follows it in the file moves by a
// multiple of 8, the largest alignment in such an object.
func replaceSection(object []byte, file *elf.File, index int, data []byte) []byte {
	s := file.Sections[index]
	end := s.Offset + s.FileSize
	grow := uint64(0)
	if n := uint64(len(data)); n > s.FileSize {
		grow = (n - s.FileSize + 7) &^ 7
	}
	out := slices.Concat(object[:s.Offset], data, make([]byte, s.FileSize+grow-uint64(len(data))), object[end:])
	order := file.ByteOrder
	headers := order.Uint64(out[elfSectionHeaders:])
	if headers >= end {
		headers += grow
		order.PutUint64(out[elfSectionHeaders:], headers)
	}
	for i, other := range file.Sections {
		header := out[headers+uint64(i)*sectionHeaderSize:]
		if other.Offset >= end {
			move(order, header[sectionOffset:], grow)
		}
		if i == index {
			order.PutUint64(header[sectionSize:], uint64(len(data)))
		}
	}
	return out
}

func move(order binary.ByteOrder, field []byte, by uint64) {
	order.PutUint64(field, order.Uint64(field)+by)
}
