// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/masquerade"
	"github.com/kubernetes-sigs/blixt/operator/node/vip"
)

// Leftovers returns the addresses and the files that a load balancer has left on this
// host, and how to remove them. The caller holds the lock of the name.
func Leftovers(runDir, name string) (left []loader.Leftover, err error) {
	if err := vip.AdoptNoted(filepath.Join(runDir, name+".addresses"), name); err != nil {
		return nil, err
	}
	addresses, err := vip.ListLeft(name)
	if err != nil {
		return nil, err
	}
	for _, a := range addresses {
		left = append(left, loader.Leftover{What: fmt.Sprintf("the address %s of %s", a.IP, a.Interface), Remove: a.Remove})
	}
	masquerades, err := masquerade.Exists(name)
	if err != nil {
		return nil, err
	}
	if masquerades {
		left = append(left, loader.Leftover{What: "the nftables table by which this host masquerades", Remove: func() error { return masquerade.Remove(name) }})
	}
	for _, path := range []string{StateFile(runDir, name), PeersFile(runDir, name), StatusFile(runDir, name), SocketFile(runDir, name)} {
		if _, err := os.Lstat(path); err == nil {
			left = append(left, loader.Leftover{What: "the file " + path, Remove: func() error { return os.Remove(path) }})
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return left, nil
}
