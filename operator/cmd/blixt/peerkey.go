// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
)

func peerKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "peer-key [FILE]",
		Short: "Print a new key for blixt run --peer-key",
		Long: `Prints a key with which hosts sign the clients that they announce to each other. All
hosts that are peers have the same file: one key on each line, of which the first
signs, and all are accepted.

With a FILE the new key is one that the file can take in. To rotate keys without a
connection whose client is not seen, finish each step on all hosts before the next one:
  1. Add the new key as the last line. From then on all hosts accept it.
  2. Move it to the first line. From then on they sign with it.
  3. Two minutes later, remove the previous key.
A running blixt follows the file within two seconds, and logs which keys it has.`,
		Example: `  (umask 077; blixt peer-key > /etc/blixt/peer-key)
  blixt peer-key /etc/blixt/peer-key >> /etc/blixt/peer-key
  openssl rand -hex 16    # makes a first key as well`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var others standalone.PeerKeys
			var err error
			if len(args) > 0 {
				if others, err = standalone.ReadPeerKeys(args[0]); err != nil {
					return err
				}
			}
			key, err := standalone.NewPeerKey(others)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), key)
			return err
		},
	}
}
