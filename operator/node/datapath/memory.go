// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// mmap maps an array into memory, as words.
func mmap[word uint32 | uint64](m *Maps, a *ebpf.Map) ([]word, error) {
	memory, err := unix.Mmap(a.FD(), 0, arrayBytes(a), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s into memory: %w", a, err)
	}
	m.memory = append(m.memory, memory)
	return wordsOf[word](memory), nil
}

// arrayBytes returns the size of an array, whose elements are rounded up to 8 bytes.
func arrayBytes(a *ebpf.Map) int { return int(a.MaxEntries()) * int((a.ValueSize()+7)&^7) }

func wordsOf[word uint32 | uint64](memory []byte) []word {
	return unsafe.Slice((*word)(unsafe.Pointer(unsafe.SliceData(memory))), len(memory)/int(unsafe.Sizeof(word(0))))
}

// A large array is mapped by pieces of this size, which is a multiple of every size of pages.
const (
	pieceBytes = 64 << 10
	pieceWords = pieceBytes / 8
)

// words is a large array of which each piece is mapped into memory when it is first used, for
// good: the kernel counts all that is mapped as memory of the process. It may be nil.
type words struct {
	of     *ebpf.Map
	memory []uint64 // its address is reserved; only pieces that are mapped may be touched
	mapped []atomic.Bool
	mu     sync.Mutex // held to map a piece
}

// reserve returns an array of which nothing is mapped yet.
func (m *Maps) reserve(a *ebpf.Map) (*words, error) {
	memory, err := unix.Mmap(-1, 0, arrayBytes(a), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserve memory for %s: %w", a, err)
	}
	m.memory = append(m.memory, memory)
	return &words{of: a, memory: wordsOf[uint64](memory), mapped: make([]atomic.Bool, (len(memory)+pieceBytes-1)/pieceBytes)}, nil
}

func (w *words) len() int {
	if w == nil {
		return 0
	}
	return len(w.memory)
}

// at returns n words of the array.
func (w *words) at(i, n int) ([]uint64, error) {
	for p := i / pieceWords; p*pieceWords < i+n; p++ {
		if w.mapped[p].Load() {
			continue
		}
		if err := w.mapPiece(p); err != nil {
			return nil, fmt.Errorf("map %s into memory: %w", w.of, err)
		}
	}
	return w.memory[i : i+n : i+n], nil
}

func (w *words) mapPiece(p int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mapped[p].Load() {
		return nil
	}
	piece := w.piece(p)
	_, err := unix.MmapPtr(w.of.FD(), int64(p)*pieceBytes, unsafe.Pointer(unsafe.SliceData(piece)), uintptr(len(piece)*8),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED)
	if err == nil {
		w.mapped[p].Store(true)
	}
	return err
}

func (w *words) piece(p int) []uint64 {
	return w.memory[p*pieceWords : min((p+1)*pieceWords, len(w.memory))]
}

// each calls f with all pieces in order, and with the place of their first word. One that is
// not in use is mapped for the call only.
func (w *words) each(f func(at int, piece []uint64)) error {
	if w == nil {
		return nil
	}
	for p := range w.mapped {
		piece := w.piece(p)
		if w.mapped[p].Load() {
			f(p*pieceWords, piece)
			continue
		}
		memory, err := unix.Mmap(w.of.FD(), int64(p)*pieceBytes, len(piece)*8, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return fmt.Errorf("map %s into memory: %w", w.of, err)
		}
		f(p*pieceWords, wordsOf[uint64](memory))
		if err := unix.Munmap(memory); err != nil {
			return fmt.Errorf("unmap %s: %w", w.of, err)
		}
	}
	return nil
}
