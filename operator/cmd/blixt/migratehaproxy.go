// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/migrate/haproxy"
)

func migrateHAProxy() *migrateSource {
	return &migrateSource{
		name:  "haproxy",
		short: "Read what HAProxy serves in mode tcp",
		long: `Reads configurations of HAProxy in the order in which HAProxy reads them; of a directory
all files *.cfg, like haproxy -f. What is in mode http is told, and stays with HAProxy.

A file that an ACL names by -f is a list of addresses: name it behind the configurations.`,
		example: `  blixt migrate haproxy /etc/haproxy/haproxy.cfg -o blixt.yaml
  blixt migrate haproxy /etc/haproxy/conf.d
  blixt migrate haproxy haproxy.cfg allowed.lst --address 192.0.2.10`,
		directory: haproxyFiles,
		read:      haproxy.Read,
	}
}

// haproxyFiles puts the files *.cfg of a directory in its place, by their names. HAProxy
// passes over those that begin with a dot.
func haproxyFiles(paths []string) (all []string, err error) {
	for _, path := range paths {
		info, err := os.Stat(path)
		if path == "-" || err != nil || !info.IsDir() {
			all = append(all, path)
			continue
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, forRoot(err)
		}
		before := len(all)
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".cfg") && !strings.HasPrefix(e.Name(), ".") {
				all = append(all, filepath.Join(path, e.Name()))
			}
		}
		if len(all) == before {
			return nil, fmt.Errorf("%s has no file *.cfg: name the files of the configuration", path)
		}
	}
	return all, nil
}
