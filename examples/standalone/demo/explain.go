// SPDX-License-Identifier: Apache-2.0

package main

import "fmt"

// explain prints what to try while everything runs.
func (d *demo) explain() {
	binary, name, client := d.blixt.Binary, d.blixt.Name, d.net.Client.Path()
	fmt.Printf(`
Everything keeps running. In another terminal, as root:

  Ask the load balancer, and again, and see who answers:
    nsenter --net=%[3]s curl http://198.51.100.10/
    nsenter --net=%[3]s curl 'http://[2001:db8:100::10]/'
    nsenter --net=%[3]s bash -c \
        'exec 3<>/dev/udp/198.51.100.10/53; echo >&3; head -1 <&3'

  See what Blixt does:
    %[1]s status --name %[2]s
    %[1]s status --name %[2]s -o yaml

  Change who serves; Blixt follows when the file is saved:
    $EDITOR %[4]s/endpoints.yaml

To end: Ctrl-C here.
`, binary, name, client, d.blixt.Dir)
}
