// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/kubernetes-sigs/blixt/operator/migrate/ipvs"

func migrateIPVS() *migrateSource {
	return &migrateSource{
		name:  "ipvs",
		short: "Read what IPVS serves",
		long: `Reads what ipvsadm -Sn prints: the kernel's table of virtual services. A script of commands
of ipvsadm will do, too. For a configuration of keepalived, which knows about checks as well,
there is blixt migrate keepalived.`,
		example: `  sudo ipvsadm -Sn | blixt migrate ipvs - -o blixt.yaml`,
		read:    ipvs.Read,
	}
}
