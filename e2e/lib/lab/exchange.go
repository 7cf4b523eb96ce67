// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
)

// Exchange sends random bytes and their hash while it receives those of the peer. The
// client gives the number; 0 makes it the server, which sends as many.
func Exchange(c net.Conn, size int) error {
	client := size > 0
	head := make([]byte, 8)
	if client {
		binary.BigEndian.PutUint64(head, uint64(size))
		if _, err := c.Write(head); err != nil {
			return err
		}
	} else {
		if _, err := io.ReadFull(c, head); err != nil {
			return err
		}
		size = int(binary.BigEndian.Uint64(head))
	}
	sent := make(chan error, 1)
	go func() {
		hash := sha256.New()
		random := io.LimitReader(rand.NewChaCha8([32]byte{'b', 'u', 'l', 'k'}), int64(size))
		if _, err := io.CopyBuffer(c, io.TeeReader(random, hash), make([]byte, 1<<18)); err != nil {
			sent <- err
			return
		}
		_, err := c.Write(hash.Sum(nil))
		sent <- err
	}()
	hash := sha256.New()
	if _, err := io.CopyN(hash, c, int64(size)); err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	sum := make([]byte, sha256.Size)
	if _, err := io.ReadFull(c, sum); err != nil {
		return fmt.Errorf("receive hash: %w", err)
	}
	if string(sum) != string(hash.Sum(nil)) {
		return fmt.Errorf("%d bytes arrive with hash %x, sent with %x", size, hash.Sum(nil), sum)
	}
	return <-sent
}
