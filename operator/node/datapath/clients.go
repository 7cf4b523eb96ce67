// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"

	"github.com/cilium/ebpf"

	"github.com/kubernetes-sigs/blixt/bpf"
)

// SetProtectedClients makes the map of the program pinned at dir hold these
// prefixes of clients: whether IPsec policies of the host cover them. What is added
// comes first. A program of another version may have no such map.
func SetProtectedClients(dir string, clients map[netip.Prefix]bool) error {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, bpf.BlixtMapProtectedClients), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open map %s: %w", bpf.BlixtMapProtectedClients, err)
	}
	defer m.Close()
	wanted := map[bpf.BlixtClientPrefix]bool{}
	for prefix, protected := range clients {
		key := bpf.BlixtClientPrefix{Bits: uint32(prefix.Bits()), Addr: ToAddr(prefix.Addr())}
		if prefix.Addr().Is4() {
			key.Bits += 96
		}
		value := uint32(0)
		if protected {
			value = 1
		}
		if err := m.Put(key, value); err != nil {
			return fmt.Errorf("protect clients of %s: %w", prefix, err)
		}
		wanted[key] = true
	}
	var key bpf.BlixtClientPrefix
	var value uint32
	var gone []bpf.BlixtClientPrefix
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		if !wanted[key] {
			gone = append(gone, key)
		}
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("read %s: %w", bpf.BlixtMapProtectedClients, err)
	}
	for _, key := range gone {
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove from %s: %w", bpf.BlixtMapProtectedClients, err)
		}
	}
	return nil
}
