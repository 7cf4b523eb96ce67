// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Kinds of BTF types, of Documentation/bpf/btf.rst.
const (
	kindInt = iota + 1
	kindPtr
	kindArray
	kindStruct
	kindUnion
	kindEnum
	kindFwd
	kindTypedef
	kindVolatile
	kindConst
	kindRestrict
	kindFunc
	kindFuncProto
	kindVar
	kindDatasec
	kindFloat
	kindDeclTag
	kindTypeTag
	kindEnum64
)

// btfHeader is struct btf_header.
type btfHeader struct {
	Magic                               uint16
	Version, Flags                      uint8
	HdrLen                              uint32
	TypeOff, TypeLen, StringOff, StrLen uint32
}

// rawBTF is a .BTF section to which types can be added. Existing types keep their IDs and
// places, so references to them (.BTF.ext, relocations) stay valid.
type rawBTF struct {
	order   binary.ByteOrder
	header  btfHeader
	types   []byte
	strings []byte
	offsets []int // of type id 1 and on, in types
}

var errBTF = errors.New("type information (BTF) is damaged: compile the object again, with -g")

// setMaxEntries returns the object with other sizes of maps. A map's size is the length N
// of an array in its type: int (*max_entries)[N]. Maps of one size share that array, so
// each gets its own array, a pointer to it, and a copy of its struct with that pointer.
func setMaxEntries(object []byte, sizes map[string]uint32) ([]byte, error) {
	file, err := elf.NewFile(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	defer file.Close()
	at := slices.IndexFunc(file.Sections, func(s *elf.Section) bool { return s.Name == ".BTF" })
	if at < 0 || file.Class != elf.ELFCLASS64 {
		return nil, errors.New("object has no type information (BTF), which holds the sizes of its maps: compile it with -g")
	}
	data, err := file.Sections[at].Data()
	if err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	b, err := parseBTF(data, file.ByteOrder)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(sizes)) {
		if err := b.resize(name, sizes[name]); err != nil {
			return nil, fmt.Errorf("map %s: %w", name, err)
		}
	}
	return replaceSection(object, file, at, b.bytes()), nil
}

func parseBTF(data []byte, order binary.ByteOrder) (*rawBTF, error) {
	b := &rawBTF{order: order}
	if n, err := binary.Decode(data, order, &b.header); err != nil || n != binary.Size(b.header) || b.header.Magic != 0xeb9f {
		return nil, errBTF
	}
	h := b.header
	size := uint64(len(data))
	// Strings follow types, as every compiler writes them.
	if uint64(h.HdrLen)+uint64(h.StringOff)+uint64(h.StrLen) > size || h.TypeOff != 0 || h.StringOff != h.TypeLen || int(h.HdrLen) != binary.Size(h) {
		return nil, errBTF
	}
	b.types = bytes.Clone(data[h.HdrLen : h.HdrLen+h.TypeLen])
	b.strings = data[h.HdrLen+h.StringOff : h.HdrLen+h.StringOff+h.StrLen]
	for at := 0; at < len(b.types); {
		b.offsets = append(b.offsets, at)
		if at+12 > len(b.types) {
			return nil, errBTF
		}
		kind, members := b.info(at)
		at += 12 + extra(kind, members)
		if at > len(b.types) {
			return nil, errBTF
		}
	}
	return b, nil
}

// extra returns the number of bytes that follow the three words of a type.
func extra(kind, members int) int {
	switch kind {
	case kindInt, kindVar, kindDeclTag:
		return 4
	case kindArray:
		return 12
	case kindStruct, kindUnion, kindDatasec, kindEnum64:
		return 12 * members
	case kindEnum, kindFuncProto:
		return 8 * members
	}
	return 0
}

func (b *rawBTF) word(at int) uint32 { return b.order.Uint32(b.types[at:]) }

func (b *rawBTF) set(at int, v uint32) { b.order.PutUint32(b.types[at:], v) }

func (b *rawBTF) info(at int) (kind, members int) {
	info := b.word(at + 4)
	return int(info >> 24 & 0x1f), int(info & 0xffff)
}

func (b *rawBTF) name(offset uint32) string {
	if int(offset) >= len(b.strings) {
		return ""
	}
	name, _, _ := bytes.Cut(b.strings[offset:], []byte{0})
	return string(name)
}

// find returns the place of a type, if it is of a kind.
func (b *rawBTF) find(id uint32, kind int) (at int, ok bool) {
	if id == 0 || int(id) > len(b.offsets) {
		return 0, false
	}
	at = b.offsets[id-1]
	k, _ := b.info(at)
	return at, k == kind
}

// add appends a type and returns its id.
func (b *rawBTF) add(words ...uint32) uint32 {
	b.offsets = append(b.offsets, len(b.types))
	for _, w := range words {
		b.types = append(b.types, 0, 0, 0, 0)
		b.set(len(b.types)-4, w)
	}
	return uint32(len(b.offsets))
}

// resize gives a map's variable a type with another max_entries.
func (b *rawBTF) resize(name string, size uint32) error {
	variable := -1
	for _, at := range b.offsets {
		if kind, _ := b.info(at); kind == kindVar && b.name(b.word(at)) == name {
			variable = at
		}
	}
	if variable < 0 {
		return errors.New("the object has none")
	}
	definition, ok := b.find(b.word(variable+8), kindStruct)
	if !ok {
		return errBTF
	}
	_, members := b.info(definition)
	words := make([]uint32, 3+3*members)
	for i := range words {
		words[i] = b.word(definition + 4*i)
	}
	for m := 3; m < len(words); m += 3 {
		if b.name(words[m]) != "max_entries" {
			continue
		}
		pointer, ok := b.find(words[m+1], kindPtr)
		if !ok {
			return errBTF
		}
		array, ok := b.find(b.word(pointer+8), kindArray)
		if !ok {
			return errBTF
		}
		if b.word(array+20) == size {
			return nil
		}
		own := b.add(0, kindArray<<24, 0, b.word(array+12), b.word(array+16), size)
		words[m+1] = b.add(0, kindPtr<<24, own)
		b.set(variable+8, b.add(words...))
		return nil
	}
	return errors.New("its definition has no max_entries: write it with __uint(max_entries, N)")
}

func (b *rawBTF) bytes() []byte {
	b.header.TypeLen = uint32(len(b.types))
	b.header.StringOff = b.header.TypeLen
	out, err := binary.Append(nil, b.order, b.header)
	if err != nil {
		panic(err) // a struct of fixed size
	}
	return append(append(out, b.types...), b.strings...)
}
