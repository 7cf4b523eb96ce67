// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/kubernetes-sigs/blixt/operator/migrate/haproxy"

func migrateHAProxy() *migrateSource {
	return &migrateSource{
		name:  "haproxy",
		short: "Turn what HAProxy serves in mode tcp into files for Blixt",
		long: `Reads configurations of HAProxy in the order in which HAProxy reads them. What is in mode
http is not carried over, but for a note.

A file that an ACL names by -f is a list of addresses: name it behind the configurations.`,
		example: `  blixt migrate haproxy /etc/haproxy/haproxy.cfg -o /etc/blixt/haproxy.yaml
  blixt migrate haproxy /etc/haproxy/haproxy.cfg /etc/haproxy/allowed.lst`,
		read: haproxy.Read,
	}
}
