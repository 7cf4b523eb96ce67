// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/ipvs"
	"github.com/kubernetes-sigs/blixt/operator/migrate/keepalived"
)

func migrateIPVS() *migrateSource {
	return &migrateSource{
		name:  "ipvs",
		short: "Read what IPVS serves",
		long: `Reads what ipvsadm -Sn prints: the kernel's table of virtual services. A script of commands
of ipvsadm will do, too. Where keepalived has made the table, blixt migrate keepalived knows
more: its configuration has the checks as well.`,
		example: `  sudo ipvsadm -Sn | blixt migrate ipvs - -o blixt.yaml`,
		read:    ipvs.Read,
	}
}

func migrateKeepalived() *migrateSource {
	return &migrateSource{
		name:  "keepalived",
		short: "Read the virtual servers of keepalived",
		long: `Reads what keepalived has IPVS serve, with its checks, and all files that are included. VRRP
stays with keepalived: it decides which host has an address.`,
		example: `  blixt migrate keepalived /etc/keepalived/keepalived.conf -o blixt.yaml`,
		read:    keepalived.Read,
		gather: func(files []migrate.File) ([]migrate.File, error) {
			return included(files, false, keepalived.Includes, func(from migrate.File, pattern string) []string { return keepalived.Candidates(from.Name, pattern) })
		},
	}
}
